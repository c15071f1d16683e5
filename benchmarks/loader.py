"""Random clips in a prepared directory -> training batches, in clips per second on 1 core and more.

  python -m benchmarks.loader --out=loader.json

The files are written to a temporary folder first and are in the page cache when they are read: what
is measured is decoding, selecting, sampling and stacking.
"""

import os
import pathlib
import tempfile
import time

import numpy as np

from benchmarks import timing
from jaxmg import inputs, skeletons
from jaxmg.data import pipeline, prepared, readers, tracks
from jaxmg.data.source import Source

SETS = (  # joints in the files, and those that are taken
  ("imigue35", "imigue22"),
  ("openpose137", "imigue22"),
  ("openpose137", "openpose137"),
)


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
  parser.add_argument("--frames", type=int, default=48)
  parser.add_argument("--seconds", type=float, default=4, help="of each measurement")
  parser.add_argument("--rounds", type=int, default=3)
  arguments = parser.parse_args(argv)

  cores = sorted(os.sched_getaffinity(0))
  cores = [cores[:1], cores[:2]][: len(cores)]
  found = {(*names, len(some)): [] for names in SETS for some in cores}
  with tempfile.TemporaryDirectory() as folder:
    directories = {}
    for layout in {layout for layout, _ in SETS}:
      pose = tracks.Pose(layout, frame_size=(720, 1280))
      options = {"track": pose, "num_clips": arguments.clips}
      directories[layout] = prepared.write(
        type(layout.capitalize(), (RandomClips,), options), raw=folder, data_dir=folder
      )
    for _ in range(arguments.rounds):
      for layout, skeleton in SETS:
        for some in cores:
          # Threads keep the cores that were allowed at their birth.
          speed = timing.in_new_process(
            measure, directories[layout], skeleton, some, vars(arguments)
          )
          found[layout, skeleton, len(some)].append(speed)
  rows = [
    {
      "in the files": layout,
      "taken": skeleton,
      "cores": count,
      "clips per second": float(np.median(speeds)),
      "from": min(speeds),
      "to": max(speeds),
    }
    for (layout, skeleton, count), speeds in found.items()
  ]
  timing.report(arguments, rows)


def measure(directory: pathlib.Path, skeleton: str, cores: list[int], arguments: dict) -> float:
  """Clips per second of a loop that does nothing with them, over whole batches."""
  os.sched_setaffinity(0, cores)
  source = Source(directory)
  batches = pipeline.train_batches(
    source,
    source.rows("train"),
    {
      "pose": inputs.Heatmaps(
        skeletons.get(skeleton),
        source.track("pose").kind.frame_size,
        num_frames=arguments["frames"],
      )
    },
    batch_size=arguments["batch_size"],
    seed=0,
    num_threads=len(cores),
  )
  for _ in range(8):  # what was read ahead while threads started
    next(batches)
  count, start = 0, time.perf_counter()
  while (elapsed := time.perf_counter() - start) < arguments["seconds"]:
    next(batches)
    count += arguments["batch_size"]
  return count / elapsed


if __name__ == "__main__":
  main()
