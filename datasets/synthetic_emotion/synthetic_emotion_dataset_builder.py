"""Synthetic interviews: generated where they are not there, then read as iMiGUE's are."""

import pathlib

from imigue_emotion import imigue_emotion_dataset_builder as emotion
from synthetic_emotion import generate

from jaxmg.data import tracks

SIZE = (generate.HEIGHT, generate.WIDTH)


class Builder(emotion.Builder):
  """Synthetic interviews in iMiGUE's raw formats: made-up gestures and faces, no real person."""

  synthetic = True
  subject_file = None  # its table of labels names the subjects
  protocols = {}  # noqa: RUF012 (but the one of its lists)
  published = {"train": (50, 50), "test": (50, 50)}  # noqa: RUF012
  frame_size = SIZE

  def __init__(self, *, raw, **kwargs):
    raw = pathlib.Path(raw)
    # An empty folder, or one left half made: nothing is written among somebody's other files.
    ours = {path.name for path in raw.iterdir()} <= generate.WRITTEN
    if ours and not (raw / generate.LABELS).exists():
      generate.write(raw, seed=0)
    super().__init__(raw=raw, **kwargs)


class Video(Builder, emotion.Video):
  """Their videos."""

  name = Builder.name
  track = tracks.Video(SIZE)


class Faces(Builder, emotion.Faces):
  """Their faces."""

  name = Builder.name
