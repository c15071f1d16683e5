"""Names of classes -> vectors."""

import struct
import tracemalloc

import numpy as np
import pytest

from jaxmg.data import embeddings
from jaxmg.errors import DataError

NAMES = ("rub hand", "Rub eyes", "head up")
VECTORS = {
  "the": [0, 0, 0],
  "rub": [1, 2, 3],
  "hand": [3, 0, -1],
  "eyes": [0.5, 0, 0],
  "head": [1e-3, 4, 0],
  "up": [0, 1, 1],
}
MEANS = [[2, 1, 1], [0.75, 1, 1.5], [0.0005, 2.5, 0.5]]


def lines(vectors=VECTORS, *, skip=()):
  return [f"{word} {' '.join(map(str, v))}" for word, v in vectors.items() if word not in skip]


def write(folder, content):
  """A file of these lines or bytes."""
  path = folder / "vectors.txt"
  path.write_bytes(content if isinstance(content, bytes) else "\n".join([*content, ""]).encode())
  return path


def cosines_of(table):
  rows = table / np.linalg.norm(table, axis=1, keepdims=True)
  return rows @ rows.T


# --- a file of word vectors


@pytest.mark.parametrize(
  "content",
  [
    lines(),
    ["6 3", *lines()],
    ["6 3 ", *(line + " " for line in lines())],  # fastText's lines end in a space
    [line.replace(" ", "\t") + "\r" for line in lines()],
    "\n".join(lines()).encode("utf-8-sig"),
    [*lines(), "rub 9 9 9", "up 1", "hand x y z"],  # not reached: every word is found
    ["the 0 0 0", "ötzi 1 1 1", "new york 1 2 3", "", *lines()],
  ],
  ids=["glove", "word2vec", "fasttext", "tabs", "bom", "longer", "other words"],
)
def test_a_class_is_the_mean_of_the_vectors_of_its_words(tmp_path, content):
  table = embeddings.from_glove(write(tmp_path, content), NAMES)
  np.testing.assert_array_equal(table, np.array(MEANS, np.float32))
  assert table.dtype == np.float32


def test_of_a_word_that_is_there_twice_the_first_counts(tmp_path):
  content = ["rub 1 2 3", "rub 7 7 7", *lines(skip=["rub"])]
  table = embeddings.from_glove(write(tmp_path, content), NAMES)
  np.testing.assert_array_equal(table, np.array(MEANS, np.float32))


def test_words_are_runs_of_letters_in_lower_case_and_repetitions_count(tmp_path):
  table = embeddings.from_glove(write(tmp_path, lines()), ["Rub-RUB, hand (2)", "Eyes"])
  np.testing.assert_allclose(table, [[5 / 3, 4 / 3, 5 / 3], [0.5, 0, 0]], rtol=1e-6)
  umlaut = write(tmp_path, ["ÄRMEL 1 1", "ärmel 2 3"])
  np.testing.assert_array_equal(embeddings.from_glove(umlaut, ["Ärmel"]), [[2, 3]])


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (lines(skip=["up"]), ": expected all 5 words of the class names, got 1 not: up"),
    (["the 0 0 0"], "got 5 not: eyes, hand, head, rub, up"),
    (["the 0 0 0", "rub 1 2 3", "hand 1 2"], ":3: expected a word and its 3 values, got 2 values"),
    (
      ["7 4", "rub 1 2 3 4", "hand 1 2 3 4 5"],
      ":3: expected a word and its 4 values, got 5 values",
    ),
    (["the 0 0", "rub"], ":2: expected a word and its 2 values, got 0 values"),
    (["the 0 0", "rub nan 1"], ":2: expected finite numbers, got nan"),
    (["the 0 0", "rub 1 -1e39"], ":2: expected finite numbers, got -1e39"),
    (["the 0 0", "rub 1 1,5"], ":2: expected a word and numbers, as text, got something else"),
    (["word,a,b", "rub,1,2"], ":1: expected a word and its values, got 0 values"),
    (["", "rub 1 2"], ":1: expected a word and its values, got 0 values"),
    (b"", ": expected lines of a word and its values, got none"),
    (b"400000 300\n", ": expected lines of a word and its values, got none"),
    (b"\x1f\x8b\x08 \x00\xff \x80\n" * 9, ":1: expected a word and numbers, as text"),
    (b"3 2\nrub " + struct.pack("<2f", 1.5, -0.3) + b"\nup ", ":2: expected a word and"),
    (b"PK\x03\x04" + bytes(range(256)) * 9, ":1: expected a word and"),
    (b"the 0 0\n" + b"rub " + b"1 " * (1 << 20), ":2: expected a line of at most 1048576 bytes"),
  ],
)
def test_a_bad_file_of_word_vectors_is_one_line_that_says_where(tmp_path, content, message):
  path = write(tmp_path, content)
  with pytest.raises(DataError) as error:
    embeddings.from_glove(path, NAMES)
  assert str(error.value).startswith(f"{path}{message}" if message[0] == ":" else str(path))
  assert message in str(error.value)
  assert "\n" not in str(error.value)


