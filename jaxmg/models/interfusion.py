"""InterFusion: inputs of a clip that look at each other (Martirosyan et al., MiGA 2025).

The paper (arXiv 2512.23291) names the module and shows no equations, and there is no code: this is
our reading. Tokens become one sequence as in `fusion`, without a class token. Those of each input
look at those of the others, once; the means of the inputs' tokens, side by side, are classified. A
clip may be seen in several windows.

Axis letters: B batch, W windows, L tokens (of the sequence), D width, N heads, K classes.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float, Int

from jaxmg.models import fusion, layers, variants

VARIANTS = {
  "base": dict(width=256, heads=8),
  "small": dict(width=64, heads=4),
  "tiny": dict(width=8, heads=2),
}
POOLS = ("mean", "attention")


class InterFusion(nn.Module):
  """Inputs of a clip, or of W windows of it, by name -> class scores.

  A `variant` of VARIANTS gives sizes not given. Inputs, `encoders` and "present" are as of
  `fusion.Fusion`. Where tokens are float[B, W, L, D], with times float[B, L] of a window, those of
  all inputs must be, of the same W. What a window says is a probability for each class; those of
  the windows are averaged, by `pool="attention"` with weights that the network learns: a window's
  "gate" float32[B], or [B, W], of which the softmax over all windows of a clip is the weight. The
  class scores are then the logarithms of this mean.

  Returns `(logits float32[B, K], out)`, where `out` holds "attention0" float32[B W, N, L, L], as
  there but without a class token; "features" float32[B, D], of several windows their mean; by
  attention "gate"; and what the encoders have. Training is as there, but that it
  is each window that loses an input.
  """

  HEAD = r"head/.*"
  LABEL_HEAD = r"embedding/.*"

  num_classes: int
  encoders: Mapping[str, nn.Module] | None = None
  pool: str = "mean"  # of POOLS
  width: int | None = None
  heads: int | None = None
  time_rows: int = 16  # of the table of times
  dropout: float = 0.1
  modality_dropout: float = 0.0
  embedding_size: int = 0
  dtype: Any = jnp.float32
  variant: dataclasses.InitVar[str] = "base"

  def __post_init__(self, variant: str = "base"):
    variants.fill(self, VARIANTS, variant)
    if self.pool not in POOLS:
      raise ValueError(f"pool: expected {' or '.join(POOLS)}, got {self.pool}")
    fusion.settle(self)
    super().__post_init__()

  @nn.compact
  def __call__(
    self,
    x: Mapping[str, Any],
    *,
    train: bool = False,
    rows: Int[Array, " b"] | None = None,
  ) -> tuple[Float[Array, "b k"], dict[str, Array]]:
    fusion.check_inputs(self, x, train=train, whole=True)
    x, windows = _as_clips(x)
    if rows is not None and windows:
      rows = (rows[:, None] * windows + jnp.arange(windows)).ravel()
    given, present, out = fusion.take(self, x, train=train, rows=rows)
    sequence = fusion.Sequence(
      width=self.width,
      attention="cross",
      time_rows=self.time_rows,
      modality_dropout=self.modality_dropout,
      class_token=False,
      dtype=self.dtype,
      name="sequence",
    )
    x, seen, may_look = sequence(given, present, train=train, rows=rows)
    drop, wide = layers.Dropout(self.dropout), jnp.promote_types(x.dtype, jnp.float32)
    y = nn.Dense(3 * self.width, dtype=self.dtype, name="qkv")(x)
    y, out["attention0"] = fusion.attend(y, may_look, self.heads)
    y = nn.Dense(self.width, dtype=self.dtype, name="project")(y)
    x = nn.LayerNorm(dtype=wide, name="norm")(x + drop(y, train=train, rows=rows))
    x = jnp.where(seen[..., None], x, 0).astype(self.dtype)  # what is missing is nothing
    ends = np.cumsum([one["tokens"].shape[1] for one in given.values()])
    x = jnp.concatenate([part.mean(1) for part in jnp.split(x, ends[:-1], 1)], -1)
    x = nn.Dense(self.width, dtype=self.dtype, name="expand")(x)
    x = drop(nn.gelu(x, approximate=False), train=train, rows=rows).astype(wide)
    features = x.reshape(-1, windows or 1, self.width)
    out["features"] = features.mean(1)
    logits = nn.Dense(self.num_classes, kernel_init=fusion.normal, name="head")(features)
    gate = jnp.zeros(features.shape[:2])
    if self.pool == "attention":
      y = nn.tanh(nn.Dense(self.width, name="gate1")(features))
      gate = nn.Dense(1, kernel_init=fusion.normal, name="gate2")(y)[..., 0]
      out["gate"] = gate if windows else gate[:, 0]
    if self.embedding_size:
      out["embedding"] = nn.Dense(self.embedding_size, name="embedding")(out["features"])
    if not windows:
      return logits[:, 0], out
    logs = nn.log_softmax(gate)[..., None] + nn.log_softmax(logits)
    return nn.logsumexp(logs, 1), out

  def folded(self, variables: Mapping[str, Any]) -> dict[str, Any]:
    """What inference needs of the variables: that of each encoder."""
    return fusion.folded(self.encoders, variables)


def _as_clips(x: Mapping[str, Any]) -> tuple[dict[str, Any], int]:
  """Inputs whose windows are clips of their own, and how many of a clip there are; 0: no axis."""
  tokens = {
    name: one["tokens"]
    for name, one in x.items()
    if name != "present" and isinstance(one, Mapping) and "tokens" in one
  }
  found = {one.shape[1] if one.ndim == 4 else 0 for one in tokens.values()}
  if found <= {0}:
    return dict(x), 0
  if len(found) > 1 or tokens.keys() != x.keys() - {"present"}:
    raise ValueError(f"windows: expected as many of each input, got {sorted(found)}")
  (windows,) = found
  repeat = lambda y: jnp.repeat(y, windows, 0)  # noqa: E731
  clips = {
    name: {"tokens": one.reshape(-1, *one.shape[2:]), "times": repeat(x[name]["times"])}
    for name, one in tokens.items()
  }
  return clips | {"present": {k: repeat(y) for k, y in x.get("present", {}).items()}}, windows
