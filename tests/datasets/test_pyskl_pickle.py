"""Annotation files of the field -> a prepared directory, by the command."""

import json
import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds

from jaxmg.data import source
from jaxmg.skeletons import topology

ARM = {
  "name": "arm3",
  "joints": ["shoulder", "elbow", "wrist"],
  "parents": [0, 0, 1],
  "limbs": [[0, 1], [1, 2]],
  "mirror_pairs": [],
}


def annotation(id, label=0, *, shape=(1, 4, 17, 2), offset=0, **fields):
  points = (
    np.random.default_rng(list(id.encode())).uniform(1, 70, shape).astype(np.float32) + offset
  )
  size = {"img_shape": (72, 128)} if shape[-1] == 2 else {}
  return {"frame_dir": id, "label": label, "keypoint": points} | size | fields


def ntu(person, action, camera=1):
  return f"S001C00{camera}P00{person}R001A00{action}"


def metres(id, **options):
  return annotation(id, shape=(1, 4, 25, 3), **options) | {
    "keypoint": np.random.default_rng(len(id)).normal((0, 0, 3), 0.3, (1, 4, 25, 3))
  }


class Folder:
  """A folder of raw files, and the command on it."""

  def __init__(self, path, prepare, capsys):
    self.path, self._prepare, self._capsys = path, prepare, capsys
    (path / "raw").mkdir()

  def save(self, content, name="toy.pkl"):
    (self.path / "raw" / name).write_bytes(
      content if isinstance(content, bytes) else pickle.dumps(content)
    )

  def prepare(self, *argv, raw="toy.pkl"):
    folders = [f"--manual_dir={self.path / 'raw' / raw}", f"--data_dir={self.path / 'data'}"]
    return self._prepare.main(["pyskl_pickle", *folders, *argv])

  def made(self, *argv, name="toy", **options):
    assert self.prepare(*argv, **options) == 0, self._capsys.readouterr().err
    return source.Source(self.path / "data" / name)

  def track(self, name="toy"):
    return source.Source(self.path / "data" / name).track("pose")

  def refuses(self, code, message, *argv, **options):
    before = self._files()
    assert self.prepare(*argv, **options) == code
    error = self._capsys.readouterr().err
    assert error.startswith("jaxmg: error: ")
    assert error.count("\n") == 1
    assert message in error
    assert self._files() == before

  def _files(self):
    return {
      path: path.read_bytes() if path.is_file() else None
      for path in self.path.rglob("*")
      if path.name != "data"
    }


@pytest.fixture
def folder(tmp_path, prepare, capsys):
  return Folder(tmp_path, prepare, capsys)


TWO = {
  "split": {"train": ["a"], "val": ["b"]},
  "annotations": [annotation("a"), annotation("b", 1)],
}


def two(**fields):
  """The file of two clips, with other fields in the one that trains."""
  return TWO | {"annotations": [annotation("a") | fields, TWO["annotations"][1]]}


def test_a_pickle_becomes_a_prepared_directory(folder):
  folder.save(
    {
      "split": {"xsub_train": [ntu(1, 1), ntu(1, 2)], "xsub_val": [ntu(2, 1)]},
      "annotations": [
        annotation(ntu(1, 1), 0, keypoint_score=np.full((1, 4, 17), 0.5, np.float16)),
        annotation(ntu(1, 2), 2, shape=(2, 6, 17, 2), keypoint_score=np.ones((2, 6, 17))),
        annotation(ntu(2, 1), 0, img_shape=(36, 64), keypoint_score=np.ones((1, 4, 17))),
        annotation(ntu(3, 1), keypoint_score=np.ones((1, 4, 17))),
      ],
    }
  )
  data = folder.made()
  assert data.ids == (ntu(1, 1), ntu(1, 2), ntu(2, 1), ntu(3, 1))
  assert data.labels.tolist() == [0, 2, 0, 0]
  assert data.subjects.tolist() == ["P001", "P001", "P002", "P003"]
  assert data.track("pose").num_frames.tolist() == [4, 6, 4, 4]
  assert data.class_names == ("class 0", "class 1", "class 2")
  pose = data.track("pose").kind
  assert (str(pose), pose.num_persons, pose.frame_size) == ("coco17", 2, (72, 128))
  assert data.track("pose")[2]["frame_size"].tolist() == [36, 64]
  assert data.track("pose")[0]["keypoints"].shape == (4, 2, 17, 3)
  assert (data.track("pose")[0]["keypoints"][:, 0, :, 2] == 0.5).all()
  assert data.rows("train", protocol="xsub_val").tolist() == [0, 1]
  assert data.rows("test").tolist() == [2]
  assert [note.partition(":")[0] for note in folder.track().notes] == [
    "classes are numbered",
    "1 clips are in no split",
    "clips read as 17 joints (coco17 assumed), pixels; the first is S001C001P001R001A001",
  ]


