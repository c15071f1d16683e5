"""Folders of videos, all made here, -> a prepared directory."""

import json
import unicodedata

import numpy as np
import pytest

from jaxmg.data import prepared, shards, source, tracks
from jaxmg.errors import ConfigError, DataError

UNKNOWN = "subjects are not known: each video counts as one of its own, in folds too"


@pytest.fixture
def raw(tmp_path):
  return tmp_path / "raw"


@pytest.fixture
def fill(raw, make_video):
  """Writes videos by their names, each of one frame more than the one before, from 3 on."""

  def fill(*names):
    for k, name in enumerate(names):
      make_video(raw / name, 3 + k, first=5 * k)

  return fill


def write(prepare, raw, track="video", **options):
  builder = type("Builder", (prepare.load("video_folder", track),), {"name": "raw"})
  return source.Source(prepared.write(builder, raw=raw, data_dir=raw.parent / "data", **options))


def refused(prepare, raw, track="video", **options):
  with pytest.raises((ConfigError, DataError)) as caught:
    write(prepare, raw, track, **options)
  message = str(caught.value)
  assert "\n" not in message
  return message.replace(str(raw), "RAW")


def test_names_of_files_are_classes(prepare, raw, fill, numbers_of):
  fill("walk.mp4", "run.mkv")
  (raw / "README").touch()
  data = write(prepare, raw)
  assert (data.ids, data.class_names) == (("run", "walk"), ("run", "walk"))
  assert data.labels.tolist() == [0, 1]
  assert data.subjects.tolist() == ["run", "walk"]
  assert data.rows("train").tolist() == [0, 1]
  track = data.track("video")
  assert (track.kind, track.num_frames.tolist()) == (tracks.Video((48, 64)), [4, 3])
  np.testing.assert_allclose(track[0]["times"], np.arange(4) / 25, atol=1e-3)
  assert [numbers_of(track[row]) for row in (0, 1)] == [[5, 6, 7, 8], [0, 1, 2]]
  assert track.notes == (
    "classes are names of files: 2 of 2 videos",
    "no labels.csv: all videos are to train",
    UNKNOWN,
    "not videos, and left out: README",
  )


def test_sub_folders_are_classes(prepare, raw, fill):
  fill("10/a.mp4", "10/b.mp4", "9/a.MP4", ".trash/x.mp4")
  data = write(prepare, raw)
  assert data.ids == ("10__a", "10__b", "9__a")
  assert data.class_names == ("9", "10")  # by their numbers
  assert data.labels.tolist() == [1, 1, 0]
  notes = data.track("video").notes
  assert "classes are sub-folders: 2 of 3 videos" in notes
  assert "not videos, and left out: .trash/x.mp4" in notes


def test_a_table_says_classes_subjects_and_splits(prepare, raw, fill):
  name = unicodedata.normalize("NFD", "caf\xe9.mp4")
  fill(name, "deep/er/b.mp4", "c.mp4", "d.mp4")
  table = "file,class,subject,split\nc.mp4,nod,ann,train\n\ndeep/er/b.mp4,shake,bob,test\n"
  (raw / "labels.csv").write_text(f"\ufeff{table}caf\xe9.mp4, nod ,ann,train\n", encoding="utf-8")
  data = write(prepare, raw)
  assert data.ids == ("c", "deep__er__b", "caf\xe9")
  assert data.class_names == ("nod", "shake")
  assert data.subjects.tolist() == ["ann", "bob", "ann"]
  assert (data.rows("train").tolist(), data.rows("test").tolist()) == ([0, 2], [1])
  assert data.track("video").notes == (
    "classes as in labels.csv: 2 of 3 videos",
    "not in labels.csv, and left out: d.mp4",
  )


