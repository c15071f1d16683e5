"""Faces of a recording, as what finds and aligns them hands them over."""

import dataclasses
from typing import Any, ClassVar

import numpy as np


@dataclasses.dataclass(frozen=True, eq=False)
class FaceCrops:
  """The aligned faces of one person in one recording, of the frames in which there is one.

  Attributes:
    pictures: n pictures as bytes, each a JPEG of its own (quality 95), square and in colours.
    times: float64[n], when each is seen, in seconds of the recording, in their order.
    span: float64[2], when the recording, or the part of it that is the clip, begins and ends, in
      the same seconds: with frames of a video, the time of the first, and of the last and a frame.
    landmarks: float32[n, 5, 2], eyes, nose and corners of the mouth, x and y in pixels of the
      source.
    scores: float32[n], how sure it is that there is a face.
    size: pixels of a side of each picture.
    notes: what is to be said of it.
  """

  track: ClassVar[str] = "faces"

  pictures: tuple[bytes, ...]
  times: np.ndarray
  span: np.ndarray
  landmarks: np.ndarray
  scores: np.ndarray
  size: int = 112
  notes: tuple[str, ...] = ()

  def __len__(self) -> int:
    return len(self.pictures)

  @property
  def num_frames(self) -> int:
    return len(self.pictures)

  def record(self) -> dict[str, Any]:
    """The faces as an input of faces reads them (`jaxmg.inputs`)."""
    names = ("times", "span", "landmarks", "scores", "size")
    return {"frames": self.pictures} | {name: getattr(self, name) for name in names}

  def within(self, first: float, last: float) -> "FaceCrops":
    """Those of this span, which is then theirs; there may be none."""
    low, high = np.searchsorted(self.times, (first, last))
    part = slice(low, high)
    return dataclasses.replace(
      self,
      pictures=self.pictures[part],
      times=self.times[part],
      span=np.array([first, last]),
      landmarks=self.landmarks[part],
      scores=self.scores[part],
    )


@dataclasses.dataclass(frozen=True, eq=False)
class FacesOfVideo:
  """The faces of a video as a recording beside it: of the same frames, and cut as these.

  Attributes:
    crops: the faces of all of the video; its span is that of the part.
    times: float64[T], when each frame of the video is shown, in seconds.
    fps: its frames a second, or None.
    end: when the video ends.
    looked: in how many frames a face was looked for.
  """

  track: ClassVar[str] = "faces"

  crops: FaceCrops
  times: np.ndarray
  fps: float | None
  end: float
  looked: int

  @property
  def num_frames(self) -> int:
    """Of the video."""
    return len(self.times)

  @property
  def guess(self) -> str:
    return f"a face in {len(self.crops)} of the {self.looked} frames that were looked at"

  @property
  def notes(self) -> tuple[str, ...]:
    return self.crops.notes

  def doubts(self) -> list[str]:
    """Nothing: what is odd was noted when they were found."""
    return []

  def record(self) -> dict[str, Any]:
    """The faces as an input of faces reads them (`jaxmg.inputs`)."""
    return self.crops.record()

  def cut(self, first: int, last: int) -> "FacesOfVideo":
    """The frames from `first` to `last`, both counted from 0, and both in the part.

    All faces are kept: where the part has none, the nearest in time stand in, as in training.
    """
    end = float(self.times[last + 1] if last + 1 < len(self.times) else self.end)
    times = self.times[first : last + 1]
    crops = dataclasses.replace(self.crops, span=np.array([times[0], end]))
    return dataclasses.replace(self, crops=crops, times=times, end=end)

  part = cut
