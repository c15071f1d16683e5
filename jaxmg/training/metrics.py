"""Figures of a classifier from its probabilities and the labels (host, numpy)."""

from collections.abc import Collection, Sequence

import numpy as np
from jaxtyping import Float, Int

from jaxmg import shapes

_MOST = 1 << 22  # numbers of bootstrap samples in memory at a time: clips, or confusion matrices

# The figures of `summary` that people compare, as they write them.
TITLES = {"top1": "top-1", "top5": "top-5", "mean_class": "mean-class", "macro_f1": "macro-F1"}
TITLES_OF_TWO = {name: TITLES[name] for name in ("top1", "mean_class", "macro_f1")} | {"auc": "AUC"}


def top_k(probabilities: Float[np.ndarray, "n k"], labels: Int[np.ndarray, " n"], k: int) -> float:
  """Share of clips whose label is among the `k` most probable classes (of equals, the first)."""
  return float(_among_top(probabilities, labels, k).mean())


def confusion_matrix(
  labels: Int[np.ndarray, " n"], predictions: Int[np.ndarray, " n"], num_classes: int
) -> Int[np.ndarray, "k k"]:
  """Counts of clips: row = label, column = prediction."""
  counts = np.bincount(labels * num_classes + predictions, minlength=num_classes**2)
  return counts.reshape(num_classes, num_classes)


def mean_class_accuracy(confusion: Int[np.ndarray, "*b k k"]) -> Float[np.ndarray, "*b"] | float:
  """Mean over the classes that have clips of the share recognised."""
  return _mean_ratio(np.diagonal(confusion, axis1=-2, axis2=-1), confusion.sum(axis=-1))


def macro_f1(confusion: Int[np.ndarray, "*b k k"]) -> Float[np.ndarray, "*b"] | float:
  """Mean F1 over the classes that occur as a label or as a prediction, as in scikit-learn."""
  total = confusion.sum(axis=-2) + confusion.sum(axis=-1)
  return _mean_ratio(2 * np.diagonal(confusion, axis1=-2, axis2=-1), total)


def majority_class_rate(labels: Int[np.ndarray, " n"]) -> float:
  """Accuracy of always answering the most frequent class of `labels`."""
  return float(np.bincount(labels).max() / len(labels))


def summary(
  probabilities: Float[np.ndarray, "n k"], labels: Int[np.ndarray, " n"], num_classes: int
) -> dict[str, float]:
  """Returns top1, top5, mean_class, macro_f1 and majority_class, all in [0, 1], and num_clips.

  Of two classes `auc`, too, if both have clips; mean_class is then the balanced accuracy.

  Raises:
    ValueError: no clips, a label or a number of columns that does not fit, or a NaN.
  """
  _check(probabilities, labels, num_classes)
  confusion = confusion_matrix(labels, probabilities.argmax(axis=-1), num_classes)
  return {
    "top1": top_k(probabilities, labels, 1),
    "top5": top_k(probabilities, labels, 5),
    "mean_class": mean_class_accuracy(confusion),
    "macro_f1": macro_f1(confusion),
    "majority_class": majority_class_rate(labels),
    "num_clips": len(labels),
  } | _auc_of_two(probabilities, labels)


def titles(summary: Collection[str], num_classes: int) -> dict[str, str]:
  """Of the names in a summary, those that say something with so many classes; their titles."""
  found = TITLES_OF_TWO if "auc" in summary else TITLES
  return {name: title for name, title in found.items() if name != "top5" or num_classes > 5}


def per_class(
  labels: Int[np.ndarray, " n"], predictions: Int[np.ndarray, " n"], class_names: Sequence[str]
) -> list[dict[str, str | int | float | None]]:
  """Returns a dictionary for each class, in their order.

  name          of the class
  count         how many clips have it as their label
  accuracy      share of these that are recognised (recall); None without clips
  precision     share of the clips that are taken for it that have it as label; None if none is
  f1            2 hits / (label + prediction counts); None for a class that is neither
  confused_with the class that its clips are most often wrongly taken for (of equals, the first)
  confused      how many are; 0, and None as the class, where all are recognised
  """
  counts = confusion_matrix(labels, predictions, len(class_names))
  wrong = counts.copy()
  np.fill_diagonal(wrong, 0)
  found = []
  for k, name in enumerate(class_names):
    hits, count, taken = (int(x) for x in (counts[k, k], counts[k].sum(), counts[:, k].sum()))
    other = int(wrong[k].argmax())
    confused = int(wrong[k, other])
    found.append(
      {
        "name": name,
        "count": count,
        "accuracy": hits / count if count else None,
        "precision": hits / taken if taken else None,
        "f1": 2 * hits / (count + taken) if count + taken else None,
        "confused_with": class_names[other] if confused else None,
        "confused": confused,
      }
    )
  return found