def test_what_was_guessed_and_left_out_is_noted(folder):
  points = annotation("a")["keypoint"].astype(np.float16)
  points[0, :2, 5] = np.nan
  folder.save(two(keypoint=points))
  data = folder.made()
  assert data.subjects.tolist() == ["a", "b"]
  assert not data.track("pose")[0]["keypoints"][:2, 0, 5].any()
  assert [note.partition(",")[0].partition(":")[0] for note in folder.track().notes] == [
    "classes are numbered",
    "1 clips are float16",
    "2 clips have no scores",
    "the subjects of 2 clips are not known",
    "clips read as 17 joints (coco17 assumed)",
    "2 joints are NaN",
  ]


def test_a_file_of_class_names_names_them(folder):
  folder.save(TWO)
  raw = folder.path / "raw"
  (raw / "classes.txt").write_text("nod \nshrug\n\n")
  assert folder.made().class_names == ("nod", "shrug")
  (raw / "classes.txt").write_text("\n".join(f"of another {k}" for k in range(60)))
  message = (
    "classes.txt: expected 2 names, as the labels are 0 to 1, got 60 (of this file? toy.clas"
  )
  folder.refuses(3, message, "--name=b")
  (raw / "toy.classes.txt").write_text("\ufeffnod\nshrug\nwave")  # a class may have no clip
  assert folder.made("--name=b", name="b").class_names == ("nod", "shrug", "wave")


def test_names_in_a_folder_are_of_its_files(folder):
  folder.save([annotation("a")], "x_train.pkl")
  folder.save([annotation("b")], "x_test.pkl")
  (folder.path / "raw" / "classes.txt").write_text("nod\nshrug\n")
  assert folder.made(raw=".", name="raw").class_names == ("nod", "shrug")


def test_labels_that_begin_at_1_are_asked_about(folder):
  clips = [annotation("a", 1), annotation("b", 2), annotation("c", 3)]
  folder.save({"split": {"train": ["a"], "test": ["b", "c"]}, "annotations": clips})
  names = folder.path / "raw" / "toy.classes.txt"
  names.write_text("nod\nshrug\nwave")
  message = (
    "expected 4 names or more, as the labels are 0 to 3, got 3 (do the labels begin at 1? they "
  )
  folder.refuses(3, message + "are 1 to 3)")
  names.unlink()
  folder.made()
  note = "do the labels begin at 1? they are 1 to 3; class 0 has no clip"
  assert folder.track().notes[0] == note


@pytest.mark.parametrize("missing", ["label", None])
@pytest.mark.parametrize("content", ["list", "split"])
def test_clips_to_be_tested_alone_need_neither_labels_nor_names(folder, content, missing, capsys):
  clips = [annotation("a", -1), annotation("b", -1)]
  for clip in clips:
    clip.pop(missing, None)
  if content == "split":
    clips = {"split": {"later": ["b"]}, "annotations": clips}
  folder.save(clips)
  data = folder.made()
  assert (data.class_names, data.labels.tolist()) == ((), [-1, -1])
  assert folder.track().notes[0].startswith("no labels, and no classes: no names in ")
  name, rows = ("toy", [0, 1]) if content == "list" else ("later", [1])
  assert data.rows("test").tolist() == rows
  assert data.rows("train").tolist() == []
  assert f"{name}: 0 to train, {len(rows)} to test" in capsys.readouterr().out


