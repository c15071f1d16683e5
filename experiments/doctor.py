"""Examines a file of poses, a video or a prepared data set, and changes nothing.

  jaxmg doctor FILE

FILE is an annotation pickle or a folder of them, one recording (see `jaxmg.data.readers`), or a
prepared directory. What a file leaves open is told as to `predict`. A table says what is there;
then come notes, and what is wrong: the exit code is 3 if anything is, else 0.
"""

import collections
import dataclasses
import itertools
import pathlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from absl import flags

from jaxmg import errors, progress
from jaxmg.data import readers, records, source
from jaxmg.data.readers import annotations
from jaxmg.skeletons import plausible, topology

from . import launch, recording_flags

VIDEO_PART = 256  # frames that are decoded at a time
MOST_LINES = 10  # of notes, and of what is wrong
MOST_ODD = 0.05  # of all clips, which may be such as none should be

# What no recording has.
MOST_PERSONS = 10  # in a frame
FEWEST_JOINTS = 0.2  # of the persons that are there
MOST_NEGATIVE = 0.2  # of all joints, left of the picture or above it
FEWEST_FRAMES = 0.1  # in which somebody is there


@dataclasses.dataclass(frozen=True)
class Row:
  """A clip as it is examined: `points` is [T, M, V, 3], key points, or metres if `in_3d`.

  Of a clip without poses `num_frames` and `content` are known, of others their points tell them.
  """

  id: str
  label: int
  subject: str | None  # where it is known
  points: np.ndarray | None
  frame_size: tuple[int, int] | None = None
  in_3d: bool = False
  nan: int = 0  # joints, which are all zero in `points`
  float16: bool = False
  num_clipped: int = 0  # scores
  skeleton: topology.Skeleton | None = None  # of real people, whose bodies are looked at
  num_frames: int = 0
  content: str | None = None


@dataclasses.dataclass
class Found:
  """What a path holds: clips, read one by one, and what else is said of them.

  `protocols` are the ids to train and to test with; those in `shared_subjects` are across cameras.
  Examining adds to `notes` and `wrong`.
  """

  what: str
  rows: Iterator[Row]
  num_rows: int = 1
  class_names: tuple[str, ...] = ()
  protocols: Mapping[str, tuple[frozenset[str], frozenset[str]]] = dataclasses.field(
    default_factory=dict
  )
  shared_subjects: tuple[str, ...] = ()
  notes: list[str] = dataclasses.field(default_factory=list)
  wrong: list[str] = dataclasses.field(default_factory=list)


def define(values: flags.FlagValues) -> None:
  recording_flags.define(values)


def run(values: flags.FlagValues, path: str, *more: str) -> None:
  if more:
    raise errors.ConfigError(f"unexpected argument {more[0]!r}", hint="one FILE at a time")
  found = find(pathlib.Path(path), recording_flags.get(values))
  table = examine(found)
  print(f"{path}: {found.what}")
  width = max(map(len, table), default=0)
  for name, text in table.items():
    print(f"  {name:<{width}}  {text}".rstrip())
  for severity, texts in (("note", found.notes), ("WRONG", found.wrong)):
    for text in texts[:MOST_LINES]:
      print(f"{severity}: {text}")
    if len(texts) > MOST_LINES:
      print(f"{severity}: and {len(texts) - MOST_LINES} more")
  if found.wrong:
    raise errors.DataError(f"{path}: {_count(len(found.wrong), 'thing')} wrong, named above")
  print("nothing is wrong")


def find(path: pathlib.Path, known: readers.Told) -> Found:
  if source.is_prepared(path):
    return _prepared(source.Source(path))
  if annotations.is_annotations(path):
    return _annotations(path, known)
  ((name, clip),) = readers.read_all(path, known)
  if clip.track == "video":
    return _video(path, clip)
  in_3d = clip.guess.units == "metres"
  points = clip.joints3d if in_3d else clip.keypoints
  row = Row(name, -1, None, points, clip.frame_size, in_3d, skeleton=topology.get(clip.layout))
  return Found(f"one recording, {clip.guess}", iter([row]))