def test_five_missing_words_are_listed_and_all_counted(tmp_path):
  path = write(tmp_path, ["the 0 0"])
  with pytest.raises(DataError, match=r"all 7 words .*, got 7 not: a, b, c, d, e, \.\.\.$"):
    embeddings.from_glove(path, ["a b c d", "e f g"])


def test_what_is_no_file_is_one_line(tmp_path):
  with pytest.raises(DataError, match=r"none\.txt: expected a file of word vectors, got nothing"):
    embeddings.from_glove(tmp_path / "none.txt", NAMES)
  with pytest.raises(DataError, match=r": Is a directory$"):
    embeddings.from_glove(tmp_path, NAMES)


def test_a_name_without_letters_is_named(tmp_path):
  with pytest.raises(DataError, match=r"class name: expected a word of letters, got '12\?'"):
    embeddings.from_glove(write(tmp_path, lines()), ["rub hand", "12?"])


@pytest.mark.parametrize("start", [b"", b"the 0 0\nrub "])
def test_an_endless_line_takes_no_memory(tmp_path, start):
  path = write(tmp_path, start)
  with open(path, "r+b") as file:
    file.truncate(4 << 30)  # a hole: it takes no space on the disk
  tracemalloc.start()
  try:
    with pytest.raises(DataError, match="expected a line of at most 1048576 bytes"):
      embeddings.from_glove(path, NAMES)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
  finally:
    tracemalloc.stop()


def test_lines_that_are_not_wanted_are_not_kept(tmp_path):
  path = write(tmp_path, [*["the 0 0 0"] * (1 << 17), *lines()])
  tracemalloc.start()
  try:
    embeddings.from_glove(path, NAMES)
    assert tracemalloc.get_traced_memory()[1] < 1 << 20
  finally:
    tracemalloc.stop()


# --- a .npy file


def test_a_npy_table_is_taken_as_it_is(tmp_path):
  table = np.array([[1, 2], [1, 2], [0, -1]], ">f8")
  np.save(tmp_path / "table.npy", table)
  loaded = embeddings.from_npy(tmp_path / "table.npy", 3)
  np.testing.assert_array_equal(loaded, table)
  assert (loaded.dtype, type(loaded)) == (np.float32, np.ndarray)


@pytest.mark.parametrize(
  ("array", "message"),
  [
    (np.ones((4, 2)), r"shape: expected \[3, D\], a row per class, got \[4, 2\]"),
    (np.ones(3), r"shape: expected \[3, D\], .* got \[3\]"),
    (np.ones((3, 1, 2)), r"shape: expected .* got \[3, 1, 2\]"),
    (np.array([[1], [np.nan], [2]]), "row 1, column 0: expected a finite float32, got nan"),
    (
      np.array([[1, 1], [2, 2], [3, -1e60]]),
      "row 2, column 1: expected a finite float32, got -inf",
    ),
    (np.array([[1.0], [0.0], [2.0]]), "row 1: expected an embedding, got zeros"),
    (np.array([["a"], ["b"], ["c"]]), "the data: expected one array of numbers"),
    (np.array([[1], [2], [None]]), "expected a whole npy file"),
    (np.ones((3, 2), complex), "the data: expected one array of numbers"),
  ],
)
def test_a_bad_npy_table_is_one_line(tmp_path, array, message):
  np.save(tmp_path / "table.npy", array)
  with pytest.raises(DataError, match=rf"table\.npy: {message}"):
    embeddings.from_npy(tmp_path / "table.npy", 3)


def test_a_damaged_npy_file_is_one_line(tmp_path):
  path = tmp_path / "table.npy"
  with pytest.raises(DataError, match=r"table\.npy: expected a \.npy file, got nothing"):
    embeddings.from_npy(path, 3)
  np.save(path, np.ones((3, 2)))
  whole = path.read_bytes()
  for damaged in (b"", whole[:-1], whole[:40], whole + b"x", b"rub 1 2 3\n"):
    path.write_bytes(damaged)
    with pytest.raises(DataError) as error:
      embeddings.from_npy(path, 3)
    assert str(error.value).startswith(f"{path}: ")


