"""A clip, its layout, and what its numbers are."""

import dataclasses
import json

import numpy as np
import pytest

from jaxmg.data import readers
from jaxmg.errors import DataError


def pose(num_frames=4, num_joints=25, seed=0):
  """float64[T, V, 3], every joint present; a few digits, so that text keeps it."""
  shape = (num_frames, num_joints)
  rng = np.random.default_rng(seed)
  return rng.uniform((1, 1, 0.1), (1280, 720, 1), (*shape, 3)).round(3)


def test_a_clip_is_cut_in_both_kinds_of_points(tmp_path):
  keypoints = np.random.default_rng(0).uniform(1, 9, (5, 1, 20, 3))
  keypoints[..., 2] = 1
  clip = readers.Clip(keypoints, "kinect20", (240, 320), keypoints)
  part = clip.cut(1, 3)
  assert part.keypoints.tolist() == clip.keypoints[1:4].tolist()
  assert part.joints3d.tolist() == clip.joints3d[1:4].tolist()
  assert part.frame_size == (240, 320)
  for first, last in ((-1, 3), (3, 2), (2, 5)):
    with pytest.raises(DataError, match="a first and a last one from 0 to 4"):
      clip.cut(first, last)


def test_a_joint_behind_the_camera_is_absent_from_its_view():
  view = readers.depth_view(np.full((1, 1, 1, 3), -1.0))
  np.testing.assert_array_equal(view, np.zeros((1, 1, 1, 3)))


def test_an_absent_joint_is_all_zero():
  keypoints = pose()[:, None]
  keypoints[0, 0, 3, 2] = 0  # no score
  keypoints[1, 0, 5, :2] = 0  # at the origin
  cleaned = readers.Clip(keypoints, "openpose25").keypoints
  absent = ~cleaned.any(-1)
  assert np.argwhere(absent).tolist() == [[0, 0, 3], [1, 0, 5]]


def test_scores_a_little_outside_are_clipped_and_counted():
  keypoints = pose()[:, None]
  keypoints[0, 0, 0, 2], keypoints[1, 0, 3, 2] = 1.4, -0.1
  clip = readers.Clip(keypoints, "openpose25")
  assert clip.num_clipped == 2
  assert clip.keypoints[0, 0, 0].tolist() == [*np.float32(keypoints[0, 0, 0, :2]), 1]
  assert not clip.keypoints[1, 0, 3].any()
  assert readers.Clip(pose()[:, None], "openpose25").num_clipped == 0


def test_a_few_scores_may_be_anything_and_many_may_not():
  keypoints = pose()[:, None]  # 100 joints
  keypoints[2, 0, 0, 2] = 80
  clip = readers.Clip(keypoints, "openpose25")
  assert (clip.num_clipped, clip.keypoints[2, 0, 0, 2]) == (1, 1)
  keypoints[3, 0, 7, 2] = -6
  with pytest.raises(
    DataError, match=r"frame 2, person 0, joint 0: .*\[0, 1\], got 80 \(logits\? "
  ):
    readers.Clip(keypoints, "openpose25")


def test_what_was_clipped_is_known_of_a_clip_that_was_read(tmp_path):
  keypoints = pose()
  keypoints[0, 0, 2] = 1.4
  np.save(tmp_path / "a.npy", keypoints)
  clip = readers.read(tmp_path / "a.npy")
  assert clip.num_clipped == 1
  assert "1 score outside [0, 1] clipped" in str(clip.guess)


# --- what was guessed


def test_a_guess_says_what_was_taken_for_granted():
  guess = readers.Guess(32, 1, 17, "coco17", "pixels", assumed=frozenset({"layout"}))
  assert str(guess) == "read as 32 frames of 1 person, 17 joints (coco17 assumed), pixels"
  told = readers.Guess(1, 2, 25, "kinect25", "metres", "MTVC", (240, 320), frozenset({"axes"}))
  assert (
    str(told) == "read as 1 frame of 2 persons, 25 joints (kinect25), metres, axes MTVC assumed"
  )
  assert str(told).endswith(told.kind)