def test_a_split_called_test_is_tested_alone_where_none_is_called_train(folder):
  folder.save({"split": {"test1": ["a"], "all": ["b"]}, "annotations": TWO["annotations"]})
  data = folder.made()
  assert list(data.protocols) == ["test1"]
  assert [data.rows(side).tolist() for side in ("train", "test")] == [[], [0]]
  assert data.class_names == ("class 0", "class 1")


def test_a_folder_of_two_lists_is_named_by_itself_or_as_one_likes(folder):
  folder.save([annotation("a")], "x_train.pkl")
  folder.save([annotation("b")], "x_test.pkl")
  assert list(folder.made(raw=".", name="raw").protocols) == ["x_test"]
  assert folder.made("--name=desk_2", raw=".", name="desk_2").name == "desk_2"


def test_names_of_files_become_names_of_sets(folder):
  folder.save(TWO, "NTU60-hrnet.pkl")
  assert folder.made(raw="NTU60-hrnet.pkl", name="ntu60_hrnet").name == "ntu60_hrnet"


def test_another_file_of_a_name_that_is_taken_is_refused(folder):
  folder.save(TWO)
  folder.made()
  folder.made()  # the same again
  folder.save(two(img_shape=(100, 100), more="text"))
  folder.refuses(2, "remove it, or take another --name")
  folder.made("--name=other", name="other")


def test_metres_are_prepared_with_their_view(folder):
  folder.save(
    TWO | {"annotations": [metres("a"), metres("bb")], "split": {"train": ["a"], "test": ["bb"]}}
  )
  data = folder.made()
  pose = data.track("pose").kind
  assert (str(pose), pose.frame_size) == ("kinect25", (240, 320))
  record = tfds.builder_from_directory(data.directory / "pose").as_data_source("all")[0]
  assert record["joints3d"].shape == record["keypoints"].shape == (4, 1, 25, 3)
  assert record["keypoints"].any(-1).all()
  assert folder.track().kind.joints3d is True


def test_metres_around_the_person_have_no_view_and_copies_are_still_found(folder):
  def centred(id, seed):
    points = np.random.default_rng(seed).normal(0, 0.3, (1, 4, 25, 3))
    return metres(id) | {"keypoint": points}

  split = {"train": ["a"], "test": ["b"]}
  folder.save({"split": split, "annotations": [centred("a", 1), centred("b", 2)]})
  data = folder.made()
  assert not data.track("pose")[0]["keypoints"].any()
  notes = folder.track().notes
  assert any("do not lie before a camera" in note for note in notes)
  assert not any("shows nobody" in note for note in notes)
  folder.save({"split": split, "annotations": [centred("a", 1), centred("b", 1)]})
  folder.refuses(3, "no copies between train and test, got 1: 'b'", "--name=copies")


def test_a_layout_of_ones_own_travels_with_the_set(folder):
  shape = (1, 4, 3, 2)
  split = {"train": ["a"], "val": ["b"]}
  folder.save({"split": split, "annotations": [annotation(id, shape=shape) for id in "ab"]})
  folder.refuses(3, "toy.pkl: points: expected 17 (coco17), ")
  layout = folder.path / "arm3.json"
  layout.write_text(json.dumps(ARM))
  data = folder.made(f"--layout={layout}")
  assert str(data.track("pose").kind) == "arm3"
  assert folder.track().kind.layout == topology.from_json(ARM)
  assert folder.prepare(f"--layout={layout}") == 0
  folder.refuses(2, "expected coco17, got arm3 (remove it", "--layout=coco17")


def test_a_layout_may_be_named(folder):
  shape = (1, 4, 25, 2)
  folder.save(TWO | {"annotations": [annotation(id, shape=shape) for id in "ab"]})
  assert str(folder.made("--layout=kinect25").track("pose").kind) == "kinect25"


