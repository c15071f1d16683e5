"""Micro-gesture recognition in pure JAX.

Axis letters, with one meaning in the whole package:

    B batch   N test clips   T frames   M persons   V joints   E edges or limbs   C channels
    H, W rows, columns   K classes   L tokens   D width

Channels come last: poses are `*B T M V 3` (x, y, score; x right, y down, pixels of the source
frame), heatmaps `*B T H W V`. What reads data, trains or writes files is imported by its path
(`jaxmg.data.source`, `jaxmg.training.loop`, ...) and needs `pip install jaxmg[train]`. So does
`load`, which gives the predictor of a trained run.
"""

import importlib.metadata
import os
import typing

from jaxmg import inputs as inputs
from jaxmg import models as models
from jaxmg import skeletons as skeletons

__version__ = importlib.metadata.version("jaxmg")

if typing.TYPE_CHECKING:
  from jaxmg.predict import Predictor


def load(
  run: str | os.PathLike,
  *,
  step: str | int = "best",
  batch_size: int = 16,
  dtype: str = "float32",
) -> "Predictor":
  """The model of a run directory, ready to classify clips: a `jaxmg.predict.Predictor`.

  p = jaxmg.load("runs/demo")
  p("clip.csv")  # the probabilities of p.class_names
  """
  from jaxmg import predict  # it imports what reads files and checkpoints

  return predict.Predictor(run, step=step, batch_size=batch_size, dtype=dtype)
