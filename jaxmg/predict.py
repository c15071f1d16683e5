"""A run directory -> class probabilities of a clip. What is in one, says `jaxmg.recipe`."""

import itertools
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jaxmg import errors, recipe
from jaxmg.data import embeddings, readers
from jaxmg.training import checkpoints, sharding
from jaxmg.training import step as steps

_WINDOWS = 8  # of a recording, in a batch


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

    Raises DataError where an input cannot be taken from the clip (another layout, or 3-D joints
    that it does not have), and where it shows nobody, or nothing that pixels could be.
    """
    return self._one("probabilities", clip)

  def windows(
    self, clip: readers.Clip | Mapping[str, Any], *, length: int, hop: int
  ) -> Iterator[tuple[int, int, Float[np.ndarray, " k"] | None]]:
    """The probabilities of parts of a recording, each as those of a clip: `(first, last, them)`.

    Windows of `length` frames, one every `hop`, and one that ends at the last frame; `first` and
    `last` count from 0, and both are in the window. A recording of fewer frames is one window. None
    in the place of the probabilities where a window shows nobody.

    Nothing is held but the recording and a batch of windows. What `__call__` raises, of the whole
    recording, is raised at once; ConfigError where hop is not from 1 to length, DataError for
    records of other kinds, which cannot be cut in time.
    """
    if not 1 <= hop <= length:
      raise errors.ConfigError("hop", expected=f"frames from 1 to the length, {length}", got=hop)
    if not isinstance(clip, readers.Clip):
      raise errors.DataError("the recording", expected="a readers.Clip", got="other records")
    self._check({"pose": clip.record()})
    final = max(clip.num_frames - length, 0)
    bounds = (
      (first, min(first + length, clip.num_frames) - 1)
      for first in itertools.chain(range(0, final, hop), (final,))
    )
    return self._windows(clip, bounds)

  def _windows(self, clip, bounds):
    while some := [*itertools.islice(bounds, _WINDOWS)]:
      records = [{"pose": clip.cut(*window).record()} for window in some]
      inputs = self.recipe.inputs.values()
      shown = [i for i in range(len(some)) if all(one.shows(records[i]["pose"]) for one in inputs)]
      parts = [self._read(records[i]) for i in shown]
      padding = parts[:1] * (_WINDOWS - len(parts))  # all batches are of one size, compiled once
      found = self._run("probabilities", *parts, *padding) if parts else ()
      probabilities = dict(zip(shown, found, strict=False))
      for i, (first, last) in enumerate(some):
        yield first, last, probabilities.get(i)

  def nearest(self, clip: readers.Clip | Mapping[str, Any]) -> list[tuple[str, float]]:
    """All classes and the cosines of their label embeddings with the clip's, the nearest first.

    Raises CheckpointError for a run that was trained without label embeddings; DataError as above.
    """
    if self.label_embeddings is None:
      where = "the run: label embeddings"
      raise errors.CheckpointError(where, expected="a head for them", got="none")
    order, cosines = embeddings.nearest(self._one("embedding", clip), self.label_embeddings)
    return [(self.class_names[k], float(cosine)) for k, cosine in zip(order, cosines, strict=True)]

  def _one(self, output: str, clip: readers.Clip | Mapping[str, Any]) -> np.ndarray:
    records = {"pose": clip.record()} if isinstance(clip, readers.Clip) else clip
    self._check(records)
    return self._run(output, self._read(records))[0]

  def _check(self, records: Mapping[str, Any]) -> None:
    for one in self.recipe.inputs.values():
      if one.track not in records:
        raise errors.DataError("the clip", expected=f"a {one.track}", got=" and ".join(records))
      try:
        one.check(records[one.track])
        one.check_shown(records[one.track])
      except ValueError as error:
        raise errors.DataError(f"the clip: {error}") from error

  def _read(self, records: Mapping[str, Any]) -> dict[str, Any]:
    inputs, num_clips = self.recipe.inputs, self.recipe.num_clips
    return {name: one.read_test(records[one.track], num_clips) for name, one in inputs.items()}

  def _run(self, output: str, *parts: Mapping[str, Any]) -> np.ndarray:
    batch = jax.tree.map(lambda *x: np.stack(x), *parts)
    params, batch_stats = self._variables["params"], self._variables["batch_stats"]
    return np.asarray(self._predict[output](params, batch_stats, batch))
