"""The field's annotation files: the pickle of PYSKL and mmaction2, and the organisers' arrays.

`read` knows

  FILE.pkl    a dict of `annotations` (or `annos`), a list, and of `split`, {name: [id, ...]}; or
              such a list alone, whose clips are the split that is called like the file
  a folder    of such files (ntu60_xsub_train.pkl and ntu60_xsub_val.pkl), or of the arrays
              NAME_data.npy or NAME_data_joint.npy, [N, 3, T, V, M], each beside a NAME_label.pkl,
              (ids, labels): the split NAME

An annotation is a dict:

  frame_dir       the clip's id; `filename`, where there is one, goes before it
  keypoint        [M, T, V, C], C = 2: x, y in pixels, or C = 3: metres, x right, y up, z forward
                  (or x, y in pixels and a score, if bodies are as large as that)
  keypoint_score  [M, T, V]; without it, every joint that is not at the origin has the score 1
  img_shape       (height, width) of 2-D ones, or else `original_shape`
  label           from 0; without it, or if it is -1, it is hidden
  total_frames    T, or missing

A joint is absent where a number of its own is NaN. An id's slashes become `__`. An array's last
frames of zeros are padding. All clips are of one kind, pixels or metres: which one, the first of
them tell, or `Told.points`.
"""

import collections
import dataclasses
import functools
import itertools
import operator
import pathlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmg import pickles, ranges
from jaxmg.data.readers import arrays
from jaxmg.data.readers import clip as clips
from jaxmg.errors import DataError

# Protocols whose two sides differ by camera, not by subject.
ACROSS_CAMERAS = re.compile(r"(x|cross)[_-]?(view|set)", re.IGNORECASE)

_TRAIN = re.compile(r"(?<![a-z])train(ing|val)?(?![a-z])", re.IGNORECASE)
_TEST = re.compile(r"(?<![a-z])(test(ing)?|val(id(ation)?)?)(?![a-z])", re.IGNORECASE)
_ARRAY = re.compile(r"(.+)_data(_joint)?\.npy")
_MOST_PERSONS, _FEWEST_FRAMES = 10, 8  # a clip of more persons in fewer frames is turned about
_LOOKED_AT = 50  # clips, to know whether all are in 3-D
# Of arrays, which do not tell it: MiGA's 22 joints are iMiGUE's.
_FRAME_SIZES = {22: (720, 1280)}


@dataclasses.dataclass(frozen=True, eq=False)
class Annotation:
  """One clip of a file, its shapes checked, its numbers as they are.

  Attributes:
    where: its place in the file, for messages.
    id: its name.
    label: its class, or -1 where it is hidden.
    points: numbers [T, M, V, C] of any precision; C = 2: pixels, C = 3: metres.
    score: numbers [T, M, V], or None.
    frame_size: (height, width) of 2-D ones.
    in_3d: whether the points are metres.
    assumed: what neither file nor caller told, of the clip's guess.
  """

  where: str
  id: str
  label: int
  points: np.ndarray
  score: np.ndarray | None
  frame_size: tuple[int, int] | None
  in_3d: bool = False
  assumed: frozenset[str] = frozenset()

  def nan(self) -> np.ndarray:
    """bool[T, M, V]: the joints that are absent because a number of theirs is NaN."""
    # An axis at a time: a reduction over an axis of two or three takes several times as long.
    parts = [*np.moveaxis(self.points, -1, 0), *([] if self.score is None else [self.score])]
    return functools.reduce(np.logical_or, map(np.isnan, parts))

  def clip(self, layout: clips.Layout | None = None, *, view: bool | None = None) -> clips.Clip:
    """The clip, cleaned; see `clips.from_points` for `view`, and for what it raises."""
    points, absent = self.points.astype(np.float64), self.nan()
    if self.score is not None:
      score = self.score.astype(np.float64)
      absent |= score == 0
      points = points if self.in_3d else np.concatenate([points, score[..., None]], -1)
    points[absent] = 0
    told = clips.Told(layout=layout)
    options = {"in_3d": self.in_3d, "frame_size": self.frame_size, "assumed": self.assumed}
    try:
      clip = clips.from_points(points, told, view=view, **options)
    except ValueError as error:
      raise DataError(f"{self.where}: {error}") from error
    if self.in_3d:
      clip.joints3d[absent] = 0  # known to be absent, wherever the others are
    return clip


