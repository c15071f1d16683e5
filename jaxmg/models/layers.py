"""Layers that the models share, in the forms that XLA runs fastest on every platform.

All arrays are channels last: B T H W C.
"""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key

from jaxmg import shapes

_RATES = ("dropout", "stochastic_depth", "modality_dropout")  # for which a model draws by a key

he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")
# Of products of transformers. The originals have a deviation of 0.02 there, from which a narrow
# network hardly learns.
by_inputs = nn.initializers.lecun_normal()


class Dense(nn.Module):
  """A product with a kernel, and a bias unless it has none."""

  features: int
  dtype: Any = jnp.float32
  use_bias: bool = True

  @nn.compact
  def __call__(self, x: Float[Array, "*b i"]) -> Float[Array, "*b o"]:
    kernel = self.param("kernel", by_inputs, (x.shape[-1], self.features), jnp.float32)
    x = dot(x.astype(self.dtype), kernel.astype(self.dtype))
    if not self.use_bias:
      return x
    bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
    return x + bias.astype(self.dtype)


class Norm(nn.Module):
  """Layer normalisation of the last axis, in float32 at least."""

  dtype: Any = jnp.float32
  epsilon: float = 1e-6

  @nn.compact
  def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
    scale = self.param("scale", nn.initializers.ones, x.shape[-1:], jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, x.shape[-1:], jnp.float32)
    wide = _wide(x)
    wide -= wide.mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt((wide**2).mean(-1, keepdims=True) + self.epsilon)
    return (wide * inverse * scale + bias).astype(self.dtype)


def dot(x: Float[Array, "*b i"], kernel: Float[Array, "i o"]) -> Float[Array, "*b o"]:
  """The product as one of matrices: with more axes, XLA copies transposes for the gradient."""
  return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


@jax.custom_jvp
def dots(x: Float[Array, "*b i"], kernels: list[Float[Array, "i o"]]) -> list[Float[Array, "*b o"]]:
  """The product with each kernel, all of as many columns.

  Of one wide product a CPU would copy the parts, and so takes them one by one; but not for the
  gradients, for which narrow products take longer.
  """
  apart = lambda x, kernels: [dot(x, kernel) for kernel in kernels]  # noqa: E731
  return jax.lax.platform_dependent(x, kernels, cpu=apart, default=_dots_at_once)


def _dots_at_once(x, kernels):
  return jnp.split(dot(x, jnp.concatenate(kernels, axis=1)), len(kernels), axis=-1)


@dots.defjvp
def _dots_jvp(primals, tangents):
  return dots(*primals), jax.jvp(_dots_at_once, primals, tangents)[1]


def pool(x: Float[Array, "*b"], axes: tuple[int, ...]) -> Float[Array, "*c"]:
  """The mean over these axes, in float32 at least.

  Without the barrier, XLA makes the layers before it part of the sum, on one thread of a CPU.
  """
  return jax.lax.optimization_barrier(x).mean(axes, dtype=jnp.promote_types(x.dtype, jnp.float32))


def check_call(module: nn.Module, *, train: bool) -> None:
  """Raises ValueError where a model is applied without what it needs, before a layer of it does."""
  if not isinstance(train, bool | np.bool_):
    raise ValueError(f"train: expected True or False, got {train!r}")
  if module.is_initializing():
    return
  if "params" not in module.variables:
    raise ValueError('variables: expected what init gave, {"params": ..., ...}, got other things')
  if not train:
    return
  if "batch_stats" in module.variables and not module.is_mutable_collection("batch_stats"):
    raise ValueError('train=True: expected mutable=["batch_stats"] in apply, got none')
  drawn = module.has_rng("dropout") or module.has_rng("params")  # which Flax takes for any other
  if any(getattr(module, rate, 0) for rate in _RATES) and not drawn:
    hint = "under NNX: nnx.Rngs(dropout=0)"
    raise ValueError(f'train=True: expected rngs={{"dropout": key}} in apply, got none ({hint})')


