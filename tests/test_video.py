"""Each function of frames on the device against a few lines of numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmg import video
from jaxmg.skeletons import augment, geometry

RNG = np.random.default_rng(0)
FRAMES = RNG.random((2, 12, 16, 3), np.float32)
KEYS = jax.random.split(jax.random.key(0), 200)


def test_random_boxes_lie_in_the_frame_with_the_wanted_areas_and_aspects():
  size = jnp.array([40, 60])

  def draw(key):
    return video.random_box(key, size, area=(0.1, 0.4), aspect=(0.5, 2.0))

  boxes = np.asarray(jax.jit(jax.vmap(draw))(KEYS))
  assert (boxes[:, :2] >= 0).all()
  assert (boxes[:, 2:] <= [60 + 1e-4, 40 + 1e-4]).all()
  width, height = (boxes[:, 2:] - boxes[:, :2]).T
  share, aspect = width * height / 2400, width / height
  for values, low, high in ((share, 0.1, 0.4), (np.log2(aspect), -1, 1)):
    assert low - 1e-4 <= values.min() < low + 0.05 * (high - low)
    assert high + 1e-4 >= values.max() > high - 0.05 * (high - low)
  assert abs(np.log2(aspect).mean()) < 0.15  # as often wide as high
  # Wherever it fits: the space to the left is any part of what is left over.
  left = boxes[:, 0] / (60 - width)
  assert left.min() < 0.05
  assert left.max() > 0.95
  assert abs(left.mean() - 0.5) < 0.07


def test_what_does_not_fit_is_made_smaller_and_keeps_its_aspect():
  @jax.jit
  def draw(size):
    return video.random_box(KEYS[0], size, area=(1.0, 1.0), aspect=(1.0, 1.0))

  box = np.asarray(draw(jnp.array([10, 100])))
  np.testing.assert_allclose(box[2:] - box[:2], 10, atol=1e-4)
  np.testing.assert_allclose(draw(jnp.array([10, 10])), [0, 0, 10, 10], atol=1e-4)


def test_the_box_in_the_middle_is_a_square_of_the_short_side():
  np.testing.assert_allclose(video.centred_box(jnp.array([40, 60]), 0.5), [20, 10, 40, 30])
  np.testing.assert_allclose(video.centred_box(jnp.array([60, 40]), 1.0), [0, 10, 40, 50])


def bilinear(frames, box, size):
  """The middle of each pixel of the box's picture, between the middles of the frame's pixels."""
  sides = []
  for axis, low, high in ((1, box[1], box[3]), (2, box[0], box[2])):
    at = low + (np.arange(size) + 0.5) * (high - low) / size - 0.5
    at = np.clip(at, 0, frames.shape[axis] - 1)
    earlier = np.minimum(at.astype(int), frames.shape[axis] - 2)
    sides.append((earlier, at - earlier))
  (y, b), (x, a) = sides
  rows = frames[:, y] * (1 - b)[:, None, None] + frames[:, y + 1] * b[:, None, None]
  return rows[:, :, x] * (1 - a)[:, None] + rows[:, :, x + 1] * a[:, None]


crop = jax.jit(functools.partial(video.crop, size=8))


@pytest.mark.parametrize(
  "box", [(3, 2, 11, 10), (0, 0, 8, 8), (8, 4, 16, 12), (2.3, 1.7, 7.9, 8.1), (0, 0, 5, 4)]
)
def test_a_crop_is_linear_sampling(box):
  found = crop(jnp.asarray(FRAMES), jnp.array(box, jnp.float32))
  np.testing.assert_allclose(found, bilinear(FRAMES, box, 8), atol=1e-5)
  if box == (3, 2, 11, 10):
    np.testing.assert_allclose(found, FRAMES[:, 2:10, 3:11], atol=1e-6)


def test_a_crop_that_becomes_smaller_is_a_mean_over_more_pixels():
  frames = RNG.random((1, 16, 16, 1), np.float32)
  found = crop(jnp.asarray(frames), jnp.array([0.0, 0, 16, 16]))
  weights = np.array([1, 3, 3, 1]) / 8
  expected = np.einsum("i,j,ij", weights, weights, frames[0, 5:9, 7:11, 0])
  np.testing.assert_allclose(found[0, 3, 4, 0], expected, atol=1e-6)


def test_a_mirror_image_twice_is_the_identity():
  np.testing.assert_array_equal(video.flip(jnp.asarray(FRAMES)), FRAMES[:, :, ::-1])


def test_colours_change_in_their_order_by_one_factor_for_a_clip():
  plain = 0.3 + 0.4 * FRAMES
  frames, weights = jnp.asarray(plain), np.array([0.299, 0.587, 0.114])
  grey = (plain @ weights)[..., None]
  np.testing.assert_allclose(video.grey(frames), grey, atol=1e-6)
  for name, base in (("brightness", 0), ("contrast", grey.mean()), ("saturation", grey)):
    factors = []
    change = functools.partial(video.change_colors, frames=frames, **{name: 0.2})
    for changed in np.asarray(jax.jit(jax.vmap(change))(KEYS[:30])):
      ratio = (changed - base) / (plain - base)
      inside = (changed > 0) & (changed < 1) & (np.abs(plain - base) > 0.05)
      factors.append(np.median(ratio[inside]))
      np.testing.assert_allclose(ratio[inside], factors[-1], atol=1e-3)
    assert 0.8 <= min(factors) < 0.85
    assert 1.15 < max(factors) <= 1.2
  one = frames[..., :1]
  np.testing.assert_array_equal(video.change_colors(KEYS[0], one, saturation=0.5), one)
  np.testing.assert_array_equal(video.grey(one), one)
  bright = video.change_colors(KEYS[0], 2 * frames, brightness=0.5, contrast=0.5, saturation=0.5)
  assert 0 <= bright.min() < bright.max() <= 1


def test_normalised_values_have_mean_and_deviation():
  found = video.normalize(jnp.asarray(FRAMES), mean=0.45, std=0.225)
  np.testing.assert_allclose(found, (FRAMES - 0.45) / 0.225, atol=1e-6)


def test_a_box_of_zeros_is_erased_in_all_frames_as_often_as_wanted():
  ones = jnp.ones((3, 24, 32, 2))
  erase = jax.jit(jax.vmap(lambda key: video.erase(key, ones, probability=0.25)))
  found = np.asarray(erase(KEYS))
  np.testing.assert_array_equal(found, np.broadcast_to(found[:, :1, :, :, :1], found.shape))
  shares = (found[:, 0, :, :, 0] == 0).mean((1, 2))
  assert 0.15 < (shares > 0).mean() < 0.35
  assert shares[shares > 0].min() > 0.01
  assert shares.max() < 0.36
  for clip in found[shares > 0, 0, :, :, 0]:
    rows, columns = np.nonzero(clip == 0)
    box = clip[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    assert not box.any()


def test_inside_is_by_the_middles_of_pixels():
  found = video.inside(jnp.array([1.4, 0.6, 3.5, 2.0]), 3, 5)
  expected = [[False] * 5, [False, True, True, False, False], [False] * 5]
  np.testing.assert_array_equal(found, expected)


def test_a_clip_is_changed_alike_wherever_it_stands_in_a_batch():
  clips = jnp.asarray(RNG.random((4, 2, 12, 16, 3), np.float32))

  @jax.jit
  @jax.vmap
  def change(key, frames):
    keys = jax.random.split(key, 3)
    box = video.random_box(keys[0], jnp.array([12, 16]), area=(0.2, 1.0))
    x = video.crop(frames, box, size=8)
    x = video.change_colors(keys[1], x, brightness=0.4, contrast=0.4, saturation=0.4)
    return video.erase(keys[2], x, probability=0.5)

  order = np.array([2, 0, 3, 1])
  together = change(KEYS[:4], clips)
  np.testing.assert_array_equal(change(KEYS[order], clips[order]), together[order])


@pytest.mark.parametrize("mirrored", [False, True])
def test_a_joint_lands_on_its_pixel_as_frames_and_pose_are_cropped_and_mirrored(mirrored):
  size, height, width = 32, 48, 64
  place = jax.jit(lambda frames, box: video.crop(frames, box, size=size))
  rng = np.random.default_rng(1)
  for _ in range(20):
    low = rng.uniform(0, (24, 8))
    box = np.float32([*low, *(low + rng.uniform(16, 40, 2))])
    joint = np.ceil(rng.uniform(box[:2] + 3, np.minimum(box[2:], (width, height)) - 4))
    frames = np.zeros((1, height, width, 1), np.float32)
    frames[0, int(joint[1]), int(joint[0])] = 1
    pictures = place(jnp.asarray(frames), jnp.asarray(box))
    pose = jnp.array([[[[*joint, 1.0]]]], jnp.float32)
    pose = geometry.move_into_box(pose, jnp.asarray(box), size=(size, size))
    if mirrored:
      pictures, pose = video.flip(pictures), augment.flip(pose, np.array([0]), width=size)
    weights = np.asarray(pictures)[0, ..., 0]
    rows, columns = np.indices(weights.shape)
    found = [(weights * at).sum() / weights.sum() for at in (columns, rows)]
    np.testing.assert_allclose(found, pose[0, 0, 0, :2], atol=1)
