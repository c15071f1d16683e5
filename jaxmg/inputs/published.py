"""The input that the original's published weights of 2s-AGCN were trained on, which is not ours.

The choice of persons and frames is host work, since it changes indices; what is arithmetic (centre,
rotation, bones, motion) is for the device. Source: Shi et al., CVPR 2019, and their code; what the
code does counts, where the paper says less.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int

from jaxmg.skeletons import topology

NUM_FRAMES = 300  # of a test clip, whatever the length of the recording
_PERSONS = 2


class Preparation(NamedTuple):
  """How one of the original's data sets was prepared."""

  fixed: Mapping[str, Any]  # what the fields of an input must be
  clip: Callable  # host: pose [T, M, V, 3] -> [300, 2, V, 3]
  device_clip: Callable  # the same on the device, for programs without a host part
  coordinates: Callable  # device: pose [..., T, 2, V, 3], frame size [..., 2] -> the same shape
  parents: tuple[int, ...]  # of its bones
  train_frames: int
  windows: bool  # whether a training clip may begin later than the recording


def find(name: str, values: Mapping[str, Any]) -> Preparation | None:
  """The preparation of this name, None for "ours"; ValueError where fields contradict it."""
  if name == "ours":
    return None
  if name not in PREPARATIONS:
    expected = " or ".join(("ours", *PREPARATIONS))
    raise ValueError(f"preparation: expected {expected}, got {name!r}")
  found = PREPARATIONS[name]
  for field, wanted in found.fixed.items():
    if field in values and values[field] != wanted:
      expected = f"{wanted} with preparation={name}"
      raise ValueError(f"{field}: expected {expected}, got {values[field]}")
  return found


def ntu_persons(pose: Float32[np.ndarray, "t m v 3"]) -> Float32[np.ndarray, "t 2 v 3"]:
  """Of the first four bodies of a frame, by their place in it, the two of the largest spread.

  The spread of a body is the sum of the standard deviations of x, y and z, each over all joints and
  all frames in which it is there. The larger comes first; who is missing is zeros.
  """
  pose = pose[:, :4]
  bodies = [body[body.any((-2, -1))].astype(np.float64) for body in pose.swapaxes(0, 1)]
  spread = [body.std((0, 1)).sum() if len(body) else 0 for body in bodies]
  order = np.argsort(-np.array(spread), kind="stable")[:_PERSONS]
  persons = np.zeros((len(pose), _PERSONS, *pose.shape[2:]), np.float32)
  persons[:, : len(order)] = pose[:, order]
  return persons


def ntu_frames(pose: Float32[np.ndarray, "t m v 3"]) -> Float32[np.ndarray, "300 m v 3"]:
  """Each person repeated from its start up to 300 frames, to which longer recordings are cut.

  A person who is not there in the first frame loses all frames without it, gaps too; else gaps
  stay, all zero.
  """
  clip = np.zeros((NUM_FRAMES, *pose.shape[1:]), np.float32)
  for person in range(pose.shape[1]):
    body = pose[:NUM_FRAMES, person]
    seen = np.flatnonzero(body.any((-2, -1)))
    if seen.size:
      body = body[: seen[-1] + 1] if seen[0] == 0 else body[seen]
      clip[:, person] = body[np.arange(NUM_FRAMES) % len(body)]
  return clip


def kinetics_clip(pose: Float32[np.ndarray, "t m v 3"]) -> Float32[np.ndarray, "300 2 v 3"]:
  """Of the first five persons of each frame the two of the highest summed score; zeros at the end.

  Persons are sorted anew in every frame. Recordings are cut after 300 frames.
  """
  pose = pose[:NUM_FRAMES, :5]
  pose = np.where(pose[..., 2:] > 0, pose, 0)
  order = np.argsort(-pose[..., 2].sum(-1), axis=1, kind="stable")[:, :_PERSONS]
  best = np.take_along_axis(pose, order[..., None, None], axis=1)
  clip = np.zeros((NUM_FRAMES, _PERSONS, *pose.shape[2:]), np.float32)
  clip[: len(best), : best.shape[1]] = best
  return clip


def ntu_clip_on_device(pose: Float[Array, "t m v 3"]) -> Float[Array, "300 2 v 3"]:
  """`ntu_frames(ntu_persons(pose))` with static shapes."""
  pose = pose[:, :4]
  there = pose.any((-2, -1))  # t m
  count = there.sum(0)
  seen = there[..., None, None]
  # Deviations about the mean, as sums of squares would lose them.
  number = jnp.maximum(count, 1)[:, None, None] * pose.shape[2]
  mean = jnp.where(seen, pose, 0).sum((0, 2), keepdims=True) / number
  square = jnp.where(seen, pose - mean, 0) ** 2
  spread = jnp.sqrt(square.sum((0, 2), keepdims=True) / number)[0].sum((-2, -1))  # m
  order = jnp.argsort(-spread, stable=True)[:_PERSONS]
  body, there = pose[:NUM_FRAMES, order], there[:NUM_FRAMES, order]
  length = len(body)
  last = length - 1 - there[::-1].argmax(0)
  # Seen ones first, in their order; of who is there at the start, all up to the last.
  places = jnp.where(there[0], jnp.arange(length)[:, None], jnp.argsort(~there, 0, stable=True))
  lengths = jnp.where(there[0], last + 1, jnp.maximum(there.sum(0), 1))
  chosen = jnp.take_along_axis(places, jnp.arange(NUM_FRAMES)[:, None] % lengths, 0)
  clip = jnp.take_along_axis(body, chosen[..., None, None], 0)
  return jnp.pad(clip, ((0, 0), (0, _PERSONS - clip.shape[1]), (0, 0), (0, 0)))


