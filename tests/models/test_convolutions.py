import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.sharding import AxisType
from jax.sharding import PartitionSpec as P

from jaxmg import gaussians
from jaxmg.models import convolutions
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
  conv = convolutions.Conv(4, kernel_size, strides)
  params = conv.init(jax.random.key(1), x)
  kernel = params["params"]["kernel"]
  y, pullback = jax.vjp(lambda x, p: conv.apply(p, x), x, params)
  expected, plain_pullback = jax.vjp(lambda x, k: plain_convolution(x, k, strides), x, kernel)
  np.testing.assert_allclose(y, expected, atol=1e-5)
  gradient = jax.random.normal(jax.random.key(2), y.shape)
  (dx, dparams), (plain_dx, plain_dkernel) = pullback(gradient), plain_pullback(gradient)
  np.testing.assert_allclose(dx, plain_dx, atol=1e-4)
  np.testing.assert_allclose(dparams["params"]["kernel"], plain_dkernel, atol=1e-3)


PLAIN = {"temporal": convolutions._temporal_conv_in_2d, "7x7": convolutions._plain_conv}
OTHERS = [  # another form of a convolution, or its gradients, and the shapes of what they take
  ("temporal", None, convolutions._temporal_gradients, (2, 5, 24, 3), (3, 3, 4)),
  ("temporal", None, convolutions._temporal_gradients, (2, 4, 24, 3), (5, 3, 4)),
  ("7x7", convolutions._conv_7x7_folded, None, (2, 9, 8, 17), (7, 7, 17, 4)),
  ("7x7", convolutions._conv_7x7_folded, None, (2, 6, 11, 3), (7, 7, 3, 4)),
  ("7x7", convolutions._conv_7x7_folded, None, (2, 6, 7, 41), (7, 7, 41, 4)),
  ("7x7", None, convolutions._gradients_7x7, (2, 6, 11, 3), (7, 7, 3, 4)),
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
@pytest.mark.parametrize(
  "form", [convolutions._conv_7x7_of_windows, convolutions._conv_7x7_of_drawn]
)
def test_a_convolution_of_what_is_not_drawn_is_that_of_its_picture(form, size, sigma):
  x = some_joints(size, sigma)
  kernel = jax.random.normal(jax.random.key(1), (7, 7, 3, 4))
  gradient = jax.random.normal(jax.random.key(2), (5, *size, 4))
  of_picture = lambda x, kernel: convolutions._plain_conv(gaussians.drawn(x), kernel)  # noqa: E731
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
  conv, bias = convolutions.Conv(4, kernel_size, strides, dtype), jnp.array([-0.1, 0.0, 0.1, 0.2])
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
  found = convolutions._conv_7x7_of_windows(narrow, kernel)
  expected = convolutions._plain_conv(gaussians.drawn(narrow).astype(jnp.float32), kernel)
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
  conv = convolutions.Conv(4, (1, 7, 7), strides)
  params = conv.init(jax.random.key(0), x)
  step = jax.jit(jax.grad(lambda p, x: conv.apply(p, x).sum()))
  for platform, expected in (("cpu", form), ("cuda", "convolution"), ("tpu", "convolution")):
    text = step.trace(params, x).lower(lowering_platforms=(platform,)).as_text()
    assert {*re.findall(r"stablehlo\.(dot_general|convolution)", text)} == {expected}


def test_a_cpu_has_what_it_transposes_in_memory():
  conv, x = convolutions.Conv(4, (1, 3, 3)), jnp.zeros((2, 5, 8, 8, 3))
  params = conv.init(jax.random.key(0), x)
  gradient = jax.jit(jax.grad(lambda p, x: conv.apply(p, x).sum()))
  for platform in ("cpu", "cuda", "tpu"):
    text = gradient.trace(params, x).lower(lowering_platforms=(platform,)).as_text()
    assert ("optimization_barrier" in text) == (platform == "cpu")


@pytest.mark.parametrize(("kernel_size", "strides"), FORMS)
def test_a_bias_and_relu_are_those_of_the_convolution(kernel_size, strides):
  x = jax.random.normal(jax.random.key(0), (2, 5, 8, 8, 3))
  conv, bias = convolutions.Conv(4, kernel_size, strides), jnp.array([-1.0, 0.0, 1.0, 2.0])
  params = conv.init(jax.random.key(1), x)
  found = conv.apply(params, x, bias, relu=True)
  np.testing.assert_allclose(found, nn.relu(conv.apply(params, x) + bias), atol=1e-6)


@pytest.mark.parametrize(("kernel_size", "shared"), [((3, 1, 1), {"3x1x3x4"}), ((1, 7, 7), set())])
def test_a_program_has_the_form_of_its_platform_and_no_other(kernel_size, shared):
  conv, x = convolutions.Conv(4, kernel_size), jnp.zeros((2, 5, 8, 8, 3))
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
  conv, x = convolutions.Conv(4, (1, 1, 1), (2, 2)), jnp.zeros((2, 5, 7, 8, 3))
  params = conv.init(jax.random.key(0), x)
  gradient = jax.jit(jax.value_and_grad(lambda p, x: conv.apply(p, x).sum(), (0, 1)))
  text = gradient.trace(params, x).lower(lowering_platforms=("cuda",)).as_text()
  assert "stablehlo.dot_general" in text
  assert not re.search(r"stablehlo\.slice .*\d+:\d+:\d+", text)


def test_a_convolution_without_a_fast_form_is_refused():
  with pytest.raises(ValueError, match=r"kernel \(3, 3, 3\)"):
    convolutions.Conv(4, (3, 3, 3)).init(jax.random.key(0), jnp.zeros((1, 4, 4, 4, 2)))


def test_what_is_not_drawn_goes_through_shard_map():
  mesh = jax.make_mesh((5,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:5])
  x, kernel = some_joints((20, 17), 0.6), jnp.ones((7, 7, 3, 4))
  of_windows = convolutions._conv_7x7_of_windows
  shares = {"in_specs": (P("data"), P()), "out_specs": P("data")}
  found = jax.jit(jax.shard_map(of_windows, mesh=mesh, **shares))(x, kernel)
  np.testing.assert_allclose(found, of_windows(x, kernel), atol=1e-6)
