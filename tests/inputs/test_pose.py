"""What all inputs of poses share."""

import numpy as np
import pytest

from jaxmg import inputs
from jaxmg.inputs import pose
from jaxmg.skeletons import sampling, topology


def select(keypoints, joints=(2, 0), num_persons=2):
  return pose.select(
    np.float32(keypoints), joints=np.array(joints, np.int32), num_persons=num_persons
  )


def test_joints_without_a_score_are_all_zero():
  keypoints = np.full((1, 1, 3, 3), 5.0)
  keypoints[0, 0, 0] = 3, 4, 0
  keypoints[0, 0, 2] = 3, 4, np.nan
  keypoints[0, 0, 1] = np.nan, np.nan, 0
  np.testing.assert_array_equal(select(keypoints, (2, 1, 0), 1), np.zeros((1, 1, 3, 3), np.float32))
  np.testing.assert_array_equal(select(np.full((1, 1, 3, 3), 5.0), num_persons=1)[0, 0, 0], 5)


def test_persons_with_the_highest_scores_come_first_and_ties_in_their_order():
  keypoints = np.zeros((2, 4, 3, 3))
  keypoints[..., 0] = np.arange(4)[:, None]  # x tells the person
  keypoints[..., 2] = np.array([0.2, 0.9, 0.2, 0.9])[:, None]
  keypoints[1, 3, :, 2] = 0
  for num_persons, expected in [(1, [1]), (2, [1, 3]), (4, [1, 3, 0, 2])]:
    assert select(keypoints, num_persons=num_persons)[0, :, 0, 0].tolist() == expected


def test_missing_persons_are_all_zero():
  selected = select(np.ones((4, 1, 3, 3)), num_persons=3)
  assert selected.shape == (4, 3, 2, 3)
  assert (selected[:, 0] == 1).all()
  assert (selected[:, 1:] == 0).all()


def test_selection_leaves_the_record_alone():
  keypoints = np.float32(np.full((1, 1, 3, 3), 5.0))
  keypoints[..., 2] = 0
  keypoints.flags.writeable = False
  select(keypoints)
  assert (keypoints[..., 0] == 5).all()


def test_a_clip_of_its_own_frame_size_keeps_it():
  one = inputs.Heatmaps(topology.get("coco17"), (72, 128), num_frames=2)
  record = {
    "layout": topology.get("coco17"),
    "keypoints": np.ones((3, 1, 17, 3), np.float32),
    "frame_size": None,
  }
  rng = np.random.default_rng(0)
  for size, expected in ((None, [72, 128]), ((36, 64), [36, 64])):
    sized = record | {"frame_size": size}
    assert one.read_test(sized, 1)["frame_size"].tolist() == expected
    assert one.read(sized, rng)["frame_size"].tolist() == expected


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"num_frames": 0}, "num_frames: expected in \\[1, 4096\\], got 0"),
    ({"num_persons": 0}, "num_persons: expected in \\[1, 100\\], got 0"),
    (
      {"frame_size": (0, 5)},
      r"frame_size: expected height and width, whole numbers above 0, got \(0, 5\)",
    ),
  ],
)
def test_what_no_input_can_be_is_refused(options, message):
  with pytest.raises(ValueError, match=message):
    inputs.Graph(**{"skeleton": topology.get("coco17"), "frame_size": (72, 128)} | options)


def test_what_a_track_lacks_is_said():
  about = {"layout": topology.get("openpose25"), "keypoints": True}
  coco, imigue = topology.get("coco17"), topology.get("imigue22")
  inputs.Heatmaps(coco, (72, 128)).check(about)
  with pytest.raises(ValueError, match=r"expected imigue22 or .*, got 'openpose25'"):
    inputs.Heatmaps(imigue, (72, 128)).check(about)
  for one in (
    inputs.Graph(coco, (72, 128), points="joints3d"),
    inputs.Heatmaps(coco, (72, 128), turn=10.0),
  ):
    with pytest.raises(ValueError, match="points: expected 3-D joints, got none"):
      one.check(about)
    one.check(about | {"joints3d": True})


def shown(keypoints, frame_size=None, **more):
  return {"layout": topology.get("coco17"), "keypoints": np.float32(keypoints)} | {
    "frame_size": frame_size,
    **more,
  }


def test_who_is_shown_must_be_there_in_pixels_of_the_frame():
  one = inputs.Heatmaps(topology.get("coco17"), (72, 128), num_frames=2)
  pose = np.random.default_rng(0).uniform((1, 1, 0.5), (128, 72, 1), (3, 1, 17, 3))
  one.check_shown(shown(pose))
  one.check_shown(shown(pose * [10, 10, 1], (720, 1280)))
  for record, message in (
    (shown(pose * 0), "keypoints: expected somebody, got nobody in 3 frames"),
    (shown(pose * [1, 1, 0]), "expected somebody"),
    (shown(pose / [128, 72, 1]), r"coordinates: expected pixels, got a body of 0\.\d+ "),
    (shown(pose * [10, 10, 1]), r"frame_size: expected 72 x 128, got \d+% of the joints outside"),
    (shown(pose, (36, 30)), r"frame_size: expected 36 x 30, got \d+% of the joints outside"),
  ):
    with pytest.raises(ValueError, match=message):
      one.check_shown(record)


def test_who_is_shown_in_3d_must_be_as_large_as_a_person():
  one = inputs.Graph(topology.get("coco17"), (72, 128), points="joints3d")
  joints = np.float32(np.random.default_rng(0).uniform((-1, -1, 2), (1, 1, 3), (3, 1, 17, 3)))
  nobody = np.zeros_like(joints)
  one.check_shown(shown(nobody, joints3d=joints))  # key points are not asked for
  for factor, message in (
    (0, "joints3d: expected somebody, got nobody in 3 frames"),
    (1000, r"joints3d: expected metres, got a body of .* \(millimetres\? divide by 1000\)"),
    (0.01, r"joints3d: expected metres, got a body of 0\.01\d* \(another unit\?\)"),
  ):
    with pytest.raises(ValueError, match=message):
      one.check_shown(shown(nobody, joints3d=joints * factor))


@pytest.mark.parametrize("sampling", sampling.KINDS)
@pytest.mark.parametrize("turn", [0.0, 9.0])
def test_what_is_kept_of_a_record_reads_as_the_record(sampling, turn):
  rng = np.random.default_rng(0)
  layout = topology.get("kinect25")
  record = {
    name: rng.uniform(0, 70, (13, 3, 25, 3)).astype(np.float32)
    for name in ("keypoints", "joints3d")
  }
  record["keypoints"][..., 2] *= rng.random((13, 3, 25)) > 0.5
  record["keypoints"][3, 1, 2] = np.nan
  record |= {"layout": layout, "frame_size": np.int32((36, 64))}
  options = {"sampling": sampling, "num_persons": 2, "crop": (0.5, 1.0), "num_frames": 9}
  one = inputs.Heatmaps(layout, (72, 128), turn=turn, **options)
  kept = one.kept(record)
  assert len(kept.keys() & {"keypoints", "joints3d"}) == 1
  for seed in range(3):
    parts = (one.read(each, np.random.default_rng(seed)) for each in (record, kept))
    np.testing.assert_equal(*parts)
