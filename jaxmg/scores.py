"""Scores on disk, keyed by clip id: never by row, which differs between tools and preparations.

A score file is an .npz of the fields of `Scores` and of `checksum`, the SHA-256 of the ids.
"""

import collections
import dataclasses
import hashlib
import itertools
import json
import math
import numbers
import os
import zipfile
from collections.abc import Iterable, Sequence

import numpy as np

from jaxmg import errors, files

# name: kind of numbers and of dimensions
_ARRAYS = {
  "ids": ("U", 1),
  "probabilities": ("f", 2),
  "labels": ("i", 1),
  "class_names": ("U", 1),
  "split": ("U", 0),
  "run": ("U", 0),
  "checksum": ("U", 0),
}

TEMPERATURES = (0.1, 100.0)  # the lowest and the highest

# Where a probability is less, its logarithm is this one's. Not 1e-12, say: of an over-sure network,
# classes less probable than that still tell which of them is nearer.
_LEAST = float(np.finfo(np.float32).tiny)


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
  """Class probabilities of the clips of one split; raises DataError for any that are none.

  Attributes:
    ids: N clip ids, each once.
    probabilities: float32[N, K], rows summing to 1.
    labels: int32[N]; -1 where hidden.
    class_names: K names.
    split: the split's name.
    run: the name of the run directory, or any text that says where they are from.
  """

  ids: tuple[str, ...]
  probabilities: np.ndarray
  labels: np.ndarray
  class_names: tuple[str, ...]
  split: str = ""
  run: str = ""

  def __post_init__(self):
    shape = (len(self.ids), len(self.class_names))
    if not all(shape):
      raise errors.DataError("scores", expected="clips and classes", got=list(shape))
    for name, expected in (("probabilities", shape), ("labels", shape[:1])):
      got = getattr(self, name).shape
      if got != expected:
        raise errors.DataError(name, expected=list(expected), got=list(got))
    counts = collections.Counter(self.ids)
    if repeated := [id for id, count in counts.items() if count > 1]:
      raise errors.DataError("ids", expected="each once", got=f"repeated ones: {_some(repeated)}")
    with np.errstate(all="ignore"):
      sums = self.probabilities.sum(axis=1, dtype=np.float64)
      fair = (abs(sums - 1) <= 1e-3) & (self.probabilities >= 0).all(axis=1)  # NaN is neither
    known = (self.labels >= -1) & (self.labels < len(self.class_names))
    for name, right, expected in (
      ("probabilities", fair, "none negative, and a sum of 1"),
      ("labels", known, f"-1 (hidden) to {len(self.class_names) - 1}"),
    ):
      if not right.all():
        rows = np.flatnonzero(~right)
        got = f"others of {_some([self.ids[row] for row in rows])}"
        raise errors.DataError(name, expected=expected, got=got)


def save(path: str | os.PathLike, scores: Scores) -> None:
  """Writes a score file in one move."""
  arrays = {field.name: getattr(scores, field.name) for field in dataclasses.fields(scores)}
  arrays["checksum"] = _checksum(scores.ids)
  with files.replace(path) as part, open(part, "wb") as stream:
    np.savez(stream, **{name: np.asarray(array) for name, array in arrays.items()})


def load(path: str | os.PathLike) -> Scores:
  """Reads what `save` wrote; raises DataError for anything else."""
  try:
    # Opened here: numpy leaves its own handle open when the file is broken.
    with open(path, "rb") as stream:
      with zipfile.ZipFile(stream) as archive:
        _check_members(archive)
      stream.seek(0)
      with np.load(stream, allow_pickle=False) as file:
        arrays = {name: file[name] for name in _ARRAYS}
  except FileNotFoundError:
    raise errors.DataError(path, expected="a score file", got="no such file") from None
  except Exception as error:  # numpy and zipfile raise many types
    raise errors.DataError(path, expected="a score file", got=error) from error
  for name, kind in _ARRAYS.items():
    # Of no bytes each, there may be any number in a small file.
    if (arrays[name].dtype.kind, arrays[name].ndim) != kind or not arrays[name].itemsize:
      got = f"{arrays[name].dtype}{list(arrays[name].shape)}"
      raise errors.DataError(f"{path}: {name}", expected="what `save` writes", got=got)
  checksum = arrays.pop("checksum").item()
  arrays |= {name: arrays[name].item() for name in ("split", "run")}
  arrays |= {name: tuple(arrays[name].tolist()) for name in ("ids", "class_names")}
  try:
    scores = Scores(**arrays)
  except errors.DataError as error:
    raise errors.DataError(f"{path}: {error}") from None
  if checksum != _checksum(scores.ids):
    raise errors.DataError(f"{path}: ids", expected="those that were saved", got="others")
  return scores


