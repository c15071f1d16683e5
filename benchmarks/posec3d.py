"""PoseC3D against an equal PyTorch network, in one run: forward, inference and training step.

python -m benchmarks.posec3d --out=posec3d.json                        # a CPU
python -m benchmarks.posec3d --dtype=bfloat16 --batch_size=32          # a GPU
"""

import argparse
import pathlib

import jax.numpy as jnp
import numpy as np

from benchmarks import peers
from jaxmg import models
from jaxmg.pretrained import posec3d as table


def main(argv: list[str] | None = None) -> None:
  parser = peers.parser(__doc__)
  parser.add_argument("--variant", default="slowonly-r50", choices=("slowonly-r50", "tiny"))
  parser.add_argument("--batch_size", type=int, default=2)
  parser.add_argument("--frames", type=int, default=48)
  parser.add_argument("--size", type=int, default=56)
  parser.add_argument("--joints", type=int, default=17)
  peers.compare(parser.parse_args(argv), jaxmg_calls, torch_calls)


def example(arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
  """Random heatmaps float32[B, T, H, W, V] and labels int32[B]."""
  rng = np.random.default_rng(0)
  side = arguments.size
  shape = (arguments.batch_size, arguments.frames, side, side, arguments.joints)
  label = rng.integers(arguments.classes, size=arguments.batch_size, dtype=np.int32)
  return rng.random(shape, np.float32), label


def jaxmg_calls(arguments: argparse.Namespace, folder: pathlib.Path) -> dict:
  x, label = example(arguments)
  dtype = jnp.dtype(arguments.dtype)
  model = models.posec3d.PoseC3D(arguments.classes, variant=arguments.variant, dtype=dtype)
  variables = peers.variables_of(folder, model, x, table)
  return peers.calls(model, variables, x, label, fold=models.posec3d.fold_batch_norm)


def torch_calls(arguments: argparse.Namespace, folder: pathlib.Path) -> dict:
  from benchmarks import torch_posec3d

  x, label = example(arguments)
  ours = models.posec3d.PoseC3D(arguments.classes, variant=arguments.variant)
  sizes = {"width": ours.width, "depths": ours.depths}
  return peers.torch_calls(
    torch_posec3d.make(arguments.joints, arguments.classes, **sizes),
    torch_posec3d.fold,
    np.moveaxis(x, -1, 1),
    label,
    folder=folder,
    dtype=arguments.dtype,
    channels_last="channels_last_3d",
  )


if __name__ == "__main__":
  main()
