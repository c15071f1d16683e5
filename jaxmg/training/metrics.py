"""Figures of a classifier from its probabilities and the labels (host, numpy)."""

import numpy as np
from jaxtyping import Float, Int


def top_k(probabilities: Float[np.ndarray, "n k"], labels: Int[np.ndarray, " n"], k: int) -> float:
  """Share of clips whose label is among the `k` most probable classes (of equals, the first)."""
  ranked = np.argsort(-probabilities, axis=-1, kind="stable")[:, :k]
  return float((ranked == labels[:, None]).any(axis=-1).mean())


def confusion_matrix(
  labels: Int[np.ndarray, " n"], predictions: Int[np.ndarray, " n"], num_classes: int
) -> Int[np.ndarray, "k k"]:
  """Counts of clips: row = label, column = prediction."""
  counts = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
  return counts.reshape(num_classes, num_classes)


def mean_class_accuracy(confusion: Int[np.ndarray, "k k"]) -> float:
  """Mean over the classes that have clips of the share recognised."""
  clips = confusion.sum(axis=1)
  return float((confusion.diagonal()[clips > 0] / clips[clips > 0]).mean())


def macro_f1(confusion: Int[np.ndarray, "k k"]) -> float:
  """Mean F1 over the classes that occur as a label or as a prediction, as in scikit-learn."""
  total = confusion.sum(axis=0) + confusion.sum(axis=1)
  return float((2 * confusion.diagonal()[total > 0] / total[total > 0]).mean())


def majority_class_rate(labels: Int[np.ndarray, " n"]) -> float:
  """Accuracy of always answering the most frequent class of `labels`."""
  return float(np.bincount(labels).max() / len(labels))


def summary(
  probabilities: Float[np.ndarray, "n k"], labels: Int[np.ndarray, " n"], num_classes: int
) -> dict[str, float]:
  """Returns top1, top5, mean_class, macro_f1 and majority_class, all in [0, 1], and num_clips.

  Raises:
    ValueError: no clips, a label or a number of columns that does not fit, or a NaN.
  """
  if probabilities.shape[1:] != (num_classes,) or not len(labels):
    raise ValueError(
      f"probabilities: expected [clips, {num_classes}], got {list(probabilities.shape)}"
    )
  if labels.min() < 0 or labels.max() >= num_classes:
    raise ValueError(
      f"labels: expected 0 to {num_classes - 1}, got {labels.min()} to {labels.max()}"
    )
  if not np.isfinite(probabilities).all():
    raise ValueError("probabilities: expected finite numbers, got NaN or infinity")
  confusion = confusion_matrix(labels, probabilities.argmax(axis=-1), num_classes)
  return {
    "top1": top_k(probabilities, labels, 1),
    "top5": top_k(probabilities, labels, 5),
    "mean_class": mean_class_accuracy(confusion),
    "macro_f1": macro_f1(confusion),
    "majority_class": majority_class_rate(labels),
    "num_clips": len(labels),
  }
