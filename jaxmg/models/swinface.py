"""SwinFace: a face's identity, age, expression and attributes (Qin et al., 2023, arXiv 2308.11509).

A Swin transformer (Liu et al., ICCV 2021) of aligned faces of 112 x 112 pixels. Patches of 2 x 2
pixels are tokens on a grid; from stage to stage the width doubles and the grid is halved. Attention
is within windows of 7 x 7 tokens, which in every second block are shifted by 3. The last stage's
mean makes the embedding, by which faces are recognised. Maps of all stages, pooled to the grid of
the last one, go to eleven branches, each for what can be told from one part of the face.

The original sees one face; here a clip is T faces of one person. Each is a token, its embedding.

Axis letters: B batch, T faces of a clip, F = B T faces, H rows, W columns, C channels, L tokens (of
a window), N heads, D channels of a head, K classes. h and w are the axes of the grid of tokens.
"""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxmg import shapes
from jaxmg.models import convolutions, layers, variants

# The published network has 67,415,538 parameters with its branches; its file has a product more,
# which nothing reads, 67,809,266 in all. "tiny", with every kind of block, is for tests and for
# sets of some hundred clips: its faces may have 56 x 56 pixels.
VARIANTS = {
  "swin-t": dict(
    width=96, depths=(2, 2, 6, 2), heads=(3, 6, 12, 24), token_width=512, stochastic_depth=0.1
  ),
  "tiny": dict(width=8, depths=(1, 2, 1), heads=(1, 2, 4), token_width=16, stochastic_depth=0.1),
}
WINDOW = 7  # tokens of a side
_PATCH = 2  # pixels of a side

EXPRESSIONS = ("surprise", "fear", "disgust", "happy", "sad", "anger", "neutral")
# The branches, and what each tells, in the order of the original's output layers. Two logits each
# (no and yes; of gender: female and male), but for age, a number, and the expressions.
BRANCHES = {
  "gender": ("gender",),
  "age": ("age", "young"),
  "expression": ("expression", "smiling"),
  "whole": ("attractive", "blurry", "chubby", "heavy_makeup", "oval_face", "pale_skin"),
  "hair": (
    *("bald", "bangs", "black_hair", "blond_hair", "brown_hair", "gray_hair"),
    *("receding_hairline", "straight_hair", "wavy_hair", "wearing_hat"),
  ),
  "eyes": ("arched_eyebrows", "bags_under_eyes", "bushy_eyebrows", "eyeglasses", "narrow_eyes"),
  "nose": ("big_nose", "pointy_nose"),
  "cheeks": ("high_cheekbones", "rosy_cheeks", "wearing_earrings", "sideburns"),
  "mouth": (
    *("five_o_clock_shadow", "big_lips", "mouth_slightly_open", "mustache"),
    *("wearing_lipstick", "no_beard"),
  ),
  "chin": ("double_chin", "goatee"),
  "neck": ("wearing_necklace", "wearing_necktie"),
}
OUTPUTS = tuple(name for names in BRANCHES.values() for name in names)
_SIZES = {"age": 1, "expression": len(EXPRESSIONS)}
ATTRIBUTES = tuple(name for name in OUTPUTS if name not in _SIZES)
CLASSIFY = ("tokens", "expression")

normal = nn.initializers.normal(0.02)
Norm = functools.partial(layers.Norm, epsilon=1e-5)
BatchNorm = functools.partial(layers.BatchNorm, epsilon=2e-5)


class Patches(nn.Module):
  """The first convolution, of 2 x 2 pixels that no other patch has, as a product; and a norm."""

  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "f H W i"]) -> Float[Array, "f h w c"]:
    shape = (_PATCH, _PATCH, x.shape[-1], self.features)
    kernel = self.param("kernel", normal, shape, jnp.float32).astype(self.dtype)
    bias = self.param("bias", nn.initializers.zeros, (self.features,), jnp.float32)
    x = _blocks(x.astype(self.dtype), _PATCH)  # f h w rows columns i
    x = layers.dot(x.reshape(*x.shape[:3], -1), kernel.reshape(-1, self.features))
    return Norm(self.dtype, name="norm")(x + bias.astype(self.dtype))


