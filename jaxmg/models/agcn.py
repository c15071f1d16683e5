"""One stream of 2s-AGCN: adaptive graph convolutions (Shi et al., CVPR 2019, arXiv 1805.07694).

Every block mixes the joints over three graphs (the skeleton's edges, edges that are learned, and
attention between the joints of the clip), then the frames by a convolution.

Axis letters: B batch, T frames, M persons, V joints, C channels, K classes; N the persons of all
clips. Inside, arrays are N V T C: with frames before channels, a person's joints are rows of a
matrix, and the convolution over time is one of images with a row for each joint.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxmg import ranges, shapes
from jaxmg.models import layers, variants

# The published network has 3,469,510 parameters at two persons of 25 joints and 60 classes. "small"
# is ours, for CPUs; "tiny", with every kind of block, is for tests.
VARIANTS = {
  "agcn": dict(width=64, depths=(4, 3, 3)),
  "small": dict(width=32, depths=(2, 2, 2)),
  "tiny": dict(width=8, depths=(1, 2)),
}
_SUBSETS = 3  # of the edges: self, inward, outward


def adjacency(parents: tuple[int, ...]) -> Float[np.ndarray, "3 v v"]:
  """Edges [from, to] of a tree: from oneself, from the parent, from the children.

  The paper's self, inward and outward. A column sums to 1, or to 0 where there is no such edge: the
  root, its own parent here, has none inward.
  """
  child = np.arange(len(parents))
  inward = np.zeros((len(parents), len(parents)), np.float32)
  inward[np.array(parents), child] = 1
  np.fill_diagonal(inward, 0)
  edges = np.stack([np.eye(len(parents), dtype=np.float32), inward, inward.T])
  return edges / np.maximum(edges.sum(1, keepdims=True), 1)


def _tree(parents: Any) -> tuple[int, ...]:
  """The parents as numbers; ValueError where they are no tree with one root."""
  wanted = isinstance(parents, tuple | list | np.ndarray) and all(map(ranges.is_whole, parents))
  found = tuple(map(int, parents)) if wanted else ()
  roots = [v for v, parent in enumerate(found) if v == parent]
  ancestors = range(len(found))
  if len(roots) == 1 and all(0 <= v < len(found) for v in found):
    for _ in found:
      ancestors = [found[v] for v in ancestors]
  if {*ancestors} != {*roots} or not found:
    expected = "the parent of every joint, the root its own (Skeleton.parents)"
    raise ValueError(f"parents: expected {expected}, got {parents!r}")
  return found


def _value_init(key, shape, dtype):
  """The original's for the three convolutions that are summed: of all weights, not of a fan."""
  return nn.initializers.normal((2 / (_SUBSETS * np.prod(shape))) ** 0.5)(key, shape, dtype)


class Weights(nn.Module):
  """Kernel (T, I, O) and bias (O) of a convolution over time, for its owner to apply."""

  shape: tuple[int, int, int]
  kernel_init: Any = layers.he_fan_out

  @nn.compact
  def __call__(self) -> tuple[Float[Array, "t i o"], Float[Array, " o"]]:
    kernel = self.param("kernel", self.kernel_init, self.shape, jnp.float32)
    return kernel, self.param("bias", nn.initializers.zeros, self.shape[-1:], jnp.float32)


def temporal_conv(
  x: Float[Array, "n v t i"], kernel: Float[Array, "size i o"], *, stride: int = 1
) -> Float[Array, "n v t2 o"]:
  """Convolves over time, with zero padding of size // 2, for sizes 1 and 9 and strides 1 and 2."""
  if kernel.shape[0] == 1:
    return layers.dot(layers.every(stride, x, axis=2), kernel[0])
  if stride == 2:
    # Over blocks of two frames the stride is 1: gradients of strided convolutions are slow on CPUs.
    # The middle of the kernel is the first frame of its block.
    x = jnp.pad(x, ((0, 0), (0, 0), (0, x.shape[2] % 2), (0, 0)))
    x = x.reshape(*x.shape[:2], -1, 2 * x.shape[3])
    kernel = jnp.pad(kernel, ((0, 1), (0, 0), (0, 0))).reshape(-1, x.shape[3], kernel.shape[2])
  half = kernel.shape[0] // 2
  return jax.lax.conv_general_dilated(
    x, kernel[None], (1, 1), [(0, 0), (half, half)], dimension_numbers=("NHWC", "HWIO", "NHWC")
  )


