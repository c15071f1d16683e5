"""Tracks: the kinds of data that a prepared set holds of its clips, each in a folder of its own.

A kind is a frozen dataclass. Its fields are what the set says of this data; its methods turn a clip
into records and these into what an input of `jaxmg.inputs` reads. `TRACKS` has all by name: a new
kind is a class with the methods of `Pose`, and a line there. A long clip may be several records, of
which an input that is given them reads those that it needs.
"""

import dataclasses
import functools
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxmg import ranges
from jaxmg.data import readers
from jaxmg.errors import ConfigError, DataError
from jaxmg.skeletons import topology

_FRAMES = 256  # pictures in a record: all of a record is read for any of them


@dataclasses.dataclass(frozen=True)
class Pose:
  """Key points of persons, and their 3-D joints where there are any.

  `layout` (a name, or a Skeleton of one's own) is that of all clips, `frame_size` (height, width)
  that of clips that do not know theirs, `num_persons` the most in any clip. `joints3d` says whether
  the clips have them. Raises ConfigError (a ValueError) for what cannot be.
  """

  layout: readers.Layout
  frame_size: tuple[int, int]
  num_persons: int = 1
  joints3d: bool = False
  fps: float | int | None = None

  def __post_init__(self):
    try:
      object.__setattr__(self, "layout", topology.get(self.layout))
    except ValueError as error:
      raise ConfigError(f"layout: {error}") from error
    ranges.settle(self)
    for field, right, expected in (
      ("frame_size", ranges.frame_size(self.frame_size), ranges.FRAME_SIZE),
      ("num_persons", ranges.is_whole(self.num_persons) and self.num_persons > 0, "1 or more"),
      ("fps", self.fps is None or ranges.is_rate(self.fps), "frames a second"),
    ):
      if not right:
        raise ConfigError(field, expected=expected, got=getattr(self, field))

  def __str__(self) -> str:
    return self.layout.name

  @property
  def about(self) -> dict[str, Any]:
    """What an input is told of the clips before it reads one."""
    return {"layout": self.layout} | dict.fromkeys(self._points, True)

  @property
  def _points(self) -> tuple[str, ...]:
    return ("keypoints", "joints3d") if self.joints3d else ("keypoints",)

  def read_file(self, path: pathlib.Path, told: readers.Told | None = None) -> readers.Clip:
    """A raw recording; where it leaves open what its points are, they are of this track's kind."""
    told = told or readers.Told()
    expects = "joints3d" if self.joints3d else "keypoints"
    options = {"frame_size": told.frame_size, "axes": told.axes, "points": told.points}
    return readers.read(path, layout=self.layout, expects=expects, **options)

  def features(self) -> dict[str, tfds.features.FeatureConnector]:
    """What TFDS has to know of the arrays of a record."""
    points = tfds.features.Tensor(
      shape=(None, self.num_persons, self.layout.num_joints, 3),
      dtype=np.float32,
      encoding=tfds.features.Encoding.BYTES,  # written several times faster than the default
    )
    size = tfds.features.Tensor(shape=(2,), dtype=np.int32)
    return {"frame_size": size} | dict.fromkeys(self._points, points)

  def records(self, clip: readers.Clip) -> list[dict[str, np.ndarray]]:
    """What is written of a clip: one record; ValueError for one that does not fit."""
    num_persons, frame_size = clip.keypoints.shape[1], clip.frame_size or self.frame_size
    joints3d = clip.joints3d is not None
    for field, right, expected, got in (
      ("layout", topology.get(clip.layout) == self.layout, self, clip.layout),
      ("persons", num_persons <= self.num_persons, f"at most {self.num_persons}", num_persons),
      ("frame_size", ranges.frame_size(frame_size), ranges.FRAME_SIZE, frame_size),
      ("joints3d", self.joints3d == joints3d, self.joints3d, joints3d),
    ):
      if not right:
        raise ValueError(f"{field}: expected {expected}, got {got}")
    absent = [(0, 0), (0, self.num_persons - num_persons), (0, 0), (0, 0)]
    readers.check(clip)
    points = {name: np.pad(getattr(clip, name), absent) for name in self._points}
    return [{"frame_size": np.array(frame_size, np.int32)} | points]

  def remarks(self, clip: readers.Clip) -> Iterator[str]:
    """What is to be said once of the clips of which it is so."""
    if clip.guess and clip.guess.assumed:
      yield f"clips read as {dataclasses.replace(clip.guess, notes=(), frame_size=None).kind}"
    if clip.num_clipped:
      yield "clips with scores outside [0, 1], which are clipped"

  def num_frames(self, clip: readers.Clip) -> int:
    return len(clip.keypoints)

  def content(self, clip: readers.Clip) -> np.ndarray | None:
    """What makes two clips copies of each other; None where nobody is seen."""
    poses = (getattr(clip, name) for name in self._points)
    return next((pose for pose in poses if pose.any()), None)

  def read(self, records: Sequence[Any]) -> dict[str, Any]:
    """A clip as the inputs of poses read it.

    layout     Skeleton
    frame_size int32[2]             height, width
    keypoints  float32[T, M, V, 3]  x, y in pixels, score; all the points of the layout; read-only
    joints3d   float32[T, M, V, 3]  metres, in the camera's frame; only if `joints3d` is true
    """
    (record,) = records
    return {"layout": self.layout, **record}


