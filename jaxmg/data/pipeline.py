# ruff: noqa: PT028 (test_batches is not a test)
"""Rows of a prepared directory -> batches (see `batch`): shuffle, read by the inputs, stack.

Host work only, and little of it: what changes shapes or indices. A batch is a function of its
number, so the state of an iterator is one integer, whatever the number of threads and processes.
Grain handles numbers alone: a batch of them is loaded at once.
"""

import functools
import hashlib
import sys
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import grain
import numpy as np
from jaxtyping import Integer

from jaxmg import ranges
from jaxmg.data import batch
from jaxmg.data.records import Track
from jaxmg.data.source import Source
from jaxmg.errors import ConfigError, DataError

# Of the memory that training keeps clips in: more of them are read anew in each epoch.
KEPT_BYTES = 2 * 2**30


def train_batches(
  source: Source,
  rows: Integer[np.ndarray, " rows"] | Sequence[int],
  inputs: Mapping[str, Any],
  *,
  balanced: bool = False,
  batch_size: int,
  seed: int,
  process_index: int = 0,
  process_count: int = 1,
  num_threads: int | None = None,
  may_lack: bool = False,
) -> grain.DatasetIterator[dict[str, Any]]:
  """Returns an endless iterator over batches of `rows`, shuffled anew in every epoch.

  Epochs follow each other without a seam, so every clip comes once per epoch and no batch is short.
  With `balanced`, it is every class that has clips that comes once in as many clips as there are
  such classes, by one of its clips, drawn at random.
  Every one of the `inputs` (`jaxmg.inputs`) of a clip draws from (seed, epoch, row), so that what
  each draws first, its cut in time, is the same for all. `batch_size` counts all processes: theirs,
  one behind the other, are the batch of a single process. `get_state()` counts batches: a state
  fits any number of processes, but knows nothing of the source, rows and options that it was made
  with; `fingerprint` does. With `may_lack`, a clip need not be in the track of every input.
  What an input has to keep of a clip (`kept`) stays in memory, up to `KEPT_BYTES` for all, from
  the first time that it is read. By default, `num_threads` is 1 where all inputs are such, else 2.

  Raises:
    DataError: fewer rows than a batch takes; while iterating, a clip that cannot be used.
    ConfigError: a batch size that the processes cannot share, an input that cannot be taken from
      the source, or another kind of argument.
  """
  rows = _checked(source, rows, inputs)
  share = _share(batch_size, process_count)
  if not ranges.is_whole(seed) or seed < 0:
    raise ConfigError("seed", expected="a whole number from 0", got=repr(seed))
  if len(rows) < batch_size:
    raise DataError(
      f"{source.directory}: training clips",
      expected=f"at least one batch of {batch_size}",
      got=str(len(rows)),
      hint="choose a smaller batch size",
    )
  tracks = _tracks(source, inputs, rows, may_lack)

  labels = source.labels[rows]
  drawn = np.unique(labels) if balanced else rows  # each of them once per epoch
  kept = _Kept()

  def row_of(one: int, epoch: int) -> int:
    if not balanced:
      return one
    rng = np.random.default_rng((seed, epoch, one, 1))
    return int(rng.choice(rows[labels == one]))

  def load(position: int, i: int) -> dict[str, Any]:
    epoch = position // len(drawn)
    row = row_of(int(drawn[i]), epoch)
    return _load(
      source,
      row,
      tracks,
      inputs,
      lambda one, record: one.read(record, np.random.default_rng((seed, epoch, row))),
      may_lack=may_lack,
      kept=kept,
    )

  # Of places: for each element of a list, Grain would count its bytes.
  order = grain.MapDataset.range(len(drawn)).seed(seed).shuffle().repeat()
  threads = _threads(inputs, num_threads)
  return iter(_batches(order, load, share, process_index, process_count, threads))


