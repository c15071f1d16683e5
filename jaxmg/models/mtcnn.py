"""MTCNN's three networks, which find faces and five landmarks (Zhang et al., 2016, 1604.02878).

The first looks at every place of a picture, the other two at what the one before has found:
`jaxmg.detection` leads pictures through them. They are for inference with the published weights.

Axis letters: B batch, H rows, W columns, C channels, K face or not.
"""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from jaxmg import shapes

# Of the convolutions in a row: features, size of the kernel, and of the max-pool behind it, whose
# stride is 2; features of the dense layer behind them; whether landmarks are found. P-Net and R-Net
# of the published weights have 6,632 and 100,178 parameters, O-Net 389,040.
NETS = {
  "pnet": dict(convs=((10, 3, 2), (16, 3, 0), (32, 3, 0)), width=0, landmarks=False),
  "rnet": dict(convs=((28, 3, 3), (48, 3, 3), (64, 2, 0)), width=128, landmarks=False),
  "onet": dict(convs=((32, 3, 3), (64, 3, 3), (64, 3, 2), (128, 2, 0)), width=256, landmarks=True),
}
SIZES = {"pnet": 12, "rnet": 24, "onet": 48}  # of what a network looks at, in pixels


class Net(nn.Module):
  """Pictures with values in [-1, 1] -> whether there is a face, and where in them.

  Called on float[B, H, W, 3], returns `(logits float32[B, ..., 2], out)`: the second is that of a
  face. `out["box"]` [B, ..., 4] is by how much left, top, right and bottom are moved, in shares of
  the sides, and `out["landmarks"]` [B, 10] has five x in shares of the width, then five y. A net
  without a dense layer looks at every second place, [B, H', W', ...] (`strides` apart); of the
  others H and W are one of `SIZES`.
  """

  convs: tuple[tuple[int, int, int], ...]
  width: int
  landmarks: bool

  @nn.compact
  def __call__(self, x: Float[Array, "b h w 3"]) -> tuple[Array, dict[str, Array]]:
    shapes.check("pictures", x, "float", "B", "H", "W", 3)
    for i, (features, size, pool) in enumerate(self.convs, 1):
      x = nn.Conv(features, (size, size), padding="VALID", name=f"conv{i}")(x)
      x = max_pool(PReLU(name=f"prelu{i}")(x), pool)
    if self.width:
      i += 1
      x = nn.Dense(self.width, name=f"dense{i}")(x.reshape(len(x), -1))
      x = PReLU(name=f"prelu{i}")(x)
    logits = nn.Dense(2, name="head")(x)
    out = {"box": nn.Dense(4, name="box")(x)}
    if self.landmarks:
      out["landmarks"] = nn.Dense(10, name="landmarks")(x)
    return logits, out


class PReLU(nn.Module):
  """What is below zero times a slope, which each channel has of its own."""

  @nn.compact
  def __call__(self, x: Float[Array, "*b c"]) -> Float[Array, "*b c"]:
    slope = self.param("slope", nn.initializers.constant(0.25), (x.shape[-1],))
    return jnp.where(x > 0, x, slope * x)


def max_pool(x: Float[Array, "b h w c"], size: int) -> Float[Array, "b h2 w2 c"]:
  """Maxima of squares with a stride of 2, of which the last may reach over the edge; 0: x."""
  if not size:
    return x
  beyond = [2 * math.ceil((side - size) / 2) + size - side for side in x.shape[1:3]]
  return nn.max_pool(x, (size, size), (2, 2), [(0, more) for more in beyond])


def nets() -> dict[str, Net]:
  """The three networks by name, in the order in which they are used."""
  return {name: Net(**fields) for name, fields in NETS.items()}


def abstract(name: str) -> dict:
  """The shapes of a network's variables."""
  size = SIZES[name]
  picture = jax.ShapeDtypeStruct((1, size, size, 3), jnp.float32)
  return jax.eval_shape(Net(**NETS[name]).init, jax.random.key(0), picture)