def align(parts: Sequence[Scores]) -> tuple[Scores, ...]:
  """Returns the scores of the same clips, each with its rows in the order of the first one's.

  Raises DataError where clips, labels or class names are not those of the first.
  """
  for part in parts:
    if not isinstance(part, Scores):
      hint = "scores.load(path) reads a file"
      raise errors.DataError("scores", expected="Scores", got=repr(part)[:60], hint=hint)
  first, *others = parts
  aligned = [first]
  for number, part in enumerate(others, 2):
    where = _where(number, parts)
    _check_classes(where, part, first)
    rows = {id: row for row, id in enumerate(part.ids)}
    missing = [id for id in first.ids if id not in rows]
    unknown = sorted(rows.keys() - first.ids)
    if missing or unknown:
      sides = (("without", missing), ("with", unknown))
      got = " and ".join(f"{side} {_some(ids)}" for side, ids in sides if ids)
      raise errors.DataError(where, expected="the clips of the first", got=f"others: {got}")
    order = [rows[id] for id in first.ids]
    labels = part.labels[order]
    if (differ := np.flatnonzero(labels != first.labels)).size:
      got = f"others of {_some([first.ids[row] for row in differ])}"
      raise errors.DataError(f"{where}: labels", expected="those of the first", got=got)
    probabilities = part.probabilities[order]
    aligned.append(
      dataclasses.replace(part, ids=first.ids, probabilities=probabilities, labels=labels)
    )
  return tuple(aligned)


def join(parts: Sequence[Scores]) -> Scores:
  """Returns the scores of all clips of these, such as those of one stream's folds.

  Raises DataError for class names that are not the first one's, or a clip that comes twice.
  """
  for number, part in enumerate(parts[1:], 2):
    _check_classes(_where(number, parts), part, parts[0])
  return dataclasses.replace(
    parts[0],
    ids=tuple(itertools.chain.from_iterable(part.ids for part in parts)),
    probabilities=np.concatenate([part.probabilities for part in parts]),
    labels=np.concatenate([part.labels for part in parts]),
    split=", ".join(dict.fromkeys(part.split for part in parts)),
    run=", ".join(dict.fromkeys(part.run for part in parts)),
  )


def calibrate(scores: Scores, temperature: float | int) -> Scores:
  """Returns the scores with the probabilities softmax(log p / temperature).

  Above 1 they get less sure, below 1 surer; their order stays, and at 1 nothing changes. A p of 0
  counts as 1.2e-38, the smallest float32 that is not denormal.

  Raises ConfigError for a temperature outside `TEMPERATURES`.
  """
  low, high = TEMPERATURES
  if not low <= temperature <= high:
    expected = f"a number from {low:g} to {high:g}"
    raise errors.ConfigError("temperature", expected=expected, got=f"{temperature:g}")
  if temperature == 1:
    return scores
  return dataclasses.replace(
    scores,
    probabilities=np.float32(np.exp(_log_softmax(_logs(scores) / temperature))),
    run=f"{scores.run} at temperature {temperature:.3g}",
  )


def fit_temperature(scores: Scores) -> float:
  """Returns the temperature by which `calibrate` finds the labels of these clips likeliest.

  There is one: the negative log-likelihood is convex in 1 / temperature. Halving `TEMPERATURES`
  leads to it, or to the end that is nearest: the lowest where the label is the most probable class
  of every clip. Where none is better than 1, it is 1. Fit on clips that the network was not trained
  on, and of which nothing is reported (Guo et al., On calibration of modern neural networks, 2017).

  Raises DataError for hidden labels.
  """
  labels = _known_labels(scores)
  logs, rows = _logs(scores), np.arange(len(labels))

  def log_softmax(log_temperature):
    return _log_softmax(logs / math.exp(log_temperature))

  def loss(log_temperature):
    return -log_softmax(log_temperature)[rows, labels].mean()

  low, high = map(math.log, TEMPERATURES)
  for _ in range(50):
    middle = (low + high) / 2
    expected = (np.exp(log_softmax(middle)) * logs).sum(axis=1)
    # The slope of the loss along 1 / temperature.
    if (expected - logs[rows, labels]).mean() > 0:
      low = middle
    else:
      high = middle
  return math.exp(middle) if loss(middle) < loss(0) else 1.0


