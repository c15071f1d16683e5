"""UTD-MHAD: .mat files -> a prepared directory."""

import os
import pathlib

import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds

from jaxmg.data import prepared, source
from jaxmg.errors import DataError


@pytest.fixture
def raw(tmp_path):
  """Three recordings: two subjects that train, one that tests."""
  rng = np.random.default_rng(0)
  folder = tmp_path / "raw" / "Skeleton"
  folder.mkdir(parents=True)
  for name in ("a1_s1_t1", "a27_s2_t4", "a10_s3_t2"):
    joints = rng.uniform((-1, -1, 2), (1, 1, 4), (5, 20, 3))
    scipy.io.savemat(folder / f"{name}_skeleton.mat", {"d_skel": joints.transpose(1, 2, 0)})
  (folder / "Skeleton_joint_order.txt").touch()
  return folder.parent


def write(prepare, raw, tmp_path):
  path = prepared.write(prepare.load("utd_mhad"), raw=raw, data_dir=tmp_path / "data")
  return source.Source(path)


def test_clips_are_named_by_action_subject_and_trial(prepare, raw, tmp_path):
  data = write(prepare, raw, tmp_path)
  assert data.ids == ("a1_s1_t1", "a10_s3_t2", "a27_s2_t4")
  assert data.labels.tolist() == [0, 9, 26]
  assert data.subjects.tolist() == ["1", "3", "2"]
  assert (data.skeleton, data.frame_size, data.fps) == ("kinect20", (240, 320), 30)
  assert not data.mirror
  assert len(set(data.class_names)) == 27


def test_odd_subjects_train_and_even_ones_test(prepare, raw, tmp_path):
  data = write(prepare, raw, tmp_path)
  assert data.rows("train").tolist() == [0, 1]
  assert data.rows("test").tolist() == [2]


def test_a_record_holds_metres_and_their_view(prepare, raw, tmp_path):
  data = write(prepare, raw, tmp_path)
  record = tfds.builder_from_directory(data.directory).as_data_source("all")[0]
  joints = scipy.io.loadmat(raw / "Skeleton" / "a1_s1_t1_skeleton.mat")["d_skel"].transpose(2, 0, 1)
  np.testing.assert_array_equal(record["joints3d"][:, 0], np.float32(joints))
  u = 160 + 285.63 * joints[..., 0] / joints[..., 2]
  np.testing.assert_allclose(record["keypoints"][:, 0, :, 0], u, rtol=1e-6)
  assert (record["keypoints"][..., 2] == 1).all()


def test_the_folder_of_skeletons_itself_will_do(prepare, raw, tmp_path):
  assert len(write(prepare, raw / "Skeleton", tmp_path)) == 3


def test_a_folder_without_skeletons_is_refused(prepare, tmp_path):
  with pytest.raises(DataError, match="expected files a1_s1_t1_skeleton"):
    write(prepare, tmp_path, tmp_path)


def test_a_recording_of_an_unknown_action_is_refused(prepare, raw, tmp_path):
  skeletons = raw / "Skeleton"
  (skeletons / "a1_s1_t1_skeleton.mat").rename(skeletons / "a28_s1_t1_skeleton.mat")
  with pytest.raises(
    DataError,
    match="'a28_s1_t1': label: expected a class name, or an integer from -1 to 26, got 27",
  ):
    write(prepare, raw, tmp_path)


@pytest.mark.skipif(
  "JAXMG_REAL_DATA" not in os.environ, reason="JAXMG_REAL_DATA names no folder of real data"
)
def test_all_of_utd_mhad_is_prepared(prepare, tmp_path):
  raw = pathlib.Path(os.environ["JAXMG_REAL_DATA"]) / "utd_mhad"
  data = write(prepare, raw, tmp_path)
  assert (len(data), len(data.rows("train")), len(data.rows("test"))) == (861, 431, 430)
  assert (data.num_frames.min(), data.num_frames.max()) == (41, 125)
  assert np.bincount(data.labels).min() >= 31
  record = data[0]
  x, y = np.moveaxis(record["keypoints"][..., :2], -1, 0)
  assert ((x > 0) & (x < 320) & (y > 0) & (y < 240)).all()
