"""A prepared directory: its clips by row, and what its index knows without decoding any."""

import hashlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import tensorflow_datasets as tfds
from google.protobuf import json_format
from jaxtyping import Int64

from jaxmg.errors import DataError
from jaxmg.skeletons import topology


class Track(NamedTuple):
  """One kind of data of the clips of a prepared set.

  `about` is what an input must know of it before it is read (`check`), and `read(row)` returns the
  record of a clip, as the inputs of `jaxmg.inputs` read it.
  """

  about: Mapping[str, Any]
  read: Callable[[int], Mapping[str, Any]]


class Source:
  """Random access to the records of a prepared directory, beside the columns of its index.

  `directory` is `DATA/<name>/<version>`, or `DATA/<name>` for its newest version. Ids, labels,
  subjects, videos, lengths and digests of all rows are attributes, read from `index.json`: splits,
  folds and counts decode no record. `class_short_names` are the class names, and `class_groups` is
  None, where the data set declares none.

  Raises:
    DataError: no prepared data set there, or one whose index contradicts itself or its shards.
  """

  def __init__(self, directory: str | pathlib.Path):
    self.directory = _newest_version(pathlib.Path(directory))
    try:
      index = json.loads((self.directory / "index.json").read_text(encoding="utf-8"))
      clips = index["clips"]
      self.name: str = index["name"]
      self.version: str = index["version"]
      definition = index.get("skeleton_definition")  # of a layout that is the user's own
      self.layout = (
        topology.from_json(definition) if definition else topology.get(index["skeleton"])
      )
      self.skeleton: str = self.layout.name
      self.class_names: tuple[str, ...] = _texts(index["class_names"], len(index["class_names"]))
      if not self.class_names:
        raise ValueError("expected names of classes, got none")
      short_names, groups = index.get("class_short_names"), index.get("class_groups")
      self.class_short_names: tuple[str, ...] = (
        self.class_names if short_names is None else _texts(short_names, len(self.class_names))
      )
      self.class_groups: tuple[str, ...] | None = (
        None if groups is None else _texts(groups, len(self.class_names))
      )
      self.mirror: bool = _truth(index["mirror"])
      self.num_persons: int = int(_integers([index["num_persons"]], np.int32)[0])
      height, width = _integers(index["frame_size"], np.int32).tolist()
      self.frame_size: tuple[int, int] = (height, width)
      self.fps: float | None = index["fps"]
      self.synthetic: bool = _truth(index["synthetic"])
      self.protocols: dict[str, dict[str, np.ndarray]] = {
        name: {split: _integers(rows[split], np.int64) for split in ("train", "test")}
        for name, rows in index["protocols"].items()
      }
      # Protocols across cameras show the same subjects on both sides.
      self.shared_subjects: tuple[str, ...] = tuple(index.get("shared_subjects", ()))
      self.ids: tuple[str, ...] = _texts(clips["id"], len(clips["id"]))
      self.labels = _integers(clips["label"], np.int32)
      self.subjects = np.array(_texts(clips["subject"], len(self.ids)), str)
      self.videos = np.array(_texts(clips["video"], len(self.ids)), str)
      self.num_frames = _integers(clips["num_frames"], np.int32)
      self.digests = np.array(_texts(clips["digest"], len(self.ids)), str)
    except (
      AttributeError,
      LookupError,
      OverflowError,
      RecursionError,
      TypeError,
      ValueError,
    ) as error:
      raise DataError(
        self.directory / "index.json",
        expected="an index as prepare.py writes it",
        got=f"{type(error).__name__}: {error}",
        hint="remove the directory and prepare it again",
      ) from error
    self.joints3d: bool = self._check_features()
    try:
      builder = tfds.builder_from_directory(self.directory)
      for shard in builder.info.splits["all"].filepaths:  # TFDS opens them when they are read
        if not os.path.getsize(shard):
          raise ValueError(f"{shard.name} is empty")
      raw = tfds.decode.DeserializeMethod.RAW_BYTES
      self._records = builder.as_data_source("all", deserialize_method=raw)
      # TFDS cannot leave features out of a data source; what we leave out is in the index.
      names = builder.info.features.keys() & {"id", "frame_size", "keypoints", "joints3d"}
      self._features = tfds.features.FeaturesDict({n: builder.info.features[n] for n in names})
    except Exception as error:  # TFDS raises its own types, some of them plain RuntimeErrors
      raise DataError(f"{self.directory}: {error}") from error
    columns = (self.ids, self.labels, self.subjects, self.videos, self.num_frames, self.digests)
    lengths = [len(column) for column in columns]
    if set(lengths) != {len(self._records)}:
      raise DataError(
        self.directory,
        expected=f"{len(self._records)} clips in each column of index.json, one per record",
        got=", ".join(map(str, lengths)),
      )
    for name, splits in self.protocols.items():
      for split, rows in splits.items():
        if rows.size and not (rows.min() >= 0 and rows.max() < len(self)):
          where = f"{self.directory}: protocol {name!r}: {split} rows"
          raise DataError(where, expected=f"0 to {len(self) - 1}", got="others")
    if len(set(self.ids)) < len(self.ids):
      raise DataError(self.directory / "index.json", expected="unique ids", got="repeated ones")

  def __len__(self) -> int:
    return len(self.ids)

  def __getitem__(self, row: int) -> dict[str, Any]:
    """Returns what only the record of a row holds.

    id         str
    frame_size int32[2]             height, width
    keypoints  float32[T, M, V, 3]  x, y in pixels, score; all the points of the layout; read-only
    joints3d   float32[T, M, V, 3]  metres, in the camera's frame; only if `joints3d` is true
    """
    id = self.ids[row]
    try:
      record = self._features.deserialize_example_np(self._records[row])
      record["id"] = record["id"].decode()
    except Exception as error:  # ArrayRecord and TFDS raise many types
      raise DataError(
        f"{self.directory}: record {row}",
        expected=f"clip {id!r}",
        got=str(error).partition("\n")[0],
        hint="the files were changed: remove the directory and prepare it again",
      ) from error
    if record["id"] != id or digest(record) != self.digests[row]:
      raise DataError(
        f"{self.directory}: record {row}",
        expected=f"clip {id!r} as in index.json",
        got=f"{record['id']!r} with other key points",
        hint="the files were changed: remove the directory and prepare it again",
      )
    return record

  def track(self, name: str) -> Track:
    """Returns a track of the set; DataError where it has none of this name."""
    if name != "pose":
      raise DataError(f"{self.directory}: track", expected="pose", got=name)
    about = {"layout": self.layout, "keypoints": True}
    if self.joints3d:
      about["joints3d"] = True
    return Track(about, lambda row: self[row] | {"layout": self.layout})

  def rows(
    self, split: str, *, protocol: str | None = None, fold: Sequence[int] | None = None
  ) -> Int64[np.ndarray, " rows"]:
    """Returns the rows of a split ("train", "test") of a protocol, the first one by default.

    `fold=(i, n)` cuts the training rows by subject: "val" is the i-th of n groups of subjects of
    about equal size, "train" the others; with n subjects in n folds, one subject is left out.

    Raises:
      DataError: an unknown protocol, split or fold; a clip, a subject or the very key points of a
        clip in both train and test; or a label that is no class (in "test", -1: hidden).
    """
    protocol = next(iter(self.protocols), None) if protocol is None else protocol
    if protocol not in self.protocols:
      raise DataError(
        f"{self.directory}: protocol", expected=_one_of(self.protocols), got=repr(protocol)
      )
    where = f"{self.directory}: protocol {protocol!r}"
    splits = dict(self.protocols[protocol])
    self._check(splits, where, shared_subjects=protocol in self.shared_subjects)
    if fold is not None:
      train = splits["train"]
      held_out = np.isin(self.subjects[train], _fold(self.subjects[train], *fold, where=where))
      splits |= {"train": train[~held_out], "val": train[held_out]}
    if split not in splits:
      hint = "a fold makes 'val' of training subjects" if split == "val" else None
      raise DataError(f"{where}: split", expected=_one_of(splits), got=repr(split), hint=hint)
    return splits[split]

  def fingerprint(self) -> str:
    """Returns a short hash of all that a run relies on: clips, their content, and who is where."""
    protocols = {
      name: {split: rows.tolist() for split, rows in splits.items()}
      for name, splits in self.protocols.items()
    }
    columns = (self.labels, self.subjects, self.digests)
    text = json.dumps([self.ids, *(column.tolist() for column in columns), protocols])
    return hashlib.sha256(text.encode()).hexdigest()[:16]

  def _check_features(self) -> bool:
    """Whether there are 3-D joints; DataError unless features.json is as we write it.

    TFDS imports the Python classes that this file names: it must not open a set from elsewhere
    before they are known to be its own.
    """
    path = self.directory / "features.json"
    try:
      found = json.loads(path.read_text(encoding="utf-8"))
      joints3d = "joints3d" in found["featuresDict"]["features"]
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
      found, joints3d = None, False
    num_joints = self.layout.num_joints
    expected = features(num_persons=self.num_persons, num_joints=num_joints, joints3d=joints3d)
    if found != json.loads(json_format.MessageToJson(expected.to_proto())):
      raise DataError(
        path,
        expected=f"the features of {num_joints} joints, {self.num_persons} persons",
        got="others",
        hint="remove the directory and prepare it again",
      )
    return joints3d

  def _check(self, splits: dict[str, np.ndarray], where: str, *, shared_subjects: bool) -> None:
    for name, rows in splits.items():
      if len(np.unique(rows)) < len(rows):
        raise DataError(f"{where}: {name} rows", expected="each row once", got="repeated ones")
      lowest = 0 if name == "train" else -1
      labels = self.labels[rows]
      wrong = rows[(labels < lowest) | (labels >= len(self.class_names))]
      if wrong.size:
        raise DataError(
          f"{where}: label of {name} clip {self.ids[wrong[0]]!r}",
          expected=f"{lowest} to {len(self.class_names) - 1}",
          got=str(self.labels[wrong[0]]),
          hint=f"{len(wrong)} such clips",
        )
    train, test = splits["train"], splits["test"]
    ids, digests = np.array(self.ids), self.digests
    copies = np.isin(digests[test], digests[train]) & (digests[test] != "")
    for what, shared in (
      ("clip", np.intersect1d(ids[train], ids[test])),
      ("subject", np.intersect1d(self.subjects[train], self.subjects[test])),
      ("key points", ids[test[copies]]),
    ):
      if shared.size and not (what == "subject" and shared_subjects):
        got = f"{shared.size}: {', '.join(map(repr, shared[:5].tolist()))}"
        raise DataError(where, expected=f"no {what} in both train and test", got=got)


