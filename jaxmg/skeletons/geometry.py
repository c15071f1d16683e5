"""Where the body is: boxes and centres, poses moved into them, and the bones and motion of a pose.

A box is float[..., 4]: left, top, right, bottom in pixels of the frame. Pure functions over any
leading axes. The last channel of a pose is its score, which is 0 where a joint is absent, whatever
its coordinates are then.
"""

import jax.numpy as jnp
import numpy as np
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


def project(
  joints3d: Float[Array, "*b t m v 4"], frame_size: Int[Array, "*b 2"]
) -> Float[Array, "*b t m v 3"]:
  """Metres before a camera (x right, y up, z away from it) and score -> key points in pixels.

  The camera looks at the frame's middle with a focal length of 1.19 heights of the frame, that of
  Kinect v1's depth camera. A joint that is not before it is absent: all zero.
  """
  x, y, z, score = jnp.moveaxis(joints3d, -1, 0)
  height, width = (frame_size[..., i, None, None, None] for i in (0, 1))
  seen = (score > 0) & (z > 1e-3)
  scale = 285.63 / 240 * height / jnp.where(seen, z, 1)
  keypoints = jnp.stack([width / 2 + scale * x, height / 2 - scale * y, score], -1)
  return jnp.where(seen[..., None], keypoints, 0)


def normalize(
  keypoints: Float[Array, "*b t m v 3"], frame_size: Int[Array, "*b 2"]
) -> Float[Array, "*b t m v 3"]:
  """Pixels -> coordinates in which the frame reaches from -1 to 1 (x right, y down)."""
  half = frame_size[..., None, None, None, ::-1] / 2  # of width and height
  return jnp.concatenate([(keypoints[..., :2] - half) / half, keypoints[..., 2:]], -1)


def center(pose: Float[Array, "*b t m v c"], root: int) -> Float[Array, "*b t m v c"]:
  """Coordinates from the first person's `root` joint, as it is where it is first seen."""
  path = pose[..., 0, root, :]  # *b t c
  first = (path[..., -1:] > 0).argmax(-2)[..., None]
  origin = jnp.take_along_axis(path, first, -2)[..., None, None, :]  # *b 1 1 1 c
  return pose - origin.at[..., -1].set(0)


def bones(pose: Float[Array, "*b v c"], parents: Int[np.ndarray, " v"]) -> Float[Array, "*b v c"]:
  """Joint minus parent, with the mean of their scores; all zero where either is absent.

  The root, its own parent, has a bone of length 0.
  """
  return _minus(pose, pose[..., parents, :])


def motion(pose: Float[Array, "*b t m v c"]) -> Float[Array, "*b t m v c"]:
  """Next frame minus this one, with the mean of their scores; all zero in the last frame."""
  later = jnp.roll(pose, -1, axis=-4).at[..., -1, :, :, :].set(0)
  return _minus(later, pose)


def _minus(a, b):
  there = (a[..., -1:] > 0) & (b[..., -1:] > 0)
  difference = jnp.concatenate([a[..., :-1] - b[..., :-1], (a[..., -1:] + b[..., -1:]) / 2], -1)
  return jnp.where(there, difference, 0)
