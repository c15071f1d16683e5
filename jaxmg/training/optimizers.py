"""Learning-rate schedules and optimizers, with PyTorch's conventions."""

import functools
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from jaxmg import errors


def scaled_learning_rate(learning_rate: float, *, batch_size: int, reference_batch: int) -> float:
  """The linear rule (Goyal et al., arXiv 1706.02677): a recipe's rate for another batch size."""
  return learning_rate * batch_size / reference_batch


def schedule(
  name: str,
  *,
  learning_rate: float,
  steps: int,
  warmup_steps: int = 0,
  milestones: Sequence[int] = (),
  factor: float = 0.1,
) -> Callable:
  """Returns the learning rate as a function of the number of updates made before.

  "cosine" falls to 0 at `steps`; "step" multiplies by `factor` at each of the `milestones`. Before
  either, `warmup_steps` updates rise linearly: the first has learning_rate / warmup_steps.
  """
  _check("schedule", name, SCHEDULES)

  def rate(count):
    if name == "cosine":
      progress = (count - warmup_steps) / max(1, steps - warmup_steps)
      scale = 0.5 * (1 + jnp.cos(jnp.pi * jnp.clip(progress, 0, 1)))
    else:
      scale = factor ** (count >= jnp.array(milestones, int)).sum()
    warmup = (count + 1) / max(1, warmup_steps)
    return learning_rate * jnp.where(count < warmup_steps, warmup, scale)

  return rate


def optimizer(
  name: str,
  learning_rate: Callable,
  *,
  weight_decay: float = 0.0,
  decay: str = "all",
  clip_norm: float | None = None,
  factors: Mapping[str, float] | None = None,
  **options: Any,
) -> optax.GradientTransformation:
  """Returns "sgd" (momentum=0.9, nesterov=False) or "adamw" (betas=(0.9, 0.999), epsilon=1e-8).

  The gradient is clipped to a global norm of `clip_norm` before all else. SGD adds the weight decay
  to the gradient, before the momentum; AdamW multiplies it by the learning rate alone. It falls on
  "all" parameters, as in the recipes of PYSKL, or on "kernels" only: no biases, no normalisation.

  `factors`, by patterns of paths (see `parameters`), multiply the learning rate: each parameter has
  that of the one pattern that matches it, or ValueError is raised; see `layer_factors`.
  """
  _check("optimizer", name, OPTIMIZERS)
  _check("weight decay", decay, DECAY)
  rule = OPTIMIZERS[name](optax.add_decayed_weights(weight_decay, DECAY[decay]), **options)
  clip = () if clip_norm is None else (optax.clip_by_global_norm(clip_norm),)
  scale = () if factors is None else (optax.stateless(functools.partial(_scaled, factors)),)
  return optax.chain(*clip, *rule, *scale, optax.scale_by_learning_rate(learning_rate))


def layer_factors(layers: Sequence[str], decay: float) -> dict[str, float]:
  """Factors of the learning rate that fall by `decay` from the last layer to the first.

  `layers` are patterns of the parameters of each, from the input to the classifier, whose factor is
  1: layer-wise decay (Clark et al., arXiv 2003.10555), for networks that are trained already.
  """
  return {pattern: decay**i for i, pattern in enumerate(reversed(layers))}


def _scaled(factors, updates, params):
  flat = traverse_util.flatten_dict(updates, sep="/")
  for path in flat:
    found = [factor for pattern, factor in factors.items() if re.fullmatch(pattern, path)]
    if len(found) != 1:
      raise ValueError(f"factors: expected one pattern that matches {path}, got {len(found)}")
    flat[path] *= found[0]
  return traverse_util.unflatten_dict(flat, sep="/")


def _sgd(decay, *, momentum=0.9, nesterov=False):
  return decay, optax.trace(momentum, nesterov)


def _adamw(decay, *, betas=(0.9, 0.999), epsilon=1e-8):
  return optax.scale_by_adam(*betas, epsilon), decay


def _kernels(params):
  return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def _check(what, name, known):
  if name not in known:
    raise errors.ConfigError(errors.unknown(what, known, name))


OPTIMIZERS = {"sgd": _sgd, "adamw": _adamw}
DECAY = {"all": None, "kernels": _kernels}
SCHEDULES = ("cosine", "step")
