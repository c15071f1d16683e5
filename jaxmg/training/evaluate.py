"""Evaluation of a whole split: every clip exactly once, on any number of devices and processes."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh
from jaxtyping import Float32, Int

from jaxmg.training import sharding

# Of a batch, its clips whose mask is True: rows, probabilities, labels.
Part = tuple[np.ndarray, np.ndarray, np.ndarray]


def evaluate(
  predict_step: Callable,
  variables: Mapping[str, Any],
  batches: Iterable[Mapping[str, Any]],
  *,
  mesh: Mesh,
  stop: Callable[[], Any] = lambda: None,
  done: Sequence[Part] = (),
  keep: Callable[[Sequence[Part]], Any] = lambda parts: None,
) -> tuple[Int[np.ndarray, " n"], Float32[np.ndarray, "n *k"], Int[np.ndarray, " n"]] | None:
  """Returns `(rows, probabilities, labels)` of all clips whose mask is True, by ascending row.

  `predict_step` comes from `step.compile_predict_step`, `variables` holds "params" and
  "batch_stats". Each process iterates over its own rows, and all over equally many batches; all
  return the whole. `stop()` is asked before each batch and must answer alike in all processes: if
  it is true, evaluation breaks off and returns None. After each batch `keep` is given
  the parts of all so far; with those of an earlier call in `done`, `batches` are those that follow.

  Raises:
    ValueError: no clips, or a clip that comes twice.
  """
  variables = sharding.replicate(mesh, dict(variables))
  parts = list(done)
  for batch in batches:
    if stop():
      return None
    batch = sharding.shard_batch(mesh, dict(batch))
    inputs = (variables["params"], variables["batch_stats"], batch)
    if len(parts) == len(done):
      with sharding.compiling("the prediction step", mesh):
        predict_step.lower(*inputs).compile()  # which the calls then find
    probabilities = predict_step(*inputs)
    part = (batch["mask"], batch["clip"], probabilities, batch["label"])
    mask, *values = multihost_utils.process_allgather(part, tiled=True)
    parts.append(tuple(value[mask] for value in values))
    keep(parts)
  if not sum(len(part[0]) for part in parts):
    raise ValueError("evaluate: expected at least one clip, got none")
  rows, probabilities, labels = map(np.concatenate, zip(*parts, strict=True))
  rows, first, counts = np.unique(rows, return_index=True, return_counts=True)
  if (counts > 1).any():
    raise ValueError(f"evaluate: expected each clip once, got rows {rows[counts > 1]} again")
  return rows, probabilities[first], labels[first]