def channels(module: nn.Module, *path: str) -> int | str:
  """How many channels a kernel of a module's variables takes; "C" while there are none."""
  params = module.variables.get("params", {})
  for name in path:
    params = params.get(name, {})
  return params["kernel"].shape[-2] if "kernel" in params else "C"


def every(stride: int, x: Array, *, axis: int) -> Array:
  """Every first, or every second, element along an axis: `x[::stride]`, as the first of each pair.

  XLA can abort the process where it compiles a product of a strided slice for a GPU.
  """
  if stride == 1:
    return x
  if stride != 2:
    raise ValueError(f"stride: expected 1 or 2, got {stride}")
  x = jnp.pad(x, [(0, x.shape[axis] % 2 if i == axis else 0) for i in range(x.ndim)])
  x = x.reshape(*x.shape[:axis], -1, 2, *x.shape[axis + 1 :])
  return jax.lax.index_in_dim(x, 0, axis + 1, keepdims=False)


class BatchNorm(nn.Module):
  """Batch normalisation over all axes but the last, as `nn.BatchNorm` with its names and options.

  Applied as one multiply-add: `nn.BatchNorm` subtracts the mean first, and XLA keeps the
  difference, as large as the input, for the gradient.

  Running statistics begin with those of the first batch, and not with a mean of 0 and a variance of
  1, whose share after n batches would be 0.9^n: after 40, more than the variance of motions.

  The input is understood with `shift` added, per channel: the bias of a layer before. A norm by the
  batch's own mean takes it out again, so that it only moves the running mean and has no gradient.
  """

  dtype: Any = jnp.float32
  scale_init: Any = nn.initializers.ones
  epsilon: float = 1e-5

  @nn.compact
  def __call__(
    self, x: Float[Array, "*b c"], *, train: bool, shift: Float[Array, " c"] | float = 0.0
  ) -> Float[Array, "*b c"]:
    shape = x.shape[-1:]
    if not self.is_initializing() and not self.has_variable("batch_stats", "mean"):
      raise ValueError('variables: expected "batch_stats" beside "params", got none')
    mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
    var = self.variable("batch_stats", "var", jnp.ones, shape)
    params = {
      "scale": self.param("scale", self.scale_init, shape, jnp.float32),
      "bias": self.param("bias", nn.initializers.zeros, shape, jnp.float32),
    }
    wide = _wide(x)
    stats = {"mean": mean.value - shift, "var": var.value}
    if train:
      axes = tuple(range(x.ndim - 1))
      found = wide.mean(axes)
      stats = {"mean": found, "var": jnp.maximum((wide**2).mean(axes) - found**2, 0)}
      if not self.is_initializing():
        # The first batch is where they begin: 0 and 1 may be far from what they run to.
        first = (mean.value == 0) & (var.value == 1)
        for running, new in ((mean, found + shift), (var, stats["var"])):
          mixed = 0.9 * running.value + 0.1 * new
          running.value = jnp.where(first, new, mixed)
    scale, bias = batch_norm_affine(params, stats, self.epsilon)
    return (wide * scale + bias).astype(self.dtype)


def batch_norm_affine(params, stats, epsilon: float = 1e-5) -> tuple[Array, Array]:
  """The scale and the bias by which a norm of these statistics multiplies and adds, per channel."""
  scale = params["scale"] * jax.lax.rsqrt(stats["var"] + epsilon)
  return scale, params["bias"] - stats["mean"] * scale


