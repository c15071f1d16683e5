r"""Trains and evaluates all variants of an experiment, over seeds and folds, and compares them.

  python -m experiments.ablate --config=experiments/configs/ablations/recipe_a.py --workdir=DIR \
    --config.data.dir=DATA --config.seeds=0,1,2 --config.folds=4

Every run is the command of its experiment, in DIR/runs/NAME; what is done is not done again, and
what was broken off goes on where it stopped: the same command finishes the same table. It leaves
DIR/table.md, table.csv and differences.png. DIR belongs to one version of the code and of the data.

A config of one's own is a file like those in experiments/configs/ablations: `rows` are names and
settings of the experiment, of which "KEY=@ROW" is the run directory of an earlier row (of the same
seed and fold); `settings` are those of all rows; `fused` rows are the mean of the probabilities of
others; `compare` names, of a row, the row that it is compared with, if not the first; `also` are
more settings of all rows, for the command line:
--config.also='("train.ema=0.99", "train.batch_size=8")'. Rows may be added to DIR, not altered.

A row's figures are means over the seeds, with their standard deviation. Behind them stands the
difference to the other row, clip by clip and seed by seed, with a 95 % interval from the variance
over clips (2,000 bootstrap samples) and over seeds (Student's t). Clips of a person are alike, so
this says nothing of other persons. With `folds`, the clips are those of the training subjects, each
predicted by the last checkpoint of a run that did not train on its subject.

The columns: top-1, mean-class accuracy and macro-F1; "short", top-1 of clips with fewer frames than
the model takes; "tail", mean-class accuracy of the half of the classes with the fewest training
clips.
"""

import csv
import dataclasses
import importlib.util
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
from scipy import stats

from experiments import launch, plots, trainer
from jaxmg import errors, scores
from jaxmg import recipe as recipes
from jaxmg.data.source import Source
from jaxmg.recipe import Recipe
from jaxmg.training import metrics

LEGEND = (
  "Mean ± standard deviation over seeds (difference to the row in `against` [its 95 % interval, of "
  "other clips of these people and, with several seeds, of other seeds])."
)
KEYS = [
  "also",
  "base",
  "compare",
  "data",
  "experiment",
  "folds",
  "fused",
  "jobs",
  "rows",
  "seeds",
  "settings",
]
COLUMNS = {name: title for name, title in metrics.TITLES.items() if name != "top5"}


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
  split = "val" if config.folds else "test"
  first = {one.name for one in runs if (one.seed, one.fold) == (runs[0].seed, runs[0].fold)}
  wanted = {}
  for name, command in commands.items():  # what a later row lacks is said before the first is run
    try:
      wanted[name] = launch.read_config(*command)
      if name in first:
        check_run(wanted[name], split)
    except errors.Error as error:
      raise type(error)(f"{name}: {error}") from error
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
      (directory / split / "metrics.json").unlink(missing_ok=True)  # it is of what was there before
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
  check(config)
  names = [name for name, _ in config.rows]
  fused = [name for name, _ in config.fused]
  seeds = config.seeds
  for key, right, expected, got in (
    ("rows", names and _differ(names + fused), "different ones", names + fused),
    ("seeds", seeds and _differ(seeds), "different ones", seeds),
    ("folds", config.folds == 0 or config.folds > 1, "0, or 2 and more", config.folds),
  ):
    if not right:
      raise errors.ConfigError(f"--config.{key}", expected=expected, got=got)
  for key, known, pairs in (
    ("fused", names, config.fused),
    ("compare", names + fused, [(row, [row, other]) for row, other in config.compare]),
  ):
    for name, others in pairs:
      if missing := [other for other in others if other not in known]:
        raise errors.ConfigError(f"--config.{key}: {name!r}", expected="rows", got=missing)
  runs = []
  folds = [f"{i}/{config.folds}" for i in range(config.folds)] or [None]
  for seed, (row, settings), fold in itertools.product(config.seeds, config.rows, folds):
    common = (f"data.dir={config.data.dir}", *config.settings, *config.also)
    settings = [*common, *settings, f"train.seed={seed}"]
    if fold:  # the best of several checkpoints would be chosen by the clips that are reported
      settings += [f"data.fold={fold}", "train.evaluate_every=1000000"]
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
  return runs


def _differ(values: Sequence) -> bool:
  return len({*values}) == len(values)


def check(config) -> None:
  """Raises ConfigError for a config of one's own that is none of an ablation."""
  if missing := [key for key in KEYS if key not in config]:
    hint = "as in experiments/configs/ablations/long_tail.py"
    raise errors.ConfigError("--config", expected=missing, got="none", hint=hint)
  name = config.experiment
  if not name.isidentifier() or importlib.util.find_spec(f"experiments.{name}") is None:
    got = repr(name)
    raise errors.ConfigError("--config.experiment", expected="a module of experiments", got=got)
  for key in ("rows", "fused"):
    for row in config[key]:
      right = _is_list(row) and len(row) == 2 and isinstance(row[0], str) and _is_list(row[1])
      if not right or not all(isinstance(text, str) for text in row[1]):
        expected = 'a name and texts, like ("limb", ("inputs.stream=limb",))'
        raise errors.ConfigError(f"--config.{key}", expected=expected, got=row)
  for row in config.compare:
    if not _is_list(row) or len(row) != 2:
      raise errors.ConfigError("--config.compare", expected="a row and another", got=row)


def _is_list(value: object) -> bool:
  return isinstance(value, list | tuple)


def check_run(config, split: str) -> None:
  """Raises for a run that will be refused, or whose clips have hidden labels."""
  trainer.check_stage(config)
  data = Source(os.path.join(config.data.dir, config.data.name))
  trainer.label_embeddings(config, data)
  fold = trainer.parse_fold(config.data.fold)
  rows = data.rows(split, protocol=config.data.protocol, fold=fold)
  if (data.labels[rows] < 0).any():
    hint = "--config.folds=4 compares on training subjects"
    raise errors.DataError(f"{data.directory}: {split}", expected="labels", got="hidden", hint=hint)


def _share_cores(jobs: int) -> Callable[[], None]:
  """What gives each of some threads, and what it starts, as many cores of its own (Linux)."""
  cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
  shares = iter([cores[i::jobs][: len(cores) // jobs] for i in range(jobs)])

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
  begin, waited = log.seek(0, os.SEEK_END), False
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
    if not waited:
      print(f"{log.name}: waits for a process that has the run in hand", flush=True)
      waited = True
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
  clips = np.array([row[id] for id in found.ids])
  num_frames = max(one.num_frames for one in recipe.inputs.values())
  short = data.num_frames[clips] < num_frames
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
      mean, cell, spread, change = 100 * values.mean(), "", "", [""] * 3
      cell = f"{mean:.1f}"
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
    temporary = workdir / f"{name}.tmp"
    temporary.write_text(content, encoding="utf-8")
    temporary.replace(workdir / name)
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


if __name__ == "__main__":
  launch.main(run, devices=False)