# --- the built-in table


def test_the_built_in_table_never_changes():
  table = embeddings.built_in(["rub hand", "Illustrative", "Arm 2"], ["hand", "other", "hand"])
  np.testing.assert_allclose(
    table[0, :4], [-0.17046332, -0.34092665, 0.08663817, -0.17327634], rtol=1e-6
  )
  np.testing.assert_allclose(table[1:, -1], [-0.2765992, 0.005730845], rtol=1e-6)
  bare = embeddings.built_in(["rub hand"])
  np.testing.assert_allclose(
    bare[0, :4], [-0.13077851, -0.26155701, 0.15987797, -0.31975594], rtol=1e-6
  )


@pytest.mark.parametrize("groups", [None, ("hand", "head", "head")])
def test_every_row_of_the_built_in_table_has_the_mean_square(groups):
  table = embeddings.built_in(NAMES, groups)
  assert (table.shape, table.dtype) == ((3, 300), np.float32)
  np.testing.assert_allclose(np.square(table).mean(1), embeddings.MEAN_SQUARE, rtol=1e-6)
  assert embeddings.MEAN_SQUARE == 0.0769


def test_a_row_of_the_built_in_table_depends_on_no_other_class():
  table = embeddings.built_in(NAMES)
  np.testing.assert_array_equal(embeddings.built_in(NAMES[1:]), table[1:])


def test_built_in_names_are_near_by_spelling():
  names = ("touch ear", "touch ears", "touching hat", "shake shoulder", "TOUCH  ear!")
  cosines = cosines_of(embeddings.built_in(names))
  np.testing.assert_allclose(cosines[0, 4], 1, rtol=1e-5)
  assert cosines[0, 1] > cosines[0, 2] > cosines[0, 3] + 0.2
  assert cosines_of(embeddings.built_in(("class 1", "class 2")))[0, 1] < 0.9  # digits count


def test_built_in_names_of_imigue_are_nearer_within_groups_than_between(prepare):
  names = prepare.load("imigue").class_short_names
  sizes = {"head": 2, "head-hand": 9, "body-hand": 8, "body": 2, "hand": 6}
  groups = [group for group, size in sizes.items() for _ in range(size)]
  groups += ["head", "head", "hand", "body", "illustrative"]
  same = np.equal.outer(np.array(groups), np.array(groups))
  others = ~np.eye(32, dtype=bool)
  for table, margin in (
    (embeddings.built_in(names), 0.05),
    (embeddings.built_in(names, groups), 0.3),
  ):
    cosines = cosines_of(table)
    assert cosines[same & others].mean() > cosines[~same].mean() + margin
    assert cosines[others].max() < 0.95  # no two classes are one


def test_a_built_in_name_without_letters_is_named():
  for names, groups in ((("?",), None), (("a",), ("-",))):
    with pytest.raises(DataError, match=r"class name or group: expected a letter or digit, got"):
      embeddings.built_in(names, groups)


# --- which of the three, and the way back


def test_load_chooses_by_the_name_of_the_file(tmp_path):
  np.save(tmp_path / "table.npy", np.eye(3))
  np.testing.assert_array_equal(embeddings.load(str(tmp_path / "table.npy"), NAMES), np.eye(3))
  text = write(tmp_path, lines())
  np.testing.assert_array_equal(embeddings.load(str(text), NAMES), np.array(MEANS, np.float32))
  groups = ("a", "b", "b")
  for given in (None, groups):
    np.testing.assert_array_equal(
      embeddings.load(None, NAMES, given), embeddings.built_in(NAMES, given)
    )


def test_nearest_orders_classes_by_cosine():
  table = np.array([[2.0, 0], [0, 0.5], [-1, 0], [3, 3], [0, 0]])
  order, cosines = embeddings.nearest(np.array([6.0, 8.0]), table)
  assert order.tolist() == [3, 1, 0, 4, 2]
  np.testing.assert_allclose(cosines, [1.4 / np.sqrt(2), 0.8, 0.6, 0, -0.6], atol=1e-12)
  order, cosines = embeddings.nearest(np.zeros(2), table)
  assert order.tolist() == [0, 1, 2, 3, 4]
  assert not cosines.any()


def test_names_of_the_same_words_are_the_same():
  names = ("sit to stand", "wave", "stand to sit", "stand")
  assert embeddings.same(embeddings.built_in(names)) == [(0, 2)]
  assert embeddings.same(np.eye(3, dtype=np.float32)) == []
