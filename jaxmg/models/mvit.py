"""MViTv2: a vision transformer whose tokens become fewer (Li et al., CVPR 2022, arXiv 2112.01526).

Patches of a clip are tokens, and one more token stands for the class. From stage to stage the
width doubles and the grid of tokens is halved in height and width, by queries that are pooled; keys
and values are pooled too, the more the earlier the stage. Every head has as many channels as the
first stage is wide. Positions enter as tables of relative ones, one each for time, rows and
columns; for a clip of another size than the tables were made for they are interpolated.

Axis letters: B batch, T frames, H rows, W columns, C channels, L tokens (the class's first), N
heads, D channels of a head, K classes. t, h and w are the axes of the grid of tokens.
"""

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxmg import gaussians, shapes
from jaxmg.models import layers, variants

# The published network has 34,537,744 parameters at 16 x 224 x 224 in colour and 400 classes.
# "small" is ours, for sets of some hundred clips and small pictures; "tiny", with every kind of
# block, is for tests. `kv_stride` is that of the first stage, and is halved in each of the next.
VARIANTS = {
  "mvitv2-s": dict(width=96, depths=(1, 2, 11, 2), kv_stride=8, stochastic_depth=0.2),
  "small": dict(width=32, depths=(1, 1, 2), kv_stride=4, stochastic_depth=0.1),
  "tiny": dict(width=8, depths=(1, 1, 2), kv_stride=4, stochastic_depth=0.1),
}
_PATCH, _STRIDES = (3, 7, 7), (2, 4, 4)  # of the first convolution, padded by half its kernel
TOKENS = ("all", "class")
# How pooling and attention are computed: see `_depthwise` and `_attend`.
POOLING = "shifts"
ATTENTION = "folded"

normal = nn.initializers.normal(0.02)


