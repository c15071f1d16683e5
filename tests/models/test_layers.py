import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.test_util import check_grads

from jaxmg import gaussians
from jaxmg.models import layers
from jaxmg.skeletons import heatmaps

FORMS = [  # kernel, strides
  ((1, 1, 1), (1, 1)),
  ((1, 1, 1), (2, 2)),
  ((3, 1, 1), (1, 1)),
  ((5, 1, 1), (1, 1)),
  ((1, 3, 3), (1, 1)),
  ((1, 3, 3), (2, 2)),
  ((1, 3, 3), (1, 2)),
  ((1, 7, 7), (1, 1)),
]


def plain_convolution(x, kernel, strides):
  """The same as one 3-D convolution: what the fast forms must equal."""
  return jax.lax.conv_general_dilated(
    x,
    kernel,
    (strides[0], strides[1], strides[1]),
    [(k // 2, k // 2) for k in kernel.shape[:3]],
    dimension_numbers=("NTHWC", "THWIO", "NTHWC"),
  )


@pytest.mark.parametrize(("kernel_size", "strides"), FORMS)
@pytest.mark.parametrize("side", [7, 8])
def test_convolution_and_its_gradients_are_those_of_a_3d_convolution(kernel_size, strides, side):
  x = jax.random.normal(jax.random.key(0), (2, 5, side, side, 3))
  conv = layers.Conv(4, kernel_size, strides)
  params = conv.init(jax.random.key(1), x)
  kernel = params["params"]["kernel"]
  y, pullback = jax.vjp(lambda x, p: conv.apply(p, x), x, params)
  expected, plain_pullback = jax.vjp(lambda x, k: plain_convolution(x, k, strides), x, kernel)
  np.testing.assert_allclose(y, expected, atol=1e-5)
  gradient = jax.random.normal(jax.random.key(2), y.shape)
  (dx, dparams), (plain_dx, plain_dkernel) = pullback(gradient), plain_pullback(gradient)
  np.testing.assert_allclose(dx, plain_dx, atol=1e-4)
  np.testing.assert_allclose(dparams["params"]["kernel"], plain_dkernel, atol=1e-3)


PLAIN = {"temporal": layers._temporal_conv_in_2d, "7x7": layers._conv_7x7_plain}
OTHERS = [  # another form of a convolution, or its gradients, and the shapes of what they take
  ("temporal", None, layers._temporal_gradients, (2, 5, 24, 3), (3, 3, 4)),
  ("temporal", None, layers._temporal_gradients, (2, 4, 24, 3), (5, 3, 4)),
  ("7x7", layers._conv_7x7_folded, None, (2, 9, 8, 17), (7, 7, 17, 4)),
  ("7x7", layers._conv_7x7_folded, None, (2, 6, 11, 3), (7, 7, 3, 4)),
  ("7x7", layers._conv_7x7_folded, None, (2, 6, 7, 41), (7, 7, 41, 4)),
  ("7x7", None, layers._gradients_7x7, (2, 6, 11, 3), (7, 7, 3, 4)),
]


@pytest.mark.parametrize(("kind", "form", "gradients", "x_shape", "kernel_shape"), OTHERS)
def test_forms_of_a_convolution_and_gradients_are_equal(
  kind, form, gradients, x_shape, kernel_shape
):
  x = jax.random.normal(jax.random.key(0), x_shape)
  kernel = jax.random.normal(jax.random.key(1), kernel_shape)
  expected, pullback = jax.vjp(PLAIN[kind], x, kernel)
  gradient = jax.random.normal(jax.random.key(2), expected.shape)
  if gradients is None:
    found, of_form = jax.vjp(form, x, kernel)
    pairs = [(found, expected), *zip(of_form(gradient), pullback(gradient), strict=True)]
  else:
    pairs = zip(gradients(x, kernel, gradient), pullback(gradient), strict=True)
  for a, b in pairs:
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


def some_joints(size, sigma):
  """5 frames of 3 joints: some in the picture, some at its edges, far outside, or absent."""
  height, width = size
  points = jax.random.uniform(jax.random.key(0), (5, 3, 3), minval=0.1) * jnp.array(
    [width, height, 1]
  )
  for frame, (x, y) in enumerate([(-0.4, 2), (width - 0.6, height + 0.5), (-9, 1e9)]):
    points = points.at[frame, 0, :2].set(jnp.array([x, y]))
  return heatmaps.joint_gaussians(points.at[3, 1].set(0), size=size, sigma=sigma)


@pytest.mark.parametrize("size", [(9, 14), (20, 17), (4, 3)])
@pytest.mark.parametrize("sigma", [0.6, 1.2, 3.0])
@pytest.mark.parametrize("form", [layers._conv_7x7_of_windows, layers._conv_7x7_of_drawn])
def test_a_convolution_of_what_is_not_drawn_is_that_of_its_picture(form, size, sigma):
  x = some_joints(size, sigma)
  kernel = jax.random.normal(jax.random.key(1), (7, 7, 3, 4))
  gradient = jax.random.normal(jax.random.key(2), (5, *size, 4))
  of_picture = lambda x, kernel: layers._conv_7x7_plain(gaussians.drawn(x), kernel)  # noqa: E731
  (found, pullback), (expected, plain) = (jax.vjp(one, x, kernel) for one in (form, of_picture))
  (dx, dkernel), (plain_dx, plain_dkernel) = pullback(gradient), plain(gradient)
  # Of what is zero, a picture has a gradient, and a window has none.
  seen = lambda dx: jax.tree.map(lambda x, dx: np.where(x, dx, 0), x, dx)  # noqa: E731
  ours = found, dkernel, seen(dx).rows, seen(dx).columns
  theirs = expected, plain_dkernel, seen(plain_dx).rows, seen(plain_dx).columns
  for a, b in zip(ours, theirs, strict=True):
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max())


@pytest.mark.parametrize(
  ("kernel_size", "strides"), [((1, 7, 7), (1, 1)), ((1, 3, 3), (1, 2)), ((1, 1, 1), (1, 1))]
)
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_every_convolution_takes_what_is_not_drawn(kernel_size, strides, dtype):
  x = jax.tree.map(lambda x: x[None], some_joints((24, 23), 0.6))
  conv, bias = layers.Conv(4, kernel_size, strides, dtype), jnp.array([-0.1, 0.0, 0.1, 0.2])
  params = conv.init(jax.random.key(1), x)
  found, expected = (conv.apply(params, x, bias, relu=True) for x in (x, gaussians.drawn(x)))
  assert found.dtype == dtype
  np.testing.assert_allclose(
    np.float32(found), np.float32(expected), rtol=0, atol=1e-6 if dtype == jnp.float32 else 4e-3
  )


def test_joints_in_bfloat16_are_computed_in_float32():
  x = some_joints((24, 23), 0.6)
  narrow = jax.tree.map(jnp.bfloat16, x)
  kernel = jax.random.normal(jax.random.key(1), (7, 7, 3, 4))
  found = layers._conv_7x7_of_windows(narrow, kernel)
  expected = layers._conv_7x7_plain(gaussians.drawn(narrow).astype(jnp.float32), kernel)
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize(
  ("size", "sigma", "strides", "form"),
  [
    ((24, 23), 0.6, (1, 1), "dot_general"),
    ((20, 20), 0.6, (1, 1), "convolution"),  # is soon drawn
    ((24, 23), 1.2, (1, 1), "convolution"),  # wide
    ((24, 23), 0.6, (2, 1), "convolution"),  # not a stem of ours
  ],
)
def test_a_cpu_draws_no_joints_where_that_is_less_work(size, sigma, strides, form):
  x = jax.tree.map(lambda x: x[None], some_joints(size, sigma))
  conv = layers.Conv(4, (1, 7, 7), strides)
  params = conv.init(jax.random.key(0), x)
  step = jax.jit(jax.grad(lambda p, x: conv.apply(p, x).sum()))
  for platform, expected in (("cpu", form), ("cuda", "convolution"), ("tpu", "convolution")):
    text = step.trace(params, x).lower(lowering_platforms=(platform,)).as_text()
    assert {*re.findall(r"stablehlo\.(dot_general|convolution)", text)} == {expected}


def test_a_cpu_has_what_it_transposes_in_memory():
  conv, x = layers.Conv(4, (1, 3, 3)), jnp.zeros((2, 5, 8, 8, 3))
  params = conv.init(jax.random.key(0), x)
  gradient = jax.jit(jax.grad(lambda p, x: conv.apply(p, x).sum()))
  for platform in ("cpu", "cuda", "tpu"):
    text = gradient.trace(params, x).lower(lowering_platforms=(platform,)).as_text()
    assert ("optimization_barrier" in text) == (platform == "cpu")


@pytest.mark.parametrize(("kernel_size", "strides"), FORMS)
def test_a_bias_and_relu_are_those_of_the_convolution(kernel_size, strides):
  x = jax.random.normal(jax.random.key(0), (2, 5, 8, 8, 3))
  conv, bias = layers.Conv(4, kernel_size, strides), jnp.array([-1.0, 0.0, 1.0, 2.0])
  params = conv.init(jax.random.key(1), x)
  found = conv.apply(params, x, bias, relu=True)
  np.testing.assert_allclose(found, nn.relu(conv.apply(params, x) + bias), atol=1e-6)


@pytest.mark.parametrize(("kernel_size", "shared"), [((3, 1, 1), {"3x1x3x4"}), ((1, 7, 7), set())])
def test_a_program_has_the_form_of_its_platform_and_no_other(kernel_size, shared):
  conv, x = layers.Conv(4, kernel_size), jnp.zeros((2, 5, 8, 8, 3))
  params = conv.init(jax.random.key(0), x)
  step = jax.jit(jax.value_and_grad(lambda p, x: conv.apply(p, x).sum(), (0, 1)))
  traced, shapes = step.trace(params, x), {}
  for platform in ("cpu", "cuda", "tpu"):
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    operations = "stablehlo.(?:dot_general|convolution).* : "
    shapes[platform] = {
      re.findall(r"tensor<([\dx]+)xf32>", line)[1] for line in re.findall(operations + ".*", text)
    }
  assert shapes["cuda"] == shapes["tpu"]
  assert shapes["cpu"] & shapes["cuda"] == shared  # by their second operands
  assert shapes["cpu"] - shared


def test_no_product_of_a_strided_slice_is_left_for_xla_to_abort_on():
  conv, x = layers.Conv(4, (1, 1, 1), (2, 2)), jnp.zeros((2, 5, 7, 8, 3))
  params = conv.init(jax.random.key(0), x)
  gradient = jax.jit(jax.value_and_grad(lambda p, x: conv.apply(p, x).sum(), (0, 1)))
  text = gradient.trace(params, x).lower(lowering_platforms=("cuda",)).as_text()
  assert "stablehlo.dot_general" in text
  assert not re.search(r"stablehlo\.slice .*\d+:\d+:\d+", text)


def test_every_second_element_is_that_of_a_slice():
  x = jnp.arange(2 * 7 * 3).reshape(2, 7, 3)
  for stride in (1, 2):
    np.testing.assert_array_equal(layers.every(stride, x, axis=1), x[:, ::stride])
  with pytest.raises(ValueError, match="1 or 2, got 3"):
    layers.every(3, x, axis=1)


def test_a_convolution_without_a_fast_form_is_refused():
  with pytest.raises(ValueError, match=r"kernel \(3, 3, 3\)"):
    layers.Conv(4, (3, 3, 3)).init(jax.random.key(0), jnp.zeros((1, 4, 4, 4, 2)))


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
