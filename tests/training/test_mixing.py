import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmg.training import losses, mixing, sharding

B = 64


@pytest.fixture(scope="module")
def clips():
  return jax.random.normal(jax.random.key(1), (B, 2, 6, 6, 1))


def keys(seed=0):
  return jax.random.split(jax.random.key(seed), B)


@functools.cache
def mix(**options):
  return jax.jit(functools.partial(mixing.mix, **options))


def test_mixup_is_the_mean_of_both_weighted_by_the_share(clips):
  found, share = mix(mixup=0.8)(keys(), clips)
  weight = np.asarray(share)[:, None, None, None, None]
  expected = weight * np.asarray(clips) + (1 - weight) * np.asarray(clips)[::-1]
  np.testing.assert_allclose(found, expected, atol=1e-6)
  assert 0 <= share.min() < 0.1
  assert 0.9 < share.max() <= 1


def test_cutmix_shows_the_other_in_one_box_and_the_share_is_that_of_pixels(clips):
  found, share = mix(cutmix=1.0)(keys(), clips)
  own = np.asarray(found == clips)
  other = np.asarray(found == clips[::-1])
  assert (own ^ other).all()
  assert (own == own[:, :1]).all()  # in all frames
  np.testing.assert_allclose(share, own.mean((1, 2, 3, 4)), atol=1e-6)
  for inside in other[:, 0, :, :, 0]:
    rows, columns = inside.any(1), inside.any(0)
    assert (inside == rows[:, None] & columns).all()
    for side in (rows, columns):
      assert (np.diff(side.astype(int)) == 1).sum() <= 1  # no hole in it
  assert len(np.unique(share)) > 8


def test_with_both_each_clip_draws_which(clips):
  found, _ = mix(mixup=0.8, cutmix=1.0)(keys(), clips)
  cut = np.asarray((found == clips) | (found == clips[::-1])).all((1, 2, 3, 4)).mean()
  assert 0.25 < cut < 0.75


def test_shares_are_drawn_from_the_beta_distribution():
  many = jax.random.split(jax.random.key(3), 2000)
  _, share = mix(mixup=0.8)(many, jnp.zeros((2000, 1, 1, 1, 1)))
  np.testing.assert_allclose(share.mean(), 1 / 2, atol=0.03)
  np.testing.assert_allclose(share.var(), 1 / (4 * (2 * 0.8 + 1)), atol=0.01)


def test_a_clips_share_is_its_keys(clips):
  _, share = mix(mixup=0.8)(keys(), clips)
  _, reordered = mix(mixup=0.8)(keys()[::-1], clips)
  np.testing.assert_array_equal(reordered[::-1], share)
  assert (mix(mixup=0.8)(keys(seed=5), clips)[1] != share).mean() > 0.9


def test_nothing_is_mixed_without_either(clips):
  found, share = mixing.mix(keys(), clips)
  np.testing.assert_array_equal(found, clips)
  assert (share == 1).all()


def test_one_and_eight_devices_mix_the_same(clips):
  step = mixing.mixed(lambda keys, batch: (batch["x"], batch), mixup=0.8, cutmix=1.0)
  ends = []
  for count in (1, 8):
    rows = sharding.by_row(sharding.data_mesh(jax.devices()[:count]))
    jitted = jax.jit(step, in_shardings=(rows, rows), out_shardings=rows)
    ends.append(jax.device_get(jitted(keys(), {"x": clips, "label": jnp.arange(B)})))
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-6), *ends)
  np.testing.assert_array_equal(ends[0][1]["partner"], np.arange(B)[::-1])


def test_losses_and_accuracy_are_those_of_both_labels_by_their_shares():
  rng = np.random.default_rng(0)
  logits, weights = rng.normal(size=(6, 3)), np.array([0.5, 1.0, 2.0], np.float32)
  label, partner = rng.integers(3, size=(2, 6))
  share = rng.random(6)
  prior = np.log(np.float32([0.7, 0.2, 0.1]))
  table = np.eye(3, 2, dtype=np.float32)
  batch = jax.tree.map(jnp.asarray, {"label": label, "partner": partner, "share": share})
  options = dict(log_prior=prior, class_weights=weights, label_smoothing=0.1)
  semantic = losses.embedding_regression(table, weight=2.0)
  loss_fn = losses.classification(semantic=semantic, **options)
  loss, metrics = loss_fn(jnp.asarray(logits), {"embedding": jnp.ones((6, 2))}, batch)

  adjusted = logits + prior
  log = adjusted - np.log(np.exp(adjusted).sum(1, keepdims=True))
  expected = accuracy = distance = 0
  for labels, part in ((label, share), (partner, 1 - share)):
    target = 0.9 * np.eye(3)[labels] + 0.1 / 3
    expected += (part * weights[labels] * -(target * log).sum(1)).mean()
    accuracy += (part * (logits.argmax(1) == labels)).mean()
    distance += (part * 2 * ((1 - table[labels]) ** 2).mean(1)).mean()
  np.testing.assert_allclose(loss, expected + distance, rtol=1e-5)
  np.testing.assert_allclose(metrics["accuracy"], accuracy, rtol=1e-6)
  np.testing.assert_allclose(metrics["semantic_loss"], distance, rtol=1e-5)
