"""Where the body is in the frame: boxes, and key points moved into them.

A box is float[..., 4]: left, top, right, bottom in pixels of the frame. Pure functions over any
leading axes.
"""

import jax.numpy as jnp
from jaxtyping import Array, Float, Int


def compact_box(
  keypoints: Float[Array, "*b t m v 3"],
  frame_size: Int[Array, "*b 2"],
  *,
  margin: float = 0.25,
  smallest: float = 10.0,
) -> Float[Array, "*b 4"]:
  """The square around a body over all frames and persons (PoseC3D's compact crop).

  Centre of the extent of all coordinates that are not 0 (x and y apart from each other: a missing
  joint is all zero); half size `1 + margin` times the larger half extent; edges truncated to whole
  pixels, and allowed to leave the frame. An extent under `smallest` pixels gives the whole frame.
  `frame_size` is (height, width).
  """
  axes = (-3, -2, -1)
  xy = jnp.moveaxis(keypoints[..., :2], -1, 0)  # 2 *b t m v
  low = jnp.where(xy == 0, jnp.inf, xy).min(axes)
  high = jnp.where(xy == 0, -jnp.inf, xy).max(axes)
  visible = (high - low >= smallest).all(0)
  low, high = jnp.where(visible, low, 0), jnp.where(visible, high, 0)
  center, half = (low + high) / 2, ((high - low) / 2 * (1 + margin)).max(0)
  box = jnp.trunc(jnp.concatenate([center - half, center + half]))  # 4 *b
  height, width = frame_size[..., 0], frame_size[..., 1]
  frame = jnp.stack([jnp.zeros_like(width), jnp.zeros_like(height), width, height])
  return jnp.moveaxis(jnp.where(visible, box, frame.astype(box.dtype)), 0, -1)


def move_into_box(
  keypoints: Float[Array, "*b t m v 3"],
  box: Float[Array, "*b 4"],
  *,
  size: tuple[int, int],
) -> Float[Array, "*b t m v 3"]:
  """Key points in pixels of an image of `size` (height, width) that shows just the box.

  Coordinates that are exactly 0 mean "missing" and stay 0.
  """
  low, high = box[..., None, None, None, :2], box[..., None, None, None, 2:]
  xy, score = keypoints[..., :2], keypoints[..., 2:]
  scale = jnp.asarray(size[::-1], xy.dtype) / (high - low)
  moved = jnp.where(xy == 0, 0, (xy - low) * scale)
  return jnp.concatenate([moved, score], -1)
