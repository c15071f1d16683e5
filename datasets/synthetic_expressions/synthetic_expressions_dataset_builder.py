"""The expressions in the synthetic interviews, second by second, as their generator drew them."""

import itertools
import json

import numpy as np
from synthetic_emotion import generate
from synthetic_emotion import synthetic_emotion_dataset_builder as emotion

from jaxmg.data import prepared
from jaxmg.errors import DataError

SECONDS = 1
_PARTS = (("serious", "smiling"), ("brows down", "brows up"), ("eyes narrow", "eyes wide"))


class Builder(emotion.Faces):
  """Faces of synthetic interviews, a second each, with made-up expressions: no real person."""

  name = "synthetic_expressions"
  class_names = tuple(map(", ".join, itertools.product(*_PARTS)))
  published = {"train": (50, 50), "test": (50, 50)}  # noqa: RUF012 (of the interviews)

  def __init__(self, *, raw, **kwargs):
    super().__init__(raw=raw, **kwargs)
    path = self.raw / "truth.json"
    try:
      told = json.loads(path.read_text(encoding="utf-8"))
      self.shown = {video.number: video.expression for video in generate.truth(told["seed"])}
      # What is drawn anew must be what was drawn then.
      for video in told["videos"]:
        np.testing.assert_allclose(
          self.shown[video["video"]].mean(0), video["expression"], atol=1e-3
        )
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
      got = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
      raise DataError(path, expected="that of this generator", got=got) from error

  def clips(self, recording, known):
    for whole in super().clips(recording, known):
      shown = self.shown[int(whole.id)]
      for k in range(len(shown) // (SECONDS * generate.FPS)):
        faces = whole.clip.within(k * SECONDS, (k + 1) * SECONDS)
        mean = shown[k * SECONDS * generate.FPS :][: SECONDS * generate.FPS].mean(0)
        label = int(np.dot(mean > 0, (4, 2, 1)))
        if len(faces):
          yield prepared.Example(f"{whole.id}_{k}", label, whole.subject, faces, whole.id)