class Patches(nn.Module):
  """The first convolution: 3 x 7 x 7, every 2 frames and 4 pixels.

  Computed as one of stride 1 over blocks of 2 x 4 x 4 pixels, which are channels then: three of
  colour, or one of grey, would leave most of the lanes of any processor empty.
  """

  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b T H W i"]) -> Float[Array, "b t h w c"]:
    inputs = x.shape[-1]
    kernel = self.param("kernel", normal, (*_PATCH, inputs, self.features), jnp.float32)
    bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
    t, h, w = grid = [
      -(-size // stride) for size, stride in zip(x.shape[1:4], _STRIDES, strict=True)
    ]
    pads = [
      (k // 2, (n + 1) * stride - k // 2 - size)
      for k, n, stride, size in zip(_PATCH, grid, _STRIDES, x.shape[1:4], strict=True)
    ]
    x = jnp.pad(x.astype(self.dtype), [(0, 0), *pads, (0, 0)])
    x = x.reshape(-1, t + 1, 2, h + 1, 4, w + 1, 4, inputs).transpose(0, 1, 3, 5, 2, 4, 6, 7)
    x = x.reshape(*x.shape[:4], -1)
    x = jnp.concatenate([x[:, :-1], x[:, 1:]], axis=-1)  # two blocks of frames
    kernel = jnp.pad(kernel.astype(self.dtype), [(0, 1)] * 3 + [(0, 0)] * 2)
    kernel = kernel.reshape(2, 2, 2, 4, 2, 4, inputs, -1).transpose(2, 4, 0, 1, 3, 5, 6, 7)
    y = jax.lax.conv_general_dilated(
      x.reshape(-1, *x.shape[2:]),
      kernel.reshape(2, 2, x.shape[-1], -1),
      (1, 1),
      "VALID",
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.reshape(-1, t, h, w, self.features) + bias.astype(self.dtype)


def _shifts(x, sizes, stride, fill=0):  # B t h w ...
  """What each place of a kernel of these odd sizes sees, first to last: B t h' w' ... each."""
  pads = [(0, 0), *((k // 2, k // 2) for k in sizes), *[(0, 0)] * (x.ndim - 4)]
  padded = jnp.pad(x, pads, constant_values=fill)
  strides = (1, stride, stride)
  for place in np.ndindex(*sizes):
    yield padded[
      :, *(slice(i, i + n, s) for i, n, s in zip(place, x.shape[1:4], strides, strict=True))
    ]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise(x, kernel, stride):  # B t h w N D, 3 3 3 D -> B t h' w' N D
  """A kernel of 3 x 3 x 3 for each channel, the same in every head; strides 1, stride, stride.

  As sums of shifted products, which XLA makes one pass of, as it does of both gradients in these
  forms. Its convolutions of one channel each take 15 to 200 times as long on CPUs.
  """
  if POOLING == "shifts":
    shifted = _shifts(x, kernel.shape[:3], stride)
    return sum(x * k for x, k in zip(shifted, kernel.reshape(27, -1), strict=True))
  return _depthwise_in_2d(x, kernel, stride)


def _depthwise_forward(x, kernel, stride):
  return _depthwise(x, kernel, stride), (x, kernel)


def _depthwise_backward(stride, saved, gradient):
  x, kernel = saved
  if POOLING != "shifts":
    return jax.vjp(functools.partial(_depthwise_in_2d, stride=stride), x, kernel)[1](gradient)
  shifted = [*_shifts(x, kernel.shape[:3], stride)]
  sums = jax.lax.platform_dependent(shifted, gradient, cpu=_sums_on_cpu, default=_sums)
  # With zeros for what the stride left out, it is the same once more with the kernel reversed.
  holes = [
    (0, size - (n - 1) * stride - 1, stride - 1)
    for size, n in zip(x.shape[2:4], gradient.shape[2:4], strict=True)
  ]
  no_holes = [(0, 0, 0)] * 2
  gradient = jax.lax.pad(gradient, jnp.zeros((), x.dtype), [*no_holes, *holes, *no_holes])
  dx = _depthwise(gradient, kernel[::-1, ::-1, ::-1], 1)
  return dx, sums.reshape(kernel.shape).astype(kernel.dtype)


def _sums(shifted, gradient):
  """Of the products with a gradient, per channel; on a GPU nothing of this is written to memory."""
  wide = jnp.promote_types(gradient.dtype, jnp.float32)
  return (jnp.stack(shifted) * gradient).sum(range(1, gradient.ndim), dtype=wide)


def _sums_on_cpu(shifted, gradient):
  """The same; a GPU would write the products to its memory first."""
  wide = jnp.promote_types(gradient.dtype, jnp.float32)
  sums = jax.lax.reduce(
    [x.astype(wide) * gradient.astype(wide) for x in shifted],
    [jnp.zeros((), wide)] * len(shifted),
    lambda a, b: [x + y for x, y in zip(a, b, strict=True)],
    range(gradient.ndim - 1),
  )
  return jnp.stack(sums)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _depthwise_in_2d(x, kernel, stride):
  b, t, h, w, n, d = x.shape
  kernel = jnp.tile(kernel[:, :, :, None], (1, 1, 1, 1, n))  # 3 3 3 1 C
  images = x.reshape(b * t, h, w, n * d)
  y = 0
  for i in range(3):
    part = jax.lax.conv_general_dilated(
      images,
      kernel[i],
      (stride, stride),
      [(1, 1)] * 2,
      dimension_numbers=("NHWC", "HWIO", "NHWC"),
      feature_group_count=n * d,
    )
    part = jnp.pad(part.reshape(b, t, *part.shape[1:]), [(0, 0), (1, 1), *[(0, 0)] * 3])
    y += part[:, i : i + t]
  return y.reshape(*y.shape[:4], n, d)


def _max_pool(x, stride):  # B t h w C
  """The largest of 3 x 3; the gradient goes to the first of equal ones, as in PyTorch."""
  largest, *others = _shifts(x, (1, 3, 3), stride, -jnp.inf)
  for other in others:
    largest = jnp.where(other > largest, other, largest)
  return largest


def _on_grid(function, x, grid):  # B L ...
  """Applies to the grid of tokens what leaves the class's as it is."""
  y = function(x[:, 1:].reshape(x.shape[0], *grid, *x.shape[2:]))
  return jnp.concatenate([x[:, :1], y.reshape(x.shape[0], -1, *y.shape[4:])], 1)


def _pooled(grid, stride):
  time, rows, columns = grid
  return time, -(-rows // stride), -(-columns // stride)


class Pool(nn.Module):
  """Pooling of queries, keys or values with learned weights, and a norm; as many for each head."""

  stride: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b l n d"], grid: tuple[int, ...]) -> Float[Array, "b l2 n d"]:
    kernel = self.param("kernel", normal, (3, 3, 3, x.shape[-1]), jnp.float32)
    pool = functools.partial(_depthwise, kernel=kernel.astype(self.dtype), stride=self.stride)
    return layers.Norm(self.dtype, name="norm")(_on_grid(pool, x, grid))


def interpolation(rows: int, new_rows: int) -> Float[np.ndarray, "new_rows rows"]:
  """The weights of a table's rows in one of another length: linear, between the rows' middles."""
  if rows == new_rows:
    return np.eye(rows, dtype=np.float32)
  places = (np.arange(new_rows) + 0.5) * rows / new_rows - 0.5
  places = np.clip(places, 0, rows - 1)[:, None]
  return np.maximum(1 - abs(places - np.arange(rows)), 0).astype(np.float32)


def relative_positions(queries: int, keys: int, rows: int) -> Float[np.ndarray, "q k rows"]:
  """The weights of a table's rows in the relative position of each query and each key.

  One axis of the grid, where the keys stand apart by more than the queries, or the other way round.
  """
  query_step, key_step = np.float32(max(keys / queries, 1)), np.float32(max(queries / keys, 1))
  query = np.arange(queries, dtype=np.float32)[:, None] * query_step
  key = (np.arange(keys, dtype=np.float32) + 1 - keys) * key_step
  return interpolation(rows, 2 * max(queries, keys) - 1)[(query - key).astype(int)]


class Attention(nn.Module):
  """Attention of pooled queries to pooled keys and values, with relative positions."""

  heads: int
  features: int
  strides: tuple[int, int]  # of the queries, of keys and values
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "b l c"], grid: tuple[int, ...]) -> Float[Array, "b l2 d"]:
    x = layers.Dense(3 * self.features, self.dtype, name="qkv")(x)
    x = x.reshape(*x.shape[:2], 3, self.heads, -1)
    stride, kv_stride = self.strides
    q = Pool(stride, self.dtype, name="pool_q")(x[:, :, 0], grid)
    k = Pool(kv_stride, self.dtype, name="pool_k")(x[:, :, 1], grid)
    v = Pool(kv_stride, self.dtype, name="pool_v")(x[:, :, 2], grid)
    queries, keys = _pooled(grid, stride), _pooled(grid, kv_stride)
    on_grid = q[:, 1:].reshape(-1, *queries, *q.shape[2:])
    bias = []  # for each query, of the keys at a time, in a row, in a column
    for axis, name in enumerate(("time", "rows", "columns")):
      table = self._table(name, 2 * max(queries[axis], keys[axis]) - 1, q.shape[-1])
      weights = relative_positions(queries[axis], keys[axis], len(table))
      table = jnp.einsum("qkr,rd->qkd", weights, table, precision="highest")
      letter = "thw"[axis]
      bias.append(jnp.einsum(f"bthwnd,{letter}kd->bthwnk", on_grid, table.astype(self.dtype)))
    y = _attend(q, k, v, bias)
    y += jnp.where(jnp.arange(y.shape[1])[:, None, None] > 0, q, 0)
    y = y.reshape(*y.shape[:2], -1)
    return layers.Dense(self.features, self.dtype, name="project")(y)

  def _table(self, name, rows, channels):
    if self.has_variable("params", name):  # made for the clips of training
      rows = self.get_variable("params", name).shape[0]
    return self.param(name, normal, (rows, channels), jnp.float32)


def _attend(q, k, v, bias):  # B L N D, B M N D, B M N D, 3 x B t h w N keys of an axis
  """Softmax of q k / sqrt(D) + bias, in float32, times v; the class's token has no bias."""
  q *= q.shape[-1] ** -0.5
  if ATTENTION == "bias":
    scores = _products(q, k) + _bias_of_scores(bias).astype(q.dtype)
    return _weighted(scores, v)
  q, k = _with_bias(q, k, bias)
  if ATTENTION == "folded":
    return _weighted(_products(q, k), v)
  if ATTENTION != "cudnn":
    raise ValueError(f"ATTENTION: expected bias, folded or cudnn, got {ATTENTION}")
  width = -(-q.shape[-1] // 8) * 8
  padded = (jnp.pad(x, [(0, 0)] * 3 + [(0, width - x.shape[-1])]) for x in (q, k, v))
  return jax.nn.dot_product_attention(*padded, scale=1.0, implementation="cudnn")[
    ..., : v.shape[-1]
  ]


def _products(q, k):
  wide = jnp.promote_types(q.dtype, jnp.float32)
  return jnp.einsum("blnd,bmnd->bnlm", q, k, preferred_element_type=wide)


def _weighted(scores, v):
  return jnp.einsum("bnlm,bmnd->blnd", nn.softmax(scores).astype(v.dtype), v)


def _bias_of_scores(bias):
  time, rows, columns = bias
  full = time[..., None, None] + rows[..., None, :, None] + columns[..., None, None, :]
  full = full.transpose(0, 4, 1, 2, 3, 5, 6, 7)
  full = full.reshape(*full.shape[:2], math.prod(full.shape[2:5]), -1)
  return jnp.pad(full, ((0, 0), (0, 0), (1, 0), (1, 0)))


def _with_bias(q, k, bias):
  """Longer queries and keys, whose products have the bias in them.

  A query also has its bias for each time, row and column, and a key a 1 at its own. With that any
  attention does, and the bias is never as large as the scores.
  """
  sizes = [x.shape[-1] for x in bias]
  bias = jnp.concatenate(bias, -1).reshape(q.shape[0], -1, q.shape[2], sum(sizes))
  bias = jnp.pad(bias, ((0, 0), (1, 0), (0, 0), (0, 0)))  # none of the class's token
  places = zip(sizes, np.indices(sizes), strict=True)
  at = np.concatenate([np.eye(size)[place.ravel()] for size, place in places], -1)
  at = jnp.asarray(np.pad(at, ((1, 0), (0, 0))), k.dtype)
  at = jnp.broadcast_to(at[:, None], (*k.shape[:3], sum(sizes)))
  return jnp.concatenate([q, bias], -1), jnp.concatenate([k, at], -1)


class Block(nn.Module):
  """Attention, whose queries may be pooled, and an MLP, each beside what came in."""

  heads: int
  features: int
  strides: tuple[int, int]
  stochastic_depth: float
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b l c"],
    grid: tuple[int, ...],
    *,
    train: bool,
    rows: Int[Array, " b"] | None,
  ) -> Float[Array, "b l2 d"]:
    drop = functools.partial(layers.StochasticDepth, self.stochastic_depth)
    y = layers.Norm(self.dtype, name="norm1")(x)
    if x.shape[-1] != self.features:
      x = layers.Dense(self.features, self.dtype, name="project")(y)
    stride, _ = self.strides
    if stride > 1:
      x = _on_grid(functools.partial(_max_pool, stride=stride), x, grid)
    attention = Attention(self.heads, self.features, self.strides, self.dtype, name="attention")
    x += drop(name="drop1")(attention(y, grid), train=train, rows=rows)
    y = layers.Norm(self.dtype, name="norm2")(x)
    y = layers.Dense(4 * self.features, self.dtype, name="expand")(y)
    y = layers.Dense(self.features, self.dtype, name="contract")(nn.gelu(y, approximate=False))
    return x + drop(name="drop2")(y, train=train, rows=rows)


class MViT(nn.Module):
  """Clips -> class scores; a `variant` of VARIANTS gives the sizes that are not given.

  Called on float[B, T, H, W, C], colours (x / 255 - 0.45) / 0.225 for published weights, or any
  other channels; returns `(logits float32[B, K], out)`, where `out` holds "patches"
  [B, 1 + t h w, C], the tokens with the class's first, those after every block, "block0", ..., all
  "tokens" float32[B, L, C] after the last norm with their "times" float32[B, L] (see
  `layers.token_times`), and "features" float32[B, C], the class's token of these, before dropout.
  With `tokens="class"` this one is the only token.
  With an `embedding_size` D, a second head learns label embeddings: "embedding" float32[B, D].

  In training (`train=True`) pass `rngs={"dropout": key}`; `rows` int[B] names the rows, see
  `layers.Dropout`. Block i of n is left out for a clip with a probability of
  `stochastic_depth` * i / (n - 1). `remat` computes the blocks again for their gradients instead of
  keeping what is in them. `dtype=jnp.bfloat16` computes in bfloat16 over float32 parameters, with
  norms, softmax and head in float32. Other shapes raise ValueError.
  """

  TAKES = ("video", "faces", "heatmaps")  # kinds of `jaxmg.inputs`
  # Patterns of the paths of parameters: of the classifier, and of what learns label embeddings.
  HEAD = r"head/.*"
  LABEL_HEAD = r"embedding/.*"

  num_classes: int
  width: int | None = None
  depths: tuple[int, ...] | None = None
  kv_stride: int | None = None
  stochastic_depth: float | None = None
  dropout: float = 0.5
  embedding_size: int = 0
  remat: bool = False
  tokens: str = "all"  # of TOKENS: those that `out` has
  dtype: Any = jnp.float32
  variant: dataclasses.InitVar[str] = "mvitv2-s"

  def __post_init__(self, variant: str = "mvitv2-s"):
    variants.fill(self, VARIANTS, variant)
    if self.tokens not in TOKENS:
      raise ValueError(f"tokens: expected {' or '.join(TOKENS)}, got {self.tokens}")
    super().__post_init__()

  @nn.compact
  def __call__(
    self,
    clips: Float[Array, "b t h w c"] | gaussians.Gaussians,
    *,
    train: bool = False,
    rows: Int[Array, " b"] | None = None,
  ) -> tuple[Float[Array, "b k"], dict[str, Array]]:
    layers.check_call(self, train=train)
    channels = layers.channels(self, "patches")
    clips = gaussians.drawn(clips)
    shape = jnp.shape(clips)
    if channels == "C" and shape[1:2] in ((1,), (3,)) and shape[4:] > (8,):  # as of PyTorch
      channels = shape[1]
    shapes.check("clips", clips, "float", "B", "T", "H", "W", channels)
    x = Patches(self.width, self.dtype, name="patches")(clips)
    grid = x.shape[1:4]
    token = self.param("class_token", normal, (self.width,), jnp.float32).astype(x.dtype)
    token = jnp.broadcast_to(token, (x.shape[0], 1, self.width))
    x = jnp.concatenate([token, x.reshape(x.shape[0], -1, self.width)], 1)
    out = {"patches": x}
    for i, sizes in enumerate(self.blocks()):
      block = Block(**sizes, dtype=self.dtype, name=f"block{i}")

      def call(block, x, rows, *, grid=grid):
        return block(x, grid, train=train, rows=rows)

      x = out[f"block{i}"] = (nn.remat(call) if self.remat else call)(block, x, rows)
      grid = _pooled(grid, block.strides[0])
    wide = jnp.promote_types(x.dtype, jnp.float32)
    norm = layers.Norm(wide, name="norm")
    features = out["features"] = norm(x[:, 0])
    # Of all tokens, once more: who does not ask for them computes one.
    shown = slice(1 if self.tokens == "class" else None)
    out["tokens"] = norm(x[:, shown])
    places = grid[1] * grid[2]
    times = layers.token_times(x.shape[0], grid[0], places=places, class_token=True)
    out["times"] = times[:, shown]
    if self.embedding_size:
      out["embedding"] = nn.Dense(self.embedding_size, name="embedding")(features)
    x = layers.Dropout(self.dropout)(features, train=train, rows=rows)
    return nn.Dense(self.num_classes, kernel_init=normal, name="head")(x), out

  @nn.nowrap
  def by_depth(self) -> tuple[str, ...]:
    """Patterns of the paths of parameters, from the input to the classifier."""
    blocks = (rf"block{i}/.*" for i in range(sum(self.depths)))
    return r"patches/.*|class_token", *blocks, rf"norm/.*|{self.HEAD}|{self.LABEL_HEAD}"

  @nn.nowrap
  def blocks(self) -> list[dict[str, Any]]:
    """The sizes of every block."""
    blocks, last = [], max(sum(self.depths) - 1, 1)
    for stage, depth in enumerate(self.depths):
      for first in [True] + [False] * (depth - 1):
        sizes = dict(heads=2**stage, features=self.width * 2**stage)
        sizes["strides"] = (2 if stage > 0 and first else 1, max(self.kv_stride >> stage, 1))
        sizes["stochastic_depth"] = self.stochastic_depth * len(blocks) / last
        blocks.append(sizes)
    return blocks
