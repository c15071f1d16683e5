"""Doubts about poses: how large bodies are, whether the layout is what it is said to be, which way
is up.

Two measures see a wrong order of joints, in 2-D and in 3-D, from any side, lying or standing. Bones
are short: those of the true tree are together little longer than the shortest tree that joins the
same points, and another order has bones that cross the body. And left and right are alike.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Num

from jaxmg.skeletons.topology import SKELETONS, Skeleton, get

SMALLEST_PIXELS = 4.0  # a body of fewer shows no movement, and fills one cell of a heatmap
SMALLEST_METRES, LARGEST_METRES = 0.05, 10.0
_MOST_FRAMES = 32  # whose bodies are measured, evenly over the recording
_FEWEST_MEASURED = 3  # joints of a person in a frame, to have a size

# Every fourth recording of UTD-MHAD, as seven layouts from five sides: true ones have bones of 1.1
# to 2.6 times the shortest tree (1.6 in 3-D), unlike by up to 0.12; seen from the side they are
# shortest. Wrong ones cross or are unlike: h36m17 as coco17 2.5 and 0.17, the reverse 1.4 and 0.31.
_CROSSING = {False: 3.2, True: 2.0}  # in 3-D no view makes bones short
_UNLIKE = {False: 0.4, True: 0.25}  # in 2-D one arm may point at the camera
_BETTER = 1.6  # times as well as the layout, and another one is told
_MOST_POSES = 24
_OUTSIDE, _INSIDE = 0.05, 0.1  # of the joints, and of these: the sides of a frame are exchanged
_MOST = 0.5  # of the joints outside: it is another frame
EXCHANGED = "is it (width, height)?"
_FEWEST_JOINTS = 6


def body_size(points: Num[np.ndarray, "t m v c"], there: Bool[np.ndarray, "t m v"]) -> float | None:
  """The size of a person in a frame: the wider of its axes, without the tenth of its joints that
  lie farthest out on either side; the median over persons and frames. None where nobody has three
  joints.
  """
  step = max(1, -(-len(points) // _MOST_FRAMES))
  points, there = points[::step], there[::step]
  enough = there.sum(-1) >= _FEWEST_MEASURED
  if not enough.any():
    return None
  persons = np.where(there[enough][..., None], points[enough], np.inf)  # N V C
  persons = np.sort(persons.astype(np.float64), axis=1)
  last = there[enough].sum(-1)[:, None, None] - 1
  low, high = (
    np.take_along_axis(persons, np.rint(share * last).astype(int), axis=1) for share in (0.1, 0.9)
  )
  return float(np.median((high - low).max(-1)))


def check_size(record: Mapping[str, Any]) -> None:
  """Raises ValueError where somebody is there, but too small or large for the unit.

  `record` is one of poses (`jaxmg.inputs.pose`): keypoints in pixels, joints3d in metres.
  """
  keypoints, joints3d = record.get("keypoints"), record.get("joints3d")
  size = None if keypoints is None else body_size(keypoints[..., :2], keypoints[..., 2] > 0)
  if size is not None and size < SMALLEST_PIXELS:
    hint = "normalised? multiply x by the width and y by the height"
    raise ValueError(f"coordinates: expected pixels, got a body of {size:.2g} ({hint})")
  if joints3d is None:
    return
  size = body_size(joints3d, joints3d.any(-1))
  if size is not None and not SMALLEST_METRES <= size <= LARGEST_METRES:
    hint = "millimetres? divide by 1000" if size > 100 else "another unit?"
    raise ValueError(f"joints3d: expected metres, got a body of {size:.2g} ({hint})")


def outside(
  keypoints: Float[np.ndarray, "t m v 3"], frame_size: tuple[int, int] | None
) -> tuple[float, str | None]:
  """The share of the joints outside of the frame (height, width), and what to do, if it seems to be
  another one: `EXCHANGED`, or another hint.

  That is where most of them are outside; or some that would not be if its sides changed places, and
  then they leave it by its longer side alone: they must come near where that frame ends, beyond
  half way, as legs below a frame do not.
  """
  if frame_size is None:
    return 0.0, None
  share = _share_outside(keypoints, frame_size)
  if share > _OUTSIDE and _share_outside(keypoints, frame_size[::-1]) < _INSIDE * share:
    half_way, longest = sum(frame_size) / 2, max(frame_size)
    reached = tuple(longest if side == longest else half_way for side in frame_size)
    if share > _MOST or _share_outside(keypoints, reached) > _INSIDE * share:
      return share, EXCHANGED
  return share, "name its own" if share > _MOST else None


def _share_outside(
  keypoints: Float[np.ndarray, "t m v 3"], frame_size: tuple[float | int, float | int]
) -> float:
  height, width = frame_size
  # Views and a mask: of a long recording, indices would be large.
  x, y, there = keypoints[..., 0], keypoints[..., 1], keypoints[..., 2] > 0
  outside = ((x < 0) | (x > width) | (y < 0) | (y > height)) & there
  return np.count_nonzero(outside) / max(1, np.count_nonzero(there))


def doubts(
  points: Float[np.ndarray, "t m v 3"], skeleton: Skeleton, *, in_3d: bool = False
) -> list[str]:
  """What is odd about poses of a layout, in short sentences: none of most recordings.

  `points` are x, y (down) and score, or in 3-D x, y (up), z; absent ones are all zero. Sentences
  that end in a question mark are about what may well be so: people stand on their heads, and lie.
  """
  poses, seen = _poses(points, in_3d)
  crossing, unlike, worst = _measure(poses, seen, skeleton)
  if crossing is None:
    return []
  fit = _misfit(crossing, unlike)
  others = {name: misfit(points, get(name), in_3d=in_3d) for name in _twins(skeleton)}
  order = f"are the joints in the order of {skeleton}?"
  # Of half a body seen from one side an arm at the camera is too much.
  most = in_3d or 3 * (seen.mean(0) > 0.5).sum() > 2 * skeleton.num_joints
  if most and others and min(others.values()) * _BETTER < fit:
    return [f"the joints fit {min(others, key=others.get)} better than {skeleton}"]
  if crossing > _CROSSING[in_3d]:
    return [f"bones cross the body, {crossing:.1f} times as long as need be: {order}"]
  if most and unlike > _UNLIKE[in_3d]:
    return [f"left and right are not alike, {worst}: {order}"]
  return _upright(poses, seen, skeleton, 1 if in_3d else -1)


def misfit(
  points: Float[np.ndarray, "t m v 3"], skeleton: Skeleton, *, in_3d: bool = False
) -> float:
  """How badly the joints fit a layout: 1 to 3 if it is theirs, infinity if too few are there."""
  crossing, unlike, _ = _measure(*_poses(points, in_3d), skeleton)
  return np.inf if crossing is None else _misfit(crossing, unlike)


def _misfit(crossing: float, unlike: float) -> float:
  return crossing * (1 + 4 * unlike)


def _twins(skeleton: Skeleton) -> list[str]:
  """Those of our layouts that have as many joints."""
  same = [other for other in SKELETONS.values() if other.num_joints == skeleton.num_joints]
  return [other.name for other in same if other.joints != skeleton.joints]


def _poses(
  points: np.ndarray, in_3d: bool
) -> tuple[Float[np.ndarray, "n v c"], Bool[np.ndarray, "n v"]]:
  """Some poses of all frames and persons, of one size, and which of their joints are there."""
  poses = np.asarray(points, np.float64).reshape(-1, *points.shape[2:])
  seen = poses.any(-1)
  if in_3d:  # the centre of coordinates may be a joint, and is then all zero in every pose
    someone = seen.any(-1)
    seen[someone] |= ~seen[someone].any(0)
  count = seen.sum(-1)
  full = np.flatnonzero((count > 0) & (2 * count > count.max(initial=0)))
  full = full[np.linspace(0, len(full) - 1, min(len(full), _MOST_POSES)).astype(int)]
  poses, seen = poses[full, :, : 3 if in_3d else 2], seen[full]
  mask = seen[..., None]
  count = seen.sum(-1)[:, None, None]
  poses = (poses - (poses * mask).sum(1, keepdims=True) / count) * mask
  size = np.sqrt((poses**2).sum((1, 2), keepdims=True) / count)
  return poses / np.where(size > 0, size, 1), seen


def _measure(
  poses: np.ndarray, seen: np.ndarray, skeleton: Skeleton
) -> tuple[float | None, float, str]:
  """Length of the bones by that of the shortest tree; how unlike left and right are; which most."""
  kept = seen.mean(0) > 0.5 if len(seen) else np.zeros(skeleton.num_joints, bool)
  if kept.sum() < _FEWEST_JOINTS:
    return None, 0.0, ""
  edges = []
  for v in np.flatnonzero(kept).tolist():
    parent = skeleton.parents[v]
    while not kept[parent] and parent != skeleton.parents[parent]:
      parent = skeleton.parents[parent]
    if kept[parent] and parent != v:
      edges.append((v, parent))
  joints = np.flatnonzero(kept)
  both = seen[:, joints, None] & seen[:, None, joints]
  distance = np.linalg.norm(poses[:, joints, None] - poses[:, None, joints], axis=-1)
  distance = np.sort(np.where(both, distance, np.inf), axis=0)  # the median is in the middle
  median = np.take_along_axis(distance, both.sum(0, keepdims=True) // 2, 0)[0]
  shortest = _shortest_tree(median)
  if not edges or shortest == 0:
    return None, 0.0, ""
  place = np.cumsum(kept) - 1
  length = {edge: float(median[place[edge[0]], place[edge[1]]]) for edge in edges}
  pairs = []
  for (a, b), own in length.items():
    image = (int(skeleton.mirror[a]), int(skeleton.mirror[b]))
    if image in length and a < image[0]:
      pairs.append((abs(own - length[image]), own + length[image], (a, b), image))
  difference, total = (sum(pair[i] for pair in pairs) for i in (0, 1))
  worst = ""
  if total > 0:
    _, _, *two = max(pairs)
    long, short = sorted(two, key=length.get, reverse=True)
    name = " to ".join(skeleton.joints[v] for v in long)
    worst = f"{name} is {length[long] / max(length[short], 1e-3):.1f} times as long as its like"
  return sum(length.values()) / shortest, difference / total if total > 0 else 0.0, worst


def _shortest_tree(distance: Float[np.ndarray, "n n"]) -> float:
  """The length of the shortest tree that joins all points (Prim)."""
  near, total = distance[0].copy(), 0.0
  joined = np.zeros(len(distance), bool)
  joined[0] = True
  for _ in range(len(distance) - 1):
    point = np.where(joined, np.inf, near).argmin()
    total += near[point]
    joined[point] = True
    near = np.minimum(near, distance[point])
  return float(total)


def _upright(poses: np.ndarray, seen: np.ndarray, skeleton: Skeleton, up: int) -> list[str]:
  """Whether the head is above the hips, or the feet, where the names tell which they are."""

  def middle(*parts):
    chosen = [v for v, joint in enumerate(skeleton.joints) if joint.endswith(parts)]
    mask = seen[:, chosen, None]
    count = mask.sum(1)
    return np.where(count > 0, (poses[:, chosen] * mask).sum(1) / np.maximum(count, 1), np.nan)

  head = middle("nose", "eye", "ear", "head")
  for name, low in (
    ("hips", middle("hip", "pelvis", "spine_base", "hip_center")),
    ("feet", middle("ankle", "foot", "heel")),
  ):
    body = (head - low)[np.isfinite(head - low).all(-1)]
    if len(body) > len(poses) / 2:
      across, above = np.median(np.abs(body[:, 0])), up * np.median(body[:, 1])
      if above < -across:
        return [f"the head is below the {name}: upside down?"]
      if abs(above) < across / 2:
        return [f"the head is beside the {name}: lying, or is the picture turned?"]
      return []
  return []
