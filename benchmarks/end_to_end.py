"""Key points -> loss: training PoseC3D with its loader, against PyTorch's with its own.

  python -m benchmarks.end_to_end --out=end_to_end.json

Ours is a prepared set, `pipeline.train_batches` and the training step, which draws heatmaps on the
device; its key points are in memory after an epoch. Theirs is the equal network, SGD, and a
DataLoader whose workers draw each joint in its window of 3 sigma with numpy, as PYSKL and mmaction2
do; their annotations are a pickle, in memory. Both sample, crop, mirror and draw random clips anew
in every step, on the same cores, each in a process of its own, in turn. A call is so many steps;
between calls the loaders read ahead, ours 2 batches and theirs 2 of each worker.

PyTorch has its memory as it comes and kept, as in `benchmarks.peers`. Without PyTorch ours is timed
alone.
"""

import argparse
import contextlib
import importlib.util
import itertools
import pathlib
import pickle
import tempfile
from collections.abc import Callable

import jax
import numpy as np

from benchmarks import loader, peers, timing
from jaxmg import inputs, models, recipe, skeletons
from jaxmg.data import pipeline, prepared, tracks
from jaxmg.data.source import Source
from jaxmg.skeletons import sampling
from jaxmg.training import losses, optimizers, sharding, step

FRAME_SIZE = (720, 1280)
SIGMA = 0.6


def main(argv: list[str] | None = None) -> None:
  parser = timing.parser(__doc__)
  parser.add_argument("--variant", default="small", choices=("small", "slowonly-r50", "tiny"))
  parser.add_argument("--skeleton", default="imigue22", choices=skeletons.SKELETONS)
  parser.add_argument("--clips", type=int, default=500)
  parser.add_argument("--batch_size", type=int, default=8)
  parser.add_argument("--frames", type=int, default=48)
  parser.add_argument("--size", type=int, default=56)
  parser.add_argument("--classes", type=int, default=32)
  parser.add_argument("--steps", type=int, default=10, help="of a call")
  parser.add_argument("--workers", type=int, default=2, help="of PyTorch's DataLoader")
  parser.add_argument("--compiled", action="store_true", help="torch.compile as well")
  parser.add_argument("--rounds", type=int, default=5)
  arguments = parser.parse_args(argv)

  builders = [("kept", ours)]
  if importlib.util.find_spec("torch"):
    builders += [("as it comes", theirs), ("kept", theirs)]
  timers = {}  # (implementation, memory) -> timer
  with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as processes:
    write(pathlib.Path(folder), arguments)
    for memory, build in builders:
      process = timing.Process(
        peers.start, memory == "kept", build, arguments, pathlib.Path(folder)
      )
      processes.callback(process.close)
      timers |= {(name, memory): timer for name, timer in process.timers().items()}
    seconds = timing.alternate(timers, rounds=arguments.rounds)
  clips = arguments.steps * arguments.batch_size
  rows = [
    {
      "implementation": name,
      "memory": memory,
      "clips per second": clips / float(np.median(times)),
      "from": clips / times.max(),
      "to": clips / times.min(),
      "ratio": float(np.median(times / seconds["jaxmg", "kept"])),
    }
    for (name, memory), times in seconds.items()
  ]
  timing.report(arguments, rows)


def write(folder: pathlib.Path, arguments: argparse.Namespace) -> None:
  """The same clips as a prepared set and as a pickle of their key points and labels."""
  options = {
    "track": tracks.Pose(arguments.skeleton, frame_size=FRAME_SIZE),
    "num_clips": arguments.clips,
    "class_names": tuple(f"class {i}" for i in range(arguments.classes)),
  }
  path = prepared.write(type("Clips", (loader.RandomClips,), options), raw=folder, data_dir=folder)
  data = Source(path)
  poses = [data.track("pose")[row]["keypoints"] for row in range(len(data))]
  with (folder / "annotations.pkl").open("wb") as file:
    pickle.dump((poses, data.labels), file)
  (folder / "set").write_text(str(path))


