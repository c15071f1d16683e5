"""Fuses the scores of several runs, clip by clip, and says what that gains.

  jaxmg fuse RUN RUN RUN --weights=1,1,0.5
  jaxmg fuse RUN RUN --weights=2,1 --temperatures=1.3,0.8
  jaxmg fuse RUN RUN --search=FOLD_RUN,FOLD_RUN --out=FILE.npz

A RUN is a run directory that `jaxmg evaluate` has left scores of --split in, or a score file.
The fused scores are the weighted mean of the probabilities, each run's by softmax(log p / T) at a
temperature T of its own; clips go together by their ids. Above 1, a run that is surer than it is
right no longer outvotes the others. Weights are equal and temperatures 1, or given.

--search finds both on other clips: those of folds, one of each RUN's kind in the same order,
evaluated on the split `val`, or score files. It takes the temperatures (0.1 to 100), then the
weights, that make the labels of these clips likeliest. Given several times, it takes the clips of
several folds together: --search=JOINT_0,BONE_0 --search=JOINT_1,BONE_1.

The brackets hold 95 % of 2,000 bootstrap samples of the clips. The last line compares the fused
scores with the best single ones in that column, sample by sample. The figures of single runs are at
temperature 1; another does not change the order of their classes.
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from jaxmg import errors, scores
from jaxmg.training import metrics

from . import launch, results


def define(values: flags.FlagValues) -> None:
  options = {"flag_values": values}
  flags.DEFINE_string("split", "test", "Which scores of a run directory.", **options)
  flags.DEFINE_list("weights", None, "One of each RUN; default: equal ones.", **options)
  flags.DEFINE_list("temperatures", None, "One of each RUN; default: all 1.", **options)
  flags.DEFINE_multi(
    flags.ListParser(),
    flags.CsvListSerializer(","),
    "search",
    None,
    "One fold of each RUN, to find weights and temperatures on.",
    **options,
  )
  flags.DEFINE_string("out", None, "Where to write the fused scores.", **options)


def run(values: flags.FlagValues, *files: str) -> None:
  if len(files) < 2:
    raise errors.ConfigError("RUN", expected="two or more", got="one")
  results.check_different([find(file, values.split).resolve() for file in files])
  parts = scores.align([read(file, values.split) for file in files])
  weights, temperatures = choose(values, parts)
  fused = scores.fuse(list(map(scores.calibrate, parts, temperatures)), weights)
  if values.out:
    scores.save(values.out, fused)
    print(f"fused scores by id in {values.out}")
  print(f"{len(fused.ids)} clips, {len(fused.class_names)} classes")
  if (fused.labels < 0).any():
    print("their labels are hidden: no metrics")
    for file, *options in zip(files, *columns_of(weights, temperatures).values(), strict=True):
      print(f"  {' at temperature '.join(options)} {file}")
    return
  print(table(files, weights, temperatures, parts, fused))


def read(path: str, split: str) -> scores.Scores:
  """The scores of a run directory's split, or of a file."""
  return scores.load(find(path, split))


def find(path: str, split: str) -> pathlib.Path:
  """The file of these."""
  path = pathlib.Path(path)
  return path / split / "scores.npz" if path.is_dir() else path


def choose(
  values: flags.FlagValues, parts: Sequence[scores.Scores]
) -> tuple[Sequence[float], Sequence[float]]:
  """The weights and the temperatures that the flags give or have searched."""
  if values.search is None:
    weights = numbers(values, "weights") or [1] * len(parts)
    temperatures = numbers(values, "temperatures") or [1] * len(parts)
    if len(temperatures) != len(parts):
      expected = f"{len(parts)} numbers"
      raise errors.ConfigError("--temperatures", expected=expected, got=len(temperatures))
    return weights, temperatures
  for name in ("weights", "temperatures"):
    if values[name].value is not None:
      raise errors.ConfigError(f"--{name} or --search: expected one of them, got both")
  folds = read_folds(values.search, len(parts))
  if folds[0].class_names != parts[0].class_names:
    raise errors.DataError("--search", expected="the classes of the runs", got="others")
  if shared := sorted({*folds[0].ids} & {*parts[0].ids}):
    raise errors.DataError(
      "--search",
      expected="clips of which nothing is reported",
      got=f"{len(shared)} that are fused: {', '.join(map(repr, shared[:5]))}",
    )
  temperatures = [scores.fit_temperature(fold) for fold in folds]
  return scores.search(list(map(scores.calibrate, folds, temperatures))), temperatures


def numbers(values: flags.FlagValues, name: str) -> Sequence[float]:
  """Those of a flag that is a list; none where it is not given."""
  texts = values[name].value or []
  try:
    return [float(text) for text in texts]
  except ValueError:
    raise errors.ConfigError(f"--{name}", expected="numbers", got=",".join(texts)) from None


def read_folds(groups: Sequence[Sequence[str]], count: int) -> Sequence[scores.Scores]:
  """The scores of each of `count` kinds, with the clips of all groups of folds."""
  for group in groups:
    if len(group) != count:
      raise errors.ConfigError("--search", expected=f"{count} folds", got=len(group))
  aligned = [scores.align([read(fold, "val") for fold in group]) for group in groups]
  try:
    return [scores.join(kind) for kind in zip(*aligned, strict=True)]
  except errors.DataError as error:
    raise errors.DataError(f"--search: {error}") from None


def table(
  files: Sequence[str],
  weights: Sequence[float],
  temperatures: Sequence[float],
  parts: Sequence[scores.Scores],
  fused: scores.Scores,
) -> str:
  """The figures of each and of the fused scores in %, with their intervals, for a terminal."""
  rows = [*parts, fused]
  summaries = [metrics.summary(x.probabilities, x.labels, len(x.class_names)) for x in rows]
  samples = [metrics.bootstrap(x.probabilities, x.labels) for x in rows]
  names = [*files, "fused", "fused - best single"]
  columns = [
    ["% [95 % interval]", *names],
    *([title, *cells, "", ""] for title, cells in columns_of(weights, temperatures).items()),
  ]
  for name, title in metrics.TITLES.items():
    figures = [
      (summary[name], sample[name]) for summary, sample in zip(summaries, samples, strict=True)
    ]
    best, fusion = max(figures[:-1], key=lambda figure: figure[0]), figures[-1]
    gain = _figure(fusion[0] - best[0], fusion[1] - best[1], "+")
    columns.append([title, *(_figure(*figure) for figure in figures), gain])
  widths = [max(map(len, column)) for column in columns]
  return "\n".join(
    "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
    for row in zip(*columns, strict=True)
  )


def columns_of(weights: Sequence[float], temperatures: Sequence[float]) -> dict[str, list[str]]:
  """What each run is fused with, by title; no temperatures where all are 1."""
  columns = {"weight": weights}
  if any(temperature != 1 for temperature in temperatures):
    columns["temperature"] = temperatures
  return {title: [f"{number:.3g}" for number in column] for title, column in columns.items()}


def _figure(value, samples, sign=""):
  low, high = metrics.interval(samples)
  return f"{100 * value:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


if __name__ == "__main__":
  launch.command(run, define, positional="RUN", devices=False)
