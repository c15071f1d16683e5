"""Kills a training run with SIGKILL, again and again, and compares it with one that is left alone.

  python -m benchmarks.soak --kills=50

Both train a tiny PoseC3D on made-up clips; the killed one is started again with the same command.
At least half of the kills hit a save: Orbax's temporary directory is there afterwards. In the end
these must be equal to the last bit: parameters, optimizer state and batch statistics, the clips of
every step in their order, the metrics, and which checkpoints there are and their scores.
"""

import argparse
import hashlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from experiments import launch, posec3d
from jaxmg.data import prepared, readers
from jaxmg.training import loop

ROOT = pathlib.Path(__file__).parents[1]
STEPS_PER_EPOCH = 2


def main(argv: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--kills", type=int, default=50)
  parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
  arguments = parser.parse_args(argv)
  with tempfile.TemporaryDirectory() as folder:
    data = make_data(pathlib.Path(folder))
    # Long enough: a process that is killed has saved at most two epochs.
    epochs = 3 * arguments.kills + 4
    whole = Run(pathlib.Path(folder) / "whole", data, epochs=epochs)
    assert whole.start().wait() == 0, whole.log()
    killed = Run(pathlib.Path(folder) / "killed", data, epochs=epochs)
    hits = kill(killed, arguments.kills, np.random.default_rng(arguments.seed))
    assert killed.start().wait() == 0, killed.log()
    different = [name for name, x in whole.outcome().items() if killed.outcome()[name] != x]
  print(f"{len(hits)} kills, {sum(hits)} of them in a save, in {epochs * STEPS_PER_EPOCH} steps: ")
  print(f"{', '.join(different)} not the same" if different else "the same to the last bit")
  return bool(different)


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
      "schedule.epochs": epochs,
    }
    self._arguments = [
      "--config=experiments/configs/posec3d.py:imigue,joint,small",
      f"--workdir={directory}",
      *(f"--config.{key}={value}" for key, value in settings.items()),
    ]

  def start(self) -> subprocess.Popen:
    """Starts the command; it trains as `experiments.posec3d`, and leaves a record."""
    code = "from benchmarks import soak; soak.child()"
    command = [sys.executable, "-c", code, str(self.record), *self._arguments]
    # With the cache of compiled functions, starting takes 3 seconds. What takes less than a second
    # to compile is left out of it by default.
    environment = os.environ | {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    with self._log.open("a") as log:
      return subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)

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


def child() -> None:
  """`python -m experiments.posec3d` that writes down the clips of each step and its last state."""
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

  skeleton = "coco17"
  class_names = ("left", "right")
  frame_size = (72, 128)
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


def make_data(folder: pathlib.Path) -> pathlib.Path:
  prepared.write(Waves, raw=folder, data_dir=folder / "data")
  return folder / "data"


if __name__ == "__main__":
  sys.exit(main())
