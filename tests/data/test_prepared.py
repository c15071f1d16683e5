"""The writer's side of a prepared directory."""

import dataclasses
import json
import pathlib

import numpy as np
import pytest

from jaxmg.data import prepared, readers, source
from jaxmg.errors import ConfigError, DataError
from jaxmg.skeletons import topology


def example(id="a", label=0, subject="ann", *, num_frames=3, num_persons=1):
  keypoints = np.full((num_frames, num_persons, 17, 3), 0.5)
  keypoints[..., 0] = 5 + len(id) + ord(id[0])  # in no two clips the same
  return prepared.Example(id, label, subject, readers.Clip(keypoints, "coco17"))


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
    "digest": [source.digest({"keypoints": one.clip.keypoints}) for one in Desk.examples],
  }
  assert index == {
    "name": "desk",
    "version": "1.0.0",
    "skeleton": "coco17",
    "skeleton_definition": None,
    "class_names": ["idle", "typing"],
    "class_short_names": None,
    "class_groups": None,
    "mirror": True,
    "joints3d": False,
    "num_persons": 1,
    "frame_size": [720, 1280],
    "fps": None,
    "synthetic": False,
    "made_of": None,
    "notes": [],
    "clips": clips,
    "shared_subjects": [],
    "protocols": {"xsub": {"train": [0, 1], "test": [2]}},
  }


def test_short_names_and_groups_of_classes_travel(tmp_path):
  plain = source.Source(write(Desk, tmp_path))
  assert (plain.class_short_names, plain.class_groups) == (("idle", "typing"), None)

  class Office(Desk):
    class_short_names = ("idle", "type")
    class_groups = ("none", "hand")

  office = source.Source(write(Office, tmp_path))
  assert office.class_names == ("idle", "typing")
  assert (office.class_short_names, office.class_groups) == (("idle", "type"), ("none", "hand"))


def test_a_builder_with_a_group_too_few_is_refused(tmp_path):
  builder = type("Desk", (Desk,), {"class_groups": ("hand",)})
  with pytest.raises(DataError, match="expected 2 texts, one per class, got 1"):
    write(builder, tmp_path)
  assert not (tmp_path / "data" / "desk").exists()


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


def test_clips_without_anybody_and_copies_are_noted(tmp_path):
  class Odd(Desk):
    examples = (
      prepared.Example("none", 0, "ann", readers.Clip(np.zeros((2, 1, 17, 3)), "coco17")),
      prepared.Example("nil", 0, "bob", readers.Clip(np.zeros((2, 1, 17, 3)), "coco17")),
      example("a"),
      dataclasses.replace(example("a"), id="b"),
    )

  assert json.loads((write(Odd, tmp_path) / "index.json").read_text())["notes"] == [
    "clip none shows nobody",
    "clip nil shows nobody",
    "2 clips have the key points of another one",
  ]


def test_nothing_is_printed(tmp_path, capfd):
  write(Desk, tmp_path)
  assert capfd.readouterr().out == ""


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


def test_a_layout_of_ones_own_is_written_into_the_index(tmp_path):
  arm = topology.Skeleton("arm", ("elbow", "wrist"), (0, 0), ((0, 1),), ())
  clip = readers.Clip(np.full((3, 1, 2, 3), 0.5), arm)

  class Arms(Desk):
    skeleton = arm
    examples = (prepared.Example("a", 0, "ann", clip),)

  index = json.loads((write(Arms, tmp_path) / "index.json").read_text())
  assert index["skeleton"] == "arm"
  assert topology.from_json(index["skeleton_definition"]) == arm


@pytest.mark.parametrize(
  ("skeleton", "message"),
  [
    ("coco71", "did you mean 'coco17'"),
    (
      dataclasses.replace(topology.get("coco17"), sources=()),
      "'coco17': expected a name of its own",
    ),
    (dataclasses.replace(topology.get("coco17"), name="own"), "skeleton own: expected no sources"),
  ],
)
def test_a_layout_that_cannot_travel_is_refused(tmp_path, skeleton, message):
  builder = type("Desk", (Desk,), {"skeleton": skeleton})
  with pytest.raises(ConfigError, match=message):
    write(builder, tmp_path)
  assert not (tmp_path / "data" / "desk").exists()
