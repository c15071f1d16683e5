"""Losses: `loss_fn(logits, out, batch) -> (loss, metrics)`, as the training step takes them."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
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


def classification(
  *, label_smoothing: float = 0.0, log_prior: Float[np.ndarray, " k"] | None = None
) -> Callable:
  """Returns the `loss_fn` of a classifier: mean cross-entropy, and the accuracy as a metric.

  `log_prior` is added to the logits in the loss (logit adjustment, Menon et al., ICLR 2021, arXiv
  2007.07314): with the logarithm of the classes' training shares, the bare logits minimise the
  error averaged over classes rather than over clips, which is what a long tail needs.
  """

  def loss_fn(logits, out, batch):
    del out
    accuracy = (logits.argmax(axis=-1) == batch["label"]).mean()
    if log_prior is not None:
      logits = logits + log_prior
    loss = cross_entropy(logits, batch["label"], label_smoothing=label_smoothing).mean()
    return loss, {"accuracy": accuracy}

  return loss_fn
