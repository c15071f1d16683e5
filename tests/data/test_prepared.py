"""The writer's side of a prepared directory."""

import concurrent.futures
import dataclasses
import errno
import fcntl
import json
import os
import pathlib
import sys
import tempfile

import numpy as np
import pytest
from tensorflow_datasets.core import shuffle

from jaxmg.data import prepared, readers, recordings, shards, source, tracks
from jaxmg.errors import ConfigError, DataError, LockedError, StorageError
from jaxmg.skeletons import topology


def example(id="a", label=0, subject="ann", *, num_frames=3, num_persons=1):
  keypoints = np.full((num_frames, num_persons, 17, 3), 0.5)
  keypoints[..., 0] = 5 + len(id) + ord(id[0])  # in no two clips the same
  keypoints[..., 1] = 20 + 4 * np.arange(17)
  return prepared.Example(id, label, subject, readers.Clip(keypoints, "coco17"))


class Desk(prepared.Builder):
  track = tracks.Pose("coco17", frame_size=(720, 1280))
  class_names = ("idle", "typing")
  protocols = {"xsub": prepared.by_subject(train=("ann",))}  # noqa: RUF012
  examples = (example("b", 1), example("a", num_frames=5), example("c", -1, "bob"))

  def clips(self, recording, known):
    yield from self.examples


def write(builder, folder: pathlib.Path, **options):
  return prepared.write(builder, raw=folder, data_dir=folder / "data", **options)


def files(folder):
  return sorted(path for path in folder.rglob("*") if path.is_file())


def test_rows_are_the_clips_in_their_order(tmp_path):
  path = write(Desk, tmp_path)
  assert path == tmp_path / "data" / "desk" / "1.0.0"
  data = source.Source(path)
  assert data.ids == ("b", "a", "c")
  shapes = [data.track("pose")[row]["keypoints"].shape for row in range(3)]
  assert shapes == [(n, 1, 17, 3) for n in (3, 5, 3)]
  assert data.rows("train").tolist() == [0, 1]
  assert data.rows("test").tolist() == [2]


def test_bodies_that_are_none_in_pixels_are_refused(tmp_path):
  clip = example().clip
  small = readers.Clip(clip.keypoints / np.float32([1280, 720, 1]), "coco17")

  class Small(Desk):
    examples = (example("b", 1), prepared.Example("a", 0, "ann", small))

  with pytest.raises(
    DataError, match=r"'a': coordinates: expected pixels, got a body of 0\.\d+ \("
  ):
    write(Small, tmp_path)


