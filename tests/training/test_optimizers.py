import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmg import errors
from jaxmg.training import optimizers


def rates(name, counts, **options):
  schedule = optimizers.schedule(name, learning_rate=0.4, steps=100, **options)
  return [float(schedule(count)) for count in counts]


def test_cosine_falls_from_the_rate_to_zero():
  counts = [0, 25, 50, 99, 100]
  expected = [0.2 * (1 + math.cos(math.pi * count / 100)) for count in counts]
  assert rates("cosine", counts) == pytest.approx(expected, abs=1e-7)
  assert rates("cosine", [100, 200]) == [0, 0]


def test_warm_up_rises_to_the_rate_and_the_cosine_starts_there():
  assert rates("cosine", [0, 1, 9], warmup_steps=10) == pytest.approx([0.04, 0.08, 0.4])
  assert rates("cosine", [10, 55, 100], warmup_steps=10) == pytest.approx([0.4, 0.2, 0], abs=1e-7)


def test_step_multiplies_by_the_factor_at_each_milestone():
  options = dict(milestones=(40, 80), factor=0.1, warmup_steps=4)
  found = rates("step", [0, 3, 4, 39, 40, 79, 80, 99], **options)
  assert found == pytest.approx([0.1, 0.4, 0.4, 0.4, 0.04, 0.04, 0.004, 0.004])
  assert rates("step", [0, 99]) == pytest.approx([0.4, 0.4])


def test_learning_rate_follows_the_batch_size():
  rate = optimizers.scaled_learning_rate(0.4, batch_size=32, reference_batch=256)
  assert rate == pytest.approx(0.05)


@pytest.mark.parametrize(
  "make",
  [
    lambda: optimizers.schedule("linear", learning_rate=1.0, steps=1),
    lambda: optimizers.optimizer("lamb", lambda count: 1),
    lambda: optimizers.optimizer("sgd", lambda count: 1, decay="none"),
  ],
)
def test_unknown_names_list_the_known_ones(make):
  with pytest.raises(errors.ConfigError, match=r"expected .* or .*, got"):
    make()


PARAMS = {"layer": {"kernel": np.array([[1.0, -2.0]]), "bias": np.array([0.5])}}
SCHEDULE = lambda count: 0.1 / (1 + count)  # noqa: E731


def run(optimizer, num_steps=4):
  """Minimises sum(p^3 / 3), whose gradient is p^2, and returns the flat parameters."""
  params = jax.tree.map(jnp.asarray, PARAMS)
  state = optimizer.init(params)
  for _ in range(num_steps):
    updates, state = optimizer.update(jax.tree.map(jnp.square, params), state, params)
    params = optax.apply_updates(params, updates)
  return np.append(params["layer"]["kernel"].ravel(), params["layer"]["bias"])


def decayed(decay):
  return np.array([0.01, 0.01, 0.01 if decay == "all" else 0.0])


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.parametrize("decay", ["all", "kernels"])
@pytest.mark.parametrize("clip_norm", [None, 0.5])
def test_sgd_is_that_of_pytorch(nesterov, decay, clip_norm):
  p, buffer = np.array([1.0, -2.0, 0.5]), 0.0
  for count in range(4):
    g = p**2
    if clip_norm:
      g *= min(1, clip_norm / np.linalg.norm(g))
    g += decayed(decay) * p
    buffer = 0.9 * buffer + g
    p = p - SCHEDULE(count) * (g + 0.9 * buffer if nesterov else buffer)
  optimizer = optimizers.optimizer(
    "sgd", SCHEDULE, weight_decay=0.01, decay=decay, nesterov=nesterov, clip_norm=clip_norm
  )
  np.testing.assert_allclose(run(optimizer), p, rtol=1e-5)


@pytest.mark.parametrize("decay", ["all", "kernels"])
def test_adamw_is_that_of_pytorch(decay):
  p, m, v = np.array([1.0, -2.0, 0.5]), 0.0, 0.0
  for count in range(4):
    g = p**2
    p = p * (1 - SCHEDULE(count) * decayed(decay))
    m, v = 0.9 * m + 0.1 * g, 0.95 * v + 0.05 * g**2
    corrected = np.sqrt(v / (1 - 0.95 ** (count + 1)))
    p = p - SCHEDULE(count) * m / (1 - 0.9 ** (count + 1)) / (corrected + 1e-8)
  optimizer = optimizers.optimizer(
    "adamw", SCHEDULE, weight_decay=0.01, decay=decay, betas=(0.9, 0.95)
  )
  np.testing.assert_allclose(run(optimizer), p, rtol=1e-5)


# --- layer-wise decay


@pytest.mark.parametrize(("name", "decay"), [("sgd", "all"), ("adamw", "kernels")])
def test_the_rate_of_each_layer_is_multiplied_by_its_factor(name, decay):
  params = {layer: {"kernel": jnp.ones(3), "bias": jnp.ones(2)} for layer in ("a", "b", "c")}
  gradient = jax.tree.map(lambda x: 0.1 * x, params)
  factors = optimizers.layer_factors(("a/.*", "b/.*", "c/.*"), 0.5)
  updates = []
  for given in (None, factors):
    made = optimizers.optimizer(name, SCHEDULE, weight_decay=0.1, decay=decay, factors=given)
    updates.append(made.update(gradient, made.init(params), params)[0])
  plain, found = updates
  for layer, factor in (("a", 0.25), ("b", 0.5), ("c", 1.0)):
    for leaf, update in found[layer].items():
      np.testing.assert_allclose(update, factor * plain[layer][leaf], rtol=1e-6)


@pytest.mark.parametrize(("pattern", "number"), [("other/.*", 0), ("layer/.*|.*", 2)])
def test_a_parameter_of_no_factor_or_of_two_is_named(pattern, number):
  factors = {pattern: 1.0, "layer/bias|.*kernel": 1.0} if number else {pattern: 1.0}
  made = optimizers.optimizer("sgd", SCHEDULE, factors=factors)
  with pytest.raises(ValueError, match=f"one pattern that matches layer/.*, got {number}"):
    run(made, 1)
