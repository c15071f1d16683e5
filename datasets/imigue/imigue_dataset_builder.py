"""iMiGUE: 32 micro-gestures of 72 tennis players (facts and readings: README.md)."""

import collections
import csv
import dataclasses
import json
import pathlib
import re

from jaxmg import files
from jaxmg.data import prepared, readers, recordings, tracks
from jaxmg.errors import ConfigError, DataError

# Public readers of the data set disagree by one frame: this is our reading.
FIRST_FRAME = 0  # the number by which a label file calls the first row of a skeleton file
FIRST_CLIP = 0  # the k of a video's first clip in `{vid:04d}_{k}`, as in published submissions

TRAIN_SUBJECTS = (
  2, 4, 5, 6, 9, 10, 12, 13, 14, 15, 17, 18, 20, 21, 22, 23, 25, 28, 29, 30, 31, 35, 36, 38, 39,
  41, 42, 43, 44, 46, 47, 48, 52, 53, 59, 61, 62,
)  # fmt: skip
ABSENT_VIDEOS = ("0218", "0319", "0347", "0348")  # from the MiGA challenge, for their bad skeletons

# Of videos, a number on each line, by their emotion protocol (datasets/imigue_emotion).
LISTS = {"train": "emotion_train.txt", "test": "emotion_test.txt"}

# name, short name, group
CLASSES = (
  ("Turtle neck", "turtle neck", "head"),
  ("Bulging face, deep breath", "deep breath", "head"),
  ("Touching hat", "touch hat", "head-hand"),
  ("Touching or scratching head", "touch face", "head-hand"),  # as the authors print it
  ("Touching or scratching forehead", "touch forehead", "head-hand"),
  ("Covering face", "cover face", "head-hand"),
  ("Rubbing eyes", "rub eyes", "head-hand"),
  ("Touching or scratching facial parts", "touch other face part", "head-hand"),
  ("Touching ears", "touch ears", "head-hand"),
  ("Biting nails", "bite nails", "head-hand"),
  ("Touching jaw", "touch chin", "head-hand"),
  ("Touching or scratching neck", "touch neck", "body-hand"),
  ("Playing or adjusting hair", "play hair", "body-hand"),
  ("Buckle button, pulling shirt collar, adjusting tie", "adjust tie", "body-hand"),
  ("Touching or covering suprasternal notch", "touch chest", "body-hand"),
  ("Scratching back", "scratch back", "body-hand"),
  ("Folding arms", "fold arm", "body-hand"),
  ("Dusting off clothes", "tidy sleeve", "body-hand"),
  ("Putting arms behind body", "put arm back", "body-hand"),
  ("Moving torso", "move torso", "body"),
  ("Sitting straightly", "sit straight", "body"),
  ("Scratching or touching arms", "scratch arm", "hand"),
  ("Rubbing or holding hands", "rub hand", "hand"),
  ("Crossing fingers", "cross finger", "hand"),
  ("Minaret gesture", "minaret hand", "hand"),
  ("Playing or manipulating objects", "play things", "hand"),
  ("Hold back arms", "withdraw arms", "hand"),
  ("Head up", "head up", "head"),
  ("Pressing lips", "bit lip", "head"),
  ("Arms akimbo", "arm akimbo", "hand"),
  ("Shaking shoulders", "shake shoulder", "body"),
  ("Illustrative body language", "illustrative", "illustrative"),
)

# The layouts that a video's files hold, the largest first.
LAYOUTS = {
  "openpose137": r"(\d+)_(?:2|openpose)\.(?:xlsx|csv)",
  "imigue35": r"(\d+)_light_hand\.csv",
}
FPS = 25  # of which labels count the frames
SUFFIX = f"(?i:{'|'.join(map(re.escape, readers.VIDEOS))})"

_cross_subject = prepared.by_subject(train=[str(subject) for subject in TRAIN_SUBJECTS])


