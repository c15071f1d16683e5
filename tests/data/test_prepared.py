"""The writer's side of a prepared directory."""

import json
import pathlib

import numpy as np
import pytest

from jaxmg.data import prepared, readers, source
from jaxmg.errors import ConfigError, DataError


def clip(num_frames=3, *, num_persons=1, layout="coco17", joints3d=None):
  keypoints = np.full((num_frames, num_persons, 17, 3), 0.5)
  return readers.Clip(keypoints, layout, joints3d=joints3d)


def example(id="a", label=0, subject="ann", **options):
  return prepared.Example(id, label, subject, clip(**options))


class Desk(prepared.Builder):
  skeleton = "coco17"
  class_names = ("idle", "typing")
  frame_size = (720, 1280)
  protocols = {"xsub": prepared.by_subject(train=("ann",))}  # noqa: RUF012
  examples = (example("b", 1), example("a", num_frames=5), example("c", -1, "bob"))

  def clips(self):
    yield from self.examples


def write(builder, folder: pathlib.Path, **options):
  return prepared.write(builder, raw=folder, data_dir=folder / "data", **options)


def files(folder):
  return sorted(path for path in folder.rglob("*"))


def test_rows_are_the_clips_in_their_order(tmp_path):
  path = write(Desk, tmp_path)
  assert path == tmp_path / "data" / "desk" / "1.0.0"
  data = source.Source(path)
  assert data.ids == ("b", "a", "c")
  assert [data[row]["keypoints"].shape for row in range(3)] == [(n, 1, 17, 3) for n in (3, 5, 3)]
  assert data.rows("train").tolist() == [0, 1]
  assert data.rows("test").tolist() == [2]


def test_the_index_says_what_the_builder_declares(tmp_path):
  index = json.loads((write(Desk, tmp_path) / "index.json").read_text())
  clips = {
    "id": ["b", "a", "c"],
    "subject": ["ann", "ann", "bob"],
    "video": ["b", "a", "c"],
    "label": [1, 0, -1],
    "num_frames": [3, 5, 3],
  }
  assert index == {
    "name": "desk",
    "version": "1.0.0",
    "skeleton": "coco17",
    "class_names": ["idle", "typing"],
    "class_short_names": None,
    "mirror": True,
    "num_persons": 1,
    "frame_size": [720, 1280],
    "fps": None,
    "synthetic": False,
    "notes": [],
    "clips": clips,
    "protocols": {"xsub": {"train": [0, 1], "test": [2]}},
  }


def test_persons_that_a_clip_lacks_are_all_zero(tmp_path):
  class Pair(Desk):
    num_persons = 3
    examples = (example(num_persons=2),)

  keypoints = source.Source(write(Pair, tmp_path))[0]["keypoints"]
  assert keypoints.any((0, 2, 3)).tolist() == [True, True, False]


def test_a_whole_directory_is_left_as_it_is(tmp_path):
  before = {path: path.stat().st_mtime_ns for path in files(write(Desk, tmp_path))}
  path = write(Desk, tmp_path)
  assert {path: path.stat().st_mtime_ns for path in files(path)} == before


def test_a_half_made_directory_is_made_again(tmp_path):
  path = write(Desk, tmp_path)
  (path / "index.json").unlink()
  (path / "left over").touch()
  write(Desk, tmp_path)
  assert (path / "index.json").exists()
  assert not (path / "left over").exists()


def test_only_the_data_set_is_left_in_the_data_directory(tmp_path):
  write(Desk, tmp_path)
  assert [path.name for path in (tmp_path / "data").iterdir()] == ["desk"]


def test_nothing_is_printed(tmp_path, capfd):
  write(Desk, tmp_path)
  assert capfd.readouterr().out == ""


FAULTS = {
  "two of one id": ((example("a"), example("a")), "'a': expected an id of its own"),
  "a path as id": ((example("../a"),), "id: expected 1 to 200 printable bytes"),
  "a line break in an id": ((example("a\nb"),), "id: expected 1 to 200 printable bytes"),
  "a label too large": ((example(label=2),), "label: expected an integer, -1 to 1, got 2"),
  "a label too small": ((example(label=-2),), "got -2"),
  "a label that is no integer": ((example(label=True),), "got True"),
  "another layout": (
    (prepared.Example("a", 0, "ann", readers.Clip(np.ones((2, 1, 18, 3)), "openpose18")),),
    "layout: expected coco17, got openpose18",
  ),
  "too many persons": ((example(num_persons=2),), "persons: expected at most 1, got 2"),
  "joints3d unannounced": ((example(joints3d=np.ones((3, 1, 17, 3))),), "joints3d: expected False"),
  "a hidden label to train on": ((example(label=-1),), "training clip 'a': expected a label"),
  "no clips": ((), "expected at least one clip"),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_line_and_leaves_nothing(tmp_path, name):
  class Faulty(Desk):
    examples, expected = FAULTS[name]

  with pytest.raises(DataError) as caught:
    write(Faulty, tmp_path)
  assert Faulty.expected in str(caught.value)
  assert "\n" not in str(caught.value)
  assert files(tmp_path) == [tmp_path / "data"]


def test_a_subject_on_both_sides_is_refused(tmp_path):
  class Leaky(Desk):
    protocols = {"random": lambda clip: "train" if clip["id"] == "a" else "test"}  # noqa: RUF012

  with pytest.raises(DataError, match="no subject in both train and test, got ann"):
    write(Leaky, tmp_path)


def test_raw_files_that_are_not_there_are_refused_and_nothing_is_deleted(tmp_path):
  path = write(Desk, tmp_path)
  (path / "index.json").unlink()
  before = files(tmp_path)
  with pytest.raises(DataError, match="expected the folder of the raw files"):
    prepared.write(Desk, raw=tmp_path / "none", data_dir=tmp_path / "data")
  assert files(tmp_path) == before


def test_another_layout_than_there_is_is_refused(tmp_path):
  with pytest.raises(ConfigError, match="layout: expected coco17, got kinect20"):
    write(Desk, tmp_path, layout="kinect20")
  write(Desk, tmp_path, layout="coco17")
  with pytest.raises(ConfigError, match=r"expected kinect20, got coco17 \(remove it"):
    write(Desk, tmp_path, layout="kinect20")
