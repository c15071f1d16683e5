"""Vectors for class names: what an auxiliary loss on label embeddings regresses or compares to.

Tables come from a text file of word vectors (GloVe, word2vec, fastText) or a .npy file; without
either, `built_in` makes one from the spelling of the names, which no text corpus has informed.
"""

import hashlib
import math
import pathlib
import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32, Int64

from jaxmg.data.readers import arrays
from jaxmg.errors import DataError

# Of the 32 mean GloVe vectors that the MiGA challenge's winner of 2023 regresses to
# (VUT-HFUT/MiGA2023_Track1): a loss weight keeps its meaning under the built-in table.
MEAN_SQUARE = 0.0769
BUILT_IN_SIZE = 300  # as GloVe's

_MAX_LINE = 1 << 20  # bytes: 300 values take 3,000


def load(
  table: str | None, names: Sequence[str], groups: Sequence[str] | None = None
) -> Float32[np.ndarray, "k d"]:
  """The table of K classes: a .npy file, another file of word vectors, or None for `built_in`.

  Args:
    table: a path.
    names: the classes' short names, in their order.
    groups: the classes' groups, which only the built-in table uses.

  Raises DataError as the function it calls.
  """
  if table is None:
    return built_in(names, groups)
  if table.endswith(".npy"):
    return from_npy(table, len(names))
  return from_glove(table, names)


def built_in(
  names: Sequence[str], groups: Sequence[str] | None = None
) -> Float32[np.ndarray, "k 300"]:
  """A table made of the spelling of the names alone: the same on every machine, of no corpus.

  A word is the sum of the signs (+1 or -1, 300 times) to which SHAKE-256 hashes its n-grams: the
  word between < and >, and its parts of 3 to 5 characters. A name is the sum of its words (runs of
  letters and digits), each of length 1; with `groups`, name and group, made in the same way, count
  equally. So classes are near that share words, stems or a group; synonyms are not. Each row has
  the mean square `MEAN_SQUARE`, and depends on no other class.

  Raises DataError for a name or a group without a letter or digit.
  """
  rows = []
  for name, group in zip(names, groups or [None] * len(names), strict=True):
    row = _spelling(name)
    if group is not None:
      row = _unit(row + _spelling(group))
    rows.append(row * math.sqrt(MEAN_SQUARE * BUILT_IN_SIZE))
  return np.array(rows, np.float32)


def from_glove(path: str | pathlib.Path, names: Sequence[str]) -> Float32[np.ndarray, "k d"]:
  """The mean of the vectors of the words of each name, not normalised, as the winner of 2023 did.

  The words of a name are its runs of letters in lower case. The file has on each line a word and
  its D values, and before them, if at all, word2vec's line of two counts. It is read only until all
  words are found. Of a word that is there twice the first counts; lines of other words are not
  checked.

  Raises DataError, with the line, for a word that is missing, a line with another number of values
  than the first, a value that is no finite float32, and a file that is no such text.
  """
  words = [re.findall(r"[^\W\d_]+", name.lower()) for name in names]
  for name, parts in zip(names, words, strict=True):
    if not parts:
      raise DataError("class name", expected="a word of letters", got=repr(name))
  wanted = {word for parts in words for word in parts}
  try:
    vectors = _read_vectors(path, wanted)
  except FileNotFoundError:
    raise DataError(path, expected="a file of word vectors", got="nothing") from None
  except OSError as error:
    raise DataError(f"{path}: {error.strerror or error}") from error
  if missing := sorted(wanted - vectors.keys()):
    some = ", ".join(missing[:5]) + (", ..." if len(missing) > 5 else "")
    raise DataError(
      path,
      expected=f"all {len(wanted)} words of the class names",
      got=f"{len(missing)} not: {some}",
    )
  return np.array(
    [np.mean([vectors[word] for word in parts], axis=0) for parts in words], np.float32
  )


