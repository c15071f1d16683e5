"""Kills a command with SIGKILL, again and again, and compares it with one that is left alone.

  python -m benchmarks.soak --kills=50
  python -m benchmarks.soak --what=prepare --kills=50
  python -m benchmarks.soak --what=evaluate --kills=50
  python -m benchmarks.soak --what=two_prepares

The killed one is started again with the same command. Half of the kills are aimed at a save. In the
end these must be equal to the last bit:

  train      of a tiny PoseC3D on made-up clips: parameters, optimizer state and batch statistics,
             the clips of every step in their order, the metrics, and which checkpoints there are
             and their scores
  prepare    of made-up csv files, every second time with two processes that read: all records,
             all other files, and that there are no more; and no process outlives the killed one
  evaluate   of a tiny PoseC3D: all files but the pictures, and that there are no more

What is whole before the kills are used up is compared, removed and begun again.

`two_prepares` kills nothing: it starts `datasets/prepare.py` twice at one place, the second up to
two seconds later. One ends with 0, the other with that or 7 (in use), and the set is the one that a
command makes alone.
"""

import abc
import argparse
import hashlib
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from jaxmg.data import prepared, readers, recordings, shards, source, tracks

ROOT = pathlib.Path(__file__).parents[1]
STEPS_PER_EPOCH = 2
OFFSETS = (0.0, 0.3, 1.0, 2.0)  # seconds between the starts of two commands
SECONDS = 10.0  # in which the other processes of a killed one must end


