"""The face of one person in a video: found some times a second, and cut out aligned.

found = face_crops.find(video, rate=5, detector=detector)
for k, crop in found.crops(): ...  # uint8[112, 112, 3], or None where the face is lost

Who is followed is known when all of the video has been seen: key points tell it beforehand; with a
detector the video is decoded twice. What is held of it are numbers, of a few pictures at a time.
"""

import dataclasses
import functools
import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jaxtyping import Int64, UInt8

from jaxmg import faces
from jaxmg.data import readers
from jaxmg.errors import ConfigError, DataError
from jaxmg.skeletons import topology

RATE, MOST = 5.0, 1000.0  # pictures a second
SHORT_SIDE = 720  # of the pictures that faces are cut from, in pixels
QUALITY = 95  # of a crop's JPEG
_TOGETHER = 4  # pictures

Detector = Callable[[np.ndarray], Sequence[Any]]  # uint8[N, H, W, 3] -> `detection.Found` of each


class NoFace(DataError):
  """Nobody's face is to be seen."""


@dataclasses.dataclass(eq=False)
class Found:
  """A face in N frames of a video.

  Attributes:
    video: that the frames are of.
    frames: int64[N], their numbers in the video.
    times: float64[N], when they are shown, in seconds.
    span: float64[2], when the video begins and ends.
    landmarks: float32[N, 5, 2], x, y in pixels of the source; all zero where the face is lost.
    scores: float32[N]; 0 where it is lost.
    others: bool[N], where another face is seen.
    notes: what is to be said of them; they grow as the video is decoded.
  """

  video: readers.VideoFile | readers.Frames
  frames: np.ndarray
  times: np.ndarray
  span: np.ndarray
  landmarks: np.ndarray
  scores: np.ndarray
  others: np.ndarray
  notes: list[str]

  def crops(self, *, size: int = faces.SIZE) -> Iterator[tuple[int, np.ndarray | None]]:
    """Yields, for k = 0, 1, ..., k and the aligned face uint8[size, size, 3] of frame k, or None.

    Where the video breaks off, so do they, and a note says it.
    """
    landmarks = scaled(self.landmarks, _source_size(self.video), self.video.frame_size)
    for some, pictures in _pictures(self.video, self.frames, self.notes):
      rows = [*some, *some[-1:] * (_TOGETHER - len(some))]  # always as many: compiled once
      pictures = np.stack([*pictures, *pictures[-1:] * (_TOGETHER - len(some))])
      crops = np.asarray(_align(size)(pictures, landmarks[rows]))
      for k, crop in zip(some, crops, strict=False):
        yield k, crop if self.scores[k] > 0 else None

  def gathered(self, *, size: int = faces.SIZE) -> readers.FaceCrops:
    """All faces, in memory as JPEGs. DataError where the video breaks off before the first."""
    from PIL import Image

    pictures, rows = [], []
    for k, crop in self.crops(size=size):
      if crop is not None:
        into = io.BytesIO()
        Image.fromarray(crop).save(into, "JPEG", quality=QUALITY)
        pictures.append(into.getvalue())
        rows.append(k)
    if not rows:
      raise NoFace("faces", expected="at least one", got=f"none ({'; '.join(self.notes)})")
    parts = (self.landmarks[rows], self.scores[rows], size, tuple(self.notes))
    return readers.FaceCrops(tuple(pictures), self.times[rows], self.span, *parts)


def find(
  video: readers.VideoFile | readers.Frames,
  *,
  rate: float = RATE,
  keypoints: readers.Clip | None = None,
  detector: Detector | None = None,
) -> Found:
  """The face of one person, `rate` times a second, by key points of the same frames or a detector.

  Of several persons it is the one that `faces.follow` chooses. Pictures are taken up to a short
  side of 720 pixels. A video that breaks off is used as far as it goes, and a note says it.

  Raises ConfigError for both or neither of the two, or a layout without a mouth; DataError where
  there is no face, key points are of other frames, or it is not known when frames are shown.
  """
  if (keypoints is None) == (detector is None):
    got = "neither" if detector is None else "both"
    raise ConfigError("faces", expected="key points or a detector", got=got)
  if not 0 < rate <= MOST:
    raise ConfigError("rate", expected=f"pictures a second, up to {MOST}", got=rate)
  if np.isnan(video.times).any():
    raise DataError("the video", expected="when each frame is shown", got="no times")
  if isinstance(video, readers.VideoFile):
    video = video.every(1, short_side=SHORT_SIDE)
  frames, notes = sampled(video.times, rate), []
  if keypoints is not None:
    followed = _by_keypoints(video, keypoints)
    followed = [one[frames] for one in (followed.landmarks, followed.scores, followed.others)]
  else:
    followed = _by_detector(video, frames, detector, notes)
    frames = frames[: len(followed[1])]
  landmarks, scores, others = followed
  if not scores.any():
    why = f"none in {len(frames)} frames" + "".join(f" ({note})" for note in notes)
    raise NoFace("the video", expected="a face", got=why)
  if others.any():
    first = np.flatnonzero(scores)[0]
    x, y = landmarks[first, 2]
    notes.append(
      f"another face in {others.sum()} of {len(frames)} frames; the one that is followed is the"
      f" larger and surer one in all, in frame {frames[first]} with its nose at {x:.0f}, {y:.0f}"
    )
  times = video.times[frames]
  span = np.array([video.times[0], video.times[-1] + _step(video.times)])
  return Found(video, frames, times, span, landmarks, scores, others, notes)