@dataclasses.dataclass(frozen=True)
class Label:
  """A line of a label file: class in [0, 32) or -1, first and last frame.

  `outcome` is what the table of all videos says of the match: Win or Lose.
  """

  label: int
  start: int
  end: int
  video: int | None = None
  subject: int | None = None
  outcome: str | None = None


class Builder(prepared.Builder):
  """iMiGUE skeletons: OpenPose key points of whole videos, cut into labelled clips."""

  class_names, class_short_names, class_groups = zip(*CLASSES, strict=True)
  protocols = {  # noqa: RUF012
    "xsub": _cross_subject,
    "miga": lambda clip: None if clip["recording"] in ABSENT_VIDEOS else _cross_subject(clip),
  }
  subject_file = pathlib.Path(__file__).with_name("imigue_video_to_subject.json")

  what = "skeleton"  # a video's file of it
  of_emotion = False  # or the protocol of the lists comes first
  frame_size = (720, 1280)

  def __init__(self, *, raw, layout=None, **kwargs):
    paths = sorted(files.walk(raw))
    self.find(raw, paths, layout)
    self.label_files = by_video(paths, r"(\d+)_label\.csv")
    self.label_tables = [path for path in paths if re.fullmatch(r"labels_\d+\.csv", path.name)]
    self.lists, self.split_of = read_lists(raw, paths)
    if self.split_of:
      listed = {"emotion": lambda clip: self.split_of.get(int(clip["recording"]))}
      self.protocols = listed | self.protocols if self.of_emotion else self.protocols | listed
    super().__init__(raw=raw, layout=layout, **kwargs)

  def find(self, raw, paths, layout):
    """Chooses the track, and the file of each video."""
    found = {name: by_video(paths, pattern) for name, pattern in LAYOUTS.items()}
    chosen = _choose_layout(raw, found, layout)
    self.track = tracks.Pose(chosen, frame_size=self.frame_size, fps=FPS)
    self.files = found[chosen]

  def recordings(self):
    labels, subjects = self._labels()
    if not labels.keys() & self.files.keys():
      expected = "0001/0001_label.csv ... or Label/labels_20200831.csv"
      raise DataError(self.raw, expected=expected, got="no labels of the videos there")
    for video in sorted(labels.keys() - self.files.keys()):
      self.notes.append(f"video {video:04d} has labels and no {self.what} file, and is left out")
    for video, path in self.files.items():
      if video not in labels:
        self.notes.append(f"video {video:04d} has no labels and is left out")
        continue
      if video not in subjects:
        raise DataError(f"{path}: video {video}", expected="a known subject", got="none")
      yield from self.of_video(path, (video, str(subjects[video]), labels[video]))

  def of_video(self, path, known):
    """The recordings of a video."""
    yield path, known

  def clips(self, recording, known):
    video, subject, labels = known
    num_frames = recording.num_frames
    for k, label in enumerate(labels, FIRST_CLIP):
      id = f"{video:04d}_{k}"
      if not self.takes(id):
        continue
      start, stop = label.start - FIRST_FRAME, label.end - FIRST_FRAME + 1
      if not 0 <= start < num_frames:
        self.notes.append(f"clip {id} starts after its file's end and is left out")
        continue
      if stop > num_frames:
        self.notes.append(f"clip {id} ends {stop - num_frames} frames after its file")
      clip = recording.cut(start, min(stop, num_frames) - 1)
      yield prepared.Example(id, label.label, subject, clip, f"{video:04d}")

  def _labels(self):
    """The labels of each video in their order, and its subject."""
    labels, subjects = collections.defaultdict(list), {}
    if self.subject_file:
      subjects = {int(v): s for v, s in json.loads(self.subject_file.read_text()).items()}
    for path in self.label_tables:
      for label in read_labels(path):
        labels[label.video].append(label)
        subject = subjects.setdefault(label.video, label.subject)
        if subject != label.subject:
          where = f"{path}: subject of video {label.video}"
          raise DataError(where, expected=subject, got=label.subject, hint="not iMiGUE?")
    # Where a video has its own file, submissions count the lines of that one.
    return labels | {v: read_labels(path) for v, path in self.label_files.items()}, subjects


