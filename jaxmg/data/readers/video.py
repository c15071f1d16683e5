"""Videos -> frames as they are kept: JPEG, the short side 256 pixels; depth is PNG, without loss.

A `VideoFile` is decoded from its first frame on, as parts of it are asked for, and not held; what
it gives are `Frames`, which are.
"""

import copy
import dataclasses
import io
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Float, UInt8

from jaxmg.data import decoding, guarded
from jaxmg.data.readers.clip import check_part
from jaxmg.errors import DataError

SHORT_SIDE = 256  # pixels of what is kept; a smaller picture stays as it is
_SHORT = 0.1  # seconds that nobody misses at the end of a recording
_MEMORY = 4 << 30  # bytes that a decoder may take


@dataclasses.dataclass(frozen=True, eq=False)
class Frames(Sequence):
  """Frames of one recording, each a JPEG or PNG: `frames[k]` is the k-th as bytes.

  Attributes:
    pictures: bytes of each.
    times: float64[T], when each is shown, in seconds; NaN where that is not known.
    frame_size: (height, width) of all.
    channels: 3, red, green and blue; or 1.
    guess: what the file was taken for, of one that was read.
    notes: what is to be said of it.
  """

  track: ClassVar[str] = "video"

  pictures: tuple[bytes, ...]
  times: np.ndarray
  frame_size: tuple[int, int]
  channels: int = 3
  guess: str = ""
  notes: tuple[str, ...] = ()

  def __len__(self) -> int:
    return len(self.pictures)

  def __getitem__(self, k):
    return self.pictures[k]

  @property
  def num_frames(self) -> int:
    return len(self.pictures)

  def record(self) -> dict[str, Any]:
    """The frames as an input of videos reads them (`jaxmg.inputs`)."""
    return _record(self)

  def cut(self, first: int, last: int) -> "Frames":
    """The frames from `first` to `last`, both counted from 0, and both in the part.

    Raises DataError where the recording does not have them.
    """
    check_part(first, last, len(self))
    part = slice(first, last + 1)
    return dataclasses.replace(self, pictures=self.pictures[part], times=self.times[part])


class VideoFile(Sequence):
  """A video on the disk, which says what it is: `num_frames`, `times`, `frame_size`, `guess`.

  `frame_size` is that of what is kept, `source_size` that of what is in the file.

  `cut` decodes, in another process. What is asked for in the order of time, overlapping or not, is
  decoded once; nothing before the last part is held, so that memory does not grow with the
  recording. `notes` grow as it is decoded.

  Raises DataError, which does not name the file, for what is no whole video.
  """

  track: ClassVar[str] = "video"
  channels: ClassVar[int] = 3

  def __init__(self, path: pathlib.Path):
    self._path = path.absolute()
    found = guarded.call(decoding.describe, self._path, memory=_MEMORY, seconds=600)
    height, width = self.source_size = tuple(map(int, found["size"]))
    self.times = found["times"]
    self.num_frames = len(self.times)
    self.fps = _rate(self.times)
    self.frame_size = _kept(self.source_size, SHORT_SIDE)
    lost, short = int(found["lost"]), float(found["short"])
    self._lost = (f"{lost} of its last frames are not in the file",) * (lost > 0)
    if not lost and short > _SHORT:
      self._lost = (f"ends {short:.2f} s before the time that its header says",)
    self.notes = self._lost
    self.guess = _guess(self, (height, width), found)
    self._offset, self._step = 0, 1  # of frame 0, in the file; to the next one
    self._coming: Iterator | None = None
    self._first, self._held = 0, []  # the number of the first that is held, and all that are

  def __len__(self) -> int:
    return self.num_frames

  def __getitem__(self, k):
    if not 0 <= k < self.num_frames:
      raise IndexError(k)
    return self.cut(k, k)[0]

  def record(self) -> dict[str, Any]:
    """All frames as an input of videos reads them: decoded when it does."""
    return _record(self)

  def doubts(self) -> list[str]:
    """Nothing: what is odd is known when it is decoded (`notes`)."""
    return []

  def sized(self, frame_size: tuple[int, int] | None) -> "VideoFile":
    """Itself: it knows its size."""
    return self

  def part(self, first: int, last: int) -> "VideoFile":
    """The video of these frames alone, counted as in `cut`, with a decoder of its own."""
    check_part(first, last, self.num_frames)
    part = copy.copy(self)
    part.times = self.times[first : last + 1]
    part.num_frames = len(part.times)
    part.fps = _rate(part.times) or self.fps  # a single frame has none
    if part.num_frames < self.num_frames:
      part.guess = f"{self.guess}, of which {first} to {last}"
    part._offset = self._offset + first * self._step
    part._coming, part._first, part._held = None, 0, []
    return part

  def every(self, step: int, *, short_side: int = SHORT_SIDE) -> "VideoFile":
    """The video of each `step`-th frame from the first on, with a decoder of its own.

    `short_side` is of what is kept, in pixels.
    """
    part = self.part(0, self.num_frames - 1)
    part.times = self.times[::step]
    part.num_frames = len(part.times)
    part.fps = _rate(part.times) or self.fps
    part.frame_size = _kept(self.source_size, short_side)
    part._step = self._step * step
    return part

  def cut(self, first: int, last: int) -> Frames:
    """The frames from `first` to `last`, both counted from 0, and both in the part."""
    check_part(first, last, self.num_frames)
    end = self._first + len(self._held)
    if first < self._first or (self._coming is None and last >= end):
      frames = self._offset + first * self._step, self._step
      self._coming = guarded.stream(
        decoding.pictures, self._path, *self.frame_size, *frames, memory=_MEMORY, seconds=120
      )
      self._first, self._held = first, []
    self._forget(first)
    while self._first + len(self._held) <= last:
      self._held += self._more()
      self._forget(first)
    if self._first + len(self._held) >= self.num_frames:
      self._coming = None
    return Frames(
      tuple(self._held[: last + 1 - first]),
      self.times[first : last + 1],
      self.frame_size,
      guess=self.guess,
      notes=self.notes,
    )

  def _forget(self, first: int) -> None:
    gone = min(first - self._first, len(self._held))
    del self._held[:gone]
    self._first += gone

  def _more(self) -> list[bytes]:
    chunk = next(self._coming, None)
    if chunk is None:
      raise DataError("frames", expected=self.num_frames, got="fewer that can be decoded")
    if missing := int(chunk["missing"]):
      note = f"{missing} of its frames cannot be decoded, and are copies of those before them"
      self.notes = (*self._lost, note)
    ends = np.cumsum(chunk["lengths"])
    data = chunk["data"].tobytes()
    starts = ends - chunk["lengths"]
    return [data[start:end] for start, end in zip(starts, ends, strict=True)]


