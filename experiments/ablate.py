r"""Trains and evaluates all variants of an experiment, over seeds and folds, and compares them.

  python -m experiments.ablate --config=experiments/configs/ablations/recipe_a.py --workdir=DIR

Every run is the command of its experiment, in DIR/runs/NAME; what is done is not done again, and
what was broken off goes on where it stopped: the same command finishes the same table. It leaves
DIR/table.md, table.csv and differences.png.

A row's figures are means over the seeds, with their standard deviation. Behind them stands the
difference to the first row, seed by seed and clip by clip, and in brackets the middle 95 % of 2,000
samples of it, for which seeds and clips are drawn with replacement. Clips of a person are alike, so
this says nothing of other persons. With `config.folds`, the clips are those of the training
subjects, each predicted by a run that did not train on its subject.

The columns: top-1, mean-class accuracy and macro-F1; "short", top-1 of clips with fewer frames than
the model takes; "tail", mean-class accuracy of the half of the classes with the fewest training
clips.
"""

import csv
import dataclasses
import io
import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import IO

import numpy as np

from experiments import launch, plots
from jaxmg import errors, predict, scores
from jaxmg.data.source import Source
from jaxmg.training import metrics

COLUMNS = {"top1": "top-1", "mean_class": "mean-class", "macro_f1": "macro-F1"}


@dataclasses.dataclass(frozen=True)
class Run:
  """One training with its evaluation: a row of the table, a seed and, perhaps, a fold.

  A setting `KEY=@ROW` means the run directory of that row, of the same seed and fold.
  """

  row: str
  seed: int
  fold: str | None
  settings: tuple[str, ...]

  @property
  def name(self) -> str:
    row = re.sub(r"\W+", "_", self.row).strip("_")
    fold = f"-fold{self.fold.replace('/', 'of')}" if self.fold else ""
    return f"{row}-seed{self.seed}{fold}"

  @property
  def needs(self) -> set[str]:
    """The names of the runs that come before."""
    rows = (text.partition("=@")[2] for text in self.settings)
    return {dataclasses.replace(self, row=row).name for row in rows if row}

  def overrides(self, folder: pathlib.Path) -> list[str]:
    """The settings as flags, for runs in `folder`."""

    def directory(match):
      return f"={folder / dataclasses.replace(self, row=match[1]).name}"

    return [f"--config.{re.sub('=@(.+)', directory, text)}" for text in self.settings]


def run(config, workdir: pathlib.Path) -> None:
  runs = plan(config)
  folder = workdir / "runs"
  commands = {one.name: (config.base, one.overrides(folder)) for one in runs}
  wanted = {name: launch.read_config(*command) for name, command in commands.items()}
  split = "val" if config.folds else "test"
  for made in (folder, workdir / "logs"):
    made.mkdir(exist_ok=True)
  print(f"{len(runs)} runs of {config.experiment}, {config.jobs} at a time", flush=True)
  stop = threading.Event()
  started = {}

  def execute(number, one):
    for name in one.needs:  # they come before, so that another worker has them in hand
      started[name].result()
    title, directory = f"[{number}/{len(runs)}] {one.name}", folder / one.name
    if _is_done(wanted[one.name], directory, split):
      print(f"{title}: is there", flush=True)
      return
    begin = time.perf_counter()
    base, overrides = commands[one.name]
    with open(workdir / "logs" / f"{one.name}.log", "a+") as log:
      train = (f"experiments.{config.experiment}", f"--config={base}", f"--workdir={directory}")
      _call([*train, *overrides], log, stop)
      _call(["experiments.evaluate", f"--run={directory}", f"--split={split}"], log, stop)
    top1 = json.loads((directory / split / "metrics.json").read_text())["top1"]
    minutes = (time.perf_counter() - begin) / 60
    print(f"{title}: top-1 {top1:.1%}, {minutes:.1f} min", flush=True)

  with futures.ThreadPoolExecutor(config.jobs, initializer=_share_cores(config.jobs)) as pool:
    try:
      for number, one in enumerate(runs, 1):
        started[one.name] = pool.submit(execute, number, one)
      _wait(started.values())
    finally:
      stop.set()
      pool.shutdown(cancel_futures=True)
  report(config, workdir, runs, split)


