"""UTD-MHAD's files -> key points."""

import numpy as np
import scipy.io

from jaxmg.data import readers


def test_utd_mhad_is_read_in_3d_and_as_the_view_of_its_camera(tmp_path):
  joints = np.random.default_rng(0).uniform((-1, -1, 2), (1, 1, 4), (6, 20, 3))
  scipy.io.savemat(tmp_path / "a.mat", {"d_skel": joints.transpose(1, 2, 0)})
  clip = readers.read(tmp_path / "a.mat")
  assert (clip.layout, clip.frame_size) == ("kinect20", (240, 320))
  np.testing.assert_array_equal(clip.joints3d[:, 0], np.float32(joints))
  x, y, z = np.moveaxis(joints, -1, 0)
  u, v, score = np.moveaxis(clip.keypoints[:, 0], -1, 0)
  np.testing.assert_allclose(u, 160 + 285.63 * x / z, rtol=1e-6)
  np.testing.assert_allclose(v, 120 - 285.63 * y / z, rtol=1e-6)
  assert (score == 1).all()


def test_a_relative_name_is_one_of_the_folder_that_one_is_in(tmp_path, monkeypatch):
  joints = np.random.default_rng(0).uniform((-1, -1, 2), (1, 1, 4), (6, 20, 3))
  for name in ("a", "b"):
    (tmp_path / name).mkdir()
    scipy.io.savemat(tmp_path / name / f"{name}.mat", {"d_skel": joints.transpose(1, 2, 0)})
    monkeypatch.chdir(tmp_path / name)
    assert readers.read(f"{name}.mat").num_frames == 6
