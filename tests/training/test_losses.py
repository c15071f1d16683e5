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