def plan(config) -> list[Run]:
  """All runs, in their order; raises ConfigError for rows that do not go together."""
  names = [name for name, _ in config.rows]
  folds = [f"{i}/{config.folds}" for i in range(config.folds)] or [None]
  runs = []
  for seed, (row, settings), fold in itertools.product(config.seeds, config.rows, folds):
    settings = [*config.settings, *settings, f"train.seed={seed}"]
    if fold:
      settings.append(f"data.fold={fold}")
    last = dict(text.partition("=")[::2] for text in settings)  # a row's own replaces that of all
    one = Run(row, seed, fold, tuple(f"{key}={value}" for key, value in last.items()))
    before = {other.name for other in runs}
    if one.name in before:
      got = f"{row!r} twice"
      raise errors.ConfigError("--config.rows", expected="names that differ in letters", got=got)
    if missing := one.needs - before:
      got = ", ".join(sorted(missing))
      raise errors.ConfigError(f"--config.rows: {row!r}", expected="an earlier row", got=got)
    runs.append(one)
  for fused, parts in config.fused:
    if missing := [part for part in parts if part not in names]:
      raise errors.ConfigError(f"--config.fused: {fused!r}", expected="rows", got=missing)
  return runs


def _share_cores(jobs: int) -> Callable[[], None]:
  """What gives each of some threads, and the processes it starts, cores of its own (Linux)."""
  cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
  shares = iter([cores[i::jobs] for i in range(jobs)])

  def begin():
    if share := next(shares):
      os.sched_setaffinity(0, share)

  return begin


def _is_done(wanted, directory: pathlib.Path, split: str) -> bool:
  """Whether a run of the very same config was evaluated."""
  try:
    config = json.loads((directory / "config.json").read_text())
    steps = {path.name for path in (directory / "checkpoints").iterdir()}
    evaluated = json.loads((directory / split / "metrics.json").read_text())
  except (OSError, ValueError):
    return False
  return bool(steps and evaluated) and config == json.loads(json.dumps(wanted.to_dict()))


def _call(arguments: Sequence[str], log: IO[str], stop: threading.Event) -> None:
  """Runs a module to its end; one that a killed ablation has left running is waited for."""
  begin = log.seek(0, os.SEEK_END)
  while True:
    # In a session of its own: Ctrl-C reaches it through us alone, once.
    child = subprocess.Popen(
      [sys.executable, "-m", *arguments], stdout=log, stderr=log, start_new_session=True
    )
    while child.poll() is None and not stop.wait(0.1):
      pass
    if stop.is_set():
      child.terminate()
      child.wait()
      raise errors.Preempted("stopped")
    if child.returncode != errors.LockedError.exit_code:
      break
    stop.wait(2)
  if child.returncode:
    log.seek(begin)
    said = re.findall("^jaxmg: error: (.*)$", log.read(), re.MULTILINE)
    last = said[-1] if said else f"{arguments[0]} ended with code {child.returncode}"
    error = errors.Error(f"{log.name}: {last}")
    error.exit_code = child.returncode if child.returncode > 0 else errors.Error.exit_code
    raise error


def _wait(pending) -> None:
  """Returns when all is done; raises what the first of them raises, or that we were stopped."""
  pending = set(pending)
  while pending:
    if signal_name := launch.stop_reason():
      kind = errors.Interrupted if signal_name == "SIGINT" else errors.Preempted
      raise kind(f"{signal_name}: the runs are saved; the same command goes on from there")
    done, pending = futures.wait(pending, timeout=0.2, return_when=futures.FIRST_EXCEPTION)
    for future in done:
      future.result()


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
  recipe = predict.load_recipe(workdir / "runs" / runs[0].name)
  first = next(iter(rows.values()))[0]
  if (first.labels < 0).any():
    hint = "config.folds compares on training subjects"
    raise errors.DataError(f"labels of {split}", expected="known ones", got="hidden", hint=hint)
  subsets = _subsets(recipe, first)
  figures = {
    name: {column: _figures(subset, found) for column, subset in subsets.items()}
    for name, found in rows.items()
  }
  what = f"{recipe['data']['name']}{' (SYNTHETIC)' if recipe['data']['synthetic'] else ''}"
  where = f"{config.folds} folds of the training subjects" if config.folds else "test subjects"
  title = f"{what}, {where}, {len(first.ids)} clips, seeds {', '.join(map(str, config.seeds))}"
  differences = _write(workdir, title, figures, subsets)
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


