"""Losses: `loss_fn(logits, out, batch) -> (loss, metrics)`, as the training step takes them."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from jaxmg import ranges, shapes

CLASS_WEIGHTS = {"inverse": -1.0, "square_root": -0.5}  # the power of a class's training clips


def cross_entropy(
  logits: Float[Array, "*b k"], label: Int[Array, "*b"], *, label_smoothing: float = 0.0
) -> Float[Array, "*b"]:
  """Cross-entropy against the label mixed with `label_smoothing` of the uniform distribution.

  A label outside [0, K) gives NaN: counted from the end (-1) or clamped it would train silently.
  """
  shapes.check("label", label, "int", *logits.shape[:-1])
  log_probabilities = jax.nn.log_softmax(logits)
  num_classes = logits.shape[-1]
  target = jax.nn.one_hot(label, num_classes, dtype=logits.dtype)
  target = (1 - label_smoothing) * target + label_smoothing / num_classes
  known = (label >= 0) & (label < num_classes)
  return jnp.where(known, -(target * log_probabilities).sum(axis=-1), jnp.nan)


def classification(
  *,
  label_smoothing: float = 0.0,
  log_prior: Float[np.ndarray, " k"] | None = None,
  class_weights: Float[np.ndarray, " k"] | None = None,
  semantic: Callable | None = None,
) -> Callable:
  """Returns the `loss_fn` of a classifier: mean cross-entropy, and the accuracy as a metric.

  Of clips that are mixed (`training.mixing`) each figure is that of both labels, by their shares.

  Args:
    label_smoothing: of `cross_entropy`.
    log_prior: added to the logits in the loss (logit adjustment, Menon et al., ICLR 2021, arXiv
      2007.07314): with the logarithm of the classes' training shares, the bare logits minimise the
      error averaged over classes rather than over clips, which is what a long tail needs.
    class_weights: each clip's cross-entropy is multiplied by the weight of its class, as
      `class_weights` gives them. PyTorch's weighted cross-entropy also divides by the sum of a
      batch's weights; ours does not, since a clip would then count by those it sits with, and
      batches in parts would give another gradient than whole ones.
    semantic: `(embedding float[B, D], label int[B]) -> float[B]`, such as `embedding_regression`;
      its mean over the batch, for `out["embedding"]`, is added to the loss and is the metric
      "semantic_loss". No class weights on it.
  """

  if expected := ranges.wanted(label_smoothing, "[0, 1)"):
    raise ValueError(f"label_smoothing: expected {expected}, got {label_smoothing!r}")
  if not callable(semantic or len):
    expected = "a function, like losses.embedding_regression(table)"
    raise ValueError(f"semantic: expected {expected}, got {type(semantic).__name__}")

  def loss_fn(logits, out, batch):
    if "label" not in batch:
      raise ValueError(f"batch: expected label, int[B], got {' and '.join(batch)}")
    shapes.check("label", batch["label"], "int", *logits.shape[:-1])
    if semantic is not None and "embedding" not in out:
      raise ValueError("semantic: expected a model with an embedding_size, got one without")

    def mean(of_labels):
      found = of_labels(batch["label"])
      if "share" in batch:
        found = batch["share"] * found + (1 - batch["share"]) * of_labels(batch["partner"])
      return found.mean()

    def loss_of(label):
      adjusted = logits if log_prior is None else logits + log_prior
      loss = cross_entropy(adjusted, label, label_smoothing=label_smoothing)
      return loss if class_weights is None else loss * _of_label(class_weights, label)

    metrics = {"accuracy": mean(lambda label: logits.argmax(axis=-1) == label)}
    loss = mean(loss_of)
    if semantic is not None:
      metrics["semantic_loss"] = mean(functools.partial(semantic, out["embedding"]))
      loss += metrics["semantic_loss"]
    return loss, metrics

  return loss_fn


def class_weights(counts: Int[np.ndarray, " k"], kind: str) -> Float32[np.ndarray, " k"]:
  """The weights of classes of so many training clips, of which the mean over the clips is 1.

  `kind` is "inverse" (1 / n) or "square_root" (1 / sqrt n). A class without clips gets the weight
  that one clip would have given it, and plays no part in the mean.

  Raises ValueError for another kind, a negative count, or no clips at all.
  """
  if kind not in CLASS_WEIGHTS:
    raise ValueError(f"kind of class weights: expected {' or '.join(CLASS_WEIGHTS)}, got {kind!r}")
  counts = np.asarray(counts)
  if (counts < 0).any() or not counts.any():
    raise ValueError(f"counts of class weights: expected clips, got {counts.tolist()}")
  weights = np.maximum(counts, 1.0) ** CLASS_WEIGHTS[kind]
  return (weights * counts.sum() / (counts * weights).sum()).astype(np.float32)


def embedding_regression(table: Float[np.ndarray, "k d"], *, weight: float = 20.0) -> Callable:
  """Returns `weight` x the mean squared difference to the label's row of `table`, for each clip.

  With 20, and word vectors of 300 numbers of mean square 0.0769, this is the auxiliary loss of the
  MiGA challenge's winner of 2023 (arXiv 2307.10624).
  """

  def semantic(embedding: Float[Array, "*b d"], label: Int[Array, "*b"]) -> Float[Array, "*b"]:
    _check_size(embedding, table)
    return weight * ((embedding - _of_label(table, label)) ** 2).mean(axis=-1)

  return semantic


def embedding_contrast(
  table: Float[np.ndarray, "k d"], *, weight: float = 1.0, temperature: float = 0.1
) -> Callable:
  """Returns `weight` x the cross-entropy of cosine / `temperature` over the rows of `table`.

  An embedding shorter than 1e-3 is divided by 1e-3, so that the gradient of one near zero stays
  finite; a row of zeros has the cosine 0 with everything. Rows that are equal cannot be told apart.
  """
  norms = np.linalg.norm(table, axis=-1, keepdims=True)
  directions = np.asarray(table / np.where(norms > 0, norms, 1), np.float32)

  def semantic(embedding: Float[Array, "*b d"], label: Int[Array, "*b"]) -> Float[Array, "*b"]:
    _check_size(embedding, table)
    # The floor is inside the root, whose own gradient at 0 is infinite.
    length = jnp.sqrt(jnp.maximum((embedding**2).sum(axis=-1, keepdims=True), 1e-6))
    return weight * cross_entropy(embedding / length @ directions.T / temperature, label)

  return semantic


EMBEDDING = {"mse": embedding_regression, "contrastive": embedding_contrast}


def _of_label(table: np.ndarray, label: Array) -> Array:
  """The entries of the labels, NaN for a label outside [0, K)."""
  rows = jnp.asarray(table).at[label]
  return rows.get(mode="fill", fill_value=jnp.nan, wrap_negative_indices=False)


def _check_size(embedding: Array, table: np.ndarray):
  size, expected = embedding.shape[-1], table.shape[-1]
  if size != expected:  # a size of 1 would be repeated silently
    raise ValueError(f"size of the embedding: expected {expected} as in the table, got {size}")
