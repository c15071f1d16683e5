"""A folder of videos, and perhaps a table of what they show (README.md)."""

import collections
import csv
import dataclasses
import hashlib
import os
import pathlib
import unicodedata

from jaxmg import files, progress
from jaxmg.data import prepared, readers, recordings, tracks
from jaxmg.errors import DataError

LABELS = "labels.csv"
COLUMNS = ("file", "class", "subject", "split")  # the last two may be missing
SPLITS = ("train", "test")
PROBED = 100  # files of which it is seen how large a frame is


@dataclasses.dataclass(frozen=True)
class Video:
  """A file, and what is known of it; `subject` is its id where nobody is named."""

  path: pathlib.Path
  id: str
  label: str
  subject: str
  split: str = "train"


class Builder(prepared.Builder):
  """The videos of a folder, each a clip."""

  is_format = True
  track_name = "video"

  def __init__(self, *, raw, layout=None, **kwargs):
    self.videos, notes = find_videos(pathlib.Path(raw))
    self.class_names = _in_order({video.label for video in self.videos})
    split_of = {video.id: video.split for video in self.videos}
    self.protocols = {"split": lambda clip: split_of[clip["id"]]}
    self.track = self.choose_track(layout)
    super().__init__(raw=raw, layout=layout and str(readers.find_layout(layout)), **kwargs)
    self.notes += notes

  def choose_track(self, layout):
    # The same files whichever others come or go, so that a killed command goes on.
    some = sorted(self.videos, key=lambda video: hashlib.sha256(video.id.encode()).digest())
    sizes = collections.Counter(_open(video).frame_size for video in some[:PROBED])
    return tracks.Video(sizes.most_common(1)[0][0])

  def recordings(self):
    for video in self.videos:
      yield video.path, video

  def clips(self, recording, known):
    yield prepared.Example(known.id, known.label, known.subject, recording)


class Poses(Builder):
  """The key points beside the videos of a folder."""

  name = Builder.name
  track_name = "pose"

  def choose_track(self, layout):
    self.files = {video.id: _beside(video.path) for video in self.videos}
    told = dataclasses.replace(self.told, layout=layout and readers.find_layout(layout))
    found, what = [path for path in self.files.values() if path], "key points"
    if not found:
      expected = "key points beside the videos, as clip.csv is beside clip.mp4"
      raise DataError(self.videos[0].path.parent, expected=expected, got="none")
    read = {field.name: getattr(told, field.name) for field in dataclasses.fields(told)}
    persons, in_3d = 1, set()
    for path in progress.track(found, what, total=len(found), unit="files"):
      clip = readers.read(path, **read)
      layout, persons = layout or clip.layout, max(persons, clip.keypoints.shape[1])
      in_3d.add(clip.joints3d is not None)
    if len(in_3d) > 1:
      raise DataError(what, expected="all in pixels, or all in metres", got="some of each")
    video = next(video for video in self.videos if self.files[video.id])
    size = self.told.frame_size or _open(video).source_size
    return tracks.Pose(readers.find_layout(layout), size, persons, *in_3d)

  def recordings(self):
    without = [video.id for video in self.videos if not self.files[video.id]]
    if without:
      self.notes.append(f"no key points beside {_few(without)}")
    for video in self.videos:
      if path := self.files[video.id]:
        yield path, (video, recordings.stamp(video.path))

  def clips(self, recording, known):
    video, _ = known
    seen = _open(video)
    if seen.num_frames != recording.num_frames:
      counts = f"{recording.num_frames} frames of key points, and {seen.num_frames} of its video"
      self.notes.append(f"clip {video.id} has {counts}")
    clip = recording.sized(seen.source_size)
    yield prepared.Example(video.id, video.label, video.subject, clip)


def find_videos(folder: pathlib.Path) -> tuple[list[Video], list[str]]:
  """The videos of a folder, as README.md says; and what is to be said of how they were taken.

  Raises DataError where it cannot be known what a video shows.
  """
  if not folder.is_dir():
    raise DataError(folder, expected="a folder of videos", got="a file")
  found, others = {}, []  # by their paths below the folder, whose accents are written in one way
  for path in files.walk(folder):
    below = path.relative_to(folder)
    if path.suffix.lower() in readers.VIDEOS and not any(x.startswith(".") for x in below.parts):
      name = _text(below.as_posix())
      if name in found:
        raise DataError(path, expected="a name of its own", got=f"{found[name]} as well")
      found[name] = path
    else:
      others.append(path)
  if not found:
    expected = f"videos ({', '.join(readers.VIDEOS)})"
    raise DataError(folder, expected=expected, got=f"{len(others)} other files")
  by_id = {}
  for name in found:
    other = by_id.setdefault(_id(name), name)
    if other != name:
      raise DataError(found[name], expected="a name of its own", got=f"{other} as well")
  table = folder / LABELS
  if table.exists():
    videos, notes = read_labels(table, found)
  else:
    videos, notes = _by_folder(folder, found)
  if all(video.subject == video.id for video in videos):
    notes.append("subjects are not known: each video counts as one of its own, in folds too")
  stems = {path.with_suffix("") for path in found.values()}
  read = {table} | {
    path for path in others if not stems.isdisjoint([path.with_suffix(""), *path.parents])
  }
  if unread := [path.relative_to(folder).as_posix() for path in others if path not in read]:
    notes.append(f"not videos, and left out: {_few(unread)}")
  return videos, notes


