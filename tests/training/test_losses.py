import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmg.training import losses

LOGITS = jnp.array([[2.0, -1.0, 0.5], [0.0, 3.0, 3.0]])


def test_cross_entropy_is_minus_log_of_the_labels_probability():
  loss = losses.cross_entropy(LOGITS, jnp.array([0, 2]))
  expected = -np.log(np.array(jax.nn.softmax(LOGITS))[[0, 1], [0, 2]])
  np.testing.assert_allclose(loss, expected, rtol=1e-6)


def test_label_smoothing_mixes_in_the_mean_over_all_classes():
  label = jnp.array([0, 2])
  smoothed = losses.cross_entropy(LOGITS, label, label_smoothing=0.1)
  uniform = -jax.nn.log_softmax(LOGITS).mean(axis=-1)
  expected = 0.9 * losses.cross_entropy(LOGITS, label) + 0.1 * uniform
  np.testing.assert_allclose(smoothed, expected, rtol=1e-6)


@pytest.mark.parametrize("label", [-1, 3])
def test_label_outside_the_classes_makes_the_loss_nan(label):
  assert np.isnan(losses.cross_entropy(LOGITS, jnp.array([label, 0]))).tolist() == [True, False]


def test_classification_returns_mean_loss_and_accuracy():
  batch = {"label": jnp.array([0, 2])}
  loss, metrics = losses.classification(label_smoothing=0.1)(LOGITS, {}, batch)
  expected = losses.cross_entropy(LOGITS, batch["label"], label_smoothing=0.1).mean()
  assert loss == expected
  assert metrics == {"accuracy": 0.5}  # of the two equal logits the first one counts


def test_log_prior_is_added_to_the_logits_in_the_loss_alone():
  logits, batch = jnp.array([[2.0, 1.0], [0.0, 0.5]]), {"label": jnp.array([0, 1])}
  log_prior = np.log(np.array([0.9, 0.1], np.float32))
  loss, metrics = losses.classification(log_prior=log_prior)(logits, {}, batch)
  expected, _ = losses.classification()(logits + log_prior, {}, batch)
  np.testing.assert_allclose(loss, expected, rtol=1e-6)
  assert metrics["accuracy"] == 1


# --- class weights


def test_inverse_class_weights_by_hand():
  weights = losses.class_weights(np.array([1, 4, 15]), "inverse")
  # 20 clips in 3 classes: each class together counts 20 / 3.
  np.testing.assert_allclose(weights, [20 / 3, 20 / 12, 20 / 45], rtol=1e-6)
  assert weights.dtype == np.float32


def test_square_root_class_weights_by_hand():
  weights = losses.class_weights(np.array([1, 4, 25]), "square_root")
  np.testing.assert_allclose(weights, 30 / 8 * np.array([1, 1 / 2, 1 / 5]), rtol=1e-6)


@pytest.mark.parametrize("kind", ["inverse", "square_root"])
def test_class_weights_have_the_mean_1_over_clips(kind):
  counts = np.array([10, 418, 39, 0, 4023, 2, 1])
  weights = losses.class_weights(counts, kind)
  np.testing.assert_allclose((counts * weights).sum(), counts.sum(), rtol=1e-6)
  assert weights[3] == weights[6]  # without clips, as with one
  np.testing.assert_array_equal(losses.class_weights(np.full(4, 7), kind), np.ones(4))


@pytest.mark.parametrize(
  ("counts", "kind", "message"),
  [
    ([1, 2], "square", "expected inverse or square_root, got 'square'"),
    ([1, -2], "inverse", r"expected clips, got \[1, -2\]"),
    ([0, 0], "inverse", r"expected clips, got \[0, 0\]"),
  ],
)
def test_impossible_class_weights_are_refused(counts, kind, message):
  with pytest.raises(ValueError, match=message):
    losses.class_weights(np.array(counts), kind)


def test_class_weights_multiply_each_clips_loss_and_not_the_accuracy():
  batch = {"label": jnp.array([0, 2])}
  weights = np.array([3, 5, 0.5], np.float32)
  loss, metrics = losses.classification(class_weights=weights)(LOGITS, {}, batch)
  first, second = losses.cross_entropy(LOGITS, batch["label"])
  np.testing.assert_allclose(loss, (3 * first + 0.5 * second) / 2, rtol=1e-6)
  assert metrics == {"accuracy": 0.5}


def test_weighted_loss_of_a_batch_is_the_mean_of_its_parts():
  weights = np.array([3, 5, 0.5], np.float32)
  loss_fn = losses.classification(class_weights=weights)
  labels = jnp.array([0, 2])
  whole, _ = loss_fn(LOGITS, {}, {"label": labels})
  parts = [loss_fn(LOGITS[i : i + 1], {}, {"label": labels[i : i + 1]})[0] for i in range(2)]
  np.testing.assert_allclose(whole, np.mean(parts), rtol=1e-6)


