"""The records of a track, read from the disk: what prepare.py wrote, or nothing.

A folder of a track holds track.json (its kind and fields, which clips there are, the digests of
their records) and a data set of TFDS's, which a clip's records are read from one by one.
"""

import contextlib
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, SupportsIndex

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf import json_format

from jaxmg import fields
from jaxmg.data import tracks
from jaxmg.errors import DataError

TRACK = "track.json"
_AGAIN = "remove the directory and prepare it again"


class Track:
  """One kind of data of the clips of a set: `track[row]` is what inputs read of a clip.

  `kind` is one of `tracks.TRACKS` with its fields, `about` what an input must know before it reads
  (`check`). `rows` are the clips that are there, `num_frames` [rows] their lengths, and `notes`
  what was left out or cut when they were prepared; `row in track` says whether a clip is there.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    kind: Any,
    ids: Sequence[str],
    content: Mapping[str, Any],
    *,
    features: tfds.features.FeaturesDict,
    digest: Callable[[Mapping[str, np.ndarray]], str],
  ):
    clips = content["clips"]
    self.folder, self.kind, self.about = folder, kind, kind.about
    self.rows = integers(clips["row"], np.int64)
    self.num_frames = integers(clips["num_frames"], np.int32)
    counts = integers(clips["records"], np.int64)
    self.made_of: str | None = content["made_of"]  # of a format: which file
    self.notes: tuple[str, ...] = texts(content["notes"])
    # Two clips of the same are copies; nothing for one in which there is nothing.
    self.contents = np.array(texts(clips["content"]), str)
    self._digests = np.array(texts(content["digests"]), str)
    self._ids, self._digest = ids, digest
    if not len(self.rows) == len(self.num_frames) == len(counts) == len(self.contents):
      raise ValueError("expected one number a clip in each column")
    if self.rows.size and (self.rows.min() < 0 or self.rows.max() >= len(ids)):
      raise ValueError(f"row: expected 0 to {len(ids) - 1}, got others")
    if len(np.unique(self.rows)) < len(self.rows) or (counts < 1).any():
      raise ValueError("expected each clip once, with at least one record")
    ends = np.cumsum(counts)
    self._ranges = {
      row: range(end - count, end)
      for row, end, count in zip(self.rows.tolist(), ends.tolist(), counts.tolist(), strict=True)
    }
    _check_features(folder, features, repr(kind))
    with _tfds_errors(folder):
      builder = tfds.builder_from_directory(folder)
      for shard in builder.info.splits["all"].filepaths:  # TFDS opens them when they are read
        if not os.path.getsize(shard):
          raise ValueError(f"{shard.name} is empty")
      raw = tfds.decode.DeserializeMethod.RAW_BYTES
      self._records = builder.as_data_source("all", deserialize_method=raw)
      # TFDS cannot leave features out of a data source.
      names = ["id", *kind.features()]
      self._features = tfds.features.FeaturesDict({n: builder.info.features[n] for n in names})
    if not len(self._records) == len(self._digests) == counts.sum():
      got = f"{len(self._digests)} digests of {counts.sum()} records"
      raise ValueError(f"expected as many as there are records, {len(self._records)}, got {got}")

  def __contains__(self, row: int) -> bool:
    return row in self._ranges

  def __getitem__(self, row: int) -> dict[str, Any]:
    """What inputs read of a clip, as its kind says; DataError where it is damaged or not there."""
    if row not in self._ranges:
      raise DataError(f"{self.folder}: clip {self._ids[row]!r}", expected="its data", got="none")
    return self.kind.read(_Records(self._ranges[row], functools.partial(self._record, row)))

  def check(self, row: int) -> None:
    """Reads all records of a clip; DataError where one is damaged."""
    for number in self._ranges[row]:
      self._record(row, number)

  def fingerprint(self) -> str:
    """A short hash of which clips there are, and of their data."""
    kind = [type(self.kind).__name__, fields.to_json(self.kind)]
    clips = [[row, len(numbers)] for row, numbers in self._ranges.items()]
    return fields.digest({"kind": kind, "clips": clips, "digests": self._digests.tolist()})

  def _record(self, row: int, number: int) -> dict[str, np.ndarray]:
    id, where = self._ids[row], f"{self.folder}: record {number}"
    hint = f"the files were changed: {_AGAIN}"
    try:
      record = self._features.deserialize_example_np(self._records[number])
      found = record.pop("id").decode()
    except Exception as error:  # ArrayRecord and TFDS raise many types
      got = str(error).partition("\n")[0]
      raise DataError(where, expected=f"clip {id!r}", got=got, hint=hint) from error
    if found != id or self._digest(record) != self._digests[number]:
      expected, got = f"clip {id!r} as it was written", f"{found!r} with other data"
      raise DataError(where, expected=expected, got=got, hint=hint)
    return record


class Held(Track):
  """A track whose records are in memory.

  `clips` are the records of all clips, `contents` and `num_frames` what the kind says of each.
  """

  notes: tuple[str, ...] = ()
  made_of: str | None = None

  def __init__(
    self,
    folder: str,
    kind: Any,
    ids: Sequence[str],
    clips: Sequence[Sequence[Mapping[str, np.ndarray]]],
    contents: Sequence[Any],
    num_frames: Sequence[int],
  ):
    self.folder, self.kind, self.about = pathlib.Path(folder), kind, kind.about
    self.rows = np.arange(len(ids))
    self.num_frames = np.array(num_frames, np.int32)
    self._clips, self._ids = clips, ids
    self.contents = np.array(
      ["" if content is None else digest({"": content}) for content in contents], str
    )

  def __contains__(self, row: int) -> bool:
    return 0 <= row < len(self._clips)

  def __getitem__(self, row: int) -> dict[str, Any]:
    return self.kind.read(self._clips[row])

  def check(self, row: int) -> None:
    """What is in memory is as it was made."""

  def fingerprint(self) -> str:
    """A short hash of which clips there are, and of their data."""
    values = fields.to_json(self.kind)
    if "fps" in values:
      values["fps"] = None  # as of before arrays had a rate: no input reads it
    kind = [type(self.kind).__name__, values]
    return fields.digest({"kind": kind, "digests": self.contents.tolist()})


class _Records(Sequence):
  """The records of a clip, each read when it is asked for."""

  def __init__(self, numbers: range, read: Callable[[int], Any]):
    self._numbers, self._read = numbers, read

  def __len__(self) -> int:
    return len(self._numbers)

  def __getitem__(self, i: SupportsIndex | slice) -> Any:
    if isinstance(i, slice):
      return [self._read(number) for number in self._numbers[i]]
    return self._read(self._numbers[i])


def features(kind: Any) -> tfds.features.FeaturesDict:
  """What TFDS has to know of the records of a track."""
  return tfds.features.FeaturesDict({"id": tfds.features.Text(), **kind.features()})


def digest(record: Mapping[str, np.ndarray | list[np.ndarray]]) -> str:
  """A short hash of all arrays of a record; a list is one array in parts, which are not joined."""
  found = hashlib.sha256()
  for name, array in sorted(record.items()):
    parts = array if isinstance(array, list) else [array]
    shape = parts[0].shape
    if len(parts) > 1:
      shape = (sum(map(len, parts)), *shape[1:])
    found.update(f"{name} {parts[0].dtype}{shape}".encode())
    for part in parts:
      found.update(np.ascontiguousarray(part).data)
  return found.hexdigest()[:16]


def read(folder: pathlib.Path, ids: Sequence[str], index: str) -> Track:
  """The track of a folder, of clips of these ids in the order of their rows.

  `index` is the digest of their index: a track of another one is a DataError.
  """
  with as_written(folder / TRACK, "a track"):
    content = json.loads((folder / TRACK).read_text(encoding="utf-8"))
    if fields.digest(content) != content["sha256"]:
      raise ValueError("another one than was written")
    if content["index"] != index:
      raise DataError(folder, expected="a track of this set", got="one of another")
    if content["kind"] not in tracks.TRACKS:
      expected = f"a kind that is known here: {' or '.join(tracks.TRACKS)}"
      raise DataError(folder, expected=expected, got=content["kind"])
    kind = fields.make(tracks.TRACKS[content["kind"]], content["fields"])
    return Track(folder, kind, ids, content, features=features(kind), digest=digest)


def read_pose_of_before(folder: pathlib.Path, index: Mapping[str, Any]) -> Track:
  """The poses of a set of before there were tracks: their columns are in the index."""
  columns, names = index["clips"], ("num_persons", "frame_size", "joints3d", "fps")
  layout = index.get("skeleton_definition") or index["skeleton"]
  kind = fields.make(tracks.Pose, {name: index[name] for name in names} | {"layout": layout})
  ids = texts(columns["id"])
  digests = texts(columns["digest"], len(ids))
  content = {
    "clips": {
      "row": list(range(len(ids))),
      "num_frames": columns["num_frames"],
      "records": [1] * len(ids),
      "content": list(digests),
    },
    "digests": list(digests),
    "made_of": index.get("made_of"),
    "notes": index.get("notes", []),
  }
  words = dict.fromkeys(("id", "subject", "video"), tfds.features.Text())
  numbers = dict.fromkeys(("label", "num_frames"), np.int64)
  written = tfds.features.FeaturesDict(words | numbers | kind.features())
  return Track(folder, kind, ids, content, features=written, digest=_digest_of_before)


def _digest_of_before(record: Mapping[str, np.ndarray]) -> str:
  for name in ("keypoints", "joints3d"):
    if name in record and record[name].any():
      return hashlib.sha256(record[name].tobytes()).hexdigest()[:16]
  return ""


def _check_features(folder: pathlib.Path, expected: Any, what: str) -> None:
  """Raises DataError unless features.json is as we write it.

  TFDS imports the Python classes that this file names: it must not open a set from elsewhere
  before they are known to be its own.
  """
  path = folder / "features.json"
  try:
    found = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError, RecursionError):
    found = None
  if found != json.loads(json_format.MessageToJson(expected.to_proto())):
    raise DataError(path, expected=f"the features of {what}", got="others", hint=_AGAIN)


@contextlib.contextmanager
def as_written(path: pathlib.Path, what: str) -> Iterator[None]:
  """Whatever a damaged file leads to is a DataError of it."""
  faults = (AttributeError, LookupError, OverflowError, RecursionError, TypeError, ValueError)
  try:
    yield
  except DataError:
    raise
  except faults as error:
    got = f"{type(error).__name__}: {error}"
    expected = f"{what} as prepare.py writes it"
    raise DataError(path, expected=expected, got=got, hint=_AGAIN) from error


@contextlib.contextmanager
def _tfds_errors(folder: pathlib.Path) -> Iterator[None]:
  try:
    yield
  except Exception as error:  # TFDS raises its own types, some of them plain RuntimeErrors
    raise DataError(f"{folder}: {error}") from error


def integers(values: Any, dtype: type) -> np.ndarray:
  # NumPy would take 2.7, true and "2" for a 2 as well.
  for value in values:
    if type(value) is not int:
      raise TypeError(f"expected integers, got {value!r}")
  return np.array(values, dtype)


def texts(values: Any, length: int | None = None) -> tuple[str, ...]:
  if not (isinstance(values, list) and all(isinstance(value, str) for value in values)):
    raise TypeError(f"expected a list of texts, got {values!r}")
  if length not in (None, len(values)):
    raise ValueError(f"expected {length} texts, got {len(values)}")
  return tuple(values)
