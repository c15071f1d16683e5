"""Losses: `loss_fn(logits, out, batch) -> (loss, metrics)`, as the training step takes them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def cross_entropy(
  logits: Float[Array, "*b k"], label: Int[Array, "*b"], *, label_smoothing: float = 0.0
) -> Float[Array, "*b"]:
  """Cross-entropy against the label mixed with `label_smoothing` of the uniform distribution.

  A label outside [0, K) gives NaN: counted from the end (-1) or clamped it would train silently.
  """
  log_probabilities = jax.nn.log_softmax(logits)
  num_classes = logits.shape[-1]
  target = jax.nn.one_hot(label, num_classes, dtype=logits.dtype)
  target = (1 - label_smoothing) * target + label_smoothing / num_classes
  known = (label >= 0) & (label < num_classes)
  return jnp.where(known, -(target * log_probabilities).sum(axis=-1), jnp.nan)


def classification(*, label_smoothing: float = 0.0) -> Callable:
  """Returns the `loss_fn` of a classifier: mean cross-entropy, and the accuracy as a metric."""

  def loss_fn(logits, out, batch):
    del out
    loss = cross_entropy(logits, batch["label"], label_smoothing=label_smoothing).mean()
    return loss, {"accuracy": (logits.argmax(axis=-1) == batch["label"]).mean()}

  return loss_fn
