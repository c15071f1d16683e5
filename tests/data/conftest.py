import shutil

import numpy as np
import pytest

from jaxmg.data import prepared, readers, tracks


class Toy(prepared.Builder):
  """23 clips of 1 to 23 frames, by subjects a (11 clips), b (6), c and d (3 each)."""

  track = tracks.Pose("openpose25", frame_size=(72, 128), num_persons=2, fps=25)
  class_names = ("nod", "shrug", "wave")
  mirror = False
  protocols = {"xsub": prepared.by_subject(train=("a", "b", "c")), "solo": lambda clip: None}  # noqa: RUF012

  def clips(self, recording, known):
    rng = np.random.default_rng(0)
    for i in range(23):
      keypoints = rng.uniform(1, 70, (i + 1, 2, 25, 3)).astype(np.float32)
      keypoints[..., 2] = [[0.25], [0.5]]  # the second person is seen better
      subject = "aaaaaaaaaaabbbbbbcccddd"[i]
      label = -1 if subject == "d" else i % 3
      clip = readers.Clip(keypoints=keypoints, layout="openpose25", frame_size=(72 + i, 128))
      yield prepared.Example(f"clip {i} 手", label, subject, clip)


@pytest.fixture(scope="session")
def toy(tmp_path_factory):
  """The directory of a prepared data set; do not write into it."""
  folder = tmp_path_factory.mktemp("toy")
  return prepared.write(Toy, raw=folder, data_dir=folder / "data")


@pytest.fixture
def edited_toy(toy, tmp_path, edit_json):
  """Makes a copy of the data set with `edit(index)` applied to its index, or another file."""

  def make(edit, file="index.json"):
    copy = shutil.copytree(toy, tmp_path / "toy" / "1.0.0", dirs_exist_ok=True)
    edit_json(copy / file, edit)
    return copy

  return make
