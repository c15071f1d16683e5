"""Evaluates a run on a split of its data set: every clip once, all its test views averaged.

  python -m experiments.evaluate --run=RUN --split=test

writes RUN/<split>/: metrics.json, scores.npz (probabilities by clip id), confusion.png, views.png.
Interrupted, the same command goes on; its scores are those of one left alone, to the bit.
"""

import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags
from flax import linen as nn
from jax.experimental import multihost_utils
from jax.sharding import Mesh

import jaxmg
from jaxmg import errors, files, progress, scores
from jaxmg import recipe as recipes
from jaxmg.data import pipeline
from jaxmg.data.source import Source
from jaxmg.recipe import Recipe
from jaxmg.training import checkpoints, metrics, sharding, step
from jaxmg.training import evaluate as evaluation

from . import launch, plots, signals, workdir

COLUMNS = ("rows", "probabilities", "labels")


def define(values: flags.FlagValues) -> None:
  options = {"flag_values": values}
  flags.DEFINE_string(
    "run", None, "The work directory of a training run.", required=True, **options
  )
  flags.DEFINE_enum("split", "test", ["test", "val", "train"], "val: of a fold.", **options)
  flags.DEFINE_string("step", "best", "best, latest or a number.", **options)
  flags.DEFINE_string("data_dir", None, "Where the prepared set is now, if it moved.", **options)
  flags.DEFINE_integer("batch_size", 16, "Clips at a time.", lower_bound=1, **options)


