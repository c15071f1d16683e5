import json
import pathlib
import re
import shutil
import sys

import numpy as np
import pytest

from jaxmg.data import records, source, tracks
from jaxmg.errors import DataError
from jaxmg.skeletons import topology

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def test_index_is_read_without_decoding(toy, monkeypatch):
  monkeypatch.setattr(records.Track, "__getitem__", None)
  data = source.Source(toy)
  pose = data.track("pose")
  assert len(data) == 23
  assert (data.name, data.version, str(pose.kind)) == ("toy", "1.0.0", "openpose25")
  assert data.class_names == ("nod", "shrug", "wave")
  assert (data.mirror, data.synthetic, pose.kind.num_persons) == (False, False, 2)
  assert (pose.kind.frame_size, pose.kind.fps) == ((72, 128), 25)
  assert data.ids[3] == "clip 3 手"
  assert data.recordings[3] == "clip 3 手"
  np.testing.assert_equal(pose.num_frames, np.arange(1, 24, dtype=np.int32))
  np.testing.assert_equal(data.labels[:20], np.arange(20, dtype=np.int32) % 3)
  assert "".join(data.subjects) == "aaaaaaaaaaabbbbbbcccddd"


def test_an_index_from_before_groups_is_read(edited_toy):
  def edit(index):
    del index["class_short_names"], index["class_groups"]

  data = source.Source(edited_toy(edit))
  assert data.class_short_names == data.class_names == ("nod", "shrug", "wave")
  assert data.class_groups is None


@pytest.mark.parametrize("name", ["class_short_names", "class_groups"])
@pytest.mark.parametrize(
  ("values", "message"),
  [
    (["head", "hand"], "expected 3 texts, got 2"),
    (["head", "hand", 3], r"expected a list of texts, got \['head', 'hand', 3\]"),
    ("abc", "expected a list of texts, got 'abc'"),
    (False, "expected a list of texts, got False"),
  ],
)
def test_short_names_and_groups_are_one_text_per_class(edited_toy, name, values, message):
  with pytest.raises(DataError, match=message):
    source.Source(edited_toy(lambda index: index.update({name: values})))


def test_row_of_the_index_is_the_record(toy):
  data = source.Source(toy).track("pose")
  for row in (22, 0, 5):
    record = data[row]
    assert record["layout"].name == "openpose25"
    assert record["frame_size"].tolist() == [72 + row, 128]
    assert record["keypoints"].shape == (data.num_frames[row], 2, 25, 3)
    assert record["keypoints"].dtype == np.float32


def test_a_class_that_the_features_name_is_not_imported(toy, tmp_path, monkeypatch):
  folder = shutil.copytree(toy, tmp_path / "1.0.0")
  data = source.Source(folder)
  (tmp_path / "hostile_feature.py").write_text("raise SystemExit('it was run')")
  monkeypatch.syspath_prepend(tmp_path)
  path = folder / "pose" / "features.json"
  text = path.read_text()
  ours = "tensorflow_datasets.core.features.text_feature.Text"
  assert ours in text
  path.write_text(text.replace(ours, "hostile_feature.Text"))
  with pytest.raises(DataError, match=r"features\.json: expected the features of Pose"):
    data.track("pose")
  assert "hostile_feature" not in sys.modules


def test_newest_version_with_an_index_is_taken(toy, tmp_path):
  (tmp_path / "1.9.0").symlink_to(toy)
  (tmp_path / "1.10.0").symlink_to(toy)
  (tmp_path / "2.0.0").mkdir()
  (tmp_path / "9.0.0.incomplete").symlink_to(toy)
  assert source.Source(tmp_path).directory == tmp_path / "1.10.0"
  assert source.Source(str(tmp_path / "1.9.0")).directory == tmp_path / "1.9.0"


def test_rows_of_the_default_protocol(toy):
  data = source.Source(toy)
  np.testing.assert_array_equal(data.rows("train"), np.arange(20))
  np.testing.assert_array_equal(data.rows("test", protocol="xsub"), np.arange(20, 23))
  assert data.rows("train").dtype == np.int64
  assert len(data.rows("train", protocol="solo")) == 0


def test_folds_part_the_training_subjects(toy):
  data = source.Source(toy)
  held_out = []
  for i in range(2):
    train, val = (data.rows(split, fold=(i, 2)) for split in ("train", "val"))
    np.testing.assert_array_equal(np.sort(np.append(train, val)), data.rows("train"))
    assert not set(data.subjects[train]) & set(data.subjects[val])
    held_out.append(sorted(set(data.subjects[val])))
  assert held_out == [["a", "c"], ["b"]]
  np.testing.assert_array_equal(data.rows("test", fold=(0, 2)), data.rows("test"))


