"""PoseC3D against an equal PyTorch network, in one run: forward, inference and training step.

python -m benchmarks.posec3d --out=posec3d.json                        # a CPU
python -m benchmarks.posec3d --dtype=bfloat16 --batch_size=32          # a GPU

PyTorch is given heatmaps that are drawn. Ours is given what a run gives it, the joints of one
person undrawn (`jaxmg.gaussians`): a CPU draws none of them, a GPU draws them in the call. As
"jaxmg, drawn" it is given the same heatmaps as PyTorch.
"""

import argparse
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import peers
from jaxmg import gaussians, models
from jaxmg.pretrained import posec3d as table
from jaxmg.skeletons import heatmaps


def main(argv: list[str] | None = None) -> None:
  parser = peers.parser(__doc__)
  parser.add_argument("--variant", default="slowonly-r50", choices=("slowonly-r50", "tiny"))
  parser.add_argument("--batch_size", type=int, default=2)
  parser.add_argument("--frames", type=int, default=48)
  parser.add_argument("--size", type=int, default=56)
  parser.add_argument("--joints", type=int, default=17)
  peers.compare(parser.parse_args(argv), jaxmg_calls, torch_calls)


def example(arguments: argparse.Namespace) -> tuple[gaussians.Gaussians, np.ndarray]:
  """Heatmaps float32[B, T, H, W, V] of joints at random places, and labels int32[B]."""
  rng = np.random.default_rng(0)
  side = arguments.size
  shape = (arguments.batch_size, arguments.frames, arguments.joints, 3)
  points = rng.uniform((0, 0, 0.1), (side, side, 1), shape).astype(np.float32)
  label = rng.integers(arguments.classes, size=arguments.batch_size, dtype=np.int32)
  x = heatmaps.joint_gaussians(jnp.asarray(points), size=(side, side))
  return jax.tree.map(np.asarray, x), label


def jaxmg_calls(arguments: argparse.Namespace, folder: pathlib.Path) -> dict:
  x, label = example(arguments)
  dtype = jnp.dtype(arguments.dtype)
  model = models.posec3d.PoseC3D(arguments.classes, variant=arguments.variant, dtype=dtype)
  pictures = gaussians.drawn(x)
  for given in (x, pictures):  # the logits of both are compared with PyTorch's
    variables = peers.variables_of(folder, model, given, table)
  options = {"fold": models.posec3d.fold_batch_norm}
  of_pictures = peers.calls(model, variables, pictures, label, name="jaxmg, drawn", **options)
  return peers.calls(model, variables, x, label, **options) | of_pictures


def torch_calls(arguments: argparse.Namespace, folder: pathlib.Path) -> dict:
  from benchmarks import torch_posec3d

  x, label = example(arguments)
  ours = models.posec3d.PoseC3D(arguments.classes, variant=arguments.variant)
  sizes = {"width": ours.width, "depths": ours.depths}
  return peers.torch_calls(
    torch_posec3d.make(arguments.joints, arguments.classes, **sizes),
    torch_posec3d.fold,
    np.moveaxis(gaussians.drawn(x), -1, 1),
    label,
    folder=folder,
    dtype=arguments.dtype,
    channels_last="channels_last_3d",
  )


if __name__ == "__main__":
  main()
