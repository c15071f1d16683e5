"""The runs of an ablation: of a config of rows, the settings of each."""

import dataclasses
import itertools
import pathlib
import re
from collections.abc import Sequence

from jaxmg import errors

KEYS = ("also", "base", "compare", "data", "folds", "fused", "jobs", "rows", "seeds", "settings")


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
    ("jobs", 1 <= config.jobs <= 1000, "in [1, 1000]", config.jobs),
  ):
    if not right:
      raise errors.ConfigError(f"--config.{key}", expected=expected, got=got)
  for key, known, pairs in (
    ("fused", names, config.fused),
    ("compare", names + fused, [(row, [row, other]) for row, other in config.compare]),
  ):
    for name, others in pairs:
      if missing := [other for other in others if other not in known]:
        hint = errors.meant(missing[0], known)
        where = f"--config.{key}: {name!r}"
        raise errors.ConfigError(where, expected="rows", got=missing, hint=hint)
  runs = []
  folds = [f"{i}/{config.folds}" for i in range(config.folds)] or [None]
  for seed, (row, own), fold in itertools.product(config.seeds, config.rows, folds):
    common = (f"data.dir={config.data.dir}", *config.settings, *config.also)
    texts = [*common, *own, f"train.seed={seed}"]
    if fold:  # the best of several checkpoints would be chosen by the clips that are reported
      texts += [f"data.fold={fold}", "train.evaluate_every=1000000"]
    last = dict(text.partition("=")[::2] for text in texts)  # a row's own replaces that of all
    one = Run(row, seed, fold, tuple(f"{key}={value}" for key, value in last.items()))
    before = {other.name for other in runs}
    if one.name in before:
      got = f"{row!r} twice"
      raise errors.ConfigError("--config.rows", expected="names that differ in letters", got=got)
    if missing := one.needs - before:
      got = ", ".join(sorted(missing))
      hint = errors.meant(got.partition("-seed")[0], (other.row for other in runs))
      where = f"--config.rows: {row!r}"
      raise errors.ConfigError(where, expected="an earlier row", got=got, hint=hint)
    runs.append(one)
  return runs


def _differ(values: Sequence) -> bool:
  return len({*values}) == len(values)


def check(config) -> None:
  """Raises ConfigError for a config of one's own that is none of an ablation."""
  if missing := [key for key in KEYS if key not in config]:
    hint = "as in experiments/configs/ablations/long_tail.py"
    raise errors.ConfigError("--config", expected=missing, got="none", hint=hint)
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