@dataclasses.dataclass(frozen=True, eq=False)
class Annotations:
  """The clips of a file or a folder, in its order, and the ids of its splits by name."""

  path: pathlib.Path
  clips: tuple[Annotation, ...]
  splits: Mapping[str, tuple[str, ...]]

  def protocols(self) -> dict[str, tuple[frozenset[str], frozenset[str]]]:
    """The ids to train and to test with, by protocol, which is called like its test split.

    A split with `test` or `val` in its name is tested by training with the one of the same name
    but for `train` in that place: `xsub_val` with `xsub_train`, `test1` with `train1`. Those with
    `test` come first. Where no split is to train with, each with such a name has nothing to train
    with, or each at all if all labels are hidden.

    Raises DataError where a split has an id twice or one that no clip has, or a clip is on both
    sides.
    """
    ids = {clip.id for clip in self.clips}
    for name, members in self.splits.items():
      where = f"{self.path}: split {name!r}"
      if repeated := [id for id, count in collections.Counter(members).items() if count > 1]:
        raise DataError(where, expected="each id once", got=_few(repeated))
      if unknown := [id for id in members if id not in ids]:
        raise DataError(where, expected="ids of annotations", got=_few(unknown))
    train = {}
    for name in filter(_TRAIN.search, self.splits):
      train.setdefault(_TRAIN.sub("*", name).lower(), name)
    tests = sorted(
      filter(_TEST.search, self.splits), key=lambda name: "val" in _TEST.search(name)[0].lower()
    )
    protocols = {
      name: (frozenset(self.splits[train[rest]]), frozenset(self.splits[name]))
      for name in tests
      if (rest := _TEST.sub("*", name).lower()) in train
    }
    if not protocols and not any("train" in name.lower() for name in self.splits):
      hidden = all(clip.label < 0 for clip in self.clips)
      tests = self.splits if hidden else tests
      protocols = {name: (frozenset(), frozenset(self.splits[name])) for name in tests}
    for name, sides in protocols.items():
      if both := sorted(frozenset.intersection(*sides)):
        where = f"{self.path}: {name!r}"
        raise DataError(where, expected="no clip in both train and test", got=_few(both))
    return protocols

  def check_shape(self, clip: Annotation) -> None:
    """Raises DataError where a clip has other joints or dimensions than the first one."""
    expected, shape = self.clips[0].points.shape[2:], clip.points.shape
    if shape[2:] != expected:
      raise DataError(
        f"{clip.where}: keypoint",
        expected=f"[M, T, {', '.join(map(str, expected))}] as in the first one",
        got=[shape[1], shape[0], *shape[2:]],
      )

  def layout(self) -> str:
    """The layout that the number of joints tells; DataError where it tells none."""
    try:
      return clips.layout_of(self.clips[0].points.shape[2], in_3d=self.clips[0].in_3d)
    except DataError as error:
      raise DataError(f"{self.path}: {error}") from error

  def seen_by_camera(self) -> bool:
    """Whether 99 % of all joints in 3-D lie before the camera: not so if centred on the person."""
    joints = seen = 0
    for clip in self.clips:
      present = clip.points.any(-1) & ~clip.nan()
      joints += np.count_nonzero(present)
      seen += np.count_nonzero(present & (clip.points[..., 2] > clips.MIN_DEPTH))
    return bool(seen >= 0.99 * joints)


