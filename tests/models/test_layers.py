import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.test_util import check_grads

from jaxmg.models import layers


def test_products_with_several_kernels_and_gradients_are_those_of_each():
  x = jax.random.normal(jax.random.key(0), (2, 5, 3))
  kernels = [*jax.random.normal(jax.random.key(1), (4, 3, 2))]
  gradients = [*jax.random.normal(jax.random.key(2), (4, 2, 5, 2))]

  def all_of(products):
    found, pullback = jax.vjp(products, x, kernels)
    return found, pullback(gradients), jax.jvp(products, (x, kernels), (x, kernels))

  same = functools.partial(np.testing.assert_allclose, atol=1e-5)
  each = lambda x, kernels: [x @ kernel for kernel in kernels]  # noqa: E731
  jax.tree.map(same, all_of(layers.dots), all_of(each))


@pytest.mark.parametrize(("platform", "products"), [("cpu", 4), ("cuda", 1), ("tpu", 1)])
def test_a_cpu_alone_takes_several_products_one_by_one(platform, products):
  x, kernels = jnp.zeros((2, 5, 3)), [jnp.zeros((3, 2))] * 4
  program = jax.jit(layers.dots).trace(x, kernels).lower(lowering_platforms=(platform,))
  assert program.as_text().count("dot_general") == products


def test_every_second_element_is_that_of_a_slice():
  x = jnp.arange(2 * 7 * 3).reshape(2, 7, 3)
  for stride in (1, 2):
    np.testing.assert_array_equal(layers.every(stride, x, axis=1), x[:, ::stride])
  with pytest.raises(ValueError, match="1 or 2, got 3"):
    layers.every(3, x, axis=1)


@pytest.mark.parametrize("train", [False, True])
def test_batch_norm_its_gradients_and_statistics_are_those_of_flax(train):
  x = 2 + jax.random.normal(jax.random.key(0), (3, 4, 5, 6))
  ours = functools.partial(layers.BatchNorm().apply, train=train, mutable=["batch_stats"])
  flax = nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5)
  theirs = functools.partial(flax.apply, mutable=["batch_stats"])
  variables = layers.BatchNorm().init(jax.random.key(1), x, train=train)
  assert jax.tree.structure(variables) == jax.tree.structure(flax.init(jax.random.key(1), x))
  variables = jax.tree.map(
    lambda leaf: leaf + jax.random.uniform(jax.random.key(2), leaf.shape), variables
  )
  found, expected = (
    (apply(variables, x), jax.grad(lambda *a, f=apply: (f(*a)[0] ** 3).sum(), (0, 1))(variables, x))
    for apply in (ours, theirs)
  )
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), found, expected)


@pytest.mark.parametrize("train", [False, True])
def test_batch_norm_of_a_shifted_input_adds_it_to_nothing_but_the_mean(train):
  x = jax.random.normal(jax.random.key(0), (3, 4, 6))
  shift = 2 + jnp.arange(6.0)
  apply = functools.partial(layers.BatchNorm().apply, train=train, mutable=["batch_stats"])
  variables = layers.BatchNorm().init(jax.random.key(1), x, train=train)
  found = apply(variables, x, shift=shift)
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, apply(variables, x + shift)
  )
  if train:
    gradient = jax.grad(lambda shift: (apply(variables, x, shift=shift)[0] ** 3).sum())(shift)
    np.testing.assert_array_equal(gradient, 0)


def test_max_pool_is_the_maximum_of_the_window():
  x = jax.random.normal(jax.random.key(0), (2, 3, 6, 5, 4))
  expected = jax.lax.reduce_window(
    x, -jnp.inf, jax.lax.max, (1, 1, 3, 3, 1), (1,) * 5, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)]
  )
  np.testing.assert_array_equal(layers.max_pool_3x3(x), expected)


