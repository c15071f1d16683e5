"""PoseC3D: SlowOnly-R50 over joint or limb heatmaps (Duan et al., CVPR 2022, arXiv 2104.13586).

A 3-D ResNet without its first stage: the stem keeps the heatmaps' resolution, and three stages of
bottlenecks halve it. Kernels reach over time only in the last two stages.

Axis letters: B batch, T frames, H rows, W columns, V joints or limbs, C channels, K classes.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxmg import shapes
from jaxmg.gaussians import Gaussians
from jaxmg.models import convolutions, layers, variants

# The published network has 2,024,860 parameters at 17 joints and 60 classes; PYSKL's other one, for
# Kinetics and what begins with its weights, has its stages in another order. "small" and
# "small-strided" are ours, for laptops; "tiny", with every kind of layer, is for tests.
VARIANTS = {
  "slowonly-r50": dict(width=32, depths=(4, 6, 3), stem=(7, 1)),
  "slowonly-r50-346": dict(width=32, depths=(3, 4, 6), stem=(7, 1)),
  "small": dict(width=16, depths=(1, 2, 1), stem=(7, 1)),
  "small-strided": dict(width=16, depths=(1, 3, 3), stem=(3, 2)),
  "tiny": dict(width=4, depths=(1, 1), stem=(7, 1)),
}


class ConvNorm(nn.Module):
  """Convolution, batch normalisation (or what is left of it: a bias) and, usually, ReLU."""

  features: int
  kernel_size: tuple[int, int, int] = (1, 1, 1)
  strides: tuple[int, int] = (1, 1)
  relu: bool = True
  zero_scale: bool = False
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "b t h w c"] | Gaussians, *, train: bool
  ) -> Float[Array, "b t2 h2 w2 d"]:
    conv = convolutions.Conv(self.features, self.kernel_size, self.strides, self.dtype, name="conv")
    if not train and self.has_variable("params", "bias"):  # see fold_batch_norm
      return conv(x, self.get_variable("params", "bias"), relu=self.relu)
    scale_init = nn.initializers.zeros if self.zero_scale else nn.initializers.ones
    x = layers.BatchNorm(dtype=self.dtype, scale_init=scale_init, name="bn")(conv(x), train=train)
    return nn.relu(x) if self.relu else x


class Bottleneck(nn.Module):
  """1x1x1 (3x1x1 where inflated), 1x3x3 with the strides, 1x1x1 to four times the planes."""

  planes: int
  strides: tuple[int, int]
  inflated: bool
  conv: Callable  # `ConvNorm` with its dtype

  @nn.compact
  def __call__(self, x: Float[Array, "b t h w c"], *, train: bool) -> Float[Array, "b t2 h2 w2 d"]:
    kernel = (3, 1, 1) if self.inflated else (1, 1, 1)
    y = self.conv(self.planes, kernel, name="conv1")(x, train=train)
    y = self.conv(self.planes, (1, 3, 3), self.strides, name="conv2")(y, train=train)
    wide = functools.partial(self.conv, 4 * self.planes, relu=False)
    y = wide(zero_scale=True, name="conv3")(y, train=train)
    if x.shape != y.shape:
      x = wide(strides=self.strides, name="downsample")(x, train=train)
    return layers.relu_of_sum(x + y)


class Stage(nn.Module):
  """Bottlenecks in a row, the first of them with the strides."""

  planes: int
  depth: int
  strides: tuple[int, int]
  inflated: bool
  conv: Callable

  @nn.compact
  def __call__(self, x: Float[Array, "b t h w c"], *, train: bool) -> list[Array]:
    outputs = []
    for i in range(self.depth):
      strides = self.strides if i == 0 else (1, 1)
      block = Bottleneck(self.planes, strides, self.inflated, self.conv, name=f"block{i}")
      x = block(x, train=train)
      outputs.append(x)
    return outputs


class PoseC3D(nn.Module):
  """Heatmaps -> class scores; a `variant` of VARIANTS gives the sizes that are not given.

  Called on heatmaps float[B, T, H, W, V], or on `jaxmg.gaussians` of such a shape (see
  `convolutions.Conv`), returns `(logits float32[B, K], out)`, where `out` holds every intermediate:
  "stem", "pool", "stage1" ("stage1/block0", ...) to "stage3", "features" float32[B, C], the pooled
  features before dropout, and for a fusion "tokens" float32[B, T', C], pooled over rows and columns
  alone, with their "times" float32[B, T'] (see `layers.token_times`).
  Under jit, what is not used costs nothing.
  With an `embedding_size` D, a second head of the features learns label embeddings: its output is
  "embedding" float32[B, D].

  In training (`train=True`) pass `mutable=["batch_stats"]` and `rngs={"dropout": key}`; `rows`
  int[B] names the rows, see `layers.Dropout`. `dtype=jnp.bfloat16` computes in bfloat16 over
  float32 parameters, with float32 batch statistics and head. Other shapes raise ValueError.
  """

  TAKES = ("heatmaps", "video")  # kinds of `jaxmg.inputs`
  # Patterns of the paths of parameters: of the classifier, and of what learns label embeddings.
  HEAD = r"head/.*"
  LABEL_HEAD = r"embedding/.*"

  num_classes: int
  width: int | None = None
  depths: tuple[int, ...] | None = None
  stem: tuple[int, int] | None = None  # size and stride, in pixels, of the first kernel
  dropout: float = 0.5
  embedding_size: int = 0
  dtype: Any = jnp.float32
  variant: dataclasses.InitVar[str] = "slowonly-r50"

  def __post_init__(self, variant: str = "slowonly-r50"):
    variants.fill(self, VARIANTS, variant)
    super().__post_init__()

  @nn.compact
  def __call__(
    self,
    heatmaps: Float[Array, "b t h w v"] | Gaussians,
    *,
    train: bool = False,
    rows: Int[Array, " b"] | None = None,
  ) -> tuple[Float[Array, "b k"], dict[str, Array]]:
    layers.check_call(self, train=train)
    channels = layers.channels(self, "stem", "conv")
    shapes.check("heatmaps", heatmaps, "float", "B", "T", "H", "W", channels)
    out = {}
    conv = functools.partial(ConvNorm, dtype=self.dtype)
    size, stride = self.stem
    x = conv(self.width, (1, size, size), (1, stride), name="stem")(heatmaps, train=train)
    out["stem"] = x
    x = out["pool"] = layers.max_pool_3x3(x)
    for i, depth in enumerate(self.depths):
      last = i + 1 == len(self.depths)
      stage = Stage(
        planes=self.width * 2**i,
        depth=depth,
        strides=(2 if last else 1, 2),  # time is halved in the last stage only
        inflated=i > 0,
        conv=conv,
        name=f"stage{i + 1}",
      )
      blocks = stage(x, train=train)
      out |= {f"stage{i + 1}/block{j}": block for j, block in enumerate(blocks)}
      x = out[f"stage{i + 1}"] = blocks[-1]
    features = out["features"] = layers.pool(x, (1, 2, 3))
    # A token is a moment, as of 2s-AGCN, and not a place in it as well: 24 instead of 1176 of a
    # clip, of which most would show an empty part of the heatmaps.
    out["tokens"] = layers.pool(x, (2, 3))
    out["times"] = layers.token_times(x.shape[0], x.shape[1])
    if self.embedding_size:
      out["embedding"] = nn.Dense(self.embedding_size, name="embedding")(features)
    x = layers.Dropout(self.dropout)(features, train=train, rows=rows)
    logits = nn.Dense(self.num_classes, kernel_init=nn.initializers.normal(0.01), name="head")(x)
    return logits, out

  def folded(self, variables: Mapping[str, Any]) -> dict[str, Any]:
    """What inference needs of the variables: see `fold_batch_norm`."""
    return fold_batch_norm(variables)


def fold_batch_norm(variables: Mapping[str, Any]) -> dict[str, Any]:
  """Returns variables without batch statistics that predict the same, for `train=False` only.

  In inference a norm is a scale and a shift per channel: the scale goes into the kernel of the
  convolution before it, and a bias is left of the shift. `model.apply` takes either form.
  """

  def fold(params, stats):
    if "bn" not in params:
      return {k: fold(v, stats[k]) if k in stats else v for k, v in params.items()}
    scale, bias = layers.batch_norm_affine(params["bn"], stats["bn"])
    return {"conv": {"kernel": params["conv"]["kernel"] * scale}, "bias": bias}

  return {"params": fold(variables["params"], variables["batch_stats"])}
