"""Layers that the models share, written in the forms that XLA runs fastest on every platform.

All arrays are channels last: B T H W C. Convolution kernels are stored as (T, H, W, I, O), whatever
form computes them.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

he_fan_out = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class Conv(nn.Module):
  """A convolution without bias over space (1, k, k), over time (k, 1, 1), or neither (1, 1, 1).

  Zero padding of k // 2 on both sides, as in PyTorch; `strides` are (time, space). General 3-D
  convolutions and the gradients of strided ones leave XLA's fast paths on CPUs, so each form is
  written as 2-D convolutions and dots.
  """

  features: int
  kernel_size: tuple[int, int, int] = (1, 1, 1)
  strides: tuple[int, int] = (1, 1)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b t h w i"]) -> Float[Array, "b t2 h2 w2 o"]:
    time, height, width = self.kernel_size
    if height != width or (time > 1 and (height > 1 or self.strides != (1, 1))):
      raise ValueError(
        f"kernel {self.kernel_size}, strides {self.strides}: expected (1, k, k), or (k, 1, 1) with "
        "strides (1, 1)"
      )
    shape = (*self.kernel_size, x.shape[-1], self.features)
    kernel = self.param("kernel", he_fan_out, shape, jnp.float32).astype(self.dtype)
    x = every(self.strides[0], x.astype(self.dtype), axis=1)
    if height > 1:
      return _spatial_conv(x, kernel[0], self.strides[1])
    if time > 1:
      return _temporal_conv(x, kernel[:, 0, 0])
    for axis in (2, 3):
      x = every(self.strides[1], x, axis=axis)
    return dot(x, kernel[0, 0, 0])


def dot(x: Float[Array, "*b i"], kernel: Float[Array, "i o"]) -> Float[Array, "*b o"]:
  """The product as one of matrices: with more axes, XLA copies transposes for the gradient."""
  return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


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


def _temporal_conv(x, kernel):  # B T H W I, k I O
  """One wide dot to k x O channels, then a sum of k shifts in time."""
  size, inputs, features = kernel.shape
  taps = dot(x, kernel.transpose(1, 0, 2).reshape(inputs, size * features))
  taps = taps.reshape(*x.shape[:-1], size, features)
  frames, half = x.shape[1], size // 2
  total = 0
  for i in range(size):
    shifted = jnp.pad(taps[..., i, :], ((0, 0), (half, half), (0, 0), (0, 0), (0, 0)))
    total += jax.lax.slice_in_dim(shifted, i, i + frames, axis=1)
  return total


def _spatial_conv(x, kernel, stride):  # B T H W I, k k I O
  b, t, *_ = x.shape
  x = x.reshape(b * t, *x.shape[2:])
  if stride == 2 and kernel.shape[0] == 3:
    y = _conv_3x3_stride_2(x, kernel)
  else:
    y = _conv_2d(x, kernel, stride)
  return y.reshape(b, t, *y.shape[1:])


def _conv_2d(x, kernel, stride):  # N H W I, k k I O
  half = kernel.shape[0] // 2
  return jax.lax.conv_general_dilated(
    x, kernel, (stride, stride), [(half, half)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


@jax.custom_vjp
def _conv_3x3_stride_2(x, kernel):
  return _conv_2d(x, kernel, 2)


def _conv_3x3_stride_2_forward(x, kernel):
  return _conv_2d(x, kernel, 2), (x, kernel)


def _conv_3x3_stride_2_backward(saved, gradient):
  x, kernel = saved
  (dkernel,) = jax.linear_transpose(lambda k: _conv_2d(x, k, 2), kernel)(gradient)
  (dx,) = jax.linear_transpose(lambda x: _conv_3x3_stride_2_by_blocks(x, kernel), x)(gradient)
  return dx, dkernel


_conv_3x3_stride_2.defvjp(_conv_3x3_stride_2_forward, _conv_3x3_stride_2_backward)


def _conv_3x3_stride_2_by_blocks(x, kernel):
  """The same sums as a 2 x 2 convolution of stride 1 over blocks of 2 x 2 pixels.

  Only its transpose is used: the input gradient of a strided convolution is a convolution over an
  input with holes, which XLA runs slowly on CPUs; the transpose of this form has none.
  """
  n, height, width, inputs = x.shape
  rows, columns = -(-height // 2) + 1, -(-width // 2) + 1  # blocks, one more than outputs
  pad_rows, pad_columns = (1, 2 * rows - height - 1), (1, 2 * columns - width - 1)
  x = jnp.pad(x, ((0, 0), pad_rows, pad_columns, (0, 0)))
  x = x.reshape(n, rows, 2, columns, 2, inputs).transpose(0, 1, 3, 2, 4, 5)
  x = x.reshape(n, rows, columns, 4 * inputs)
  kernel = jnp.pad(kernel, ((0, 1), (0, 1), (0, 0), (0, 0)))  # 4 4 I O
  kernel = kernel.reshape(2, 2, 2, 2, inputs, -1).transpose(0, 2, 1, 3, 4, 5)
  kernel = kernel.reshape(2, 2, 4 * inputs, -1)
  return jax.lax.conv_general_dilated(
    x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


class BatchNorm(nn.Module):
  """Batch normalisation over all axes but the last, as `nn.BatchNorm` with its names and options.

  Applied as one multiply-add: `nn.BatchNorm` subtracts the mean first, and XLA keeps the
  difference, as large as the input, for the gradient.

  The input is understood with `shift` added, per channel: the bias of a layer before. A norm by the
  batch's own mean takes it out again, so that it only moves the running mean and has no gradient.
  """

  momentum: float = 0.9
  dtype: Any = jnp.float32
  scale_init: Any = nn.initializers.ones

  @nn.compact
  def __call__(
    self, x: Float[Array, "*b c"], *, train: bool, shift: Float[Array, " c"] | float = 0.0
  ) -> Float[Array, "*b c"]:
    shape = x.shape[-1:]
    mean = self.variable("batch_stats", "mean", jnp.zeros, shape)
    var = self.variable("batch_stats", "var", jnp.ones, shape)
    params = {
      "scale": self.param("scale", self.scale_init, shape, jnp.float32),
      "bias": self.param("bias", nn.initializers.zeros, shape, jnp.float32),
    }
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    stats = {"mean": mean.value - shift, "var": var.value}
    if train:
      axes = tuple(range(x.ndim - 1))
      found = wide.mean(axes)
      stats = {"mean": found, "var": jnp.maximum((wide**2).mean(axes) - found**2, 0)}
      if not self.is_initializing():
        for running, new in ((mean, found + shift), (var, stats["var"])):
          running.value = self.momentum * running.value + (1 - self.momentum) * new
    scale, bias = batch_norm_affine(params, stats)
    return (wide * scale + bias).astype(self.dtype)


def batch_norm_affine(params, stats) -> tuple[Array, Array]:
  """The scale and the bias by which a norm of these statistics multiplies and adds, per channel."""
  scale = params["scale"] * jax.lax.rsqrt(stats["var"] + 1e-5)
  return scale, params["bias"] - stats["mean"] * scale


def max_pool_3x3(x: Float[Array, "*b h w c"]) -> Float[Array, "*b h w c"]:
  """The maximum over 3 x 3 pixels, stride 1; the gradient goes to the first of equal values.

  First in the order of rows, then columns, as in PyTorch. Empty heatmap regions tie everywhere:
  sharing the gradient among equals, as `jnp.maximum` does, would be another gradient, and XLA's own
  for pooling (select-and-scatter) is slow and not deterministic on GPUs.
  """
  for axis in (-2, -3):  # W before H: the first row that holds the maximum, its first pixel
    size = x.shape[axis]
    pad = [(0, 0)] * x.ndim
    pad[axis] = (1, 1)
    padded = jnp.pad(x, pad, constant_values=-jnp.inf)
    before = jax.lax.slice_in_dim(padded, 0, size, axis=axis % x.ndim)
    after = jax.lax.slice_in_dim(padded, 2, size + 2, axis=axis % x.ndim)
    x = jnp.where(before >= x, before, x)
    x = jnp.where(after > x, after, x)  # in this form a pixel that is NaN stays NaN
  return x


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
    rows = jnp.arange(x.shape[0]) if rows is None else rows
    keys = jax.vmap(jax.random.fold_in, (None, 0))(self.make_rng("dropout"), rows)
    keep = jax.vmap(lambda key: jax.random.bernoulli(key, 1 - self.rate, x.shape[1:]))(keys)
    return jnp.where(keep, x / (1 - self.rate), 0)
