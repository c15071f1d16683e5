"""The gestures of the synthetic interviews, cut out of them as iMiGUE's are."""

from imigue import imigue_dataset_builder as imigue
from synthetic_emotion import synthetic_emotion_dataset_builder as emotion

from jaxmg.data import tracks


class Builder(imigue.Builder):
  """Gestures in synthetic interviews, in iMiGUE's raw formats: made-up motions, no real person."""

  synthetic = True
  subject_file = None  # its table of labels names the subjects
  protocols = {}  # noqa: RUF012 (but the one of the interviews' lists)
  frame_size = emotion.SIZE


class Video(Builder, imigue.Video):
  """Their videos."""

  name = Builder.name
  track = tracks.Video(emotion.SIZE)