def features(*, num_persons: int, num_joints: int, joints3d: bool) -> tfds.features.FeaturesDict:
  """Returns what TFDS has to know of our records."""
  points = tfds.features.Tensor(
    shape=(None, num_persons, num_joints, 3),
    dtype=np.float32,
    encoding=tfds.features.Encoding.BYTES,  # written several times faster than the default
  )
  return tfds.features.FeaturesDict(
    {
      "id": tfds.features.Text(),
      "label": np.int64,
      "subject": tfds.features.Text(),
      "video": tfds.features.Text(),
      "num_frames": np.int64,
      "frame_size": tfds.features.Tensor(shape=(2,), dtype=np.int32),
      "keypoints": points,
      **({"joints3d": points} if joints3d else {}),
    }
  )


def digest(record: Mapping[str, Any]) -> str:
  """Returns a short hash of a clip's points, which are its key points or, where there are none, its
  `joints3d`; nothing for one in which nobody is seen.
  """
  for name in ("keypoints", "joints3d"):
    if name in record and record[name].any():
      return hashlib.sha256(record[name].tobytes()).hexdigest()[:16]
  return ""


def is_prepared(path: pathlib.Path) -> bool:
  """Whether a folder is a prepared set or holds versions of one, whole or not."""
  part = re.compile(r"\d+\.\d+\.\d+\.part")
  if not path.is_dir():
    return False
  parts = [path, *path.iterdir()]
  return any((folder / "index.json").is_file() for folder in parts) or any(
    part.fullmatch(folder.name) and folder.is_dir() for folder in parts
  )