def ours(arguments: argparse.Namespace, folder: pathlib.Path) -> dict[str, Callable[[], None]]:
  data = Source((folder / "set").read_text())
  one = inputs.Heatmaps(
    arguments.skeleton, FRAME_SIZE, num_frames=arguments.frames, size=arguments.size, sigma=SIGMA
  )
  model = models.posec3d.PoseC3D(arguments.classes, variant=arguments.variant)
  run = recipe.Recipe(model, {"pose": one}, data.class_names, mirror=True)
  batches = pipeline.train_batches(
    data, data.rows("train"), run.inputs, batch_size=arguments.batch_size, seed=0
  )
  mesh = peers.one_device()
  optimizer = optimizers.optimizer("sgd", lambda count: 1e-3, weight_decay=3e-4)
  train_step = jax.jit(
    step.make_train_step(model, run.train_inputs, losses.classification(), optimizer),
    donate_argnums=0,
    compiler_options=sharding.compiler_options(mesh),
  )
  key = jax.random.key(0)
  state = sharding.on_host(
    lambda key: step.init_train_state(model, optimizer, key, run.example()), key
  )
  state = sharding.replicate(mesh, state)

  def call():
    nonlocal state
    for batch in itertools.islice(batches, arguments.steps):
      state, metrics = train_step(state, sharding.shard_batch(mesh, batch), key)
    assert np.isfinite(metrics["loss"])

  return {"jaxmg": call}


def theirs(arguments: argparse.Namespace, folder: pathlib.Path) -> dict[str, Callable[[], None]]:
  import torch

  from benchmarks import torch_posec3d

  sizes = models.posec3d.PoseC3D(arguments.classes, variant=arguments.variant)
  joints = skeletons.get(arguments.skeleton).num_joints
  with (folder / "annotations.pkl").open("rb") as file:
    poses, labels = pickle.load(file)
  clips = Clips(poses, labels, arguments)
  # One epoch without an end, so that workers read ahead between two calls, as ours do.
  batches = torch.utils.data.DataLoader(
    clips,
    arguments.batch_size,
    sampler=torch.utils.data.RandomSampler(clips, replacement=True, num_samples=1 << 40),
    num_workers=arguments.workers,
  )
  batches = iter(batches)

  def make(layout, compiled):
    model = torch_posec3d.make(joints, arguments.classes, width=sizes.width, depths=sizes.depths)
    model = model.train().to(memory_format=layout)
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=3e-4)
    forward = compiled(model)

    def call():
      for x, label in itertools.islice(batches, arguments.steps):
        logits = forward(x.contiguous(memory_format=layout))
        loss = torch.nn.functional.cross_entropy(logits, label)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
      assert np.isfinite(loss.item())

    return call

  found = {
    "torch": make(torch.contiguous_format, lambda model: model),
    "torch channels_last_3d": make(torch.channels_last_3d, lambda model: model),
  }
  if arguments.compiled:
    found["torch.compile channels_last_3d"] = make(torch.channels_last_3d, torch.compile)
  return found


class Clips:
  """Random access to heatmaps float32[V, T, H, W] and labels, drawn anew each time with numpy."""

  def __init__(self, poses: list, labels: np.ndarray, arguments: argparse.Namespace):
    self._poses, self._labels = poses, labels
    self._num_frames, self._size = arguments.frames, arguments.size
    self._mirror = np.array(skeletons.get(arguments.skeleton).mirror)

  def __len__(self) -> int:
    return len(self._poses)

  def __getitem__(self, row: int) -> tuple[np.ndarray, int]:
    rng = np.random.default_rng()
    pose = self._poses[row][:, 0]
    pose = pose[sampling.uniform(len(pose), self._num_frames, rng)]  # T V 3
    xy, score = pose[..., :2], pose[..., 2]
    there = xy[score > 0]
    low, high = there.min(0), there.max(0)
    middle, half = (low + high) / 2, (high - low) * 0.625
    sides = 2 * half * np.sqrt(rng.uniform(0.56, 1))
    corner = middle - half + rng.uniform(size=2) * (2 * half - sides)
    points = np.concatenate([(xy - corner) * (self._size / sides), score[..., None]], -1)
    if rng.random() < 0.5:
      points = points[:, self._mirror]
      points[..., 0] = self._size - 1 - points[..., 0]
    return draw_joints(np.float32(points), self._size), int(self._labels[row])


def draw_joints(points: np.ndarray, size: int) -> np.ndarray:
  """T V 3 -> V T H W: the Gaussian of each joint, in its window."""
  found = np.zeros((points.shape[1], len(points), size, size), np.float32)
  reach = 3 * SIGMA
  for frame, joints in enumerate(points.tolist()):
    for joint, (x, y, score) in enumerate(joints):
      left, right = max(int(x - reach), 0), min(int(x + reach) + 1, size)
      top, bottom = max(int(y - reach), 0), min(int(y + reach) + 1, size)
      if score < 1e-4 or left >= right or top >= bottom:
        continue
      dx = np.arange(left, right, dtype=np.float32) - x
      dy = np.arange(top, bottom, dtype=np.float32)[:, None] - y
      patch = np.exp((dx**2 + dy**2) * (-0.5 / SIGMA**2)) * score
      found[joint, frame, top:bottom, left:right] = patch
  return found


if __name__ == "__main__":
  main()
