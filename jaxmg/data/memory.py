"""Arrays -> a set in memory, which goes through the same pipeline as a prepared one.

  data = memory.from_arrays(
    keypoints,                       # of N clips, float[T, M, V, 3] each
    labels,                          # numbers or names of classes
    class_names=("still", "wave"),
    subjects=("ann", "bob", ...),
    layout="coco17",
    frame_size=(720, 1280),
    protocols={"xsub": by_subject(train=("ann",))},
  )
  batches = pipeline.train_batches(data, data.rows("train"), {"pose": heatmaps}, ...)

A set that does not fit into memory is prepared once (`jaxmg.data.prepared`).
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from jaxmg import errors, progress, ranges
from jaxmg.data import builders, readers, records, source, tracks
from jaxmg.data.builders import by_subject as by_subject
from jaxmg.errors import DataError
from jaxmg.skeletons import topology


def from_arrays(
  clips: Iterable[Any] | Mapping[str, Iterable[Any]],
  labels: Iterable[Any],
  *,
  class_names: Sequence[str],
  subjects: Iterable[Any] | None = None,
  ids: Iterable[Any] | None = None,
  protocols: Mapping[str, builders.Protocol] | None = None,
  mirror: bool = True,
  name: str = "arrays",
  **told: Any,
) -> source.Source:
  """A set of N clips; see the head of this module.

  Args:
    clips: arrays as `jaxmg.predict.Predictor` takes them, key points or frames of videos, each of
      its own length, or `readers.Clip` and `readers.Frames`; or a dictionary of these by the track
      that inputs read ("pose", "video"), with the same clips in the same order. Tracks of a clip
      may have other numbers of frames, as of other rates. Each input takes frames of its own track,
      by their share of it or by seconds: that tracks begin and end together, nothing checks.
    labels: numbers from 0, or names of classes; -1 where it is hidden.
    subjects: who is seen; without it, each clip is taken to be of another person, so that figures
      are too good if persons are both trained and tested on. Numbers are taken as texts: 1 as "1".
    ids: names of the clips; without it "0", "1", ...
    protocols: as a `Builder` has them, the first is the default. Without it, all is trained on.
    mirror: whether a mirrored clip keeps its label.
    told: `layout`, `frame_size`, `axes`, `points` and `fps` of the arrays (`readers.Told`).

  What is assumed of arrays, and what is odd about them, is said on stderr, once. Raises DataError,
  with the clip, for what cannot be: other layouts, labels, numbers of clips.
  """
  by_track = clips if isinstance(clips, Mapping) else {None: clips}
  known = readers.told(told)
  class_names = _listed("class_names", class_names, "a text for each class")
  labels = _listed("labels", labels, "a number or a name for each clip")
  ids = None if ids is None else _names("ids", ids)
  subjects = None if subjects is None else _names("subjects", subjects)
  _check_names(class_names, protocols)
  found, said = {}, set()
  if not by_track:
    raise DataError("clips", expected="clips by track", got="none")
  for track, some in by_track.items():
    some = _listed("clips" + f": {track}" * bool(track), some, "an array for each clip")
    readers.check_several(some, told)
    recordings = [_recording(f"clips[{i}]", one, known, said) for i, one in enumerate(some)]
    if not recordings:
      raise DataError("clips", expected="at least one", got="none")
    names = {one.track for one in recordings} | ({track} if track else set())
    if len(names) > 1:
      raise DataError(f"clips: {track or 'tracks'}", expected="one kind", got=" and ".join(names))
    found[names.pop()] = recordings
  count = len(next(iter(found.values())))
  ids = [str(i) for i in range(count)] if ids is None else ids
  subjects = ids if subjects is None else subjects
  for field, values in (*found.items(), ("labels", labels), ("ids", ids), ("subjects", subjects)):
    if len(values) != count:
      raise DataError(field, expected=f"{count}, one a clip", got=len(values))
  columns = {field: [] for field in builders.COLUMNS}
  for id, label, subject in zip(ids, labels, subjects, strict=True):
    if isinstance(label, np.ndarray | np.integer | jax.Array):
      if np.ndim(label):
        hint = "one-hot? labels.argmax(1)"
        raise DataError("labels", expected="a number a clip", got=f"[{len(label)}]", hint=hint)
      label = label.item()
    example = builders.Example(id, label, subject, None)
    for field, value in builders.columns(name, example, class_names).items():
      columns[field].append(value)
  protocols = protocols or {"all": lambda clip: "train"}
  there = sorted({*subjects})
  for key, one in protocols.items():
    absent = builders.without_clips(one, there)
    for subject in absent:
      if hint := errors.meant(
        subject, [name for name in there if _number(name) == _number(subject)]
      ):
        where, expected = f"protocol {key!r}: train", f"subjects of clips: {builders.few(there)}"
        raise DataError(where, expected=expected, got=repr(subject), hint=hint)
    if absent:  # as of a part of a published set
      count = f"{len(absent)} of {len(one.names)} subjects to train on"
      note = f"protocol {key!r}: {count} have no clip: {builders.few(absent)}"
      progress.say_once([note], said)
  index = {
    "name": name,
    "version": "1.0.0",
    "class_names": list(class_names),
    "mirror": mirror,
    "synthetic": False,
    "clips": columns,
    "protocols": {key: builders.rows(key, one, columns) for key, one in protocols.items()},
  }
  held = {track: _held(name, track, ids, recordings, known) for track, recordings in found.items()}
  data = source.Source.in_memory(index, held)
  for protocol in data.protocols:
    data.rows("train", protocol=protocol)  # checks it
  for track in held.values():
    data.check_copies(track)
  return data


def _listed(field: str, values: Any, expected: str) -> list:
  try:
    several = None if isinstance(values, str) else iter(values)
  except TypeError:
    several = None
  if several is None:
    raise DataError(field, expected=expected, got=repr(values))
  return [*several]


def _names(field: str, values: Any) -> list:
  """Texts; numbers are names, too."""
  values = np.asarray(values) if isinstance(values, jax.Array) else values
  values = _listed(field, values, "a text for each clip")
  return [str(one) if ranges.is_whole(one) else one for one in values]


def _number(subject: str) -> list[int]:
  """The numbers in a name: those of other persons differ, however near the texts are."""
  return [*map(int, re.findall("[0-9]+", subject))]


def _check_names(class_names, protocols):
  if not all(isinstance(one, str) for one in class_names):
    raise DataError("class_names", expected="a text for each class", got=repr(class_names))
  if len({*class_names}) < len(class_names):
    raise DataError("class_names", expected="different names", got=repr(class_names))
  if protocols is not None and not (
    isinstance(protocols, Mapping) and all(map(callable, protocols.values()))
  ):
    expected = 'a dictionary, like {"xsub": by_subject(train=("ann",))}'
    raise DataError("protocols", expected=expected, got=repr(protocols))


def _recording(
  where: str, one: Any, told: readers.Told, said: set[str]
) -> readers.Clip | readers.Frames:
  if isinstance(one, readers.Clip | readers.Frames):
    return one
  if not isinstance(one, np.ndarray | jax.Array):
    expected = "an array, a readers.Clip or readers.Frames"
    raise DataError(where, expected=expected, got=type(one).__name__)
  try:
    with readers.hints_as_arguments():
      found = readers.from_array(np.asarray(one), told)
      progress.say_once(readers.remarks(found), said)
  except DataError as error:
    raise DataError(f"{where}: {error}") from error
  return found


def _held(
  name: str, track: str, ids: Sequence[str], recordings: Sequence[Any], told: readers.Told
) -> records.Held:
  kind = _KINDS[track](recordings, told)
  found = []
  for id, one in zip(ids, recordings, strict=True):
    try:
      found.append([*kind.records(one)])
    except ValueError as error:
      raise DataError(f"{name}: clip {id!r}: {error}") from error
  contents = [kind.content(one) for one in recordings]
  lengths = [kind.num_frames(one) for one in recordings]
  return records.Held(f"{name}: {track}", kind, ids, found, contents, lengths)


def _poses(clips: Sequence[readers.Clip], told: readers.Told) -> tracks.Pose:
  sizes = [one.frame_size for one in clips if one.frame_size]
  if not sizes:
    raise DataError("frame_size", expected="(height, width) of the pictures", got="none")
  return tracks.Pose(
    topology.get(clips[0].layout),
    frame_size=sizes[0],
    num_persons=max(one.keypoints.shape[1] for one in clips),
    joints3d=clips[0].joints3d is not None,
    fps=told.fps,
  )


def _videos(clips: Sequence[readers.Frames], told: readers.Told) -> tracks.Video:
  return tracks.Video(
    tuple(max(one.frame_size[i] for one in clips) for i in (0, 1)),
    channels=clips[0].channels,
    timed=not any(np.isnan(one.times).any() for one in clips),
  )


_KINDS = {"pose": _poses, "video": _videos}
