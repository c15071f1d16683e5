import zipfile

import numpy as np
import pytest

from jaxmg import errors, scores


def some_scores(ids=("S001_clip_3", "用户 07/片段", "été-🙂")):
  return scores.Scores(
    ids=ids,
    probabilities=np.float32([[0.5, 0.5], [1, 0], [0.25, 0.75]]),
    labels=np.int32([1, 0, -1]),
    class_names=("touching the nose", "鼻を触る"),
  )


def test_what_is_saved_is_loaded(tmp_path):
  saved = some_scores()
  scores.save(tmp_path / "test.npz", saved)
  loaded = scores.load(tmp_path / "test.npz")
  assert loaded.ids == saved.ids
  assert loaded.class_names == saved.class_names
  np.testing.assert_array_equal(loaded.probabilities, saved.probabilities)
  np.testing.assert_array_equal(loaded.labels, saved.labels)
  assert (loaded.probabilities.dtype, loaded.labels.dtype) == (np.float32, np.int32)


def test_saving_replaces_the_file_and_leaves_no_other(tmp_path):
  for ids in (("a", "b", "c"), ("d", "e", "f")):
    scores.save(tmp_path / "test.npz", some_scores(ids))
  assert [path.name for path in tmp_path.iterdir()] == ["test.npz"]
  assert scores.load(tmp_path / "test.npz").ids == ("d", "e", "f")


def assert_refused(path, match):
  with pytest.raises(errors.DataError, match=match) as caught:
    scores.load(path)
  message = str(caught.value)
  assert message.startswith(str(path))
  assert "\n" not in message


def test_missing_file_is_one_line(tmp_path):
  assert_refused(tmp_path / "none.npz", "expected a score file, got no such file")


@pytest.mark.parametrize("content", [b"", b"id,score\na,1\n", b"PK\x03\x04 no archive"])
def test_file_of_another_kind_is_one_line(tmp_path, content):
  path = tmp_path / "test.npz"
  path.write_bytes(content)
  assert_refused(path, "expected a score file")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.95])
def test_truncated_file_is_one_line(tmp_path, share):
  path = tmp_path / "test.npz"
  scores.save(path, some_scores())
  content = path.read_bytes()
  path.write_bytes(content[: int(share * len(content))])
  assert_refused(path, "expected a score file")


def write(path, **changes):
  """A score file like `save`'s, with arrays changed or, if None, left out."""
  arrays = vars(some_scores(("a", "b", "c"))) | changes
  np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
  return path


@pytest.mark.parametrize("name", ["ids", "probabilities", "labels", "class_names"])
def test_missing_array_is_named(tmp_path, name):
  assert_refused(write(tmp_path / "test.npz", **{name: None}), name)


def test_array_of_objects_is_refused_without_unpickling_it(tmp_path):
  ids = np.array(["a", "b", "c"], object)
  assert_refused(write(tmp_path / "test.npz", ids=ids), "allow_pickle=False")


@pytest.mark.parametrize(
  ("changes", "expected"),
  [
    ({"ids": ("a", "b")}, r"probabilities: expected \[2, 2\], got \[3, 2\]"),
    ({"class_names": ("one",)}, r"probabilities: expected \[3, 1\], got \[3, 2\]"),
    ({"labels": np.int32([0, 1])}, r"labels: expected \[3\], got \[2\]"),
  ],
)
def test_arrays_that_do_not_fit_together_are_refused(tmp_path, changes, expected):
  assert_refused(write(tmp_path / "test.npz", **changes), expected)


@pytest.mark.parametrize(
  ("name", "array"),
  [
    ("probabilities", np.zeros((3, 2), "i4")),
    ("probabilities", np.zeros((3, 2), "f4,f4")),
    ("labels", np.zeros(3)),
    ("labels", np.zeros(3, "M8[s]")),
    ("ids", np.zeros(3, "S2")),
  ],
)
def test_other_kinds_of_numbers_are_refused(tmp_path, name, array):
  path = write(tmp_path / "test.npz", **{name: array})
  assert_refused(path, f"{name}: expected what `save` writes, got")


def test_array_that_grows_when_it_is_read_is_refused(tmp_path):
  arrays = vars(some_scores(("a", "b", "c"))) | {"labels": np.zeros(1 << 24, np.int32)}
  np.savez_compressed(tmp_path / "test.npz", **arrays)
  assert (tmp_path / "test.npz").stat().st_size < 1 << 20
  assert_refused(tmp_path / "test.npz", "got a compressed one")


def test_array_that_is_there_twice_is_refused(tmp_path):
  path = write(tmp_path / "test.npz")
  with (
    zipfile.ZipFile(path, "a") as archive,
    pytest.warns(UserWarning, match="Duplicate name"),
    archive.open("labels.npy", "w") as file,
  ):
    np.save(file, np.int32([0, 0, 0]))
  assert_refused(path, r"labels\.npy', 'labels\.npy'")


def test_repeated_ids_are_refused(tmp_path):
  assert_refused(write(tmp_path / "test.npz", ids=("a", "b", "a")), "ids: expected each once")
