"""A toy classifier of 12 numbers with all that a step must handle, and batches for it."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn


class ToyModel(nn.Module):
  @nn.compact
  def __call__(self, x, *, train=False, rows=None):
    x = nn.Dense(8, name="hidden")(x)
    x = jnp.tanh(nn.BatchNorm(use_running_average=not train, momentum=0.9, name="bn")(x))
    if train:
      keys = jax.vmap(jax.random.fold_in, (None, 0))(self.make_rng("dropout"), rows)
      x *= 2 * jax.vmap(lambda key: jax.random.bernoulli(key, shape=(8,)))(keys)
    return nn.Dense(3, name="head")(x), {"features": x}


class ToyBatches:
  """An endless iterator like Grain's: the n-th batch depends on n alone."""

  def __init__(self, size=16):
    self.size, self.next_index = size, 0

  def __next__(self):
    rng = np.random.default_rng(self.next_index)
    self.next_index += 1
    label = rng.integers(0, 3, self.size, dtype=np.int32)
    return {
      "values": (label[:, None] + rng.normal(size=(self.size, 12))).astype(np.float32),
      "label": label,
      "clip": rng.permutation(self.size).astype(np.int32),
      "mask": np.ones(self.size, bool),
    }

  def get_state(self):
    return {"next_index": self.next_index}

  def set_state(self, state):
    self.next_index = state["next_index"]


def jittered(keys, batch):
  noise = jax.vmap(lambda key: jax.random.normal(key, (12,)))(keys)
  return batch["values"] + 0.1 * noise, batch


@pytest.fixture(scope="session")
def toy():
  return types.SimpleNamespace(
    model=ToyModel(),
    preprocess=jittered,
    example=jnp.zeros((1, 12)),
    Batches=ToyBatches,
    key=jax.random.key(0),
  )
