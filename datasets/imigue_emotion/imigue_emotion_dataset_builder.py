"""iMiGUE's interviews: was the match won or lost? A clip is a whole video (README.md)."""

import collections

from imigue import imigue_dataset_builder as imigue

from jaxmg import files
from jaxmg.data import prepared, readers, recordings, tracks
from jaxmg.errors import DataError

LISTS = {"train": "emotion_train.txt", "test": "emotion_test.txt"}
OUTCOMES = ("Lose", "Win")
RATE = 12  # frames a second that are kept, at least, of a video of more


class Builder(imigue.Builder):
  """iMiGUE interviews: key points of whole videos, after matches that were won or lost."""

  class_names = tuple(map(str.lower, OUTCOMES))
  class_short_names = class_groups = None
  protocols = {"xsub": imigue.Builder.protocols["xsub"]}  # noqa: RUF012
  published = {"train": (51, 51), "test": (50, 50)}  # noqa: RUF012 (lost and won, in LISTS)

  def __init__(self, *, raw, **kwargs):
    found = {path.name: path for path in sorted(files.walk(raw)) if path.name in LISTS.values()}
    self.lists = {split: found.get(name) for split, name in LISTS.items()}
    if len(found) == 1:
      (missing,) = {*LISTS.values()} - found.keys()
      raise DataError(raw, expected=missing, got=f"{next(iter(found))} alone")
    if found:
      self.split_of = read_lists(self.lists)
      listed = {"emotion": lambda clip: self.split_of.get(int(clip["id"]))}
      self.protocols = listed | self.protocols
    super().__init__(raw=raw, **kwargs)

  def recordings(self):
    self._check_lists(*self._labels())
    yield from super().recordings()

  def clips(self, recording, known):
    video, subject, outcome = known
    id = f"{video:04d}"
    if self.takes(id):
      yield prepared.Example(id, outcome.lower(), subject, recording)

  def _labels(self):
    """The outcome of each video, and its subject."""
    self.label_files = {}  # of gestures
    labels, subjects = super()._labels()
    where = f"{self.label_tables[0] if self.label_tables else self.raw}: win_or_lose of video"
    outcomes = {}
    for video, lines in labels.items():
      found = sorted({str(line.outcome) for line in lines})
      if len(found) > 1 or found[0] not in OUTCOMES:
        got = " and ".join(found)
        expected = "one of Win and Lose in all its lines"
        raise DataError(f"{where} {video}", expected=expected, got=got)
      (outcomes[video],) = found
    return outcomes, subjects

  def _check_lists(self, outcomes, subjects):
    """Notes what the lists hold; DataError for a video that no label names."""
    if "emotion" not in self.protocols:
      names = " and ".join(LISTS.values())
      self.notes.append(f"no {names}: xsub is by subjects, and not the published protocol")
      return
    sides = {}
    for split, path in self.lists.items():
      listed = [video for video, side in self.split_of.items() if side == split]
      if unknown := [video for video in listed if video not in outcomes]:
        expected = "videos that the table of labels has"
        raise DataError(path, expected=expected, got=f"{unknown[0]:04d}")
      counts = collections.Counter(outcomes[video] for video in listed)
      counts = tuple(counts[outcome] for outcome in OUTCOMES)
      usual = self.published[split]
      note = f"emotion: {split} has {counts[0]} lost and {counts[1]} won"
      self.notes.append(note + f", not {usual[0]} and {usual[1]}" * (counts != usual))
      sides[split] = {subjects.get(video) for video in listed}
    if shared := sides["train"] & sides["test"]:
      self.notes.append(f"emotion: {len(shared)} subjects are in both train and test")
      self.shared_subjects = ("emotion",)


class Video(Builder):
  """The videos of the interviews, whole, of every other frame."""

  name = Builder.name
  track = tracks.Video((256, 455))
  track_name = "video"
  what = "video"

  def find(self, raw, paths, layout):
    self.files = imigue.by_video(paths, rf"(\d+){imigue.SUFFIX}")
    if not self.files:
      raise DataError(raw, expected="whole videos, 0001.mp4 ...", got="none")

  def of_video(self, path, known):
    # Not handed over as a file: all of its frames would be held.
    yield None, (known, path, recordings.stamp(path))

  def clips(self, recording, known):
    known, path, _ = known
    video = readers.read(path)
    step = max(1, int((video.fps or imigue.FPS) / RATE))
    try:
      pictures = tuple(video[k] for k in range(0, video.num_frames, step))
    except DataError as error:
      raise DataError(f"{path}: {error}") from error
    times = video.times[::step]
    frames = readers.Frames(pictures, times, video.frame_size, notes=video.notes)
    yield from super().clips(frames, known)


def read_lists(paths):
  """The split of each video of the two lists, a number of one on each line.

  Raises DataError, which names the line.
  """
  split_of = {}
  for split, path in paths.items():
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
  return split_of
