"""Gaussian heatmaps of joints and limbs (PoseC3D, Duan et al., CVPR 2022, section 3.2).

Pure, differentiable and vmappable. Coordinates and `sigma` are in heatmap pixels; pixel (row, col)
is sampled at y = row, x = col, not at its centre. A point whose score is 0 is not drawn.

With `window=True` the result is that of the PyTorch tools: a Gaussian is cut off 3 sigma from its
joint or from its limb's bounding box, scores below 1e-4 are skipped, and a limb shorter than 1 px
is its start joint. The cuts are steps: `window=False` leaves them out, and the heatmap of a person
is then a smooth function of the coordinates everywhere (once differentiable, for limbs). Several
persons share it by their maximum, whose gradient goes to the highest.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmg import gaussians, shapes

_SCORE_THRESHOLD = 1e-4
_FAR = 1e4  # pixels: beyond it nothing is visible, and squares of coordinates would overflow


def render_joints(
  points: Float[Array, "*b m v 3"],
  *,
  size: tuple[int, int],
  sigma: float | Float[Array, ""] = 0.6,
  window: bool = True,
) -> Float[Array, "*b h w v"]:
  """Draws each joint as a Gaussian whose peak is its score; the maximum over the persons.

  `points` holds x, y and score; `size` is (height, width).
  """
  shapes.check("points", points, "float", "...", "M", "V", 3)
  found = joint_gaussians(points, size=size, sigma=sigma, window=window)
  return _over_persons(gaussians.drawn(found))


def joint_gaussians(
  points: Float[Array, "*b v 3"],
  *,
  size: tuple[int, int],
  sigma: float | Float[Array, ""] = 0.6,
  window: bool = True,
) -> gaussians.Gaussians:
  """What `render_joints` draws of each person, [*b, H, W, V], before it is drawn."""
  shapes.check("points", points, "float", "...", "V", 3)
  _check_size(size)
  points = jnp.asarray(points).clip(-_FAR, _FAR)
  score = points[..., 2]
  if window:
    score = jnp.where(score < _SCORE_THRESHOLD, 0, score)
  # A Gaussian is separable: H + W exponentials per joint instead of H * W, and no gather.
  columns, rows = (
    _gaussian(points[..., axis], length, sigma, window)
    for axis, length in ((0, size[1]), (1, size[0]))
  )  # *b v w and *b v h
  exact = window and jnp.finfo(points.dtype).bits >= 32  # else the cut may fall on any pixel
  known = not isinstance(sigma, jax.Array) and math.isfinite(sigma)  # a traced one is an array
  return gaussians.Gaussians(
    rows=jnp.moveaxis(rows * score[..., None], -2, -1),
    columns=jnp.moveaxis(columns, -2, -1),
    width=math.floor(6 * sigma + 1e-3) + 2 if exact and known else max(size),
  )


def render_limbs(
  points: Float[Array, "*b m v 3"],
  limbs: Sequence[tuple[int, int]],
  *,
  size: tuple[int, int],
  sigma: float | Float[Array, ""] = 0.6,
  window: bool = True,
) -> Float[Array, "*b h w e"]:
  """Draws each limb as a Gaussian of the distance to its segment; the maximum over the persons.

  The peak is the lesser of the two ends' scores. `limbs` are (start, end) joints, `points` and
  `size` as in `render_joints`.
  """
  shapes.check("points", points, "float", "...", "M", "V", 3)
  _check_size(size)
  limbs = np.asarray(limbs)
  points = jnp.asarray(points).clip(-_FAR, _FAR)
  ends = points[..., None, None, :, :]  # *b m 1 1 v 3
  start, end = ends[..., limbs[:, 0], :], ends[..., limbs[:, 1], :]
  (ax, ay, a_score), (bx, by, b_score) = (jnp.moveaxis(p, -1, 0) for p in (start, end))
  peak = jnp.minimum(a_score, b_score)

  along_x, along_y = bx - ax, by - ay  # *b m 1 1 e
  squared_length = along_x**2 + along_y**2
  x = jnp.arange(size[1], dtype=points.dtype)[:, None]  # w 1
  y = jnp.arange(size[0], dtype=points.dtype)[:, None, None]  # h 1 1
  from_start = (x - ax) * along_x + (y - ay) * along_y  # *b m h w e
  if window:
    short = squared_length < 1
    drawn = peak >= _SCORE_THRESHOLD
    bx, by = jnp.where(short, ax, bx), jnp.where(short, ay, by)
    inside = _inside(x, jnp.minimum(ax, bx), jnp.maximum(ax, bx), sigma)
    inside &= _inside(y, jnp.minimum(ay, by), jnp.maximum(ay, by), sigma)
    peak = jnp.where(inside & drawn, jnp.where(short, a_score, peak), 0)
    share = jnp.where(short, 0, from_start / jnp.where(short, 1, squared_length))
  else:
    share = from_start / (squared_length + 1e-6)  # a limb without length has a gradient too
  share = share.clip(0, 1)
  squared = (x - ax - share * along_x) ** 2 + (y - ay - share * along_y) ** 2
  return _over_persons(jnp.exp(-0.5 / sigma**2 * squared) * peak)


def _check_size(size):
  if not isinstance(size, tuple | list) or len(size) != 2:
    raise ValueError(f"size: expected (height, width) in pixels, got {size!r}")


def _gaussian(center, length, sigma, window):  # *b v -> *b v length
  pixel = jnp.arange(length, dtype=center.dtype)
  center = center[..., None]
  value = jnp.exp(-0.5 * ((pixel - center) / sigma) ** 2)
  return jnp.where(_inside(pixel, center, center, sigma), value, 0) if window else value


def _inside(pixel, low, high, sigma):
  # Truncated towards zero, as the PyTorch tools do with int(): not a floor left of the image.
  return (pixel >= jnp.trunc(low - 3 * sigma)) & (pixel <= jnp.trunc(high + 3 * sigma))


def _over_persons(heatmaps):  # *b m h w c -> *b h w c
  return heatmaps[..., 0, :, :, :] if heatmaps.shape[-4] == 1 else heatmaps.max(-4)