def test_protocols_across_cameras_share_their_subjects_and_no_other_does(folder):
  ids = [ntu(person, 1, camera) for person in (1, 2) for camera in (1, 2)]
  split = {"xview_train": ids[::2], "xview_val": ids[1::2]}
  clips = [annotation(id) for id in ids]
  folder.save({"split": split, "annotations": clips})
  data = folder.made()
  assert data.rows("test").tolist() == [1, 3]
  split = {"xsub_train": ids[::2], "xsub_val": ids[1::2]}
  folder.save({"split": split, "annotations": clips})
  folder.refuses(3, "no subject in both train and test, got 2: 'P001', 'P002'", "--name=leak")


def test_one_list_alone_says_what_is_to_be_done(folder):
  folder.save([annotation("a"), annotation("b")])
  folder.refuses(3, 'got \'toy\' (write {"split": {"train": [id, ...], "test": [id, ...]}, ')
  folder.refuses(3, "or a folder of two files, NAME_train.pkl and NAME_test.pkl", raw=".")


def rows(table):
  """One test per row, called by the row's number."""
  return pytest.mark.parametrize("row", [pytest.param(row[1:], id=row[0]) for row in table])


def points(*shape, value=5.0, dtype=np.float32):
  return np.full(shape, value, dtype)


@rows(
  [
    ("B16", [], "at least one annotation"),
    (
      "B17",
      TWO | {"split": {"train": ["a"], "val": ["b", "a"]}},
      "'val': expected no clip in both",
    ),
    (
      "B19",
      TWO | {"annotations": [annotation("a"), annotation("a") | {"frame_dir": "b"}]},
      "no copies between train and test, got 1: 'b'",
    ),
    (
      "B20",
      TWO | {"split": {"train": ["a", "c", "d"], "val": ["b"]}},
      "toy.pkl: split 'train': expected ids of annotations, got 2: 'c', 'd'",
    ),
    ("B20", TWO | {"split": {"xsub_train": ["a"], "val": ["b"]}}, "got 'xsub_train', 'val' (write"),
    ("B21", TWO | {"split": {"train": ["a", "a"], "val": ["b"]}}, "each id once, got 1: 'a'"),
    ("B21", TWO | {"annotations": [annotation("a")] * 2 + [annotation("b")]}, "an id of its own"),
    (
      "B22",
      two(label=3.0),
      "annotation 1 'a': label: expected an integer from 0, or -1, got 3.0",
    ),
    ("B22", two(label=True), "got True"),
    ("B22", two(label="0"), "got str"),
    ("B22", two(label=-2), "got -2"),
    ("B22", two(label=[0, 1]), "got list"),
    ("B22", two(label=-1), "label of train clip 'a': expected 0 to 1, got -1"),
    ("B22", two(label=10**9), "labels: expected at most 9999, or "),
    ("B22", two(label=10**5000), "label: expected an integer from 0, or -1, got int"),
    ("B23", two(frame_dir="../a"), "ids of annotations, got 1: 'a'"),
    ("B40", {"split": {}}, "toy.pkl: expected a list, or a dict with a list `annotations`"),
    ("B40", {"data": 3}, "or `annos`, got the keys 'data'"),
    ("B40", 5, "got 5"),
    ("B40", TWO | {"annotations": {}}, "got the keys 'split', 'annotations'"),
    ("B40", TWO | {"annotations": [3]}, "annotation 1: expected a dict, got 3"),
    (
      "B40",
      TWO | {"annotations": [{"label": 3}]},
      "frame_dir: expected an id, which is text, got the",
    ),
    ("B40", TWO | {"split": [1]}, "split: expected a dict of names, got list"),
    ("B40", TWO | {"split": {3: ["a"]}}, "split: expected names of printable text, got 3"),
    (
      "B40",
      TWO | {"split": {"train\n": ["a"]}},
      "split: expected names of printable text, got str",
    ),
    (
      "B40",
      TWO | {"split": {"train": "a"}},
      "split 'train': expected a list of ids, got str",
    ),
    (
      "B40",
      TWO | {"split": {"train": [1]}},
      "split 'train': expected ids, which are text, got others",
    ),
    ("B41", two(keypoint=None), "expected numbers [M, T, V, 2 or 3], got the keys 'frame_dir'"),
    ("B41", two(keypoint=[[1]]), "expected numbers [M, T, V, 2 or 3], got a list"),
    ("B41", two(keypoint=points(4, 17, 2)), "2 or 3], got [4, 17, 2]"),
    ("B41", two(keypoint=points(1, 4, 17, 4)), "got [1, 4, 17, 4]"),
    ("B41", two(keypoint=np.array([[[["x", "y"]]]])), "expected numbers [M, T, V, 2 or 3]"),
    (
      "B41",
      two(keypoint=points(1, 4, 18, 2)),
      "[M, T, 18, 2] as in the first one, got [1, 4, 17, 2]",
    ),
    ("B41", two(total_frames=5), "'a': total_frames: expected 4, got 5"),
    ("B41", two(keypoint_score=points(1, 4)), "keypoint_score: expected [1, 4, 17], got [1, 4]"),
    ("B42", two(keypoint=points(0, 4, 17, 2)), "got [0, 4, 17, 2]"),
    ("B42", two(keypoint=points(1, 0, 17, 2)), "got [1, 0, 17, 2]"),
    ("B42", two(keypoint=points(1, 4, 0, 2)), "got [1, 4, 0, 2]"),
    (
      "B44",
      two(keypoint=points(1, 4, 17, 2, value=np.inf)),
      "annotation 1 'a': keypoints: frame 0, person 0, joint 0, axis 0: expected a finite number",
    ),
    ("B45", two(keypoint_score=points(1, 4, 17, value=-3)), "a score in [0, 1], got -3 (logits?"),
    (
      "B45",
      two(keypoint_score=points(1, 4, 17, value=90)),
      "got 90 (logits? give their sigmoid; per",
    ),
    ("B46", two(keypoint=points(1, 4, 17, 2, value=1e12)), "at most 1e9 pixels, got 1e+12"),
    (
      "B46",
      two(img_shape=(0, 0)),
      "img_shape: expected height and width, whole numbers above 0, got (0, 0)",
    ),
    ("B46", two(img_shape=(72,)), "img_shape: expected (height, width), got tuple"),
    (
      "B46",
      two(img_shape=None),
      "img_shape: expected (height, width), got none (or for all clips --frame_size",
    ),
    ("B46", two(img_shape=(72.5, 128)), "img_shape: expected (height, width)"),
    ("B47", two(keypoint=points(1, 4, 17, 2, value=np.inf, dtype=np.float16)), "got inf"),
    ("B47", two(keypoint=points(1, 4, 17, 2, value=1e300, dtype=np.float64)), "expected a finite"),
    ("B48", two(total_frames=10**9), "total_frames: expected 4, got 1000000000"),
    ("B48", two(total_frames=np.zeros(3)), "total_frames: expected 4, got ndarray"),
    ("B54", two(keypoint=points(1, 4, 17, 2, value=0.5)), "expected pixels, got a body of 0 (norm"),
  ]
)
def test_a_pickle_that_cannot_be_prepared(folder, row):
  content, message = row
  folder.save(content)
  folder.refuses(3, message)


