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
