"""Seeded weights and inputs, a pure function of a name: no weight file has to travel."""

import zlib
import numpy as np


def rng(name, salt=""):
  return np.random.default_rng(zlib.crc32((salt + name).encode()))


def seeded_array(name, shape, salt=""):
  """The value of the parameter or buffer `name` (PyTorch state_dict key) of `shape`, as float32."""
  g = rng(name, salt)
  leaf = name.rsplit(".", 1)[-1]
  if leaf == "num_batches_tracked":
    return np.zeros(shape, np.int64)
  if leaf == "running_var":
    return g.uniform(0.5, 1.5, shape).astype(np.float32)
  if leaf == "running_mean" or leaf == "bias":
    return (0.1 * g.standard_normal(shape)).astype(np.float32)
  if leaf == "weight" and len(shape) == 1:
    return g.uniform(0.5, 1.5, shape).astype(np.float32)
  fan_in = int(np.prod(shape[1:])) if len(shape) > 1 else int(shape[0])
  return (g.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)
