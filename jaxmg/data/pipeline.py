# ruff: noqa: PT028 (test_batches is not a test)
"""Rows of a prepared directory -> batches (see `batch`): shuffle, read, select, sample, stack.

Host work only, and little of it: what changes shapes or indices. A batch is a function of its
number, so the state of an iterator is one integer, whatever the number of threads and processes.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import grain
import numpy as np
from jaxtyping import Integer

from jaxmg.data import batch
from jaxmg.data.source import Source
from jaxmg.errors import ConfigError, DataError
from jaxmg.skeletons import sampling
from jaxmg.skeletons.topology import Skeleton


def train_batches(
  source: Source,
  rows: Integer[np.ndarray, " rows"],
  *,
  skeleton: Skeleton,
  kind: str,
  num_frames: int,
  num_persons: int,
  batch_size: int,
  seed: int,
  process_index: int = 0,
  process_count: int = 1,
  num_threads: int = 2,
) -> grain.DatasetIterator[dict[str, np.ndarray]]:
  """Returns an endless iterator over batches of `rows`, shuffled anew in every epoch.

  Epochs follow each other without a seam, so every clip comes once per epoch and no batch is short.
  Sampling draws from (seed, epoch, row). `batch_size` counts all processes: theirs, one behind the
  other, are the batch of a single process. `get_state()` counts batches: a state fits any number of
  processes, but knows nothing of the source, rows and options that it was made with; `fingerprint`
  does.

  Raises:
    DataError: fewer rows than a batch takes; while iterating, a clip that cannot be used.
    ConfigError: a batch size that the processes cannot share, or a skeleton that the source lacks.
  """
  if len(rows) < batch_size:
    raise DataError(
      f"{source.directory}: training clips",
      expected=f"at least one batch of {batch_size}",
      got=str(len(rows)),
      hint="choose a smaller batch size",
    )
  joints = _joints(source, skeleton)
  share = _share(batch_size, process_count)

  def load(position: int, row: int) -> dict[str, Any]:
    rng = np.random.default_rng((seed, position // len(rows), row))

    def sample(keypoints):
      return sampling.sample(keypoints, kind=kind, num_frames=num_frames, rng=rng)

    return _load(source, row, joints=joints, num_persons=num_persons, sample=sample)

  order = grain.MapDataset.source(rows.tolist()).seed(seed).shuffle().repeat()
  clips = order.map_with_index(load)
  return iter(_batches(clips, share, process_index, process_count, num_threads))


def test_batches(
  source: Source,
  rows: Integer[np.ndarray, " rows"],
  *,
  skeleton: Skeleton,
  kind: str,
  num_frames: int,
  num_clips: int,
  num_persons: int,
  style: str = "mmaction2",
  batch_size: int,
  process_index: int = 0,
  process_count: int = 1,
  num_threads: int = 2,
) -> grain.IterDataset[dict[str, np.ndarray]]:
  """Returns an iterable over batches of `rows` in their order, with a views axis of `num_clips`.

  The last batch is filled with copies of the last clip whose mask is False: they are as finite as
  the rest, and whoever writes scores by row writes the same ones again. Processes as in training.

  Raises:
    DataError: no rows; while iterating, a clip that cannot be used.
    ConfigError: a batch size that the processes cannot share, or a skeleton that the source lacks.
  """
  if len(rows) == 0:
    raise DataError(f"{source.directory}: clips to evaluate", expected="at least 1", got="0")
  joints = _joints(source, skeleton)
  share = _share(batch_size, process_count)
  padded = np.append(rows, np.repeat(rows[-1], -len(rows) % batch_size))

  def sample(keypoints):
    return sampling.sample_test(
      keypoints, kind=kind, num_frames=num_frames, num_clips=num_clips, style=style
    )

  def load(position: int, row: int) -> dict[str, Any]:
    clip = _load(source, row, joints=joints, num_persons=num_persons, sample=sample)
    return clip | {"mask": np.bool_(position < len(rows))}

  clips = grain.MapDataset.source(padded.tolist()).map_with_index(load)
  return _batches(clips, share, process_index, process_count, num_threads)


def fingerprint(
  source: Source,
  rows: Integer[np.ndarray, " rows"],
  *,
  skeleton: Skeleton,
  **options: str | int,
) -> dict[str, str | int]:
  """Returns what the batches of `train_batches` with these arguments depend on, by name."""
  return {
    "data": source.fingerprint(),
    "rows": hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()[:16],
    "number of rows": len(rows),
    "skeleton": skeleton.name,
    **options,
  }


def _joints(source: Source, skeleton: Skeleton) -> np.ndarray:
  try:
    return skeleton.indices_in(source.skeleton)
  except ValueError as error:
    raise ConfigError(f"{source.directory}: {error}") from error


def _share(batch_size: int, process_count: int) -> int:
  if batch_size < 1 or batch_size % process_count:
    raise ConfigError(
      "batch size", expected=f"a multiple of {process_count} (processes)", got=str(batch_size)
    )
  return batch_size // process_count


def _batches(
  clips: grain.MapDataset, share: int, process_index: int, process_count: int, num_threads: int
) -> grain.IterDataset:
  batches = clips.batch(share, drop_remainder=True)
  # Grain's default keeps 500 elements ready, and our elements are whole batches.
  options = grain.ReadOptions(num_threads=num_threads, prefetch_buffer_size=2 * num_threads)
  return batches[process_index::process_count].to_iter_dataset(options)


def _load(
  source: Source,
  row: int,
  *,
  joints: Integer[np.ndarray, " v"],
  num_persons: int,
  sample: Callable[[np.ndarray], np.ndarray],
) -> dict[str, Any]:
  try:
    record = source[row]
    keypoints = sample(batch.select(record["keypoints"], joints=joints, num_persons=num_persons))
  except Exception as error:  # whatever it is, it came from this clip, and Grain does not say so
    raise DataError(f"{source.directory}: clip {source.ids[row]!r}: {error}") from error
  return {
    "keypoints": keypoints.astype(np.float32, copy=False),
    "num_frames": source.num_frames[row],
    "frame_size": record["frame_size"],
    "label": source.labels[row],
    "clip": np.int32(row),
    "mask": np.bool_(True),
  }
