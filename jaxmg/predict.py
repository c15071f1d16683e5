"""A run directory -> class probabilities of a clip. What is in one, says `jaxmg.recipe`."""

import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jaxmg import errors, recipe
from jaxmg.data import embeddings, readers
from jaxmg.training import checkpoints, sharding
from jaxmg.training import step as steps


class Predictor:
  """The model of a run directory, ready to classify clips.

      predictor = Predictor("runs/demo")
      probabilities = predictor(readers.read("clip.csv"))  # float32[K], as predictor.class_names

  `step` is "best" (the highest score in training, the latest where none was taken), "latest" or a
  number. `label_embeddings` is the table of a model with such a head, or None. A model of several
  inputs takes a dictionary of records, by the tracks that the inputs read.
  """

  def __init__(self, run: str | os.PathLike, *, step: str | int = "best"):
    run = pathlib.Path(run)
    self.recipe = recipe.load(run)
    self.class_names = self.recipe.class_names
    self.label_embeddings = recipe.label_table(run, self.recipe)
    self._variables = checkpoints.restore_variables(run / "checkpoints", step)
    model = self.recipe.build_model()
    mesh = sharding.data_mesh(jax.local_devices()[:1])
    self._predict = {
      output: steps.compile_predict_step(self.recipe.predict_step(model, output=output), mesh)
      for output in ("probabilities", "embedding")
    }

  def __call__(self, clip: readers.Clip | Mapping[str, Any]) -> Float[np.ndarray, " k"]:
    """The probabilities of the classes for one clip, averaged over its test views.

    Raises DataError where an input cannot be taken from the clip: another layout, or 3-D joints
    that it does not have.
    """
    return self._run("probabilities", clip)

  def nearest(self, clip: readers.Clip | Mapping[str, Any]) -> list[tuple[str, float]]:
    """All classes and the cosines of their label embeddings with the clip's, the nearest first.

    Raises CheckpointError for a run that was trained without label embeddings; DataError as above.
    """
    if self.label_embeddings is None:
      where = "the run: label embeddings"
      raise errors.CheckpointError(where, expected="a head for them", got="none")
    order, cosines = embeddings.nearest(self._run("embedding", clip), self.label_embeddings)
    return [(self.class_names[k], float(cosine)) for k, cosine in zip(order, cosines, strict=True)]

  def _run(self, output: str, clip: readers.Clip | Mapping[str, Any]) -> np.ndarray:
    records = {"pose": clip.record()} if isinstance(clip, readers.Clip) else clip
    batch = {}
    for name, one in self.recipe.inputs.items():
      if one.track not in records:
        raise errors.DataError("the clip", expected=f"a {one.track}", got=" and ".join(records))
      record = records[one.track]
      try:
        one.check(record)
      except ValueError as error:
        raise errors.DataError(f"the clip: {error}") from error
      part = one.read_test(record, self.recipe.num_clips)
      batch[name] = jax.tree.map(lambda x: np.asarray(x)[None], part)
    params, batch_stats = self._variables["params"], self._variables["batch_stats"]
    return np.asarray(self._predict[output](params, batch_stats, batch)[0])