def _video(path: pathlib.Path, video: readers.VideoFile) -> Found:
  """Decodes all of it: an error says where that ends."""
  parts = range(0, video.num_frames, VIDEO_PART)
  notes = ()
  for first in progress.track(parts, "doctor", total=len(parts), unit="parts"):
    try:
      notes = video.cut(first, min(first + VIDEO_PART, video.num_frames) - 1).notes
    except errors.DataError as error:
      raise errors.DataError(f"{path}: {error}") from error
  return Found(f"one recording, {video.guess}", iter(()), notes=[*notes])


def _prepared(data: source.Source) -> Found:
  posed = "pose" in data.track_names
  # Of tokens and faces, the numbers of frames are not those of clips.
  last = lambda x: (x != "pose", x.startswith("tokens-"), x == "faces")  # noqa: E731
  track = data.track(min(data.track_names, key=last))

  def rows():
    for name in data.track_names:
      try:
        other = data.track(name)
      except errors.DataError as error:
        found.wrong.append(str(error))
        continue
      for i in other.rows.tolist() if other is not track or not posed else ():
        try:
          other.check(i)
        except errors.DataError as error:
          found.wrong.append(str(error))
    for k, i in enumerate(track.rows.tolist()):
      # Where subjects are not known, a clip's is its id.
      subject = None if data.subjects[i] == data.ids[i] else str(data.subjects[i])
      if not posed:
        known = {"num_frames": int(track.num_frames[k]), "content": track.contents[k]}
        yield Row(data.ids[i], int(data.labels[i]), subject, None, **known)
        continue
      try:
        record = track[i]
      except errors.DataError as error:
        found.wrong.append(str(error))
        continue
      in_3d = track.kind.joints3d and not record["keypoints"].any()
      points = record["joints3d" if in_3d else "keypoints"]
      size = tuple(record["frame_size"].tolist())
      row = Row(data.ids[i], int(data.labels[i]), subject, points, size, in_3d)
      yield row if data.synthetic else dataclasses.replace(row, skeleton=track.kind.layout)

  protocols = {
    name: tuple(frozenset(data.ids[row] for row in sides[side]) for side in ("train", "test"))
    for name, sides in data.protocols.items()
  }
  what = f"{data.name} {data.version}, prepared{', synthetic' * data.synthetic}, {track.kind}"
  found = Found(what, rows(), len(track.rows), data.class_names, protocols, data.shared_subjects)
  if data.mirror and (sides := source.left_and_right(data.class_names)):
    found.notes.append(sides)
  return found


def _annotations(path: pathlib.Path, known: readers.Told) -> Found:
  faults = []
  file = annotations.read(path, told=known, faults=faults)
  if not file.clips:
    raise faults[0]
  layout = known.layout or file.layout()
  kinds = collections.Counter()

  def rows():
    for one in file.clips:
      try:
        file.check_shape(one)
        clip = one.clip(known.layout, view=False)
      except errors.DataError as error:
        found.wrong.append(str(error))
        continue
      points = clip.joints3d if one.in_3d else clip.keypoints
      kinds[dataclasses.replace(clip.guess, notes=(), frame_size=None).kind] += 1
      found.what = f"annotations, {kinds.most_common(1)[0][0]}"
      nan, float16 = int(one.nan().sum()), one.points.dtype.itemsize == 2
      subject = annotations.subject(one.id)
      row = Row(one.id, one.label, subject, points, one.frame_size, one.in_3d, nan, float16)
      yield dataclasses.replace(row, num_clipped=clip.num_clipped, skeleton=topology.get(layout))

  wrong = list(map(str, faults))
  found = Found(f"annotations, {layout}", rows(), len(file.clips), wrong=wrong)
  if faults:
    found.notes.append("the splits are not examined before all annotations are right")
    return found
  try:
    found.protocols = file.protocols()
    if not found.protocols:
      names = ", ".join(map(repr, file.splits)) or "none"
      found.notes.append(f"no two splits pair up, and prepare will not take it: {names}")
  except errors.DataError as error:
    found.wrong.append(str(error))
  found.shared_subjects = tuple(filter(annotations.ACROSS_CAMERAS.search, found.protocols))
  if file.clips[0].in_3d and not file.seen_by_camera():
    found.notes.append("the 3-D points do not lie before a camera: no key points, no heatmaps")
  members = frozenset().union(*file.splits.values())
  if outside := [clip.id for clip in file.clips if clip.id not in members]:
    found.notes.append(f"{_count(len(outside), 'clip')} in no split: {_few(outside)}")
  return found


