"""Learning-rate schedules and optimizers, with PyTorch's conventions."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax

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
  **options: Any,
) -> optax.GradientTransformation:
  """Returns "sgd" (momentum=0.9, nesterov=False) or "adamw" (betas=(0.9, 0.999), epsilon=1e-8).

  The gradient is clipped to a global norm of `clip_norm` before all else. SGD adds the weight decay
  to the gradient, before the momentum; AdamW multiplies it by the learning rate alone. It falls on
  "all" parameters, as in the recipes of PYSKL, or on "kernels" only: no biases, no normalisation.
  """
  _check("optimizer", name, OPTIMIZERS)
  _check("weight decay", decay, DECAY)
  rule = OPTIMIZERS[name](optax.add_decayed_weights(weight_decay, DECAY[decay]), **options)
  clip = () if clip_norm is None else (optax.clip_by_global_norm(clip_norm),)
  return optax.chain(*clip, *rule, optax.scale_by_learning_rate(learning_rate))


def _sgd(decay, *, momentum=0.9, nesterov=False):
  return decay, optax.trace(momentum, nesterov)


def _adamw(decay, *, betas=(0.9, 0.999), epsilon=1e-8):
  return optax.scale_by_adam(*betas, epsilon), decay


def _kernels(params):
  return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", params)


def _check(what, name, known):
  if name not in known:
    raise errors.ConfigError(what, expected=" or ".join(known), got=name)


OPTIMIZERS = {"sgd": _sgd, "adamw": _adamw}
DECAY = {"all": None, "kernels": _kernels}
SCHEDULES = ("cosine", "step")
