"""Annotation pickles of PYSKL and mmaction2, and organisers' arrays (README.md)."""

import collections
import functools

from jaxmg.data import prepared, readers, tracks
from jaxmg.data.readers import annotations
from jaxmg.errors import DataError

MOST_CLASSES = 10_000  # without a file of their names


class Builder(prepared.Builder):
  """The clips of an annotation file, or of a folder of them."""

  is_format = True

  def __init__(self, *, raw, layout=None, **kwargs):
    self.file = annotations.read(raw, told=self.told)
    clips = self.file.clips
    for clip in clips:
      self.file.check_shape(clip)
    in_3d = clips[0].in_3d
    if unknown := next((one for one in clips if not (in_3d or one.frame_size)), None):
      where, hint = f"{unknown.where}: img_shape", "or for all clips --frame_size=HxW"
      raise DataError(where, expected="(height, width)", got="none", hint=hint)
    sizes = collections.Counter(clip.frame_size for clip in clips)
    self.layout = layout and readers.find_layout(layout)
    self.track = tracks.Pose(
      self.layout or self.file.layout(),
      frame_size=(240, 320) if in_3d else sizes.most_common(1)[0][0],
      num_persons=max(clip.points.shape[1] for clip in clips),
      joints3d=in_3d,
    )
    self.view = in_3d and self.file.seen_by_camera()
    names, notes = _class_names(self.file)
    self.class_names = tuple(names)
    protocols = _protocols(self.file)
    self.protocols = {
      name: functools.partial(_side, train=train, test=test)
      for name, (train, test) in protocols.items()
    }
    self.shared_subjects = [name for name in protocols if annotations.ACROSS_CAMERAS.search(name)]
    super().__init__(raw=raw, **kwargs)
    self.notes += [*notes, *_notes(self.file, view=self.view)]

  def recordings(self):
    absent = collections.Counter()
    for clip in self.file.clips:
      yield clip, None
      if nan := int(clip.nan().sum()):
        absent[clip.id] = nan
    if absent:
      self.notes.append(
        f"{absent.total()} joints are NaN, and absent, in {len(absent)} clips: most in "
        f"{absent.most_common(1)[0][0]}"
      )

  def clips(self, recording, known):
    subject = annotations.subject(recording.id) or recording.id
    clip = recording.clip(self.layout, view=self.view)
    yield prepared.Example(recording.id, recording.label, subject, clip)


def _side(clip, *, train, test):
  return "train" if clip["id"] in train else "test" if clip["id"] in test else None


def _protocols(file):
  protocols = file.protocols()
  if not protocols:
    raise DataError(
      f"{file.path}: split",
      expected="two names that pair up, such as xsub_train and xsub_val, or a name with test",
      got=", ".join(map(repr, file.splits)) or "none",
      hint='write {"split": {"train": [id, ...], "test": [id, ...]}, "annotations": [...]}, '
      "or a folder of two files, NAME_train.pkl and NAME_test.pkl",
    )
  return protocols


def _class_names(file):
  """The lines of the file of names, or numbers; and what is to be noted about them."""
  labels = {clip.label for clip in file.clips} - {-1}
  count = max(labels, default=-1) + 1
  asked = f"do the labels begin at 1? they are {min(labels)} to {count - 1}" if labels else ""
  own = file.path / "classes.txt" if file.path.is_dir() else file.path.with_suffix(".classes.txt")
  path = own if own.exists() else own.with_name("classes.txt")
  if not path.exists():
    if count > MOST_CLASSES:
      raise DataError(
        f"{file.path}: labels", expected=f"at most {MOST_CLASSES - 1}, or {own}", got=count - 1
      )
    notes = [f"{asked}; class 0 has no clip"] if min(labels, default=0) == 1 else []
    which = "classes are numbered" if labels else "no labels, and no classes"
    notes.append(f"{which}: no names in {own}")
    return [f"class {k}" for k in range(count)], notes
  try:
    names = path.read_text(encoding="utf-8-sig").rstrip().splitlines()
  except ValueError as error:
    raise DataError(f"{path}: {error}") from error
  names = [name.strip() for name in names]
  if len(set(names)) < len(names) or not all(name and name.isprintable() for name in names):
    raise DataError(path, expected="names of classes, each once, one on each line", got="others")
  # Classes at the end may have no clip; only a file of this pickle's own name can say so.
  fits = len(names) >= count if path == own else count in (0, len(names))
  if not fits:
    begins = min(labels) == 1 and len(names) == count - 1
    hint = asked if begins else f"of this file? {own.name} is" if path != own else None
    expected = f"{count} names{' or more' * (path == own)}, as the labels are 0 to {count - 1}"
    raise DataError(path, expected=expected, got=len(names), hint=hint)
  more = f"{len(names)} names for the labels 0 to {count - 1}: 0 is {names[0]!r}"
  return names, [more] if 0 < count < len(names) else []


def _notes(file, *, view):
  clips = file.clips
  if half := sum(clip.points.dtype.itemsize == 2 for clip in clips):
    yield (
      f"{half} clips are float16, which rounds: "
      + (
        "steps of 2 mm from 2 m, of 4 mm from 4 m"
        if clips[0].in_3d
        else "steps of 0.5 px above 512, of 1 px above 1024"
      )
    )
  if clips[0].in_3d and not view:
    yield (
      "the 3-D points do not lie before a camera (centred on the person?): there are no "
      "key points, and no heatmaps to be made of them"
    )
  if unscored := sum(clip.score is None for clip in clips) * (not clips[0].in_3d):
    yield f"{unscored} clips have no scores: theirs are 1"
  if unknown := sum(annotations.subject(clip.id) is None for clip in clips):
    yield (
      f"the subjects of {unknown} clips are not known: each counts as one of its own, in folds too"
    )
  members = frozenset().union(*file.splits.values())
  if outside := [clip.id for clip in clips if clip.id not in members]:
    yield f"{len(outside)} clips are in no split: {', '.join(outside[:5])}"