def read(
  path: str | pathlib.Path,
  *,
  told: clips.Told | None = None,
  faults: list[DataError] | None = None,
) -> Annotations:
  """Reads a file or a folder; which, says the head of this module.

  Raises DataError for files that are missing or damaged, and for an annotation that lacks a field
  or has a wrong one; with a list `faults`, such annotations are left out, and their errors put
  there.
  """
  path = pathlib.Path(path)
  known, splits, told = [], {}, told or clips.Told()
  for file in _files(path):
    entries, split = _read_arrays(file, told) if file.suffix == ".npy" else _read_pickle(file)
    found = []
    for where, fields in entries:
      try:
        found.append(_annotation(where, fields))
      except DataError as error:
        if faults is None:
          raise
        faults.append(error)
    known += found
    for name, ids in split.items() if isinstance(split, dict) else [(split, None)]:
      if name in splits:
        raise DataError(f"{file}: split {name!r}", expected="a name of its own", got="two")
      splits[name] = tuple(clip.id for clip in found) if ids is None else ids
  if not known and not faults:
    raise DataError(path, expected="at least one annotation", got="none")
  return Annotations(path, tuple(_of_one_kind(known, told)), splits)


def read_clips(path: pathlib.Path, told: clips.Told) -> Iterator[tuple[str, clips.Clip]]:
  """The clips of a file by their ids, one by one."""
  content = pickles.load(path)
  if isinstance(content, np.ndarray):
    yield path.name, arrays.read_array(content, told)
    return
  single = isinstance(content, dict) and "keypoint" in content
  entries = [{"frame_dir": path.name} | content] if single else _entries(path, content)
  known = [_annotation(where, fields) for where, fields in _places(path, entries)]
  if not known:
    raise DataError(path, expected="at least one annotation", got="none")
  for one in _of_one_kind(known, told):
    yield one.id, one.clip(told.layout)


def _of_one_kind(known: Sequence[Annotation], told: clips.Told) -> Iterator[Annotation]:
  """The clips, all in pixels or all in metres; DataError where it cannot be known."""
  if told.frame_size:
    known = [dataclasses.replace(one, frame_size=told.frame_size) for one in known]
  third = [one for one in known if one.points.shape[-1] == 3]
  if not third or len(third) < len(known):  # `Annotations.check_shape` names the others
    return iter(known)
  in_3d, assumed = _in_3d(third, dataclasses.replace(told, expects="joints3d"))
  if in_3d:
    assumed = frozenset({"units"} if assumed else ())
    return (dataclasses.replace(one, in_3d=True, assumed=assumed | one.assumed) for one in known)
  return map(_scored, known)


def _in_3d(known: Sequence[Annotation], told: clips.Told) -> tuple[bool, bool]:
  """As `clips.metres`, by the first clips of three numbers a joint that settle it."""
  faults = []
  for one in known[:_LOOKED_AT]:
    points = np.where(one.nan()[..., None], 0, one.points).astype(np.float64)
    if one.score is not None:  # then the third is none, whatever it is
      points[..., 2] = np.where(points.any(-1), 1, 0)
    if not points.any():
      continue
    try:
      return clips.metres(points, told.layout, told)
    except DataError as error:
      if one.score is not None and told.points is None:
        return True, True  # no body of pixels
      faults.append(DataError(f"{one.where}: keypoint: {error}"))
  if faults:
    raise faults[0]
  return True, True


def _scored(one: Annotation) -> Annotation:
  """Of x, y in pixels and a score, or another third number beside the score."""
  if one.points.shape[-1] == 2:
    return one
  score = one.points[..., 2] if one.score is None else one.score
  return dataclasses.replace(one, points=one.points[..., :2], score=score, in_3d=False)


def is_annotations(path: pathlib.Path) -> bool:
  """Whether `read` is for this file or folder."""
  if path.is_dir():
    return any(_is_pickle(file) or _ARRAY.fullmatch(file.name) for file in path.iterdir())
  return _is_pickle(path)


def subject(id: str) -> str | None:
  """The person of a clip whose id tells it, as NTU's S001C001P001R001A001 does; else None."""
  match = re.match(r"S\d{3}C\d{3}(P\d{3})R\d{3}A\d{3}", id)
  return match and match[1]


