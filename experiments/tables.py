"""The tables of an ablation: figures of scores, and what a row differs from another by."""

import csv
import dataclasses
import io
import itertools
import pathlib
from collections.abc import Sequence

import numpy as np
from scipy import stats

from jaxmg import files, scores
from jaxmg import recipe as recipes
from jaxmg.data.source import Source
from jaxmg.recipe import Recipe
from jaxmg.training import metrics

from . import plots
from .grid import Run

LEGEND = (
  "Mean ± standard deviation over seeds (difference to the row in `against` [its 95 % interval, of "
  "other clips of these people and, with several seeds, of other seeds])."
)
COLUMNS = {name: title for name, title in metrics.TITLES.items() if name != "top5"}


def report(config, workdir: pathlib.Path, runs: Sequence[Run], split: str) -> None:
  """Writes and prints the table."""
  rows = {name: [] for name, _ in config.rows}  # of one Scores for each seed
  for (row, _), seed in itertools.product(config.rows, config.seeds):
    parts = [
      scores.load(workdir / "runs" / one.name / split / "scores.npz")
      for one in runs
      if (one.row, one.seed) == (row, seed)
    ]
    rows[row].append(_joined(parts))
  for name, parts in config.fused:
    rows[name] = [
      scores.fuse(seeds, [1] * len(seeds))
      for seeds in zip(*(rows[part] for part in parts), strict=True)
    ]
  recipe = recipes.load(workdir / "runs" / runs[0].name)
  first = next(iter(rows.values()))[0]
  scores.align([first, *itertools.chain(*rows.values())])  # raises where the clips are others
  subsets = _subsets(recipe, first)
  figures = {name: _figures(subsets, found) for name, found in rows.items()}
  what = f"{recipe.data['name']}{' (SYNTHETIC)' if recipe.data['synthetic'] else ''}"
  where = f"{config.folds} folds of the training subjects" if config.folds else "test subjects"
  title = f"{what}, {where}, {len(first.ids)} clips, seeds {', '.join(map(str, config.seeds))}"
  differences = _write(workdir, title, figures, subsets, dict(config.compare))
  try:
    plots.differences(workdir / "differences.png", differences, title=title)
  except ImportError:
    print("no picture: it needs pip install 'jaxmg[plots]'")
  print((workdir / "table.md").read_text(), end="", flush=True)


def _joined(parts: Sequence[scores.Scores]) -> scores.Scores:
  """The clips of all folds, ordered by id: rows of different runs then are the same clips."""
  ids = np.array([id for part in parts for id in part.ids])
  order = np.argsort(ids)
  return dataclasses.replace(
    parts[0],
    ids=tuple(ids[order].tolist()),
    probabilities=np.concatenate([part.probabilities for part in parts])[order],
    labels=np.concatenate([part.labels for part in parts])[order],
  )


def _subsets(recipe: Recipe, found: scores.Scores) -> dict[str, tuple[str, str, np.ndarray]]:
  """Of each column its title, the metric, and which clips it counts."""
  everything = np.ones(len(found.ids), bool)
  subsets = {name: (title, name, everything) for name, title in COLUMNS.items()}
  location = recipe.data
  data = Source(location["directory"])
  row = {id: row for row, id in enumerate(data.ids)}
  track = data.track(recipe.tracks[0])
  lengths = dict(zip(track.rows.tolist(), track.num_frames.tolist(), strict=True))
  num_frames = max(one.num_frames for one in recipe.inputs.values())
  short = np.array([lengths[row[id]] for id in found.ids]) < num_frames
  train = data.labels[data.rows("train", protocol=location["protocol"])]
  counts = np.bincount(train, minlength=len(found.class_names))
  most = np.sort(counts)[len(counts) // 2 - 1]
  tail = (counts <= most)[found.labels]
  if short.any():
    subsets["short"] = (f"short (< {num_frames} frames, {short.sum()} clips)", "top1", short)
  if tail.any() and not tail.all():
    subsets["tail"] = (f"tail (<= {most} training clips, {tail.sum()} clips)", "mean_class", tail)
  return subsets


def _figures(subsets, found: Sequence[scores.Scores]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """Of each column the metric of every seed [S], and of its bootstrap samples [S, samples]."""
  computed = {}  # by which clips
  for _, _, clips in subsets.values():
    if clips.tobytes() not in computed:
      parts = [(part.probabilities[clips], part.labels[clips]) for part in found]
      computed[clips.tobytes()] = (
        [metrics.summary(*part, part[0].shape[1]) for part in parts],
        [metrics.bootstrap(*part) for part in parts],
      )
  figures = {}
  for column, (_, metric, clips) in subsets.items():
    values, samples = computed[clips.tobytes()]
    figures[column] = tuple(np.array([x[metric] for x in part]) for part in (values, samples))
  return figures


def _write(
  workdir, title, figures, subsets, compare
) -> dict[str, dict[str, tuple[float, float, float]]]:
  """table.md and table.csv; returns, by column and row, the difference and its interval in %."""
  first = next(iter(figures))
  head = ["", "against", *(title for title, _, _ in subsets.values())]
  lines = [head, ["---"] * len(head)]
  table = [["row", "against", "column", "mean", "sd", "difference", "low", "high", "by seed"]]
  differences = {title: {} for title, _, _ in subsets.values()}
  for row, columns in figures.items():
    baseline = "" if row == first else compare.get(row, first)
    cells = [row, baseline]
    for column, (values, samples) in columns.items():
      mean = 100 * values.mean()
      cell = f"{mean:.1f}"
      spread, change = "", [""] * 3
      if len(values) > 1:
        spread = f"{100 * values.std(ddof=1):.2f}"
        cell += f" ± {100 * values.std(ddof=1):.1f}"
      if baseline:
        others, other_samples = figures[baseline][column]
        numbers = 100 * np.array(interval(values - others, samples - other_samples))
        differences[subsets[column][0]][row] = tuple(numbers.tolist())
        change = [f"{x:+.2f}" for x in numbers]
        cell += " ({:+.1f} [{:+.1f}, {:+.1f}])".format(*numbers)
      cells.append(cell)
      by_seed = " ".join(f"{100 * value:.2f}" for value in values)
      table.append([row, baseline, column, f"{mean:.2f}", spread, *change, by_seed])
    lines.append(cells)
  rows = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
  text = io.StringIO()
  csv.writer(text, lineterminator="\n").writerows(table)
  for name, content in (
    ("table.md", f"{title}; in %\n\n{rows}\n\n{LEGEND}\n"),
    ("table.csv", text.getvalue()),
  ):
    with files.replace(workdir / name) as part:
      part.write_text(content, encoding="utf-8")
  return differences


def interval(values: np.ndarray, samples: np.ndarray) -> tuple[float, float, float]:
  """The mean of a figure over S seeds, and its 95 % interval.

  `values` [S] are the figure of each seed, `samples` [S, N] those of N bootstrap samples, of the
  same clips for all seeds: their mean over the seeds varies with the clips, the values with the
  seed. The two variances add up; that of a few seeds comes with Student's t.
  """
  count, mean = len(values), values.mean()
  half = stats.norm.ppf(0.975) * samples.mean(axis=0).std()
  if count > 1:
    half = np.hypot(half, stats.t.ppf(0.975, count - 1) * values.std(ddof=1) / count**0.5)
  return mean, mean - half, mean + half
