"""From the batch to the model's input, on the device: augment, then render.

The one owner of this step: training, evaluation and prediction call these functions inside their
jitted steps, so that a heatmap volume (10 MB a clip) never exists on the host.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int, Key

from jaxmg import shapes
from jaxmg.skeletons import augment, geometry, heatmaps
from jaxmg.skeletons.topology import Skeleton


def heatmap_inputs(
  keypoints: Float[Array, "b t m v 3"],
  frame_size: Int[Array, "b 2"],
  *,
  skeleton: Skeleton,
  kind: str = "joint",
  size: int = 56,
  sigma: float = 0.6,
  keys: Key[Array, " b"] | None = None,
  mirror: bool = False,
  crop_area: tuple[float, float] = (0.56, 1.0),
  rotation: float = 0.0,
  jitter: float = 0.0,
  joint_dropout: float = 0.0,
) -> Float[Array, "b t h w c"]:
  """Key points in source pixels -> `kind` ("joint" or "limb") heatmaps of `size` x `size`.

  The compact box of each clip is drawn to the whole heatmap. With `keys`, one per clip, the clip is
  augmented first: rotation (degrees), jitter (source pixels), joint dropout and mirroring (only if
  `mirror`), and the box is cropped to a random share of its area (PoseC3D's training pipeline).

  Raises ValueError for other shapes, kinds of numbers or `kind`, as do the functions below. Values
  cannot be seen under jit: coordinates must be finite, and absent joints all zero.
  """
  shapes.check("keypoints", keypoints, "float", "B", "T", "M", skeleton.num_joints, 3)
  shapes.check("frame_size", frame_size, "int", keypoints.shape[0], 2)
  if keys is None:
    points = _place(keypoints, frame_size, size)
  else:

    def place(key, keypoints, frame_size):
      crop_key, rotate_key, jitter_key, drop_key, mirror_key = jax.random.split(key, 5)
      box = geometry.compact_box(keypoints, frame_size)
      if rotation:
        keypoints = augment.rotate(rotate_key, keypoints, box, degrees=rotation)
      if jitter:
        keypoints = augment.jitter(jitter_key, keypoints, pixels=jitter)
      if joint_dropout:
        keypoints = augment.drop_joints(drop_key, keypoints, probability=joint_dropout)
      box = augment.resized_crop(crop_key, box, area=crop_area)
      points = geometry.move_into_box(keypoints, box, size=(size, size))
      if mirror:
        points = augment.mirror(mirror_key, points, skeleton.mirror, width=size)
      return points

    points = jax.vmap(place)(keys, keypoints, frame_size)
  return _render(points, skeleton, kind, size, sigma)


def heatmap_views(
  keypoints: Float[Array, "b n t m v 3"],
  frame_size: Int[Array, "b 2"],
  *,
  size: int = 64,
  mirror: bool = False,
) -> dict[str, Array]:
  """The views of a test clip, still as points: N sampled clips, and their mirror images after them.

  One box holds all N clips. Returns `points` [R, B, T, M, V, 3] in heatmap pixels and `mirrored`
  bool[R], with R = N or 2 N: what `render_view` takes, one view at a time, so that only one view's
  heatmaps exist at once.
  """
  shapes.check("keypoints", keypoints, "float", "B", "N", "T", "M", "V", 3)
  shapes.check("frame_size", frame_size, "int", keypoints.shape[0], 2)
  b, n, t, m, v, _ = keypoints.shape
  points = _place(keypoints.reshape(b, n * t, m, v, 3), frame_size, size)
  points = jnp.moveaxis(points.reshape(b, n, t, m, v, 3), 1, 0)
  mirrored = np.zeros(n, bool)
  if mirror:
    points, mirrored = jnp.concatenate([points, points]), np.repeat([False, True], n)
  return {"points": points, "mirrored": jnp.asarray(mirrored)}


def render_view(
  view: dict[str, Array],
  *,
  skeleton: Skeleton,
  kind: str = "joint",
  size: int = 64,
  sigma: float = 0.6,
) -> Float[Array, "b t h w c"]:
  """The heatmaps of one view: `points` [B, T, M, V, 3] and whether to take the mirror image.

  The mirror image is the heatmap with its columns reversed and its channels exchanged.
  """
  shapes.check("points", view["points"], "float", "B", "T", "M", skeleton.num_joints, 3)
  rendered = _render(view["points"], skeleton, kind, size, sigma)
  channels = skeleton.mirror if kind == "joint" else skeleton.limb_mirror
  return jnp.where(view["mirrored"], rendered[..., ::-1, channels], rendered)


def _place(keypoints, frame_size, size):
  box = geometry.compact_box(keypoints, frame_size)
  return geometry.move_into_box(keypoints, box, size=(size, size))


def _render(points, skeleton, kind, size, sigma):
  if kind == "joint":
    return heatmaps.render_joints(points, size=(size, size), sigma=sigma)
  if kind == "limb":
    return heatmaps.render_limbs(points, skeleton.limbs, size=(size, size), sigma=sigma)
  raise ValueError(f'kind: expected "joint" or "limb", got {kind!r}')