def _files(path: pathlib.Path) -> list[pathlib.Path]:
  if path.is_file():
    if not _is_pickle(path):
      raise DataError(path, expected="a .pkl file, or a folder", got=path.suffix or "no suffix")
    return [path]
  files = sorted(path.iterdir()) if path.is_dir() else []
  arrays = [file for file in files if _ARRAY.fullmatch(file.name)]
  labels = {_labels_of(file) for file in arrays}
  found = [file for file in files if _is_pickle(file) and file not in labels] + arrays
  if not found:
    expected = "annotations: .pkl files, or NAME_data.npy with NAME_label.pkl"
    raise DataError(path, expected=expected, got="none" if path.is_dir() else "nothing there")
  return found


def _is_pickle(path: pathlib.Path) -> bool:
  return path.suffix.lower() in (".pkl", ".pickle")


def _labels_of(array: pathlib.Path) -> pathlib.Path:
  return array.with_name(f"{_ARRAY.fullmatch(array.name)[1]}_label.pkl")


def _read_pickle(path: pathlib.Path) -> tuple[Iterable[tuple[str, Any]], Any]:
  """The annotations with their places; and the ids of splits by name, or the name of the split."""
  content = pickles.load(path)
  entries = _entries(path, content)
  split = content.get("split", path.stem) if isinstance(content, dict) else path.stem
  if isinstance(split, str):
    return _places(path, entries), split
  if not isinstance(split, dict):
    raise DataError(f"{path}: split", expected="a dict of names", got=_kind(split))
  for name, ids in split.items():
    if not (isinstance(name, str) and name.isprintable() and len(name) <= 200):
      raise DataError(f"{path}: split", expected="names of printable text", got=_kind(name))
    array = isinstance(ids, np.ndarray) and ids.ndim == 1
    if not (array or isinstance(ids, list | tuple | set)):
      raise DataError(f"{path}: split {name!r}", expected="a list of ids", got=_kind(ids))
    if not all(isinstance(id, str) for id in ids):
      raise DataError(f"{path}: split {name!r}", expected="ids, which are text", got="others")
  return _places(path, entries), {name: tuple(map(_id, ids)) for name, ids in split.items()}


def _entries(path: pathlib.Path, content: Any) -> Sequence[Any]:
  entries = content
  if isinstance(content, dict):
    entries = content.get("annotations", content.get("annos"))
  if not isinstance(entries, list | tuple):
    expected = "a list, or a dict with a list `annotations` or `annos`"
    raise DataError(path, expected=expected, got=_kind(content))
  return entries


def _places(path: pathlib.Path, entries: Iterable[Any]) -> Iterator[tuple[str, Any]]:
  for i, fields in enumerate(entries, 1):
    yield f"{path}: annotation {i}", fields


def _read_arrays(path: pathlib.Path, told: clips.Told) -> tuple[Iterator[tuple[str, Any]], str]:
  """As `_read_pickle`; the arrays stay in their file until they are used."""
  labels = _labels_of(path)
  if not labels.exists():
    raise DataError(labels, expected=f"the ids and labels of {path.name}", got="nothing")
  try:
    array = arrays.load_array(path)
  except ValueError as error:
    raise DataError(f"{path}: {error}") from error
  if array.ndim != 5 or array.shape[1] != 3 or 0 in array.shape:
    raise DataError(f"{path}: shape", expected="[N, 3, T, V, M]", got=list(array.shape))
  content = pickles.load(labels)
  lists = (list, tuple, np.ndarray)
  if not (
    isinstance(content, list | tuple)
    and len(content) == 2
    and all(isinstance(column, lists) and len(column) == len(array) for column in content)
  ):
    expected = f"two lists of {len(array)}: ids, labels"
    raise DataError(labels, expected=expected, got=_kind(content))

  size = told.frame_size or _FRAME_SIZES.get(array.shape[3])
  fields = {"img_shape": size, "assumed": not told.frame_size} if size else {}

  def entries():
    for i, (id, label) in enumerate(zip(*content, strict=True), 1):
      points = arrays.frames_first(array[i - 1]).swapaxes(0, 1)
      yield f"{path}: row {i}", fields | {"frame_dir": id, "label": label, "keypoint": points}

  return entries(), _ARRAY.fullmatch(path.name)[1]