def test_as_many_folds_as_subjects_leave_one_out(toy):
  data = source.Source(toy)
  groups = [set(data.subjects[data.rows("val", fold=(i, 3))].tolist()) for i in range(3)]
  assert groups == [{"a"}, {"b"}, {"c"}]


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    (dict(split="trian"), "split: expected 'train' or 'test', got 'trian'"),
    (dict(split="val"), "got 'val' (a fold makes 'val' of training subjects)"),
    (dict(split="train", protocol="miga"), "protocol: expected 'xsub' or 'solo', got 'miga'"),
    (dict(split="val", fold=(3, 3)), "n from 2 to 3 training subjects, got 3/3"),
    (dict(split="val", fold=(0, 4)), "n from 2 to 3 training subjects, got 0/4"),
    (dict(split="val", fold=(0, 2), protocol="solo"), "from 2 to 0 training subjects"),
  ],
)
def test_unknown_rows_are_refused_with_what_exists(toy, arguments, message):
  with pytest.raises(DataError, match=re.escape(message)):
    source.Source(toy).rows(**arguments)


def _relabel(index):
  index["clips"]["label"][4] = 0


def _change_content(track):
  track["digests"][4] = "0" * 16


def _leave_out(index):
  index["protocols"]["xsub"]["train"].pop()


def _another_default(index):
  index["protocols"] = dict(reversed(index["protocols"].items()))


def test_fingerprint_knows_clips_and_splits(toy, edited_toy):
  fingerprint = source.Source(toy).fingerprint(["pose"])
  assert re.fullmatch("[0-9a-f]{16}", fingerprint)
  assert source.Source(toy.parent).fingerprint(["pose"]) == fingerprint
  for edit in (_relabel, _leave_out, _another_default):
    assert source.Source(edited_toy(edit)).fingerprint(["pose"]) != fingerprint
  changed = source.Source(edited_toy(_change_content, "pose/track.json"))
  assert changed.fingerprint(["pose"]) != fingerprint


def test_a_record_with_other_data_than_was_written_is_refused(edited_toy):
  track = source.Source(edited_toy(_change_content, "pose/track.json")).track("pose")
  with pytest.raises(DataError, match=r"record 4: .*got 'clip 4 手' with other data \(the"):
    track[4]


def test_record_that_is_not_the_index_row_is_refused(edited_toy):
  def swap(index):
    ids = index["clips"]["id"]
    ids[0], ids[1] = ids[1], ids[0]

  with pytest.raises(DataError, match=r"record 1: expected clip 'clip 0 手' as it was"):
    source.Source(edited_toy(swap)).track("pose")[1]


def test_damaged_record_is_refused_with_its_clip(edited_toy):
  path = edited_toy(lambda index: None)
  (shard,) = path.glob("pose/*array_record*")
  content = bytearray(shard.read_bytes())
  content[100] ^= 1
  shard.write_bytes(content)
  data = source.Source(path).track("pose")
  with pytest.raises(DataError, match=r"record 0: expected clip 'clip 0 手', got .* \(the files"):
    data[0]
  with pytest.raises(IndexError):
    data[23]


@pytest.mark.parametrize("row", [-1, 23])
def test_rows_that_are_not_there_are_refused_when_the_index_is_read(edited_toy, row):
  def add(index):
    index["protocols"]["xsub"]["test"].append(row)

  with pytest.raises(DataError, match="protocol 'xsub': test rows: expected 0 to 22, got others"):
    source.Source(edited_toy(add))


def test_a_protocol_across_cameras_may_share_subjects(edited_toy):
  def move(index):  # one clip of subject a
    index["protocols"]["xsub"]["train"].remove(0)
    index["protocols"]["xsub"]["test"].append(0)

  with pytest.raises(DataError, match="no subject in both train and test, got 1: 'a'"):
    source.Source(edited_toy(move)).rows("test")

  def declare(index):
    index["shared_subjects"] = ["xsub"]

  assert 0 in source.Source(edited_toy(lambda index: (move(index), declare(index)))).rows("test")


def test_a_digest_is_of_all_arrays_their_names_and_shapes():
  one, other = np.zeros((2, 3), np.float32), np.ones(2, np.int32)
  found = {
    records.digest(record)
    for record in (
      {"a": one, "b": other},
      {"a": other, "b": one},
      {"a": one},
      {"a": one.reshape(3, 2), "b": other},
      {"a": one.view(np.int32), "b": other},
      {"a": one, "b": other + 1},
    )
  }
  assert len(found) == 6
  assert records.digest({"b": other, "a": one}) in found