def kinetics_clip_on_device(pose: Float[Array, "t m v 3"]) -> Float[Array, "300 2 v 3"]:
  """`kinetics_clip` with static shapes."""
  pose = pose[:NUM_FRAMES, :5]
  pose = jnp.where(pose[..., 2:] > 0, pose, 0)
  order = jnp.argsort(-pose[..., 2].sum(-1), 1, stable=True)[:, :_PERSONS]
  best = jnp.take_along_axis(pose, order[..., None, None], 1)
  frames, persons = NUM_FRAMES - len(best), _PERSONS - best.shape[1]
  return jnp.pad(best, ((0, frames), (0, persons), (0, 0), (0, 0)))


def ntu_coordinates(
  pose: Float[Array, "*b t 2 v 3"], frame_size: Int[Array, "*b 2"]
) -> Float[Array, "*b t 2 v 3"]:
  """Metres from the first person's spine, in every frame, turned to stand upright and face us.

  One rotation turns that person's joint 0 -> 1 of the first frame onto z, a second one joint
  4 -> 8 onto x. All-zero joints are absent, and stay so; the spine becomes zero and is there.
  """
  there = pose.any(-1, keepdims=True)
  pose = jnp.where(there, pose - pose[..., :1, 1:2, :], 0)
  for (start, end), axis in (((0, 1), (0, 0, 1)), ((4, 8), (1, 0, 0))):
    bone = pose[..., 0, 0, end, :] - pose[..., 0, 0, start, :]
    turn = _rotation(bone, jnp.array(axis, pose.dtype))
    pose = jnp.einsum("...ij,...tmvj->...tmvi", turn, pose, precision="highest")
  return pose


def kinetics_coordinates(
  pose: Float[Array, "*b t 2 v 3"], frame_size: Int[Array, "*b 2"]
) -> Float[Array, "*b t 2 v 3"]:
  """x from -0.5 to 0.5 over the picture, y up, and the score; all zero where that is 0."""
  place = pose[..., :2] / frame_size[..., None, None, None, ::-1] - 0.5
  prepared = jnp.concatenate([place * jnp.array([1, -1], pose.dtype), pose[..., 2:]], -1)
  return jnp.where(pose[..., 2:] > 0, prepared, 0)


def stream(
  pose: Float[Array, "*b t m v 3"], parents: tuple[int, ...], name: str
) -> Float[Array, "*b t m v 3"]:
  """Plain differences of all three channels: an absent joint counts as zeros, a score as a number.

  A bone is joint minus parent; motion the next frame minus this one, and zero in the last.
  """
  if name.startswith("bone"):
    pose = pose - pose[..., np.array(parents), :]
  if name.endswith("motion"):
    later = jnp.roll(pose, -1, axis=-4)
    pose = (later - pose).at[..., -1, :, :, :].set(0)
  return pose


def _rotation(bone: Float[Array, "*b 3"], axis: Float[Array, " 3"]) -> Float[Array, "*b 3 3"]:
  """The shortest rotation of a bone onto an axis; none where it has no length or lies on it."""
  length = jnp.linalg.norm(bone, axis=-1, keepdims=True)
  unit = bone / jnp.where(length > 0, length, 1)
  about, cos = jnp.cross(unit, axis), unit @ axis
  sin2 = (about**2).sum(-1)
  turned = (length[..., 0] > 0) & (sin2 > 1e-12)
  # (1 - cos) / sin^2, without the difference of two numbers that are nearly equal.
  factor = jnp.where(cos > 0, 1 / (1 + jnp.abs(cos)), (1 - cos) / jnp.where(turned, sin2, 1))
  x, y, z = jnp.moveaxis(about, -1, 0)
  zero = jnp.zeros_like(x)
  cross = jnp.stack([zero, -z, y, z, zero, -x, -y, x, zero], -1).reshape(*x.shape, 3, 3)
  square = jnp.einsum("...ij,...jk->...ik", cross, cross, precision="highest")
  rotation = jnp.eye(3, dtype=bone.dtype) + cross + factor[..., None, None] * square
  return jnp.where(turned[..., None, None], rotation, jnp.eye(3, dtype=bone.dtype))


_KINECT25, _OPENPOSE18 = topology.get("kinect25"), topology.get("openpose18")
# Persons and frames are chosen here alone, and these turns and sizes are those of the weights.
_FIXED = {
  "sampling": "repeat",
  "num_persons": _PERSONS,
  "crop": (1.0, 1.0),
  "rotation": 0.0,
  "tilt": 0.0,
  "scale": (1.0, 1.0),
}
PREPARATIONS = {
  "ntu": Preparation(
    fixed=_FIXED | {"skeleton": _KINECT25, "points": "joints3d"},
    clip=lambda pose: ntu_frames(ntu_persons(pose)),
    device_clip=ntu_clip_on_device,
    coordinates=ntu_coordinates,
    parents=_KINECT25.parents,
    train_frames=NUM_FRAMES,
    windows=False,  # it is turned by the first frame
  ),
  "kinetics": Preparation(
    fixed=_FIXED | {"skeleton": _OPENPOSE18, "points": "keypoints"},
    clip=kinetics_clip,
    device_clip=kinetics_clip_on_device,
    coordinates=kinetics_coordinates,
    parents=(0, 0, *_OPENPOSE18.parents[2:14], 0, 0, *_OPENPOSE18.parents[16:]),  # from the nose
    train_frames=150,
    windows=True,
  ),
}
