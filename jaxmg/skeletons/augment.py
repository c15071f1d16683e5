"""Random changes of poses, pure and keyed: one key changes one clip, `jax.vmap` a batch.

Key points are x, y and score in pixels, unless it says otherwise; joints whose score is 0 are
missing, and what happens to their coordinates does not matter.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxmg.skeletons import geometry


def mirror(
  key: Key[Array, ""],
  keypoints: Float[Array, "t m v c"],
  permutation: Int[np.ndarray, " v"],
  *,
  width: int,
  probability: float = 0.5,
) -> Float[Array, "t m v c"]:
  """Left and right exchanged: x -> width - 1 - x, and each joint takes its counterpart's place.

  On the grid of a heatmap of `width` columns this is the reversal of the columns; a `width` of 1 is
  for coordinates about 0. `permutation` is `Skeleton.mirror`.
  """
  flipped = flip(keypoints, permutation, width=width)
  return jnp.where(jax.random.bernoulli(key, probability), flipped, keypoints)


def flip(
  keypoints: Float[Array, "*b v c"], permutation: Int[np.ndarray, " v"], *, width: int
) -> Float[Array, "*b v c"]:
  """The mirror image of every clip; twice is the identity."""
  keypoints = jnp.asarray(keypoints)[..., permutation, :]
  return keypoints.at[..., 0].set(width - 1 - keypoints[..., 0])


def resized_crop(
  key: Key[Array, ""],
  box: Float[Array, " 4"],
  *,
  area: tuple[float, float] = (0.56, 1.0),
  aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> Float[Array, " 4"]:
  """A random part of a box: its share of the area varies and, log-uniformly, its aspect.

  As in the PyTorch tools, ten sizes are drawn; the first that fits is taken, or else the whole box.
  """
  area_key, aspect_key, place_key = jax.random.split(key, 3)
  share = jax.random.uniform(area_key, (10,), minval=area[0], maxval=area[1])
  low, high = math.log(aspect[0]), math.log(aspect[1])
  ratio = jnp.exp(0.5 * jax.random.uniform(aspect_key, (10,), minval=low, maxval=high))
  sizes = jnp.sqrt(share)[:, None] * jnp.stack([ratio, 1 / ratio], -1)  # of width, of height
  fits = (sizes <= 1).all(-1)
  sides = jnp.where(fits.any(), sizes[fits.argmax()], 1)
  low = jax.random.uniform(place_key, (2,)) * (1 - sides)
  whole = box[2:] - box[:2]
  return jnp.concatenate([box[:2] + low * whole, box[:2] + (low + sides) * whole])


def rotate(
  key: Key[Array, ""],
  keypoints: Float[Array, "t m v 3"],
  box: Float[Array, " 4"],
  *,
  degrees: float,
) -> Float[Array, "t m v 3"]:
  """The whole clip turned about the centre of its box by up to `degrees` either way."""
  angle = jnp.deg2rad(jax.random.uniform(key, minval=-degrees, maxval=degrees))
  cos, sin = jnp.cos(angle), jnp.sin(angle)
  x, y = (keypoints[..., i] - (box[i] + box[i + 2]) / 2 for i in (0, 1))
  x, y = cos * x - sin * y, sin * x + cos * y
  center = (box[:2] + box[2:]) / 2
  return jnp.stack([x + center[0], y + center[1], keypoints[..., 2]], -1)


def jitter(
  key: Key[Array, ""], keypoints: Float[Array, "t m v 3"], *, pixels: float
) -> Float[Array, "t m v 3"]:
  """Gaussian noise of standard deviation `pixels`, apart for every joint and frame."""
  keypoints = jnp.asarray(keypoints)
  noise = pixels * jax.random.normal(key, (*keypoints.shape[:-1], 2), keypoints.dtype)
  return keypoints.at[..., :2].add(noise)


def drop_joints(
  key: Key[Array, ""], keypoints: Float[Array, "t m v 3"], *, probability: float
) -> Float[Array, "t m v 3"]:
  """Joints taken away for the whole clip, each with `probability`, by a score of 0."""
  keep = jax.random.bernoulli(key, 1 - probability, keypoints.shape[2:3])
  return jnp.asarray(keypoints).at[..., 2].multiply(keep)


def turn(
  key: Key[Array, ""], pose: Float[Array, "*b 4"], *, rotation: float, tilt: float
) -> Float[Array, "*b 4"]:
  """Joints in space (x, y, z, score), turned about the origin.

  By up to `rotation` degrees either way about the vertical (y) axis, then up to `tilt` about the
  horizontal (x) one.
  """
  most = jnp.deg2rad(jnp.array([rotation, tilt]))
  yaw, pitch = jax.random.uniform(key, (2,), minval=-1, maxval=1) * most
  x, y, z, score = jnp.moveaxis(pose, -1, 0)
  x, z = jnp.cos(yaw) * x + jnp.sin(yaw) * z, jnp.cos(yaw) * z - jnp.sin(yaw) * x
  y, z = jnp.cos(pitch) * y - jnp.sin(pitch) * z, jnp.sin(pitch) * y + jnp.cos(pitch) * z
  return jnp.stack([x, y, z, score], -1)


def stretch(
  key: Key[Array, ""],
  pose: Float[Array, "t m v c"],
  parents: Int[np.ndarray, " v"],
  mirror: Int[np.ndarray, " v"],
  *,
  factors: tuple[float, float],
) -> Float[Array, "t m v c"]:
  """Another person's proportions: each bone's length times a random factor between the two.

  A factor holds for all frames and persons, and for the left and the right side. Directions and the
  root's path stay, and every joint follows its parent. Of pixels or of metres. Absent joints stay
  as they are; a bone that lacks an end for a while grows by what it grows on average. `parents` and
  `mirror` are those of the `Skeleton`.
  """
  pose, parents, mirror = jnp.asarray(pose), np.asarray(parents), np.asarray(mirror)
  joints = np.arange(len(parents))
  path = np.zeros((len(joints), len(joints)), np.float32)  # from each joint to the root
  at = joints
  for _ in joints:
    path[joints, at] = 1
    at = parents[at]
  factor = jax.random.uniform(key, joints.shape, minval=factors[0], maxval=factors[1])
  factor = factor[np.minimum(joints, mirror)]
  bone = geometry.bones(pose, parents)
  there = bone[..., -1:] > 0
  average = bone.sum(0, keepdims=True) / jnp.maximum(there.sum(0, keepdims=True), 1)
  growth = (factor - 1)[:, None] * jnp.where(there, bone, average)[..., :-1]
  moves = jnp.einsum("ji,tmic->tmjc", path, growth, precision="highest").astype(pose.dtype)
  return jnp.where(pose[..., -1:] > 0, pose.at[..., :-1].add(moves), pose)


def scale(
  key: Key[Array, ""], pose: Float[Array, "*b c"], *, factors: tuple[float, float]
) -> Float[Array, "*b c"]:
  """All coordinates times one random factor between the two, from the origin."""
  factor = jax.random.uniform(key, minval=factors[0], maxval=factors[1])
  return jnp.asarray(pose).at[..., :-1].multiply(factor)
