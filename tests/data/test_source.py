import re
import shutil
import sys

import numpy as np
import pytest

from jaxmg.data import source
from jaxmg.errors import DataError


def test_index_is_read_without_decoding(toy, monkeypatch):
  monkeypatch.setattr(source.Source, "__getitem__", None)
  data = source.Source(toy)
  assert len(data) == 23
  assert (data.name, data.version, data.skeleton) == ("toy", "1.0.0", "openpose25")
  assert data.class_names == ("nod", "shrug", "wave")
  assert (data.mirror, data.synthetic, data.num_persons) == (False, False, 2)
  assert (data.frame_size, data.fps) == ((72, 128), 25)
  assert data.ids[3] == "clip 3 手"
  assert data.videos[3] == "clip 3 手"
  np.testing.assert_equal(data.num_frames, np.arange(1, 24, dtype=np.int32))
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
    (["head", "hand"], "expected 3 texts, one per class, got 2"),
    (["head", "hand", 3], r"expected a list of texts, got \['head', 'hand', 3\]"),
    ("abc", "expected a list of texts, got 'abc'"),
    (False, "expected a list of texts, got False"),
  ],
)
def test_short_names_and_groups_are_one_text_per_class(edited_toy, name, values, message):
  with pytest.raises(DataError, match=message):
    source.Source(edited_toy(lambda index: index.update({name: values})))


def test_row_of_the_index_is_the_record(toy):
  data = source.Source(toy)
  for row in (22, 0, 5):
    record = data[row]
    assert record["id"] == data.ids[row]
    assert record["frame_size"].tolist() == [72 + row, 128]
    assert record["keypoints"].shape == (data.num_frames[row], 2, 25, 3)
    assert record["keypoints"].dtype == np.float32


def test_a_class_that_the_features_name_is_not_imported(toy, tmp_path, monkeypatch):
  folder = shutil.copytree(toy, tmp_path / "1.0.0")
  (tmp_path / "hostile_feature.py").write_text("raise SystemExit('it was run')")
  monkeypatch.syspath_prepend(tmp_path)
  path = folder / "features.json"
  text = path.read_text()
  ours = "tensorflow_datasets.core.features.text_feature.Text"
  assert ours in text
  path.write_text(text.replace(ours, "hostile_feature.Text"))
  with pytest.raises(DataError, match=r"features\.json: expected the features of 25 joints"):
    source.Source(folder)
  assert "hostile_feature" not in sys.modules


def test_a_changed_character_of_the_features_is_refused_or_changes_nothing(toy, tmp_path):
  folder = shutil.copytree(toy, tmp_path / "1.0.0")
  path = folder / "features.json"
  text, rng = path.read_text(), np.random.default_rng(0)
  refused = 0
  for place in rng.choice(len(text), 200, replace=False):
    path.write_text(f"{text[:place]}{chr(rng.integers(32, 127))}{text[place + 1 :]}")
    try:
      np.testing.assert_array_equal(
        source.Source(folder)[5]["keypoints"], source.Source(toy)[5]["keypoints"]
      )
    except DataError:
      refused += 1
  assert refused > 50


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


def _change_content(index):
  index["clips"]["digest"][4] = "0" * 16


def _leave_out(index):
  index["protocols"]["xsub"]["train"].pop()


def test_fingerprint_knows_clips_and_splits(toy, edited_toy):
  fingerprint = source.Source(toy).fingerprint()
  assert re.fullmatch("[0-9a-f]{16}", fingerprint)
  assert source.Source(toy.parent).fingerprint() == fingerprint
  for edit in (_relabel, _change_content, _leave_out):
    assert source.Source(edited_toy(edit)).fingerprint() != fingerprint


def test_record_with_other_key_points_than_the_index_is_refused(edited_toy):
  with pytest.raises(DataError, match=r"record 4: .*got 'clip 4 手' with other key points \(the"):
    source.Source(edited_toy(_change_content))[4]


def test_record_that_is_not_the_index_row_is_refused(edited_toy):
  def swap(index):
    ids = index["clips"]["id"]
    ids[0], ids[1] = ids[1], ids[0]

  with pytest.raises(DataError, match=r"record 1: expected clip 'clip 0 手' as in index\.json"):
    source.Source(edited_toy(swap))[1]


def test_damaged_record_is_refused_with_its_clip(edited_toy):
  path = edited_toy(lambda index: None)
  (shard,) = path.glob("*array_record*")
  content = bytearray(shard.read_bytes())
  content[100] ^= 1
  shard.write_bytes(content)
  data = source.Source(path)
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


def test_a_digest_is_of_the_key_points_or_else_of_the_3d_joints():
  nobody, somebody, other = (np.full((1, 1, 1, 3), x, np.float32) for x in (0, 1, 2))
  assert source.digest({"keypoints": nobody}) == ""
  assert source.digest({"keypoints": nobody, "joints3d": nobody}) == ""
  one = source.digest({"keypoints": somebody})
  assert source.digest({"keypoints": somebody, "joints3d": other}) == one
  assert source.digest({"keypoints": nobody, "joints3d": somebody}) == one
  assert source.digest({"keypoints": nobody, "joints3d": other}) != one


@pytest.mark.parametrize(
  "value", [None, 3, 1.5, "x", [], {}, [{}], ["a"], [None] * 23, [[[]]] * 23]
)
@pytest.mark.parametrize(
  "field",
  ["mirror", "synthetic", "num_persons", "frame_size", "class_names", "id", "subject", "digest"],
)
def test_no_field_of_the_index_may_be_something_else(edited_toy, field, value):
  def edit(index):
    (index["clips"] if field in index["clips"] else index)[field] = value

  if (field, value) in (("num_persons", 3), ("class_names", ["a"])):  # these may be, but elsewhere
    return
  folder = edited_toy(edit)
  with pytest.raises(DataError):
    source.Source(folder)


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
