"""Heatmaps of joints or limbs, PoseC3D's input: a clip's points are drawn on the device."""

import dataclasses
from typing import Annotated, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmg import gaussians, ranges, shapes
from jaxmg.gaussians import Gaussians
from jaxmg.inputs import pose as poses
from jaxmg.skeletons import augment, geometry, heatmaps, topology
from jaxmg.skeletons.topology import Skeleton

STREAMS = ("joint", "limb")
_CROP_AREA = (0.56, 1.0)  # of the body's box, in training


@dataclasses.dataclass(frozen=True)
class Heatmaps(poses.Pose):
  """Key points -> heatmaps float32[B, T, H, W, C]; see `heatmap_inputs` for what the fields do.

  Those of one person's joints are `Gaussians`: a model draws them (`jaxmg.gaussians.drawn`).

  `size` is that of training, `test_size` that of evaluation and prediction. Where bodies are turned
  in space (`turn`, `tilt`), training takes 3-D joints, and evaluation key points all the same.
  """

  points: ClassVar[str] = "keypoints"
  SEEN: ClassVar[tuple[str, ...]] = (*poses.Pose.SEEN, "stream", "size", "sigma")

  stream: Literal[STREAMS] = "joint"
  size: Annotated[int, "[8, 1024]"] = 56
  test_size: Annotated[int, "[8, 1024]"] = 64
  sigma: Annotated[float, "(0, 100]"] = 0.6
  crop_area: Annotated[tuple[float, float], "(0, 1]"] = _CROP_AREA
  rotation: Annotated[float, "[0, 180]"] = 0.0
  jitter: Annotated[float, "[0, 1000]"] = 0.0
  joint_dropout: Annotated[float, "[0, 1)"] = 0.0
  bone_scale: Annotated[tuple[float, float], "(0, 10]"] = (1.0, 1.0)
  turn: Annotated[float, "[0, 180]"] = 0.0
  tilt: Annotated[float, "[0, 180]"] = 0.0

  @property
  def train_points(self) -> str:
    return "joints3d" if self.turn or self.tilt else self.points

  def train(
    self, keys: Key[Array, " b"], part: dict[str, Array], mirror: bool | Bool[Array, " b"]
  ) -> Float[Array, "b t h w c"] | Gaussians:
    """A batch of training clips, augmented by one key each."""
    names = "crop_area", "rotation", "jitter", "joint_dropout", "bone_scale", "turn", "tilt"
    return heatmap_inputs(
      part[self.train_points],
      part["frame_size"],
      skeleton=self.skeleton,
      points=self.train_points,
      stream=self.stream,
      size=self.size,
      sigma=self.sigma,
      keys=keys,
      mirror=mirror,
      undrawn=True,
      **{name: getattr(self, name) for name in names},
    )

  def views(self, part: dict[str, Array], mirror: bool) -> dict[str, Array]:
    """All views of test clips, still as points."""
    return heatmap_views(part["keypoints"], part["frame_size"], size=self.test_size, mirror=mirror)

  def ones(self, view: dict[str, Array]) -> Float[Array, "b t m v"]:
    """A mask of the joints' scores, by which the heatmaps of joints and limbs are as high."""
    return jnp.ones_like(view["points"][..., 2])

  def view(
    self, view: dict[str, Array], mask: Float[Array, "b t m v"] | None = None
  ) -> Float[Array, "b t h w c"] | Gaussians:
    """One view of test clips."""
    if mask is not None:
      view = view | {"points": view["points"].at[..., 2].multiply(mask)}
    options = {"stream": self.stream, "size": self.test_size, "sigma": self.sigma}
    return heatmap_view(view, skeleton=self.skeleton, undrawn=True, **options)

  def picture(self, x: Float[Array, "b t h w c"] | Gaussians) -> Float[Array, "b t h w"]:
    """What a person should see of it: the maximum over the channels."""
    return gaussians.drawn(x).max(-1)


