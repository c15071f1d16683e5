"""An annotation pickle of PYSKL's kind -> a prepared set, in clips per second on one core.

  python -m benchmarks.prepare --out=prepare.json

Random clips of one or two persons; importing is not counted.
"""

import importlib.util
import os
import pathlib
import pickle
import tempfile
import time

import numpy as np

from benchmarks import timing
from jaxmg.data import prepared

SCRIPT = pathlib.Path(__file__).parents[1] / "datasets" / "prepare.py"


def main(argv: list[str] | None = None) -> None:
  parser = timing.parser(__doc__)
  parser.add_argument("--clips", type=int, default=1000)
  parser.add_argument("--frames", type=int, default=100)
  parser.add_argument("--joints", type=int, default=17)
  parser.add_argument("--rounds", type=int, default=3)
  arguments = parser.parse_args(argv)
  with tempfile.TemporaryDirectory() as folder:
    file = pathlib.Path(folder) / "random.pkl"
    write(file, arguments.clips, arguments.frames, arguments.joints)
    seconds = [timing.in_new_process(measure, file, round) for round in range(arguments.rounds)]
  speeds = arguments.clips / np.array(seconds)
  row = {"clips per second": np.median(speeds), "from": speeds.min(), "to": speeds.max()}
  timing.report(arguments, [{name: float(speed) for name, speed in row.items()}])


def write(file: pathlib.Path, clips: int, frames: int, joints: int) -> None:
  rng = np.random.default_rng(0)
  annotations = []
  for i in range(clips):
    shape = (1 + i % 2, frames, joints)
    annotations.append(
      {
        "frame_dir": f"clip{i}",
        "total_frames": frames,
        "img_shape": (1080, 1920),
        "original_shape": (1080, 1920),
        "label": i % 60,
        "keypoint": rng.uniform(1, 1080, (*shape, 2)).astype(np.float16),
        "keypoint_score": rng.uniform(0.1, 1, shape).astype(np.float16),
      }
    )
  ids = [clip["frame_dir"] for clip in annotations]
  split = {"xsub_train": ids[: clips // 2], "xsub_val": ids[clips // 2 :]}
  file.write_bytes(pickle.dumps({"split": split, "annotations": annotations}))


def measure(file: pathlib.Path, round: int) -> float:
  """Seconds to a whole prepared set."""
  os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])
  spec = importlib.util.spec_from_file_location("prepare", SCRIPT)
  script = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(script)
  builder = script.named(script.load("pyskl_pickle"), f"round{round}", str(file))
  start = time.perf_counter()
  prepared.write(builder, raw=file, data_dir=file.parent)
  return time.perf_counter() - start


if __name__ == "__main__":
  main()
