"""A skeleton as a graph's nodes over time, 2s-AGCN's input: joints, bones, and their motion."""

import dataclasses
from typing import Annotated, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmg import shapes
from jaxmg.inputs import pose as poses
from jaxmg.skeletons import augment, geometry
from jaxmg.skeletons.topology import Skeleton

STREAMS = ("joint", "bone", "joint_motion", "bone_motion")


@dataclasses.dataclass(frozen=True)
class Graph(poses.Pose):
  """A pose -> float32[B, T, M, V, 3]; see `graph_inputs` for what the fields do."""

  SEEN: ClassVar[tuple[str, ...]] = (*poses.Pose.SEEN, "points", "stream")

  points: Literal["keypoints", "joints3d"] = "keypoints"
  stream: Literal[STREAMS] = "joint"
  rotation: Annotated[float, "[0, 180]"] = 0.0
  tilt: Annotated[float, "[0, 180]"] = 0.0
  scale: Annotated[tuple[float, float], "(0, 10]"] = (1.0, 1.0)

  @property
  def _options(self) -> dict:
    return {"skeleton": self.skeleton, "points": self.points}

  def train(
    self, keys: Key[Array, " b"], part: dict[str, Array], mirror: bool | Bool[Array, " b"]
  ) -> Float[Array, "b t m v 3"]:
    """A batch of training clips, augmented by one key each."""
    return graph_inputs(
      part[self.points],
      part["frame_size"],
      stream=self.stream,
      keys=keys,
      mirror=mirror,
      rotation=self.rotation,
      tilt=self.tilt,
      scale=self.scale,
      **self._options,
    )

  def views(self, part: dict[str, Array], mirror: bool) -> dict[str, Array]:
    """All views of test clips."""
    return graph_views(part[self.points], part["frame_size"], mirror=mirror, **self._options)

  def view(self, view: dict[str, Array]) -> Float[Array, "b t m v 3"]:
    """The stream of one view of test clips."""
    return graph_view(view, stream=self.stream, **self._options)


def graph_inputs(
  pose: Float[Array, "b t m v 3"],
  frame_size: Int[Array, "b 2"],
  *,
  skeleton: Skeleton,
  points: str = "keypoints",
  stream: str = "joint",
  keys: Key[Array, " b"] | None = None,
  mirror: bool | Bool[Array, " b"] = False,
  rotation: float = 0.0,
  tilt: float = 0.0,
  scale: tuple[float, float] = (1.0, 1.0),
) -> Float[Array, "b t m v 3"]:
  """A pose -> a stream of 2s-AGCN: "joint", "bone", "joint_motion" or "bone_motion".

  `points` says what the pose is: "keypoints", x and y in pixels and a score, which become
  coordinates in [-1, 1] over the frame and the score; or "joints3d", metres, which are centred on
  the first person's root where it is first seen. With `keys`, one per clip, it is augmented first:
  rotation (degrees, in the image, or about the vertical axis), tilt (degrees, 3-D only), a scale
  between two factors, mirroring (if `mirror`: by the key, or the clips that it
  names). See `geometry.bones` and `geometry.motion`.

  Raises ValueError for other shapes, kinds of numbers, `points` or `stream`, as do the functions
  below. Absent joints are all zero, before and after.
  """
  shapes.check("pose", pose, "float", "B", "T", "M", skeleton.num_joints, 3)
  shapes.check("frame_size", frame_size, "int", pose.shape[0], 2)
  if keys is None:
    return _stream(_coordinates(pose, frame_size, skeleton, points), skeleton, points, stream)

  def augmented(key, pose, frame_size, mirrored):
    rotate_key, scale_key, mirror_key = jax.random.split(key, 3)
    if rotation and points == "keypoints":
      box = geometry.compact_box(pose, frame_size)
      pose = augment.rotate(rotate_key, pose, box, degrees=rotation)
    pose = _coordinates(pose, frame_size, skeleton, points)
    if (rotation or tilt) and points == "joints3d":
      pose = augment.turn(rotate_key, pose, rotation=rotation, tilt=tilt)
    pose = augment.scale(scale_key, pose, factors=scale)
    return poses.mirror(mirror_key, pose, skeleton.mirror, mirrored, width=1)

  pose = poses.vmap_clips(augmented, keys, pose, frame_size, mirror)
  return _stream(pose, skeleton, points, stream)


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
  return poses.with_mirror_images("pose", jnp.moveaxis(pose, 1, 0), mirror)


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


def _coordinates(pose, frame_size, skeleton, points):
  """Coordinates about 0, and the score, last: [..., 3] of key points, [..., 4] of 3-D joints."""
  pose = poses.scored(pose, points)
  if points == "keypoints":
    return geometry.normalize(pose, frame_size)
  return geometry.center(pose, skeleton.root)


def _stream(pose, skeleton, points, stream):
  if stream not in STREAMS:
    raise ValueError(f"stream: expected {' or '.join(STREAMS)}, got {stream!r}")
  if stream.startswith("bone"):
    pose = geometry.bones(pose, np.array(skeleton.parents))
  if stream.endswith("motion"):
    pose = geometry.motion(pose)
  pose = jnp.where(pose[..., -1:] > 0, pose, 0)
  return pose if points == "keypoints" else pose[..., :3]
