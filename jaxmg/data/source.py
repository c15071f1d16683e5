"""A prepared directory: its clips by row, and what its index knows without decoding any."""

import hashlib
import json
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Int64

from jaxmg.errors import DataError


class Source:
  """Random access to the records of a prepared directory, beside the columns of its index.

  `directory` is `DATA/<name>/<version>`, or `DATA/<name>` for its newest version. Ids, labels,
  subjects, videos and lengths of all rows are attributes, read from `index.json`: splits, folds and
  counts decode no record.

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
      self.skeleton: str = index["skeleton"]
      self.class_names: tuple[str, ...] = tuple(index["class_names"])
      self.mirror: bool = index["mirror"]
      self.num_persons: int = index["num_persons"]
      self.frame_size: tuple[int, int] = tuple(index["frame_size"])
      self.fps: float | None = index["fps"]
      self.synthetic: bool = index["synthetic"]
      self.protocols: dict[str, dict[str, list[int]]] = index["protocols"]
      self.ids: tuple[str, ...] = tuple(clips["id"])
      self.labels = np.array(clips["label"], np.int32)
      self.subjects = np.array(clips["subject"], str)
      self.videos = np.array(clips["video"], str)
      self.num_frames = np.array(clips["num_frames"], np.int32)
    except (KeyError, TypeError, ValueError) as error:
      got = f"{type(error).__name__}: {error}"
      raise DataError(
        self.directory / "index.json", expected="an index as prepare.py writes it", got=got
      ) from error
    try:
      builder = tfds.builder_from_directory(self.directory)
      raw = tfds.decode.DeserializeMethod.RAW_BYTES
      self._records = builder.as_data_source("all", deserialize_method=raw)
      # TFDS cannot leave features out of a data source; what we leave out is in the index.
      features = {name: builder.info.features[name] for name in ("id", "frame_size", "keypoints")}
      self._features = tfds.features.FeaturesDict(features)
    except Exception as error:  # TFDS raises its own types, some of them plain RuntimeErrors
      raise DataError(f"{self.directory}: {error}") from error
    columns = (self.ids, self.labels, self.subjects, self.videos, self.num_frames, self._records)
    if len({len(column) for column in columns}) > 1:
      raise DataError(
        self.directory,
        expected=f"{len(self._records)} clips in each column of index.json, one per record",
        got=", ".join(str(len(column)) for column in columns[:-1]),
      )
    if len(set(self.ids)) < len(self.ids):
      raise DataError(self.directory / "index.json", expected="unique ids", got="repeated ones")

  def __len__(self) -> int:
    return len(self.ids)

  def __getitem__(self, row: int) -> dict[str, Any]:
    """Returns what only the record of a row holds.

    id         str
    frame_size int32[2]             height, width
    keypoints  float32[T, M, V, 3]  x, y in pixels, score; all the points of the layout; read-only
    """
    record = self._features.deserialize_example_np(self._records[row])
    record["id"] = record["id"].decode()
    if record["id"] != self.ids[row]:
      raise DataError(
        f"{self.directory}: record {row}",
        expected=f"clip {self.ids[row]!r} as in index.json",
        got=repr(record["id"]),
        hint="prepare the data set again",
      )
    return record

  def rows(
    self, split: str, *, protocol: str | None = None, fold: Sequence[int] | None = None
  ) -> Int64[np.ndarray, " rows"]:
    """Returns the rows of a split ("train", "test") of a protocol, the first one by default.

    `fold=(i, n)` cuts the training rows by subject: "val" is the i-th of n groups of subjects of
    about equal size, "train" the others; with n subjects in n folds, one subject is left out.

    Raises:
      DataError: an unknown protocol, split or fold, a subject in two splits, or a label that is no
        class (in other splits than "train", -1 says that it is hidden).
    """
    protocol = next(iter(self.protocols), None) if protocol is None else protocol
    if protocol not in self.protocols:
      raise DataError(
        f"{self.directory}: protocol", expected=_one_of(self.protocols), got=repr(protocol)
      )
    where = f"{self.directory}: protocol {protocol!r}"
    splits = {name: np.array(rows, np.int64) for name, rows in self.protocols[protocol].items()}
    self._check(splits, where)
    if fold is not None:
      train = splits["train"]
      held_out = np.isin(self.subjects[train], _fold(self.subjects[train], *fold, where=where))
      splits |= {"train": train[~held_out], "val": train[held_out]}
    if split not in splits:
      hint = "a fold makes 'val' of training subjects" if split == "val" else None
      raise DataError(f"{where}: split", expected=_one_of(splits), got=repr(split), hint=hint)
    return splits[split]

  def fingerprint(self) -> str:
    """Returns a short hash of ids and labels in their order: what a saved iterator relies on."""
    columns = json.dumps([self.ids, self.labels.tolist()])
    return hashlib.sha256(columns.encode()).hexdigest()[:16]

  def _check(self, splits: dict[str, np.ndarray], where: str) -> None:
    split_of: dict[str, str] = {}
    for name, rows in splits.items():
      if rows.size and not (rows.min() >= 0 and rows.max() < len(self)):
        raise DataError(f"{where}: {name} rows", expected=f"0 to {len(self) - 1}", got="others")
      if len(np.unique(rows)) < len(rows):
        raise DataError(f"{where}: {name} rows", expected="each row once", got="repeated ones")
      for subject in np.unique(self.subjects[rows]).tolist():
        if split_of.setdefault(subject, name) != name:
          got = f"it in {split_of[subject]} and {name}"
          raise DataError(f"{where}: subject {subject!r}", expected="one split", got=got)
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


def _newest_version(directory: pathlib.Path) -> pathlib.Path:
  if (directory / "index.json").is_file():
    return directory
  # Half-made versions have no index, which is written last.
  versions = [path.parent for path in directory.glob("*/index.json")]
  versions = [path for path in versions if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
  if not versions:
    raise DataError(
      directory,
      expected="a prepared data set, DATA/<name>/<version>/ with an index.json",
      got="none" if directory.is_dir() else "a file" if directory.exists() else "no such folder",
      hint=f"python datasets/prepare.py {directory.name} --manual_dir=RAW "
      f"--data_dir={directory.parent}",
    )
  return max(versions, key=lambda path: tuple(map(int, path.name.split("."))))


def _fold(subjects: np.ndarray, i: int, n: int, *, where: str) -> np.ndarray:
  names, counts = np.unique(subjects, return_counts=True)
  if not (2 <= n <= len(names) and 0 <= i < n):
    raise DataError(
      f"{where}: fold",
      expected=f"(i, n) with 0 <= i < n, and n from 2 to {len(names)} training subjects",
      got=f"({i}, {n})",
    )
  # From the largest subject to the smallest: every group then takes one of each size.
  return names[np.argsort(-counts, kind="stable")][i::n]


def _one_of(names: Any) -> str:
  return " or ".join(map(repr, names)) or "at least one in index.json"