def _subsets(recipe: dict, found: scores.Scores) -> dict[str, tuple[str, str, np.ndarray]]:
  """Of each column its title, the metric, and which clips it counts."""
  everything = np.ones(len(found.ids), bool)
  subsets = {name: (title, name, everything) for name, title in COLUMNS.items()}
  location = recipe["data"]
  data = Source(location["directory"])
  row = {id: row for row, id in enumerate(data.ids)}
  clips = np.array([row[id] for id in found.ids])
  num_frames = recipe["sampling"]["num_frames"]
  short = data.num_frames[clips] < num_frames
  train = data.labels[data.rows("train", protocol=location["protocol"])]
  counts = np.bincount(train, minlength=len(found.class_names))
  half = np.argsort(counts, kind="stable")[: len(counts) // 2]
  tail = np.isin(found.labels, half)
  if short.any():
    subsets["short"] = (f"short (< {num_frames} frames, {short.sum()} clips)", "top1", short)
  if tail.any() and len(set(counts.tolist())) > 1:
    most = counts[half].max()
    subsets["tail"] = (f"tail (<= {most} training clips, {tail.sum()} clips)", "mean_class", tail)
  return subsets


def _figures(subset, found: Sequence[scores.Scores]) -> tuple[np.ndarray, np.ndarray]:
  """The metric of every seed [S], and of its bootstrap samples [S, samples]."""
  _, metric, clips = subset
  parts = [(part.probabilities[clips], part.labels[clips]) for part in found]
  values = [metrics.summary(*part, part[0].shape[1])[metric] for part in parts]
  return np.array(values), np.stack([metrics.bootstrap(*part)[metric] for part in parts])


def _write(workdir, title, figures, subsets) -> dict[str, dict[str, tuple[float, float, float]]]:
  """table.md and table.csv; returns, by column and row, the difference and its interval in %."""
  baseline, *_ = figures
  head = ["", *(title for title, _, _ in subsets.values())]
  lines = [head, ["---"] * len(head)]
  table = [["row", "column", "mean", "sd", "difference", "low", "high", "by seed"]]
  differences = {title: {} for title, _, _ in subsets.values()}
  for row, columns in figures.items():
    cells = [row]
    for column, (values, samples) in columns.items():
      mean, spread = 100 * values.mean(), 100 * values.std(ddof=min(1, len(values) - 1))
      cell, change = f"{mean:.1f} ± {spread:.1f}", ("", "", "")
      if row != baseline:
        first, first_samples = figures[baseline][column]
        low, high = metrics.interval(_over_seeds(samples - first_samples))
        numbers = tuple(100 * x for x in ((values - first).mean(), low, high))
        differences[subsets[column][0]][row] = numbers
        change = tuple(f"{x:+.2f}" for x in numbers)
        cell += " ({:+.1f} [{:+.1f}, {:+.1f}])".format(*numbers)
      cells.append(cell)
      by_seed = " ".join(f"{100 * value:.2f}" for value in values)
      table.append([row, column, f"{mean:.2f}", f"{spread:.2f}", *change, by_seed])
    lines.append(cells)
  rows = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
  text = io.StringIO()
  csv.writer(text, lineterminator="\n").writerows(table)
  for name, content in (("table.md", f"{title}; in %\n\n{rows}\n"), ("table.csv", text.getvalue())):
    temporary = workdir / f"{name}.tmp"
    temporary.write_text(content, encoding="utf-8")
    temporary.replace(workdir / name)
  return differences


def _over_seeds(samples: np.ndarray) -> np.ndarray:
  """[S, samples] -> the mean of S seeds, which are drawn anew for every sample."""
  drawn = np.random.default_rng(0).integers(len(samples), size=samples.shape)
  return np.take_along_axis(samples, drawn, axis=0).mean(axis=0)


if __name__ == "__main__":
  launch.main(run, devices=False)