def read_video(path: pathlib.Path, told: Any) -> VideoFile:
  """A file of any format that FFmpeg knows as one of videos."""
  return VideoFile(path)


def without_loss(
  images: UInt8[np.ndarray, "t h w *c"], times: Float[np.ndarray, " t"] | None = None
) -> Frames:
  """Frames [T, H, W] of one channel, such as depth, or [T, H, W, 3] in colours, as PNG."""
  from PIL import Image

  pictures = []
  for image in images:
    into = io.BytesIO()
    Image.fromarray(image).save(into, "PNG")
    pictures.append(into.getvalue())
  times = np.full(len(images), np.nan) if times is None else times
  return Frames(tuple(pictures), times, images.shape[1:3], channels=3 if images.ndim > 3 else 1)


def _record(video: Frames | VideoFile) -> dict[str, Any]:
  return {
    "frames": video,
    "times": video.times,
    "frame_size": video.frame_size,
    "channels": video.channels,
    "timed": not np.isnan(video.times).any(),
  }


def _kept(size: tuple[int, int], short_side: int) -> tuple[int, int]:
  height, width = size
  scale = min(1, short_side / min(size))
  return max(1, round(height * scale)), max(1, round(width * scale))


def _rate(times: np.ndarray) -> float | None:
  """Frames a second, on average; None where that is not known."""
  known = len(times) > 1 and not np.isnan(times).any()
  return (len(times) - 1) / (times[-1] - times[0]) if known else None


def _guess(video: VideoFile, size: tuple[int, int], found: Mapping[str, np.ndarray]) -> str:
  frames = f"{video.num_frames} frame{'s' * (video.num_frames > 1)}"
  parts = [f"read as {frames} of {size[0]} x {size[1]} pixels"]
  if size != video.frame_size:
    parts[0] += f" (kept as {video.frame_size[0]} x {video.frame_size[1]})"
  steps = np.diff(video.times)
  if np.isnan(video.times).any():
    parts.append("rate not known")
  elif len(steps):
    rate = f"{video.fps:.4g} a second"
    varies = steps.max() - steps.min() > 0.5 * np.median(steps)
    parts.append(f"{rate} on average, varying" if varies else rate)
  for said, text in (
    (found["turned"], f"turned by {90 * found['turned']} degrees"),
    (found["mirrored"], "mirrored, as it says"),
    (found["ratio"] != 1, f"pixels {found['ratio']:.3g} times as wide as high, taken as square"),
    (found["interlaced"], "interlaced, and kept so"),
    (found["alpha"], "transparency left out"),
    (found["streams"] > 1, f"the first of {found['streams']} videos in the file"),
  ):
    if said:
      parts.append(text)
  return ", ".join(parts)