def test_a_size_that_is_expected_is_assumed_where_none_is_known(tmp_path):
  np.save(tmp_path / "a.npy", pose())
  size = {"layout": "openpose25", "expects_size": (720, 1280)}
  clip = readers.read(tmp_path / "a.npy", **size)
  assert clip.frame_size == clip.record()["frame_size"] == (720, 1280)
  assert str(clip.guess).endswith(", 720 x 1280 assumed")
  clip = readers.read(tmp_path / "a.npy", frame_size=(72, 128), **size)
  assert clip.frame_size == (72, 128)
  assert "assumed" not in str(clip.guess)


def test_a_part_of_a_clip_is_guessed_as_the_whole_but_for_its_length(tmp_path):
  np.save(tmp_path / "a.npy", pose())
  part = readers.read(tmp_path / "a.npy").cut(1, 2)
  assert str(part.guess).startswith("read as 2 frames of 1 person, 25 joints (openpose25 assumed)")


def test_a_body_of_a_point_is_refused_and_nobody_is_not():
  keypoints = pose()[:, None]
  readers.check(readers.Clip(keypoints * 0, "openpose25"))
  readers.check(readers.Clip(keypoints * [0.1, 0.1, 1], "openpose25"))
  with pytest.raises(DataError, match=r"expected pixels, got a body of 0\.\d+ \(normalised\?"):
    readers.check(readers.Clip(keypoints / [1280, 720, 1], "openpose25"))


def test_a_clip_does_not_share_memory_with_its_source():
  keypoints = np.float32(pose()[:, None])
  clip = readers.Clip(keypoints, "openpose25")
  keypoints[:] = -1
  assert clip.keypoints.min() > 0


# --- layouts

DOT = {"name": "dot", "joints": ["dot"], "parents": [0], "limbs": [], "mirror_pairs": []}


def test_a_recording_may_have_a_layout_of_the_users_own(tmp_path):
  layout = tmp_path / "dot.json"
  layout.write_text(json.dumps(DOT))
  path = tmp_path / "a.csv"
  np.savetxt(path, pose(num_joints=1).reshape(4, -1), delimiter=",")
  with pytest.raises(DataError, match=r"got 3 \(name the layout"):
    readers.read(path)
  clip = readers.read(path, layout=str(layout))
  assert clip.keypoints.shape == (4, 1, 1, 3)
  assert f"{clip.layout}" == "dot"
  assert dataclasses.replace(clip, frame_size=(2, 3)).layout == clip.layout


def test_the_number_of_joints_tells_a_layout_apart_by_dimension():
  assert readers.layout_of(25) == "openpose25"
  assert readers.layout_of(25, in_3d=True) == "kinect25"
  with pytest.raises(DataError, match=r"expected 20 \(kinect20\), 25 \(kinect25\), got 17"):
    readers.layout_of(17, in_3d=True)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("{", "a.json: Expecting property name"),
    ("[" * 100_000, "a.json: .*recursion"),
    ('{"name": "a", "name": "b"}', "a.json: a key occurs twice"),
    (json.dumps(DOT | {"parents": [1], "limbs": [[0, 1]]}), "is not valid:; parents: .*; limb"),
    ("3", "a.json: skeleton: expected name, .* got int"),
  ],
)
def test_a_faulty_layout_is_one_line(tmp_path, text, message):
  (tmp_path / "a.json").write_text(text)
  with pytest.raises(DataError, match=message) as caught:
    readers.find_layout(str(tmp_path / "a.json"))
  assert "\n" not in str(caught.value)


def test_who_lacks_a_joint_in_a_part_lacks_it_there_and_has_no_centre():
  joints3d = np.random.default_rng(0).uniform(-1, 1, (9, 1, 25, 3)).astype(np.float32)
  joints3d[:4, 0, 7] = 0  # the origin, amid the others
  clip = readers.Clip(np.zeros_like(joints3d), "kinect25", joints3d=joints3d)
  assert not clip.joints3d[:4, 0, 7].any()
  assert not clip.cut(0, 3).joints3d[:, 0, 7].any()
