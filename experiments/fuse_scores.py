"""Fuses the scores of several runs, clip by clip, and says what that gains.

  python -m experiments.fuse_scores RUN RUN RUN --weights=1,1,0.5
  python -m experiments.fuse_scores RUN RUN --search=FOLD_RUN,FOLD_RUN --out=FILE.npz

A RUN is a run directory that `experiments.evaluate` has left scores of --split in, or a score file.
The fused scores are the weighted mean of the probabilities; clips go together by their ids. Weights
are equal, or given, or searched on other clips: those of folds, one of each RUN's kind in the same
order, evaluated on the split `val`, or score files.

The brackets hold 95 % of 2,000 bootstrap samples of the clips. The last line compares the fused
scores with the best single ones in that column, sample by sample.
"""

import pathlib
from collections.abc import Sequence

from absl import flags

from jaxmg import errors, scores
from jaxmg.training import metrics

from . import launch


def define(values: flags.FlagValues) -> None:
  options = {"flag_values": values}
  flags.DEFINE_string("split", "test", "Which scores of a run directory.", **options)
  flags.DEFINE_list("weights", None, "One of each RUN; default: equal ones.", **options)
  flags.DEFINE_list("search", None, "One fold of each RUN, to search weights on.", **options)
  flags.DEFINE_string("out", None, "Where to write the fused scores.", **options)


def run(values: flags.FlagValues, *files: str) -> None:
  if len(files) < 2:
    raise errors.ConfigError("RUN", expected="two or more", got="one")
  parts = scores.align([read(file, values.split) for file in files])
  weights = choose_weights(values, parts)
  fused = scores.fuse(parts, weights)
  if values.out:
    scores.save(values.out, fused)
    print(f"fused scores by id in {values.out}")
  print(f"{len(fused.ids)} clips, {len(fused.class_names)} classes")
  if (fused.labels < 0).any():
    print("their labels are hidden: no metrics")
    for file, weight in zip(files, weights, strict=True):
      print(f"  {weight:.3g} {file}")
    return
  print(table(files, weights, parts, fused))


def read(path: str, split: str) -> scores.Scores:
  """The scores of a run directory's split, or of a file."""
  path = pathlib.Path(path)
  return scores.load(path / split / "scores.npz" if path.is_dir() else path)


def choose_weights(values: flags.FlagValues, parts: Sequence[scores.Scores]) -> Sequence[float]:
  """The weights that the flags give or have searched."""
  if values.search is None:
    try:
      return [float(weight) for weight in values.weights or [1] * len(parts)]
    except ValueError:
      got = ",".join(values.weights)
      raise errors.ConfigError("--weights", expected="numbers", got=got) from None
  if values.weights is not None:
    raise errors.ConfigError("--weights or --search: expected one of them, got both")
  if len(values.search) != len(parts):
    raise errors.ConfigError("--search", expected=f"{len(parts)} folds", got=len(values.search))
  folds = scores.align([read(fold, "val") for fold in values.search])
  if folds[0].class_names != parts[0].class_names:
    raise errors.DataError("--search", expected="the classes of the runs", got="others")
  if shared := sorted({*folds[0].ids} & {*parts[0].ids}):
    raise errors.DataError(
      "--search",
      expected="clips of which nothing is reported",
      got=f"{len(shared)} that are fused: {', '.join(map(repr, shared[:5]))}",
    )
  return scores.search(folds)


def table(
  files: Sequence[str],
  weights: Sequence[float],
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
    ["weight", *(f"{weight:.3g}" for weight in weights), "", ""],
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


def _figure(value, samples, sign=""):
  low, high = metrics.interval(samples)
  return f"{100 * value:{sign}.1f} [{100 * low:{sign}.1f}, {100 * high:{sign}.1f}]"


if __name__ == "__main__":
  launch.command(run, define, positional="RUN", devices=False)
