"""A skeleton as a graph's nodes over time, 2s-AGCN's input: joints, bones, and their motion."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmg import ranges, shapes
from jaxmg.inputs import pose as poses
from jaxmg.inputs import published
from jaxmg.skeletons import augment, geometry, topology
from jaxmg.skeletons.topology import Skeleton

STREAMS = ("joint", "bone", "joint_motion", "bone_motion")
PREPARATIONS = ("ours", *published.PREPARATIONS)


@dataclasses.dataclass(frozen=True)
class Graph(poses.Pose):
  """A pose -> float32[B, T, M, V, 3]; see `graph_inputs` for what the fields do.

  With a `preparation` of `published`, that of the original's weights, persons and frames are chosen
  as there: tests see 300 frames, and training `num_frames` of these.
  """

  SEEN: ClassVar[tuple[str, ...]] = (*poses.Pose.SEEN, "points", "stream", "preparation")

  points: Literal["keypoints", "joints3d"] = "keypoints"
  stream: Literal[STREAMS] = "joint"
  rotation: Annotated[float, "[0, 180]"] = 0.0
  tilt: Annotated[float, "[0, 180]"] = 0.0
  scale: Annotated[tuple[float, float], "(0, 10]"] = (1.0, 1.0)
  preparation: Literal[PREPARATIONS] = "ours"

  def __post_init__(self):
    super().__post_init__()
    if self._published and self.num_frames > published.NUM_FRAMES:
      expected = f"at most {published.NUM_FRAMES} with preparation={self.preparation}"
      raise ValueError(f"num_frames: expected {expected}, got {self.num_frames}")

  def __str__(self) -> str:
    return super().__str__() + (f" as published ({self.preparation})" if self._published else "")

  @property
  def _published(self) -> published.Preparation | None:
    return published.find(self.preparation, vars(self))

  @property
  def _options(self) -> dict:
    return {name: getattr(self, name) for name in ("skeleton", "points", "preparation")}

  def kept(self, record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of all that `read` takes of this one: if as published, still of all persons."""
    if not self._published:
      return super().kept(record)
    pose = record[self.points].take(self.skeleton.indices_in(record["layout"]), axis=2)
    size = np.int32(self._frame_size(record))
    return {"layout": self.skeleton, self.points: pose, "frame_size": size}

  def read(self, record: Mapping[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A training clip: frames drawn at random."""
    if not self._published:
      return super().read(record, rng)
    start = 0
    if self._published.windows:
      length = min(len(record[self.points]), published.NUM_FRAMES)
      start = rng.integers(max(0, length - self.num_frames) + 1)
    return self._published_part(record, np.s_[start : start + self.num_frames])

  def read_test(self, record: Mapping[str, Any], num_clips: int) -> dict[str, np.ndarray]:
    """A test clip: `num_clips` choices of frames, which are all the same if as published."""
    if not self._published:
      return super().read_test(record, num_clips)
    part = self._published_part(record, np.s_[:])
    return part | {self.points: np.stack([part[self.points]] * num_clips)}

  def sampled(self, record: Mapping[str, Any], num_clips: int) -> Float[np.ndarray, "n t"]:
    """Which frames `read_test` takes; if as published, of one who is there in all frames."""
    if not self._published:
      return super().sampled(record, num_clips)
    numbers = np.arange(float(published.NUM_FRAMES)) % len(record[self.points])
    return np.stack([numbers] * num_clips)

  def _device_sampling(self, num_frames, num_clips):
    if not self._published:
      return super()._device_sampling(num_frames, num_clips)
    clip = jax.vmap(self._published.device_clip)
    return lambda pose: jnp.stack([clip(pose)] * num_clips, 1), None

  def _published_part(self, record, frames):
    joints = self.skeleton.indices_in(record["layout"])
    clip = self._published.clip(record[self.points].take(joints, axis=2))
    return {self.points: clip[frames], "frame_size": np.int32(self._frame_size(record))}

  def example(self, num_clips: int | None = None) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of one: of training, or of `num_clips` test clips."""
    if self._published and num_clips and self.num_frames < published.NUM_FRAMES:
      return dataclasses.replace(self, num_frames=published.NUM_FRAMES).example(num_clips)
    return super().example(num_clips)

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

  def ones(self, view: dict[str, Array]) -> Float[Array, "b t m v"]:
    """A mask of the stream: of a joint, or of the bone that ends in it, all three channels."""
    return jnp.ones_like(view["pose"][..., 0])

  def view(
    self, view: dict[str, Array], mask: Float[Array, "b t m v"] | None = None
  ) -> Float[Array, "b t m v 3"]:
    """The stream of one view of test clips."""
    x = graph_view(view, stream=self.stream, **self._options)
    if mask is None:
      return x
    mask = jnp.where(view["mirrored"], mask[..., np.array(self.skeleton.mirror)], mask)
    return x * mask[..., None]


def graph_inputs(
  pose: Float[Array, "b t m v 3"],
  frame_size: Int[Array, "b 2"],
  *,
  skeleton: str | Skeleton,
  points: str = "keypoints",
  stream: str = "joint",
  keys: Key[Array, " b"] | None = None,
  mirror: bool | Bool[Array, " b"] = False,
  rotation: float = 0.0,
  tilt: float = 0.0,
  scale: tuple[float, float] = (1.0, 1.0),
  preparation: str = "ours",
) -> Float[Array, "b t m v 3"]:
  """A pose -> a stream of 2s-AGCN: "joint", "bone", "joint_motion" or "bone_motion".

  `points` says what the pose is: "keypoints", x and y in pixels and a score, which become
  coordinates in [-1, 1] over the frame and the score; or "joints3d", metres, which are centred on
  the first person's root where it is first seen. With `keys`, one per clip, it is augmented first:
  rotation (degrees, in the image, or about the vertical axis), tilt (degrees, 3-D only), a scale
  between two factors, mirroring (if `mirror`: by the key, or the clips that it
  names). See `geometry.bones` and `geometry.motion`. With another `preparation` than "ours",
  coordinates, bones and motion are those of `published`, whose `clip` the pose is taken from, and
  which is mirrored at most.

  `skeleton` is a name of `jaxmg.skeletons.SKELETONS`, or one of your own.

  Raises ValueError for other shapes, kinds of numbers, `points`, `stream` or `preparation`, as do
  the functions below, and for augmentation without keys. Absent joints are all zero, before and
  after.
  """
  skeleton = topology.get(skeleton)
  augmentation = {"rotation": rotation, "tilt": tilt, "scale": scale}
  published.find(preparation, {"skeleton": skeleton, "points": points} | augmentation)
  shapes.check("pose", pose, "float", "B", "T", "M", skeleton.num_joints, 3)
  shapes.check("frame_size", frame_size, "int", pose.shape[0], 2)
  ranges.check_these(Graph, rotation=rotation, tilt=tilt, scale=scale)
  drawn = {
    "mirror": (mirror, False),
    "rotation": (rotation, 0.0),
    "tilt": (tilt, 0.0),
    "scale": (tuple(scale), (1.0, 1.0)),
  }
  poses.check_drawn(keys, pose, drawn)
  options = (skeleton, points, preparation)
  if keys is None:
    return _stream(_coordinates(pose, frame_size, *options), *options, stream)

  def augmented(key, pose, frame_size, mirrored):
    rotate_key, scale_key, mirror_key = jax.random.split(key, 3)
    if rotation and points == "keypoints":
      box = geometry.compact_box(pose, frame_size)
      pose = augment.rotate(rotate_key, pose, box, degrees=rotation)
    pose = _coordinates(pose, frame_size, *options)
    if (rotation or tilt) and points == "joints3d":
      pose = augment.turn(rotate_key, pose, rotation=rotation, tilt=tilt)
    pose = augment.scale(scale_key, pose, factors=scale)
    return poses.mirror(mirror_key, pose, skeleton.mirror, mirrored, width=1)

  pose = poses.vmap_clips(augmented, keys, pose, frame_size, mirror)
  return _stream(pose, *options, stream)


def graph_views(
  pose: Float[Array, "b n t m v 3"],
  frame_size: Int[Array, "b 2"],
  *,
  skeleton: str | Skeleton,
  points: str = "keypoints",
  preparation: str = "ours",
  mirror: bool = False,
) -> dict[str, Array]:
  """The views of a test clip, as `heatmap_views`: `pose` [R, B, T, M, V, C] and `mirrored` bool[R].

  C is what `graph_view` takes: coordinates and, if they are ours, the score.
  """
  skeleton = topology.get(skeleton)
  shapes.check("pose", pose, "float", "B", "N", "T", "M", skeleton.num_joints, 3)
  shapes.check("frame_size", frame_size, "int", pose.shape[0], 2)
  frame_sizes = jnp.broadcast_to(frame_size[:, None], (*pose.shape[:2], 2))
  pose = _coordinates(pose, frame_sizes, skeleton, points, preparation)
  return poses.with_mirror_images("pose", jnp.moveaxis(pose, 1, 0), mirror)


def graph_view(
  view: dict[str, Array],
  *,
  skeleton: str | Skeleton,
  points: str = "keypoints",
  preparation: str = "ours",
  stream: str = "joint",
) -> Float[Array, "b t m v 3"]:
  """A stream of one view."""
  skeleton = topology.get(skeleton)
  pose = view["pose"]
  mirrored = augment.flip(pose, skeleton.mirror, width=1)
  pose = jnp.where(view["mirrored"], mirrored, pose)
  return _stream(pose, skeleton, points, preparation, stream)


def _coordinates(pose, frame_size, skeleton, points, preparation):
  """Coordinates about 0, and the score, last: [..., 3] of key points, [..., 4] of 3-D joints.

  As published, always three channels.
  """
  if theirs := published.find(preparation, {"skeleton": skeleton, "points": points}):
    return theirs.coordinates(pose, frame_size)
  pose = poses.scored(pose, points)
  if points == "keypoints":
    return geometry.normalize(pose, frame_size)
  return geometry.center(pose, skeleton.root)


def _stream(pose, skeleton, points, preparation, stream):
  if stream not in STREAMS:
    raise ValueError(f"stream: expected {' or '.join(STREAMS)}, got {stream!r}")
  if theirs := published.find(preparation, {}):
    return published.stream(pose, theirs.parents, stream)
  if stream.startswith("bone"):
    pose = geometry.bones(pose, np.array(skeleton.parents))
  if stream.endswith("motion"):
    pose = geometry.motion(pose)
  pose = jnp.where(pose[..., -1:] > 0, pose, 0)
  return pose if points == "keypoints" else pose[..., :3]
