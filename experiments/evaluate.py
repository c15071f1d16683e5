"""Evaluates a run on a split of its data set: every clip once, all its test views averaged.

  jaxmg evaluate --run=RUN --split=test
  jaxmg evaluate --run=RUN --data=DATA/NAME

writes RUN/<split>/: metrics.json, scores.npz (probabilities by clip id), confusion.png, views.png.
Interrupted, the same command goes on; its scores are those of one left alone, to the bit.

--data is where the run's set is now, or another set of its classes, such as a later test set: then
the split is that of its first protocol, and all is in RUN/<NAME>-<split>/. Its labels may be
hidden: there are scores, then, and no metrics. A clip that was trained on is refused, known by its
id or by its data, if the run's own set is there.

--without=NAME hides an input of a fusion from all clips, in RUN/<split>-without-NAME/.
--timelines goes through the split once more, and writes what each of a clip's test windows says by
itself, in the order of time, with its mirror image if there is one: timelines.csv, and
timelines.png of up to 24 clips.
"""

import contextlib
import csv
import dataclasses
import functools
import hashlib
import os
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags
from flax import linen as nn
from jax.experimental import multihost_utils
from jax.sharding import Mesh

import jaxmg
from jaxmg import encoders, errors, files, inputs, progress, scores
from jaxmg import recipe as recipes
from jaxmg.data import pipeline
from jaxmg.data.source import Source
from jaxmg.recipe import Recipe
from jaxmg.training import checkpoints, metrics, sharding, step
from jaxmg.training import evaluate as evaluation

from . import backend, launch, lineage, plots, signals, workdir

COLUMNS = ("rows", "probabilities", "labels")


def define(values: flags.FlagValues) -> None:
  options = {"flag_values": values}
  flags.DEFINE_string(
    "run", None, "The work directory of a training run.", required=True, **options
  )
  flags.DEFINE_enum("split", "test", ["test", "val", "train"], "val: of a fold.", **options)
  flags.DEFINE_string("step", "best", "best, latest or a number.", **options)
  flags.DEFINE_string("data", None, "The run's set, if it moved, or another one.", **options)
  flags.DEFINE_list("without", [], "Inputs that clips are not shown (modality dropout).", **options)
  flags.DEFINE_boolean("timelines", False, "What each view of a clip says, too.", **options)
  backend.define_dtype(values)
  flags.DEFINE_integer("batch_size", 16, "Clips at a time.", lower_bound=1, **options)


