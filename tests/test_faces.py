"""Faces are brought to the template, and one of several is followed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from jaxmg import faces
from jaxmg.skeletons import topology

similarity = jax.jit(faces.similarity, static_argnames="size")
align = jax.jit(faces.align)
OPENPOSE = topology.SKELETONS["openpose137"]


def turned(angles, scale, shift):
  """The template's landmarks turned by angles [N] in degrees, larger, and elsewhere."""
  turns = np.exp(1j * np.radians(angles))
  points = scale * turns[:, None] * (faces.TEMPLATE[:, 0] + 1j * faces.TEMPLATE[:, 1])
  return (np.stack([points.real, points.imag], -1) + np.asarray(shift)).astype(np.float32)


def slopes(landmarks, matrices):
  """By how many degrees the eyes are turned against the template's."""
  placed = np.einsum("nij,nvj->nvi", matrices[..., :2], landmarks) + matrices[:, None, :, 2]
  eyes, level = placed[:, 1] - placed[:, 0], faces.TEMPLATE[1] - faces.TEMPLATE[0]
  return np.degrees(np.arctan2(eyes[:, 1], eyes[:, 0]) - np.arctan2(level[1], level[0]))


def test_similarity_undoes_a_known_one():
  landmarks = turned(np.array([0, 30, -120, 180]), 3.7, (900, -40))
  matrices = np.asarray(similarity(jnp.asarray(landmarks)))
  placed = np.einsum("nij,nvj->nvi", matrices[..., :2], landmarks) + matrices[:, None, :, 2]
  np.testing.assert_allclose(placed, np.broadcast_to(faces.TEMPLATE, placed.shape), atol=2e-3)
  turns = matrices[..., :2]
  np.testing.assert_allclose(np.linalg.det(turns), 1 / 3.7**2, rtol=1e-5)  # no reflection
  np.testing.assert_allclose(turns[0], np.eye(2) / 3.7, atol=1e-6)


def test_similarity_is_of_any_size_and_leading_axes():
  landmarks = turned(np.zeros(6), 1, 0).reshape(2, 3, 5, 2)
  matrices = similarity(jnp.asarray(landmarks), size=224)
  assert matrices.shape == (2, 3, 2, 3)
  # Edges of pixels fall on edges: the middle of the first of 112 is between the first two of 224.
  np.testing.assert_allclose(matrices[1, 2], [[2, 0, 0.5], [0, 2, 0.5]], atol=1e-4)


@pytest.mark.parametrize("outlier", [False, True])
def test_eyes_are_level_with_noise_and_one_landmark_that_is_wrong(outlier):
  rng = np.random.default_rng(0)
  count = 2000
  true = turned(rng.uniform(-40, 40, count), 3, (200, 100))  # 106 pixels between the eyes
  seen = true + rng.standard_normal(true.shape).astype(np.float32)
  if outlier:
    far = rng.uniform(35, 150, count) * np.exp(1j * rng.uniform(0, 2 * np.pi, count))
    seen[np.arange(count), rng.integers(0, 5, count)] += np.stack([far.real, far.imag], -1)
  found = slopes(true, np.asarray(similarity(jnp.asarray(seen))))
  assert np.abs(found).max() < 2