def read_labels(
  path: pathlib.Path, found: dict[str, pathlib.Path]
) -> tuple[list[Video], list[str]]:
  """The videos of a table, in its order; and what is to be said of it.

  Raises DataError, which names the line.
  """
  try:
    with open(path, encoding="utf-8-sig", newline="") as file:
      rows = [(reader.line_num, row) for reader in [csv.reader(file)] for row in reader if any(row)]
  except (ValueError, csv.Error) as error:
    raise DataError(f"{path}: {error}") from error
  header = [_text(name.strip()) for name in rows[0][1]] if rows else []
  right = header[:2] == [*COLUMNS[:2]] and set(header) <= {*COLUMNS}
  if not right or len(set(header)) < len(header):
    expected = "the header file,class or file,class,subject,split"
    raise DataError(f"{path}:1", expected=expected, got=",".join(header) or "nothing")
  videos, lines = [], {}
  for number, row in rows[1:]:
    where, row = f"{path}:{number}", [_text(value.strip()) for value in row]
    if len(row) != len(header):
      raise DataError(where, expected=f"{len(header)} columns", got=len(row))
    values = dict(zip(header, row, strict=True))
    name = values["file"]
    for column, right, expected in (
      ("file", name in found, "a video below the folder"),
      ("file", name not in lines, f"each once, as it is in line {lines.get(name)}"),
      ("class", values["class"].isprintable() and values["class"], "a name"),
      ("split", values.get("split", "train") in SPLITS, " or ".join(SPLITS)),
      ("subject", values.get("subject", "any"), "a name"),
    ):
      if not right:
        raise DataError(f"{where}: {column}", expected=expected, got=repr(values[column]))
    lines[name], id = number, _id(name)
    subject = values.get("subject", id)
    videos.append(Video(found[name], id, values["class"], subject, values.get("split", "train")))
  if not videos:
    raise DataError(path, expected="a line for each video", got="none")
  notes = [f"classes as in {path.name}: {_classes(videos)}"]
  if "split" not in header:
    notes.append("no column split: all videos are to train")
  if unlisted := [name for name in found if name not in lines]:
    notes.append(f"not in {path.name}, and left out: {_few(unlisted)}")
  return videos, notes


def _by_folder(folder, found):
  """The videos of classes that are sub-folders, or of one class each."""
  depths = {name.count("/"): name for name in found}
  hint = f"write a {LABELS}: file,class[,subject][,split]"
  if len(depths) > 1:
    expected, got = "videos in the folder, or in one folder a class", f"both {depths[min(depths)]}"
    raise DataError(folder, expected=expected, got=f"{got} and {depths[max(depths)]}", hint=hint)
  (depth,) = depths
  if depth > 1:
    raise DataError(folder, expected="CLASS/VIDEO", got=depths[depth], hint=hint)
  if depth:
    classes = {name.partition("/")[0] for name in found}
    for path in sorted(folder.iterdir()):
      if path.is_dir() and not path.name.startswith(".") and _text(path.name) not in classes:
        raise DataError(path, expected="videos of this class", got="none")
  videos = []
  for name, path in found.items():
    id = _id(name)
    videos.append(Video(path, id, name.partition("/")[0] if depth else id, id))
  what = "sub-folders" if depth else "names of files"
  split = f"no {LABELS}: all videos are to train"
  return videos, [f"classes are {what}: {_classes(videos)}", split]


def _beside(video: pathlib.Path) -> pathlib.Path | None:
  """The file or folder of key points that is called like a video."""
  stem = video.with_suffix("")
  suffixes = [suffix for suffix in readers.READERS if suffix not in (*readers.VIDEOS, "folder")]
  paths = [stem.with_name(stem.name + suffix) for suffix in suffixes]
  found = [path for path in paths if path.is_file() and path.name != LABELS]
  found += [stem] if stem.is_dir() else []
  if len(found) > 1:
    got = " and ".join(path.name for path in found)
    raise DataError(video, expected="one file of key points beside it", got=got)
  return found[0] if found else None


def _open(video: Video) -> readers.VideoFile:
  return readers.read(video.path)


def _text(name: str) -> str:
  return unicodedata.normalize("NFC", name)  # a disk of macOS has others


def _id(name: str) -> str:
  return os.path.splitext(name)[0].replace("/", "__")


def _in_order(names: set[str]) -> tuple[str, ...]:
  """By their numbers, where all are numbers."""
  numbers = all(map(str.isdecimal, names))
  return tuple(sorted(names, key=lambda name: (int(name) if numbers else 0, name)))


def _classes(videos: list[Video]) -> str:
  return f"{len({video.label for video in videos})} of {len(videos)} videos"


def _few(names: list[str]) -> str:
  more = f" and {len(names) - 5} more" * (len(names) > 5)
  return ", ".join(names[:5]) + more
