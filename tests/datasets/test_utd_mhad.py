"""UTD-MHAD: .mat files -> a prepared directory."""

import collections
import hashlib
import io
import os
import pathlib
import shutil
import sys

import numpy as np
import pytest
import scipy.io
import tensorflow_datasets as tfds
from PIL import Image

from jaxmg.data import prepared, source, tracks
from jaxmg.errors import DataError

# Training clips of each class in the protocol long_tail.
TAIL = [
  8, 2, 13, 2, 10, 6, 12, 3, 6, 7, 4, 4, 8, 5, 5, 9, 11, 15, 7, 4, 3, 2, 3, 3, 16, 14, 4,
]  # fmt: skip


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
  pose = data.track("pose").kind
  assert (str(pose), pose.frame_size, pose.fps) == ("kinect20", (240, 320), 30)
  assert not data.mirror
  assert len(set(data.class_names)) == 27


def test_odd_subjects_train_and_even_ones_test(prepare, raw, tmp_path):
  data = write(prepare, raw, tmp_path)
  assert data.rows("train").tolist() == [0, 1]
  assert data.rows("test").tolist() == [2]


@pytest.fixture
def tail(prepare):
  builder = prepare.load("utd_mhad")
  return sys.modules[builder.__module__].tail_clips()


def test_the_long_tail_is_the_same_everywhere(tail):
  counts = collections.Counter(id.partition("_")[0] for id in tail)
  assert [counts[f"a{action}"] for action in range(1, 28)] == TAIL
  digest = hashlib.sha256(" ".join(sorted(tail)).encode()).hexdigest()
  assert digest[:16] == "56d45fe82452f8eb"


def test_every_action_keeps_clips_of_two_training_subjects(tail):
  subjects = collections.defaultdict(set)
  for id in tail:
    action, subject, _ = id.split("_")
    subjects[action].add(subject)
  assert len(subjects) == 27
  assert min(map(len, subjects.values())) >= 2
  assert set.union(*subjects.values()) == {"s1", "s3", "s5", "s7"}


def test_the_long_tail_leaves_out_training_clips_alone(prepare, raw, tail, tmp_path):
  assert "a2_s1_t1" not in tail
  skeletons = raw / "Skeleton"
  shutil.copy(skeletons / "a1_s1_t1_skeleton.mat", skeletons / "a2_s1_t1_skeleton.mat")
  data = write(prepare, raw, tmp_path)
  assert list(data.protocols) == ["xsub", "long_tail"]
  assert data.ids == ("a1_s1_t1", "a2_s1_t1", "a10_s3_t2", "a27_s2_t4")
  assert data.rows("train").tolist() == [0, 1, 2]
  assert data.rows("train", protocol="long_tail").tolist() == [0, 2]
  assert data.rows("test", protocol="long_tail").tolist() == [3]


def test_a_record_holds_metres_and_their_view(prepare, raw, tmp_path):
  data = write(prepare, raw, tmp_path)
  record = tfds.builder_from_directory(data.directory / "pose").as_data_source("all")[0]
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


DEPTH_IDS = ("a1_s1_t1", "a10_s3_t2", "a27_s2_t4")


def write_depth(raw, **changes):
  images = np.random.default_rng(1).integers(0, 256, (3, 16, 112, 112), np.uint8)
  np.savez(raw / "depth16_112.npz", **{"x": images, "ids": np.array(DEPTH_IDS)} | changes)
  return images


def write_track(prepare, raw, tmp_path, track="video"):
  builder = prepare.load("utd_mhad", track)
  return source.Source(prepared.write(builder, raw=raw, data_dir=tmp_path / "data"))


@pytest.mark.parametrize("first", ["pose", "video"])
def test_depth_is_a_track_of_the_same_clips_without_loss(prepare, raw, tmp_path, first):
  images = write_depth(raw)
  write_track(prepare, raw, tmp_path, first)
  data = write_track(prepare, raw, tmp_path, {"pose": "video", "video": "pose"}[first])
  assert (data.name, data.ids, data.track_names) == ("utd_mhad", DEPTH_IDS, ("pose", "video"))
  track = data.track("video")
  assert (track.kind, track.rows.tolist()) == (tracks.Video((112, 112), 1, timed=False), [0, 1, 2])
  record = track[1]
  assert np.isnan(record["times"]).all()
  pictures = [np.asarray(Image.open(io.BytesIO(picture))) for picture in record["frames"]]
  np.testing.assert_array_equal(pictures, images[1])


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"x": np.zeros((3, 16, 112, 112), "u2")}, r"x: expected uint8 \[N, 16, 112, 112\], got"),
    ({"x": np.zeros((3, 16, 112, 111), np.uint8)}, r"x: .* got uint8 \[3, 16, 112, 111\]"),
    ({"ids": np.array(DEPTH_IDS[:2])}, r"ids: expected 3 texts, got <U9 \[2\]"),
    ({"ids": np.array(["a1_s1_t1", "x", "y"])}, "ids: expected a1_s1_t1 ..., got 'x'"),
    ({"ids": np.array(DEPTH_IDS, object)}, "'ids.npy': expected numbers or texts"),
    ({"ids": np.array(["a1_s1_t1", "a1_s1_t1", "a1_s2_t1"])}, "expected an id of its own"),
    ({"ids": np.array(["a1_s1_t1", "a2_s1_t1", "a28_s2_t1"])}, "'a28_s2_t1': label: expected"),
  ],
)
def test_faulty_depth_is_refused(prepare, raw, tmp_path, changes, message):
  write_depth(raw, **changes)
  with pytest.raises(DataError, match=message) as caught:
    write_track(prepare, raw, tmp_path)
  assert "\n" not in str(caught.value)


def test_depth_that_is_not_there_is_asked_for(prepare, raw, tmp_path):
  with pytest.raises(DataError, match=r"depth16_112\.npz: expected an array of depth frames"):
    write_track(prepare, raw, tmp_path)


@pytest.mark.skipif(
  "JAXMG_REAL_DATA" not in os.environ, reason="JAXMG_REAL_DATA names no folder of real data"
)
def test_all_of_utd_mhad_is_prepared(prepare, tmp_path):
  raw = pathlib.Path(os.environ["JAXMG_REAL_DATA"]) / "utd_mhad"
  data = write(prepare, raw, tmp_path)
  assert (len(data), len(data.rows("train")), len(data.rows("test"))) == (861, 431, 430)
  tail = data.rows("train", protocol="long_tail")
  assert np.bincount(data.labels[tail]).tolist() == TAIL  # no clip of it is one that was removed
  assert set(tail) < set(data.rows("train"))
  np.testing.assert_array_equal(data.rows("test", protocol="long_tail"), data.rows("test"))
  track = data.track("pose")
  assert (track.num_frames.min(), track.num_frames.max()) == (41, 125)
  assert np.bincount(data.labels).min() >= 31
  record = track[0]
  x, y = np.moveaxis(record["keypoints"][..., :2], -1, 0)
  assert ((x > 0) & (x < 320) & (y > 0) & (y < 240)).all()


def test_two_files_of_one_recording_are_refused(prepare, raw, tmp_path):
  folder = raw / "Skeleton"
  (folder / "a01_s1_t1_skeleton.mat").write_bytes((folder / "a1_s1_t1_skeleton.mat").read_bytes())
  with pytest.raises(
    DataError, match=r"a1_s1_t1_skeleton\.mat: expected one file of each recording"
  ):
    write(prepare, raw, tmp_path)