def test_without_a_column_of_splits_all_are_to_train(prepare, raw, fill):
  fill("a.mp4", "b.mp4")
  (raw / "labels.csv").write_text("file,class\na.mp4,x\nb.mp4,x\n")
  data = write(prepare, raw)
  assert data.rows("train").tolist() == [0, 1]
  expected = ("no column split: all videos are to train", UNKNOWN)
  assert data.track("video").notes[1:] == expected


@pytest.mark.parametrize(
  ("table", "message"),
  [
    ("", "RAW/labels.csv:1: expected the header file,class or file,class,subject,split, got not"),
    ("a.mp4,x\n", "RAW/labels.csv:1: expected the header file,class or"),
    ("file,class,subjects\n", "got file,class,subjects"),
    ("file,class,class\n", "got file,class,class"),
    ("file,class\n", "RAW/labels.csv: expected a line for each video, got none"),
    ("file,class\na.mp4,x\n\nc.mp4,x\n", "labels.csv:4: file: expected a video below the folder, "),
    ("file,class\na.txt,x\n", "csv:2: file: expected a video below the folder, got 'a.txt'"),
    ("file,class\n../raw/a.mp4,x\n", "csv:2: file: expected a video below the folder"),
    ("file,class\na.mp4,x\na.mp4,y\n", "csv:3: file: expected each once, as it is in line 2, got"),
    ("file,class\na.mp4,\n", "csv:2: class: expected a name, got ''"),
    ("file,class\na.mp4,x,y\n", "csv:2: expected 2 columns, got 3"),
    ("file,class,split\na.mp4,x,val\n", "csv:2: split: expected train or test, got 'val'"),
    ("file,class,subject\na.mp4,x,\n", "csv:2: subject: expected a name, got ''"),
    ("file,class,subject\na.mp4,x,../x\n", "subject: expected 1 to 200 printable bytes"),
    ("file,class,subject,split\na.mp4,x,s,train\nb.mp4,x,s,test\n", "no subject in both"),
    (b"file,class\n\xff,x\n", "labels.csv: 'utf-8' codec"),
  ],
)
def test_a_faulty_table_is_refused(prepare, raw, fill, table, message):
  fill("a.mp4", "b.mp4")
  (raw / "a.txt").touch()
  (raw / "labels.csv").write_bytes(table if isinstance(table, bytes) else table.encode())
  assert message in refused(prepare, raw)


@pytest.mark.parametrize(
  ("names", "message"),
  [
    (
      ["a.mp4", "x/b.mp4"],
      "RAW: expected videos in the folder, or in one folder a class, got both",
    ),
    (["x/y/b.mp4"], "RAW: expected CLASS/VIDEO, got x/y/b.mp4 (write a labels.csv"),
    (["x/b.mp4", "y/b.txt"], "RAW/y: expected videos of this class, got none"),
    (["x/b.mp4", "x/b.mkv"], "RAW/x/b.mp4: expected a name of its own, got x/b.mkv as well"),
    (["a.txt"], "RAW: expected videos (.mp4, .mkv,"),
  ],
)
def test_a_folder_that_can_be_read_in_two_ways_is_refused(prepare, raw, names, message):
  for name in names:
    (raw / name).parent.mkdir(parents=True, exist_ok=True)
    (raw / name).touch()
  assert message in refused(prepare, raw)


def test_a_damaged_video_is_named(prepare, raw, fill):
  fill("a.mp4", "b.mp4")
  (raw / "b.mp4").write_bytes((raw / "b.mp4").read_bytes()[:200])
  assert refused(prepare, raw).startswith("RAW/b.mp4: expected a video")


def test_what_is_said_of_points_is_refused_for_videos(prepare, raw, fill, capsys):
  fill("a.mp4")
  assert "layout: expected video of 48 x 64, in colours" in refused(prepare, raw, layout="coco17")
  flags = ["video_folder", f"--manual_dir={raw}", f"--data_dir={raw.parent}", "--frame_size=9x9"]
  assert prepare.main(flags) == 2
  assert "--frame_size: expected none, got video of 48 x 64" in capsys.readouterr().err