def _newest_version(directory: pathlib.Path) -> pathlib.Path:
  if (directory / "index.json").is_file():
    return directory
  # Half-made versions have no index, which is written last.
  versions = [path.parent for path in directory.glob("*/index.json")]
  versions = [path for path in versions if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
  if not versions and is_prepared(directory):
    raise DataError(
      directory,
      expected="a prepared data set",
      got="one that is not whole",
      hint="the prepare.py command that was stopped goes on with it",
    )
  if not versions:
    raise DataError(
      directory,
      expected="a prepared data set, DATA/<name>/<version>/ with an index.json",
      got="none" if directory.is_dir() else "a file" if directory.exists() else "no such folder",
      hint=f"python datasets/prepare.py {directory.name} --manual_dir=RAW "
      f"--data_dir={directory.parent}, or of a pickle: pyskl_pickle --manual_dir=FILE",
    )
  return max(versions, key=lambda path: tuple(map(int, path.name.split("."))))


def _integers(values: Any, dtype: type) -> np.ndarray:
  # NumPy would take 2.7, true and "2" for a 2 as well.
  for value in values:
    if type(value) is not int:
      raise TypeError(f"expected integers, got {value!r}")
  return np.array(values, dtype)


def _truth(value: Any) -> bool:
  if not isinstance(value, bool):
    raise TypeError(f"expected true or false, got {value!r}")
  return value


def _texts(values: Any, length: int) -> tuple[str, ...]:
  if not (isinstance(values, list) and all(isinstance(value, str) for value in values)):
    raise TypeError(f"expected a list of texts, got {values!r}")
  if len(values) != length:
    raise ValueError(f"expected {length} texts, one per class, got {len(values)}")
  return tuple(values)


def _fold(subjects: np.ndarray, i: int, n: int, *, where: str) -> np.ndarray:
  names, counts = np.unique(subjects, return_counts=True)
  if not (2 <= n <= len(names) and 0 <= i < n):
    raise DataError(
      f"{where}: fold",
      expected=f"i/n with i from 0 to n - 1, and n from 2 to {len(names)} training subjects",
      got=f"{i}/{n}",
    )
  # From the largest subject to the smallest: every group then takes one of each size.
  return names[np.argsort(-counts, kind="stable")][i::n]


def _one_of(names: Any) -> str:
  return " or ".join(map(repr, names)) or "at least one in index.json"