class Video(Builder):
  """iMiGUE videos, cut into the same clips: whole recordings, or a file of each clip."""

  name = Builder.name
  track = tracks.Video((256, 455))
  track_name = "video"
  what = "video"

  def find(self, raw, paths, layout):
    whole = by_video(paths, rf"(\d+){SUFFIX}")
    parts = collections.defaultdict(dict)
    for path in paths:
      if match := re.fullmatch(rf"(\d+)_(\d+){SUFFIX}", path.name):
        parts[int(match[1])].setdefault(int(match[2]), path)
    if not whole and not parts:
      raise DataError(raw, expected="videos, 0001.mp4 ... or 0001_0.mp4 ...", got="none")
    self.files = dict(sorted((parts | whole).items()))
    used = {*whole.values(), *(path for clips in parts.values() for path in clips.values())}
    self.others = [
      path for path in paths if re.fullmatch(rf"\d+(_\d+)?{SUFFIX}", path.name) and path not in used
    ]
    self.twice = len(whole.keys() & parts.keys())

  def recordings(self):
    if self.others:  # the challenge's validation folder repeats training videos
      first = self.others[0].relative_to(self.raw)
      self.notes.append(f"{len(self.others)} files are of a video read before, as {first} is")
    if self.twice:
      self.notes.append(f"{self.twice} videos are there in parts as well, which are not used")
    yield from super().recordings()

  def of_video(self, path, known):
    if isinstance(path, dict):
      yield from self._parts(path, *known)
    else:
      # Not handed over as a file: that would be read whole, and some are hours long.
      yield None, (known, path, recordings.stamp(path))

  def clips(self, recording, known):
    if recording is None:
      yield from self._cut(*known)
    else:
      id, label, subject = known
      length = label.end - label.start + 1
      if abs(recording.num_frames - length) > 1:
        self.notes.append(f"clip {id} has {recording.num_frames} frames, by its label {length}")
      if self.takes(id):
        yield prepared.Example(id, label.label, subject, recording, id.partition("_")[0])

  def _parts(self, paths, video, subject, labels):
    numbers = range(FIRST_CLIP, FIRST_CLIP + len(labels))
    if beyond := sorted(paths.keys() - {*numbers}):
      expected = (
        f"a line {beyond[0]} (the first is {FIRST_CLIP}) of the labels of video {video:04d}"
      )
      raise DataError(paths[beyond[0]], expected=expected, got=f"{len(labels)} lines")
    if missing := sorted({*numbers} - paths.keys()):
      ids = ", ".join(f"{video:04d}_{k}" for k in missing[:5]) + ", ..." * (len(missing) > 5)
      self.notes.append(f"{len(missing)} clips have no file and are left out: {ids}")
    for k, path in sorted(paths.items()):
      yield path, (f"{video:04d}_{k}", labels[k - FIRST_CLIP], subject)

  def _cut(self, known, path, stamp):
    recording = readers.read(path)
    if recording.fps is not None and abs(recording.fps / FPS - 1) > 0.01:
      rate = f"{recording.fps:.4g} frames a second, not {FPS}"
      self.notes.append(f"{path.name} has {rate}: do its labels count these frames?")
    try:
      yield from super().clips(recording, known)
    except DataError as error:
      raise DataError(f"{path}: {error}") from error


