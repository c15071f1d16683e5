"""Layers that the models share, written in the forms that XLA runs fastest on every platform.

All arrays are channels last: B T H W C. Convolution kernels are stored as (T, H, W, I, O), whatever
form computes them.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int, Key

from jaxmg import gaussians, shapes
from jaxmg.gaussians import Gaussians

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
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    wide -= wide.mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt((wide**2).mean(-1, keepdims=True) + self.epsilon)
    return (wide * inverse * scale + bias).astype(self.dtype)


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
    kernel = self.param("kernel", he_fan_out, shape, jnp.float32).astype(self.dtype)
    undrawn = (height, self.strides) == (7, (1, 1)) and _is_sparse(x)
    x = x if undrawn else every(self.strides[0], gaussians.drawn(x).astype(self.dtype), axis=1)
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
        x = every(self.strides[1], x, axis=axis)
      h, w = x.shape[2:4]
      y = x.reshape(-1, x.shape[-1]) @ kernel[0, 0, 0]
    # As long as y has the axes of its product, XLA can make all of this one call.
    y = y if bias is None else y + bias.astype(self.dtype)
    y = nn.relu(y) if relu else y
    return y.reshape(b, t, h, w, -1)


def dot(x: Float[Array, "*b i"], kernel: Float[Array, "i o"]) -> Float[Array, "*b o"]:
  """The product as one of matrices: with more axes, XLA copies transposes for the gradient."""
  return (x.reshape(-1, x.shape[-1]) @ kernel).reshape(*x.shape[:-1], kernel.shape[-1])


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


def _plain_conv(x, kernel, stride):  # N H W I, k k I O
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


def _conv_7x7_plain(x, kernel):  # N H W I, k k I O
  return _plain_conv(x, kernel, 1)


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
    return _pullback(_conv_7x7_plain, x, kernel, gradient)
  (dx,) = jax.linear_transpose(lambda x: _conv_7x7_plain(x, kernel), x)(gradient)
  half = kernel.shape[0] // 2
  reverse = jax.lax.conv_general_dilated(
    jax.lax.rev(x.transpose(3, 1, 2, 0), (1, 2)),
    jax.lax.rev(gradient.transpose(1, 2, 0, 3), (0, 1)),
    (1, 1),
    [(half, half)] * 2,
    dimension_numbers=("NHWC", "HWIO", "NHWC"),
  )
  return dx, jax.lax.rev(reverse.transpose(1, 2, 0, 3), (0, 1))


_conv_7x7 = _by_platform(_conv_7x7_plain, _conv_7x7_folded, _gradients_7x7)


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
  wide = jnp.promote_types(jnp.promote_types(x.dtype, kernel.dtype), jnp.float32)
  pixels = (rows[:, :, :, None] * columns[:, :, None, :]).astype(wide)  # I N v w
  # Of a pixel in its window, the patch is the kernel reversed, moved to it.
  down, right = (_moves(length, size) for length in pixels.shape[2:])
  reversed_kernel = kernel[::-1, ::-1].astype(wide)
  moved = jnp.einsum("vad,wbe,deio->ivwabo", down, right, reversed_kernel)

  def add(whole, joint):
    places, pixels, moved = joint
    patches = pixels.reshape(n, -1) @ moved.reshape(-1, moved[0, 0].size)
    return jax.vmap(_add_at)(whole, places, patches.reshape(n, *moved.shape[2:])), None

  whole = jnp.zeros((n, height + size - 1, width + size - 1, features), wide)
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


class BatchNorm(nn.Module):
  """Batch normalisation over all axes but the last, as `nn.BatchNorm` with its names and options.

  Applied as one multiply-add: `nn.BatchNorm` subtracts the mean first, and XLA keeps the
  difference, as large as the input, for the gradient.

  Running statistics begin with those of the first batch, and not with a mean of 0 and a variance of
  1, whose share after n batches would be 0.9^n: after 40, more than the variance of motions.

  The input is understood with `shift` added, per channel: the bias of a layer before. A norm by the
  batch's own mean takes it out again, so that it only moves the running mean and has no gradient.
  """

  momentum: float = 0.9
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
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    stats = {"mean": mean.value - shift, "var": var.value}
    if train:
      axes = tuple(range(x.ndim - 1))
      found = wide.mean(axes)
      stats = {"mean": found, "var": jnp.maximum((wide**2).mean(axes) - found**2, 0)}
      if not self.is_initializing():
        # The first batch is where they begin: 0 and 1 may be far from what they run to.
        first = (mean.value == 0) & (var.value == 1)
        for running, new in ((mean, found + shift), (var, stats["var"])):
          mixed = self.momentum * running.value + (1 - self.momentum) * new
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
