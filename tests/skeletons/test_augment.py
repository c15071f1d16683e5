import jax
import jax.numpy as jnp
import numpy as np

from jaxmg.skeletons import augment, heatmaps, topology

SKELETON = topology.SKELETONS["imigue22"]
KEY = jax.random.key(7)


def some_clip(frames=3):  # T M V 3
  rng = np.random.default_rng(0)
  return jnp.asarray(rng.uniform([2, 2, 0.2], [30, 30, 1], (frames, 1, 22, 3)), jnp.float32)


def test_flip_twice_is_identity():
  flipped = augment.flip(some_clip(), SKELETON.mirror, width=32)
  back = augment.flip(flipped, SKELETON.mirror, width=32)
  np.testing.assert_allclose(back, some_clip(), atol=1e-5)


def test_flipped_points_draw_the_mirrored_heatmap():
  """On points the channels follow the joints; on limb heatmaps they follow the limbs' mirror."""
  clip = some_clip()
  flipped = augment.flip(clip, SKELETON.mirror, width=32)
  size = dict(size=(32, 32), window=False)
  joints = heatmaps.render_joints(clip, **size)[..., ::-1, SKELETON.mirror]
  np.testing.assert_allclose(heatmaps.render_joints(flipped, **size), joints, atol=1e-5)
  limbs = heatmaps.render_limbs(clip, SKELETON.limbs, **size)[..., ::-1, SKELETON.limb_mirror]
  np.testing.assert_allclose(
    heatmaps.render_limbs(flipped, SKELETON.limbs, **size), limbs, atol=1e-5
  )


def test_mirror_is_all_or_nothing():
  clip, flipped = some_clip(), augment.flip(some_clip(), SKELETON.mirror, width=32)
  keys = jax.random.split(KEY, 64)
  results = jax.vmap(lambda key: augment.mirror(key, clip, SKELETON.mirror, width=32))(keys)
  share = np.mean([bool((result == flipped).all()) for result in results])
  assert all((result == flipped).all() or (result == clip).all() for result in results)
  assert 0.3 < share < 0.7


def test_resized_crop_stays_in_the_box_and_keeps_its_share_of_the_area():
  box = jnp.array([10.0, 20.0, 110.0, 120.0])
  crops = jax.vmap(lambda key: augment.resized_crop(key, box))(jax.random.split(KEY, 500))
  low, high = crops[:, :2], crops[:, 2:]
  assert (low >= box[:2] - 1e-3).all()
  assert (high <= box[2:] + 1e-3).all()
  share = (high - low).prod(1) / 100**2
  assert share.min() > 0.5
  assert share.max() <= 1 + 1e-4
  assert share.std() > 0.05


def test_rotation_keeps_distances_and_scores():
  clip = some_clip()
  turned = augment.rotate(KEY, clip, jnp.array([0.0, 0.0, 32.0, 32.0]), degrees=30.0)

  def distances(points):
    xy = points[..., :2]
    return jnp.linalg.norm(xy[..., :, None, :] - xy[..., None, :, :] + 1e-9, axis=-1)

  np.testing.assert_allclose(distances(turned), distances(clip), atol=1e-3)
  np.testing.assert_array_equal(turned[..., 2], clip[..., 2])
  assert jnp.abs(turned - clip).max() > 0.1


def test_jitter_has_the_deviation_asked_for_and_leaves_scores():
  clip = some_clip(frames=200)
  moved = augment.jitter(KEY, clip, pixels=0.5)
  np.testing.assert_allclose((moved - clip)[..., :2].std(), 0.5, rtol=0.05)
  np.testing.assert_array_equal(moved[..., 2], clip[..., 2])


def test_dropped_joints_are_missing_for_the_whole_clip():
  dropped = augment.drop_joints(KEY, some_clip(), probability=0.4)
  missing = dropped[..., 2] == 0
  np.testing.assert_array_equal(missing.any((0, 1)), missing.all((0, 1)))
  assert 0 < missing.all((0, 1)).sum() < 22


def test_stretched_bones_keep_their_directions_and_both_sides_alike():
  skeleton, rng = topology.SKELETONS["kinect20"], np.random.default_rng(0)
  pose = rng.uniform((-1, -1, 2, 1), (1, 1, 3, 1), (3, 2, 20, 4)).astype(np.float32)  # T M V C
  arguments = np.array(skeleton.parents), skeleton.mirror
  stretched = augment.stretch(KEY, jnp.asarray(pose), *arguments, factors=(0.8, 1.3))
  parents, child = np.array(skeleton.parents), np.delete(np.arange(20), skeleton.root)

  def bones(pose):
    return np.asarray(pose - pose[..., parents, :])[..., child, :3]

  factor = bones(stretched) / bones(pose)
  one = factor[0, 0, :, :1]
  np.testing.assert_allclose(factor, np.broadcast_to(one, factor.shape), rtol=1e-3)
  assert 0.8 <= one.min() < 0.95 < 1.15 < one.max() <= 1.3
  both_sides = np.ones(20)
  both_sides[child] = one[:, 0]
  np.testing.assert_allclose(both_sides, both_sides[skeleton.mirror], rtol=1e-3)
  np.testing.assert_array_equal(stretched[..., skeleton.root, :], pose[..., skeleton.root, :])
  np.testing.assert_array_equal(stretched[..., 3], pose[..., 3])


def test_a_gap_in_a_joint_moves_no_other_one():
  skeleton = topology.SKELETONS["kinect20"]
  still = np.random.default_rng(0).uniform(1, 2, (20, 3)).astype(np.float32)
  clip = np.tile(still, (4, 1, 1, 1))  # T M V C
  elbow, never = 5, 13
  clip[2, :, elbow] = clip[:, :, never] = 0
  arguments = np.array(skeleton.parents), skeleton.mirror
  stretched = np.asarray(augment.stretch(KEY, jnp.asarray(clip), *arguments, factors=(1.5, 1.5)))
  assert not stretched[2, :, elbow].any()
  assert not stretched[:, :, never].any()
  others = np.delete(np.arange(20), elbow)
  np.testing.assert_allclose(stretched[2, :, others], stretched[1, :, others], atol=1e-5)
  assert np.abs(stretched - clip)[1, 0, [6, 7]].max() > 0.1
  half = augment.stretch(KEY, jnp.asarray(clip, jnp.bfloat16), *arguments, factors=(1.5, 1.5))
  assert half.dtype == jnp.bfloat16