def from_npy(path: str | pathlib.Path, num_classes: int) -> Float32[np.ndarray, "k d"]:
  """A table [K, D] of finite numbers, in the order of the classes, and no row of zeros.

  Two rows may be equal: classes that a regression need not tell apart. A contrastive loss and
  `nearest` cannot tell them apart.

  Raises DataError for any other file.
  """
  try:
    table = arrays.load_array(pathlib.Path(path))
  except FileNotFoundError:
    raise DataError(path, expected="a .npy file", got="nothing") from None
  except OSError as error:
    raise DataError(f"{path}: {error.strerror or error}") from error
  except DataError as error:
    raise DataError(f"{path}: {error}") from error
  if table.ndim != 2 or table.shape[0] != num_classes or not table.shape[1]:
    raise DataError(
      f"{path}: shape", expected=f"[{num_classes}, D], a row per class", got=list(table.shape)
    )
  with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is found below
    table = np.array(table, np.float32)
  if not np.isfinite(table).all():
    row, column = np.argwhere(~np.isfinite(table))[0]
    raise DataError(
      f"{path}: row {row}, column {column}", expected="a finite float32", got=table[row, column]
    )
  if not table.any(axis=1).all():
    row = int(np.argmin(table.any(axis=1)))
    raise DataError(f"{path}: row {row}", expected="an embedding", got="zeros")
  return table


def same(table: Float[np.ndarray, "k d"]) -> list[tuple[int, int]]:
  """The pairs of classes whose rows are equal, to rounding: names of the same words, say."""
  scale = np.abs(table).max()
  return [
    (i, j)
    for j in range(len(table))
    for i in range(j)
    if np.abs(table[i] - table[j]).max() <= 1e-6 * scale
  ]


def nearest(
  embedding: Float[np.ndarray, " d"], table: Float[np.ndarray, "k d"]
) -> tuple[Int64[np.ndarray, " k"], Float[np.ndarray, " k"]]:
  """The classes by the cosine of their rows with `embedding`, nearest first, and these cosines.

  The cosine with a vector of zeros is 0.
  """
  lengths = np.linalg.norm(table, axis=1) * np.linalg.norm(embedding)
  cosines = table @ embedding / np.where(lengths > 0, lengths, 1)
  order = np.argsort(-cosines, kind="stable")
  return order, cosines[order]


def _spelling(text: str) -> np.ndarray:
  """A vector of length 1."""
  words = re.findall(r"[^\W_]+", text.lower())
  if not words:
    raise DataError("class name or group", expected="a letter or digit", got=repr(text))
  return _unit(sum(_unit(_signs(f"<{word}>")) for word in words))


def _signs(word: str) -> np.ndarray:
  grams = {word[i : i + n] for n in (3, 4, 5) for i in range(len(word) - n + 1)} | {word}
  total = np.zeros(BUILT_IN_SIZE)
  for gram in grams:  # in any order: sums of whole numbers are exact
    hashed = hashlib.shake_256(gram.encode()).digest(-(-BUILT_IN_SIZE // 8))
    total += 2.0 * np.unpackbits(np.frombuffer(hashed, np.uint8))[:BUILT_IN_SIZE] - 1
  return total


def _unit(vector: np.ndarray) -> np.ndarray:
  # numpy's sum and norm depend on the processor in the last digit.
  length = math.sqrt(math.fsum((vector * vector).tolist()))
  return vector / (length or 1.0)


def _read_vectors(path: str | pathlib.Path, wanted: set[str]) -> dict[str, np.ndarray]:
  """The vectors of the wanted words that the file has, read line by line."""
  vectors, size = {}, None
  left = {word.encode(): word for word in wanted}
  with open(path, "rb") as file:
    number = 0
    while left and (line := file.readline(_MAX_LINE + 1)):
      number += 1
      where = f"{path}:{number}"
      if len(line) > _MAX_LINE:
        raise DataError(where, expected=f"a line of at most {_MAX_LINE} bytes", got="a longer one")
      if number == 1:
        line = line.removeprefix(b"\xef\xbb\xbf")
        if re.fullmatch(rb"\d+ \d+\s*", line):
          continue  # word2vec's counts of words and values
      if size is None:  # the first line, whatever its word, shows what the file is
        size = len(_values(where, line))
      word = left.pop(next(iter(line.split(None, 1)), b""), None)
      if word is not None:
        vectors[word] = _values(where, line, size)
  if size is None:
    raise DataError(path, expected="lines of a word and its values", got="none")
  return vectors


def _values(where: str, line: bytes, size: int | None = None) -> np.ndarray:
  fields = line.split()[1:]
  if not fields or size not in (None, len(fields)):
    expected = "a word and its values" if size is None else f"a word and its {size} values"
    raise DataError(where, expected=expected, got=f"{len(fields)} values")
  try:
    values = [float(field) for field in fields]
  except ValueError:
    raise DataError(where, expected="a word and numbers, as text", got="something else") from None
  with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is found below
    vector = np.array(values, np.float32)
  if not np.isfinite(vector).all():
    wrong = fields[int(np.argmin(np.isfinite(vector)))].decode()
    raise DataError(where, expected="finite numbers", got=wrong)
  return vector
