"""Frames on the device: cropped, mirrored, changed in colour, erased, normalised, mixed.

Pure functions of one clip, float[T, H, W, C] with values in [0, 1], `jax.vmap` for a batch; one key
changes one clip, all of its frames alike. A box is left, top, right, bottom in pixels, from edge to
edge: the middle of the first pixel is at (0.5, 0.5).
"""

import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key


def centred_box(frame_size: Int[Array, " 2"], share: float) -> Float[Array, " 4"]:
  """The square in the middle of a frame (height, width), its side a share of the short one."""
  side = share * frame_size.min()
  y, x = frame_size[0] / 2, frame_size[1] / 2
  return jnp.stack([x - side / 2, y - side / 2, x + side / 2, y + side / 2])


def random_box(
  key: Key[Array, ""],
  frame_size: Int[Array, " 2"],
  *,
  area: tuple[float, float],
  aspect: tuple[float, float] = (3 / 4, 4 / 3),
) -> Float[Array, " 4"]:
  """A random part of a frame (height, width), wherever it fits.

  Its share of the area varies and, log-uniformly, its width over its height; what is too wide or
  too high is made smaller.
  """
  area_key, aspect_key, place_key = jax.random.split(key, 3)
  height, width = frame_size[0], frame_size[1]
  pixels = jax.random.uniform(area_key, minval=area[0], maxval=area[1]) * height * width
  low, high = map(math.log, aspect)
  ratio = jnp.exp(0.5 * jax.random.uniform(aspect_key, minval=low, maxval=high))
  sides = jnp.sqrt(pixels) * jnp.stack([ratio, 1 / ratio])  # width, height
  whole = jnp.stack([width, height])
  sides *= jnp.minimum(1, (whole / sides).min())
  low = jax.random.uniform(place_key, (2,)) * (whole - sides)
  return jnp.concatenate([low, low + sides])


def crop(frames: Float[Array, "t h w c"], box: Float[Array, " 4"], *, size: int) -> Array:
  """What the box shows, [T, size, size, C]: linear, over more pixels where it becomes smaller.

  The box lies in the frame.
  """
  scale = size / (box[2:] - box[:2])  # of x, of y
  shape = (frames.shape[0], size, size, frames.shape[3])
  moved = -box[:2] * scale
  return jax.image.scale_and_translate(
    frames, shape, (1, 2), scale[::-1], moved[::-1], "linear", precision=jax.lax.Precision.DEFAULT
  )


def flip(frames: Float[Array, "*b w c"]) -> Float[Array, "*b w c"]:
  """The mirror image."""
  return frames[..., ::-1, :]


def change_colors(
  key: Key[Array, ""],
  frames: Float[Array, "t h w c"],
  *,
  brightness: float = 0.0,
  contrast: float = 0.0,
  saturation: float = 0.0,
) -> Float[Array, "t h w c"]:
  """All values times a random factor; then what they differ from the mean, and from grey, by.

  A factor is between 1 - `brightness` and 1 + `brightness`, and so on; values stay in [0, 1].
  Brightness, contrast and saturation in this order. Saturation needs three channels.
  """
  keys = jax.random.split(key, 3)

  def factor(key, most):
    return jax.random.uniform(key, minval=1 - most, maxval=1 + most)

  if brightness:
    frames = jnp.clip(frames * factor(keys[0], brightness), 0, 1)
  if contrast:
    mean = grey(frames).mean()
    frames = jnp.clip(mean + (frames - mean) * factor(keys[1], contrast), 0, 1)
  if saturation and frames.shape[-1] == 3:
    without = grey(frames)
    frames = jnp.clip(without + (frames - without) * factor(keys[2], saturation), 0, 1)
  return frames


def grey(frames: Float[Array, "*b c"]) -> Float[Array, "*b 1"]:
  """The brightness that a person sees (ITU-R BT.601); of one channel, itself."""
  if frames.shape[-1] == 1:
    return frames
  weights = jnp.array([0.299, 0.587, 0.114], frames.dtype)
  return (frames * weights).sum(-1, keepdims=True)


def normalize(frames: Float[Array, "*b"], *, mean: float, std: float) -> Float[Array, "*b"]:
  """Values in [0, 1] -> of this mean 0, of this deviation 1."""
  return (frames - mean) / std


def motion(frames: Float[Array, "t h w c"]) -> Float[Array, "t h w c"]:
  """What the next frame differs by; 0 for the last."""
  return jnp.concatenate([frames[1:] - frames[:-1], jnp.zeros_like(frames[:1])])


def erase(
  key: Key[Array, ""],
  frames: Float[Array, "t h w c"],
  *,
  probability: float,
  area: tuple[float, float] = (0.02, 1 / 3),
) -> Float[Array, "t h w c"]:
  """Zeros in a random box, in all frames, with this probability (Zhong et al., 2020)."""
  draw_key, box_key = jax.random.split(key)
  _, height, width, _ = frames.shape
  box = random_box(box_key, jnp.array([height, width]), area=area, aspect=(0.3, 1 / 0.3))
  erased = inside(box, height, width)[..., None] & jax.random.bernoulli(draw_key, probability)
  return jnp.where(erased, 0, frames)


def inside(box: Float[Array, " 4"], height: int, width: int) -> Array:
  """bool[H, W]: the pixels whose middles are in the box."""
  x, y = jnp.arange(width) + 0.5, jnp.arange(height) + 0.5
  columns = (x >= box[0]) & (x < box[2])
  rows = (y >= box[1]) & (y < box[3])
  return rows[:, None] & columns