@dataclasses.dataclass(frozen=True)
class Video:
  """Frames of a camera, each a picture by itself: JPEG in colours, or PNG of one channel.

  `frame_size` (height, width) is what inputs make room for: larger frames are made smaller as they
  are read. `timed` says whether it is known when each frame is shown. Raises ConfigError for what
  cannot be.
  """

  frame_size: tuple[int, int]
  channels: int = 3
  timed: bool = True

  def __post_init__(self):
    ranges.settle(self)
    for field, right, expected in (
      ("frame_size", ranges.frame_size(self.frame_size), ranges.FRAME_SIZE),
      ("channels", self.channels in (1, 3), "1 or 3"),
    ):
      if not right:
        raise ConfigError(field, expected=expected, got=getattr(self, field))

  def __str__(self) -> str:
    height, width = self.frame_size
    return f"video of {height} x {width}, {'in colours' if self.channels == 3 else 'one channel'}"

  @property
  def about(self) -> dict[str, Any]:
    """What an input is told of the clips before it reads one."""
    return {"channels": self.channels, "timed": self.timed}

  def read_file(self, path: pathlib.Path, told: readers.Told | None = None) -> readers.Frames:
    """A raw recording, whole."""
    video = readers.read(path)
    if video.track != "video":
      raise DataError(path, expected="a video", got=f"a {video.track}")
    try:
      return video.cut(0, video.num_frames - 1)
    except DataError as error:
      raise DataError(f"{path}: {error}") from error

  def features(self) -> dict[str, tfds.features.FeatureConnector]:
    """What TFDS has to know of the arrays of a record."""
    return _PICTURES | {"frame_size": tfds.features.Tensor(shape=(2,), dtype=np.int32)}

  def records(self, clip: readers.Frames) -> Iterator[dict[str, np.ndarray]]:
    """Yields what is written of a clip, a record for 256 frames.

    Raises ValueError for one that does not fit.
    """
    timed = not np.isnan(clip.times).any()
    for field, right, expected, got in (
      ("frames", len(clip) > 0, "at least 1", 0),
      ("channels", clip.channels == self.channels, self.channels, clip.channels),
      ("times", timed or not self.timed, "when each frame is shown", "none"),
    ):
      if not right:
        raise ValueError(f"{field}: expected {expected}, got {got}")
    size = {"frame_size": np.array(clip.frame_size, np.int32)}
    yield from (record | size for record in _in_records(clip, clip.times))

  def remarks(self, clip: readers.Frames) -> Iterator[str]:
    """What is to be said once of the clips of which it is so."""
    yield from clip.notes

  def num_frames(self, clip: readers.Frames) -> int:
    return len(clip)

  def content(self, clip: readers.Frames) -> list[np.ndarray]:
    """What makes two clips copies of each other, in parts."""
    return [np.frombuffer(picture, np.uint8) for picture in clip]

  def read(self, records: Sequence[Any]) -> dict[str, Any]:
    """A clip as the inputs of videos read it.

    frames     T pictures as bytes, JPEG or PNG, each read when it is asked for
    times      float64[T]  when each is shown, in seconds; NaN where that is not known
    frame_size int32[2]    height, width
    """
    first = records[0]
    frames = _Pictures(records, first)
    return {"frames": frames, "times": first["times"], "frame_size": first["frame_size"]}


_tensor = functools.partial(tfds.features.Tensor, encoding=tfds.features.Encoding.BYTES)
# What a record has of pictures.
_PICTURES = {
  "frames": _tensor(shape=(None,), dtype=np.uint8),  # one behind the other
  "ends": _tensor(shape=(None,), dtype=np.int64),  # of each, in bytes
  "times": _tensor(shape=(None,), dtype=np.float64),  # of all of a clip, in its first record
}


def _in_records(pictures: Sequence[bytes], times: np.ndarray) -> Iterator[dict[str, np.ndarray]]:
  """Pictures and their times, 256 to a record; `_Pictures` reads them."""
  for first in range(0, len(pictures), _FRAMES):
    part = pictures[first : first + _FRAMES]
    yield {
      "frames": np.frombuffer(b"".join(part), np.uint8),
      "ends": np.cumsum([len(picture) for picture in part], dtype=np.int64),
      "times": np.asarray(times if first == 0 else times[:0], np.float64),
    }