def read_labels(path: str | pathlib.Path) -> list[Label]:
  """Reads a label file, in its order.

  Either `{vid}_label.csv`, lines of class, start, end without a header; or `labels_20200831.csv`,
  with the header `video_id,class,start_frame,end_frame,win_or_lose,subject_id`. Classes 1 to 31
  become 0 to 30, 99 (illustrative) becomes 31, and 0 or -1 (hidden) become -1.
  """
  path = pathlib.Path(path)
  try:
    with open(path, encoding="utf-8-sig", newline="") as file:
      rows = [(number, row) for number, row in enumerate(csv.reader(file), 1) if any(row)]
  except FileNotFoundError:
    raise DataError(path, expected="a label file", got="nothing") from None
  except (ValueError, csv.Error) as error:
    raise DataError(f"{path}: {error}") from error
  columns = ["class", "start_frame", "end_frame"]
  if rows and rows[0][1][0].strip()[:1].isalpha():
    columns = [name.strip() for name in rows.pop(0)[1]]
    missing = {"class", "start_frame", "end_frame", "video_id", "subject_id"} - set(columns)
    if missing:
      raise DataError(
        f"{path}:1", expected=f"a column {sorted(missing)[0]}", got=", ".join(columns)
      )
  return [_label(f"{path}:{number}", columns, row) for number, row in rows]


def by_video(paths, pattern):
  """The first file of each video: MiGA's validation folder repeats training videos."""
  found = {}
  for path in paths:
    if match := re.fullmatch(pattern, path.name):
      found.setdefault(int(match[1]), path)
  return dict(sorted(found.items()))


def _choose_layout(raw, files, layout):
  if layout not in (None, *files):
    raise ConfigError("layout", expected=" or ".join(files), got=layout)
  videos = set().union(*files.values())
  for name in files if layout is None else (layout,):
    if files[name] and files[name].keys() == videos:
      return name
  expected = f"files of every video in one layout, {layout or ' or '.join(files)}"
  got = ", ".join(f"{name} of {len(found)}" for name, found in files.items())
  raise DataError(raw, expected=expected, got=got, hint="see datasets/imigue/README.md")


def _label(where: str, columns: list[str], row: list[str]) -> Label:
  if len(row) != len(columns):
    raise DataError(where, expected=f"{len(columns)} columns", got=len(row))
  fields = dict(zip(columns, row, strict=True))
  numbers = {}
  for name in ("class", "start_frame", "end_frame", "video_id", "subject_id"):
    if name in fields:
      try:
        numbers[name] = int(fields[name])
      except ValueError:
        raise DataError(f"{where}: {name}", expected="an integer", got=repr(fields[name])) from None
  label, start, end = numbers["class"], numbers["start_frame"], numbers["end_frame"]
  if label not in (*range(-1, 32), 99):
    raise DataError(f"{where}: class", expected="1 to 31 or 99", got=label)
  label = 31 if label == 99 else max(label - 1, -1)
  if not 0 <= start <= end:
    raise DataError(f"{where}: frames", expected="0 <= start <= end", got=f"{start} to {end}")
  of_all = numbers.get("video_id"), numbers.get("subject_id"), fields.get("win_or_lose")
  return Label(label, start, end, *of_all)


def read_lists(raw: str | pathlib.Path, paths: list[pathlib.Path]) -> tuple[dict, dict[int, str]]:
  """The files of LISTS, and the split of each video in them; nothing where there are none.

  Raises DataError, which names the line.
  """
  found = {path.name: path for path in sorted(paths) if path.name in LISTS.values()}
  if len(found) == 1:
    (missing,) = {*LISTS.values()} - found.keys()
    raise DataError(raw, expected=missing, got=f"{next(iter(found))} alone")
  files_of, split_of = {split: found.get(name) for split, name in LISTS.items()}, {}
  for split, path in files_of.items() if found else ():
    try:
      lines = path.read_text(encoding="utf-8-sig").splitlines()
    except ValueError as error:
      raise DataError(f"{path}: {error}") from error
    for number, line in enumerate(lines, 1):
      if not (text := line.strip()):
        continue
      if not (text.isascii() and text.isdigit()):
        raise DataError(f"{path}:{number}", expected="a video, as 0001", got=repr(text))
      video = int(text)
      if video in split_of:
        expected = "each video once in the two lists"
        raise DataError(f"{path}:{number}", expected=expected, got=f"{text} again")
      split_of[video] = split
  return files_of, split_of