def _annotation(where: str, fields: Any) -> Annotation:
  if not isinstance(fields, dict):
    raise DataError(where, expected="a dict", got=_kind(fields))
  id = _either(fields, "filename", "frame_dir")
  if not isinstance(id, str):
    raise DataError(f"{where}: frame_dir", expected="an id, which is text", got=_kind(fields))
  where, id = f"{where} {id!r:.200}", _id(id)
  label = fields.get("label")
  label = -1 if label is None else label
  whole = isinstance(label, int | np.integer) and not isinstance(label, bool)
  if not (whole and -1 <= label < 1 << 31):
    raise DataError(f"{where}: label", expected="an integer from 0, or -1", got=_kind(label))
  points = fields.get("keypoint")
  if not _is_numbers(points, 4) or points.shape[-1] not in (2, 3) or 0 in points.shape:
    got = list(points.shape) if _is_numbers(points) else f"a {_kind(points)}"
    if points is None:
      got = _kind(fields)
    apart = points is None and "raw_file" in fields
    hint = "a table of contents, as Kinetics-400's: docs/migration.md" if apart else None
    raise DataError(f"{where}: keypoint", expected="numbers [M, T, V, 2 or 3]", got=got, hint=hint)
  if points.shape[1] < _FEWEST_FRAMES and points.shape[0] > _MOST_PERSONS:
    got, hint = list(points.shape), "[T, M, V, C]? exchange the first two axes"
    raise DataError(f"{where}: keypoint", expected="[M, T, V, C]", got=got, hint=hint)
  score = fields.get("keypoint_score")
  if score is not None and not (_is_numbers(score) and score.shape == points.shape[:3]):
    got = list(score.shape) if _is_numbers(score) else _kind(score)
    raise DataError(f"{where}: keypoint_score", expected=list(points.shape[:3]), got=got)
  count = fields.get("total_frames", points.shape[1])
  if not isinstance(count, int | float | np.number) or count != points.shape[1]:
    raise DataError(f"{where}: total_frames", expected=points.shape[1], got=_kind(count))
  frame_size, size = None, _either(fields, "img_shape", "original_shape")
  if size is not None:
    try:
      height, width = frame_size = tuple(map(operator.index, size))
    except (TypeError, ValueError):
      got = _kind(fields if size is None else size)
      raise DataError(f"{where}: img_shape", expected="(height, width)", got=got) from None
    if not ranges.frame_size(frame_size):
      got = f"({_kind(height)}, {_kind(width)})"
      raise DataError(f"{where}: img_shape", expected=ranges.FRAME_SIZE, got=got)
  points = points.swapaxes(0, 1)
  score = score if score is None else score.swapaxes(0, 1)
  assumed = frozenset({"frame_size"} if fields.get("assumed") else ())
  in_3d = points.shape[-1] == 3
  return Annotation(where, id, int(label), points, score, frame_size, in_3d, assumed)


def _either(fields: Mapping[str, Any], name: str, other: str) -> Any:
  value = fields.get(name)
  return fields.get(other) if value is None else value


def _is_numbers(array: Any, ndim: int | None = None) -> bool:
  numbers = isinstance(array, np.ndarray) and array.dtype.kind in "fiu"
  return numbers and ndim in (None, array.ndim)


def _id(text: str) -> str:
  # Class folders in it; anything that would lead out of a folder stays, and is refused as a name.
  return text if text.startswith("/") else text.replace("/", "__")


def _kind(thing: Any) -> str:
  """What something is, shortly: a number, the keys of a dict, or its type."""
  if isinstance(thing, int | float | np.number) and abs(thing) < 1 << 31:
    return str(thing)
  if isinstance(thing, dict):
    keys = (repr(key) if isinstance(key, str) else type(key).__name__ for key in thing)
    return f"the keys {', '.join(itertools.islice(keys, 20))}"[:200]
  return type(thing).__name__


def _few(ids: list[str]) -> str:
  return f"{len(ids)}: {', '.join(map(repr, ids[:5]))}"
