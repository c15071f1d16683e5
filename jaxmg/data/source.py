"""A prepared directory: what its index knows of the clips, and its tracks, which hold their data.

    DATA/<name>/<version>/
      index.json     ids, labels, subjects, recordings, classes, protocols
      pose/          a track: track.json (which clips, their digests, fields of the kind) and a data
      video/         set of TFDS's; see `jaxmg.data.tracks`

In a set of before there were tracks, the fields, digests and data of "pose" are beside each other.
"""

import json
import pathlib
import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Int64

from jaxmg import errors, fields
from jaxmg.data import records
from jaxmg.errors import DataError

INDEX = "index.json"

_VERSION = re.compile(r"\d+\.\d+\.\d+")
_SIDES = re.compile(r"left|right|(?<![a-z])[lr](?![a-z])")
_OTHER = {"left": "right", "right": "left", "l": "r", "r": "l"}


class Source:
  """The clips of a prepared directory: the columns of its index, and its tracks.

  `directory` is `DATA/<name>/<version>`, or `DATA/<name>` for its newest version. Ids, labels,
  subjects and recordings of all rows are attributes, read from `index.json`: splits, folds and
  counts decode no record. `class_names` may be none where all labels are hidden.
  `class_short_names` are the class names, and `class_groups` is None, where the data set declares
  none. `track("pose")` gives the data. `jaxmg.data.memory` makes one of arrays.

  Raises:
    DataError: no prepared data set there, or one whose index is not as it was written.
  """

  is_held = False  # whether it is in memory alone: `directory` is then but a name

  def __init__(self, directory: str | pathlib.Path):
    self.directory = _newest_version(pathlib.Path(directory))
    path = self.directory / INDEX
    with records.as_written(path, "an index"):
      index = json.loads(path.read_text(encoding="utf-8"))
      self._before = None if "sha256" in index else index
      if self._before is None and fields.digest(index) != index["sha256"]:
        raise ValueError("another one than was written")
      if self._before and not (self.directory / "features.json").is_file():
        raise ValueError("no digest")
      self._take(index)
    self._tracks: dict[str, records.Track] = {}
    self._check_rows()

  @classmethod
  def in_memory(cls, index: Mapping[str, Any], tracks: Mapping[str, records.Held]) -> "Source":
    """The set of an index that is in no file, as `jaxmg.data.memory` makes it."""
    made = cls.__new__(cls)
    made.directory, made._before, made._tracks = pathlib.Path(index["name"]), None, dict(tracks)
    made.is_held = True
    try:
      made._take(index)
    except ValueError as error:
      raise DataError(f"{made.directory}: {error}") from error
    made._check_rows()
    return made

  def _take(self, index: Mapping[str, Any]) -> None:
    self.digest = fields.digest(index)
    clips = index["clips"]
    self.name: str = index["name"]
    self.version: str = index["version"]
    self.class_names: tuple[str, ...] = records.texts(index["class_names"])
    short_names, groups = index.get("class_short_names"), index.get("class_groups")
    self.class_short_names: tuple[str, ...] = (
      self.class_names if short_names is None else records.texts(short_names, len(self.class_names))
    )
    self.class_groups: tuple[str, ...] | None = (
      None if groups is None else records.texts(groups, len(self.class_names))
    )
    self.mirror: bool = _truth(index["mirror"])
    self.synthetic: bool = _truth(index["synthetic"])
    self.protocols: dict[str, dict[str, np.ndarray]] = {
      name: {split: records.integers(rows[split], np.int64) for split in ("train", "test")}
      for name, rows in index["protocols"].items()
    }
    # Protocols across cameras show the same subjects on both sides.
    self.shared_subjects: tuple[str, ...] = tuple(index.get("shared_subjects", ()))
    self.ids: tuple[str, ...] = records.texts(clips["id"])
    self.labels = records.integers(clips["label"], np.int32)
    if not self.class_names and (self.labels >= 0).any():
      raise ValueError("expected names of classes, got none")
    self.subjects = np.array(records.texts(clips["subject"], len(self.ids)), str)
    recordings = clips["video" if self._before else "recording"]
    self.recordings = np.array(records.texts(recordings, len(self.ids)), str)
    if len(self.labels) != len(self.ids):
      raise ValueError(f"expected {len(self.ids)} labels, one a clip, got {len(self.labels)}")
    if len(set(self.ids)) < len(self.ids):
      raise ValueError("expected unique ids, got repeated ones")

  def _check_rows(self) -> None:
    for name, splits in self.protocols.items():
      for split, rows in splits.items():
        if rows.size and not (rows.min() >= 0 and rows.max() < len(self)):
          where = f"{self.directory}: protocol {name!r}: {split} rows"
          raise DataError(where, expected=f"0 to {len(self) - 1}", got="others")

  def __len__(self) -> int:
    return len(self.ids)

  @property
  def track_names(self) -> tuple[str, ...]:
    """The tracks that are there."""
    if self.is_held:
      return tuple(sorted(self._tracks))
    found = {path.parent.name for path in self.directory.glob(f"*/{records.TRACK}")}
    found = {name for name in found if not name.endswith(".part")}
    return tuple(sorted(found | {"pose"} if self._before else found))

  def track(self, name: str) -> records.Track:
    """A track of the set; DataError where it has none of this name, or a damaged one."""
    if name not in self._tracks:
      if name not in self.track_names:
        got = " and ".join(self.track_names) or "none"
        raise DataError(f"{self.directory}: track", expected=name, got=got)
      if self._before and name == "pose":
        with records.as_written(self.directory / INDEX, "an index"):
          track = records.read_pose_of_before(self.directory, self._before)
        self.check_copies(track)  # no digest of the whole keeps its columns
      else:
        track = self.read_track(self.directory / name)
      self._tracks[name] = track
    return self._tracks[name]

  def read_track(self, folder: pathlib.Path) -> records.Track:
    """The track of a folder, which may not have its name yet; DataError for one of another set."""
    return records.read(folder, self.ids, self.digest)

  def rows(
    self, split: str, *, protocol: str | None = None, fold: Sequence[int] | None = None
  ) -> Int64[np.ndarray, " rows"]:
    """Returns the rows of a split ("train", "test") of a protocol, the first one by default.

    `fold=(i, n)` cuts the training rows by subject: "val" is the i-th of n groups of subjects of
    about equal size, "train" the others; with n subjects in n folds, one subject is left out.

    Raises:
      DataError: an unknown protocol, split or fold; a clip or a subject in both train and test; or
        a label that is no class (in "test", -1: hidden).
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

  def fingerprint(self, names: Collection[str]) -> str:
    """A short hash of all that a run on these tracks relies on: clips, who is where, their data."""
    tracks = {name: self.track(name).fingerprint() for name in sorted(names)}
    return fields.digest({"clips": self.clips_fingerprint(), "tracks": tracks})

  def clips_fingerprint(self) -> str:
    """A short hash of which clips there are, and of who is where."""
    protocols = [  # in their order: the first is the default
      [name, {split: rows.tolist() for split, rows in splits.items()}]
      for name, splits in self.protocols.items()
    ]
    columns = [self.ids, self.labels.tolist(), self.subjects.tolist(), protocols]
    return fields.digest({"columns": columns})

  def ids_fingerprint(self) -> str:
    """A short hash of the ids alone."""
    return fields.digest({"ids": self.ids})

  def describe(
    self,
    names: Collection[str],
    *,
    protocol: str | None = None,
    fold: Sequence[int] | None = None,
  ) -> dict[str, Any]:
    """The set in the recipe of a run on these tracks."""
    return {
      "name": self.name,
      "version": self.version,
      "fingerprint": self.fingerprint(names),
      "clips": self.clips_fingerprint(),
      "ids": self.ids_fingerprint(),
      "directory": None if self.is_held else str(self.directory.resolve()),
      "protocol": protocol or next(iter(self.protocols), None),
      "fold": fold,
      "synthetic": self.synthetic,
      "mirror": self.mirror,
      "names": fields.digest({"names": self.class_names}),
    }

  def check_copies(self, track: records.Track) -> None:
    """Raises DataError where a protocol trains on the very data of a clip that it tests on."""
    of = {
      row: content
      for row, content in zip(track.rows.tolist(), track.contents, strict=True)
      if content
    }
    for protocol, splits in self.protocols.items():
      trained = {of[row] for row in splits["train"].tolist() if row in of}
      copies = [self.ids[row] for row in splits["test"].tolist() if of.get(row) in trained]
      if copies:
        got = f"{len(copies)}: {', '.join(map(repr, copies[:5]))}"
        where = f"{self.directory}: protocol {protocol!r}"
        raise DataError(where, expected="no copies between train and test", got=got)

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
    ids = np.array(self.ids)
    for what, shared in (
      ("clip", np.intersect1d(ids[train], ids[test])),
      ("subject", np.intersect1d(self.subjects[train], self.subjects[test])),
    ):
      if shared.size and not (what == "subject" and shared_subjects):
        got = f"{shared.size}: {', '.join(map(repr, shared[:5].tolist()))}"
        raise DataError(where, expected=f"no {what} in both train and test", got=got)


def left_and_right(names: Sequence[str]) -> str:
  """A note on the classes that a mirror makes of each other, as their names tell; "" without any.

  They tell it by `left` and `right`, or by `l` and `r` as words; other languages are not known.
  """
  lower = [name.lower() for name in names]
  mirrored = [_SIDES.sub(lambda side: _OTHER[side[0]], name) for name in lower]
  pairs = [
    f"{names[i]!r} and {names[lower.index(name)]!r}"
    for i, name in enumerate(mirrored)
    if name in lower[i + 1 :]
  ]
  more = ", ..." if len(pairs) > 3 else ""
  title = "LEFT AND RIGHT: mirrored clips keep their labels, but sides tell these classes apart: "
  return f"{title}{', '.join(pairs[:3])}{more}" if pairs else ""


def is_whole(directory: pathlib.Path, track: str) -> bool:
  """Whether a set is there with this track."""
  return (directory / INDEX).exists() and track in Source(directory).track_names


def is_prepared(path: pathlib.Path) -> bool:
  """Whether a folder is a prepared set or holds versions of one, whole or not."""
  part = re.compile(r"\d+\.\d+\.\d+\.part")
  if not path.is_dir():
    return False
  parts = [path, *path.iterdir()]
  return any((folder / INDEX).is_file() for folder in parts) or any(
    part.fullmatch(folder.name) and folder.is_dir() for folder in parts
  )


def _newest_version(directory: pathlib.Path) -> pathlib.Path:
  if (directory / INDEX).is_file():
    return directory
  # Half-made versions have no index, which is written last.
  versions = [path.parent for path in directory.glob("*/index.json")]
  versions = [path for path in versions if _VERSION.fullmatch(path.name)]
  if not versions and is_prepared(directory):
    raise DataError(
      directory,
      expected="a prepared data set",
      got="one that is not whole",
      hint="the prepare.py command that was stopped goes on with it",
    )
  if not versions:
    # Of a version, what is prepared again is the set.
    folder = directory.parent if _VERSION.fullmatch(directory.name) else directory
    near = errors.nearest(folder.name, _names(folder.parent))
    raise DataError(
      directory,
      expected="a prepared data set, DATA/<name>/<version>/ with an index.json",
      got="none" if directory.is_dir() else "a file" if directory.exists() else "no such folder",
      hint=f"did you mean {folder.with_name(near)}?"
      if near
      else f"jaxmg prepare {folder.name} --manual_dir=RAW --data_dir={folder.parent}, or of a "
      f"pickle: pyskl_pickle --manual_dir=FILE --name={folder.name}",
    )
  return max(versions, key=lambda path: tuple(map(int, path.name.split("."))))


def _names(data_dir: pathlib.Path) -> list[str]:
  """The prepared sets of a folder."""
  return sorted({path.parent.parent.name for path in data_dir.glob(f"*/*/{INDEX}")})


def _truth(value: Any) -> bool:
  if not isinstance(value, bool):
    raise TypeError(f"expected true or false, got {value!r}")
  return value


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
