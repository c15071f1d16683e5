import numpy as np
import pytest

from jaxmg.training import metrics

# Labels 0 0 0 1 2; predictions 0 0 1 1 1; class 3 occurs nowhere.
LABELS = np.array([0, 0, 0, 1, 2])
PROBABILITIES = np.array(
  [
    [0.7, 0.1, 0.1, 0.1],
    [0.4, 0.3, 0.2, 0.1],
    [0.3, 0.5, 0.1, 0.1],
    [0.1, 0.6, 0.2, 0.1],
    [0.2, 0.5, 0.3, 0.0],
  ]
)


def test_summary_of_five_clips_by_hand():
  summary = metrics.summary(PROBABILITIES, LABELS, 4)
  assert summary == pytest.approx(
    {
      "top1": 3 / 5,
      "top5": 1.0,
      "mean_class": (2 / 3 + 1 + 0) / 3,
      "macro_f1": (2 * 2 / 5 + 2 * 1 / 4 + 0) / 3,
      "majority_class": 3 / 5,
      "num_clips": 5,
    }
  )


def test_confusion_has_labels_as_rows():
  confusion = metrics.confusion_matrix(LABELS, PROBABILITIES.argmax(axis=-1), 4)
  assert confusion.tolist() == [[2, 1, 0, 0], [0, 1, 0, 0], [0, 1, 0, 0], [0, 0, 0, 0]]


def test_top_k_counts_the_first_of_equal_classes():
  equal = np.full((3, 4), 0.25)
  labels = np.array([0, 1, 2])
  assert [metrics.top_k(equal, labels, k) for k in (1, 2, 3)] == pytest.approx([1 / 3, 2 / 3, 1])


@pytest.mark.parametrize(
  ("probabilities", "labels", "message"),
  [
    (PROBABILITIES[:, :3], LABELS, r"expected \[clips, 4\], got \[5, 3\]"),
    (PROBABILITIES[:0], LABELS[:0], r"got \[0, 4\]"),
    (PROBABILITIES, LABELS - 1, "labels: expected 0 to 3, got -1 to 1"),
    (PROBABILITIES, LABELS + 2, "labels: expected 0 to 3, got 2 to 4"),
    (PROBABILITIES * np.nan, LABELS, "expected finite"),
  ],
)
def test_figures_of_nonsense_are_refused(probabilities, labels, message):
  with pytest.raises(ValueError, match=message):
    metrics.summary(probabilities, labels, 4)
