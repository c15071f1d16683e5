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


def test_figures_of_each_class_by_hand():
  found = metrics.per_class(LABELS, PROBABILITIES.argmax(axis=-1), ["a", "b", "c", "d"])
  names = ("name", "count", "accuracy", "precision", "f1", "confused_with", "confused")
  assert [tuple(one[name] for name in names) for one in found] == [
    ("a", 3, pytest.approx(2 / 3), 1.0, pytest.approx(4 / 5), "b", 1),
    ("b", 1, 1.0, pytest.approx(1 / 3), 0.5, None, 0),
    ("c", 1, 0.0, None, 0.0, "b", 1),
    ("d", 0, None, None, None, None, 0),
  ]


def test_means_of_the_figures_of_classes_are_those_of_the_summary():
  rng = np.random.default_rng(0)
  probabilities, labels = rng.dirichlet(np.ones(7), size=40), rng.integers(6, size=40)
  summary = metrics.summary(probabilities, labels, 7)
  found = metrics.per_class(labels, probabilities.argmax(-1), list("abcdefg"))
  for mean, name in (("mean_class", "accuracy"), ("macro_f1", "f1")):
    values = [one[name] for one in found if one[name] is not None]
    assert np.mean(values) == pytest.approx(summary[mean])


def test_calibration_by_hand():
  sure = np.array([0.6, 0.7, 0.75, 1.0, 0.5])
  found = metrics.calibration(np.stack([sure, 1 - sure], 1), np.array([0, 1, 0, 0, 0]), num_bins=4)
  assert found["count"].tolist() == [0, 1, 3, 1]  # an edge is in the bin below it
  np.testing.assert_allclose(found["confidence"], [np.nan, 0.5, 2.05 / 3, 1])
  np.testing.assert_allclose(found["accuracy"], [np.nan, 1, 2 / 3, 1])
  assert found["error"] == pytest.approx((0.5 + 3 * abs(2 - 2.05) / 3) / 5)


def test_what_is_as_sure_as_it_is_right_has_no_calibration_error():
  probabilities = np.tile([0.75, 0.25], (4, 1))
  assert metrics.calibration(probabilities, np.array([0, 0, 1, 0]))["error"] == 0


@pytest.mark.parametrize(
  ("num_classes", "names"), [(5, "top1 mean_class macro_f1"), (6, "top1 top5 mean_class macro_f1")]
)
def test_top_5_of_five_classes_is_no_figure(num_classes, names):
  summary = metrics.summary(np.eye(num_classes), np.arange(num_classes), num_classes)
  assert [*metrics.titles(summary, num_classes)] == names.split()
  assert [*metrics.titles([*summary, "auc"], 2)] == ["top1", "mean_class", "macro_f1", "auc"]


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


def test_nan_is_refused_by_the_bootstrap_too():
  with pytest.raises(ValueError, match="expected finite"):
    metrics.bootstrap(PROBABILITIES * np.nan, LABELS)
  with pytest.raises(ValueError, match="labels: expected 0 to 3, got -1"):
    metrics.bootstrap(PROBABILITIES, LABELS - 1)


def some_clips(n, k):
  rng = np.random.default_rng(0)
  labels = rng.integers(k, size=n)
  return rng.dirichlet(np.ones(k), n) + 0.3 * np.eye(k)[labels], labels


def test_each_bootstrap_sample_is_the_summary_of_the_clips_drawn():
  probabilities, labels = some_clips(60, 7)
  samples = metrics.bootstrap(probabilities, labels, num_samples=130, seed=3)
  clips = np.random.default_rng(3).integers(60, size=(130, 60))
  for i in (0, 99, 100, 129):
    expected = metrics.summary(probabilities[clips[i]], labels[clips[i]], 7)
    for name, values in samples.items():
      assert values.shape == (130,)
      assert values[i] == pytest.approx(expected[name])


def test_the_samples_are_the_same_however_many_fit_in_memory(monkeypatch):
  probabilities, labels = some_clips(61, 7)
  whole = metrics.bootstrap(probabilities, labels, num_samples=130)
  for most in (1, 61 * 50):
    monkeypatch.setattr(metrics, "_MOST", most)
    samples = metrics.bootstrap(probabilities, labels, num_samples=130)
    assert all((samples[name] == whole[name]).all() for name in whole)


def test_interval_of_top1_is_that_of_a_binomial():
  probabilities, labels = some_clips(400, 27)
  accuracy = metrics.summary(probabilities, labels, 27)["top1"]
  low, high = metrics.interval(metrics.bootstrap(probabilities, labels)["top1"])
  half = 1.96 * np.sqrt(accuracy * (1 - accuracy) / 400)
  assert (low, high) == pytest.approx((accuracy - half, accuracy + half), abs=0.01)


def test_bootstrap_is_paired_and_repeats_itself():
  probabilities, labels = some_clips(50, 5)
  one, two = (metrics.bootstrap(probabilities, labels, num_samples=20) for _ in range(2))
  assert all((one[name] == two[name]).all() for name in one)
  # A classifier that errs on one clip more: never better in any sample, though both vary widely.
  worse = probabilities.copy()
  hit = np.flatnonzero(worse.argmax(1) == labels)[0]
  worse[hit] = np.eye(5)[(labels[hit] + 1) % 5]
  difference = metrics.bootstrap(worse, labels, num_samples=20)["top1"] - one["top1"]
  assert (difference <= 0).all()
  assert difference.min() < 0
  assert one["top1"].std() > 2 * difference.std()


def test_auc_is_how_often_a_clip_of_class_1_scores_above_one_of_class_0():
  rng = np.random.default_rng(0)
  scores, labels = rng.integers(0, 8, 40) / 8, rng.integers(0, 2, 40)
  weights = rng.integers(0, 3, (5, 40))
  for row, found in zip(weights, metrics.auc(scores, labels, weights), strict=True):
    above = np.sign(scores[labels == 1][:, None] - scores[labels == 0]) / 2 + 0.5
    both = row[labels == 1][:, None] * row[labels == 0]
    np.testing.assert_allclose(found, (above * both).sum() / both.sum())
  found = metrics.summary(np.stack([1 - scores, scores], 1), labels, 2)
  np.testing.assert_allclose(found["auc"], (np.sign(above * 2 - 1) / 2 + 0.5).mean())
  assert "auc" not in metrics.summary(np.stack([1 - scores, scores], 1), np.ones(40, int), 2)


def test_groups_are_drawn_with_all_of_their_clips():
  rng = np.random.default_rng(1)
  labels, groups = rng.integers(0, 2, 60), rng.integers(0, 7, 60)
  right = rng.random(60) < 0.7
  probabilities = np.where((labels == 1) == right, 0.8, 0.2)
  probabilities = np.stack([1 - probabilities, probabilities], 1)
  samples = metrics.bootstrap_groups(probabilities, labels, groups, num_samples=50)
  drawn = np.random.default_rng(0).multinomial(7, np.full(7, 1 / 7), size=50)
  for k in (0, 49):
    clips = np.repeat(np.arange(60), drawn[k][groups])
    expected = metrics.summary(probabilities[clips], labels[clips], 2)
    for name, found in samples.items():
      np.testing.assert_allclose(found[k], expected[name], err_msg=name)


def test_interval_holds_the_middle_of_the_samples():
  assert metrics.interval(np.arange(101.0)) == pytest.approx((2.5, 97.5))
  assert metrics.interval(np.arange(101.0), level=0.5) == pytest.approx((25, 75))