class _Pictures(Sequence):
  """The pictures of a clip, of whose records only those are read that are needed."""

  def __init__(self, records: Sequence[Any], first: Any):
    self._records, self._number, self._record = records, 0, first
    self._length = len(first["times"])

  def __len__(self) -> int:
    return self._length

  def __getitem__(self, k):
    if not 0 <= k < self._length:
      raise IndexError(k)
    number, place = divmod(k, _FRAMES)
    if number != self._number:
      self._number, self._record = number, self._records[number]
    ends = self._record["ends"]
    start = ends[place - 1] if place else 0
    return self._record["frames"][start : ends[place]].tobytes()


@dataclasses.dataclass(frozen=True)
class Faces:
  """Aligned faces, each a JPEG by itself, of the frames of a recording in which one was found.

  They are squares of `size` pixels. A clip without any is left out by its builder: the track lacks
  it. Raises ConfigError for what cannot be.
  """

  size: int = 112

  def __post_init__(self):
    if self.size < 1:
      raise ConfigError("size", expected="pixels above 0", got=self.size)

  def __str__(self) -> str:
    return f"faces of {self.size} x {self.size}"

  @property
  def about(self) -> dict[str, Any]:
    """What an input is told of the clips before it reads one."""
    return {"size": self.size}

  def read_file(self, path: pathlib.Path, told: readers.Told | None = None) -> readers.FaceCrops:
    """No file holds faces: they are found in the frames of a video."""
    raise DataError(path, expected="a builder that finds faces itself", got="a file")

  def features(self) -> dict[str, tfds.features.FeatureConnector]:
    """What TFDS has to know of the arrays of a record."""
    return _PICTURES | {
      "span": _tensor(shape=(2,), dtype=np.float64),  # without BYTES it would be rounded to float32
      # Of all faces of a clip, in its first record, as the times.
      "landmarks": _tensor(shape=(None, 5, 2), dtype=np.float32),
      "scores": _tensor(shape=(None,), dtype=np.float32),
    }

  def records(self, clip: readers.FaceCrops) -> list[dict[str, np.ndarray]]:
    """What is written of a clip, a record for 256 faces; ValueError for one that does not fit."""
    number, times = len(clip), np.asarray(clip.times, np.float64)
    span = np.asarray(clip.span, np.float64)
    rest = {name: np.asarray(getattr(clip, name), np.float32) for name in ("landmarks", "scores")}
    for field, right, expected, got in (
      ("faces", number > 0, "at least 1", 0),
      ("size", clip.size == self.size, self.size, clip.size),
      ("times", times.shape == (number,), [number], [*times.shape]),
      ("times", np.isfinite(times).all(), "seconds", "NaN or infinity"),
      ("times", (np.diff(times) > 0).all(), "one after the other", "another order"),
      ("span", span.shape == (2,), "begin and end", [*span.shape]),
      ("landmarks", rest["landmarks"].shape == (number, 5, 2), [number, 5, 2], "another shape"),
      ("scores", rest["scores"].shape == (number,), [number], [*rest["scores"].shape]),
    ):
      if not right:
        raise ValueError(f"{field}: expected {expected}, got {got}")
    if not span[0] <= times[0] <= times[-1] <= span[1]:
      expected, got = f"from {span[0]:.3g} to {span[1]:.3g} s", f"{times[0]:.3g} to {times[-1]:.3g}"
      raise ValueError(f"times: expected {expected}, got {got}")
    found = []
    for record in _in_records(clip.pictures, times):
      found.append(record | {"span": span} | rest)
      rest = {name: x[:0] for name, x in rest.items()}
    return found

  def remarks(self, clip: readers.FaceCrops) -> Iterator[str]:
    """What is to be said once of the clips of which it is so."""
    yield from clip.notes

  def num_frames(self, clip: readers.FaceCrops) -> int:
    """How many faces there are."""
    return len(clip)

  def content(self, clip: readers.FaceCrops) -> np.ndarray:
    """What makes two clips copies of each other."""
    return np.frombuffer(b"".join(clip.pictures), np.uint8)

  def read(self, records: Sequence[Any]) -> dict[str, Any]:
    """A clip as the input of faces reads it.

    frames    n pictures as bytes, JPEG, each read when it is asked for
    times     float64[n]        when each is seen, in seconds of the recording
    span      float64[2]        when the clip begins and ends in it
    landmarks float32[n, 5, 2]  x, y in pixels of the source
    scores    float32[n]        of the detector
    size      int               pixels of a side
    """
    first = records[0]
    rest = {name: first[name] for name in ("times", "span", "landmarks", "scores")}
    return {"frames": _Pictures(records, first), "size": self.size} | rest