def _blocks(x, size):  # F H W C -> F h w size size C
  f, height, width, c = x.shape
  x = x.reshape(f, height // size, size, width // size, size, c)
  return x.transpose(0, 1, 3, 2, 4, 5)


def _from_blocks(x):  # F h w size size C -> F H W C
  f, h, w, size, _, c = x.shape
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(f, h * size, w * size, c)


def same_region(height: int, width: int, shift: int) -> Bool[np.ndarray, "windows l l"]:
  """Which tokens of each shifted window are of one piece: moved windows reach around the edge."""
  regions = np.zeros((1, height, width, 1), int)
  for axis, size in ((1, height), (2, width)):
    bounds = np.array([size - WINDOW, size - shift])
    region = np.searchsorted(bounds, np.arange(size), "right")
    regions = 3 * regions + np.expand_dims(region, [i for i in range(4) if i != axis])
  regions = _blocks(regions, WINDOW).reshape(-1, WINDOW**2)
  return regions[:, :, None] == regions[:, None]


class Attention(nn.Module):
  """Attention among the tokens of each window, with a bias by their relative position."""

  heads: int
  shift: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "f h w c"]) -> Float[Array, "f h w c"]:
    height, width, features = x.shape[1:]
    if self.shift:
      x = jnp.roll(x, (-self.shift, -self.shift), (1, 2))
    x = _blocks(x, WINDOW)
    blocks = x.shape
    x = x.reshape(x.shape[0], -1, WINDOW**2, features)
    x = layers.Dense(3 * features, self.dtype, name="qkv")(x)
    q, k, v = jnp.moveaxis(x.reshape(*x.shape[:3], 3, self.heads, -1), 3, 0)
    wide = jnp.promote_types(q.dtype, jnp.float32)
    q *= q.shape[-1] ** -0.5
    scores = jnp.einsum("fwlnd,fwmnd->fwnlm", q, k, preferred_element_type=wide) + self._bias()
    if self.shift:
      allowed = same_region(height, width, self.shift)
      scores = jnp.where(allowed[:, None], scores, -jnp.inf)  # a token may look at itself
    x = jnp.einsum("fwnlm,fwmnd->fwlnd", nn.softmax(scores).astype(v.dtype), v)
    x = layers.Dense(features, self.dtype, name="project")(x.reshape(*x.shape[:3], -1))
    x = _from_blocks(x.reshape(blocks))
    return jnp.roll(x, (self.shift, self.shift), (1, 2)) if self.shift else x

  def _bias(self):  # N L L
    size = 2 * WINDOW - 1
    table = self.param("positions", normal, (size, size, self.heads), jnp.float32)
    # As products, one for rows and one for columns: the gradient of a gather is slow, and on GPUs
    # not the same twice.
    steps = np.arange(WINDOW)[:, None] - np.arange(WINDOW) + WINDOW - 1
    at = np.eye(size, dtype=np.float32)[steps]  # query key step
    bias = jnp.einsum("qkr,rsn->qksn", at, table, precision="highest")
    bias = jnp.einsum("pls,qksn->nqpkl", at, bias, precision="highest")
    return bias.reshape(self.heads, WINDOW**2, WINDOW**2)


class Block(nn.Module):
  """Attention and an MLP, each beside what came in."""

  heads: int
  shift: int
  stochastic_depth: float
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, x: Float[Array, "f h w c"], *, train: bool, rows: Int[Array, " f"]
  ) -> Float[Array, "f h w c"]:
    features, drop = x.shape[-1], functools.partial(layers.StochasticDepth, self.stochastic_depth)
    y = Norm(self.dtype, name="norm1")(x)
    y = Attention(self.heads, self.shift, self.dtype, name="attention")(y)
    x += drop(name="drop1")(y, train=train, rows=rows)
    y = Norm(self.dtype, name="norm2")(x)
    y = layers.Dense(4 * features, self.dtype, name="expand")(y)
    y = layers.Dense(features, self.dtype, name="contract")(nn.gelu(y, approximate=False))
    return x + drop(name="drop2")(y, train=train, rows=rows)


class Merge(nn.Module):
  """Half the grid, twice the width: a norm and a product of each 2 x 2 tokens."""

  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "f h w c"]) -> Float[Array, "f h2 w2 d"]:
    features = x.shape[-1]
    x = _blocks(x, 2).swapaxes(3, 4)  # the original goes down before it goes to the right
    x = Norm(self.dtype, name="norm")(x.reshape(*x.shape[:3], -1))
    return layers.Dense(2 * features, self.dtype, use_bias=False, name="reduce")(x)


class Embedding(nn.Module):
  """The embedding of a face, of the mean of its tokens: two products, each with a batch norm."""

  features: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x: Float[Array, "f c"], *, train: bool) -> Float[Array, "f d"]:
    wide = jnp.promote_types(self.dtype, jnp.float32)
    for i, features in ((1, x.shape[-1]), (2, self.features)):
      x = layers.Dense(features, self.dtype, use_bias=False, name=f"dense{i}")(x)
      x = BatchNorm(dtype=wide, name=f"norm{i}")(x, train=train)
    return x