def test_the_size_that_most_videos_have_is_the_tracks(prepare, raw, make_video):
  for k, size in enumerate([(48, 64), (64, 48), (512, 600), (64, 48)]):
    make_video(raw / f"{k}.mp4", 2, first=k, size=size)
  track = write(prepare, raw).track("video")
  assert track.kind.frame_size == (64, 48)
  assert [track[row]["frame_size"].tolist() for row in (0, 2)] == [[48, 64], [256, 300]]


def test_a_killed_prepare_goes_on_though_a_damaged_video_was_removed(
  prepare, raw, fill, monkeypatch, capsys
):
  fill("x/a.mp4", "x/b.mp4", "x/c.mp4")
  monkeypatch.setattr(shards, "SHARD_BYTES", 1)
  read_file, calls = tracks.Video.read_file, []

  def stops(self, path, told=None):
    calls.append(path.name)
    if path.name == "b.mp4":
      raise DataError(path, expected="a video", got="damage")
    return read_file(self, path)

  monkeypatch.setattr(tracks.Video, "read_file", stops)
  refused(prepare, raw)
  (raw / "x" / "b.mp4").unlink()
  data = write(prepare, raw)
  assert calls == ["a.mp4", "b.mp4", "c.mp4"]
  assert data.ids == ("x__a", "x__c")
  assert "1 clips of 1 of 2 recordings are there" in capsys.readouterr().err


def write_points(path, num_frames, x=30):
  header = ",".join(["frame", *map(str, range(51))])
  row = [value for _ in range(17) for value in (x, 20 + _, 1)]
  lines = [header, *(",".join(map(str, [k, *row])) for k in range(num_frames))]
  path.write_text("\n".join(lines))


def test_key_points_come_with_their_videos(prepare, raw, fill):
  fill("x/a.mp4", "x/b.mp4", "y/c.mp4", "y/d.mp4")
  write_points(raw / "x" / "a.csv", 3)
  write_points(raw / "x" / "b.csv", 7, x=31)
  points = np.ones((12, 2, 17, 3), np.float32)
  points[..., :2] = np.random.default_rng(0).uniform(1, 60, (12, 2, 17, 2))
  np.save(raw / "y" / "c.npy", points)
  write(prepare, raw)
  data = write(prepare, raw, "pose", layout="coco17")
  assert "not videos, and left out" not in str(data.track("video").notes)
  track = data.track("pose")
  assert track.kind == tracks.Pose("coco17", (48, 64), num_persons=2)
  assert (track.rows.tolist(), track.num_frames.tolist()) == ([0, 1, 2], [3, 7, 12])
  assert track[0]["frame_size"].tolist() == [48, 64]
  np.testing.assert_array_equal(track[2]["keypoints"], points)
  assert "no key points beside y__d" in track.notes
  assert "clip x__b has 7 frames of key points, and 4 of its video" in track.notes


def test_key_points_that_are_not_there_or_there_twice_are_refused(prepare, raw, fill):
  fill("a.mp4")
  assert "RAW: expected key points beside the videos" in refused(prepare, raw, "pose")
  write_points(raw / "a.csv", 3)
  (raw / "a.npy").touch()
  message = "RAW/a.mp4: expected one file of key points beside it, got a.csv and a.npy"
  assert refused(prepare, raw, "pose") == message


def test_the_command_names_the_set_by_its_folder_and_says_what_was_taken(
  prepare, raw, fill, capsys
):
  fill("a.mp4")
  flags = ["video_folder", f"--manual_dir={raw}", f"--data_dir={raw.parent / 'data'}"]
  assert prepare.main(flags) == 0
  out = capsys.readouterr().out
  assert "data/raw/1.0.0 made in" in out
  assert "classes are names of files: 1 of 1 videos" in out
  index = json.loads((raw.parent / "data" / "raw" / "1.0.0" / "index.json").read_text())
  assert index["clips"]["id"] == ["a"]
