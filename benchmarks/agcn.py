"""2s-AGCN against an equal PyTorch network, in one run: forward, inference and training step.

python -m benchmarks.agcn --out=agcn.json
python -m benchmarks.agcn --frames=300 --skeleton=kinect25 --persons=2 --batch_size=4
"""

import argparse
import pathlib

import jax.numpy as jnp
import numpy as np

from benchmarks import peers
from jaxmg import models, skeletons
from jaxmg.pretrained import agcn as table


def main(argv: list[str] | None = None) -> None:
  parser = peers.parser(__doc__)
  parser.add_argument("--variant", default="agcn", choices=models.agcn.VARIANTS)
  parser.add_argument("--batch_size", type=int, default=8)
  parser.add_argument("--frames", type=int, default=64)
  parser.add_argument("--skeleton", default="imigue22", choices=skeletons.SKELETONS)
  parser.add_argument("--persons", type=int, default=1)
  peers.compare(parser.parse_args(argv), jaxmg_calls, torch_calls)


def example(arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
  """Random joints float32[B, T, M, V, 3] and labels int32[B]."""
  rng = np.random.default_rng(0)
  joints = skeletons.get(arguments.skeleton).num_joints
  shape = (arguments.batch_size, arguments.frames, arguments.persons, joints, 3)
  label = rng.integers(arguments.classes, size=arguments.batch_size, dtype=np.int32)
  return rng.normal(size=shape).astype(np.float32), label


def jaxmg_calls(arguments: argparse.Namespace, folder: pathlib.Path) -> dict:
  x, label = example(arguments)
  parents = skeletons.get(arguments.skeleton).parents
  options = {"variant": arguments.variant, "dtype": jnp.dtype(arguments.dtype)}
  model = models.agcn.AGCN(arguments.classes, parents, **options)
  variables = peers.variables_of(folder, model, x, table)
  return peers.calls(model, variables, x, label, fold=model.folded)


def torch_calls(arguments: argparse.Namespace, folder: pathlib.Path) -> dict:
  from benchmarks import torch_agcn

  x, label = example(arguments)
  sizes = models.agcn.VARIANTS[arguments.variant]
  edges = models.agcn.adjacency(skeletons.get(arguments.skeleton).parents)
  return peers.torch_calls(
    torch_agcn.make(edges, arguments.persons, arguments.classes, **sizes),
    torch_agcn.fold,
    as_theirs(x),
    label,
    folder=folder,
    dtype=arguments.dtype,
    channels_last="channels_last",
  )


def as_theirs(x: np.ndarray) -> np.ndarray:
  """B T M V C -> B C T V M."""
  return np.ascontiguousarray(x.transpose(0, 4, 1, 3, 2))


if __name__ == "__main__":
  main()
