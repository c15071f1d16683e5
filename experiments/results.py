"""What an evaluated run has left, checked: figures, scores, curves, and the set of its clips."""

import dataclasses
import json
import math
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from jaxmg import errors, scores
from jaxmg import recipe as recipes
from jaxmg.data.source import Source
from jaxmg.recipe import Recipe
from jaxmg.scores import Scores
from jaxmg.training import metrics


def check_different(places: Sequence[pathlib.Path]) -> None:
  """Raises ConfigError where one of the runs is given twice."""
  for place in places:
    if places.count(place) > 1:
      raise errors.ConfigError("RUN", expected="different runs", got=f"{place} twice")


@dataclasses.dataclass(frozen=True)
class Run:
  """An evaluated run: its recipe, its files, and the set of its clips, or why there is none."""

  name: str
  recipe: Recipe
  config: Mapping[str, Any]
  metrics: Mapping[str, Any]
  scores: Scores
  curves: Sequence[Mapping[str, Any]]
  data: Source | None
  without: str

  @property
  def titles(self) -> dict[str, str]:
    return metrics.titles(self.metrics, len(self.scores.class_names))

  @property
  def rows(self) -> list[int]:
    """Of each clip, its row in the set, which must be there."""
    row = {id: row for row, id in enumerate(self.data.ids)}
    return [row[id] for id in self.scores.ids]


def read(directory: pathlib.Path, split: str, name: str, data: str | None) -> Run:
  """An evaluated run; an error where it is not evaluated, or not as it was written."""
  if not directory.is_dir():
    got = "a file" if directory.exists() else "no such folder"
    raise errors.CheckpointError(directory, expected="a run directory", got=got)
  recipe = recipes.load(directory)
  folder = directory / split
  hint = f"jaxmg evaluate --run={shlex.quote(str(directory))}"
  if split in ("test", "val", "train"):
    hint += f" --split={split}"
  if not (folder / "scores.npz").exists():
    raise errors.DataError(folder, expected="an evaluated run", got="no scores.npz", hint=hint)
  found = scores.load(folder / "scores.npz")
  if found.class_names != recipe.class_names:
    where = folder / "scores.npz"
    raise errors.DataError(where, expected="the classes of the run", got="others", hint=hint)
  if (found.labels < 0).any():
    where, expected = f"{folder / 'scores.npz'}: labels", "known ones"
    raise errors.DataError(where, expected=expected, got="hidden ones", hint="nothing to report")
  figures = read_metrics(folder / "metrics.json", found, hint)
  source, without = find(figures["data"], recipe, found, data)
  path, without_it = (
    directory / "config.json",
    "training wrote it; a report does without: remove it",
  )
  config = _json(path, without_it) if path.exists() else {}
  curves = read_curves(directory / "metrics.jsonl")
  return Run(name, recipe, config, figures, found, curves, source, without)


def read_metrics(path: pathlib.Path, found: Scores, hint: str) -> dict[str, Any]:
  """What evaluate wrote of these scores; the figures of classes, where an older one wrote none.

  Raises DataError where they are not those of the scores.
  """
  if not path.exists():
    raise errors.DataError(path, expected="an evaluated run", got="no such file", hint=hint)
  summary = metrics.summary(found.probabilities, found.labels, len(found.class_names))
  per_class = metrics.per_class(found.labels, found.probabilities.argmax(-1), found.class_names)
  content = {"per_class": per_class, "interval_over_subjects": {}} | _json(path, hint)
  for name, value in summary.items():
    got = content.get(name)
    if not is_number(got) or abs(got - value) > 1e-6:
      raise errors.DataError(f"{path}: {name}", expected=f"{value:.6g}", got=repr(got), hint=hint)
  if content["per_class"] != per_class:
    expected = "the figures of scores.npz"
    raise errors.DataError(f"{path}: per_class", expected=expected, got="others", hint=hint)
  for place in ("interval", "interval_over_subjects"):
    pairs = content.get(place)
    if not isinstance(pairs, dict) or not all(map(_is_pair, pairs.values())):
      expected = "two numbers of each figure"
      raise errors.DataError(f"{path}: {place}", expected=expected, got="others", hint=hint)
  if not isinstance(content.get("data"), dict) or not isinstance(content.get("step"), int):
    expected, got = "the data and the step", "none"
    raise errors.DataError(path, expected=expected, got=got, hint=hint)
  return content


def is_number(value: Any) -> bool:
  return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _is_pair(value: Any) -> bool:
  return isinstance(value, list) and len(value) == 2 and all(map(is_number, value))


def _json(path: pathlib.Path, hint: str) -> dict[str, Any]:
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except (ValueError, RecursionError) as error:
    raise errors.DataError(path, expected="JSON", got=error, hint=hint) from error
  if not isinstance(content, dict):
    got = type(content).__name__
    raise errors.DataError(path, expected="names and values", got=got, hint=hint)
  return content


def read_curves(path: pathlib.Path) -> list[dict[str, Any]]:
  """The lines of metrics.jsonl; without one that a kill cut off."""
  if not path.exists():
    return []
  found = []
  for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
    try:
      values = json.loads(line)
    except (ValueError, RecursionError):
      continue
    if isinstance(values, dict) and is_number(values.get("epoch")):
      found.append(values)
  return found


def find(
  location: Mapping[str, Any], recipe: Recipe, found: Scores, data: str | None
) -> tuple[Source | None, str]:
  """The set of the clips, or None and why; DataError where the one that was told is another."""
  try:
    source = Source(data or str(location.get("directory")))
    same = source.fingerprint(recipe.tracks) == location.get("fingerprint")
    if not same or not {*found.ids} <= {*source.ids}:
      expected = "the clips that were evaluated"
      raise errors.DataError(source.directory, expected=expected, got="others")
    return source, ""
  except errors.DataError as error:
    if data:
      raise
    return None, str(error)
