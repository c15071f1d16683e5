"""Training steps of the whole recipe A at the paper's size: time and memory.

  python -m benchmarks.recipe --steps=200 --dtype=bfloat16 --out=recipe.json
  python -m benchmarks.recipe --steps=3 --accumulate=4 --dtype=bfloat16      # where memory is short

The command of `experiments.posec3d` with `posec3d.py:imigue,recipe_a` (48 frames of 56 x 56 pixels,
41 joints, batches of 32, label embeddings) on random clips of 137 points, a third of them shorter
than 48 frames. Times are those of metrics.jsonl, without the first steps; memory is the most that
the process had, and the most that JAX had on the first device where it says so.
"""

import json
import pathlib
import resource
import tempfile

import jax
import numpy as np

from benchmarks import loader, timing
from experiments import launch, posec3d
from jaxmg.data import prepared, tracks

CONFIG = "experiments/configs/posec3d.py:imigue,recipe_a"


def main(argv: list[str] | None = None) -> None:
  parser = timing.parser(__doc__)
  parser.add_argument("--steps", type=int, default=200)
  parser.add_argument("--batch_size", type=int, default=32)
  parser.add_argument("--accumulate", type=int, default=1, help="parts of a batch")
  parser.add_argument("--dtype", default="bfloat16", help="bfloat16 or float32")
  parser.add_argument("--variant", default="slowonly-r50")
  arguments = parser.parse_args(argv)
  with tempfile.TemporaryDirectory() as folder:
    options = {
      "num_clips": arguments.steps * arguments.batch_size,
      "track": tracks.Pose("openpose137", frame_size=(720, 1280)),
      "class_names": tuple(f"class {k}" for k in range(32)),
    }
    prepared.write(type("Clips", (loader.RandomClips,), options), raw=folder, data_dir=folder)
    workdir = pathlib.Path(folder) / "run"
    settings = {
      "data.dir": folder,
      "data.name": "clips",
      "schedule.epochs": 1,
      "train.batch_size": arguments.batch_size,
      "train.accumulate": arguments.accumulate,
      "train.dtype": arguments.dtype,
      "train.log_every": 1,
      "model.variant": arguments.variant,
    }
    command = [f"--config={CONFIG}", f"--workdir={workdir}"]
    command += [f"--config.{key}={value}" for key, value in settings.items()]
    if code := launch.main(posec3d.run, command):
      raise SystemExit(code)
    lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  seconds = np.array([arguments.batch_size / line["clips_per_second"] for line in lines])
  steady = seconds[min(5, len(seconds) - 1) :]
  row = {
    "steps": len(seconds),
    "batch": f"{arguments.accumulate} x {arguments.batch_size // arguments.accumulate}",
    "dtype": arguments.dtype,
    "seconds per step, median": float(np.median(steady)),
    "steps per second": float(1 / np.median(steady)),
    "memory of the process, GB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9,
    "first loss": lines[0]["loss"],
    "last loss": lines[-1]["loss"],
  }
  if stats := jax.devices()[0].memory_stats():
    row["memory of the device, GB"] = stats["peak_bytes_in_use"] / 1e9
  timing.report(arguments, [row])


if __name__ == "__main__":
  main()
