# ruff: noqa: PT028 (test_batches is not a test)
"""Rows of a prepared directory -> batches (see `batch`): shuffle, read, select, sample, stack.

Host work only, and little of it: what changes shapes or indices. A batch is a function of its
number, so the state of an iterator is one integer, whatever the number of threads and processes.
"""

import functools
import hashlib
from collections.abc import Callable, Sequence
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
  points: str = "keypoints",
  crop: Sequence[float] = (1.0, 1.0),
  balanced: bool = False,
  batch_size: int,
  seed: int,
  process_index: int = 0,
  process_count: int = 1,
  num_threads: int = 2,
) -> grain.DatasetIterator[dict[str, np.ndarray]]:
  """Returns an endless iterator over batches of `rows`, shuffled anew in every epoch.

  Epochs follow each other without a seam, so every clip comes once per epoch and no batch is short.
  With `balanced`, it is every class that has clips that comes once in as many clips as there are
  such classes, by one of its clips, drawn at random.
  Sampling draws from (seed, epoch, row); `kind`, `num_frames` and `crop` are those of
  `sampling.sample`. `points` is the array to take, "keypoints" or "joints3d". `batch_size` counts
  all processes: theirs, one behind the other, are the batch of a single process. `get_state()`
  counts batches: a state fits any number of processes, but knows nothing of the source, rows and
  options that it was made with; `fingerprint` does.

  Raises:
    DataError: fewer rows than a batch takes; while iterating, a clip that cannot be used.
    ConfigError: a batch size that the processes cannot share, or a skeleton or points that the
      source lacks.
  """
  if len(rows) < batch_size:
    raise DataError(
      f"{source.directory}: training clips",
      expected=f"at least one batch of {batch_size}",
      got=str(len(rows)),
      hint="choose a smaller batch size",
    )
  take = _selection(source, skeleton, points, num_persons)
  share = _share(batch_size, process_count)

  labels = source.labels[rows]
  drawn = np.unique(labels) if balanced else rows  # each of them once per epoch

  def draw(position: int, label: int) -> int:
    rng = np.random.default_rng((seed, position // len(drawn), label, 1))
    return int(rng.choice(rows[labels == label]))

  def load(position: int, row: int) -> dict[str, Any]:
    epoch = position // len(drawn)
    rng = np.random.default_rng((seed, epoch, row))

    def sample(pose):
      return sampling.sample(pose, kind=kind, num_frames=num_frames, rng=rng, crop=crop)

    return _load(source, row, points, lambda pose: sample(take(pose)))

  order = grain.MapDataset.source(drawn.tolist()).seed(seed).shuffle().repeat()
  if balanced:
    order = order.map_with_index(draw)
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
  points: str = "keypoints",
  style: str = "mmaction2",
  batch_size: int,
  first_batch: int = 0,
  process_index: int = 0,
  process_count: int = 1,
  num_threads: int = 2,
) -> grain.IterDataset[dict[str, np.ndarray]]:
  """Returns an iterable over batches of `rows` in their order, with a views axis of `num_clips`.

  The last batch is filled with copies of the last clip whose mask is False: they are as finite as
  the rest, and whoever writes scores by row writes the same ones again. Processes as in training.
  Batches before `first_batch` are left out.

  Raises:
    DataError: no rows; while iterating, a clip that cannot be used.
    ConfigError: as in training.
  """
  if len(rows) == 0:
    raise DataError(f"{source.directory}: clips to evaluate", expected="at least 1", got="0")
  take = _selection(source, skeleton, points, num_persons)
  share = _share(batch_size, process_count)
  padded = np.append(rows, np.repeat(rows[-1], -len(rows) % batch_size))

  def sample(pose):
    return sampling.sample_test(
      pose, kind=kind, num_frames=num_frames, num_clips=num_clips, style=style
    )

  def load(position: int, row: int) -> dict[str, Any]:
    clip = _load(source, row, points, lambda pose: sample(take(pose)))
    return clip | {"mask": np.bool_(position < len(rows))}

  clips = grain.MapDataset.source(padded.tolist()).map_with_index(load)
  first = process_index + first_batch * process_count
  return _batches(clips, share, first, process_count, num_threads)


def fingerprint(
  source: Source,
  rows: Integer[np.ndarray, " rows"],
  *,
  skeleton: Skeleton,
  **options: Any,
) -> dict[str, Any]:
  """Returns what the batches of `train_batches` with these arguments depend on, by name."""
  return {
    "data": source.fingerprint(),
    "rows": hashlib.sha256(rows.astype("<i8").tobytes()).hexdigest()[:16],
    "number of rows": len(rows),
    "skeleton": skeleton.name,
    **options,
  }


def _selection(source: Source, skeleton: Skeleton, points: str, num_persons: int) -> Callable:
  if points not in ("keypoints", "joints3d") or (points == "joints3d" and not source.joints3d):
    have = "keypoints or joints3d" if source.joints3d else "keypoints"
    raise ConfigError(f"{source.directory}: points", expected=have, got=points)
  try:
    joints = skeleton.indices_in(source.skeleton)
  except ValueError as error:
    raise ConfigError(f"{source.directory}: {error}") from error
  return functools.partial(batch.select, joints=joints, num_persons=num_persons, points=points)


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
  source: Source, row: int, points: str, prepare: Callable[[np.ndarray], np.ndarray]
) -> dict[str, Any]:
  try:
    record = source[row]
    pose = prepare(record[points])
  except Exception as error:  # whatever it is, it came from this clip, and Grain does not say so
    raise DataError(f"{source.directory}: clip {source.ids[row]!r}: {error}") from error
  return {
    points: pose.astype(np.float32, copy=False),
    "num_frames": source.num_frames[row],
    "frame_size": record["frame_size"],
    "label": source.labels[row],
    "clip": np.int32(row),
    "mask": np.bool_(True),
  }
