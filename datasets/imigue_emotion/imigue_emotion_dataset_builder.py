"""iMiGUE's interviews: was the match won or lost? A clip is a whole video (README.md)."""

import collections
import dataclasses

import numpy as np
from imigue import imigue_dataset_builder as imigue

from jaxmg.data import face_crops, prepared, readers, recordings, tracks
from jaxmg.errors import DataError

OUTCOMES = ("Lose", "Win")
RATE = 12  # frames a second that are kept, at least, of a video of more
FACES = 5.0  # a second


class Builder(imigue.Builder):
  """iMiGUE interviews: key points of whole videos, after matches that were won or lost."""

  class_names = tuple(map(str.lower, OUTCOMES))
  class_short_names = class_groups = None
  protocols = {"xsub": imigue.Builder.protocols["xsub"]}  # noqa: RUF012 (after that of the lists)
  of_emotion = True
  published = {"train": (51, 51), "test": (50, 50)}  # noqa: RUF012 (lost and won, in LISTS)

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
    if not self.split_of:
      names = " and ".join(imigue.LISTS.values())
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
    # Windows are those of the track of videos, to the frame.
    kept = video.times[:: _step(video)]
    end = kept[-1] + (np.median(np.diff(kept)) if len(kept) > 1 else 0)
    counts = pose.num_frames, video.num_frames
    if counts[0] != counts[1]:
      self.notes.append(f"{name} has {counts[0]} frames of key points, and {counts[1]} of its own")
      video, pose = (one.part(0, min(counts) - 1) for one in (video, pose))
    pose = dataclasses.replace(pose, frame_size=pose.frame_size or self.pose.frame_size)
    try:
      found = face_crops.find(video, rate=FACES, keypoints=pose).gathered()
    except face_crops.NoFace:
      self.notes.append(f"{name} shows no face, and is left out")
      return None
    return dataclasses.replace(found, span=np.array([kept[0], max(end, found.times[-1])]))


def _step(video):
  """Of how many frames one is kept."""
  return max(1, int((video.fps or imigue.FPS) / RATE))