def first_of_equal(x):
  """The maximum over columns, then over rows, of which each takes the first of equal values."""
  for axis in (-2, -3):
    size = x.shape[axis]
    padded = jnp.pad(
      x, [(int(i == axis % x.ndim),) * 2 for i in range(x.ndim)], constant_values=-jnp.inf
    )
    part = functools.partial(jax.lax.slice_in_dim, padded, axis=axis % x.ndim)
    before, after = part(0, size), part(2, size + 2)
    x = jnp.where(before >= x, before, x)
    x = jnp.where(after > x, after, x)
  return x


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_max_pool_gradient_goes_to_the_first_where_values_tie(dtype):
  x = jax.random.randint(jax.random.key(0), (2, 3, 6, 5, 4), 0, 3).astype(dtype)
  gradient = jax.random.randint(jax.random.key(1), x.shape, -4, 5).astype(dtype)
  (y, pullback), (expected, plain_pullback) = (
    jax.vjp(form, x) for form in (layers.max_pool_3x3, first_of_equal)
  )
  np.testing.assert_array_equal(y, expected)
  np.testing.assert_array_equal(pullback(gradient)[0], plain_pullback(gradient)[0])
  np.testing.assert_array_equal(layers.max_pool_3x3(x), expected)  # as without a gradient


def test_max_pool_keeps_a_pixel_that_is_nan():
  x = jnp.zeros((1, 3, 3, 1)).at[0, 1, 1].set(jnp.nan)
  assert jnp.isnan(layers.max_pool_3x3(x)).all()
  assert jnp.isnan(jax.vjp(layers.max_pool_3x3, x)[0]).all()


def test_relu_of_a_sum_and_its_gradient_are_those_of_relu():
  x = jnp.array([-1.0, -0.0, 0.0, 2.0, jnp.nan])
  y, pullback = jax.vjp(layers.relu_of_sum, x)
  expected, plain_pullback = jax.vjp(nn.relu, x)
  np.testing.assert_array_equal(y, expected)
  np.testing.assert_array_equal(pullback(jnp.ones(5))[0], plain_pullback(jnp.ones(5))[0])


def test_max_pool_gradient_is_that_of_finite_differences_without_ties():
  x = jax.random.permutation(jax.random.key(0), jnp.arange(40.0)).reshape(1, 5, 8, 1) / 10
  check_grads(
    lambda x: layers.max_pool_3x3(jnp.asarray(x)),
    (x,),
    order=1,
    modes=["rev"],
    eps=1e-2,
    atol=1e-2,
    rtol=1e-2,
  )


def test_dropout_of_a_row_depends_on_its_name_alone():
  x, key = jnp.ones((4, 100)), jax.random.key(3)
  dropout = layers.Dropout(0.5)

  def drop(rows):
    return dropout.apply({}, x, train=True, rows=rows, rngs={"dropout": key})

  rows = jnp.array([11, 4, 7, 2])
  np.testing.assert_array_equal(drop(rows)[::-1], drop(rows[::-1]))
  assert set(np.unique(drop(rows))) == {0.0, 2.0}
  assert (drop(rows)[0] != drop(rows)[1]).any()


def test_dropout_is_identity_outside_training():
  x = jnp.ones((2, 8))
  np.testing.assert_array_equal(layers.Dropout(0.5).apply({}, x, train=False), x)


def test_running_statistics_begin_with_the_first_batch():
  first, second = jax.random.normal(jax.random.key(0), (2, 64, 3)) * 0.1 + 1
  norm = layers.BatchNorm()
  apply = functools.partial(norm.apply, train=True, mutable=["batch_stats"])
  variables = norm.init(jax.random.key(1), first, train=True)
  _, changed = apply(variables, first)
  stats = changed["batch_stats"]
  np.testing.assert_allclose(stats["mean"], first.mean(0), rtol=1e-6)
  np.testing.assert_allclose(stats["var"], first.var(0), rtol=1e-3)
  _, changed = apply(variables | changed, second)
  np.testing.assert_allclose(
    changed["batch_stats"]["mean"], 0.9 * stats["mean"] + 0.1 * second.mean(0), rtol=1e-6
  )
