"""Whole recordings, read on the device: for a program that has no host part (`jaxmg.export`)."""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int32, UInt8


class Whole(NamedTuple):
  """What an input takes of whole recordings of one length, and how it reads them.

  Attributes:
    arrays: the shapes of one recording, without the batch.
    about: by array, its axes and units in words.
    read: the device's form of `read_test`: arrays [B, ...] -> a part of a batch, [B, N, ...].
    frames: float64[N, T], the numbers of the frames that it takes, or None where poses decide.
  """

  arrays: Mapping[str, jax.ShapeDtypeStruct]
  about: Mapping[str, str]
  read: Callable[[Mapping[str, Array]], dict[str, Array]]
  frames: Float[np.ndarray, "n t"] | None


def persons_first(pose: Float[Array, "b t m v 3"], points: str) -> Float[Array, "b t m v 3"]:
  """`inputs.pose.select` on the device: absent joints all zero, the highest summed score first."""
  score = pose[..., 2] if points == "keypoints" else pose.any(-1)
  present = jnp.where((score > 0)[..., None], pose, 0)
  if pose.shape[2] == 1:
    return present
  order = jnp.argsort(-score.sum((1, 3), dtype=pose.dtype), stable=True)  # b m
  return jnp.take_along_axis(present, order[:, None, :, None, None], 2)


def blended(
  pose: Float[Array, "b f m v 3"], frames: Float[np.ndarray, "n t"]
) -> Float[Array, "b n t m v 3"]:
  """The frames of these numbers; between two, what `sampling.linear` makes of them."""
  earlier = np.floor(frames).astype(np.int32)
  weight = np.float32(frames - earlier)[..., None, None, None]
  a = pose[:, earlier]
  if not weight.any():
    return a
  b = pose[:, np.minimum(earlier + 1, pose.shape[1] - 1)]
  both = a.any(-1, keepdims=True) & b.any(-1, keepdims=True)
  return jnp.where(both, a + weight * (b - a), jnp.where(weight <= 0.5, a, b))


def shrunk(
  pictures: UInt8[Array, "*b h w c"], size: tuple[int, int]
) -> UInt8[Array, "*b new_h new_w c"]:
  """Pictures as small as `size` (height, width), to the byte as by Pillow's bilinear resizing.

  A pixel is the mean over a triangle, along its row and then along its column; both are rounded.
  """
  for axis, new in ((-2, size[1]), (-3, size[0])):
    old = pictures.shape[axis]
    if old == new:
      continue
    total = jnp.int32(1 << _BITS - 1)  # so that what is cut off rounds
    for place, weight in zip(*_triangles(old, new), strict=True):
      seen = jnp.take(pictures, place, axis).astype(jnp.int32)
      total += seen * weight.reshape(-1, *[1] * (-axis - 1))
    pictures = (total >> _BITS).astype(jnp.uint8)
  return pictures


_BITS = 22  # of a weight, in whole numbers as in Pillow: halves are common, and round up


def _triangles(
  old: int, new: int
) -> tuple[Int32[np.ndarray, "taps {new}"], Int32[np.ndarray, "taps {new}"]]:
  """Which pixels of a line of `old` each of `new` sees, and their weights, one at a time."""
  scale = old / new
  middles = (np.arange(new) + 0.5) * scale
  first = (middles - scale + 0.5).astype(np.int64)
  places = first + np.arange(2 * int(np.ceil(scale)) + 1)[:, None]
  weights = np.maximum(0.0, 1 - np.abs((places + 0.5 - middles) / scale))
  weights *= (places >= 0) & (places < old)
  weights *= 1 / weights.sum(0)
  return np.clip(places, 0, old - 1).astype(np.int32), (weights * 2**_BITS + 0.5).astype(np.int32)