def calibration(
  probabilities: Float[np.ndarray, "n k"], labels: Int[np.ndarray, " n"], *, num_bins: int = 15
) -> dict[str, Float[np.ndarray, " bins"] | Int[np.ndarray, " bins"] | float]:
  """Whether a classifier that is 80 % sure is right in 80 % of the clips (Guo et al., ICML 2017).

  Clips are put into `num_bins` bins of equal width by the probability of their most probable class;
  a bin holds its upper edge. Returns `count`, `confidence` (the mean of these probabilities) and
  `accuracy` of each bin, NaN where it is empty, and `error`, the expected calibration error: the
  mean over clips of |accuracy - confidence| of their bin.

  Raises:
    ValueError: as `summary`.
  """
  _check(probabilities, labels, probabilities.shape[1])
  sure = np.float64(probabilities.max(axis=-1))
  hits = probabilities.argmax(axis=-1) == labels
  bins = np.clip(np.ceil(sure * num_bins).astype(int) - 1, 0, num_bins - 1)
  count = np.bincount(bins, minlength=num_bins)
  with np.errstate(invalid="ignore"):
    confidence, accuracy = (
      np.bincount(bins, weights=x, minlength=num_bins) / count for x in (sure, hits)
    )
  error = np.nansum(count * np.abs(accuracy - confidence)) / len(labels)
  return {
    "count": count, "confidence": confidence, "accuracy": accuracy, "error": float(error),
  }  # fmt: skip


