"""The batch, as `pipeline` yields it: a dict of numpy arrays."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

PRESENT = "present"

#   label      int32[B]                     -1 where hidden
#   clip       int32[B]                     row in the prepared index: ids stay on the host as text
#   mask       bool[B]                      False for rows that only pad the last batch
#
# and for every input of the run, under its name, what it has read (`jaxmg.inputs`); where clips may
# lack it, with "present" bool[B]. Of poses:
#
#   keypoints  float32[B, T, M, V, 3]     x, y in source pixels; score; absent joints are all zero
#              float32[B, N, T, M, V, 3]  in evaluation: N choices of frames from the whole clip
#   joints3d   the same shapes            metres, in place of keypoints where a run takes 3-D joints
#   frame_size int32[B, 2]                height, width


def part(one: Any, record: Any, read: Callable, *, num_clips: int | None, may_lack: bool) -> dict:
  """What `read` makes of a clip's record for an input; of None, which it may lack, all zero."""
  if record is None:
    found = {name: np.zeros(x.shape[1:], x.dtype) for name, x in one.example(num_clips).items()}
  else:
    found = read(one, record)
  return found | {PRESENT: np.bool_(record is not None)} if may_lack else found


def stack(clips: Sequence[Any]) -> Any:
  """Clips, dicts of arrays and of dicts -> the same dict with an axis of clips before all."""
  if isinstance(clips[0], dict):
    return {name: stack([clip[name] for clip in clips]) for name in clips[0]}
  return np.stack(clips)


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
) -> dict[str, Any]:
  """Returns a random batch of poses for tests, one joint in ten absent; `num_views` adds views."""
  rng = np.random.default_rng(seed)
  views = () if num_views is None else (num_views,)
  shape = (batch_size, *views, num_frames, num_persons, num_joints)
  height, width = frame_size
  keypoints = rng.uniform((0, 0, 0.1), (width, height, 1), (*shape, 3)).astype(np.float32)
  keypoints[rng.random(shape) < 0.1] = 0
  return {
    "pose": {
      "keypoints": keypoints,
      "frame_size": np.tile(np.int32(frame_size), (batch_size, 1)),
    },
    "label": rng.integers(num_classes, size=batch_size, dtype=np.int32),
    "clip": np.arange(batch_size, dtype=np.int32),
    "mask": np.ones(batch_size, bool),
  }