def test_two_wrong_landmarks_of_a_turned_head_are_not_taken_for_one():
  """Where no four fit, all five do: a head from the side is no outlier."""
  narrow = turned(np.zeros(1), 2, 0) * np.array([0.4, 1], np.float32)
  all_five = jax.jit(faces._fit)(jnp.asarray(narrow)[:, None], faces.TEMPLATE)[:, 0]
  np.testing.assert_allclose(similarity(jnp.asarray(narrow)), all_five, atol=1e-5)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_crop_is_the_one_of_scipy(dtype):
  rng = np.random.default_rng(1)
  pictures = ndimage.gaussian_filter(rng.uniform(0, 255, (2, 90, 130, 3)), (0, 1, 1, 0))
  pictures = pictures.astype(dtype)
  landmarks = turned(np.array([25.0, -50.0]), 0.8, (20, 10))  # partly outside
  found = np.asarray(align(jnp.asarray(pictures), jnp.asarray(landmarks)))
  assert (found.shape, found.dtype) == ((2, 112, 112, 3), dtype)
  places = np.indices((112, 112))[::-1].reshape(2, -1)
  assert (found == 0).all(-1).any()
  for picture, own, crop in zip(pictures, landmarks, found, strict=True):
    matrix = np.asarray(similarity(jnp.asarray(own)), np.float64)
    x, y = np.linalg.solve(matrix[:, :2], places - matrix[:, 2:])
    for c in range(3):
      expected = ndimage.map_coordinates(
        picture[..., c].astype(np.float64), [y, x], order=1, mode="grid-constant"
      )
      assert np.abs(crop[..., c].ravel() - expected).max() < 1


def test_landmarks_that_are_one_point_make_a_crop_of_numbers():
  pictures = jnp.full((20, 20, 3), 9.0)
  assert np.isfinite(align(pictures, jnp.full((5, 2), 7.0))).all()


def poses(landmarks, score=0.8):
  """Key points [T, M, 137, 3] of faces [T, M, 5, 2]; those at the origin are not there."""
  keypoints = np.zeros((*landmarks.shape[:2], 137, 3), np.float32)
  ring = 3 * np.exp(2j * np.pi * np.arange(6) / 6)
  for k, points in enumerate((range(36, 42), range(42, 48), (30,), (48,), (54,))):
    for i, point in enumerate(points):
      joint = keypoints[:, :, 25 + point]
      off = ring[i] if k < 2 else 0
      joint[..., :2] = landmarks[:, :, k] + np.array([off.real, off.imag] if k < 2 else [0, 0])
      joint[..., 2] = score
  keypoints[~landmarks.any((2, 3))] = 0
  return keypoints


def walk(num_frames, scale, start, step):
  face = turned(np.zeros(num_frames), scale, 0)
  return face + (np.array(start) + np.arange(num_frames)[:, None] * np.array(step))[:, None]


def test_key_points_become_landmarks():
  landmarks = walk(4, 1, (30, 20), (1, 2))
  found, scores = faces.five(poses(landmarks[:, None]), OPENPOSE)
  np.testing.assert_allclose(found[:, 0], landmarks, atol=1e-3)
  np.testing.assert_allclose(scores, 0.8, atol=1e-6)


def test_an_eye_is_its_pupil_where_fewer_than_half_of_its_points_are_there():
  keypoints = poses(walk(3, 1, (30, 20), (0, 0))[:, None])
  whole, _ = faces.five(keypoints, OPENPOSE)
  keypoints[0, 0, 25 + 36] = 0  # five are left
  keypoints[1:, 0, 25 + 36 : 25 + 40] = 0
  keypoints[1, 0, 25 + 68] = 7, 8, 0.3
  found, scores = faces.five(keypoints, OPENPOSE)
  np.testing.assert_allclose(found[0, 0, 0], whole[0, 0, 0] - np.array([3, 0]) / 5, atol=1e-4)
  np.testing.assert_allclose(found[1, 0, 0], [7, 8])
  assert scores[1, 0] == pytest.approx(0.7)
  assert scores[2, 0] == 0
  assert not found[2].any()


def test_smaller_layouts_with_a_mouth_will_do():
  keypoints = poses(walk(1, 1, (30, 20), (0, 0))[:, None])
  imigue41 = topology.SKELETONS["imigue41"]
  own = [OPENPOSE.joints.index(joint) for joint in imigue41.joints]
  found, _ = faces.five(keypoints[:, :, own], imigue41)
  np.testing.assert_allclose(found[0, 0], faces.TEMPLATE + np.array([30, 20]), atol=1e-3)


