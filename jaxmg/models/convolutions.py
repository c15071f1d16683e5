"""The convolution of video models, in the forms that XLA runs fastest on every platform.

Arrays are channels last, B T H W C, and kernels (T, H, W, I, O), whatever form computes them.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from jaxmg import gaussians
from jaxmg.gaussians import Gaussians
from jaxmg.models import layers


class Conv(nn.Module):
  """A convolution without bias over space (1, k, k), over time (k, 1, 1), or neither (1, 1, 1).

  Zero padding of k // 2 on both sides, as in PyTorch; `strides` are (time, space). General 3-D
  convolutions and the gradients of strided ones leave XLA's fast paths on CPUs, so each form is
  written as 2-D convolutions and dots. `Gaussians` are drawn, but not by a (1, 7, 7) kernel of
  strides (1, 1) on a CPU, where they are few pixels of the picture.
  """

  features: int
  kernel_size: tuple[int, int, int] = (1, 1, 1)
  strides: tuple[int, int] = (1, 1)
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b t h w i"] | Gaussians,
    bias: Float[Array, " o"] | None = None,
    *,
    relu: bool = False,
  ) -> Float[Array, "b t2 h2 w2 o"]:
    """The convolution; in inference with its bias and ReLU, which then cost no pass."""
    time, height, width = self.kernel_size
    if height != width or (time > 1 and (height > 1 or self.strides != (1, 1))):
      raise ValueError(
        f"kernel {self.kernel_size}, strides {self.strides}: expected (1, k, k), or (k, 1, 1) with "
        "strides (1, 1)"
      )
    shape = (*self.kernel_size, x.shape[-1], self.features)
    kernel = self.param("kernel", layers.he_fan_out, shape, jnp.float32).astype(self.dtype)
    undrawn = (height, self.strides) == (7, (1, 1)) and _is_sparse(x)
    if not undrawn:
      x = layers.every(self.strides[0], gaussians.drawn(x).astype(self.dtype), axis=1)
    b, t, h, w, _ = x.shape
    if undrawn:
      flat = jax.tree.map(lambda x: x.reshape(b * t, *x.shape[2:]), x)
      y = _conv_7x7_of_gaussians(flat, kernel[0])
    elif height > 1:
      y = _spatial_conv(x.reshape(b * t, h, w, -1), kernel[0], self.strides[1])
      h, w = y.shape[1:3]
    elif time > 1:
      y = _temporal_conv(x.reshape(b, t, h * w, -1), kernel[:, 0, 0])
    else:
      for axis in (2, 3):
        x = layers.every(self.strides[1], x, axis=axis)
      h, w = x.shape[2:4]
      y = x.reshape(-1, x.shape[-1]) @ kernel[0, 0, 0]
    # As long as y has the axes of its product, XLA can make all of this one call.
    y = y if bias is None else y + bias.astype(self.dtype)
    y = nn.relu(y) if relu else y
    return y.reshape(b, t, h, w, -1)


def _by_platform(cpu: Callable, accelerator: Callable, gradients: Callable) -> Callable:
  """One function of x and a kernel, linear in both, in two forms, by what it is lowered for.

  Its gradients are those of the form for accelerators, or on a CPU the two that
  `gradients(x, kernel, gradient)` returns.
  """

  @jax.custom_vjp
  def apply(x, kernel):
    return jax.lax.platform_dependent(x, kernel, cpu=cpu, default=accelerator)

  def forward(x, kernel):
    return apply(x, kernel), (x, kernel)

  def backward(saved, gradient):
    pullback = functools.partial(_pullback, accelerator)
    return jax.lax.platform_dependent(*saved, gradient, cpu=gradients, default=pullback)

  apply.defvjp(forward, backward)
  return apply


def _pullback(function, x, kernel, gradient):
  return jax.vjp(function, x, kernel)[1](gradient)


def _temporal_conv_in_2d(x, kernel):  # B T S I, k I O
  """A convolution of images of T rows and S columns: k x O channels are never in memory."""
  half = kernel.shape[0] // 2
  return jax.lax.conv_general_dilated(
    x,
    kernel[:, None],
    (1, 1),
    [(half, half), (0, 0)],
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )


def _temporal_gradients(x, kernel, gradient):
  """That of the kernel is one product with k x O channels: the gradient, moved in time."""
  (dx,) = jax.linear_transpose(lambda x: _temporal_conv_in_2d(x, kernel), x)(gradient)
  size, inputs, features = kernel.shape
  frames, half = x.shape[1], size // 2
  padded = jnp.pad(gradient, ((0, 0), (half, half), (0, 0), (0, 0)))
  moved = [padded[:, i : i + frames] for i in reversed(range(size))]
  moved = jnp.concatenate(moved, -1).reshape(-1, size * features)
  dkernel = (x.reshape(-1, inputs).T @ moved).reshape(inputs, size, features)
  return dx, dkernel.swapaxes(0, 1)


_temporal_conv = _by_platform(_temporal_conv_in_2d, _temporal_conv_in_2d, _temporal_gradients)


def _spatial_conv(x, kernel, stride):  # N H W I, k k I O
  if stride == 1 and kernel.shape[0] == 7:
    return _conv_7x7(x, kernel)
  return _conv_2d(x, kernel, stride)


def _plain_conv(x, kernel, stride=1):  # N H W I, k k I O
  half = kernel.shape[0] // 2
  return jax.lax.conv_general_dilated(
    x, kernel, (stride, stride), [(half, half)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _conv_2d(x, kernel, stride):
  return _plain_conv(x, kernel, stride)


def _conv_2d_forward(x, kernel, stride):
  return _plain_conv(x, kernel, stride), (x, kernel)


def _conv_2d_backward(stride, saved, gradient):
  x, kernel = saved
  # A CPU takes transposes for the gradient of the kernel. XLA would make them part of what comes
  # before, and they would take several times as long.
  x, gradient = jax.lax.platform_dependent(
    x, gradient, cpu=lambda *both: jax.lax.optimization_barrier(both), default=lambda *both: both
  )
  plain = functools.partial(_plain_conv, stride=stride)
  of_x = _conv_3x3_stride_2_by_blocks if (stride, len(kernel)) == (2, 3) else plain
  (dx,) = jax.linear_transpose(lambda x: of_x(x, kernel), x)(gradient)
  (dkernel,) = jax.linear_transpose(lambda kernel: plain(x, kernel), kernel)(gradient)
  return dx, dkernel


_conv_2d.defvjp(_conv_2d_forward, _conv_2d_backward)


def _conv_7x7_folded(x, kernel):  # N H W I, k k I O
  """The same sums with 4 neighbouring pixels of a row as channels (2 of more than 32 channels).

  The few channels of heatmaps leave most of an accelerator's lanes empty.
  """
  n, height, width, inputs = x.shape
  size, _, _, features = kernel.shape
  half, fold = size // 2, 4 if inputs <= 32 else 2
  reach = -(-half // fold)  # blocks of pixels to either side
  x = jnp.pad(x, ((0, 0), (0, 0), (0, -width % fold), (0, 0)))
  x = x.reshape(n, height, -1, fold * inputs)
  before, after = fold * reach - half, fold * (reach + 1) - half - 1
  kernel = jnp.stack(  # of the output's pixel i in its block: moved by i
    [jnp.pad(kernel, ((0, 0), (before + i, after - i), (0, 0), (0, 0))) for i in range(fold)],
    axis=3,
  )
  kernel = kernel.reshape(size, 2 * reach + 1, fold * inputs, fold * features)
  y = jax.lax.conv_general_dilated(
    x, kernel, (1, 1), [(half, half), (reach, reach)], dimension_numbers=("NHWC", "HWIO", "NHWC")
  )
  return y.reshape(n, height, -1, features)[:, :, :width]


def _gradients_7x7(x, kernel, gradient):
  """That of the kernel, in float32, is taken of x and of the output's gradient reversed.

  It is a convolution by a picture: oneDNN takes twice as long as Eigen, to which XLA leaves those
  by what is reversed. In bfloat16 it is oneDNN that is faster.
  """
  if x.dtype != jnp.float32:
    return _pullback(_plain_conv, x, kernel, gradient)
  (dx,) = jax.linear_transpose(lambda x: _plain_conv(x, kernel), x)(gradient)
  half = kernel.shape[0] // 2
  reverse = jax.lax.conv_general_dilated(
    jax.lax.rev(x.transpose(3, 1, 2, 0), (1, 2)),
    jax.lax.rev(gradient.transpose(1, 2, 0, 3), (0, 1)),
    (1, 1),
    [(half, half)] * 2,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  return dx, jax.lax.rev(reverse.transpose(1, 2, 0, 3), (0, 1))


_conv_7x7 = _by_platform(_plain_conv, _conv_7x7_folded, _gradients_7x7)


def _is_sparse(x):
  """Whether a CPU is faster with the patches of joints, of 7 x 7 kernels, than with a picture."""
  if not isinstance(x, Gaussians):
    return False
  *_, height, width, _ = x.shape
  # Of multiplications it needs an eighth, to be worth what is around them.
  return 8 * x.width**2 * (x.width + 6) ** 2 <= 49 * height * width


def _conv_7x7_of_windows(x, kernel):  # Gaussians of N H W I, k k I O
  """The same of what is not drawn: a sum of each joint's patch of the output.

  Its pixels that are not zero lie in a window, and reach the patch around it alone. One joint
  after the other, so that not all patches are in memory.
  """
  n, height, width, _ = x.shape
  size, features = kernel.shape[0], kernel.shape[-1]
  (top, rows), (left, columns) = _windows_of(x.rows, x.width), _windows_of(x.columns, x.width)
  wide = jnp.result_type(x.rows, kernel, jnp.float32)
  pixels = (rows[:, :, :, None] * columns[:, :, None, :]).astype(wide)  # I N v w
  # Of a pixel in its window, the patch is the kernel reversed, moved to it.
  down, right = (_moves(length, size) for length in pixels.shape[2:])
  reversed_kernel = kernel[::-1, ::-1].astype(wide)
  moved = jnp.einsum("vad,wbe,deio->ivwabo", down, right, reversed_kernel)

  def add(whole, joint):
    places, pixels, moved = joint
    patches = pixels.reshape(n, -1) @ moved.reshape(-1, moved[0, 0].size)
    return jax.vmap(_add_at)(whole, places, patches.reshape(n, *moved.shape[2:])), None

  # As the pixels, of one's own device inside `jax.shard_map`.
  whole = jnp.zeros_like(pixels, shape=(n, height + size - 1, width + size - 1, features))
  whole, _ = jax.lax.scan(add, whole, (jnp.stack([top, left], -1), pixels, moved))
  half = size // 2
  return whole[:, half : half + height, half : half + width].astype(kernel.dtype)


def _windows_of(values, width):  # N L I
  """The first of so many neighbours among which all are that are not zero, and these, I N width."""
  length = values.shape[1]
  width = min(width, length)
  first = jnp.argmax(values != 0, axis=1).clip(0, length - width)  # N I
  places = first[:, None] + jnp.arange(width)[:, None]
  return first.T, jnp.take_along_axis(values, places, axis=1).transpose(2, 0, 1)


def _moves(length, size):
  """[i, a, d]: 1 where d, moved by i, is at a."""
  i, a, d = np.ogrid[:length, : length + size - 1, :size]
  return (a == i + d).astype(np.float32)


def _add_at(whole, place, patch):  # H W O, (row, column), h w O
  numbers = jax.lax.ScatterDimensionNumbers(
    update_window_dims=(0, 1, 2), inserted_window_dims=(), scatter_dims_to_operand_dims=(0, 1)
  )
  return jax.lax.scatter_add(whole, place, patch, numbers, mode="promise_in_bounds")


def _conv_7x7_of_drawn(x, kernel):
  return _conv_7x7_folded(gaussians.drawn(x).astype(kernel.dtype), kernel)


_conv_7x7_of_gaussians = _by_platform(
  _conv_7x7_of_windows,
  _conv_7x7_of_drawn,
  functools.partial(_pullback, _conv_7x7_of_windows),
)


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
