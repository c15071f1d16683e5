"""B88: arrays of other shapes and kinds, at the door of what takes arrays from users."""

import re

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest

from jaxmg import inputs, models, shapes, skeletons
from jaxmg.skeletons import heatmaps

SKELETON = skeletons.get("coco17")
POSES = np.zeros((2, 4, 1, 17, 3), np.float32)  # B T M V 3
SIZES = np.full((2, 2), 64, np.int32)  # B 2


@pytest.fixture(autouse=True)
def _as_for_users(monkeypatch):
  """Annotations are not executed: what they would find must be found without them."""
  monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def train_inputs(keypoints=POSES, frame_size=SIZES):
  return inputs.heatmap_inputs(keypoints, frame_size, skeleton=SKELETON, size=8)


def view_inputs(keypoints=POSES[:, None], frame_size=SIZES):
  return inputs.heatmap_views(keypoints, frame_size, size=8)


def view(points=POSES):
  return inputs.heatmap_view({"points": points, "mirrored": False}, skeleton=SKELETON, size=8)


def joints(points):
  return heatmaps.render_joints(points, size=(8, 8))


def limbs(points):
  return heatmaps.render_limbs(points, SKELETON.limbs, size=(8, 8))


def posec3d(volume):
  model = models.MODELS["posec3d"](num_classes=3, variant="tiny")
  return model.init(jax.random.key(0), volume)


def agcn(x):
  model = models.MODELS["agcn"](3, SKELETON.parents, variant="tiny")
  return model.init(jax.random.key(0), x)


KEYPOINTS = "keypoints: expected float[B, T, M, 17, 3], got"


@pytest.mark.parametrize(
  ("function", "arguments", "message"),
  [
    (train_inputs, dict(keypoints=POSES[:, :, 0]), f"{KEYPOINTS} float32[2, 4, 17, 3]"),
    (train_inputs, dict(keypoints=np.moveaxis(POSES, -1, 1)), f"{KEYPOINTS} float32[2, 3, 4, 1"),
    (train_inputs, dict(keypoints=POSES[..., :2]), f"{KEYPOINTS} float32[2, 4, 1, 17, 2]"),
    (train_inputs, dict(keypoints=POSES[..., :11, :]), f"{KEYPOINTS} float32[2, 4, 1, 11, 3]"),
    (train_inputs, dict(keypoints=POSES[:0]), f"{KEYPOINTS} float32[0, 4, 1, 17, 3]"),
    (train_inputs, dict(keypoints=POSES[:, :0]), f"{KEYPOINTS} float32[2, 0, 1, 17, 3]"),
    (train_inputs, dict(keypoints=POSES.astype(np.uint8)), f"{KEYPOINTS} uint8[2, 4, 1, 17, 3]"),
    (train_inputs, dict(keypoints=POSES.astype(object)), f"{KEYPOINTS} object[2, 4, 1, 17, 3]"),
    (train_inputs, dict(keypoints=None), f"{KEYPOINTS} NoneType"),
    (train_inputs, dict(keypoints=POSES.tolist()), f"{KEYPOINTS} list"),
    (train_inputs, dict(frame_size=SIZES[:1]), "frame_size: expected int[2, 2], got int32[1, 2]"),
    (train_inputs, dict(frame_size=SIZES[0]), "frame_size: expected int[2, 2], got int32[2]"),
    (train_inputs, dict(frame_size=SIZES / 1), "frame_size: expected int[2, 2], got float"),
    (train_inputs, dict(frame_size=(64, 64)), "frame_size: expected int[2, 2], got tuple"),
    (view_inputs, dict(keypoints=POSES), "keypoints: expected float[B, N, T, M, V, 3], got fl"),
    (view_inputs, dict(frame_size=SIZES[:1]), "frame_size: expected int[2, 2], got int32[1, 2]"),
    (view, dict(points=POSES[:, None]), "points: expected float[B, T, M, 17, 3], got float32[2"),
    (joints, dict(points=POSES[..., :2]), "points: expected float[..., M, V, 3], got float32[2"),
    (joints, dict(points=POSES[0, 0, 0]), "points: expected float[..., M, V, 3], got float32[17"),
    (limbs, dict(points=POSES[..., :2]), "points: expected float[..., M, V, 3], got float32[2"),
    (posec3d, dict(volume=np.zeros((4, 8, 8, 17), np.float32)), "heatmaps: expected float[B, T, H"),
    (posec3d, dict(volume=np.zeros((1, 4, 8, 8, 17), np.uint8)), "got uint8[1, 4, 8, 8, 17]"),
    (agcn, dict(x=POSES[:, :, 0]), "x: expected float[B, T, M, 17, C], got float32[2, 4, 17, 3]"),
    (agcn, dict(x=np.moveaxis(POSES, -1, 1)), "x: expected float[B, T, M, 17, C], got float32[2"),
    (agcn, dict(x=POSES[:, :0]), "x: expected float[B, T, M, 17, C], got float32[2, 0, 1, 17, 3]"),
    (posec3d, dict(volume=None), "heatmaps: expected float[B, T, H, W, C], got NoneType"),
  ],
)
def test_another_array_is_refused_by_its_name_and_shape(function, arguments, message):
  with pytest.raises(ValueError, match=re.escape(message)) as caught:
    function(**arguments)
  assert "\n" not in str(caught.value)


def test_what_jit_traces_is_refused_in_the_same_words():
  with pytest.raises(ValueError, match=re.escape(f"{KEYPOINTS} float32[2, 4, 17, 3]")):
    jax.jit(train_inputs)(POSES[:, :, 0])


@pytest.mark.parametrize("dtype", [np.float16, jnp.bfloat16, np.float32, np.float64])
def test_numbers_of_any_width_are_taken(dtype):
  shapes.check("points", np.zeros((2, 3), dtype), "float", "B", 3)
  shapes.check("points", np.zeros((5, 4, 2, 3), dtype), "float", "...", "B", 3)


def test_integers_are_no_floats():
  for dtype in (np.int32, np.uint8, np.int64):
    shapes.check("label", np.zeros(2, dtype), "int", "B")
    with pytest.raises(ValueError, match=r"label: expected float\[B\], got u?int\d+\[2\]"):
      shapes.check("label", np.zeros(2, dtype), "float", "B")
