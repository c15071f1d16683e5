"""The batch, as `pipeline` yields it: a dict of numpy arrays."""

import numpy as np
from jaxtyping import Float32, Integer

#   keypoints  float32[B, T, M, V, 3]     x, y in source pixels; score; absent joints are all zero
#              float32[B, N, T, M, V, 3]  in evaluation: N views, each sampled from the whole clip
#   joints3d   the same shapes            metres, in place of keypoints where a run takes 3-D joints
#   num_frames int32[B]                   frames in the file, before sampling (may exceed T)
#   frame_size int32[B, 2]                height, width
#   label      int32[B]                   -1 where hidden
#   clip       int32[B]                   row in the prepared index: ids stay on the host as text
#   mask       bool[B]                    False for rows that only pad the last batch


def fake(
  seed: int = 0,
  *,
  batch_size: int = 2,
  num_frames: int = 4,
  num_persons: int = 1,
  num_joints: int = 17,
  num_classes: int = 3,
  num_views: int | None = None,
  frame_size: tuple[int, int] = (72, 128),
) -> dict[str, np.ndarray]:
  """Returns a random batch for tests, one joint in ten absent; `num_views` adds the views axis."""
  rng = np.random.default_rng(seed)
  views = () if num_views is None else (num_views,)
  shape = (batch_size, *views, num_frames, num_persons, num_joints)
  height, width = frame_size
  keypoints = rng.uniform((0, 0, 0.1), (width, height, 1), (*shape, 3)).astype(np.float32)
  keypoints[rng.random(shape) < 0.1] = 0
  return {
    "keypoints": keypoints,
    "num_frames": np.full(batch_size, num_frames, np.int32),
    "frame_size": np.tile(np.int32(frame_size), (batch_size, 1)),
    "label": rng.integers(num_classes, size=batch_size, dtype=np.int32),
    "clip": np.arange(batch_size, dtype=np.int32),
    "mask": np.ones(batch_size, bool),
  }


def select(
  pose: Float32[np.ndarray, "t m all 3"],
  *,
  joints: Integer[np.ndarray, " v"],
  num_persons: int,
  points: str = "keypoints",
) -> Float32[np.ndarray, "t {num_persons} v 3"]:
  """Takes the joints, zeroes absent ones, and takes the persons, highest summed score first.

  `points` is "keypoints", or "joints3d": 3-D joints have a score of 1 unless they are all zero.
  """
  pose = pose.take(joints, axis=2)  # [:, :, joints] would leave a slow, transposed layout
  score = pose[..., 2] if points == "keypoints" else pose.any(-1)
  pose[~(score > 0)] = 0  # a score that is NaN is no score
  order = np.argsort(-score.sum(axis=(0, 2)), kind="stable")[:num_persons]
  persons = np.zeros((len(pose), num_persons, len(joints), 3), np.float32)
  persons[:, : len(order)] = pose[:, order]
  return persons
