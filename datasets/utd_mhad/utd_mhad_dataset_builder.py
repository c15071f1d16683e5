"""UTD-MHAD: 27 actions of 8 subjects, Kinect v1 skeletons (facts: README.md)."""

import re

from jaxmg.data import prepared, readers
from jaxmg.errors import DataError


class Builder(prepared.Builder):
  """UTD-MHAD skeletons: 3D joints, and their view from the depth camera."""

  skeleton = "kinect20"
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
  frame_size = (240, 320)
  fps = 30
  joints3d = True
  mirror = False  # swipes and circles name their side
  protocols = {"xsub": prepared.by_subject(train=("1", "3", "5", "7"))}  # noqa: RUF012

  def clips(self):
    folder = self.raw / "Skeleton" if (self.raw / "Skeleton").is_dir() else self.raw
    found = {}
    for path in folder.glob("*_skeleton.mat"):
      if match := re.fullmatch(r"a(\d+)_s(\d+)_t(\d+)_skeleton\.mat", path.name):
        found[tuple(map(int, match.groups()))] = path
    if not found:
      raise DataError(folder, expected="files a1_s1_t1_skeleton.mat ...", got="none")
    for (action, subject, trial), path in sorted(found.items()):
      id = f"a{action}_s{subject}_t{trial}"
      yield prepared.Example(id, action - 1, str(subject), readers.read(path))
