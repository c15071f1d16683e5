"""UTD-MHAD: 27 actions of 8 subjects, Kinect v1 skeletons (facts: README.md)."""

import hashlib
import re
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from jaxmg.data import prepared, readers, recordings, tracks
from jaxmg.data.readers import arrays
from jaxmg.errors import DataError

TRAIN_SUBJECTS = (1, 3, 5, 7)
TAIL_SEED = 0
DEPTH_FILE = "depth16_112.npz"
DEPTH_SHAPE = (16, 112, 112)  # frames, height, width


def tail_clips() -> frozenset[str]:
  """The ids of the training clips of `long_tail`, whichever files are there.

  The k-th of the 27 actions, in an order by hash, keeps 16 * (1/8)**(k/26) of its 16 clips, which
  is 16 to 2, those whose ids hash lowest.
  """

  def order(name: str) -> str:
    return hashlib.sha256(f"{TAIL_SEED} {name}".encode()).hexdigest()

  kept = set()
  for k, action in enumerate(sorted((f"a{action}" for action in range(1, 28)), key=order)):
    ids = [f"{action}_s{subject}_t{trial}" for subject in TRAIN_SUBJECTS for trial in range(1, 5)]
    kept.update(sorted(ids, key=order)[: round(16 * (1 / 8) ** (k / 26))])
  return frozenset(kept)


_cross_subject = prepared.by_subject(train=[str(subject) for subject in TRAIN_SUBJECTS])
_tail_clips = tail_clips()


def _long_tail(clip):
  split = _cross_subject(clip)
  return split if split == "test" or clip["id"] in _tail_clips else None


class Builder(prepared.Builder):
  """UTD-MHAD skeletons: 3D joints, and their view from the depth camera."""

  VERSION = tfds.core.Version("1.1.0")  # 1.0.0 had no long_tail

  track = tracks.Pose("kinect20", frame_size=(240, 320), joints3d=True, fps=30)
  class_names = (
    "swipe left",
    "swipe right",
    "wave",
    "clap",
    "throw",
    "arm cross",
    "basketball shoot",
    "draw x",
    "draw circle clockwise",
    "draw circle counter clockwise",
    "draw triangle",
    "bowling",
    "boxing",
    "baseball swing",
    "tennis swing",
    "arm curl",
    "tennis serve",
    "push",
    "knock",
    "catch",
    "pickup throw",
    "jog",
    "walk",
    "sit to stand",
    "stand to sit",
    "lunge",
    "squat",
  )
  mirror = False  # swipes and circles name their side
  protocols = {"xsub": _cross_subject, "long_tail": _long_tail}  # noqa: RUF012

  def recordings(self):
    folder = self.raw / "Skeleton" if (self.raw / "Skeleton").is_dir() else self.raw
    found = {}
    for path in sorted(folder.glob("*_skeleton.mat")):
      if match := re.fullmatch(r"a(\d+)_s(\d+)_t(\d+)_skeleton\.mat", path.name):
        other = found.setdefault(tuple(map(int, match.groups())), path)
        if other != path:
          raise DataError(path, expected="one file of each recording", got=f"{other.name} as well")
    if not found:
      raise DataError(folder, expected="files a1_s1_t1_skeleton.mat ...", got="none")
    for numbers, path in sorted(found.items()):
      yield path, numbers

  def clips(self, recording, known):
    yield _example(known, recording)


class Depth(Builder):
  """UTD-MHAD depth: 16 frames of each recording, around the person."""

  name = Builder.name
  track = tracks.Video(DEPTH_SHAPE[1:], channels=1, timed=False)
  track_name = "video"

  def recordings(self):
    path = self.raw / DEPTH_FILE
    if not path.is_file():
      raise DataError(path, expected="an array of depth frames, and their ids", got="none")
    try:
      found = arrays.load_npz(path, kinds="uU")
      images, ids = found.get("x"), found.get("ids")
      if images is None or images.dtype != np.uint8 or images.shape[1:] != DEPTH_SHAPE:
        raise DataError(
          "x", expected=f"uint8 [N, {', '.join(map(str, DEPTH_SHAPE))}]", got=_what(images)
        )
      if ids is None or ids.dtype.kind != "U" or ids.shape != images.shape[:1]:
        raise DataError("ids", expected=f"{len(images)} texts", got=_what(ids))
      numbers = [_numbers(str(id)) for id in ids]
    except ValueError as error:
      raise DataError(f"{path}: {str(error).partition(chr(10))[0]}") from error
    stamp = recordings.stamp(path)
    for one, clip in zip(numbers, images, strict=True):
      yield clip, (one, stamp)

  def clips(self, recording, known):
    numbers, _ = known
    yield _example(numbers, readers.without_loss(recording))


def _numbers(id: str) -> tuple[int, ...]:
  match = re.fullmatch(r"a(\d+)_s(\d+)_t(\d+)", id, re.ASCII)
  if not match:
    raise DataError("ids", expected="a1_s1_t1 ...", got=repr(id))
  return tuple(map(int, match.groups()))


def _example(numbers: tuple[int, ...], clip: Any) -> prepared.Example:
  action, subject, trial = numbers
  return prepared.Example(f"a{action}_s{subject}_t{trial}", action - 1, str(subject), clip)


def _what(array: np.ndarray | None) -> str:
  return "none" if array is None else f"{array.dtype} {list(array.shape)}"