@jax.custom_jvp
def relu_of_sum(x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
  """ReLU whose gradient takes the signs from its output, which what comes next keeps anyway.

  `nn.relu` takes them from its input, a sum of two branches that would be kept beside.
  """
  return jnp.maximum(x, jnp.zeros((), x.dtype))  # of a Python 0, jax2onnx makes float64


@relu_of_sum.defjvp
def _relu_of_sum_jvp(primals, tangents):
  # Without the barrier XLA keeps the sum all the same, and takes the maximum where it is needed.
  y = jax.lax.optimization_barrier(relu_of_sum(*primals))
  return y, jnp.where(y > 0, *tangents, 0)


@jax.custom_vjp
def max_pool_3x3(x: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
  """The maximum over 3 x 3 pixels, stride 1; the gradient goes to the first of equal values.

  First in the order of rows, then columns, as in PyTorch. Empty heatmap regions tie everywhere:
  sharing the gradient among equals, as `jnp.maximum` does, would be another gradient, and XLA's own
  for pooling (select-and-scatter) is slow and not deterministic on GPUs. So the maximum leaves a
  byte for the gradient: its place in its window.
  """
  return functools.reduce(jnp.maximum, _windows(_wide(x), -jnp.inf)).astype(x.dtype)


def _max_pool_forward(x):
  largest, *others = _windows(_wide(x), -jnp.inf)
  place = jnp.zeros(x.shape, jnp.uint8)
  for i, other in enumerate(others, 1):
    place = jnp.where(other > largest, jnp.uint8(i), place)
    largest = jnp.maximum(largest, other)  # a NaN stays
  # Without the barrier, XLA takes the maxima again for each reader.
  return jax.lax.optimization_barrier((largest.astype(x.dtype), place))


def _max_pool_backward(place, gradient):
  # A pixel is the first of the window whose centre is after it, and the last of the one before it.
  pairs = zip(_windows(_wide(gradient), 0), _windows(place, 9), strict=True)
  parts = (jnp.where(place == 8 - i, gradient, 0) for i, (gradient, place) in enumerate(pairs))
  return (sum(parts).astype(gradient.dtype),)


max_pool_3x3.defvjp(_max_pool_forward, _max_pool_backward)


def _windows(x, fill):
  """The 9 pixels around each, rows first."""
  h, w, _ = x.shape[-3:]
  pads = [(0, 0)] * (x.ndim - 3) + [(1, 1), (1, 1), (0, 0)]
  x = jnp.pad(x, pads, constant_values=fill)
  return [x[..., i : i + h, j : j + w, :] for i in range(3) for j in range(3)]


def _wide(x):
  """In float32 at least: CPUs compare and add bfloat16 several times as slowly."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


class Dropout(nn.Module):
  """Dropout whose mask for a row depends on the key and the row's name alone.

  `rows` names the rows (in training: the clips); the default is their position. With names, neither
  the order of the rows nor the number of devices or processes changes a clip's mask.
  """

  rate: float

  @nn.compact
  def __call__(
    self, x: Float[Array, "b *c"], *, train: bool, rows: Int[Array, " b"] | None = None
  ) -> Float[Array, "b *c"]:
    if not train or self.rate == 0:
      return x
    keys = row_keys(self, len(x), rows)
    shape = self._drawn(x.shape[1:])
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.rate, shape))(keys)
    return jnp.where(keep, x / (1 - self.rate), 0)

  def _drawn(self, shape):
    return shape


class StochasticDepth(Dropout):
  """Leaves a branch out for whole rows at this rate, by the key and the row's name: see `Dropout`.

  What stays is multiplied by 1 / (1 - rate).
  """

  def _drawn(self, shape):
    return (1,) * len(shape)


def row_keys(
  module: nn.Module, batch: int, rows: Int[Array, " b"] | None
) -> Key[Array, " {batch}"]:
  """A key for each row of what a module drops in training, by the row's name: see `Dropout`."""
  rows = jnp.arange(batch) if rows is None else rows
  shapes.check("rows", rows, "int", batch)
  return jax.vmap(jax.random.fold_in, (None, 0))(module.make_rng("dropout"), rows)


def token_times(
  batch: int, moments: int, *, places: int = 1, class_token: bool = False
) -> Float[Array, "{batch} l"]:
  """When tokens are, in [0, 1] of a clip: `places` at each of so many moments, evenly spread.

  A class token before them is at no time: -1.
  """
  times = jnp.repeat((jnp.arange(moments, dtype=jnp.float32) + 0.5) / moments, places)
  times = jnp.pad(times, (int(class_token), 0), constant_values=-1)
  return jnp.broadcast_to(times, (batch, len(times)))
