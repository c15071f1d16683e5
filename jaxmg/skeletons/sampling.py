"""Which frames of a clip a model sees: host work on numpy arrays, because it changes shapes."""

import functools
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Float, Int64

KINDS = ("uniform", "interpolate", "linspace", "linear", "repeat", "window")
STYLES = ("mmaction2", "pyskl")


def uniform(length: int, num_frames: int, rng: np.random.Generator) -> Int64[np.ndarray, " t"]:
  """Draws the frames of a training clip: a random one of each of T equal segments (PoseC3D, 3.2).

  As in the reference, a clip shorter than T is read round and round from a random start, and one
  shorter than 2T skips a frame at `length - T` random places.

  Args:
    length: the number of frames in the file.
    num_frames: T, the number wanted.
  """
  _check(length, num_frames)
  if length < num_frames:
    return (rng.integers(length) + np.arange(num_frames)) % length
  return _spread(length, num_frames, rng.choice, rng.integers)


def test_clips(
  length: int,
  num_frames: int,
  num_clips: int,
  *,
  style: str = "mmaction2",  # noqa: PT028 (not a test)
) -> Int64[np.ndarray, "n t"]:
  """The frames of N test clips, as the reference toolboxes draw them: the length decides them.

  Args:
    length: the number of frames in the file.
    num_frames: T, the number wanted.
    num_clips: N.
    style: "mmaction2", or "pyskl", which draws an interval and an offset before each clip, so that
      other frames come out where `length >= num_frames`.
  """
  _check(length, num_frames, num_clips)
  if style not in STYLES:
    raise ValueError(f"style: expected {' or '.join(map(repr, STYLES))}, got {style!r}")
  rng = np.random.RandomState(255)
  clips = []
  for n in range(num_clips):
    if style == "pyskl":
      rng.rand()  # its interval, which is 1 whatever is drawn
      rng.randint(1)  # its offset, which is 0
    if length < num_frames:
      start = n if length < num_clips else n * length // num_clips
      clips.append(np.arange(start, start + num_frames))
    else:
      clips.append(_spread(length, num_frames, rng.choice, rng.randint))
  return np.stack(clips) % length


def interpolate(
  keypoints: Float[np.ndarray, "length *v c"],
  num_frames: int,
  rng: np.random.Generator | None = None,
) -> Float[np.ndarray, "t *v c"]:
  """Brings a clip to T frames without a jump: our reading of Xu et al. (MiGA 2025).

  A clip of T frames or more gives one frame of each of T equal segments: a random one with `rng`,
  else the middle one. A shorter clip is brought to T frames by `linear`.

  Args:
    keypoints: x, y and score of the points of the frames in the file.
    num_frames: T, the number wanted.
  """
  return _interpolate(keypoints, num_frames, 0.5 if rng is None else rng.random(num_frames))


def linear(pose: Float[np.ndarray, "length *v c"], num_frames: int) -> Float[np.ndarray, "t *v c"]:
  """Interpolates a clip linearly from its first frame to its last, whatever its length.

  A joint all of whose channels are 0 is absent: if so in one of the two frames, it is taken whole
  from the nearer one (the earlier of two equally near), never blended with zeros.
  """
  length = len(pose)
  _check(length, num_frames)
  position = np.linspace(0, length - 1, num_frames)
  earlier = position.astype(np.int64)
  later = np.minimum(earlier + 1, length - 1)
  weight = (position - earlier).astype(pose.dtype)
  a, b = pose[earlier], pose[later]
  blended = a + weight.reshape(-1, *[1] * (pose.ndim - 1)) * (b - a)
  if pose.all():  # no joint is absent
    return blended
  # As `pose.any(-1)`, which takes longer for a few channels.
  there = functools.reduce(np.logical_or, np.moveaxis(pose, -1, 0) != 0)[..., None]
  nearer = np.where(weight <= 0.5, earlier, later)
  return np.where(there[earlier] & there[later], blended, pose[nearer])


def sample(
  pose: Float[np.ndarray, "length m v c"],
  *,
  kind: str = "uniform",
  num_frames: int,
  rng: np.random.Generator,
  crop: Sequence[float] = (1.0, 1.0),
) -> Float[np.ndarray, "t m v c"]:
  """The T frames of a training clip; all chance comes from `rng`.

  First a random part of the clip is cut out, whose share of the frames is between the two of
  `crop`. `kind` is "uniform", "interpolate" or "linear", the functions of these names; "linspace":
  as "interpolate", but a clip shorter than T holds frames in place of blending two, and gives the
  nearest to `np.linspace(0, length - 1, T)` (the earlier of two equally near); "repeat": the
  first T frames, from the beginning again after the last, as 2s-AGCN pads its clips; or "window": T
  frames in a row, at their own speed, which begin at random whatever `crop` is; of a shorter clip
  as "linear".
  """
  _check(len(pose), num_frames)
  if kind == "window":
    return _window(pose, num_frames, rng.random())
  if tuple(crop) != (1.0, 1.0):
    length = max(1, round(rng.uniform(*crop) * len(pose)))
    start = rng.integers(len(pose) - length + 1)
    pose = pose[start : start + length]
  if _known(kind) == "uniform":
    return pose[uniform(len(pose), num_frames, rng)]
  if kind in ("interpolate", "linspace"):
    return _interpolate(pose, num_frames, rng.random(num_frames), blend=kind == "interpolate")
  return _whole(pose, kind, num_frames)