def test_the_index_says_what_the_builder_declares(tmp_path):
  path = write(Desk, tmp_path)
  index, track = (
    json.loads((path / name).read_text()) for name in ("index.json", "pose/track.json")
  )
  assert index.pop("sha256") == track.pop("index")
  assert len(track.pop("sha256")) == 16
  clips = {
    "id": ["b", "a", "c"],
    "subject": ["ann", "ann", "bob"],
    "recording": ["b", "a", "c"],
    "label": [1, 0, -1],
  }
  assert index == {
    "name": "desk",
    "version": "1.0.0",
    "class_names": ["idle", "typing"],
    "class_short_names": None,
    "class_groups": None,
    "mirror": True,
    "synthetic": False,
    "clips": clips,
    "shared_subjects": [],
    "protocols": {"xsub": {"train": [0, 1], "test": [2]}},
  }
  assert len(set(track.pop("digests"))) == len(set(track["clips"].pop("content"))) == 3
  assert track == {
    "kind": "pose",
    "fields": {
      "layout": "coco17",
      "frame_size": [720, 1280],
      "num_persons": 1,
      "joints3d": False,
      "fps": None,
    },
    "made_of": None,
    "notes": [],
    "clips": {"row": [0, 1, 2], "num_frames": [3, 5, 3], "records": [1, 1, 1]},
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
  with pytest.raises(DataError, match="class_groups: expected a text for each class, got"):
    write(builder, tmp_path)
  assert not (tmp_path / "data" / "desk").exists()


def test_persons_that_a_clip_lacks_are_all_zero(tmp_path):
  class Pair(Desk):
    track = dataclasses.replace(Desk.track, num_persons=3)
    examples = (example(num_persons=2),)

  keypoints = source.Source(write(Pair, tmp_path)).track("pose")[0]["keypoints"]
  assert keypoints.any((0, 2, 3)).tolist() == [True, True, False]


def test_a_whole_directory_is_left_as_it_is(tmp_path):
  before = {path: path.stat().st_mtime_ns for path in files(write(Desk, tmp_path))}
  path = write(Desk, tmp_path)
  assert {path: path.stat().st_mtime_ns for path in files(path)} == before


@pytest.mark.parametrize(
  ("name", "message"),
  [
    ("data", "data: expected a folder, got a file"),
    ("data/desk", "desk: expected a folder, got a file"),
    ("data/desk/1.0.0", "1.0.0: expected a prepared set, or nothing, got no index.json in it"),
    ("data/desk/1.0.0.part", "1.0.0.part: expected a folder, got a link or a file"),
    ("data/desk/1.0.0/mine", "1.0.0: expected a prepared set, or nothing, got no index.json in it"),
    ("data/desk/1.0.0.part/mine", "1.0.0.part: expected parts of the set alone, got mine"),
  ],
)
def test_what_lies_in_the_way_is_left_there(tmp_path, name, message):
  path = tmp_path / name
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("mine")
  with pytest.raises(ConfigError, match=message):
    write(Desk, tmp_path)
  assert path.read_text() == "mine"


def test_a_path_that_is_no_text_is_refused(tmp_path):
  with pytest.raises(ConfigError, match="expected a path in UTF-8"):
    prepared.write(Desk, raw=tmp_path, data_dir=tmp_path / os.fsdecode(b"\xff"))


def test_only_the_data_set_is_left_in_the_data_directory(tmp_path, monkeypatch):
  (tmp_path / "temporary").mkdir()
  monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
  write(Desk, tmp_path)
  assert [path.name for path in (tmp_path / "data").iterdir()] == ["desk"]
  assert not list((tmp_path / "temporary").iterdir())


def test_clips_without_anybody_and_copies_are_noted(tmp_path):
  class Odd(Desk):
    examples = (
      prepared.Example("none", 0, "ann", readers.Clip(np.zeros((2, 1, 17, 3)), "coco17")),
      prepared.Example("nil", 0, "bob", readers.Clip(np.zeros((2, 1, 17, 3)), "coco17")),
      example("a"),
      dataclasses.replace(example("a"), id="b"),
    )

  assert source.Source(write(Odd, tmp_path)).track("pose").notes == (
    "clip none shows nobody",
    "clip nil shows nobody",
    "2 clips have the pose of another one",
  )


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


def test_a_layout_of_ones_own_is_written_with_the_track(tmp_path):
  arm = topology.Skeleton("arm", ("elbow", "wrist"), (0, 0), ((0, 1),), ())
  clip = readers.Clip(np.full((3, 1, 2, 3), 0.5), arm)

  class Arms(Desk):
    track = tracks.Pose(arm, frame_size=(720, 1280))
    examples = (prepared.Example("a", 0, "ann", clip),)

  assert source.Source(write(Arms, tmp_path)).track("pose").kind.layout == arm


@pytest.mark.parametrize(
  ("layout", "message"),
  [
    ("coco71", "did you mean coco17?"),
    (
      dataclasses.replace(topology.get("coco17"), sources=()),
      "'coco17': expected a name of its own",
    ),
    (dataclasses.replace(topology.get("coco17"), name="own"), "skeleton own: expected no sources"),
  ],
)
def test_a_layout_that_cannot_travel_is_refused(tmp_path, layout, message):
  with pytest.raises(ConfigError, match=message):
    write(type("Desk", (Desk,), {"track": tracks.Pose(layout, (720, 1280))}), tmp_path)
  assert not (tmp_path / "data" / "desk").exists()


# --- sets that are written in several shards


class Days(prepared.Builder):
  """A csv file for each day, of 2 clips; each day becomes a shard of its own (`tiny_shards`)."""

  track = tracks.Pose("coco17", frame_size=(720, 1280))
  class_names = ("idle", "typing")
  protocols = {"xsub": prepared.by_subject(train=("0", "1", "2"))}  # noqa: RUF012
  broken = None  # the day at which it fails
  noted = "before"
  days_cut: list

  def recordings(self):
    for path in sorted(self.raw.glob("*.csv")):
      self.notes.append(f"{self.noted} {path.stem}")
      yield path, path.stem
    self.notes.append("after all")

  def clips(self, recording, day):
    if day == self.broken:
      raise DataError(f"{day}.csv", expected="a day", got="the night")
    self.days_cut.append(day)
    self.notes.append(f"in {day}")
    for k in range(2):
      clip = recording.cut(2 * k, 2 * k + 1)
      yield prepared.Example(f"{day}_{k}", k, day, clip)


def days(**options):
  return type("Days", (Days,), {"days_cut": [], **options})


@pytest.fixture
def raw(tmp_path):
  folder = tmp_path / "raw"
  folder.mkdir()
  for day in range(5):
    write_day(folder, day, seed=day)
  for day in (1, 2):
    os.utime(folder / f"{day}.csv", ns=(0, 0))
  return folder


def write_day(folder, day, *, seed):
  table = np.random.default_rng(seed).uniform(1, 700, (4, 17, 3))
  table[..., 2] = 1
  np.savetxt(folder / f"{day}.csv", table.reshape(4, -1), delimiter=",", fmt="%07.3f")


@pytest.fixture
def tiny_shards(monkeypatch):
  monkeypatch.setattr(shards, "SHARD_BYTES", 1)


def prepare(builder, raw, name="data", **options):
  path = prepared.write(builder, raw=raw, data_dir=raw.parent / name, **options)
  track = source.Source(path).track("pose")
  files = (json.loads((path / name).read_text()) for name in ("index.json", "pose/track.json"))
  return *files, [track[row] for row in track.rows.tolist()]


def names_in(folder):
  return sorted(path.name for path in folder.iterdir())


def same(one, other):
  assert one[:2] == other[:2]
  assert [x["keypoints"].tobytes() for x in one[2]] == [x["keypoints"].tobytes() for x in other[2]]
  return True


def test_many_shards_hold_what_one_holds(raw, monkeypatch):
  one = prepare(days(), raw, "one")
  monkeypatch.setattr(shards, "SHARD_BYTES", 1)
  assert same(prepare(days(), raw, "many"), one)
  path = raw.parent / "many" / "days" / "1.0.0"
  assert names_in(path) == ["index.json", "pose"]
  records = [f"days-clips.array_record-{i:05d}" for i in range(5)]
  assert names_in(path / "pose") == ["dataset_info.json", *records, "features.json", "track.json"]
  assert one[1]["notes"] == [*(f"{w} {d}" for d in range(5) for w in ("before", "in")), "after all"]


def test_a_set_larger_than_the_memory_that_tfds_would_take(tmp_path, monkeypatch):
  monkeypatch.setattr(shuffle, "MAX_MEM_BUFFER_SIZE", 1 << 20)

  class Large(Desk):
    def clips(self, recording, known):
      rng = np.random.default_rng(0)
      for i in range(60):
        keypoints = rng.uniform(1, 700, (500, 1, 17, 3)).astype(np.float32)
        keypoints[..., 2] = 1
        yield prepared.Example(f"{i}", 0, f"{i}", readers.Clip(keypoints, "coco17"))

  path = write(Large, tmp_path)
  assert sum(file.stat().st_size for file in (path / "pose").iterdir()) > 2 << 20
  assert len(source.Source(path).track("pose")[29]["keypoints"]) == 500


@pytest.mark.usefixtures("tiny_shards")
def test_a_set_that_failed_goes_on_after_its_last_whole_shard(raw, capsys):
  whole = prepare(days(), raw, "whole")
  with pytest.raises(DataError, match="got the night"):
    prepare(days(broken="3"), raw)
  assert "1.0.0.part holds what is whole" in capsys.readouterr().err
  assert not (raw.parent / "data" / "days" / "1.0.0").exists()
  again = days()
  assert same(prepare(again, raw), whole)
  assert again.days_cut == ["3", "4"]
  assert "goes on where it was stopped: 6 clips of 3 of 5 recordings" in capsys.readouterr().err
  assert [path.name for path in (raw.parent / "data" / "days").iterdir()] == ["1.0.0"]


@pytest.mark.usefixtures("tiny_shards")
@pytest.mark.parametrize(
  "changed",
  [
    *("raw file", "swapped files", "record", "journal", "line", "fields", "order"),
    *("features", "code", "notebook", "names", "notes"),
  ],
)
def test_what_has_changed_since_is_made_again(raw, capsys, monkeypatch, changed):
  with pytest.raises(DataError):
    prepare(days(broken="4"), raw)
  part = raw.parent / "data" / "days" / "1.0.0.part" / "pose"
  made_again = ["1", "2", "3", "4"]
  again = days()
  if changed == "raw file":
    write_day(raw, 1, seed=10)
  elif changed == "swapped files":  # of one size and one time of change
    one, other = ((raw / name).stat() for name in ("1.csv", "2.csv"))
    assert (one.st_size, one.st_mtime_ns) == (other.st_size, other.st_mtime_ns)
    for old, new in (("1", "x"), ("2", "1"), ("x", "2")):
      (raw / f"{old}.csv").rename(raw / f"{new}.csv")
  elif changed == "record":  # a bit of the disk
    path = part / "days-clips.array_record-00001"
    content = bytearray(path.read_bytes())
    content[len(content) // 100] ^= 1
    path.write_bytes(content)
  elif changed == "line":
    path = part / "journal.jsonl"
    first, _, *more = path.read_text().splitlines()
    path.write_text("\n".join([first, "null", *more, ""]))
  elif changed == "journal":  # a kill in the middle of its second line
    first, second, *_ = (part / "journal.jsonl").read_text().splitlines()
    (part / "journal.jsonl").write_text(f"{first}\n{second[:-10]}")
  elif changed in ("fields", "order"):  # lines that are whole, and no journal of ours
    path = part / "journal.jsonl"
    first, second, third, *more = path.read_text().splitlines(keepends=True)
    second = {"fields": shards._line({}), "order": ""}[changed]
    path.write_text("".join([first, second, third, *more]))
  elif changed == "notebook":  # whose code cannot be compared
    monkeypatch.setattr(sys.modules[Days.__module__], "__file__", None)
    made_again = ["0", *made_again]
  elif changed == "code":
    monkeypatch.setattr(topology, "__file__", __file__)
    made_again = ["0", *made_again]
  else:
    options = {
      "features": {"track": dataclasses.replace(Days.track, num_persons=2)},
      "names": {"class_names": ("idle", "writing")},
      "notes": {"noted": "early on"},
    }[changed]
    again, made_again = days(**options), ["0", *made_again]
  found = prepare(again, raw)
  assert again.days_cut == made_again
  records = [f"days-clips.array_record-{i:05d}" for i in range(5)]
  names = names_in(raw.parent / "data" / "days" / "1.0.0" / "pose")
  assert names == ["dataset_info.json", *records, "features.json", "track.json"]
  assert ("shards again" in capsys.readouterr().err) == (
    changed not in ("journal", "line", "fields")
  )
  again.days_cut.clear()
  assert same(found, prepare(again, raw, "whole"))


@pytest.mark.usefixtures("tiny_shards")
def test_shards_of_raw_files_that_are_gone_are_removed(raw):
  with pytest.raises(DataError):
    prepare(days(broken="4"), raw)
  write_day(raw, 0, seed=10)
  for day in (2, 3, 4):
    (raw / f"{day}.csv").unlink()
  assert same(prepare(days(), raw), prepare(days(), raw, "whole"))
  one, other = (raw.parent / name / "days" / "1.0.0" / "pose" for name in ("data", "whole"))
  assert names_in(one) == names_in(other)


def test_several_processes_read_the_same(raw, monkeypatch):
  one = prepare(days(), raw, "one")
  monkeypatch.setattr(recordings, "BYTES_FOR_PROCESSES", 0)
  assert same(prepare(days(), raw, "two", jobs=2), one)
  (raw / "3.csv").write_text("1,2,3\n1,b,3\n")
  with pytest.raises(DataError, match=r"3\.csv: row \d+, column \d+: expected a number, got 'b'"):
    prepare(days(), raw, "three", jobs=2)
  assert not (raw.parent / "three" / "days").exists()


def test_an_error_in_a_builder_says_at_which_recording(raw):
  def outside(self, recording, day):
    yield prepared.Example("a", 0, day, recording.cut(2, 4))

  place = r"raw/0\.csv: frames: expected a first and a last one from 0 to 3, got 2 to 4"
  with pytest.raises(DataError, match=place):
    prepare(days(clips=outside), raw)

  def misspelt(self, recording, day):
    yield prepared.Example("a", {}["label"], day, recording)

  with pytest.raises(KeyError) as caught:
    prepare(days(clips=misspelt), raw)
  assert "called with" in caught.value.__notes__[0]
  assert "raw/0.csv" in caught.value.__notes__[0]

  def twice(self, recording, day):
    yield prepared.Example("a", 0, day, recording, recording=day)

  with pytest.raises(
    DataError, match="expected an id of its own, got one of recording 0 and one of"
  ):
    prepare(days(clips=twice), raw)


def test_ctrl_c_says_what_is_kept(raw, monkeypatch, capsys):
  def interrupted(self, recording, day):
    raise KeyboardInterrupt
    yield

  def in_the_constructor(self, **options):  # which reads a pickle
    raise KeyboardInterrupt

  for options in ({"clips": interrupted}, {"__init__": in_the_constructor}):
    with pytest.raises(KeyboardInterrupt):
      prepare(days(**options), raw)
    assert "days: nothing is kept" in capsys.readouterr().err
    assert not (raw.parent / "data" / "days").exists()


@pytest.mark.parametrize("name", [shards.JOURNAL, prepared.INDEX])
def test_a_full_disk_names_the_file(raw, monkeypatch, name):
  def full(descriptor):
    if pathlib.Path(f"/proc/self/fd/{descriptor}").readlink().name.endswith(name):
      raise OSError(errno.ENOSPC, "No space left on device")

  monkeypatch.setattr(os, "fsync", full)
  with pytest.raises(OSError, match="No space left") as caught:
    prepare(days(), raw)
  assert pathlib.Path(caught.value.filename).name == name


def test_a_raw_file_that_is_missing_is_named(raw):
  class Missing(Days):
    def recordings(self):
      yield self.raw / "9.csv", "9"

  with pytest.raises(DataError, match=r"9\.csv: expected a file or a folder, got nothing"):
    prepare(Missing, raw)


def test_a_recording_is_no_text(raw):
  class Text(Days):
    def recordings(self):
      yield f"{self.raw}/1.csv", "1"

  with pytest.raises(DataError, match=r"a recording: expected a pathlib\.Path, got text"):
    prepare(Text, raw)


def test_a_process_that_dies_names_the_files_it_may_have_been(raw, monkeypatch):
  def died(pool, *args):
    future = concurrent.futures.Future()
    future.set_exception(concurrent.futures.process.BrokenProcessPool())
    return future

  monkeypatch.setattr(recordings, "BYTES_FOR_PROCESSES", 0)
  monkeypatch.setattr(concurrent.futures.ProcessPoolExecutor, "submit", died)
  with pytest.raises(
    DataError, match=r"0\.csv or .*3\.csv: expected a file that can be read, got a"
  ):
    prepare(days(), raw, jobs=2)


def test_a_set_that_another_process_makes_is_left_alone(raw):
  part = raw.parent / "data" / "days" / "1.0.0.part"
  part.mkdir(parents=True)
  with open(part / "lock", "a") as lock:
    fcntl.flock(lock, fcntl.LOCK_EX)
    with pytest.raises(LockedError, match="in use by another process"):
      prepare(days(), raw)
    lock.write("pid 1 on desk")
    lock.flush()
    with pytest.raises(LockedError, match="in use by pid 1 on desk"):
      prepare(days(), raw)
  assert [path.name for path in part.iterdir()] == ["lock"]
  prepare(days(), raw)


@pytest.fixture
def unnamed(raw, monkeypatch, tiny_shards):
  """A set that was stopped when it was whole but for its name."""
  with monkeypatch.context() as patch:
    patch.setattr(pathlib.Path, "rename", lambda *args: (_ for _ in ()).throw(OSError("stopped")))
    with pytest.raises(OSError, match="stopped"):
      prepare(days(), raw)


@pytest.mark.usefixtures("unnamed")
def test_a_set_that_was_whole_but_for_its_name_gets_it(raw):
  again = days()
  assert prepare(again, raw)[0]["clips"]["id"][0] == "0_0"
  assert again.days_cut == []
  assert [path.name for path in (raw.parent / "data" / "days").iterdir()] == ["1.0.0"]


@pytest.mark.usefixtures("unnamed")
def test_a_set_that_was_whole_but_for_its_name_is_checked_against_its_files(raw):
  write_day(raw, 5, seed=5)
  assert same(prepare(days(), raw), prepare(days(), raw, "whole"))


@pytest.mark.parametrize("when", [shards.JOURNAL, "lock"])
def test_a_process_that_comes_at_the_very_end_does_no_harm(raw, monkeypatch, when):
  unlink, path = pathlib.Path.unlink, raw.parent / "data" / "days" / "1.0.0"

  def and_another(self, **options):
    if self.name == when and path in (self.parent, self.parent.parent):
      monkeypatch.setattr(pathlib.Path, "unlink", unlink)
      assert prepared.write(days(), raw=raw, data_dir=raw.parent / "data") == path
    unlink(self, **options)

  monkeypatch.setattr(pathlib.Path, "unlink", and_another)
  assert len(prepare(days(), raw)[-1]) == 10
  assert names_in(path) == ["index.json", "pose"]
  assert names_in(path / "pose") == [
    "dataset_info.json", "days-clips.array_record-00000", "features.json", "track.json",
  ]  # fmt: skip


def test_an_error_of_the_disk_names_the_shard(raw, monkeypatch):
  class Full:
    def __init__(self, path, options): ...

    def write(self, data):
      raise RuntimeError("no space left on device; RET_CHECK failure")

  monkeypatch.setattr(shards.array_record_module, "ArrayRecordWriter", Full)
  with pytest.raises(StorageError, match="array_record-00000: no space left"):
    prepare(days(), raw)


def test_what_a_builder_knows_is_compared_whole_and_in_any_order():
  long, other = np.zeros(5000), np.zeros(5000)
  other[2000] = 1
  assert prepared._canonical(long) != prepared._canonical(other)
  assert prepared._canonical(long) != prepared._canonical(long.astype(np.float32))
  names = [f"name {i}" for i in range(50)]
  assert prepared._canonical({*names}) == prepared._canonical({*reversed(names)})
  assert prepared._canonical({"a": [1, "2"]}) != prepared._canonical({"a": [1, 2]})


def test_train_subjects_are_texts_that_are_kept():
  drawn = prepared.by_subject(train=(name for name in ("ann", "bob")))
  assert [drawn({"subject": name}) for name in ("ann", "bob", "ann", "an")] == [
    *("train", "train", "train", "test")
  ]
  assert prepared.by_subject(train="ann")({"subject": "an"}) == "test"
  with pytest.raises(
    ConfigError, match="by_subject: train: expected texts, as subjects are, got 1"
  ):
    prepared.by_subject(train=(1, 2))


def test_subjects_to_train_on_that_no_clip_has_are_noted(tmp_path):
  protocols = {"xsub": prepared.by_subject(train=("ann", "Bob", "zoe"))}
  path = write(type("Desk", (Desk,), {"protocols": protocols}), tmp_path)
  assert source.Source(path).track("pose").notes == (
    "xsub: 2 of 3 subjects to train on have no clip: 'Bob', 'zoe'",
  )


def test_a_set_whose_labels_are_all_hidden_needs_no_names_of_classes(tmp_path):
  hidden = {"class_names": (), "examples": (example(label=-1, subject="bob"),)}
  data = source.Source(write(type("Desk", (Desk,), hidden), tmp_path))
  assert (data.class_names, data.labels.tolist()) == ((), [-1])
  with pytest.raises(DataError, match="label: expected a class name, or an integer from -1 to -1"):
    write(type("Other", (Desk,), {"class_names": ()}), tmp_path)


def test_a_label_after_the_last_asks_where_they_begin(tmp_path):
  one = type("Desk", (Desk,), {"examples": (example(label=2),)})
  message = r"integer from -1 to 1, got 2 \(do labels begin at 1\? the first is 0\)"
  with pytest.raises(DataError, match=message):
    write(one, tmp_path)


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"class_names": ("idle", "idle")}, "class_names: expected a tuple of different"),
    ({"class_names": "idle"}, "class_names: expected a tuple"),
    ({"class_short_names": ("idle",)}, "class_short_names: expected a text for each class"),
    ({"protocols": {"x": lambda clip: "val"}}, "protocol 'x': expected train, test or None for"),
    ({"examples": (example(subject="ann "),)}, "subject: expected no blanks around it, and NFC"),
    ({"examples": (example(subject="Jose\u0301"),)}, "subject: expected no blanks around it, and"),
  ],
)
def test_a_builder_that_declares_what_cannot_be_is_refused(tmp_path, options, message):
  with pytest.raises(DataError, match=message):
    write(type("Desk", (Desk,), options), tmp_path)


def test_a_folder_beside_the_shards_is_left(raw, tiny_shards):
  with pytest.raises(DataError):
    prepare(days(broken="4"), raw)
  mine = raw.parent / "data" / "days" / "1.0.0.part" / "pose" / "days-clips.backup"
  mine.mkdir()
  with pytest.raises(ConfigError, match="expected parts of the set alone, got pose/days-clips"):
    prepare(days(), raw)
  assert mine.exists()