@rows(
  [
    (
      "B41",
      points(1, 4, 25, 3, value=640),
      "metres up to 100, got 640 (millimetres? divide them by 1000; x, y, score?",
    ),
    ("B44", points(1, 4, 25, 3, value=np.inf), "axis 0: expected a finite number, got inf"),
  ]
)
def test_metres_that_are_none(folder, row):
  keypoint, message = row
  folder.save(
    TWO | {"annotations": [metres("a", keypoint=0) | {"keypoint": keypoint}, metres("b")]}
  )
  folder.refuses(3, message)


@rows(
  [
    ("B01", ["--name=Ntu 60"], 2, "--name: expected a letter, then a-z, 0-9 or _, got 'Ntu 60'"),
    ("B01", ["--name=../x"], 2, "--name: expected"),
    ("B01", ["--layout=coco71"], 2, "did you mean coco17?"),
    ("B01", ["--layout=none.json"], 3, "none.json: expected a layout's JSON file, got nothing"),
    ("B41", ["--layout=openpose18"], 3, "'a': keypoints: expected [T, M, 18, 2 or 3]"),
    ("B16", ["--manual_dir=none.pkl"], 3, "none.pkl: expected the folder of the raw files"),
    ("B16", ["--manual_dir=empty"], 3, "empty: expected annotations: .pkl files, or NAME_data.npy"),
    ("B16", ["--manual_dir=text.txt"], 3, "text.txt: expected a .pkl file, or a folder, got .txt"),
    ("B16", ["--manual_dir=text.txt", "--name=a"], 3, "text.txt: expected a .pkl file"),
    ("B38", ["--manual_dir=page.pkl"], 3, "page.pkl: "),
    ("B38", ["--manual_dir=lfs.pkl"], 3, "lfs.pkl: "),
    ("B37", ["--manual_dir=nothing.pkl"], 3, "nothing.pkl: "),
    ("B57", ["--manual_dir=arrays"], 3, "train_data.npy: expected a whole npy file"),
    (
      "B16",
      ["--manual_dir=alone"],
      3,
      "train_label.pkl: expected the ids and labels of train_data",
    ),
    ("B41", ["--manual_dir=labels"], 3, "train_label.pkl: expected two lists of 2: ids, labels"),
    (
      "B41",
      ["--manual_dir=flat"],
      3,
      "train_data.npy: shape: expected [N, 3, T, V, M], got [2, 3]",
    ),
    ("B46", ["--manual_dir=pixels"], 3, "row 1 'a': img_shape: expected (height, width)"),
  ]
)
def test_a_wrong_command_line(folder, row, monkeypatch):
  argv, code, message = row
  raw = folder.path / "raw"
  monkeypatch.chdir(raw)
  for name in ("empty", "arrays", "alone", "labels", "flat", "pixels"):
    (raw / name).mkdir()
  folder.save(TWO)
  folder.save(b"<!DOCTYPE html><html>", "page.pkl")
  folder.save(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "lfs.pkl")
  folder.save(b"", "nothing.pkl")
  folder.save(b"text", "text.txt")
  for name in ("arrays", "alone", "labels", "flat", "pixels"):
    shape = (2, 3) if name == "flat" else (2, 3, 4, 17, 1)
    np.save(raw / name / "train_data.npy", np.full(shape, 0.5))
  array = np.full((2, 3, 4, 17, 1), 0.5)
  array[:, :2] = 20 + 5 * np.arange(17)[:, None]
  np.save(raw / "pixels" / "train_data.npy", array)
  folder.save(b"\x93NUMPY", "arrays/train_data.npy")
  for name in ("arrays", "flat", "pixels"):
    folder.save((["a", "b"], [0, 0]), f"{name}/train_label.pkl")
  folder.save((["a", "b"], [0]), "labels/train_label.pkl")
  folder.refuses(code, message, *argv)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("nod\n", "classes.txt: expected 2 names, as the labels are 0 to 1, got 1 (of this file? toy."),
    ("nod\nnod\n", "classes.txt: expected names of classes, each once"),
    ("nod\n\x1b[2J\n", "classes.txt: expected names of classes, each once"),
  ],
)
def test_wrong_names_of_classes(folder, text, message):
  folder.save(TWO)
  (folder.path / "raw" / "classes.txt").write_text(text)
  folder.refuses(3, message)


def test_names_of_any_script_work(folder):
  ids = ["клип 手", "🙂 $(x)"]
  split = {"train": ids[:1], "test": ids[1:]}
  folder.save({"split": split, "annotations": [annotation(id) for id in ids]}, "клип.pkl")
  data = folder.made("--name=x", raw="клип.pkl", name="x")
  assert data.ids == tuple(ids)
  folder.refuses(2, "--name: expected a letter", raw="клип.pkl")