def examine(found: Found) -> dict[str, str]:
  """Reads all clips once, and adds to what is noted and wrong; returns the table, by line."""
  joints = collections.Counter()  # by what they are
  ids, labels, lengths, persons, digests, subjects = [], [], [], [], [], []
  nobody, float16, odd, doubts = [], 0, collections.defaultdict(list), {}
  for row in progress.track(found.rows, "doctor", total=found.num_rows, unit="clips"):
    ids.append(row.id)
    labels.append(row.label)
    subjects.append(row.subject)
    if row.points is None:
      lengths.append(row.num_frames)
      digests.append(row.content)
      continue
    lengths.append(len(row.points))
    persons.append(row.points.shape[1])
    float16 += row.float16
    present = row.points.any(-1)
    digests.append(records.digest({"points": row.points}) if present.any() else None)
    if not present.any():
      nobody.append(row.id)
    joints.update(all=present.size, absent=int((~present).sum()), nan=row.nan)
    joints.update(clipped=row.num_clipped)
    for text, doubt in _odd(row, present):
      odd[text].append(row.id)
      doubts.setdefault(text, doubt)
    if row.frame_size and not row.in_3d:
      share, hint = plausible.outside(row.points, row.frame_size)
      framed = np.count_nonzero(row.points[..., 2])
      count = round(share * framed)
      joints.update(framed=framed, outside=count, exchanged=count * (hint == plausible.EXCHANGED))
  if not ids:
    return {}

  if float16:
    rounds = "pixels to 0.5 above 512 and 1 above 1024, metres to 0.002 above 2"
    found.notes.append(f"{_count(float16, 'clip')} float16, which rounds {rounds}")
  if joints["nan"]:
    found.notes.append(f"{_count(joints['nan'], 'joint')} NaN, and read as absent")
  if joints["clipped"]:
    found.notes.append(f"{_count(joints['clipped'], 'score')} outside [0, 1], and clipped")
  for text, where in odd.items():
    asked = doubts[text].endswith("upside down?") or doubts[text].endswith("turned?")
    wrong = len(where) > MOST_ODD * len(ids) and not asked
    more = f" ({doubts[text]})" if doubts[text] else ""
    (found.wrong if wrong else found.notes).append(
      f"{_count(len(where), 'clip')} {text}: {_few(where)}{more}"
    )
  if nobody:
    found.notes.append(f"{_count(len(nobody), 'clip')} without anybody: {_few(nobody)}")
  for what, counts in (("ids", collections.Counter(ids)), ("points", collections.Counter(digests))):
    twice = sum(count for name, count in counts.items() if name and count > 1)
    if twice:
      texts = found.wrong if what == "ids" else found.notes
      texts.append(f"{_count(twice, 'clip')} with the very {what} of another one")
  _check_image(found, joints)

  known, median = set(subjects) - {None}, int(np.median(lengths))
  table = {
    "clips": str(len(ids)),
    "persons": f"at most {max(persons, default=0)}",
    "subjects": str(len(known)) if known else "not known",
    "frames": f"{min(lengths)} to {max(lengths)}, median {median}",
    "num_frames": f"{min(64, max(16, 8 * round(median / 8)))} suggested",
    "joints": f"{_share(joints['absent'], joints['all'])} absent",
  }
  if not persons:  # of clips without poses
    table = {name: table[name] for name in ("clips", "subjects", "frames")}
  if joints["nan"]:
    table["joints"] += f", {_share(joints['nan'], joints['all'])} NaN"
  if joints["framed"]:
    table["joints"] += f", {_share(joints['outside'], joints['framed'])} outside the image"
  for name, sides in found.protocols.items():
    members = [[i for i, id in enumerate(ids) if id in side] for side in sides]
    table[name] = f"{len(members[0])} to train, {len(members[1])} to test"
    _check_protocol(
      found, name, members, labels=labels, ids=ids, subjects=subjects, digests=digests
    )
  return table | _classes(found, collections.Counter(labels))


