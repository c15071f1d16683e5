"""What the inputs that are made of poses share: which joints, persons and frames of a clip."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Float32, Int, Integer, Key

from jaxmg import ranges
from jaxmg.inputs import whole
from jaxmg.skeletons import augment, plausible, topology
from jaxmg.skeletons import sampling as frames
from jaxmg.skeletons.topology import Skeleton

_VALUES = "x to the right and y down in pixels, score"


@dataclasses.dataclass(frozen=True)
class Pose:
  """The host's half of an input of poses, numpy only; `jaxmg.inputs` says what an input is.

  `skeleton` is one of `topology`, or its name. A record is a mapping: `keypoints` and perhaps
  `joints3d` float32[T, M, V, 3] of the layout `layout`, and `frame_size` (height, width) or None,
  for which ours then stands. Of the persons, the `num_persons` of the highest score are taken.
  `sampling`, `num_frames` and `crop` are those of `sampling.sample`, `style` that of
  `sampling.test_clips`.
  """

  track: ClassVar[str] = "pose"
  # What a network that is not trained any more must go on being shown.
  SEEN: ClassVar[tuple[str, ...]] = ("skeleton", "sampling", "num_frames", "num_persons")
  whole_options: ClassVar[tuple[str, ...]] = ()

  skeleton: str | Skeleton
  frame_size: tuple[int, int]
  sampling: Literal[frames.KINDS] = "uniform"
  num_frames: Annotated[int, "[1, 4096]"] = 48
  num_persons: Annotated[int, "[1, 100]"] = 1
  crop: Annotated[tuple[float, float], "(0, 1]"] = (1.0, 1.0)
  style: Literal[frames.STYLES] = "mmaction2"

  def __post_init__(self):
    object.__setattr__(self, "skeleton", topology.get(self.skeleton))
    ranges.check(self)
    ranges.check_frame_size(self.frame_size)

  def __str__(self) -> str:
    return f"{self.stream} of {self.skeleton}"

  @property
  def told(self) -> dict[str, Any]:
    """What a file that leaves it open is taken to hold (`jaxmg.data.readers.Told`)."""
    own = self.skeleton not in topology.SKELETONS.values()  # its joints are not to be guessed
    layout = self.skeleton if own else None
    return {"layout": layout, "expects": self.points, "expects_size": self.frame_size}

  @property
  def train_points(self) -> str:
    """What training takes: "keypoints" or "joints3d"; prediction takes `points`."""
    return self.points

  def check(self, about: Mapping[str, Any]) -> None:
    """Raises ValueError where records of this `layout`, and with these arrays, lack ours."""
    _indices(self.skeleton, about["layout"])
    for points in {self.points, self.train_points} - about.keys():
      words = {"joints3d": "3-D joints"}.get(points, points)
      raise ValueError(f"points: expected {words}, got none")

  def check_shown(self, record: Mapping[str, Any]) -> None:
    """Raises ValueError where nobody is there, or nobody that can be in these pixels or metres."""
    pose = record[self.points]
    plausible.check_size({self.points: pose})
    if not self.shows(record):
      raise ValueError(f"{self.points}: expected somebody, got nobody in {len(pose)} frames")
    if self.points == "keypoints":
      height, width = size = self._frame_size(record)
      share, hint = plausible.outside(pose, size)
      if share > 0.5:
        got = f"{share:.0%} of the joints outside of it: {hint}"
        raise ValueError(f"frame_size: expected {height} x {width}, got {got}")

  def shows(self, record: Mapping[str, Any]) -> bool:
    """Whether somebody is there: one of the joints that the network sees, in one frame."""
    joints = _indices(self.skeleton, record["layout"])
    return bool(self._there(record)[..., joints].any())

  def _there(self, record: Mapping[str, Any]) -> Bool[np.ndarray, "t m all"]:
    pose = record[self.points]
    return pose[..., 2] > 0 if self.points == "keypoints" else pose.any(-1)

  def _frame_size(self, record: Mapping[str, Any]) -> tuple[int, int]:
    size = record["frame_size"]
    return self.frame_size if size is None else (int(size[0]), int(size[1]))

  def kept(self, record: Mapping[str, Any]) -> dict[str, Any]:
    """A record of all that `read` takes of this one: it reads the same of it, with less work."""
    return self._chosen(record, self.train_points)

  def read(self, record: Mapping[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A training clip: frames drawn at random."""

    def sample(pose):
      options = {"kind": self.sampling, "num_frames": self.num_frames, "crop": self.crop}
      return frames.sample(pose, rng=rng, **options)

    return self._part(record, self.train_points, sample)

  def read_test(self, record: Mapping[str, Any], num_clips: int) -> dict[str, np.ndarray]:
    """A test clip: `num_clips` choices of frames, on an axis before all others."""

    def sample(pose):
      options = {"kind": self.sampling, "num_frames": self.num_frames, "style": self.style}
      return frames.sample_test(pose, num_clips=num_clips, **options)

    return self._part(record, self.points, sample)

  def sampled(self, record: Mapping[str, Any], num_clips: int) -> Float[np.ndarray, "n t"]:
    """Which frames of the recording `read_test` takes: between two, where it blends them."""
    # Sampled as a joint is that moves by 1 a frame; never at 0, where it would be absent.
    numbers = np.arange(1.0, 1 + len(record[self.points])).reshape(-1, 1, 1, 1)
    options = {"kind": self.sampling, "num_frames": self.num_frames, "style": self.style}
    return frames.sample_test(numbers, num_clips=num_clips, **options)[..., 0, 0, 0] - 1

  def whole(self, num_frames: int, num_clips: int) -> whole.Whole:
    """What it takes of whole recordings of so many frames (`whole.Whole`), and how it reads them.

    The joints are those of our skeleton.
    """
    sample, frames = self._device_sampling(num_frames, num_clips)
    shape = (num_frames, self.num_persons, self.skeleton.num_joints, 3)
    arrays = {self.points: jax.ShapeDtypeStruct(shape, jnp.float32)}
    axes = "batch, frames, persons, joints, values; "
    values = "x to the right, y and z in metres" if self.points == "joints3d" else _VALUES
    about = {self.points: f"{axes}{values}; an absent joint is all zero"}
    if self.points == "keypoints":
      arrays["frame_size"] = jax.ShapeDtypeStruct((2,), jnp.int32)
      about["frame_size"] = "batch, values; height and width of the pictures in pixels"

    def read(part):
      ours = jnp.broadcast_to(jnp.int32(self.frame_size), (part[self.points].shape[0], 2))
      return {
        self.points: sample(part[self.points]),
        "frame_size": part.get("frame_size", ours),  # of 3-D joints, it changes nothing
      }

    return whole.Whole(arrays, about, read, frames)

  def _device_sampling(self, num_frames, num_clips):
    """The function [B, F, M, V, 3] -> [B, N, T, M, V, 3] of `read_test`, and its frames."""
    record = {self.points: np.empty((num_frames, 0, 0, 3), np.float32)}
    frames = self.sampled(record, num_clips)
    return lambda pose: whole.blended(whole.persons_first(pose, self.points), frames), frames

  def _part(self, record, points, sample):
    if record.get("chosen") != points:
      record = self._chosen(record, points)
    pose = sample(record[points]).astype(np.float32, copy=False)
    return {points: pose, "frame_size": record["frame_size"]}

  def _chosen(self, record, points):
    joints = _indices(self.skeleton, record["layout"])
    if points == "keypoints" and not record[points].any() and np.any(record.get("joints3d", 0)):
      # As where they are centred on the body: no camera sees it.
      raise ValueError('points: expected key points, got 3-D joints alone (points="joints3d")')
    pose = select(record[points], joints=joints, num_persons=self.num_persons, points=points)
    size = np.int32(self._frame_size(record))
    return {"layout": self.skeleton, points: pose, "frame_size": size, "chosen": points}

  def example(self, num_clips: int | None = None) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of one: of training, or of `num_clips` test clips."""
    points, views = (self.train_points, ()) if num_clips is None else (self.points, (num_clips,))
    shape = (1, *views, self.num_frames, self.num_persons, self.skeleton.num_joints, 3)
    return {
      points: jax.ShapeDtypeStruct(shape, jnp.float32),
      "frame_size": jax.ShapeDtypeStruct((1, 2), jnp.int32),
    }

  def draw(self, axes: Any, part: Mapping[str, np.ndarray], clip: int, frame: int) -> None:
    """Draws a frame of the first view of a test clip with Matplotlib: limbs and joints."""
    pose = part[self.points][clip, 0].copy()  # T M V 3
    there = pose[..., 2] > 0 if self.points == "keypoints" else pose.any(-1)
    if self.points == "joints3d":
      pose[..., 1] *= -1  # of pictures, y points down
    seen = pose[there]
    low, high = (seen[:, :2].min(0), seen[:, :2].max(0)) if len(seen) else ((0, 0), (1, 1))
    for person, present in zip(pose[frame], there[frame], strict=True):
      for limb in self.skeleton.limbs:
        if present[list(limb)].all():
          axes.plot(*person[list(limb), :2].T, color="tab:blue", linewidth=1)
      axes.scatter(*person[present, :2].T, s=6, color="tab:red", zorder=2)
    margin = 0.1 * np.ptp([low, high], axis=0).max() + 0.01
    axes.set(xlim=(low[0] - margin, high[0] + margin), ylim=(high[1] + margin, low[1] - margin))
    axes.set_aspect("equal")

  def picture(self, x: Array) -> None:
    """What a person should see of what the model is given: nothing more than `draw` shows."""


@functools.lru_cache(maxsize=64)
def _indices(skeleton: Skeleton, layout: Skeleton) -> Integer[np.ndarray, " v"]:
  return skeleton.indices_in(layout)


def select(
  pose: Float32[np.ndarray, "t m all 3"],
  *,
  joints: Integer[np.ndarray, " v"],
  num_persons: int,
  points: str = "keypoints",
) -> Float32[np.ndarray, "t {num_persons} v 3"]:
  """Takes the joints, zeroes absent ones, and takes the persons, highest summed score first.

  `points` is "keypoints", or "joints3d": 3-D joints have a score of 1 unless they are all zero.
  """
  pose = pose.take(joints, axis=2)  # [:, :, joints] would leave a slow, transposed layout
  score = pose[..., 2] if points == "keypoints" else pose.any(-1)
  pose[~(score > 0)] = 0  # a score that is NaN is no score
  order = np.argsort(-score.sum(axis=(0, 2)), kind="stable")[:num_persons]
  persons = np.zeros((len(pose), num_persons, len(joints), 3), np.float32)
  persons[:, : len(order)] = pose[:, order]
  return persons


def check_drawn(keys: Any, pose: Array, drawn: Mapping[str, tuple[Any, Any]]) -> None:
  """Raises ValueError unless there is a key for each clip, or none and nothing to draw by it.

  `drawn` are options by name, each with the value of which nothing is drawn.
  """
  if keys is None:
    for name, (value, nothing) in drawn.items():
      if isinstance(value, jax.Array) or value != nothing:
        raise ValueError(f"{name}: expected keys=, one for each clip, to draw it by, got none")
    return
  count = pose.shape[0]
  typed = isinstance(keys, jax.Array) and jnp.issubdtype(keys.dtype, jax.dtypes.prng_key)
  shape = getattr(keys, "shape", None)
  if shape != ((count,) if typed else (count, 2)):
    got = "one key" if shape == (() if typed else (2,)) else f"{type(keys).__name__} {shape}"
    expected = f"one for each of {count} clips: jax.random.split(key, {count})"
    raise ValueError(f"keys: expected {expected}, got {got}")


def vmap_clips(
  function: Callable,
  keys: Key[Array, " b"],
  pose: Float[Array, "b t m v c"],
  frame_size: Int[Array, "b 2"],
  mirror: bool | Bool[Array, " b"],
) -> Array:
  """`function(key, pose, frame_size, mirrored)` of every clip; see `mirror`."""
  if isinstance(mirror, bool):
    return jax.vmap(functools.partial(function, mirrored=mirror))(keys, pose, frame_size)
  return jax.vmap(function)(keys, pose, frame_size, mirror)


def mirror(
  key: Key[Array, ""],
  pose: Float[Array, "t m v c"],
  permutation: Int[np.ndarray, " v"],
  mirrored: bool | Bool[Array, ""],
  *,
  width: int,
) -> Float[Array, "t m v c"]:
  """The mirror image or not: never (False), drawn by the key (True), or as it was drawn before."""
  if mirrored is False:
    return pose
  if mirrored is True:
    return augment.mirror(key, pose, permutation, width=width)
  return jnp.where(mirrored, augment.flip(pose, permutation, width=width), pose)


def with_mirror_images(name: str, views: Array, mirror: bool) -> dict[str, Array]:
  """Views [R, ...] under their name, again for their mirror images, and which those are."""
  mirrored = np.zeros(len(views), bool)
  if mirror:
    views, mirrored = jnp.concatenate([views, views]), np.repeat([False, True], len(views))
  return {name: views, "mirrored": jnp.asarray(mirrored)}


def scored(pose: Array, points: str) -> Array:
  """The pose with its score last: a 3-D joint's is 1, or 0 where it is all zero."""
  if points == "keypoints":
    return pose
  if points == "joints3d":
    return jnp.concatenate([pose, pose.any(-1, keepdims=True).astype(pose.dtype)], -1)
  raise ValueError(f'points: expected "keypoints" or "joints3d", got {points!r}')