def run(values: flags.FlagValues) -> None:
  directory = pathlib.Path(values.run)
  recipe = recipes.load(directory)
  data, recipe, split = find(values, recipe)
  if values.without:
    _check_without(recipe, values.without)
    split += f"-without-{'-'.join(sorted({*values.without}))}"
  at = int(values.step) if values.step.isdecimal() else values.step
  at = checkpoints.number(directory / "checkpoints", at)
  variables = checkpoints.restore_variables(directory / "checkpoints", at)
  mesh = sharding.data_mesh()
  batch_size = -(-values.batch_size // mesh.size) * mesh.size
  dtype = backend.dtype(values.dtype)
  model = recipe.build_model(jnp.dtype(dtype))
  options = {"mesh": mesh, "batch_size": batch_size, "without": values.without}
  score = scorer(recipe, model, data, values.split, **options)
  if jax.process_index() == 0:
    views = f"step {at}, {recipe.num_views} views of every clip, {dtype}"
    print(f"{values.split} of {data.directory}: {views}", flush=True)
  folder = directory / split
  cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
  machine = [mesh.size, jax.process_count(), jax.devices()[0].device_kind, cores]
  machine.append(os.environ.get("XLA_FLAGS"))
  first = jax.process_index() == 0
  settings = [recipes.to_json(recipe), values.split, values.without, batch_size, dtype, machine]
  with files.locked(folder) if first else contextlib.nullcontext():
    kept = Kept(folder / "unfinished.npz", [*settings, variables])
    try:
      scored = score(variables, done=kept.parts, keep=kept.save)
    except KeyboardInterrupt:
      if first:
        kept.say_what_is_kept()
      raise
    if first:
      _write(split, at, dtype, folder, recipe, data, *scored)
      kept.remove()
  if values.timelines:
    rows, views, labels = scorer(recipe, model, data, values.split, average=False, **options)(
      variables
    )
    if first:
      _write_timelines(folder, recipe, data, rows, views, labels)


def find(values: flags.FlagValues, recipe: Recipe) -> tuple[Source, Recipe, str]:
  """The set to evaluate on, the recipe with this set as its data, and the name of the outcome.

  Raises DataError for a set of other classes, and for clips that the weights were trained on.
  """
  location = recipe.data
  if location is None and not values.data:
    expected, hint = "a run that knows its data set", "name one: --data=DATA/NAME"
    raise errors.CheckpointError(values.run, expected=expected, got="imported weights", hint=hint)
  if location is not None and location["directory"] is None and not values.data:
    expected, hint = "a run on a prepared set", "name one: --data=DATA/NAME"
    raise errors.CheckpointError(values.run, expected=expected, got="arrays", hint=hint)
  try:
    data = Source(values.data or location["directory"])
  except errors.DataError as error:
    hint = None if values.data else f"moved? --data=DATA/{location['name']}"
    raise errors.DataError(error, hint=hint) from error
  count = len(data.class_names)  # names may end before the run's do, as labels then do
  same = location is not None and data.fingerprint(recipe.tracks) == location["fingerprint"]
  if data.class_names != recipe.class_names[:count] or not (same or values.data):
    expected = (
      f"the {'classes' if values.data else 'clips and classes'} that the run was trained with"
    )
    hint = None if same or values.data else "if it is another set: --data"
    ordered = {*data.class_names} == {*recipe.class_names}
    got = "the same in another order" if ordered and (same or values.data) else "others"
    raise errors.DataError(data.directory, expected=expected, got=got, hint=hint)
  if same:
    return data, recipe, values.split
  if jax.process_index() == 0:
    print(f"{data.name} is not the set of the run: its first protocol is taken")
    if count < len(recipe.class_names):
      print(f"it names {count} of {len(recipe.class_names)} classes: the others are the run's")
  rows = data.rows(values.split).tolist()
  for trained in lineage.of(pathlib.Path(values.run), recipe):
    # A copy is known by what a fusion's encoders saw, and not by their tokens.
    seen = lineage.seen(trained, data, data.track_names) if trained else None
    if seen is None and jax.process_index() == 0:
      why = "they are imported"
      if trained:
        place = trained["directory"]
        why = f"{trained['name']} is not in {place}" if place else "they were trained on arrays"
      print(f"NOTE: it is not known which clips the weights were trained on: {why}")
    if copies := [data.ids[row] for row in rows if row in (seen or ())]:
      got = f"{len(copies)}: {', '.join(map(repr, copies[:5]))}"
      hint = f"{trained['name']} has their ids or their data"
      raise errors.DataError(data.directory, expected="no clips trained on", got=got, hint=hint)
  described = data.describe(recipe.tracks)
  # What holds for training: this set may name fewer classes, and its mirror images count as views.
  described = {key: x for key, x in described.items() if key not in ("mirror", "names")}
  recipe = dataclasses.replace(recipe, data=described)
  return data, recipe, f"{data.name}-{values.split}"


def _check_without(recipe: Recipe, names: Sequence[str]) -> None:
  if not recipe.may_lack:
    expected = "a run trained with --config.model.modality_dropout"
    raise errors.ConfigError("--without", expected=expected, got="one without")
  if not {*names} < recipe.inputs.keys():
    expected = f"some of {' and '.join(recipe.inputs)}, not all"
    wrong = [name for name in names if name not in recipe.inputs]
    hint = errors.meant(wrong[0], recipe.inputs) if wrong else None
    raise errors.ConfigError("--without", expected=expected, got=" and ".join(names), hint=hint)


def _write(split, at, dtype, folder, recipe, data, rows, probabilities, labels):
  found = scores.Scores(
    ids=tuple(data.ids[row] for row in rows),
    probabilities=probabilities,
    labels=labels,
    class_names=recipe.class_names,
    split=split,
    run=folder.parent.resolve().name,
  )
  scores.save(folder / "scores.npz", found)
  print(f"{len(rows)} clips of {split}: scores by id in {folder / 'scores.npz'}")
  if (labels < 0).any():
    for name in ("metrics.json", "confusion.png", "views.png"):
      files.remove(folder / name)  # of another set of this name
    print("their labels are hidden: no metrics")
    return
  side = split.removeprefix(f"{data.name}-")
  summary = metrics.summary(probabilities, labels, len(recipe.class_names))
  samples = metrics.bootstrap(probabilities, labels)
  intervals = {name: metrics.interval(x) for name, x in samples.items()}
  subjects = data.subjects[rows]
  number = len(np.unique(subjects))
  samples = metrics.bootstrap_groups(probabilities, labels, subjects)
  over_subjects = {name: metrics.interval(x) for name, x in samples.items()}
  per_class = metrics.per_class(labels, probabilities.argmax(-1), recipe.class_names)
  workdir.write(
    folder / "metrics.json",
    summary
    | {"interval": intervals}
    | ({"interval_over_subjects": over_subjects} if number > 1 else {})
    | {"split": split, "step": at, "dtype": dtype, "per_class": per_class}
    | {name: recipes.to_json(recipe)[name] for name in ("data", "inputs", "views")},
  )
  print(report(recipe, side, summary, intervals, over_subjects, number))
  counts = metrics.confusion_matrix(labels, probabilities.argmax(-1), len(recipe.class_names))
  name = f"{data.name}{' (synthetic)' if data.synthetic else ''}, {side}"
  try:
    plots.confusion(
      folder / "confusion.png",
      counts,
      recipe.class_names,
      title=f"{name}: mean-class accuracy {summary['mean_class']:.1%}",
    )
    plots.views(folder / "views.png", recipe, data, rows, probabilities, title=name)
  except ImportError:
    print("no pictures: they need pip install 'jaxmg[plots]'")


def _write_timelines(folder, recipe, data, rows, views, labels):
  """Files of what the views of each clip say, [N, R, K]; mirror images with their views."""
  moments = views.reshape(len(views), -1, recipe.num_clips, views.shape[-1]).mean(1)
  kinds = [
    data.track(one.track) for one in recipe.inputs.values() if isinstance(one, inputs.Tokens)
  ]
  if any(x.kind.step is not None and encoders.of_track(x).mirror for x in kinds):
    # Of tokens, a view is followed by its mirror image.
    moments = moments.reshape(len(views), -1, 2, views.shape[-1]).mean(2)
  with files.replace(folder / "timelines.csv") as part, open(part, "w", newline="") as file:
    writer = csv.writer(file)
    writer.writerow(["id", "label", "window", *recipe.class_names])
    for row, label, clip in zip(rows, labels, moments, strict=True):
      name = recipe.class_names[label] if label >= 0 else ""
      for k, found in enumerate(clip):
        writer.writerow([data.ids[row], name, k, *(f"{value:.6f}" for value in found)])
  print(f"what each window says: {folder / 'timelines.csv'} and timelines.png")
  chosen = np.unique(np.linspace(0, len(rows) - 1, 24).astype(int))
  titles = [
    f"{data.ids[rows[i]]}, truly {recipe.class_names[labels[i]] if labels[i] >= 0 else 'hidden'}"
    for i in chosen
  ]
  try:
    plots.timelines(folder / "timelines.png", moments[chosen], titles, recipe.class_names)
  except ImportError:
    print("no pictures: they need pip install 'jaxmg[plots]'")


def scorer(
  recipe: Recipe,
  model: nn.Module,
  data: Source,
  split: str,
  *,
  mesh: Mesh,
  batch_size: int,
  without: Sequence[str] = (),
  average: bool = True,
) -> Callable:
  """Returns `variables -> (rows, probabilities, labels)` over a split of the run's protocol.

  With `average=False` the probabilities are those of each view, [N, R, K].
  """
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
    may_lack=recipe.may_lack,
    without=without,
  )
  predict_step = step.compile_predict_step(recipe.predict_step(model, average=average), mesh)
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
  """Metrics on the held-out subjects of a fold, from one view; None without a fold.

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
    return metrics.summary(probabilities, labels, len(recipe.class_names))

  return evaluate


def report(
  recipe: Recipe,
  split: str,
  summary: dict,
  intervals: dict,
  over_subjects: dict,
  num_subjects: int,
) -> str:
  """The figures, with 95 % of bootstrap samples of clips and of subjects, and their worth."""
  synthetic = "SYNTHETIC data: " if recipe.data["synthetic"] else ""
  titles = metrics.titles(summary, len(recipe.class_names))

  def between(found, name):
    return f"[{100 * found[name][0]:.1f}, {100 * found[name][1]:.1f}]" if name in found else ""

  figures = (
    f"{title} {summary[name]:.1%} {between(intervals, name)}".rstrip()
    for name, title in titles.items()
  )
  lines = [
    f"{synthetic}{recipe.data['name']}, {split}, {summary['num_clips']} clips:",
    f"  {'   '.join(figures)}",
  ]
  if num_subjects > 1:
    found = (f"{title} {between(over_subjects, name)}" for name, title in titles.items())
    lines.append(f"  over {num_subjects} subjects: {'   '.join(found)}")
  lines.append(f"  always answering the most frequent class: {summary['majority_class']:.1%}")
  return "\n".join(lines)


if __name__ == "__main__":
  launch.command(run, define)
