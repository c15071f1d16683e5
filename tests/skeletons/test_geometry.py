import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmg.data import readers
from jaxmg.skeletons import geometry

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


@pytest.mark.parametrize("case", ["short", "middle", "long"])
def test_compact_crop_is_that_of_the_pytorch_tools(case):
  with np.load(GOLDEN / "test_pipeline.npz") as golden:
    xy = golden[f"{case}.keypoint"][:, golden[f"{case}.frame_inds"].reshape(-1)]  # M 480 V 2
    score = golden[f"{case}.score"][:, golden[f"{case}.frame_inds"].reshape(-1)]
    frame_size, box_size = golden[f"{case}.img_shape"], golden[f"{case}.box_shape"]
    expected = golden[f"{case}.keypoint_64"]
  keypoints = jnp.asarray(np.concatenate([xy, score[..., None]], -1).swapaxes(0, 1))
  box = geometry.compact_box(keypoints, jnp.asarray(frame_size))
  np.testing.assert_array_equal([box[3] - box[1], box[2] - box[0]], box_size)
  moved = geometry.move_into_box(keypoints, box, size=(64, 64))
  np.testing.assert_allclose(moved[..., :2].swapaxes(0, 1), expected, rtol=0, atol=1e-3)


def person(low, high):  # T M V 3
  return jnp.array([[[[*low, 1.0], [*high, 1.0]]]])


def test_a_tiny_body_keeps_the_whole_frame():
  box = geometry.compact_box(person((50.0, 60.0), (55.0, 90.0)), jnp.array([240, 320]))
  np.testing.assert_array_equal(box, [0, 0, 320, 240])


def test_a_clip_without_anybody_keeps_the_whole_frame_and_stays_finite():
  keypoints = jnp.zeros((4, 2, 17, 3))
  box = geometry.compact_box(keypoints, jnp.array([240, 320]))
  np.testing.assert_array_equal(box, [0, 0, 320, 240])
  np.testing.assert_array_equal(geometry.move_into_box(keypoints, box, size=(64, 64)), keypoints)


def test_box_is_square_and_holds_the_body_with_a_margin():
  box = geometry.compact_box(person((100.0, 100.0), (140.0, 200.0)), jnp.array([480, 640]))
  np.testing.assert_array_equal(box, [57, 87, 182, 212])


def test_each_clip_of_a_batch_has_its_own_box():
  near, far = person((10.0, 10.0), (50.0, 50.0)), person((100.0, 100.0), (300.0, 200.0))
  size = jnp.array([480, 640])
  both = geometry.compact_box(jnp.stack([near, far]), jnp.stack([size, size]))
  np.testing.assert_array_equal(both[0], geometry.compact_box(near, size))
  np.testing.assert_array_equal(both[1], geometry.compact_box(far, size))


def test_projection_is_that_of_the_prepared_key_points():
  rng = np.random.default_rng(0)
  joints = rng.uniform((-1, -1, 1), (1, 1, 4), (3, 2, 5, 3)).astype(np.float32)  # T M V 3
  joints[1, 0, 2], joints[2, 1, 3, 2] = 0, -1.0  # absent; behind the camera
  scored = np.concatenate([joints, joints.any(-1, keepdims=True)], -1, dtype=np.float32)
  expected = readers.depth_view(joints)
  found = geometry.project(jnp.asarray(scored), jnp.array([240, 320]))
  np.testing.assert_allclose(found, expected, atol=1e-3)
  assert not found[1, 0, 2].any()
  assert not found[2, 1, 3].any()
  larger = geometry.project(jnp.asarray(scored)[None], jnp.array([[480, 640]]))[0]
  np.testing.assert_allclose(larger, expected * [2, 2, 1], atol=1e-3)


def test_bodies_are_centred_where_the_root_is_first_seen():
  pose = np.random.default_rng(0).uniform(1, 2, (4, 2, 3, 4)).astype(np.float32)
  pose[..., -1] = 1
  pose[:2, 0, 1] = 0  # the root of the first person, in the first two frames
  centred = geometry.center(jnp.asarray(pose), 1)
  np.testing.assert_allclose(centred[..., :3], pose[..., :3] - pose[2, 0, 1, :3], atol=1e-6)
  np.testing.assert_array_equal(centred[..., 3], pose[..., 3])