def fuse(parts: Sequence[Scores], weights: Sequence[float | int]) -> Scores:
  """Returns the weighted mean of the probabilities of the same clips, in the first one's order.

  Raises:
    ConfigError: not one weight for each, a negative one, or none above 0.
    DataError: as `align`.
  """
  right = len(weights) == len(parts) and all(
    isinstance(weight, numbers.Real) and weight >= 0 for weight in weights
  )
  if not right or not 0 < sum(weights) < math.inf:
    expected = f"{len(parts)} numbers, none negative and one above 0"
    got = ", ".join(f"{x:g}" if isinstance(x, numbers.Real) else repr(x) for x in weights)
    raise errors.ConfigError("weights", expected=expected, got=got)
  parts = align(parts)
  shares = np.asarray(weights, np.float64) / sum(weights)
  mean = np.tensordot(shares, [part.probabilities for part in parts], 1)
  run = " + ".join(f"{share:.3g} {part.run}" for share, part in zip(shares, parts, strict=True))
  return dataclasses.replace(
    parts[0],
    probabilities=np.float32(mean / mean.sum(axis=1, keepdims=True)),
    split=" + ".join(dict.fromkeys(part.split for part in parts)),
    run=run,
  )


def search(parts: Sequence[Scores]) -> tuple[float, ...]:
  """Returns the weights, summing to 1, by which `fuse` finds the labels of these clips likeliest.

  There is one such mean (the likelihood of a mixture is concave), and the steps of EM lead to it.
  Accuracy would be the wrong thing to climb: a fold is small, and many weights recognise as many of
  its clips. Search on clips of which nothing is reported.

  Raises DataError as `align`, or for hidden labels.
  """
  parts = align(parts)
  labels = _known_labels(parts[0])
  rows = np.arange(len(labels))
  likelihood = np.float64([part.probabilities[rows, labels] for part in parts]).clip(1e-12)
  weights = np.full(len(parts), 1 / len(parts))
  for _ in range(10_000):
    shares = weights[:, None] * likelihood
    new = (shares / shares.sum(0)).mean(1)
    moved, weights = abs(new - weights).max(), new
    if moved < 1e-9:
      break
  return tuple(weights.tolist())


def _logs(scores):
  return np.log(np.maximum(np.float64(scores.probabilities), _LEAST))


def _log_softmax(logits):
  logits = logits - logits.max(axis=1, keepdims=True)
  return logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))


def _known_labels(scores):
  if (scores.labels < 0).any():
    raise errors.DataError("labels to search by", expected="all known", got="hidden ones")
  return scores.labels


def _where(number, parts):
  run = parts[number - 1].run
  return f"scores {number} of {len(parts)}" + (f" ({run!r})" if run else "")


def _check_classes(where, part, first):
  if part.class_names != first.class_names:
    pairs = itertools.zip_longest(first.class_names, part.class_names)
    index, (expected, got) = next((k, pair) for k, pair in enumerate(pairs) if len({*pair}) > 1)
    raise errors.DataError(f"{where}: class {index}", expected=repr(expected), got=repr(got))


def _checksum(ids: Iterable[str]) -> str:
  return hashlib.sha256(json.dumps(list(ids)).encode()).hexdigest()


def _some(names: Sequence[str]) -> str:
  """The first five of some names, and how many there are."""
  more = ", ..." if len(names) > 5 else ""
  return f"{len(names)} ({', '.join(map(repr, names[:5]))}{more})"


def _check_members(archive: zipfile.ZipFile) -> None:
  """Of two members of one name the last would count, and compressed ones can grow without end."""
  names = sorted(member.filename for member in archive.infolist())
  expected = sorted(f"{name}.npy" for name in _ARRAYS)
  if names != expected:
    raise ValueError(f"arrays {names} for {expected}")
  if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
    raise ValueError("a compressed one")