@dataclasses.dataclass(frozen=True)
class Tokens:
  """What a network has made of the clips: views of each, all of `num_tokens` tokens of one `width`.

  `encoder` is the fingerprint of the network, or what its user calls it if it is not one of ours;
  `step` that of its checkpoint, and None then. The first `test_views` of a clip are those that it
  is tested by; None: all are. With `folds`, each clip of training has the tokens of an encoder
  that has not seen its subject, of so many groups of subjects. `files` is the digest of the arrays
  of a folder. Raises ConfigError for what cannot be.
  """

  num_tokens: int
  width: int
  encoder: str
  step: int | None = None
  test_views: int | None = None
  folds: int | None = None
  files: str | None = None

  def __post_init__(self):
    for field in ("num_tokens", "width", "test_views", "folds"):
      least, found = 2 if field == "folds" else 1, getattr(self, field)
      if found is not None and not least <= found <= 65536:
        raise ConfigError(field, expected=f"{least} to 65536", got=found)

  def __str__(self) -> str:
    folds = f", of {self.folds} folds" if self.folds else ""
    return f"{self.num_tokens} tokens of width {self.width} of {self.encoder}{folds}"

  @property
  def about(self) -> dict[str, Any]:
    """What an input is told of the clips before it reads one."""
    return {name: getattr(self, name) for name in ("num_tokens", "width", "encoder")}

  @staticmethod
  def read_file(path: pathlib.Path, told: readers.Told | None = None) -> np.ndarray:
    """The tokens of a .npy, [L, D] or of several views [N, L, D]; all floats are taken."""
    try:
      tokens = np.load(path, allow_pickle=False)
    except Exception as error:  # numpy raises what the damage of a file leads to
      raise DataError(path, expected="an array of numbers", got=error) from error
    if not (
      isinstance(tokens, np.ndarray) and tokens.dtype.kind == "f" and tokens.ndim in (2, 3)
    ) or (not tokens.size):
      got = f"{tokens.dtype}{list(tokens.shape)}" if isinstance(tokens, np.ndarray) else "several"
      raise DataError(path, expected="float[L, D] or float[N, L, D]", got=got)
    return tokens[None] if tokens.ndim == 2 else tokens

  def features(self) -> dict[str, tfds.features.FeatureConnector]:
    """What TFDS has to know of the arrays of a record."""
    tensor = functools.partial(tfds.features.Tensor, encoding=tfds.features.Encoding.BYTES)
    return {
      "tokens": tensor(shape=(self.num_tokens, self.width), dtype=np.float16),
      "times": tfds.features.Tensor(shape=(self.num_tokens,), dtype=np.float32),
    }

  def records(self, clip: tuple[np.ndarray, np.ndarray]) -> list[dict[str, np.ndarray]]:
    """What is written of a clip's tokens [N, L, D] and times [L]: a record for each view.

    Raises ValueError where they cannot be.
    """
    tokens, times = clip
    if tokens.shape[1:] != (self.num_tokens, self.width):
      expected = [self.num_tokens, self.width]
      raise ValueError(f"tokens: expected {expected} a view, got {[*tokens.shape[1:]]}")
    if len(tokens) < (self.test_views or 1):
      raise ValueError(f"views: expected at least {self.test_views or 1}, got {len(tokens)}")
    with np.errstate(over="ignore"):
      found = tokens.astype(np.float16)
    if not np.isfinite(found).all():
      raise ValueError("tokens: expected finite numbers up to 65504 (float16), got others")
    return [{"tokens": view, "times": times.astype(np.float32)} for view in found]

  def remarks(self, clip: tuple[np.ndarray, np.ndarray]) -> Iterator[str]:
    """What is to be said once of the clips of which it is so."""
    yield from ()

  def num_frames(self, clip: tuple[np.ndarray, np.ndarray]) -> int:
    """How many views there are."""
    return len(clip[0])

  def content(self, clip: tuple[np.ndarray, np.ndarray]) -> np.ndarray | None:
    """What makes two clips copies of each other; None where there is nothing."""
    return clip[0] if clip[0].any() else None

  def read(self, records: Sequence[Any]) -> dict[str, Any]:
    """A clip as the input of tokens reads it.

    views      of N, each read when it is asked for:
      tokens   float16[L, D]
      times    float32[L]    when each token is, in [0, 1] of the clip; -1: at no time
    test_views int           how many of the views, the first ones, are those of tests
    num_tokens, width, encoder: as the track has them
    """
    return self.about | {"views": records, "test_views": self.test_views or len(records)}


TRACKS = {"faces": Faces, "pose": Pose, "tokens": Tokens, "video": Video}
