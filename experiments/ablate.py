r"""Trains and evaluates all variants of an experiment, over seeds and folds, and compares them.

  jaxmg ablate ablations/recipe_a --workdir=DIR \
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

import functools
import json
import os
import pathlib
import threading
import time
from concurrent import futures

from jaxmg import errors
from jaxmg.data.source import Source

from . import grid, launch, processes, settings, tables, train, trainer


def run(config, workdir: pathlib.Path) -> None:
  runs = grid.plan(config)
  folder = workdir / "runs"
  commands = {one.name: (config.base, one.overrides(folder)) for one in runs}
  split = "val" if config.folds else "test"
  first = {one.name for one in runs if (one.seed, one.fold) == (runs[0].seed, runs[0].fold)}
  open_data = functools.cache(Source)
  wanted, last = {}, {}
  for name, command in commands.items():  # what a later row lacks is said before the first is run
    try:
      wanted[name] = settings.read_config(*command)
      data = open_data(os.path.join(wanted[name].data.dir, wanted[name].data.name))
      last[name] = trainer.last_step(wanted[name], data)
      if name in first:
        check_run(wanted[name], data, split)
    except errors.Error as error:
      raise type(error)(f"{name}: {error}") from error
  for made in (folder, workdir / "logs"):
    made.mkdir(exist_ok=True)
  print(f"{len(runs)} runs of {config.base}, {config.jobs} at a time", flush=True)
  stop = threading.Event()
  started = {}

  def execute(number, one):
    for name in one.needs:  # they come before, so that another worker has them in hand
      started[name].result()
    title, directory = f"[{number}/{len(runs)}] {one.name}", folder / one.name
    if _is_done(wanted[one.name], last[one.name], directory, split):
      print(f"{title}: is there", flush=True)
      return
    begin = time.perf_counter()
    base, overrides = commands[one.name]
    with open(workdir / "logs" / f"{one.name}.log", "a+") as log:
      command = (f"{__package__}.train", f"--config={base}", f"--workdir={directory}")
      (directory / split / "metrics.json").unlink(missing_ok=True)  # it is of what was there before
      processes.call([*command, *overrides], log, stop)
      processes.call(
        [f"{__package__}.evaluate", f"--run={directory}", f"--split={split}"], log, stop
      )
    top1 = json.loads((directory / split / "metrics.json").read_text())["top1"]
    minutes = (time.perf_counter() - begin) / 60
    print(f"{title}: top-1 {top1:.1%}, {minutes:.1f} min", flush=True)

  with futures.ThreadPoolExecutor(
    config.jobs, initializer=processes.share_cores(config.jobs)
  ) as pool:
    try:
      for number, one in enumerate(runs, 1):
        started[one.name] = pool.submit(execute, number, one)
      processes.wait(started.values())
    finally:
      stop.set()
      pool.shutdown(cancel_futures=True)
  tables.report(config, workdir, runs, split)


def check_run(config, data: Source, split: str) -> None:
  """Raises for a run that will be refused, or whose clips have hidden labels."""
  trainer.check_stage(config)
  table = trainer.label_embeddings(config, data)
  trainer.make_recipe(config, data, train.experiment(config).describe, table)
  fold = trainer.parse_fold(config.data.fold)
  rows = data.rows(split, protocol=config.data.protocol, fold=fold)
  if (data.labels[rows] < 0).any():
    hint = "--config.folds=4 compares on training subjects"
    raise errors.DataError(f"{data.directory}: {split}", expected="labels", got="hidden", hint=hint)


def _is_done(wanted, last: int, directory: pathlib.Path, split: str) -> bool:
  """Whether the last step of a run of the very same config was evaluated."""
  try:
    config = json.loads((directory / "config.json").read_text())
    evaluated = json.loads((directory / split / "metrics.json").read_text())
  except (OSError, ValueError):
    return False
  saved = (directory / "checkpoints" / str(last)).is_dir() and evaluated["step"] == last
  wanted = json.loads(json.dumps(wanted.to_dict()))
  if wanted["train"]["dtype"] == "auto":  # a run holds what was chosen
    wanted["train"]["dtype"] = config.get("train", {}).get("dtype")
  return saved and config == wanted


if __name__ == "__main__":
  launch.main(run, devices=False)