def test_batches(
  source: Source,
  rows: Integer[np.ndarray, " rows"] | Sequence[int],
  inputs: Mapping[str, Any],
  *,
  num_clips: int,
  batch_size: int,
  first_batch: int = 0,
  process_index: int = 0,
  process_count: int = 1,
  num_threads: int | None = None,
  may_lack: bool = False,
  without: Collection[str] = (),
) -> grain.IterDataset[dict[str, np.ndarray]]:
  """Returns an iterable over batches of `rows` in their order, each of `num_clips` test clips.

  The last batch is filled with copies of the last clip whose mask is False: they are as finite as
  the rest, and whoever writes scores by row writes the same ones again. Processes as in training.
  Batches before `first_batch` are left out. With `may_lack`, a clip need not be in the track of
  every input, and none is shown the inputs in `without`.

  Raises:
    DataError: no rows; while iterating, a clip that cannot be used.
    ConfigError: as in training.
  """
  rows = _some(source, rows, inputs)
  tracks = _tracks(source, inputs, rows, may_lack)
  share = _share(batch_size, process_count)
  padded = _padded(rows, batch_size)
  options = {"num_clips": num_clips, "may_lack": may_lack, "without": without}

  def load(position: int, row: int) -> dict[str, Any]:
    read = lambda one, record: one.read_test(record, num_clips)  # noqa: E731
    clip = _load(source, row, tracks, inputs, read, **options)
    return clip | {"mask": np.bool_(position < len(rows))}

  order = grain.MapDataset.source(padded.tolist())
  first = process_index + first_batch * process_count
  return _batches(order, load, share, first, process_count, _threads(inputs, num_threads))


def drawn_batches(
  source: Source,
  rows: Integer[np.ndarray, " rows"] | Sequence[int],
  inputs: Mapping[str, Any],
  *,
  views: int,
  batch_size: int,
  seed: int = 0,
  first_batch: int = 0,
  num_threads: int | None = None,
) -> grain.IterDataset[dict[str, np.ndarray]]:
  """Returns an iterable that has `views` batches of training clips for each of `test_batches`.

  They are of the same rows, in their order, and say which of the views they are, "view" int32[B].
  An input draws from (seed, view, row), as in the epoch of this number; what it draws first is the
  same for whatever else is made of the set. Raises as `test_batches`.
  """
  rows = _some(source, rows, inputs)
  tracks = _tracks(source, inputs, rows)
  batch_size = _share(batch_size, 1)
  parts = _padded(rows, batch_size).reshape(-1, batch_size)
  drawn = [(view, row) for part in parts.tolist() for view in range(views) for row in part]

  def load(_: int, one: tuple[int, int]) -> dict[str, Any]:
    view, row = one
    draw = lambda: np.random.default_rng((seed, view, row))  # noqa: E731 (one for each input)
    clip = _load(source, row, tracks, inputs, lambda one, record: one.read(record, draw()))
    return clip | {"view": np.int32(view)}

  order = grain.MapDataset.source(drawn)
  threads = _threads(inputs, num_threads)
  return _batches(order, load, batch_size, first_batch * views, 1, threads)


def _padded(rows, batch_size):
  return np.append(rows, np.repeat(rows[-1], -len(rows) % batch_size))


def fingerprint(
  source: Source, rows: Integer[np.ndarray, " rows"], tracks: Collection[str], **options: Any
) -> dict[str, Any]:
  """Returns what the batches of `train_batches` of these tracks depend on, by name."""
  return {
    "data": source.fingerprint(tracks),
    "rows": hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()[:16],
    "number of rows": len(rows),
    **options,
  }


def _tracks(
  source: Source,
  inputs: Mapping[str, Any],
  rows: Integer[np.ndarray, " rows"],
  may_lack: bool = False,
) -> dict[str, Track]:
  """The tracks that the inputs read, by name; an error for what they or their clips lack."""
  tracks = {}
  for one in inputs.values():
    track = tracks[one.track] = source.track(one.track)
    try:
      one.check(track.about)
    except ValueError as error:
      raise ConfigError(f"{source.directory}: {error}") from error
    missing = [row for row in rows.tolist() if row not in track]
    if missing and not may_lack:
      where = f"{track.folder}: clip {source.ids[missing[0]]!r}"
      raise DataError(where, expected="its data", got="none", hint=f"{len(missing)} such clips")
  return tracks


def _checked(source: Any, rows: Any, inputs: Any) -> Integer[np.ndarray, " rows"]:
  """The rows as an array; an error for what is none, or no source, or no inputs by name."""
  if not isinstance(source, Source):
    expected = "a Source, or what memory.from_arrays gives"
    raise ConfigError("source", expected=expected, got=type(source).__name__)
  if not isinstance(inputs, Mapping) or not inputs:
    got = type(inputs).__name__
    raise ConfigError("inputs", expected='inputs by name, like {"pose": Graph(...)}', got=got)
  found, where = np.asarray(rows), f"{source.directory}: rows"
  if (found.dtype.kind not in "iu" and found.shape != (0,)) or found.ndim != 1:
    got, hint = f"{found.dtype}{[*found.shape]}", "of a mask: np.flatnonzero(mask)"
    got, hint = (repr(rows), f"data.rows({rows!r})") if isinstance(rows, str) else (got, hint)
    raise DataError(where, expected='int[N], such as data.rows("train")', got=got, hint=hint)
  found = found.astype(np.int64)
  if found.size and not (found.min() >= 0 and found.max() < len(source)):
    got = f"{found.min()} to {found.max()}"
    raise DataError(where, expected=f"0 to {len(source) - 1}", got=got)
  return found


