import os
import pathlib

import numpy as np
import pytest

from jaxmg import inputs, skeletons
from jaxmg.data import memory
from jaxmg.data.readers import Told, from_array
from jaxmg.skeletons import plausible

# Metres: x to the person's left, y up, z to the back.
MIDDLE = {
  **{"nose": (0, 1.6, -0.1), "neck": (0, 1.42, 0), "head": (0, 1.65, 0), "mid_hip": (0, 0.93, 0)},
  **{"spine": (0, 1.1, 0), "hip_center": (0, 0.95, 0), "shoulder_center": (0, 1.42, 0)},
  **{"pelvis": (0, 0.93, 0), "thorax": (0, 1.42, 0), "neck_nose": (0, 1.53, -0.05)},
  **{"spine_base": (0, 0.95, 0), "spine_mid": (0, 1.2, 0), "spine_shoulder": (0, 1.39, 0)},
}
SIDE = {
  **{"shoulder": (0.18, 1.4, 0), "elbow": (0.23, 1.14, 0.02), "wrist": (0.25, 0.9, -0.08)},
  **{"hand": (0.25, 0.83, -0.1), "hand_tip": (0.25, 0.77, -0.12), "thumb": (0.22, 0.86, -0.14)},
  **{"hip": (0.1, 0.93, 0), "knee": (0.12, 0.5, -0.02), "ankle": (0.12, 0.09, 0.02)},
  **{"foot": (0.14, 0.04, -0.12), "heel": (0.12, 0.03, 0.06), "big_toe": (0.12, 0.02, -0.16)},
  **{"small_toe": (0.18, 0.02, -0.13), "eye": (0.03, 1.64, -0.08), "ear": (0.075, 1.62, 0)},
}
LAYOUTS = ("coco17", "h36m17", "openpose18", "openpose25", "kinect20", "kinect25")


def body(layout, *, arm=0.0):
  """float[20, 1, V, 3] of somebody who waves, metres."""
  pose = []
  for joint in skeletons.get(layout).joints:
    side, _, part = joint.partition("_")
    place = SIDE[part] if part in SIDE and side in ("left", "right") else MIDDLE[joint]
    pose.append(np.multiply(place, (-1 if side == "right" else 1, 1, 1)))
  frames = np.repeat(np.array(pose)[None, None], 20, 0)
  wrist = skeletons.get(layout).joints.index("left_wrist")
  frames[:, 0, wrist, 1] += arm * np.sin(np.arange(20))
  return frames


def view(points, yaw=0.0, roll=0.0):
  """Its x, y and score in pixels, from the side of the camera, or with the camera turned."""
  a, b = np.deg2rad([yaw, roll])
  x, y = np.cos(a) * points[..., 0] + np.sin(a) * points[..., 2], points[..., 1] - 1
  x, y = np.cos(b) * x - np.sin(b) * y, np.sin(b) * x + np.cos(b) * y
  return np.stack([640 + 300 * x, 360 - 300 * y, np.ones_like(x)], -1)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_nothing_is_odd_about_a_body_from_any_side(layout):
  skeleton = skeletons.get(layout)
  assert plausible.doubts(body(layout, arm=0.1), skeleton, in_3d=True) == []
  for yaw in (0, 45, 90, 180, 270):
    assert plausible.doubts(view(body(layout, arm=0.1), yaw), skeleton) == []


@pytest.mark.parametrize(
  ("layout", "taken"),
  [
    ("h36m17", "coco17"),
    ("coco17", "h36m17"),
    ("kinect25", "openpose25"),
    ("openpose25", "kinect25"),
  ],
)
def test_a_layout_that_is_taken_for_another_is_found(layout, taken):
  said = [f"the joints fit {layout} better than {taken}"]
  points = body(layout)
  assert plausible.doubts(points, skeletons.get(taken), in_3d=True) == said
  for yaw in (-60, 0, 60):
    assert plausible.doubts(view(points, yaw), skeletons.get(taken)) == said


def test_an_order_that_nobody_knows_is_found_by_its_bones():
  shuffled = np.random.default_rng(0).permutation(18)
  said = plausible.doubts(view(body("openpose18"))[:, :, shuffled], skeletons.get("openpose18"))
  assert [one.split(",")[0] for one in said] == ["bones cross the body"]
  assert said[0].endswith("are the joints in the order of openpose18?")


def test_a_left_that_is_not_as_the_right_is_found():
  points, skeleton = body("kinect20"), skeletons.get("kinect20")
  right = [v for v, joint in enumerate(skeleton.joints) if joint.startswith("right_")]
  points[:, :, right] = points[:, :, right] * 0.4 + points[:, :, 1:2] * 0.6
  (said,) = plausible.doubts(points, skeleton, in_3d=True)
  assert said.startswith("left and right are not alike, left_")