class ConvNorm(nn.Module):
  """Convolution over time and batch normalisation."""

  features: int
  size: int = 1
  stride: int = 1
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "n v t c"], *, train: bool) -> Float[Array, "n v t2 d"]:
    kernel, bias = Weights((self.size, x.shape[-1], self.features), name="conv")()
    x = temporal_conv(x, kernel.astype(self.dtype), stride=self.stride)
    if not train and _is_folded(self):
      return x + bias.astype(self.dtype)
    return layers.BatchNorm(dtype=self.dtype, name="bn")(x, train=train, shift=bias)


class Subset(nn.Module):
  """The weights of one graph's 1 x 1 convolutions, for `GraphConv` to apply."""

  inputs: int
  features: int

  @nn.compact
  def __call__(self) -> tuple[tuple[Array, Array], ...]:
    narrow = (1, self.inputs, self.features // 4)
    return (
      Weights(narrow, name="theta")(),
      Weights(narrow, name="phi")(),
      Weights((1, self.inputs, self.features), _value_init, name="value")(),
    )


class GraphConv(nn.Module):
  """The sum over three graphs, its norm, and what came in; begins as nearly the latter."""

  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "n v t c"], edges: Float[Array, "3 v v"], *, train: bool
  ) -> Float[Array, "n v t d"]:
    edges += self.param("edges", nn.initializers.constant(1e-6), edges.shape, jnp.float32)
    subsets = [Subset(x.shape[-1], self.features, name=f"subset{i}")() for i in range(_SUBSETS)]
    theta, phi, value = zip(*subsets, strict=True)
    narrow = layers.dots(x, [kernel[0].astype(self.dtype) for kernel, _ in (*theta, *phi)])
    joints = x.reshape(*x.shape[:2], -1)  # N V T*C
    y = 0
    for i, (kernel, _) in enumerate(value):
      phi_i = narrow[_SUBSETS + i] + phi[i][1].astype(self.dtype)
      graph = (edges[i].T + _attention(narrow[i], phi_i)).astype(self.dtype)
      gathered = jnp.einsum("nwv,nvd->nwd", graph, joints).reshape(x.shape)
      y += layers.dot(gathered, kernel[0].astype(self.dtype))
    bias = sum(bias for _, bias in value)
    if not train and _is_folded(self):
      y += bias.astype(self.dtype)
    else:
      scale_init = nn.initializers.constant(1e-6)
      norm = layers.BatchNorm(dtype=self.dtype, scale_init=scale_init, name="bn")
      y = norm(y, train=train, shift=bias)
    if x.shape != y.shape:
      x = ConvNorm(self.features, dtype=self.dtype, name="down")(x, train=train)
    return layers.relu_of_sum(x + y)


def _is_folded(module: nn.Module) -> bool:
  there = any(module.has_variable(kind, "bn") for kind in ("params", "batch_stats"))
  return not module.is_initializing() and not there


def _attention(theta, phi):  # N V T C -> N W V
  """The share of each joint v in what a joint w takes.

  The bias of theta would add the same to all that a softmax compares, and so is left out.
  """
  theta, phi = (x.reshape(*x.shape[:2], -1) for x in (theta, phi))
  wide = jnp.promote_types(theta.dtype, jnp.float32)
  scores = jnp.einsum("nwd,nvd->nwv", phi, theta, preferred_element_type=wide)
  return nn.softmax(scores / theta.shape[-1])


class Block(nn.Module):
  """A graph convolution over the joints, a convolution over 9 frames, and usually a residual."""

  features: int
  stride: int = 1
  residual: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "n v t c"], edges: Float[Array, "3 v v"], *, train: bool
  ) -> Float[Array, "n v t2 d"]:
    y = GraphConv(self.features, self.dtype, name="graph")(x, edges, train=train)
    y = ConvNorm(self.features, 9, self.stride, self.dtype, name="temporal")(y, train=train)
    if self.residual and x.shape[-1] == self.features:
      y += x
    elif self.residual:
      y += ConvNorm(self.features, 1, self.stride, self.dtype, name="residual")(x, train=train)
    return layers.relu_of_sum(y)