def _some(source: Any, rows: Any, inputs: Any) -> Integer[np.ndarray, " rows"]:
  """As `_checked`; an error for no rows as well."""
  rows = _checked(source, rows, inputs)
  if len(rows) == 0:
    raise DataError(f"{source.directory}: clips to evaluate", expected="at least 1", got="0")
  return rows


def _share(batch_size: int, process_count: int) -> int:
  if not ranges.is_whole(batch_size):
    raise ConfigError("batch size", expected="a whole number", got=repr(batch_size))
  if batch_size < 1 or batch_size % process_count:
    raise ConfigError(
      "batch size", expected=f"a multiple of {process_count} (processes)", got=str(batch_size)
    )
  return batch_size // process_count


def _threads(inputs: Mapping[str, Any], num_threads: int | None) -> int:
  """Reading poses holds Python's lock, and a second thread costs; decoding pictures does not."""
  if num_threads is not None:
    return num_threads
  return 1 if all(map(_keeps, inputs.values())) else 2


def _keeps(one: Any) -> bool:
  """Whether an input has a `kept` for its `read`; one that it inherits is not for a new `read`."""
  first = next(vars(kind) for kind in type(one).__mro__ if {"read", "kept"} & vars(kind).keys())
  return "kept" in first


def _batches(
  order: grain.MapDataset,
  load: Callable[[int, Any], dict[str, Any]],
  share: int,
  process_index: int,
  process_count: int,
  num_threads: int,
) -> grain.IterDataset:
  """Batches of what `load(position, one)` makes of each in the order."""

  def load_all(number: int, ones: list[Any]) -> dict[str, Any]:
    return batch.stack([load(number * share + i, one) for i, one in enumerate(ones)])

  batches = order.batch(share, drop_remainder=True, batch_fn=list).map_with_index(load_all)
  # Grain's default keeps 500 elements ready, and our elements are whole batches.
  options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * num_threads)
  return batches[process_index::process_count].to_iter_dataset(options)


class _Kept:
  """The records of clips in memory, as their inputs keep them, while there is room."""

  def __init__(self):
    self._records: dict[tuple[str, int], Mapping[str, Any]] = {}
    self._room, self._lock = KEPT_BYTES, threading.Lock()

  def find(self, name: str, one: Any, row: int, read: Callable[[], Any]) -> Any:
    """What the input of this name keeps of the record that `read` reads."""
    if (found := self._records.get((name, row))) is not None:
      return found
    if (record := read()) is None or not _keeps(one):
      return record
    kept = one.kept(record)
    arrays = [x for x in kept.values() if isinstance(x, np.ndarray)]
    size = sum(map(sys.getsizeof, [kept, *arrays]))
    with self._lock:
      if size <= self._room and (name, row) not in self._records:
        self._records[name, row] = kept
        self._room -= size
    return kept


def _load(
  source: Source,
  row: int,
  tracks: Mapping[str, Track],
  inputs: Mapping[str, Any],
  read: Callable[[Any, Any], Any],
  *,
  num_clips: int | None = None,
  may_lack: bool = False,
  without: Collection[str] = (),
  kept: _Kept | None = None,
) -> dict[str, Any]:
  options = {"num_clips": num_clips, "may_lack": may_lack}
  records = {}  # of the tracks that were read; making a `functools.cache` takes longer

  def record(track: str) -> Any:
    if track not in records:
      records[track] = tracks[track][row] if row in tracks[track] else None  # noqa: SIM401
    return records[track]

  def given(name: str, one: Any) -> Any:
    if name in without:
      return None
    whole = functools.partial(record, one.track)
    return whole() if kept is None else kept.find(name, one, row, whole)

  try:
    found = {name: given(name, one) for name, one in inputs.items()}
    if all(record is None for record in found.values()):
      raise ValueError("expected data of one input at least, got none")
    parts = {name: batch.part(one, found[name], read, **options) for name, one in inputs.items()}
  except Exception as error:  # whatever it is, it came from this clip, and Grain does not say so
    raise DataError(f"{source.directory}: clip {source.ids[row]!r}: {error}") from error
  return parts | {"label": source.labels[row], "clip": np.int32(row), "mask": np.bool_(True)}
