"""iMiGUE's interviews: was the match won or lost? A clip is a whole video (README.md)."""

import collections
import io

import jax
import numpy as np
from imigue import imigue_dataset_builder as imigue

from jaxmg import faces, files
from jaxmg.data import prepared, readers, recordings, tracks
from jaxmg.errors import DataError

LISTS = {"train": "emotion_train.txt", "test": "emotion_test.txt"}
OUTCOMES = ("Lose", "Win")
RATE = 12  # frames a second that are kept, at least, of a video of more
FACES = 5  # a second
QUALITY = 95  # of a face's JPEG
_AT_ONCE = 16  # pictures that are aligned
_align = jax.jit(faces.align)


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
    video = video.every(_step(video))
    try:
      frames = video.cut(0, video.num_frames - 1)
    except DataError as error:
      raise DataError(f"{path}: {error}") from error
    yield from super().clips(frames, known)


class Faces(Video):
  """The faces in these videos, where their key points are."""

  name = Builder.name
  track = tracks.Faces()
  track_name = "faces"

  def find(self, raw, paths, layout):
    imigue.Builder.find(self, raw, paths, layout)
    self.pose, self.points = self.track, self.files
    self.track = Faces.track
    super().find(raw, paths, layout)

  def of_video(self, path, known):
    if points := self.points.get(known[0]):
      files = path, points
      yield None, (known, files, [*map(recordings.stamp, files)])
    else:
      self.notes.append(f"video {known[0]:04d} has no skeleton file, and is left out")

  def clips(self, recording, known):
    known, (path, points), _ = known
    video, pose = readers.read(path), self.pose.read_file(points)
    try:
      crops = self.crops(f"video {known[0]:04d}", video, pose)
    except DataError as error:
      raise DataError(f"{path}: {error}") from error
    if crops is not None:
      yield from Builder.clips(self, crops, known)

  def crops(self, name, video, pose):
    """The faces of a video, in all its pixels; None where there is none."""
    from PIL import Image

    counts = pose.num_frames, video.num_frames
    if counts[0] != counts[1]:
      self.notes.append(f"{name} has {counts[0]} frames of key points, and {counts[1]} of its own")
    keypoints = pose.keypoints[: min(counts)]
    layout = self.pose.layout
    followed = faces.from_keypoints(keypoints, layout, video.times[: min(counts)])
    # The faces of every part of a second; the ends are those of the track of videos.
    step = max(1, round((video.fps or imigue.FPS) / FACES))
    scores = followed.scores[::step]
    chosen = np.flatnonzero(scores > 0)
    if not len(chosen):
      self.notes.append(f"{name} shows no face, and is left out")
      return None
    thin, kept = video.every(step, short_side=min(video.source_size)), video.times[:: _step(video)]
    end = kept[-1] + (np.median(np.diff(kept)) if len(kept) > 1 else 0)
    # Pixels are counted from their middles.
    larger = np.divide(thin.frame_size, pose.frame_size or self.pose.frame_size)[::-1]
    landmarks = np.float32((followed.landmarks[::step] + 0.5) * larger - 0.5)[chosen]
    pictures = []
    for k in range(0, len(chosen), _AT_ONCE):
      some = chosen[k : k + _AT_ONCE]
      frames = [np.asarray(Image.open(io.BytesIO(thin[i]))) for i in some.tolist()]
      # Always as many, so that one program is compiled for a size of videos.
      missing = _AT_ONCE - len(some)
      shown = np.stack([*frames, *frames[:1] * missing])
      marks = np.concatenate([landmarks[k : k + len(some)], *[landmarks[k : k + 1]] * missing])
      pictures += map(_jpeg, np.asarray(_align(shown, marks))[: len(some)])
    return readers.FaceCrops(
      tuple(pictures),
      thin.times[chosen],
      np.array([kept[0], end]),
      landmarks,
      scores[chosen],
      notes=video.notes,
    )


def _step(video):
  """Of how many frames one is kept."""
  return max(1, int((video.fps or imigue.FPS) / RATE))


def _jpeg(face):
  from PIL import Image

  into = io.BytesIO()
  Image.fromarray(face).save(into, "JPEG", quality=QUALITY)
  return into.getvalue()


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