def bootstrap(
  probabilities: Float[np.ndarray, "n k"],
  labels: Int[np.ndarray, " n"],
  *,
  num_samples: int = 2000,
  seed: int = 0,
) -> dict[str, Float[np.ndarray, " samples"]]:
  """Returns top1, top5, mean_class and macro_f1 of samples of n clips, drawn with replacement.

  Which clips are drawn depends on n, `num_samples` and `seed` alone: of two classifiers of the same
  clips in the same order, the difference of the samples is a paired one. Clips of one person are
  alike, so that the spread is that of other clips of these persons, not of other persons.

  Raises:
    ValueError: as `summary`.
  """
  num_classes = probabilities.shape[1]
  _check(probabilities, labels, num_classes)
  rng = np.random.default_rng(seed)
  hits = np.stack([_among_top(probabilities, labels, k) for k in (1, 5)])
  cells = labels * num_classes + probabilities.argmax(axis=-1)
  block = max(1, _MOST // max(len(labels), num_classes**2))
  blocks = []
  for start in range(0, num_samples, block):
    count = min(block, num_samples - start)
    clips = rng.integers(len(labels), size=(count, len(labels)))
    # The confusion matrices of all samples of a block are one histogram.
    shifted = cells[clips] + np.arange(count)[:, None] * num_classes**2
    confusion = np.bincount(shifted.ravel(), minlength=count * num_classes**2)
    confusion = confusion.reshape(count, num_classes, num_classes)
    top1, top5 = hits[:, clips].mean(axis=-1)
    blocks.append((top1, top5, mean_class_accuracy(confusion), macro_f1(confusion)))
  names = ("top1", "top5", "mean_class", "macro_f1")
  return dict(zip(names, map(np.concatenate, zip(*blocks, strict=True)), strict=True))


def bootstrap_groups(
  probabilities: Float[np.ndarray, "n k"],
  labels: Int[np.ndarray, " n"],
  groups: np.ndarray,
  *,
  num_samples: int = 2000,
  seed: int = 0,
) -> dict[str, Float[np.ndarray, " samples"]]:
  """As `bootstrap`, of as many groups [N] as there are, drawn with replacement, with all clips.

  With subjects as groups, the spread is that of other persons. Of two classes there is `auc`, too:
  NaN in a sample of one class.

  Raises:
    ValueError: as `summary`.
  """
  num_classes = probabilities.shape[1]
  _check(probabilities, labels, num_classes)
  _, group = np.unique(groups, return_inverse=True)
  count, rng = group.max() + 1, np.random.default_rng(seed)
  # How often each group is drawn.
  drawn = rng.multinomial(count, np.full(count, 1 / count), size=num_samples)
  hits = np.stack([_among_top(probabilities, labels, k) for k in (1, 5)])
  cells = (group * num_classes + labels) * num_classes + probabilities.argmax(axis=-1)
  of_groups = np.bincount(cells, minlength=count * num_classes**2).reshape(count, -1)
  totals = drawn @ np.bincount(group)
  top1, top5 = (drawn @ np.bincount(group, weights=x) / totals for x in hits)
  found = {"top1": top1, "top5": top5, "mean_class": [], "macro_f1": []}
  block = max(1, _MOST // max(len(labels), num_classes**2))
  for start in range(0, num_samples, block):
    confusion = drawn[start : start + block] @ of_groups
    confusion = confusion.reshape(-1, num_classes, num_classes)
    found["mean_class"].append(mean_class_accuracy(confusion))
    found["macro_f1"].append(macro_f1(confusion))
  found = {name: x if isinstance(x, np.ndarray) else np.concatenate(x) for name, x in found.items()}
  if num_classes == 2 and len(np.unique(labels)) == 2:
    blocks = (drawn[start : start + block] for start in range(0, num_samples, block))
    parts = [auc(probabilities[:, 1], labels, counts[:, group]) for counts in blocks]
    found["auc"] = np.concatenate(parts)
  return found


def auc(
  scores: Float[np.ndarray, " n"],
  labels: Int[np.ndarray, " n"],
  weights: Float[np.ndarray, "s n"] | Int[np.ndarray, "s n"],
) -> Float[np.ndarray, " s"]:
  """The area under the ROC curve: how often a clip of class 1 scores above one of class 0.

  Equal scores count half. Of each row of `weights`, how much each clip counts; NaN where a class
  has none.
  """
  order = np.argsort(scores, kind="stable")
  equal = np.flatnonzero(np.diff(scores[order], prepend=-np.inf))  # where runs of equals begin
  weights = np.float64(weights[:, order])
  positive = np.add.reduceat(weights * (labels[order] == 1), equal, axis=1)
  negative = np.add.reduceat(weights * (labels[order] == 0), equal, axis=1)
  above = negative.cumsum(1) - negative / 2
  with np.errstate(invalid="ignore"):
    return (positive * above).sum(1) / (positive.sum(1) * negative.sum(1))


def _auc_of_two(probabilities, labels):
  if probabilities.shape[1] != 2 or len(np.unique(labels)) < 2:
    return {}
  return {"auc": float(auc(probabilities[:, 1], labels, np.ones((1, len(labels))))[0])}


def interval(samples: Float[np.ndarray, " samples"], *, level: float = 0.95) -> tuple[float, float]:
  """The middle share `level` of bootstrap samples (the percentile interval)."""
  low, high = np.nanquantile(samples, [(1 - level) / 2, (1 + level) / 2])
  return float(low), float(high)


def _among_top(probabilities, labels, k):
  ranked = np.argsort(-probabilities, axis=-1, kind="stable")[:, :k]
  return (ranked == labels[:, None]).any(axis=-1)


def _mean_ratio(part, whole):
  """The mean of part / whole over the last axis, where whole is not 0."""
  return (part / np.maximum(whole, 1)).sum(axis=-1) / (whole > 0).sum(axis=-1)


def _check(probabilities, labels, num_classes):
  shapes.check("probabilities", probabilities, "float", "...")
  if probabilities.shape[1:] != (num_classes,) or not len(labels):
    raise ValueError(
      f"probabilities: expected [clips, {num_classes}], got {list(probabilities.shape)}"
    )
  shapes.check("labels", labels, "int", len(probabilities))
  if labels.min() < 0 or labels.max() >= num_classes:
    raise ValueError(
      f"labels: expected 0 to {num_classes - 1}, got {labels.min()} to {labels.max()}"
    )
  if not np.isfinite(probabilities).all():
    raise ValueError("probabilities: expected finite numbers, got NaN or infinity")