@pytest.mark.parametrize("name", ["coco17", "openpose25", "imigue35"])
def test_layouts_without_a_mouth_are_refused_in_one_line(name):
  skeleton = topology.SKELETONS[name]
  expected = f"layout: expected eyes, a nose .* got {name} without face_48 or right_mouth"
  with pytest.raises(ValueError, match=expected):
    faces.five(np.ones((1, 1, skeleton.num_joints, 3), np.float32), skeleton)


def test_short_gaps_are_filled_and_long_ones_are_lost():
  landmarks = walk(40, 2, (50, 50), (3, 1))
  keypoints = poses(landmarks[:, None])
  keypoints[5:10] = 0  # 0.24 s from seen to seen
  keypoints[20:35] = 0  # 0.64 s
  keypoints[12, ..., 2] *= 0.3  # not sure enough
  found = faces.from_keypoints(keypoints, OPENPOSE, np.arange(40) / 25)
  lost = np.isin(np.arange(40), np.arange(20, 35))
  np.testing.assert_allclose(found.landmarks[~lost], landmarks[~lost], atol=1e-3)
  np.testing.assert_allclose(found.scores, np.where(lost, 0, 0.8), atol=1e-6)
  assert not found.landmarks[lost].any()
  assert not found.others.any()


def test_the_larger_of_two_persons_is_followed_whatever_their_order():
  rng = np.random.default_rng(2)
  large, small = walk(60, 1.5, (300, 80), (-2, 0)), walk(60, 0.8, (60, 80), (2, 0))
  both = np.stack([large, small], 1)
  keypoints = poses(both)
  keypoints[25:32, 0] = 0  # the larger one is hidden for a while, and the other is alone
  for t, row in enumerate(keypoints):
    keypoints[t] = row[rng.permutation(2)]
  found = faces.from_keypoints(keypoints, OPENPOSE, np.arange(60) / 25)
  np.testing.assert_allclose(found.landmarks, large, atol=1e-2)
  assert found.others.all()


def test_a_face_that_was_lost_for_long_is_found_again_near_its_place_alone():
  near, away = walk(90, 1, (100, 80), (0, 0)), walk(90, 1, (600, 80), (0, 0))
  landmarks = np.zeros((90, 1, 5, 2), np.float32)
  landmarks[:40, 0], landmarks[70:, 0] = near[:40], near[70:] + 20
  landmarks[45:60, 0] = away[45:60]
  found = faces.from_keypoints(poses(landmarks), OPENPOSE, np.arange(90) / 25)
  assert np.flatnonzero(found.scores).tolist() == [*range(40), *range(70, 90)]
  assert np.flatnonzero(found.others).tolist() == [*range(45, 60)]


def test_small_faces_are_not_seen():
  keypoints = poses(walk(3, 0.25, (50, 50), (0, 0))[:, None])  # 8.8 pixels between the eyes
  times = np.arange(3) / 25
  assert faces.from_keypoints(keypoints, OPENPOSE, times).scores.all()
  assert not faces.from_keypoints(keypoints, OPENPOSE, times, least_size=9.0).scores.any()


def test_frames_that_are_seldom_are_linked_too():
  """At one frame a second the next one is farther than the gap."""
  landmarks = walk(6, 1, (50, 50), (20, 0))
  found = faces.follow(landmarks[:, None], np.ones((6, 1)), np.arange(6.0), gap=0.5)
  assert found.scores.all()


def test_nobody_is_followed_where_nobody_is():
  found = faces.follow(np.zeros((4, 2, 5, 2)), np.zeros((4, 2)), np.arange(4.0))
  assert not found.scores.any()
  assert not found.others.any()


def test_a_ghost_of_two_frames_is_no_other_person():
  landmarks = np.zeros((9, 2, 5, 2))
  landmarks[:, 0], landmarks[3:5, 1] = walk(9, 1, (50, 50), (0, 0)), walk(2, 1, (400, 50), (0, 0))
  scores = landmarks.any((2, 3)).astype(float)
  assert not faces.follow(landmarks, scores, np.arange(9) / 25).others.any()