def main(argv: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  choices = ["train", "prepare", "evaluate", "two_prepares"]
  parser.add_argument("--what", choices=choices, default="train")
  parser.add_argument("--kills", type=int, default=50)
  parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
  arguments = parser.parse_args(argv)
  rng = np.random.default_rng(arguments.seed)
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    if arguments.what == "train":
      said, different = soak_training(folder, arguments.kills, rng)
    elif arguments.what == "prepare":
      command = Preparation(folder, make_recordings(folder, 60))
      said, different = soak(command, arguments.kills, rng)
    elif arguments.what == "two_prepares":
      said, different = prepare_twice(folder)
    else:
      run = Run(folder / "run", make_data(folder), epochs=1)
      assert run.start().wait() == 0, run.log()
      said, different = soak(Evaluation(run.directory), arguments.kills, rng)
  print(said)
  print(f"{', '.join(different)} not the same" if different else "the same to the last bit")
  return bool(different)


def soak_training(
  folder: pathlib.Path, kills: int, rng: np.random.Generator
) -> tuple[str, list[str]]:
  """Kills a training so often; returns what to say, and what is not the same in the end."""
  data = make_data(folder)
  # Long enough: a process that is killed has saved at most two epochs.
  epochs = 3 * kills + 4
  whole = Run(folder / "whole", data, epochs=epochs)
  assert whole.start().wait() == 0, whole.log()
  killed = Run(folder / "killed", data, epochs=epochs)
  hits = kill(killed, kills, rng)
  assert killed.start().wait() == 0, killed.log()
  different = [name for name, x in whole.outcome().items() if killed.outcome()[name] != x]
  said = f"{len(hits)} kills, {sum(hits)} of them in a save, in {epochs * STEPS_PER_EPOCH} steps: "
  return said, different


def soak(command: "Command", kills: int, rng: np.random.Generator) -> tuple[str, list[str]]:
  """Kills a command so often; returns what to say, and what was not the same at any end.

  A kill is in a save if the last step that was written down is one of the command's saves.
  """
  finish(command)
  whole, moments = command.outcome(), len(command.moments())
  command.remove()
  different, hits, ends = set(), [], 0

  def compare():
    found = command.outcome()
    different.update(name for name in whole | found if found.get(name) != whole.get(name))

  while len(hits) < kills:
    # Half of the kills come anywhere; of the others, each waits for one of the command's saves.
    aim = rng.choice(command.saves) if len(hits) % 2 else None
    wait = rng.integers(1, max(2, moments // 3))
    pause = rng.uniform(0, 0.01)
    process = command.start()
    while process.poll() is None:
      seen = command.moments()
      if any(aim is None or re.search(aim, moment) for moment in seen[wait - 1 :]):
        time.sleep(pause)
        process.kill()
        break
      time.sleep(0.001)
    if process.wait() == 0:  # it was faster
      compare()
      command.remove()
      ends += 1
      continue
    assert process.returncode == -signal.SIGKILL, command.log()
    last = command.moments()[-1]
    hits.append(any(re.search(save, last) for save in command.saves))
    if left := outliving(process.pid):
      different.add(f"processes after a kill ({len(left)} left)")
      os.killpg(process.pid, signal.SIGKILL)
  finish(command)
  compare()
  on = command.log().count("goes on where it was stopped")
  said = (
    f"{len(hits)} kills, {sum(hits)} of them in a save, in {ends + 1} times from the start to the "
    f"end; {on} times it went on from what was whole:"
  )
  return said, sorted(different)


def prepare_twice(folder: pathlib.Path) -> tuple[str, list[str]]:
  """Starts two commands that make one set; returns their exit codes, and what is wrong."""

  def start(name):
    raw, data, log = (folder / f"{name}{end}" for end in (".raw", "", ".log"))
    raw.mkdir(exist_ok=True)
    options = ["synthetic_imigue", f"--manual_dir={raw}", f"--data_dir={data}"]
    with log.open("a") as file:
      command = [sys.executable, "datasets/prepare.py", *options]
      return subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)

  def outcome(name):
    found = contents(folder / name)
    for file in found:
      if ".array_record-" in file:  # protocol buffers: the fields of a record are in any order
        found[file] = b""
    # It reads every record, and what it says depends on all of them.
    command = [sys.executable, "-m", "experiments.doctor", f"{folder / name}/synthetic_imigue"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    return found | {"doctor": (done.returncode, done.stdout.replace(str(folder / name), ""))}

  assert start("alone").wait() == 0, (folder / "alone.log").read_text()
  whole, said, different = outcome("alone"), [], []
  for offset in OFFSETS:
    name = f"{offset}s"
    first = start(name)
    time.sleep(offset)
    second = start(name)
    codes = [first.wait(), second.wait()]
    said.append(f"{offset} s apart: exit codes {codes[0]} and {codes[1]}")
    if sorted(codes) not in ([0, 0], [0, 7]):
      different.append(f"{name}: exit codes")
    found = outcome(name)
    different += [f"{name}: {x}" for x in whole | found if found.get(x) != whole.get(x)]
  return "\n".join(said), different


def finish(command: "Command") -> None:
  assert command.start().wait() == 0, command.log()


def outliving(group: int) -> list[int]:
  """The processes of a group that are still there after some seconds."""
  end = time.monotonic() + SECONDS
  while (left := alive(group)) and time.monotonic() < end:
    time.sleep(0.05)
  return left


def alive(group: int) -> list[int]:
  """The processes of a group (Linux), without those that are dead and not waited for."""
  found = []
  for file in pathlib.Path("/proc").glob("[0-9]*/stat"):
    try:
      state, _, its_group, *_ = file.read_text().rpartition(")")[2].split()
    except OSError:  # it has just ended
      continue
    if int(its_group) == group and state not in "ZX":
      found.append(int(file.parent.name))
  return found


class Command(abc.ABC):
  """A command that writes down every step which it takes on the disk, as audit events of Python."""

  saves: tuple[str, ...]  # patterns of the steps before which something is half saved
  child: str  # the function of this module that it runs

  def __init__(self, folder: pathlib.Path):
    self._moments, self._log = folder / "moments", folder / "log"

  @abc.abstractmethod
  def arguments(self) -> list[str]: ...

  @abc.abstractmethod
  def outcome(self) -> dict[str, Any]:
    """All that must not depend on how often it was killed, by name."""

  @abc.abstractmethod
  def remove(self) -> None:
    """Makes it begin again."""

  def start(self) -> subprocess.Popen:
    self._moments.write_text("")
    arguments = [str(self._moments), *self.arguments()]
    return start_child(self.child, arguments, self._log, process_group=0)

  def log(self) -> str:
    return self._log.read_text()

  def moments(self) -> list[str]:
    """The steps of the process that was started last."""
    return self._moments.read_text().splitlines()


def start_child(name: str, arguments: list[str], log: pathlib.Path, **options) -> subprocess.Popen:
  code = f"from benchmarks import soak; soak.{name}()"
  # With the cache of compiled functions, starting takes 3 seconds. What takes less than a second
  # to compile is left out of it by default.
  environment = os.environ | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
  with log.open("a") as file:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=file, stderr=file, **options)


def write_moments(path: str, within: str) -> None:
  """From now on, a line for each file below a folder that is about to be opened, moved, removed."""
  file = open(path, "a")  # noqa: SIM115  # as long as the process

  def hook(event, arguments):
    if event not in ("open", "os.rename", "os.remove", "clip") or not arguments:
      return
    if isinstance(arguments[0], str | os.PathLike) and os.fspath(arguments[0]).startswith(within):
      print(event, arguments[0], file=file, flush=True)
      time.sleep(0.003)  # for whoever wants to kill it here

  sys.addaudithook(hook)


def contents(folder: pathlib.Path) -> dict[str, bytes]:
  """Each file below a folder."""
  files = (path for path in folder.rglob("*") if path.is_file())
  return {str(path.relative_to(folder)): path.read_bytes() for path in files}


class Preparation(Command):
  """The command that prepares `Days` of csv files, which become a shard for every two or three."""

  child = "prepare_child"
  # The shard is whole, but not in the journal (its line opens the file next); the index is written;
  # the set is whole, and loses what only the unfinished one has, and gets its name.
  saves = (
    r"open .*array_record-\d+$",
    r"open .*/journal\.jsonl$",
    r" .*(\.part\.index|\.part\.track|dataset_info|features)\.json$",
    r"os.remove .*/(lock|journal\.jsonl)$",
    r"os.rename .*/1\.0\.0\.part$",
  )

  def __init__(self, folder: pathlib.Path, raw: pathlib.Path):
    super().__init__(folder)
    self._raw, self._data, self._starts = raw, folder / "data", 0

  def arguments(self) -> list[str]:
    self._starts += 1
    return [str(self._raw), str(self._data), str(1 + self._starts // 2 % 2)]

  def outcome(self) -> dict[str, Any]:
    found = contents(self._data)
    for name in found:
      if ".array_record-" in name:  # protocol buffers: the fields of a record are in any order
        found[name] = b""
    data = source.Source(prepared.directory(Days, self._data))
    track = data.track("pose")
    for row, id in enumerate(data.ids):
      found[id] = {
        name: np.asarray(x).tobytes() for name, x in track[row].items() if name != "layout"
      }
    return found

  def remove(self) -> None:
    shutil.rmtree(self._data)


def prepare_child() -> None:
  """Prepares `Days`, whose shards are small, with one or two processes."""
  moments, raw, data_dir, jobs = sys.argv[1:]
  write_moments(moments, os.path.dirname(raw))
  shards.SHARD_BYTES = 4000
  recordings.BYTES_FOR_PROCESSES = 0
  prepared.write(Days, raw=raw, data_dir=data_dir, jobs=int(jobs))


class Evaluation(Command):
  """The command that evaluates a run on its training split, a clip at a time."""

  child = "evaluate_child"
  saves = (
    r" .*/\.part\.unfinished\.npz$",  # opened to write it, to sync it, and moved
    r" .*/\.part\.(scores\.npz|metrics\.json)$",
    r"os.remove .*unfinished\.npz$",
  )

  def __init__(self, run: pathlib.Path):
    super().__init__(run.parent)
    self._run = run

  def arguments(self) -> list[str]:
    return [f"--run={self._run}", "--split=train", "--batch_size=1"]

  def outcome(self) -> dict[str, Any]:
    return contents(self._run / "train")

  def remove(self) -> None:
    shutil.rmtree(self._run / "train")


def evaluate_child() -> None:
  """`python -m experiments.evaluate` that saves after every batch and draws nothing."""
  from experiments import evaluate, launch, plots

  moments, *argv = sys.argv[1:]
  run = argv[0].removeprefix("--run=")
  write_moments(moments, os.path.join(run, "train"))
  evaluate.Kept.SECONDS = 0.0
  plots.confusion = plots.views = lambda *args, **options: None
  sys.exit(launch.command(evaluate.run, evaluate.define, argv))


class Run:
  """A work directory and the command that trains in it, with a fold to evaluate on."""

  def __init__(self, directory: pathlib.Path, data: pathlib.Path, *, epochs: int):
    self.directory = directory
    self.record = directory.with_suffix(".record")
    self._log = directory.with_suffix(".log")
    settings = {
      "data.name": "waves",
      "data.dir": data,
      "data.fold": "0/3",
      "skeleton": "coco17",
      "sampling.num_frames": 8,
      "sampling.test_size": 16,
      "inputs.size": 16,
      "model.variant": "tiny",
      "train.batch_size": 6,
      "train.evaluate_every": 2,
      "train.log_every": 1,
      "train.save_every": 0.0,
      "schedule.epochs": epochs,
    }
    self._arguments = [
      "--config=experiments/configs/posec3d.py:imigue,joint,small",
      f"--workdir={directory}",
      *(f"--config.{key}={value}" for key, value in settings.items()),
    ]

  def start(self) -> subprocess.Popen:
    """Starts the command; it trains as `experiments.posec3d`, and leaves a record."""
    return start_child("train_child", [str(self.record), *self._arguments], self._log)

  def log(self) -> str:
    return self._log.read_text()

  def in_flight(self) -> set[str]:
    """The temporary directories of Orbax."""
    return {path.name for path in self.directory.glob("checkpoints/*.orbax-checkpoint-tmp")}

  def outcome(self) -> dict[str, Any]:
    """All that must not depend on how often the run was killed."""
    clips, state = {}, None
    for line in self.record.read_text().splitlines():
      entry = json.loads(line)
      state = entry.get("state", state)
      if "clips" in entry:
        clips.setdefault(entry["step"], set()).add(tuple(entry["clips"]))
    metrics = map(json.loads, (self.directory / "metrics.jsonl").read_text().splitlines())
    return {
      "state": state,
      "clips": clips,  # a step that was made again had the same ones
      "metrics": [line | {"clips_per_second": None} for line in metrics],
      "checkpoints": {
        path.parent.name: json.loads(path.read_text().splitlines()[0])["score"]
        for path in self.directory.glob("checkpoints/*/MANIFEST")
      },
    }


def train_child() -> None:
  """`python -m experiments.posec3d` that writes down the clips of each step and its last state."""
  from experiments import launch, posec3d
  from jaxmg.training import loop

  record, *argv = sys.argv[1:]
  train = loop.train

  class Recorded:
    def __init__(self, batches, file):
      self._batches, self._file = batches, file

    def __next__(self):
      batch = next(self._batches)
      step = self._batches.get_state()["next_index"]
      entry = {"step": step, "clips": batch["clip"].tolist()}
      print(json.dumps(entry), file=self._file, flush=True)
      return batch

    def __getattr__(self, name):
      return getattr(self._batches, name)

  def recorded(state, train_step, batches, **options):
    with open(record, "a") as file:
      state = train(state, train_step, Recorded(batches, file), **options)
      digests = {
        jax.tree_util.keystr(path): hashlib.sha256(np.asarray(leaf).tobytes()).hexdigest()
        for path, leaf in jax.tree_util.tree_leaves_with_path(state)
      }
      print(json.dumps({"state": digests}), file=file)

  loop.train = recorded
  sys.exit(launch.main(posec3d.run, argv))


def kill(run: Run, kills: int, rng: np.random.Generator) -> list[bool]:
  """Kills a run so often, each time after some steps; returns which kills hit a save.

  If fewer than half did, it goes on until they do.
  """
  hits = []
  while len(hits) < kills or 2 * sum(hits) < len(hits):
    run.record.touch()
    made = run.record.read_text().count("\n") + rng.integers(1, 2 * STEPS_PER_EPOCH, endpoint=True)
    aim = sum(hits) <= 0.6 * len(hits)
    process = run.start()
    # Steps are made once the leftovers of the last kill are gone.
    while run.record.read_text().count("\n") < made or (aim and not run.in_flight()):
      assert process.poll() is None, run.log()
      time.sleep(0.001)
    time.sleep(rng.uniform(0, 0.02))
    process.kill()
    process.wait()
    hits.append(bool(run.in_flight()))
  return hits


class Waves(prepared.Builder):
  """Synthetic: subjects who raise the left arm or the right one."""

  track = tracks.Pose("coco17", frame_size=(72, 128))
  class_names = ("left", "right")
  protocols = {"xsub": prepared.by_subject(train=("a", "b", "c"))}  # noqa: RUF012
  synthetic = True

  def clips(self, recording, known) -> Iterator[prepared.Example]:
    rng = np.random.default_rng(0)
    for i in range(24):
      keypoints = np.ones((12, 1, 17, 3), np.float32)
      keypoints[..., :2] = rng.uniform((20, 10), (60, 60), (17, 2))
      keypoints[:, 0, 9 + i % 2, 1] = np.linspace(60, 10, 12)  # a wrist
      clip = readers.Clip(keypoints, "coco17")
      yield prepared.Example(f"clip{i}", i % 2, "abcd"[i // 6], clip)


class Days(prepared.Builder):
  """Synthetic: a csv file for each day."""

  track = tracks.Pose("coco17", frame_size=(720, 1280))
  class_names = ("idle", "typing")
  protocols = {"xsub": prepared.by_subject(train=("day00", "day01"))}  # noqa: RUF012
  synthetic = True

  def recordings(self):
    for path in sorted(self.raw.glob("*.csv")):
      yield path, path.stem

  def clips(self, recording, day) -> Iterator[prepared.Example]:
    sys.audit("clip", os.fspath(self.raw))  # after it, a save is over
    self.notes.append(f"{day} was long")
    for k in range(2):
      keypoints = recording.keypoints[2 * k : 2 * k + 2]
      yield prepared.Example(f"{day}_{k}", k, day, readers.Clip(keypoints, "coco17"))


def make_recordings(folder: pathlib.Path, count: int) -> pathlib.Path:
  raw = folder / "raw"
  raw.mkdir()
  rng = np.random.default_rng(0)
  for day in range(count):
    table = rng.uniform(1, 700, (4, 17, 3))
    table[..., 2] = 1
    np.savetxt(raw / f"day{day:02d}.csv", table.reshape(4, -1), delimiter=",", fmt="%.3f")
  return raw


def make_data(folder: pathlib.Path) -> pathlib.Path:
  prepared.write(Waves, raw=folder, data_dir=folder / "data")
  return folder / "data"


if __name__ == "__main__":
  sys.exit(main())