def run(values: flags.FlagValues) -> None:
  directory = pathlib.Path(values.run)
  recipe = recipes.load(directory)
  location = recipe.data
  if location is None:
    expected = "a run that knows its data set"
    raise errors.CheckpointError(
      directory, expected=expected, got="imported weights", hint="import them with --data"
    )
  data = Source(
    pathlib.Path(values.data_dir) / location["name"] if values.data_dir else location["directory"]
  )
  at = int(values.step) if values.step.isdecimal() else values.step
  at = checkpoints.number(directory / "checkpoints", at)
  variables = checkpoints.restore_variables(directory / "checkpoints", at)
  mesh = sharding.data_mesh()
  batch_size = -(-values.batch_size // mesh.size) * mesh.size
  if (
    data.fingerprint(recipe.tracks) != location["fingerprint"]
    or data.class_names != recipe.class_names
  ):
    raise errors.DataError(
      data.directory, expected="the clips and classes that the run was trained with", got="others"
    )
  model = recipe.build_model()
  score = scorer(recipe, model, data, values.split, mesh=mesh, batch_size=batch_size)
  if jax.process_index() == 0:
    views = f"step {at}, {recipe.num_views} views of every clip"
    print(f"{values.split} of {data.directory}: {views}", flush=True)
  folder = directory / values.split
  cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
  machine = [mesh.size, jax.process_count(), jax.devices()[0].device_kind, cores]
  machine.append(os.environ.get("XLA_FLAGS"))
  first = jax.process_index() == 0
  settings = [recipes.to_json(recipe), values.split, batch_size, machine]
  with files.locked(folder) if first else contextlib.nullcontext():
    kept = Kept(folder / "unfinished.npz", [*settings, variables])
    try:
      scored = score(variables, done=kept.parts, keep=kept.save)
    except KeyboardInterrupt:
      if first:
        kept.say_what_is_kept()
      raise
    if first:
      _write(values.split, at, folder, recipe, data, *scored)
      kept.remove()


def _write(split, at, folder, recipe, data, rows, probabilities, labels):
  found = scores.Scores(
    ids=tuple(data.ids[row] for row in rows),
    probabilities=probabilities,
    labels=labels,
    class_names=data.class_names,
    split=split,
    run=folder.parent.resolve().name,
  )
  scores.save(folder / "scores.npz", found)
  print(f"{len(rows)} clips of {split}: scores by id in {folder / 'scores.npz'}")
  if (labels < 0).any():
    print("their labels are hidden: no metrics")
    return
  summary = metrics.summary(probabilities, labels, len(data.class_names))
  samples = metrics.bootstrap(probabilities, labels)
  intervals = {name: metrics.interval(x) for name, x in samples.items()}
  workdir.write(
    folder / "metrics.json",
    summary
    | {"interval": intervals, "split": split, "step": at}
    | {name: recipes.to_json(recipe)[name] for name in ("data", "inputs", "views")},
  )
  print(report(recipe, split, summary, intervals))
  counts = metrics.confusion_matrix(labels, probabilities.argmax(-1), len(data.class_names))
  name = f"{data.name}{' (synthetic)' if data.synthetic else ''}, {split}"
  try:
    plots.confusion(
      folder / "confusion.png",
      counts,
      data.class_names,
      title=f"{name}: mean-class accuracy {summary['mean_class']:.1%}",
    )
    plots.views(folder / "views.png", recipe, data, rows, probabilities, title=name)
  except ImportError:
    print("no pictures: they need pip install 'jaxmg[plots]'")


def scorer(
  recipe: Recipe, model: nn.Module, data: Source, split: str, *, mesh: Mesh, batch_size: int
) -> Callable:
  """Returns `variables -> (rows, probabilities, labels)` over a split of the run's protocol."""
  location = recipe.data
  rows = data.rows(split, protocol=location["protocol"], fold=location["fold"])
  batches = functools.partial(
    pipeline.test_batches,
    data,
    rows,
    recipe.inputs,
    num_clips=recipe.num_clips,
    batch_size=batch_size,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
  )
  predict_step = step.compile_predict_step(recipe.predict_step(model), mesh)
  count = -(-len(rows) // batch_size)

  def score(variables, done=(), **options):
    rest = batches(first_batch=len(done))
    if jax.process_index() == 0:
      rest = progress.track(rest, split, total=count, unit="batches", done=len(done))
    return evaluation.evaluate(predict_step, variables, rest, mesh=mesh, done=done, **options)

  return score


class Kept:
  """The scores of the batches so far, on the disk: a killed evaluation goes on after them.

  `of` is what they depend on, but for the code: where anything of it has changed, none is taken.
  """

  SECONDS = 10.0  # between two savings

  def __init__(self, path: pathlib.Path, of: Any):
    self._path, self._saved = path, time.monotonic()
    hashed = hashlib.sha256(f"{jax.__version__} {jaxmg.__version__}".encode())
    for place, leaf in jax.tree.leaves_with_path(of, is_leaf=lambda leaf: leaf is None):
      array = np.asarray(leaf) if isinstance(leaf, np.ndarray | jax.Array) else None
      text = repr(leaf) if array is None else f"{array.dtype}{array.shape}"
      hashed.update(f"{jax.tree_util.keystr(place)}: {text};".encode())
      if array is not None:
        hashed.update(array.tobytes())
    self._of = hashed.hexdigest()
    self.parts = self._load() if path.exists() else []
    if jax.process_count() > 1:  # all must go on after the same batch, whatever each could read
      counts = multihost_utils.process_allgather(np.int32(len(self.parts)))
      self.parts = self.parts if (counts == counts[0]).all() else []
    self._holds = bool(self.parts)
    if self.parts and jax.process_index() == 0:
      progress.say(f"goes on where it was stopped: {len(self.parts)} batches are there")

  def save(self, parts: Sequence[evaluation.Part]) -> None:
    if time.monotonic() - self._saved < self.SECONDS or jax.process_index() > 0:
      return
    lengths = [len(rows) for rows, _, _ in parts]
    columns = dict(zip(COLUMNS, map(np.concatenate, zip(*parts, strict=True)), strict=True))
    try:
      with files.replace(self._path) as path:
        np.savez(path, of=self._of, lengths=lengths, **columns)
      self._holds = True
    except OSError as error:  # it can do without
      progress.say(f"not kept: {self._path}: {error.strerror}")
    self._saved = time.monotonic()

  def say_what_is_kept(self) -> None:
    kept = f"{self._path} holds the scores so far: the same command goes on from there"
    progress.say(kept if self._holds else "no scores are kept: the same command begins again")

  def remove(self) -> None:
    files.remove(self._path)

  def _load(self) -> list[evaluation.Part]:
    try:
      with np.load(self._path, allow_pickle=False) as file:
        if str(file["of"]) != self._of:
          raise ValueError("of other weights, settings or devices")
        ends = np.cumsum(file["lengths"])[:-1]
        columns = [np.split(file[name], ends) for name in COLUMNS]
        return list(zip(*columns, strict=True))
    except Exception as error:  # numpy and zipfile raise whatever the damage of a file leads to
      if jax.process_index() == 0:
        progress.say(f"begins again: {self._path}: {error}")
      return []


def validation(recipe: Recipe, model: nn.Module, data: Source, mesh: Mesh) -> Callable | None:
  """Metrics on the held-out subjects of a fold, from one unmirrored view; None without a fold.

  They are None, too, when the process is asked to stop meanwhile.
  """
  if recipe.data["fold"] is None:
    return None  # the test subjects are not there to choose a checkpoint by
  one_view = dataclasses.replace(recipe, num_clips=1, mirror=False)
  score = scorer(one_view, model, data, "val", mesh=mesh, batch_size=16 * mesh.size)

  def evaluate(state):
    scored = score(state.variables, stop=signals.stop_reason)
    if scored is None:
      return None
    _, probabilities, labels = scored
    return metrics.summary(probabilities, labels, len(data.class_names))

  return evaluate


def report(recipe: Recipe, split: str, summary: dict, intervals: dict) -> str:
  """The figures, with 95 % of bootstrap samples of the clips, and what they are worth."""
  synthetic = "SYNTHETIC data: " if recipe.data["synthetic"] else ""
  figures = (
    f"{title} {summary[name]:.1%} [{100 * intervals[name][0]:.1f}, {100 * intervals[name][1]:.1f}]"
    for name, title in metrics.TITLES.items()
    if name != "top5" or len(recipe.class_names) > 5  # else it says nothing
  )
  return (
    f"{synthetic}{recipe.data['name']}, {split}, {summary['num_clips']} clips:\n"
    f"  {'   '.join(figures)}\n"
    f"  always answering the most frequent class: {summary['majority_class']:.1%}"
  )


if __name__ == "__main__":
  launch.command(run, define)