@pytest.mark.parametrize("label", [-1, 3])
def test_label_outside_the_classes_makes_the_weighted_loss_nan(label):
  weights = np.zeros(3, np.float32)
  loss, _ = losses.classification(class_weights=weights)(
    LOGITS, {}, {"label": jnp.array([label, 0])}
  )
  assert np.isnan(loss)


# --- label embeddings

TABLE = np.array([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]], np.float32)


def test_embedding_regression_by_hand():
  semantic = losses.embedding_regression(TABLE)
  loss = semantic(jnp.array([[1.0, 3.0], [0.5, 2.0]]), jnp.array([0, 1]))
  np.testing.assert_allclose(loss, [20 * 9 / 2, 20 * 0.25 / 2])
  half = losses.embedding_regression(TABLE, weight=10.0)
  np.testing.assert_allclose(half(jnp.zeros((1, 2)), jnp.array([2])), [45])


def test_embedding_contrast_by_hand():
  semantic = losses.embedding_contrast(TABLE, weight=2.0, temperature=0.5)
  # Cosines with the rows: 0.6, 0.8, -0.6; the lengths play no part.
  cosines = np.array([0.6, 0.8, -0.6])
  expected = -2 * np.log(np.exp(cosines / 0.5) / np.exp(cosines / 0.5).sum())
  loss = semantic(jnp.array([[3.0, 4.0], [30, 40], [0.3, 0.4]]), jnp.array([0, 1, 2]))
  np.testing.assert_allclose(loss, expected, rtol=1e-5)


def test_embedding_losses_equal_their_formulas_in_numpy():
  rng = np.random.default_rng(0)
  table = rng.normal(size=(7, 30)).astype(np.float32)
  embedding = rng.normal(size=(5, 30)).astype(np.float32)
  label = np.array([0, 6, 3, 3, 1])
  expected = 20 * np.square(embedding - table[label]).sum(1) / 30
  regression = losses.embedding_regression(table)
  np.testing.assert_allclose(
    regression(jnp.array(embedding), jnp.array(label)), expected, rtol=1e-5
  )

  products = np.einsum("bd,kd->bk", embedding, table).astype(np.float64)
  products /= np.sqrt(np.einsum("bd,bd->b", embedding, embedding))[:, None]
  products /= np.sqrt(np.einsum("kd,kd->k", table, table)) * 0.1
  expected = 3 * (np.log(np.exp(products).sum(1)) - products[range(5), label])
  contrast = losses.embedding_contrast(table, weight=3.0, temperature=0.1)
  np.testing.assert_allclose(contrast(jnp.array(embedding), jnp.array(label)), expected, rtol=1e-4)


def test_the_gradient_of_a_zero_embedding_is_finite_and_turns_it_to_its_label():
  contrast = losses.embedding_contrast(TABLE, weight=1.0, temperature=0.1)
  gradient = jax.grad(lambda x: contrast(x, jnp.array([1])).sum())(jnp.zeros((1, 2)))
  assert np.isfinite(gradient).all()
  assert gradient[0, 1] < 0
  with_zero = losses.embedding_contrast(np.eye(3, 2), weight=1.0, temperature=0.1)
  gradient = jax.grad(lambda x: with_zero(x, jnp.array([2])).sum())(jnp.ones((1, 2)))
  assert np.isfinite(gradient).all()


SEMANTICS = [
  losses.embedding_regression(TABLE),
  losses.embedding_contrast(TABLE, weight=1.0, temperature=0.1),
]


@pytest.mark.parametrize("semantic", SEMANTICS)
@pytest.mark.parametrize("label", [-1, 3])
def test_label_outside_the_table_makes_the_embedding_loss_nan(semantic, label):
  assert np.isnan(semantic(jnp.ones((2, 2)), jnp.array([label, 0]))).tolist() == [True, False]


@pytest.mark.parametrize("semantic", SEMANTICS)
def test_an_embedding_of_another_size_is_refused(semantic):
  with pytest.raises(ValueError, match="expected 2 as in the table, got 1"):
    semantic(jnp.ones((3, 1)), jnp.array([0, 1, 2]))


def test_classification_adds_the_mean_semantic_loss_and_reports_it():
  batch, out = {"label": jnp.array([0, 1])}, {"embedding": jnp.array([[1.0, 3.0], [0.5, 2.0]])}
  weights = np.array([1, 2, 3], np.float32)
  loss_fn = losses.classification(
    class_weights=weights, semantic=losses.embedding_regression(TABLE)
  )
  loss, metrics = loss_fn(LOGITS, out, batch)
  bare, _ = losses.classification(class_weights=weights)(LOGITS, {}, batch)
  assert metrics["semantic_loss"] == (90 + 2.5) / 2
  np.testing.assert_allclose(loss, bare + 46.25, rtol=1e-6)