@pytest.mark.parametrize(
  "value", [None, 3, 1.5, "x", [], {}, [{}], ["a"], [None] * 23, [[[]]] * 23]
)
@pytest.mark.parametrize(
  ("file", "place"),
  [
    *(("index.json", name) for name in ("mirror", "synthetic", "class_names")),
    *(("index.json", f"clips.{name}") for name in ("id", "subject", "label", "recording")),
    *(("pose/track.json", name) for name in ("kind", "digests", "notes")),
    *(("pose/track.json", f"fields.{name}") for name in ("num_persons", "frame_size", "layout")),
    *(("pose/track.json", f"clips.{name}") for name in ("row", "records", "num_frames", "content")),
  ],
)
def test_no_field_may_be_something_else(edited_toy, file, place, value):
  def edit(content):
    *outer, name = place.split(".")
    for key in outer:
      content = content[key]
    content[name] = value

  # These may be, but elsewhere.
  if (place, value) in (("fields.num_persons", 3), ("class_names", ["a"])) or (
    place == "notes" and value in ([], ["a"])
  ):
    return
  folder = edited_toy(edit, file)
  with pytest.raises(DataError):
    source.Source(folder).track("pose")


def test_a_set_of_before_there_were_tracks_is_read(tmp_path):
  folder = shutil.copytree(GOLDEN / "prepared_before_tracks", tmp_path / "before" / "1.0.0")
  data = source.Source(folder.parent)
  assert data.track_names == ("pose",)
  assert data.ids == ("clip 0", "clip 1", "clip 2", "clip 3")
  assert data.recordings.tolist() == ["video 0", "video 0", "video 1", "video 1"]
  track = data.track("pose")
  coco17 = topology.get("coco17")
  assert track.kind == tracks.Pose(coco17, (72, 128), num_persons=2, joints3d=True, fps=25)
  assert track.num_frames.tolist() == [2, 3, 4, 5]
  assert (track.contents != "").tolist() == [True, True, True, False]
  for row in range(4):
    shown = np.arange((row + 2) * 17 * 3, dtype=np.float32).reshape(row + 2, 17, 3) % 50 + 1 + row
    shown *= row < 3
    record = track[row]
    assert record["frame_size"].tolist() == [72 + row, 128]
    assert not record["keypoints"][:, 1].any()
    np.testing.assert_array_equal(record["keypoints"][:, 0, :, :2], shown[..., :2])
    np.testing.assert_array_equal(record["joints3d"][:, 0], shown / 100)

  index = json.loads((folder / "index.json").read_text())
  index["clips"]["digest"][1] = "0" * 16
  (folder / "index.json").write_text(json.dumps(index))
  with pytest.raises(DataError, match=r"record 1: .* with other data"):
    source.Source(folder).track("pose")[1]
  index["clips"]["digest"][2] = index["clips"]["digest"][0]
  (folder / "index.json").write_text(json.dumps(index))
  with pytest.raises(DataError, match="no copies between train and test, got 1: 'clip 2'"):
    source.Source(folder).track("pose")


def test_what_is_a_prepared_set_whole_or_not(toy, tmp_path):
  (tmp_path / "stopped" / "1.0.0.part").mkdir(parents=True)
  (tmp_path / "downloads").mkdir()
  (tmp_path / "downloads" / "ntu60.pkl.part").touch()
  for path in (toy, toy.parent, tmp_path / "stopped", tmp_path / "stopped" / "1.0.0.part"):
    assert source.is_prepared(path)
  for path in (
    tmp_path / "downloads",
    tmp_path / "downloads" / "ntu60.pkl.part",
    tmp_path / "none",
  ):
    assert not source.is_prepared(path)
  with pytest.raises(DataError, match="expected a prepared data set, got one that is not whole"):
    source.Source(tmp_path / "stopped")
  with pytest.raises(DataError, match="got none"):
    source.Source(tmp_path / "downloads")


def test_pairs_of_classes_that_a_mirror_exchanges_are_known_by_their_names():
  for pair in (
    ("Raise Left Hand", "raise right hand"),
    ("lefthand wave", "righthand wave"),
    ("tap_R", "tap_L"),
    ("right to left", "left to right"),
  ):
    note = source.left_and_right(["nod", pair[0], "left", pair[1]])
    assert note.endswith(f"sides tell these classes apart: {pair[0]!r} and {pair[1]!r}")
  for others in (("raise left hand", "nod"), ("rl", "lr"), ("left", "Left"), ("l", "right"), ()):
    assert source.left_and_right(others) == ""
  many = [f"{side} {k}" for k in range(4) for side in ("left", "right")]
  assert source.left_and_right(many).endswith("'left 2' and 'right 2', ...")


def test_a_missing_version_is_prepared_by_the_name_of_its_set(tmp_path):
  hint = f"jaxmg prepare desk --manual_dir=RAW --data_dir={tmp_path}, or of a pickle: "
  for path in (tmp_path / "desk", tmp_path / "desk" / "1.0.0"):
    with pytest.raises(DataError, match=re.escape(hint) + "pyskl_pickle .* --name=desk"):
      source.Source(path)