def sample_test(
  pose: Float[np.ndarray, "length m v c"],
  *,
  kind: str = "uniform",
  num_frames: int,
  num_clips: int,
  style: str = "mmaction2",
) -> Float[np.ndarray, "n t m v c"]:
  """The T frames of each of N test clips, without chance.

  "uniform" gives `test_clips`, in their `style`; "interpolate" and "linspace" N evenly phased
  choices from the segments, which are all the same for a clip of T frames or fewer; "linear" and
  "repeat" the whole clip, and, of more than one, N windows of nine tenths of it, evenly spaced;
  "window" N windows from the beginning to the end.
  """
  _check(len(pose), num_frames, num_clips)
  if kind == "window":
    starts = np.linspace(0, 1, num_clips) if num_clips > 1 else (0.5,)
    return np.stack([_window(pose, num_frames, start) for start in starts])
  if _known(kind) == "uniform":
    return pose[test_clips(len(pose), num_frames, num_clips, style=style)]
  if kind in ("interpolate", "linspace"):
    phases = (np.arange(num_clips) + 0.5) / num_clips
    blend = kind == "interpolate"
    return np.stack([_interpolate(pose, num_frames, phase, blend=blend) for phase in phases])
  length = len(pose) if num_clips == 1 else max(1, round(0.9 * len(pose)))
  starts = np.linspace(0, len(pose) - length, num_clips).round().astype(int)
  return np.stack([_whole(pose[start : start + length], kind, num_frames) for start in starts])


def _check(length: int, num_frames: int, num_clips: int = 1):
  for what, count in (("length", length), ("num_frames", num_frames), ("num_clips", num_clips)):
    if count < 1:
      raise ValueError(f"{what} of a sampled clip: expected at least 1, got {count}")


def _known(kind: str) -> str:
  if kind not in KINDS:
    raise ValueError(f"kind of sampling: expected {' or '.join(KINDS)}, got {kind!r}")
  return kind


def _whole(pose: np.ndarray, kind: str, num_frames: int) -> np.ndarray:
  if kind == "linear":
    return linear(pose, num_frames)
  return pose[np.arange(num_frames) % len(pose)]


def _window(pose: np.ndarray, num_frames: int, start: float) -> np.ndarray:
  spare = len(pose) - num_frames
  if spare < 0:
    return linear(pose, num_frames)
  first = round(start * spare)
  return pose[first : first + num_frames]


def _segments(length: int, num_frames: int) -> tuple[np.ndarray, np.ndarray]:
  """The first frames and the sizes of T segments, as equal as whole frames allow."""
  bounds = np.arange(num_frames + 1) * length // num_frames
  return bounds[:-1], np.diff(bounds)


def _spread(length: int, num_frames: int, choice: Callable, integers: Callable) -> np.ndarray:
  # The kind, order and shape of the draws are the reference's: the test clips depend on them.
  if length < 2 * num_frames:
    skips = np.sort(choice(num_frames + 1, length - num_frames, replace=False))
    frames = np.arange(num_frames)
    return frames + np.searchsorted(skips, frames, side="right")
  first, size = _segments(length, num_frames)
  return first + integers(size)


def _interpolate(
  keypoints: np.ndarray, num_frames: int, phase: float | np.ndarray, *, blend: bool = True
) -> np.ndarray:
  if blend and len(keypoints) < num_frames:
    return linear(keypoints, num_frames)
  return keypoints[evenly(len(keypoints), num_frames, phase)]


def evenly(
  length: int, num_frames: int, phase: float | Float[np.ndarray, " t"]
) -> Int64[np.ndarray, " t"]:
  """A frame of each of T equal segments of a clip, at this phase in [0, 1) of the segment.

  A clip shorter than T holds frames: those nearest to `np.linspace(0, length - 1, T)` (the earlier
  of two equally near).
  """
  _check(length, num_frames)
  if length >= num_frames:
    first, size = _segments(length, num_frames)
    return first + (phase * size).astype(np.int64)
  return np.ceil(np.linspace(0, length - 1, num_frames) - 0.5).astype(np.int64)