class AGCN(nn.Module):
  """Joints, bones or motions -> class scores; a `variant` of VARIANTS gives sizes not given.

  Called on float[B, T, M, V, C], returns `(logits float32[B, K], out)`, where `out` holds the
  output of every block, "block1", ... as [B, T', M, V, C], "features" float32[B, C], the mean of
  the last before dropout, and for a fusion "tokens" float32[B, T', C], its means over persons and
  joints, with their "times" float32[B, T'] (see `layers.token_times`). Time is halved where the
  width doubles. Persons that are missing are all zero.
  `parents` is the skeleton's tree: the parent of every joint, the root its own. With an
  `embedding_size` D, a second head learns label embeddings: "embedding" float32[B, D].

  In training (`train=True`) pass `mutable=["batch_stats"]` and, with dropout,
  `rngs={"dropout": key}`; `rows` int[B] names the rows, see `layers.Dropout`. `dtype=jnp.bfloat16`
  computes in bfloat16 over float32 parameters, with float32 batch statistics, attention weights
  and head. Other shapes raise ValueError.
  """

  TAKES = ("graph",)  # kinds of `jaxmg.inputs`
  # Patterns of the paths of parameters: of the classifier, and of what learns label embeddings.
  HEAD = r"head/.*"
  LABEL_HEAD = r"embedding/.*"

  num_classes: int
  parents: tuple[int, ...]
  width: int | None = None
  depths: tuple[int, ...] | None = None
  dropout: float = 0.0
  embedding_size: int = 0
  dtype: Any = jnp.float32
  variant: dataclasses.InitVar[str] = "agcn"

  def __post_init__(self, variant: str = "agcn"):
    variants.fill(self, VARIANTS, variant)
    self.parents = _tree(self.parents)
    super().__post_init__()

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b t m v c"],
    *,
    train: bool = False,
    rows: Int[Array, " b"] | None = None,
  ) -> tuple[Float[Array, "b k"], dict[str, Array]]:
    layers.check_call(self, train=train)
    persons, joints = "M", len(self.parents)
    channels = layers.channels(self, "block1", "graph", "subset0", "theta")
    if self.has_variable("params", "data_bn"):
      if channels == "C":
        raise ValueError("variables: expected what init gave, got parts of it")
      # Its norm is of every channel of every joint of every person.
      persons = self.variables["params"]["data_bn"]["scale"].size // (joints * channels)
    shape = jnp.shape(x)
    if channels == "C" and shape[1:2] in ((2,), (3,)) and shape[2:3] > (8,) and shape[4:] < (3,):
      channels = shape[1]  # as in the original, and its last axis holds the persons
    shapes.check("x", x, "float", "B", "T", persons, joints, channels)
    batch, frames, persons, joints, channels = x.shape
    edges = jnp.asarray(adjacency(self.parents))
    norm = layers.BatchNorm(dtype=self.dtype, name="data_bn")
    x = norm(x.reshape(batch, frames, -1), train=train).reshape(x.shape)
    x = x.transpose(0, 2, 3, 1, 4).reshape(-1, joints, frames, channels)  # N V T C
    out = {}
    for i, depth in enumerate(self.depths):
      for j in range(depth):
        block = Block(
          features=self.width * 2**i,
          stride=2 if i > 0 and j == 0 else 1,
          residual=len(out) > 0,
          dtype=self.dtype,
          name=f"block{len(out) + 1}",
        )
        x = block(x, edges, train=train)
        by_clip = x.reshape(batch, persons, *x.shape[1:])
        out[block.name] = by_clip.transpose(0, 3, 1, 2, 4)
    features = out["features"] = layers.pool(by_clip, (1, 2, 3))
    out["tokens"] = layers.pool(by_clip, (1, 2))
    out["times"] = layers.token_times(batch, x.shape[2])
    if self.embedding_size:
      out["embedding"] = nn.Dense(self.embedding_size, name="embedding")(features)
    features = layers.Dropout(self.dropout)(features, train=train, rows=rows)
    kernel_init = nn.initializers.normal((2 / self.num_classes) ** 0.5)
    logits = nn.Dense(self.num_classes, kernel_init=kernel_init, name="head")(features)
    return logits, out

  def folded(self, variables: Mapping[str, Any]) -> dict[str, Any]:
    """Variables without most batch statistics that predict the same, for `train=False` only.

    As `posec3d.fold_batch_norm`: what a norm does in inference goes into the kernels and the biases
    before it. The norm of the input stays.
    """
    stats = variables["batch_stats"]
    params = _folded(variables["params"], stats)
    return {"params": params, "batch_stats": {"data_bn": stats["data_bn"]}}


def _folded(params, stats):
  params = {
    name: _folded(value, stats.get(name, {})) if isinstance(value, Mapping) else value
    for name, value in params.items()
  }
  if "bn" not in params:
    return params
  scale, shift = layers.batch_norm_affine(params.pop("bn"), stats["bn"])
  subsets = [params[name]["value"] for name in params if name.startswith("subset")]
  for conv in subsets or [params["conv"]]:
    conv |= {"kernel": conv["kernel"] * scale, "bias": conv["bias"] * scale + shift}
    shift = 0  # of a sum, once
  return params