def test_an_arm_at_the_camera_is_no_doubt_even_if_no_legs_are_seen():
  for layout in ("coco17", "openpose25"):
    points, joints = view(body(layout)), skeletons.get(layout).joints
    for part in ("elbow", "wrist"):
      points[..., joints.index(f"left_{part}"), :] = points[..., joints.index("left_shoulder"), :]
    points[..., joints.index("left_wrist"), 0] += 2
    below = [
      v for v, joint in enumerate(joints) if SIDE.get(joint.split("_", 1)[-1], (0, 2))[1] < 0.6
    ]
    points[..., below, :] = 0
    assert plausible.doubts(points, skeletons.get(layout)) == []


def test_absent_joints_and_frames_are_left_out():
  points = view(body("coco17"))
  points[::2] = 0
  points[1, 0, 3:9] = 0
  assert plausible.doubts(points, skeletons.get("coco17")) == []


def test_the_centre_of_3d_joints_is_a_joint_though_it_is_all_zero():
  points = body("kinect25")
  whole = plausible.misfit(points, skeletons.get("kinect25"), in_3d=True)
  points -= points[:, :, 1:2]
  centred = plausible.misfit(points, skeletons.get("kinect25"), in_3d=True)
  assert centred == pytest.approx(whole, rel=1e-6)


def test_too_few_joints_and_nobody_leave_no_doubts():
  points = view(body("coco17"))
  points[..., 5:, :] = 0
  for few in (points, np.zeros_like(points)):
    assert plausible.doubts(few, skeletons.get("coco17")) == []


def test_which_way_is_up_is_asked():
  skeleton = skeletons.get("coco17")
  below, beside = ["the head is below the hips: upside down?"], "the head is beside the hips: "
  assert plausible.doubts(view(body("coco17"), roll=180), skeleton) == below
  assert plausible.doubts(view(body("coco17"), roll=30), skeleton) == []
  (said,) = plausible.doubts(view(body("coco17"), roll=90), skeleton)
  assert said.startswith(beside)
  upright = body("kinect25")
  down = upright * (1, -1, 1)  # y points down, as in some files
  assert plausible.doubts(down, skeletons.get("kinect25"), in_3d=True) == below


@pytest.mark.skipif(
  "JAXMG_REAL_DATA" not in os.environ, reason="JAXMG_REAL_DATA names no folder of real data"
)
def test_nothing_is_odd_about_utd_mhad():
  import scipy.io

  folder = pathlib.Path(os.environ["JAXMG_REAL_DATA"]) / "utd_mhad" / "Skeleton"
  skeleton = skeletons.get("kinect20")
  files = sorted(folder.glob("*.mat"))
  assert len(files) == 861
  for file in files[::4]:
    joints = scipy.io.loadmat(file)["d_skel"].transpose(2, 0, 1)[:, None]
    assert plausible.doubts(joints, skeleton, in_3d=True) == []
    assert plausible.doubts(view(joints, 0), skeleton) == []
    assert plausible.doubts(view(joints, 90), skeleton) == []


def moved(pixels):
  return np.add(view(body("coco17")), (pixels, 0, 0))


def test_a_frame_size_whose_sides_are_exchanged_is_doubted():
  keypoints = moved(300)  # at the right of 720 x 1280
  assert plausible.outside(keypoints, (720, 1280)) == (0, None)
  assert plausible.outside(keypoints, None) == (0, None)
  assert plausible.outside(keypoints, (1280, 720)) == (1, "is it (width, height)?")
  assert plausible.outside(moved(2000), (1280, 720))[1] == "name its own"  # nor inside the other
  seen = inputs.Heatmaps("coco17", (720, 1280))
  record = {"keypoints": keypoints, "layout": skeletons.get("coco17"), "frame_size": (1280, 720)}
  with pytest.raises(
    ValueError, match=r"100% of the joints outside of it: is it \(width, height\)\?$"
  ):
    seen.check_shown(record)


def seen_within(left, top, right, bottom):
  keypoints = view(body("coco17"))
  low, high = (getattr(keypoints[..., :2], side)((0, 1, 2)) for side in ("min", "max"))
  size = np.subtract((right, bottom), (left, top))
  keypoints[..., :2] = (keypoints[..., :2] - low) / (high - low) * size + (left, top)
  return keypoints


def test_legs_below_the_frame_are_no_other_frame():
  share, hint = plausible.outside(seen_within(200, 100, 600, 1000), (720, 1280))
  assert (0.1 < share < 0.5, hint) == (True, None)
  # As high as the other frame would be, it may be that.
  assert plausible.outside(seen_within(200, 100, 600, 1250), (720, 1280))[1] == plausible.EXCHANGED
  # Nobody leaves another frame by its left.
  assert plausible.outside(seen_within(-300, 100, 500, 700), (720, 1280))[1] is None


def test_a_told_frame_size_is_doubted_where_arrays_are_taken(capsys):
  keypoints = moved(100)
  told = {"layout": "coco17", "frame_size": (1280, 720)}
  assert "outside of it: is it (width, height)?" in from_array(keypoints, Told(**told)).doubts()[-1]
  memory.from_arrays([keypoints], [0], class_names=("wave",), **told)
  assert "note: frame size 1280 x 720" in capsys.readouterr().err
  memory.from_arrays([keypoints], [0], class_names=("wave",), **told | {"frame_size": (720, 1280)})
  assert "frame size" not in capsys.readouterr().err
