"""Fusion: Cross-Modal Token Fusion of two or more inputs of a clip (Martirosyan et al., MiGA 2025).

The paper (arXiv 2512.23291) names the module and shows no equations, and there is no code: this is
our reading. The tokens of each input are normalised and projected to a common width; the bias of an
input's projection is the embedding of its modality. A learned table of times, shared by all, is
added, interpolated at the time of each token. With a class token in front they are one sequence
for a few pre-norm transformer blocks, and the class token is classified.

What a token may look at is the variant: "joint", every token (self-attention, which is both
directions of cross-attention at once), or "cross", the tokens of the other inputs. The class token
looks at all, and all may look at it. A stream of 2s-AGCN is an input of its own here, where the
paper may have put the channels of two streams together.

Axis letters: B batch, L tokens (of the sequence: a class token's first), D width, N heads, R rows
of the table of times, K classes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import core
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from jaxmg import shapes
from jaxmg.models import layers, variants

# "base" is the reading; "small" is for sets of some hundred clips, "tiny" for tests.
VARIANTS = {
  "base": dict(width=256, depth=2, heads=8),
  "small": dict(width=64, depth=2, heads=4),
  "tiny": dict(width=8, depth=2, heads=2),
}
ATTENTION = ("joint", "cross")

normal = nn.initializers.normal(0.02)


def time_weights(times: Float[Array, "b l"], rows: int) -> Float[Array, "b l r"]:
  """The weights of a table's rows at times in [0, 1]: linear between the rows' middles.

  All are zero for what has no time, -1.
  """
  places = jnp.clip(times * rows - 0.5, 0, rows - 1)[..., None]
  weights = jnp.maximum(1 - jnp.abs(places - jnp.arange(rows)), 0)
  return jnp.where(times[..., None] < 0, 0, weights)


class Sequence(nn.Module):
  """The tokens of all inputs in one sequence of a common width, which are there, who looks at whom.

  In training, with a probability of `modality_dropout`, one of all inputs is drawn, and a clip that
  has it and others loses it: which, and whether, depends on the key and the row's name alone.
  """

  width: int
  attention: str
  time_rows: int
  modality_dropout: float
  class_token: bool = True
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    given: Mapping[str, Mapping[str, Array]],
    present: Mapping[str, Bool[Array, " b"]],
    *,
    train: bool,
    rows: Int[Array, " b"] | None,
  ) -> tuple[Float[Array, "b l d"], Bool[Array, " b l"], Bool[Array, "b l l"]]:
    there = jnp.stack([present[name] for name in given], -1)  # B, inputs
    if train and self.modality_dropout > 0:
      there &= ~self._lost(there, rows)
    table = self.param("times", normal, (self.time_rows, self.width), jnp.float32)
    sequence, seen, owner = [], [], []
    if self.class_token:
      token = self.param("class_token", normal, (self.width,), jnp.float32).astype(self.dtype)
      sequence = [jnp.broadcast_to(token, (there.shape[0], 1, self.width))]
      seen, owner = [jnp.ones((there.shape[0], 1), bool)], [-1]
    for i, (name, one) in enumerate(given.items()):
      # What is missing is nothing, whatever is in its place: no NaN of it, and no gradient to it.
      tokens = jnp.where(there[:, i, None, None], one["tokens"], 0)
      wide = jnp.promote_types(tokens.dtype, jnp.float32)
      tokens = nn.LayerNorm(dtype=wide, name=f"norm_{name}")(tokens)
      x = nn.Dense(self.width, dtype=self.dtype, name=f"project_{name}")(tokens)
      sequence.append(x + (time_weights(one["times"], self.time_rows) @ table).astype(self.dtype))
      seen.append(jnp.broadcast_to(there[:, i, None], x.shape[:2]))
      owner += [i] * x.shape[1]
    owner = np.array(owner)
    allowed = (owner[:, None] != owner) | (owner[:, None] < 0) | (self.attention == "joint")
    seen = jnp.concatenate(seen, 1)
    return jnp.concatenate(sequence, 1), seen, seen[:, None] & allowed

  def _lost(self, there, rows):
    def draw(key):
      whether, which = jax.random.split(key)
      lost = jax.random.bernoulli(whether, self.modality_dropout)
      return lost & (jax.random.randint(which, (), 0, there.shape[1]) == np.arange(there.shape[1]))

    drawn = jax.vmap(draw)(layers.row_keys(self, len(there), rows))
    return drawn & (there.sum(-1, keepdims=True) > 1)


def attend(
  qkv: Float[Array, "b l d3"], may_look: Bool[Array, "b l l"], heads: int
) -> tuple[Float[Array, "b l d"], Float[Array, "b n l l"]]:
  """Attention of queries, keys and values, side by side; and its shares, none where none may be."""
  q, k, v = jnp.moveaxis(qkv.reshape(*qkv.shape[:2], 3, heads, -1), 2, 0)
  wide, may_look = jnp.promote_types(qkv.dtype, jnp.float32), may_look[:, None]
  scores = jnp.einsum("blnd,bmnd->bnlm", q, k, preferred_element_type=wide)
  # Not -inf: a token that may look at nothing would have a gradient of NaN.
  scores = jnp.where(may_look, scores * q.shape[-1] ** -0.5, jnp.finfo(wide).min)
  shares = jnp.where(may_look, nn.softmax(scores), 0)
  y = jnp.einsum("bnlm,bmnd->blnd", shares.astype(v.dtype), v)
  return y.reshape(*y.shape[:2], -1), shares


class Block(nn.Module):
  """Attention, and an MLP, each beside what came in; and the shares of the attention."""

  heads: int
  dropout: float
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(
    self,
    x: Float[Array, "b l d"],
    may_look: Bool[Array, "b l l"],
    *,
    train: bool,
    rows: Int[Array, " b"] | None,
  ) -> tuple[Float[Array, "b l d"], Float[Array, "b n l l"]]:
    width, drop = x.shape[-1], layers.Dropout(self.dropout)
    y = nn.LayerNorm(dtype=self.dtype, name="norm1")(x)
    y = nn.Dense(3 * width, dtype=self.dtype, name="qkv")(y)
    y, shares = attend(y, may_look, self.heads)
    y = nn.Dense(width, dtype=self.dtype, name="project")(y)
    x += drop(y, train=train, rows=rows)
    y = nn.LayerNorm(dtype=self.dtype, name="norm2")(x)
    y = nn.Dense(4 * width, dtype=self.dtype, name="expand")(y)
    y = nn.Dense(width, dtype=self.dtype, name="contract")(nn.gelu(y, approximate=False))
    return x + drop(y, train=train, rows=rows), shares


class Fusion(nn.Module):
  """Inputs of a clip by name -> class scores; a `variant` of VARIANTS gives sizes not given.

  Called on a dictionary of two or more inputs. One that has a model among the `encoders`, under its
  name, is given to it, and that model's "tokens" and "times" are fused; any other is a mapping of
  these itself: "tokens" float[B, L, D], and "times" float[B, L], when each token is, in [0, 1] of
  the clip, or -1 for one that is at no time, as an encoder's class token. Any number of tokens of
  any width goes. The dictionary may also hold "present", a mapping of names to bool[B]: where it is
  False, a clip lacks this input, whose values there count for nothing; by default all are present.
  An input of its variables that is left out is one that all clips lack.

  Returns `(logits float32[B, K], out)`, where `out` holds "attention0", ... float32[B, N, L, L],
  the shares of what each token looks at (sums of 1), by block: first the class token, then those of
  the inputs in the order of their names; "features" float32[B, D], the class token after the last
  norm; what an encoder has in its own `out`, with "NAME/" before, and its "NAME/logits". With an
  `embedding_size` D, a second head learns label embeddings: "embedding" float32[B, D].

  In training (`train=True`) pass `rngs={"dropout": key}`, and for encoders with batch norms
  `mutable=["batch_stats"]`; `rows` int[B] names the rows, see `layers.Dropout`. A clip then loses
  one of its inputs with a probability of `modality_dropout`, never the last one. The parameters of
  an encoder are those in `encoders_NAME`. `dtype=jnp.bfloat16` computes in bfloat16 over float32
  parameters, with norms, softmax and head in float32. What cannot be raises ValueError.
  """

  # Patterns of the paths of parameters: of the classifier, and of what learns label embeddings.
  HEAD = r"head/.*"
  LABEL_HEAD = r"embedding/.*"

  num_classes: int
  encoders: Mapping[str, nn.Module] | None = None
  attention: str = "joint"  # of ATTENTION
  width: int | None = None
  depth: int | None = None
  heads: int | None = None
  time_rows: int = 16  # of the table of times
  dropout: float = 0.1
  modality_dropout: float = 0.0
  embedding_size: int = 0
  dtype: Any = jnp.float32
  variant: dataclasses.InitVar[str] = "base"

  def __post_init__(self, variant: str = "base"):
    variants.fill(self, VARIANTS, variant)
    if self.attention not in ATTENTION:
      raise ValueError(f"attention: expected {' or '.join(ATTENTION)}, got {self.attention}")
    settle(self)
    super().__post_init__()

  @nn.compact
  def __call__(
    self,
    x: Mapping[str, Any],
    *,
    train: bool = False,
    rows: Int[Array, " b"] | None = None,
  ) -> tuple[Float[Array, "b k"], dict[str, Array]]:
    check_inputs(self, x, train=train)
    given, present, out = take(self, x, train=train, rows=rows)
    sequence = Sequence(
      width=self.width,
      attention=self.attention,
      time_rows=self.time_rows,
      modality_dropout=self.modality_dropout,
      dtype=self.dtype,
      name="sequence",
    )
    x, _, may_look = sequence(given, present, train=train, rows=rows)
    for i in range(self.depth):
      block = Block(self.heads, self.dropout, self.dtype, name=f"block{i}")
      x, out[f"attention{i}"] = block(x, may_look, train=train, rows=rows)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    features = out["features"] = nn.LayerNorm(dtype=wide, name="norm")(x[:, 0])
    if self.embedding_size:
      out["embedding"] = nn.Dense(self.embedding_size, name="embedding")(features)
    return nn.Dense(self.num_classes, kernel_init=normal, name="head")(features), out

  def folded(self, variables: Mapping[str, Any]) -> dict[str, Any]:
    """What inference needs of the variables: that of each encoder."""
    return folded(self.encoders, variables)


def settle(model: nn.Module) -> None:
  """Checks the sizes of a fusion, and gives its encoders a hash, as jit wants of a model."""
  if not model.heads or model.width % model.heads:
    raise ValueError(f"width: expected a multiple of {model.heads} heads, got {model.width}")
  if model.encoders is not None:
    model.encoders = core.FrozenDict(model.encoders)


def check_inputs(model: nn.Module, x: Any, *, train: bool, whole: bool = False) -> None:
  """Raises ValueError where a fusion is called without what it needs, or on other inputs.

  Some of its inputs may be left out, unless it takes the `whole` of them.
  """
  layers.check_call(model, train=train)
  if not isinstance(x, Mapping) or not isinstance(x.get("present", {}), Mapping):
    got = type(x).__name__
    raise ValueError(f"inputs: expected inputs by name, and present by name, got {got}")
  encoders, names = model.encoders or {}, sorted(x.keys() - {"present"})
  if len(names) < 2 or encoders.keys() - names:
    expected = f"two or more, {' and '.join(sorted(encoders))} among them" if encoders else "two"
    raise ValueError(f"inputs: expected {expected}, got {' and '.join(names)}")
  known = model.variables.get("params", {}).get("sequence", {})
  known = sorted(name.removeprefix("norm_") for name in known if name.startswith("norm_"))
  if known and ({*names} - {*known} or (whole and names != known)):
    expected = f"{' and '.join(known)}, as its variables have"
    raise ValueError(f"inputs: expected {expected}, got {' and '.join(names)}")
  for name in {*names} - {*encoders}:
    parts = sorted(x[name]) if isinstance(x[name], Mapping) else [type(x[name]).__name__]
    if not {"tokens", "times"} <= {*parts}:
      got = " and ".join(parts) or "none"
      raise ValueError(f"{name}: expected tokens and times, got {got}")


def take(
  model: nn.Module,
  x: Mapping[str, Any],
  *,
  train: bool,
  rows: Int[Array, " b"] | None,
) -> tuple[dict[str, Mapping[str, Array]], dict[str, Bool[Array, " b"]], dict[str, Array]]:
  """The tokens of each input, in the order of names, and who has it; and the encoders' `out`."""
  encoders, names = model.encoders or {}, sorted(x.keys() - {"present"})
  given, out = {}, {}
  for name in names:
    given[name] = x[name]
    if name in encoders:
      logits, theirs = encoders[name](x[name], train=train, rows=rows)
      given[name] = theirs
      out |= {f"{name}/{key}": value for key, value in theirs.items()} | {f"{name}/logits": logits}
    width = layers.channels(model, "sequence", f"project_{name}")
    width = "D" if width == "C" else width
    shapes.check(f"{name}: tokens", given[name]["tokens"], "float", "B", "L", width)
    batch, length, _ = given[name]["tokens"].shape
    shapes.check(f"{name}: times", given[name]["times"], "float", batch, length)
  everywhere = dict.fromkeys(names, jnp.ones(batch, bool))
  present = everywhere | dict(x.get("present", {}))
  if present.keys() != everywhere.keys():
    raise ValueError(f"present: expected {' and '.join(names)}, got {' and '.join(present)}")
  for name, there in present.items():
    if jnp.shape(there) != (batch,):
      raise ValueError(f"present: {name}: expected bool[{batch}], got {list(jnp.shape(there))}")
  return given, present, out


def folded(
  encoders: Mapping[str, nn.Module] | None, variables: Mapping[str, Any]
) -> dict[str, Any]:
  """What inference needs of a fusion's variables: that of each encoder."""
  variables = {kind: dict(tree) for kind, tree in variables.items()}
  for name, encoder in (encoders or {}).items():
    if hasattr(encoder, "folded"):
      place = f"encoders_{name}"
      theirs = {kind: tree.pop(place) for kind, tree in variables.items() if place in tree}
      for kind, tree in encoder.folded(theirs).items():
        variables[kind][place] = tree
  return variables
