"""Heatmaps of joints and limbs: ours, jitted, against a loop in numpy, as PyTorch tools draw them.

  python -m benchmarks.heatmaps --out=heatmaps.json

Both must agree before anything is timed. The loop touches only the window of each joint or limb and
runs on one core; ours draws on all cores (or the GPU), and in training never leaves the device.
"""

import functools

import jax
import numpy as np

from benchmarks import timing
from jaxmg import skeletons
from jaxmg.skeletons import heatmaps
from jaxmg.training import sharding

SIGMA = 0.6


def main(argv: list[str] | None = None) -> None:
  parser = timing.parser(__doc__)
  parser.add_argument("--skeleton", default="coco17", choices=skeletons.SKELETONS)
  parser.add_argument("--batch_size", type=int, default=8)
  parser.add_argument("--frames", type=int, default=48)
  parser.add_argument("--size", type=int, default=56)
  parser.add_argument("--rounds", type=int, default=7)
  arguments = parser.parse_args(argv)

  skeleton = skeletons.get(arguments.skeleton)
  size = (arguments.size, arguments.size)
  shape = (arguments.batch_size, arguments.frames, 1, skeleton.num_joints, 3)
  points = np.random.default_rng(0).uniform((0, 0, 0.3), (*size[::-1], 1), shape)
  points = points.astype(np.float32)
  on_device = jax.device_put(points)
  options = sharding.compiler_options(sharding.data_mesh(jax.devices()[:1]))
  draw = functools.partial(jax.jit, compiler_options=options)
  joints = draw(functools.partial(heatmaps.render_joints, size=size, sigma=SIGMA))
  limbs = draw(
    functools.partial(heatmaps.render_limbs, limbs=skeleton.limbs, size=size, sigma=SIGMA)
  )
  jobs = {
    "joints": {
      "jaxmg": lambda: joints(on_device).block_until_ready(),
      "numpy": lambda: loop(draw_joints, points, size),
    },
    "limbs": {
      "jaxmg": lambda: limbs(on_device).block_until_ready(),
      "numpy": lambda: loop(functools.partial(draw_limbs, limbs=skeleton.limbs), points, size),
    },
  }
  rows = []
  for job, calls in jobs.items():
    np.testing.assert_allclose(*(call() for call in calls.values()), atol=1e-5)
    timers = {name: timing.timer(call) for name, call in calls.items()}
    seconds = timing.alternate(timers, rounds=arguments.rounds)
    for name, times in seconds.items():
      rows.append(
        {
          "heatmaps": job,
          "implementation": name,
          "clips per second": len(points) / float(np.median(times)),
          "ratio": float(np.median(times / seconds["jaxmg"])),
        }
      )
  timing.report(arguments, rows)


def loop(draw, points, size):
  """B T M V 3 -> B T H W C, frame by frame."""
  return np.stack([np.stack([draw(frame, size) for frame in clip]) for clip in points])


def draw_joints(frame, size):
  heatmap = np.zeros((*size, frame.shape[1]), np.float32)
  for person in frame:
    for joint, (x, y, score) in enumerate(person):
      _draw(heatmap[..., joint], x, y, x, y, score)
  return heatmap


def draw_limbs(frame, size, *, limbs):
  heatmap = np.zeros((*size, len(limbs)), np.float32)
  for person in frame:
    for limb, (start, end) in enumerate(limbs):
      (ax, ay, a_score), (bx, by, b_score) = person[[start, end]]
      _draw(heatmap[..., limb], ax, ay, bx, by, min(a_score, b_score), a_score)
  return heatmap


def _draw(image, ax, ay, bx, by, score, short_score=None):
  """Draws the segment from a to b (perhaps one point) over what is there."""
  squared_length = (bx - ax) ** 2 + (by - ay) ** 2
  if score < 1e-4:
    return
  if squared_length < 1:
    bx, by, squared_length = ax, ay, 1
    score = score if short_score is None else short_score
  rows, columns = _window(ay, by, image.shape[0]), _window(ax, bx, image.shape[1])
  y, x = np.arange(image.shape[0])[rows, None], np.arange(image.shape[1])[columns]
  share = (((x - ax) * (bx - ax) + (y - ay) * (by - ay)) / squared_length).clip(0, 1)
  squared = (x - ax - share * (bx - ax)) ** 2 + (y - ay - share * (by - ay)) ** 2
  drawn = np.exp(-0.5 / SIGMA**2 * squared) * score
  image[rows, columns] = np.maximum(image[rows, columns], drawn)


def _window(a, b, length):
  first, last = int(min(a, b) - 3 * SIGMA), int(max(a, b) + 3 * SIGMA)
  return slice(max(first, 0), min(max(last + 1, 0), length))


if __name__ == "__main__":
  main()
