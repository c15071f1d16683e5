"""Heatmaps that are not drawn yet: a Gaussian of two axes is one along each, multiplied.

A network whose first layer is a convolution needs no picture of them: of 3,000 pixels some 20 are
not zero.
"""

import dataclasses
import functools
from typing import Any

import jax


@functools.partial(
  jax.tree_util.register_dataclass, data_fields=["rows", "columns"], meta_fields=["width"]
)
@dataclasses.dataclass(frozen=True, eq=False)
class Gaussians:
  """One Gaussian per channel: `rows` float[*B, H, V] and `columns` float[*B, W, V].

  Their products are the heatmaps float[*B, H, W, V], whose shape and dtype these have. Along H, and
  along W, at most `width` neighbours are not zero, which is relied upon: whoever changes values, as
  a mixture of two clips does, draws them first (`drawn`).
  """

  rows: Any
  columns: Any
  width: int

  @property
  def shape(self) -> tuple[int, ...]:
    *before, height, channels = self.rows.shape
    return (*before, height, self.columns.shape[-2], channels)

  @property
  def dtype(self) -> Any:
    return self.rows.dtype

  def __array__(self, *_, **__) -> Any:
    raise TypeError("Gaussians are no array: jaxmg.gaussians.drawn(x) gives the heatmaps")

  def __getattr__(self, name: str) -> Any:
    hint = "jaxmg.gaussians.drawn(x) gives the heatmaps"
    raise AttributeError(f"Gaussians have no {name}: {hint}", name=name, obj=self)


def drawn(x: Any) -> Any:
  """The heatmaps float[*B, H, W, V] of `Gaussians`; anything else as it is."""
  if not isinstance(x, Gaussians):
    return x
  return x.rows[..., :, None, :] * x.columns[..., None, :, :]