def _odd(row: Row, present: np.ndarray) -> Iterator[tuple[str, str]]:
  """What no recording should be, of a clip in which somebody is there; and what more is known."""
  there = present.any(-1)  # T M
  if not there.any():
    return
  if there.sum(-1).max() > MOST_PERSONS:
    yield f"with more than {MOST_PERSONS} persons in a frame", "frames and persons mistaken?"
  if there.any(-1).mean() < FEWEST_FRAMES:
    yield f"without anybody in more than {1 - FEWEST_FRAMES:.0%} of the frames", ""
  if present[there].mean() < FEWEST_JOINTS:
    yield f"without more than {1 - FEWEST_JOINTS:.0%} of the joints of those who are there", ""
  if not row.in_3d and (row.points[present][:, :2] < 0).any(-1).mean() > MOST_NEGATIVE:
    yield f"with more than {MOST_NEGATIVE:.0%} of the joints at negative places", "centred?"
  size = plausible.body_size(row.points[..., : 3 if row.in_3d else 2], present)
  if size is not None and not row.in_3d and size < plausible.SMALLEST_PIXELS:
    yield f"of a body smaller than {plausible.SMALLEST_PIXELS:g} pixels", "normalised?"
  doubts = row.skeleton and plausible.doubts(row.points, row.skeleton, in_3d=row.in_3d)
  for doubt in doubts or ():
    kind = "on its head, or lying" if doubt.startswith("the head") else f"unlike {row.skeleton}"
    yield kind, doubt


def _check_image(found: Found, joints: Mapping[str, int]) -> None:
  framed, outside = joints["framed"], joints["outside"]
  share, texts = _share(outside, framed), found.wrong if outside > 0.2 * framed else found.notes
  if joints["exchanged"] > 0.5 * outside:
    where = "the frame size seems to be (width, height)"
    texts.append(f"{where}: {share} of the joints lie outside of it")
  elif outside > 0.02 * framed:
    texts.append(f"{share} of the joints lie outside the image")


def _check_protocol(found, name, members, *, labels, ids, subjects, digests) -> None:
  for what, values in (("id", ids), ("subject", subjects), ("array", digests)):
    train, test = ({values[i] for i in side if values[i]} for side in members)
    if shared := train & test:
      copies = (ids[i] for i in members[1] if digests[i] in shared)
      where = f", of {_few(copies)}" if what == "array" else f": {_few(sorted(shared))}"
      across = what == "subject" and name in found.shared_subjects
      texts = found.notes if across else found.wrong
      sides = f"both sides{' (across cameras)' * across}"
      texts.append(f"{name}: {_count(len(shared), what)} on {sides}{where}")
  train, test = ([labels[i] for i in side] for side in members)
  if hidden := train.count(-1):
    found.wrong.append(f"{name}: {_count(hidden, 'clip')} to train with, without a label")
  untrained = sorted(set(test) - set(train) - {-1})
  if train and untrained:
    names = _few(_class(found, k) for k in untrained)
    found.notes.append(
      f"{name}: {_count(len(untrained), 'class')} tested but never trained: {names}"
    )


def _classes(found: Found, counts: collections.Counter) -> dict[str, str]:
  hidden = counts.pop(-1, 0)
  if not counts:
    return {"classes": "no labels"}
  if hidden:
    found.notes.append(f"{_count(hidden, 'clip')} without a label")
  number = len(found.class_names) or max(counts) + 1
  if max(counts) >= number:
    found.wrong.append(f"labels: expected at most {number - 1}, got {max(counts)}")
  if missing := number - sum(k < number for k in counts):
    absent = (_class(found, k) for k in range(number) if k not in counts)
    text = _few(itertools.islice(absent, 6))
    found.notes.append(f"{_count(missing, 'class')} without clips: {text}")
  most = max(counts.values())
  return {"classes": str(number)} | {
    f"  {_class(found, k)}": f"{counts[k]:>6} {'#' * round(20 * counts[k] / most)}"
    for k in sorted(counts)
  }


def _class(found: Found, k: int) -> str:
  return found.class_names[k] if k < len(found.class_names) else f"class {k}"


def _share(part: int, whole: int) -> str:
  return f"{part / max(whole, 1):.1%}"


def _count(number: int, noun: str) -> str:
  return (
    f"{number} {noun} is"
    if number == 1
    else f"{number} {noun}{'es' * (noun[-1] == 's') or 's'} are"
  )


def _few(names: Iterable[str]) -> str:
  (*few,) = itertools.islice(map(repr, names), 6)
  return ", ".join(few[:5]) + ", ..." * (len(few) > 5)


if __name__ == "__main__":
  launch.command(run, define, positional="FILE", devices=False)