class Branch(nn.Module):
  """One branch of the analysis: of the maps of all stages, its outputs by name."""

  outputs: tuple[str, ...]
  features: int
  dropout: float
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self, maps: list[Float[Array, "f h w _"]], *, train: bool, rows: Int[Array, " f"]
  ) -> dict[str, Float[Array, "f _"]]:
    dense = functools.partial(layers.Dense, dtype=self.dtype)
    # Each map has a share of the channels, by its own.
    total = sum(x.shape[-1] for x in maps)
    sizes = [round(self.features * x.shape[-1] / total) for x in maps[:-1]]
    sizes.append(self.features - sum(sizes))
    parts = [
      convolutions.Conv(size, (1, 3, 3), dtype=self.dtype, name=f"conv{i}")(x[:, None])[:, 0]
      for i, (size, x) in enumerate(zip(sizes, maps, strict=True))
    ]
    x = jnp.concatenate(parts, -1)
    reduce = dense(max(1, self.features // 16), name="gate1")
    expand = dense(self.features, name="gate2")
    wide = jnp.promote_types(x.dtype, jnp.float32)
    pooled = (x.mean((1, 2), dtype=wide), x.max((1, 2)))
    gate = nn.sigmoid(sum(expand(nn.relu(reduce(y))) for y in pooled))
    x = nn.relu(x * gate[:, None, None]).max((1, 2))
    x = BatchNorm(dtype=self.dtype, name="norm")(x, train=train)
    for i in (1, 2):
      x = nn.relu(dense(self.features, name=f"dense{i}")(x))
      x = layers.Dropout(self.dropout, name=f"drop{i}")(x, train=train, rows=rows)
    x = x.astype(wide)
    return {
      name: layers.Dense(_SIZES.get(name, 2), dtype=wide, name=name)(x) for name in self.outputs
    }


class SwinFace(nn.Module):
  """Faces of a clip -> class scores; a `variant` of VARIANTS gives the sizes that are not given.

  Called on float[B, T, H, W, 3], aligned faces in colours (x / 255 - 0.5) / 0.5 whose height and
  width are whole numbers of windows of patches in the last stage: of the published network, 112.
  Returns `(logits float32[B, K], out)`, where `out` holds "patches" and "stage1", ...
  [B, T, h, w, C], after every stage; "tokens" float32[B, T, D], the embedding of each face, with
  their "times" float32[B, T] (see `layers.token_times`); and "features" float32[B, D], their mean,
  before dropout. With the `branches` also, of each face, "age" float32[B, T, 1], "expression"
  float32[B, T, 7], logits in the order of EXPRESSIONS, "attributes" float32[B, T, 40, 2], no and
  yes in the order of ATTRIBUTES, "gender" among them and by itself float32[B, T, 2], female and
  male; and "local" float32[B, C], the mean over faces and places of the maps that the branches are
  given beside the last one. With an `embedding_size` D, a second head of the features learns label
  embeddings: "embedding" float32[B, D].

  Classes are those of a head of the features, or by `classify="expression"` the seven expressions,
  whose logits are averaged over the faces. What the classes do not come from is not trained: the
  other branches keep their batch statistics too, and under jit they cost nothing.

  In training (`train=True`) pass `mutable=["batch_stats"]` and `rngs={"dropout": key}`; `rows`
  int[B] names the rows, see `layers.Dropout`. Block i of n is left out for a face with a
  probability of `stochastic_depth` * i / (n - 1). `remat` computes the blocks again for their
  gradients instead of keeping what is in them. `dtype=jnp.bfloat16` computes in bfloat16 over
  float32 parameters, with norms, softmax and outputs in float32. What cannot be raises ValueError.
  """

  TAKES = ("faces", "video")  # kinds of `jaxmg.inputs`
  # Patterns of the path of parameters: of what learns label embeddings.
  LABEL_HEAD = r"embedding/.*"

  num_classes: int
  width: int | None = None
  depths: tuple[int, ...] | None = None
  heads: tuple[int, ...] | None = None
  token_width: int | None = None
  stochastic_depth: float | None = None
  dropout: float = 0.5
  branches: bool = False
  classify: str = "tokens"  # of CLASSIFY
  embedding_size: int = 0
  remat: bool = False
  dtype: Any = jnp.float32
  variant: dataclasses.InitVar[str] = "swin-t"

  def __post_init__(self, variant: str = "swin-t"):
    variants.fill(self, VARIANTS, variant)
    if self.classify not in CLASSIFY:
      raise ValueError(f"classify: expected {' or '.join(CLASSIFY)}, got {self.classify}")
    if self.classify == "expression" and not self.branches:
      raise ValueError("branches: expected True, as expressions come from one, got False")
    if self.classify == "expression" and self.num_classes != len(EXPRESSIONS):
      raise ValueError(f"num_classes: expected {len(EXPRESSIONS)}, got {self.num_classes}")
    super().__post_init__()

  @property
  def HEAD(self) -> str:
    """The pattern of the paths of the classifier's parameters."""
    return r"branch_expression/expression/.*" if self.classify == "expression" else r"head/.*"

  @nn.compact
  def __call__(
    self,
    faces: Float[Array, "b t h w c"],
    *,
    train: bool = False,
    rows: Int[Array, " b"] | None = None,
  ) -> tuple[Float[Array, "b k"], dict[str, Array]]:
    layers.check_call(self, train=train)
    shapes.check("faces", faces, "float", "B", "T", "H", "W", 3)
    batch, number = faces.shape[:2]
    multiple = WINDOW * _PATCH << len(self.depths) - 1
    if any(side % multiple for side in faces.shape[2:4]):
      got = " x ".join(map(str, faces.shape[2:4]))
      raise ValueError(f"faces: expected multiples of {multiple} x {multiple} pixels, got {got}")
    rows = jnp.arange(batch) if rows is None else rows
    names = (rows[:, None] * number + jnp.arange(number)).ravel()  # of the faces

    def of_clips(x):
      return x.reshape(batch, number, *x.shape[1:])

    x = faces.reshape(-1, *faces.shape[2:])
    x = Patches(self.width, self.dtype, name="patches")(x)
    out, maps = {"patches": of_clips(x)}, []
    for i, stage in enumerate(self._stages(), 1):
      for j, sizes in enumerate(stage):
        shift = WINDOW // 2 if j % 2 and min(x.shape[1:3]) > WINDOW else 0
        block = Block(**sizes, shift=shift, dtype=self.dtype, name=f"stage{i}_block{j}")

        def call(block, x, names):
          return block(x, train=train, rows=names)

        x = (nn.remat(call) if self.remat else call)(block, x, names)
      if i < len(self.depths):
        x = Merge(self.dtype, name=f"merge{i}")(x)
      maps.append(x)
      out[f"stage{i}"] = of_clips(x)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    mean = Norm(wide, name="norm")(x).mean((1, 2))
    token = Embedding(self.token_width, self.dtype, name="token")(mean, train=train)
    tokens = out["tokens"] = of_clips(token)
    out["times"] = layers.token_times(batch, number)
    features = out["features"] = tokens.mean(1)
    if self.branches:
      found = self._analysed(maps, train=train, rows=names)
      found = {name: of_clips(x) for name, x in found.items()}
      out |= {name: found[name] for name in ("age", "expression", "gender")}
      out["attributes"] = jnp.stack([found[name] for name in ATTRIBUTES], 2)
      local = jnp.concatenate([x.mean((1, 2), dtype=wide) for x in maps[:-1]], -1)
      out["local"] = of_clips(local).mean(1)
    if self.embedding_size:
      out["embedding"] = nn.Dense(self.embedding_size, name="embedding")(features)
    if self.classify == "expression":
      return out["expression"].mean(1), out
    x = layers.Dropout(self.dropout)(features, train=train, rows=rows)
    return nn.Dense(self.num_classes, kernel_init=normal, name="head")(x), out

  def _analysed(self, maps, *, train, rows):
    """What the branches tell of each face, by name."""
    grid, found = maps[-1].shape[1:3], {}
    # All of the grid of the last stage.
    maps = [_blocks(x, x.shape[1] // grid[0]).mean((3, 4)) for x in maps]
    for name, outputs in BRANCHES.items():
      branch = Branch(outputs, self.token_width, self.dropout, self.dtype, name=f"branch_{name}")
      found |= branch(maps, train=train and name == self.classify, rows=rows)
    return found

  def _stages(self) -> list[list[dict[str, Any]]]:
    """The sizes of every block, by stage."""
    rates = iter(np.linspace(0, self.stochastic_depth, sum(self.depths)).tolist())
    return [
      [dict(heads=heads, stochastic_depth=next(rates)) for _ in range(depth)]
      for depth, heads in zip(self.depths, self.heads, strict=True)
    ]

  @nn.nowrap
  def by_depth(self) -> tuple[str, ...]:
    """Patterns of the paths of parameters, from the input to the classifier."""
    blocks = [
      rf"stage{i}_block{j}/.*" + (rf"|merge{i}/.*" if j + 1 == depth else "")
      for i, depth in enumerate(self.depths, 1)
      for j in range(depth)
    ]
    last = r"norm/.*|token/.*|branch_.*|head/.*"
    return r"patches/.*", *blocks, rf"{last}|{self.LABEL_HEAD}"