def heatmap_inputs(
  pose: Float[Array, "b t m v 3"],
  frame_size: Int[Array, "b 2"],
  *,
  skeleton: str | Skeleton,
  points: str = "keypoints",
  stream: str = "joint",
  size: int = 56,
  sigma: float = 0.6,
  keys: Key[Array, " b"] | None = None,
  mirror: bool | Bool[Array, " b"] = False,
  crop_area: tuple[float, float] = _CROP_AREA,
  rotation: float = 0.0,
  jitter: float = 0.0,
  joint_dropout: float = 0.0,
  bone_scale: tuple[float, float] = (1.0, 1.0),
  turn: float = 0.0,
  tilt: float = 0.0,
  undrawn: bool = False,
) -> Float[Array, "b t h w c"] | Gaussians:
  """A pose -> `stream` ("joint" or "limb") heatmaps of `size` x `size`.

  `skeleton` says what its joints are: a name of `jaxmg.skeletons.SKELETONS`, or one of your own.

  `points` says what the pose is: "keypoints", x and y in source pixels and a score, or "joints3d",
  metres, which are projected (`geometry.project`). The compact box of each clip is drawn to the
  whole heatmap. With `keys`, one per clip, the clip is augmented first: rotation (degrees), jitter
  (source pixels), joint dropout and mirroring (if `mirror`: by the key,
  or the clips that it names), and the box is cropped to a
  random share of its area (PoseC3D's training pipeline). Before all this the bones' lengths change
  by random factors (`augment.stretch`), and 3-D joints turn about the vertical and tilt by up to so
  many degrees (`augment.turn`, about the root): other persons, from other sides.

  With `undrawn`, those of one person's joints are given as `Gaussians`.

  Raises ValueError for other shapes, kinds of numbers or `stream`, as do the functions below, and
  for augmentation without keys.
  Values cannot be seen under jit: coordinates must be finite, and absent joints all zero.
  """
  skeleton = topology.get(skeleton)
  shapes.check(points, pose, "float", "B", "T", "M", skeleton.num_joints, 3)
  shapes.check("frame_size", frame_size, "int", pose.shape[0], 2)
  _check_size(size)
  ranges.check_these(
    Heatmaps,
    sigma=sigma,
    crop_area=crop_area,
    rotation=rotation,
    jitter=jitter,
    joint_dropout=joint_dropout,
    bone_scale=bone_scale,
    turn=turn,
    tilt=tilt,
  )
  drawn = {
    "mirror": (mirror, False),
    "crop_area": (tuple(crop_area) in (_CROP_AREA, (1.0, 1.0)), True),  # the default, or all
    "rotation": (rotation, 0.0),
    "jitter": (jitter, 0.0),
    "joint_dropout": (joint_dropout, 0.0),
    "bone_scale": (tuple(bone_scale), (1.0, 1.0)),
    "turn": (turn, 0.0),
    "tilt": (tilt, 0.0),
  }
  poses.check_drawn(keys, pose, drawn)
  pose, in_3d = poses.scored(pose, points), points == "joints3d"
  if (turn or tilt) and not in_3d:
    raise ValueError(f'points: expected "joints3d" to turn and tilt, got {points!r}')
  if keys is None:
    keypoints = geometry.project(pose, frame_size) if in_3d else pose
    placed = _place(keypoints, frame_size, size)
  else:

    def place(key, pose, frame_size, mirrored):
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
      return poses.mirror(mirror_key, placed, skeleton.mirror, mirrored, width=size)

    placed = poses.vmap_clips(place, keys, pose, frame_size, mirror)
  found = _render(placed, skeleton, stream, size, sigma)
  return found if undrawn else gaussians.drawn(found)


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
  _check_size(size)
  shapes.check("frame_size", frame_size, "int", keypoints.shape[0], 2)
  b, n, t, m, v, _ = keypoints.shape
  points = _place(keypoints.reshape(b, n * t, m, v, 3), frame_size, size)
  points = jnp.moveaxis(points.reshape(b, n, t, m, v, 3), 1, 0)
  return poses.with_mirror_images("points", points, mirror)


def heatmap_view(
  view: dict[str, Array],
  *,
  skeleton: str | Skeleton,
  stream: str = "joint",
  size: int = 64,
  sigma: float = 0.6,
  undrawn: bool = False,
) -> Float[Array, "b t h w c"] | Gaussians:
  """The heatmaps of one view: `points` [B, T, M, V, 3] and whether to take the mirror image.

  The mirror image is the heatmap with its columns reversed and its channels exchanged. `undrawn` as
  in `heatmap_inputs`.
  """
  skeleton = topology.get(skeleton)
  _check_size(size)
  shapes.check("points", view["points"], "float", "B", "T", "M", skeleton.num_joints, 3)
  found, mirrored = _render(view["points"], skeleton, stream, size, sigma), view["mirrored"]
  if not isinstance(found, Gaussians):
    channels = skeleton.mirror if stream == "joint" else skeleton.limb_mirror
    return jnp.where(mirrored, found[..., ::-1, channels], found)
  rows = jnp.where(mirrored, found.rows[..., skeleton.mirror], found.rows)
  columns = jnp.where(mirrored, found.columns[..., ::-1, skeleton.mirror], found.columns)
  found = dataclasses.replace(found, rows=rows, columns=columns)
  return found if undrawn else gaussians.drawn(found)


def _check_size(size):
  if not isinstance(size, int | np.integer) or size < 1:
    raise ValueError(f"size: expected pixels of a side, a whole number, got {size!r}")


def _place(keypoints, frame_size, size):
  box = geometry.compact_box(keypoints, frame_size)
  return geometry.move_into_box(keypoints, box, size=(size, size))


def _render(points, skeleton, stream, size, sigma):
  if stream == "joint" and points.shape[-3] == 1:
    return heatmaps.joint_gaussians(points[..., 0, :, :], size=(size, size), sigma=sigma)
  if stream == "joint":
    return heatmaps.render_joints(points, size=(size, size), sigma=sigma)
  if stream == "limb":
    return heatmaps.render_limbs(points, skeleton.limbs, size=(size, size), sigma=sigma)
  raise ValueError(f'stream: expected "joint" or "limb", got {stream!r}')
