"""Folders of OpenPose -> key points."""

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


def write_openpose(folder, frames, *, start=0):
  """`frames`: per frame a list of persons, each a dict of part -> array."""
  folder.mkdir(exist_ok=True)
  for number, persons in enumerate(frames, start):
    people = [
      {f"{part}_keypoints_2d": np.ravel(values).tolist() for part, values in person.items()}
      for person in persons
    ]
    file = folder / f"take_{number:012d}_keypoints.json"
    file.write_text(json.dumps({"version": 1.3, "people": people}))
  return folder


@pytest.mark.parametrize(("num_joints", "layout"), [(18, "openpose18"), (25, "openpose25")])
def test_openpose_folder_of_bodies(tmp_path, num_joints, layout):
  keypoints = pose(num_joints=num_joints)
  clip = readers.read(write_openpose(tmp_path / "a", [[{"pose": body}] for body in keypoints]))
  assert clip.layout == layout
  np.testing.assert_array_equal(clip.keypoints[:, 0], np.float32(keypoints))


def test_openpose_with_face_and_hands_has_137_points_in_order(tmp_path):
  keypoints = pose(num_joints=137)
  parts = ("pose", "face", "hand_left", "hand_right")
  frames = [[dict(zip(parts, np.split(frame, [25, 95, 116]), strict=True))] for frame in keypoints]
  folder = write_openpose(tmp_path / "a", frames, start=1)
  np.testing.assert_array_equal(readers.read(folder).keypoints[:, 0], np.float32(keypoints))
  assert readers.read(folder, layout="openpose25").keypoints.shape == (4, 1, 25, 3)


def test_the_order_of_openpose_people_plays_no_part(tmp_path):
  first, second = (pose(1, seed=seed).repeat(4, 0) for seed in (1, 2))
  frames = [[{"pose": a}, {"pose": b}] for a, b in zip(first, second, strict=True)]
  one = readers.read(write_openpose(tmp_path / "one", [*frames, []]))
  other = readers.read(write_openpose(tmp_path / "other", [*(f[::-1] for f in frames), []]))
  assert one.keypoints.shape == (5, 2, 25, 3)
  assert not one.keypoints[-1].any()
  np.testing.assert_array_equal(one.keypoints, other.keypoints)


def test_a_person_stays_the_same_though_another_scores_better_at_times(tmp_path):
  body = np.random.default_rng(0).uniform((-40, -90), (40, 90), (25, 2))
  actor, other = np.ones((2, 20, 25, 3))
  actor[..., :2] = body + np.array([300, 200])
  other[..., :2] = body + np.array([700, 210])
  actor[..., 2] = np.where(np.arange(20) % 3, 0.9, 0.5)[:, None]
  other[..., 2] = np.where(np.arange(20) % 2, 0.4, 0.8)[:, None]
  frames = [
    [{"pose": a}, {"pose": b}][:: 1 - 2 * (t % 2)]
    for t, (a, b) in enumerate(zip(actor, other, strict=True))
  ]
  clip = readers.read(write_openpose(tmp_path / "a", frames))
  np.testing.assert_array_equal(clip.keypoints, np.float32(np.stack([actor, other], 1)))
  guess = "read as 20 frames of 2 persons, 25 joints (openpose25 assumed), pixels"
  assert str(clip.guess) == guess


def test_scores_of_openpose_above_1_are_clipped_and_counted(tmp_path):
  keypoints = pose()
  keypoints[1, 3, 2] = 1.4
  clip = readers.read(write_openpose(tmp_path / "a", [[{"pose": body}] for body in keypoints]))
  assert clip.keypoints[1, 0, 3, 2] == 1
  assert str(clip.guess).endswith("pixels, 1 score outside [0, 1] clipped")


def test_a_crowd_in_a_frame_is_refused(tmp_path):
  folder = write_openpose(tmp_path / "a", [101 * [{"pose": pose(1)}]])
  with pytest.raises(DataError, match="expected at most 100 people in a frame, got 101"):
    readers.read(folder)


def test_normalised_output_of_openpose_is_refused(tmp_path):
  keypoints = pose() / (1280, 720, 1)
  folder = write_openpose(tmp_path / "a", [[{"pose": body}] for body in keypoints])
  with pytest.raises(DataError, match=r"expected pixels, got a body of 0\.\d+ \(normalised\?"):
    readers.read(folder)
