"""From the batch to the model's input, on the device: augment, then render or derive.

The one owner of this step: training, evaluation and prediction call these functions inside their
jitted steps, so that a heatmap volume (10 MB a clip) never exists on the host. Each kind of input
has three: `*_inputs` for training, and for a test clip its `*_views`, and one `*_view` of them.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxmg import shapes
from jaxmg.skeletons import augment, geometry, heatmaps
from jaxmg.skeletons.topology import Skeleton

STREAMS = ("joint", "bone", "joint_motion", "bone_motion")


def heatmap_inputs(
  pose: Float[Array, "b t m v 3"],
  frame_size: Int[Array, "b 2"],
  *,
  skeleton: Skeleton,
  points: str = "keypoints",
  kind: str = "joint",
  size: int = 56,
  sigma: float = 0.6,
  keys: Key[Array, " b"] | None = None,
  mirror: bool = False,
  crop_area: tuple[float, float] = (0.56, 1.0),
  rotation: float = 0.0,
  jitter: float = 0.0,
  joint_dropout: float = 0.0,
  bone_scale: tuple[float, float] = (1.0, 1.0),
  turn: float = 0.0,
  tilt: float = 0.0,
) -> Float[Array, "b t h w c"]:
  """A pose -> `kind` ("joint" or "limb") heatmaps of `size` x `size`.

  `points` says what the pose is: "keypoints", x and y in source pixels and a score, or "joints3d",
  metres, which are projected (`geometry.project`). The compact box of each clip is drawn to the
  whole heatmap. With `keys`, one per clip, the clip is augmented first: rotation (degrees), jitter
  (source pixels), joint dropout and mirroring (only if `mirror`), and the box is cropped to a
  random share of its area (PoseC3D's training pipeline). Before all this the bones' lengths change
  by random factors (`augment.stretch`), and 3-D joints turn about the vertical and tilt by up to so
  many degrees (`augment.turn`, about the root): other persons, from other sides.

  Raises ValueError for other shapes, kinds of numbers or `kind`, as do the functions below. Values
  cannot be seen under jit: coordinates must be finite, and absent joints all zero.
  """
  shapes.check(points, pose, "float", "B", "T", "M", skeleton.num_joints, 3)
  shapes.check("frame_size", frame_size, "int", pose.shape[0], 2)
  pose, in_3d = _scored(pose, points), points == "joints3d"
  if (turn or tilt) and not in_3d:
    raise ValueError(f'points: expected "joints3d" to turn and tilt, got {points!r}')
  if keys is None:
    keypoints = geometry.project(pose, frame_size) if in_3d else pose
    placed = _place(keypoints, frame_size, size)
  else:

    def place(key, pose, frame_size):
      crop_key, rotate_key, jitter_key, drop_key, mirror_key, bones_key, turn_key = (
        jax.random.split(key, 7)
      )
      if tuple(bone_scale) != (1.0, 1.0):
        parents = np.array(skeleton.parents)
        pose = augment.stretch(bones_key, pose, parents, skeleton.mirror, factors=bone_scale)
      if turn or tilt:
        about_root = geometry.center(pose, skeleton.root)
        origin = pose - about_root
        pose = origin + augment.turn(turn_key, about_root, rotation=turn, tilt=tilt)
      keypoints = geometry.project(pose, frame_size) if in_3d else pose
      box = geometry.compact_box(keypoints, frame_size)
      if rotation:
        keypoints = augment.rotate(rotate_key, keypoints, box, degrees=rotation)
      if jitter:
        keypoints = augment.jitter(jitter_key, keypoints, pixels=jitter)
      if joint_dropout:
        keypoints = augment.drop_joints(drop_key, keypoints, probability=joint_dropout)
      box = augment.resized_crop(crop_key, box, area=crop_area)
      placed = geometry.move_into_box(keypoints, box, size=(size, size))
      if mirror:
        placed = augment.mirror(mirror_key, placed, skeleton.mirror, width=size)
      return placed

    placed = jax.vmap(place)(keys, pose, frame_size)
  return _render(placed, skeleton, kind, size, sigma)


def heatmap_views(
  keypoints: Float[Array, "b n t m v 3"],
  frame_size: Int[Array, "b 2"],
  *,
  size: int = 64,
  mirror: bool = False,
) -> dict[str, Array]:
  """The views of a test clip, still as points: N sampled clips, and their mirror images after them.

  One box holds all N clips. Returns `points` [R, B, T, M, V, 3] in heatmap pixels and `mirrored`
  bool[R], with R = N or 2 N: what `heatmap_view` takes, one view at a time, so that only one view's
  heatmaps exist at once.
  """
  shapes.check("keypoints", keypoints, "float", "B", "N", "T", "M", "V", 3)
  shapes.check("frame_size", frame_size, "int", keypoints.shape[0], 2)
  b, n, t, m, v, _ = keypoints.shape
  points = _place(keypoints.reshape(b, n * t, m, v, 3), frame_size, size)
  points = jnp.moveaxis(points.reshape(b, n, t, m, v, 3), 1, 0)
  return _with_mirror_images("points", points, mirror)


def heatmap_view(
  view: dict[str, Array],
  *,
  skeleton: Skeleton,
  kind: str = "joint",
  size: int = 64,
  sigma: float = 0.6,
) -> Float[Array, "b t h w c"]:
  """The heatmaps of one view: `points` [B, T, M, V, 3] and whether to take the mirror image.

  The mirror image is the heatmap with its columns reversed and its channels exchanged.
  """
  shapes.check("points", view["points"], "float", "B", "T", "M", skeleton.num_joints, 3)
  rendered = _render(view["points"], skeleton, kind, size, sigma)
  channels = skeleton.mirror if kind == "joint" else skeleton.limb_mirror
  return jnp.where(view["mirrored"], rendered[..., ::-1, channels], rendered)


def graph_inputs(
  pose: Float[Array, "b t m v 3"],
  frame_size: Int[Array, "b 2"],
  *,
  skeleton: Skeleton,
  points: str = "keypoints",
  stream: str = "joint",
  keys: Key[Array, " b"] | None = None,
  mirror: bool = False,
  rotation: float = 0.0,
  tilt: float = 0.0,
  scale: tuple[float, float] = (1.0, 1.0),
) -> Float[Array, "b t m v 3"]:
  """A pose -> a stream of 2s-AGCN: "joint", "bone", "joint_motion" or "bone_motion".

  `points` says what the pose is: "keypoints", x and y in pixels and a score, which become
  coordinates in [-1, 1] over the frame and the score; or "joints3d", metres, which are centred on
  the first person's root where it is first seen. With `keys`, one per clip, it is augmented first:
  rotation (degrees, in the image, or about the vertical axis), tilt (degrees, 3-D only), a scale
  between two factors, mirroring (only if `mirror`). See `geometry.bones` and `geometry.motion`.

  Raises ValueError for other shapes, kinds of numbers, `points` or `stream`, as do the functions
  below. Absent joints are all zero, before and after.
  """
  shapes.check("pose", pose, "float", "B", "T", "M", skeleton.num_joints, 3)
  shapes.check("frame_size", frame_size, "int", pose.shape[0], 2)
  if keys is None:
    return _stream(_coordinates(pose, frame_size, skeleton, points), skeleton, points, stream)

  def augmented(key, pose, frame_size):
    rotate_key, scale_key, mirror_key = jax.random.split(key, 3)
    if rotation and points == "keypoints":
      box = geometry.compact_box(pose, frame_size)
      pose = augment.rotate(rotate_key, pose, box, degrees=rotation)
    pose = _coordinates(pose, frame_size, skeleton, points)
    if (rotation or tilt) and points == "joints3d":
      pose = augment.turn(rotate_key, pose, rotation=rotation, tilt=tilt)
    pose = augment.scale(scale_key, pose, factors=scale)
    if mirror:
      pose = augment.mirror(mirror_key, pose, skeleton.mirror, width=1)
    return pose

  return _stream(jax.vmap(augmented)(keys, pose, frame_size), skeleton, points, stream)


def graph_views(
  pose: Float[Array, "b n t m v 3"],
  frame_size: Int[Array, "b 2"],
  *,
  skeleton: Skeleton,
  points: str = "keypoints",
  mirror: bool = False,
) -> dict[str, Array]:
  """The views of a test clip, as `heatmap_views`: `pose` [R, B, T, M, V, C] and `mirrored` bool[R].

  C is what `graph_view` takes: coordinates and score.
  """
  shapes.check("pose", pose, "float", "B", "N", "T", "M", skeleton.num_joints, 3)
  shapes.check("frame_size", frame_size, "int", pose.shape[0], 2)
  frame_sizes = jnp.broadcast_to(frame_size[:, None], (*pose.shape[:2], 2))
  pose = _coordinates(pose, frame_sizes, skeleton, points)
  return _with_mirror_images("pose", jnp.moveaxis(pose, 1, 0), mirror)


def graph_view(
  view: dict[str, Array],
  *,
  skeleton: Skeleton,
  points: str = "keypoints",
  stream: str = "joint",
) -> Float[Array, "b t m v 3"]:
  """A stream of one view."""
  pose = view["pose"]
  mirrored = augment.flip(pose, skeleton.mirror, width=1)
  return _stream(jnp.where(view["mirrored"], mirrored, pose), skeleton, points, stream)


def _place(keypoints, frame_size, size):
  box = geometry.compact_box(keypoints, frame_size)
  return geometry.move_into_box(keypoints, box, size=(size, size))


def _render(points, skeleton, kind, size, sigma):
  if kind == "joint":
    return heatmaps.render_joints(points, size=(size, size), sigma=sigma)
  if kind == "limb":
    return heatmaps.render_limbs(points, skeleton.limbs, size=(size, size), sigma=sigma)
  raise ValueError(f'kind: expected "joint" or "limb", got {kind!r}')


def _with_mirror_images(name, views, mirror):
  mirrored = np.zeros(len(views), bool)
  if mirror:
    views, mirrored = jnp.concatenate([views, views]), np.repeat([False, True], len(views))
  return {name: views, "mirrored": jnp.asarray(mirrored)}


def _coordinates(pose, frame_size, skeleton, points):
  """Coordinates about 0, and the score, last: [..., 3] of key points, [..., 4] of 3-D joints."""
  pose = _scored(pose, points)
  if points == "keypoints":
    return geometry.normalize(pose, frame_size)
  return geometry.center(pose, skeleton.root)


def _scored(pose, points):
  """The pose with its score last: a 3-D joint's is 1, or 0 where it is all zero."""
  if points == "keypoints":
    return pose
  if points == "joints3d":
    return jnp.concatenate([pose, pose.any(-1, keepdims=True).astype(pose.dtype)], -1)
  raise ValueError(f'points: expected "keypoints" or "joints3d", got {points!r}')


def _stream(pose, skeleton, points, stream):
  if stream not in STREAMS:
    raise ValueError(f"stream: expected {' or '.join(STREAMS)}, got {stream!r}")
  if stream.startswith("bone"):
    pose = geometry.bones(pose, np.array(skeleton.parents))
  if stream.endswith("motion"):
    pose = geometry.motion(pose)
  pose = jnp.where(pose[..., -1:] > 0, pose, 0)
  return pose if points == "keypoints" else pose[..., :3]
