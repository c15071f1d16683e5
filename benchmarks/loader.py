"""Random clips in a prepared directory -> training batches, in clips per second on 1 core and more.

  python -m benchmarks.loader --out=loader.json

The files are written to a temporary folder first and are in the page cache when they are read: what
is measured is decoding, selecting, sampling and stacking, for the inputs of PoseC3D and 2s-AGCN. In
the rounds "in memory" an epoch went before, from which the inputs keep what they take of a clip; in
those "read anew" nothing is kept.
"""

import os
import pathlib
import tempfile
import time
from unittest import mock

import numpy as np

from benchmarks import timing
from jaxmg import inputs, skeletons
from jaxmg.data import pipeline, prepared, readers, tracks
from jaxmg.data.source import Source

SETS = (  # joints in the files, those that are taken, and the network's input
  ("imigue35", "imigue22", "heatmaps"),
  ("imigue35", "imigue22", "graph"),
  ("openpose137", "imigue22", "heatmaps"),
  ("openpose137", "openpose137", "heatmaps"),
)
# As in the experiments: frames drawn from all of a clip, or a part of it brought to a length.
OPTIONS = {
  "heatmaps": {"num_frames": 48},
  "graph": {"num_frames": 64, "sampling": "linear", "crop": (0.75, 1.0)},
}


class RandomClips(prepared.Builder):
  """Clips of 16 to 112 frames."""

  class_names = ("any",)
  protocols = {"all": lambda clip: "train"}  # noqa: RUF012
  synthetic = True
  num_clips: int

  def clips(self, recording, known):
    rng = np.random.default_rng(0)
    for i in range(self.num_clips):
      shape = (rng.integers(16, 113), 1, self.track.layout.num_joints, 3)
      keypoints = rng.uniform((0, 0, 0.1), (1280, 720, 1), shape).astype(np.float32)
      yield prepared.Example(
        f"{i}", i % len(self.class_names), f"{i % 10}", readers.Clip(keypoints, self.track.layout)
      )


def main(argv: list[str] | None = None) -> None:
  parser = timing.parser(__doc__)
  parser.add_argument("--clips", type=int, default=2000)
  parser.add_argument("--batch_size", type=int, default=32)
  parser.add_argument("--seconds", type=float, default=4, help="of each measurement")
  parser.add_argument("--rounds", type=int, default=3)
  arguments = parser.parse_args(argv)

  cores = sorted(os.sched_getaffinity(0))
  runs = [
    (clips, some, threads)
    for clips in ("read anew", "in memory")
    for some, threads in ((cores[:1], 1), (cores[:2], 1), (cores[:2], 2))
  ]
  found = {(*names, clips, len(some), n): [] for names in SETS for clips, some, n in runs}
  with tempfile.TemporaryDirectory() as folder:
    directories = {}
    for layout in {layout for layout, *_ in SETS}:
      pose = tracks.Pose(layout, frame_size=(720, 1280))
      options = {"track": pose, "num_clips": arguments.clips}
      directories[layout] = prepared.write(
        type(layout.capitalize(), (RandomClips,), options), raw=folder, data_dir=folder
      )
    for _ in range(arguments.rounds):
      for layout, skeleton, name in SETS:
        for clips, some, threads in runs:
          # Threads keep the cores that were allowed at their birth.
          options = (directories[layout], skeleton, name, clips, some, threads, vars(arguments))
          speed = timing.in_new_process(measure, *options)
          found[layout, skeleton, name, clips, len(some), threads].append(speed)
  rows = [
    {
      "in the files": layout,
      "taken": skeleton,
      "input": name,
      "clips": clips,
      "cores": count,
      "threads": threads,
      "clips per second": float(np.median(speeds)),
      "from": min(speeds),
      "to": max(speeds),
    }
    for (layout, skeleton, name, clips, count, threads), speeds in found.items()
  ]
  timing.report(arguments, rows)


def measure(
  directory: pathlib.Path,
  skeleton: str,
  name: str,
  clips: str,
  cores: list[int],
  threads: int,
  arguments: dict,
) -> float:
  """Clips per second of a loop that does nothing with them, over whole batches."""
  os.sched_setaffinity(0, cores)
  source = Source(directory)
  kind = source.track("pose").kind
  one = inputs.INPUTS[name](skeletons.get(skeleton), kind.frame_size, **OPTIONS[name])
  batch_size = arguments["batch_size"]
  room = pipeline.KEPT_BYTES if clips == "in memory" else 0
  with mock.patch.object(pipeline, "KEPT_BYTES", room):
    batches = pipeline.train_batches(
      source,
      source.rows("train"),
      {"pose": one},
      batch_size=batch_size,
      seed=0,
      num_threads=threads,
    )
  before = arguments["clips"] // batch_size + 1 if room else 0
  for _ in range(before + 8):  # what was read ahead while threads started
    next(batches)
  count, start = 0, time.perf_counter()
  while (elapsed := time.perf_counter() - start) < arguments["seconds"]:
    next(batches)
    count += batch_size
  return count / elapsed


if __name__ == "__main__":
  main()
