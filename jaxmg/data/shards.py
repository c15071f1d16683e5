"""Records on the disk: ArrayRecord shards, written as records come, in TFDS's format.

A journal beside them has a line for each shard that is whole, so that a killed writer goes on. A
line begins with its SHA-256 and holds that of the shard: nothing is added to what is damaged.
"""

import contextlib
import hashlib
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import tensorflow_datasets as tfds
from array_record.python import array_record_module
from tensorflow_datasets.core import example_serializer, naming

from jaxmg import files
from jaxmg.errors import StorageError

SPLIT = "clips"  # `all` is TFDS's name for the union of splits
JOURNAL = "journal.jsonl"
INFO = ("dataset_info.json", "features.json")  # TFDS's
SHARD_BYTES = 256 << 20
_FIELDS = {"shard", "records", "bytes", "state", "sha256"}  # of a line of the journal
# Each record by itself, for random access. Level 1 takes a third of the time of TFDS's level 3, and
# 6 % more of the disk.
OPTIONS = "group_size:1,zstd:1"


class Writer:
  """Writes records into a folder, in shards of about 256 MiB; holds none of them.

  Of a killed writer, those shards are kept that are whole and were closed with a state that still
  `holds`. `restored` are their states; `discarded` counts the others, which are removed.
  """

  def __init__(
    self, folder: pathlib.Path, info: tfds.core.DatasetInfo, *, holds: Callable[[Any], bool]
  ):
    self._folder, self._info = folder, info
    self._serializer = example_serializer.ExampleSerializer(info.features.get_serialized_info())
    self._names = naming.ShardedFileTemplate(
      data_dir=folder,
      dataset_name=info.name,
      split=SPLIT,
      filetype_suffix=info.file_format.file_suffix,
      # How many there will be is not known when the first is written.
      template="{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_INDEX}",
    )
    self._lengths: list[int] = []  # records of each whole shard
    self._num_bytes = 0  # of all records
    self._shard = None  # that is not whole: its writer, and what is in it
    self._records = self._bytes = 0
    self.restored: list[Any] = []
    lines = read_journal(folder)
    for number, line in enumerate(lines):
      whole = line["shard"] == number and self._digest(number) == line["sha256"]
      if not (whole and holds(line["state"])):
        break
      self._lengths.append(line["records"])
      self._num_bytes += line["bytes"]
      self.restored.append(line["state"])
    self.discarded = len(lines) - len(self.restored)
    keep = lines[: len(self.restored)]
    whole = {os.path.basename(self._path(shard)) for shard in range(len(keep))}
    for path in folder.glob(f"{info.name}-{SPLIT}.*"):  # first: the disk may be full
      if path.name not in whole:  # nor may any be written again: there may be fewer this time
        path.unlink()
    with files.replace(folder / JOURNAL) as journal:
      journal.write_text("".join(map(_line, keep)), encoding="utf-8")

  @property
  def full(self) -> bool:
    """Whether the open shard is large enough to be closed."""
    return self._bytes >= SHARD_BYTES

  def write(self, record: Mapping[str, Any]) -> None:
    """Appends a record of the features of `info`."""
    data = self._serializer.serialize_example(self._info.features.encode_example(record))
    with self._failing():
      if self._shard is None:
        path = self._path(len(self._lengths))
        self._shard = array_record_module.ArrayRecordWriter(path, OPTIONS)
      self._shard.write(data)
    self._records += 1
    self._bytes += len(data)

  def close_shard(self, state: Any) -> None:
    """Makes the open shard whole, and keeps a state of the caller's with it."""
    if self._shard is None:
      return
    path = self._path(len(self._lengths))
    with self._failing():
      self._shard.close()
      files.sync(path)
    line = {"shard": len(self._lengths), "records": self._records, "bytes": self._bytes}
    line["state"] = state
    line["sha256"] = self._digest(len(self._lengths))
    self._lengths.append(self._records)
    self._num_bytes += self._bytes
    self._shard, self._records, self._bytes = None, 0, 0
    path = self._folder / JOURNAL
    with files.naming(path), open(path, "a", encoding="utf-8") as journal:
      journal.write(_line(line))
      journal.flush()
      os.fsync(journal.fileno())

  def finish(self) -> None:
    """Writes what TFDS wants to know of the shards, all of which are closed."""
    split = tfds.core.SplitInfo(
      name=SPLIT,
      shard_lengths=self._lengths,
      num_bytes=self._num_bytes,
      filename_template=self._names,
    )
    self._info.set_splits(tfds.core.splits.SplitDict([split]))
    with files.naming(self._folder):
      self._info.write_to_directory(self._folder)
    for name in INFO:
      files.sync(self._folder / name)

  def _path(self, shard: int) -> str:
    return os.fspath(self._names.sharded_filepath(shard_index=shard, num_shards=None))

  def _digest(self, shard: int) -> str | None:
    path = self._path(shard)
    if not os.path.exists(path):
      return None
    with open(path, "rb") as file:
      return hashlib.file_digest(file, "sha256").hexdigest()

  @contextlib.contextmanager
  def _failing(self) -> Iterator[None]:
    """ArrayRecord's errors are of many types, and all of the disk."""
    try:
      yield
    except Exception as error:
      path = self._path(len(self._lengths))
      raise StorageError(f"{path}: {str(error).partition(chr(10))[0]}") from error


def read_journal(folder: pathlib.Path) -> list[Any]:
  """The lines of the shards that are whole, up to the first that is damaged or half written."""
  path = folder / JOURNAL
  lines = []
  if path.exists():
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True):
      _, _, text = line.rstrip("\n").partition(" ")
      if line != _checked(text):
        break
      try:
        content = json.loads(text)
      except (ValueError, RecursionError):
        break
      if not isinstance(content, dict) or not content.keys() >= _FIELDS:  # an earlier version's
        break
      lines.append(content)
  return lines


def _line(content: Any) -> str:
  return _checked(json.dumps(content))


def _checked(text: str) -> str:
  return f"{hashlib.sha256(text.encode()).hexdigest()} {text}\n"