def recording(video: readers.VideoFile | readers.Frames, **options: Any) -> readers.FacesOfVideo:
  """What `find` finds, in memory, as a recording of the same frames as the video."""
  found = find(video, **options)
  end, looked = float(found.span[1]), len(found.frames)
  return readers.FacesOfVideo(found.gathered(), video.times, video.fps, end, looked)


def sampled(times: np.ndarray, rate: float) -> Int64[np.ndarray, " n"]:
  """The frames that are nearest to moments `rate` a second, from the first on, each once."""
  at = times[0] + np.arange(int((times[-1] - times[0]) * rate + 1e-6) + 1) / rate
  later = np.clip(np.searchsorted(times, at), 1, max(1, len(times) - 1))
  earlier = later - 1
  later = np.minimum(later, len(times) - 1)
  nearest = np.where(at - times[earlier] <= times[later] - at, earlier, later)
  return np.unique(nearest)


def scaled(points: np.ndarray, size: tuple[int, int], to: tuple[int, int]) -> np.ndarray:
  """Points of pictures of a size (height, width) where they are in pictures of another size."""
  factors = np.array([to[1] / size[1], to[0] / size[0]], np.float32)
  moved = (points + np.float32(0.5)) * factors - np.float32(0.5)
  return np.where(points.any((-2, -1), keepdims=True), moved, 0)


def _by_keypoints(video, clip: readers.Clip) -> faces.Followed:
  if clip.num_frames != video.num_frames:
    expected = f"{video.num_frames} frames, as of the video"
    raise DataError("key points", expected=expected, got=clip.num_frames)
  if not clip.keypoints.any():
    raise NoFace("key points", expected="a person", got="none in any frame")
  try:
    layout = topology.get(clip.layout)
    followed = faces.from_keypoints(clip.keypoints, layout, video.times)
  except ValueError as error:
    raise ConfigError(f"key points: {error}") from error
  source = _source_size(video)
  landmarks = scaled(followed.landmarks, clip.frame_size or source, source)
  shown = landmarks[followed.scores > 0]
  if len(shown) and not ((shown >= 0) & (shown < source[::-1])).all(-1).mean() > 0.5:
    expected = f"faces in the {source[0]} x {source[1]} pixels of the video"
    hint = "of another size: --frame_size=HxW"
    raise DataError("key points", expected=expected, got="most of them outside", hint=hint)
  return dataclasses.replace(followed, landmarks=landmarks)


def _by_detector(video, frames, detector, notes) -> tuple[np.ndarray, ...]:
  """Landmarks, scores and others of the frames that could be read."""
  found = []
  for _, pictures in _pictures(video, frames, notes):
    found += detector(np.stack(pictures))
  most = max((len(one.scores) for one in found), default=0)
  landmarks = np.zeros((len(found), most, 5, 2), np.float32)
  scores = np.zeros((len(found), most), np.float32)
  for k, one in enumerate(found):
    landmarks[k, : len(one.scores)], scores[k, : len(one.scores)] = one.landmarks, one.scores
  landmarks = scaled(landmarks, video.frame_size, _source_size(video))
  followed = faces.follow(landmarks, scores, video.times[frames[: len(found)]])
  return followed.landmarks, followed.scores, followed.others


def _pictures(video, frames, notes) -> Iterator[tuple[list[int], list[UInt8[np.ndarray, "h w 3"]]]]:
  """Some pictures at a time, and which frames they are of; a note where the video breaks off."""
  from PIL import Image

  for first in range(0, len(frames), _TOGETHER):
    some = range(first, min(first + _TOGETHER, len(frames)))
    pictures = []
    try:
      for k in some:
        image = Image.open(io.BytesIO(video[int(frames[k])]))
        pictures.append(np.asarray(image.convert("RGB")))
    except DataError as error:
      if pictures:
        yield [*some][: len(pictures)], pictures
      read = first + len(pictures)
      note = f"breaks off, {read} of {len(frames)} pictures are used ({error})"
      if note not in notes:
        notes.append(note)
      return
    yield [*some], pictures


@functools.cache
def _align(size: int) -> Callable:
  return jax.jit(functools.partial(faces.align, size=size))


def _source_size(video) -> tuple[int, int]:
  return getattr(video, "source_size", video.frame_size)


def _step(times: np.ndarray) -> float:
  return float(np.median(np.diff(times))) if len(times) > 1 else 0.0
