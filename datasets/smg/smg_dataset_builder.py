"""SMG: 17 classes of gestures of 40 people, Kinect v2 skeletons (facts and readings: README.md)."""

import csv
import dataclasses
import pathlib
import re
from collections.abc import Iterator

from jaxmg import files
from jaxmg.data import prepared, tracks
from jaxmg.errors import DataError

# The authors' scripts disagree by one frame: this is our reading.
FIRST_FRAME = 1  # the number by which a label file calls the first row of a skeleton file

TRAIN_SUBJECTS, TEST_SUBJECTS = range(1, 36), range(36, 41)

# name, short name, group: the last two are our reading, after iMiGUE's
CLASSES = (
  ("turtling neck and shoulder", "turtle neck", "head"),
  ("rubbing eyes and forehead", "rub eyes", "head-hand"),
  ("folding arms", "fold arm", "body-hand"),
  ("touching or covering suprasternal notch", "touch chest", "body-hand"),
  ("moving legs", "move legs", "leg"),
  ("touching or scratching neck", "touch neck", "body-hand"),
  ("folding arms behind body", "put arm back", "body-hand"),
  ("rubbing hands and crossing fingers", "rub hand", "hand"),
  ("arms akimbo", "arm akimbo", "hand"),
  ("crossing legs", "cross legs", "leg"),
  ("scratching some part of the body", "scratch body", "body-hand"),
  ("touching or scratching facial parts other than eyes", "touch other face part", "head-hand"),
  ("playing or adjusting hair", "play hair", "body-hand"),
  ("holding arms", "hold arms", "hand"),
  ("pulling shirt collar", "pull collar", "body-hand"),
  ("playing with jewellery or objects", "play things", "hand"),
  ("illustrative hand gestures", "illustrative", "illustrative"),
)

DEPTH_IMAGE = 512, 424  # width, height


@dataclasses.dataclass(frozen=True)
class Label:
  """A line of a label file: class in [0, 17), first and last frame."""

  label: int
  start: int
  end: int


class Builder(prepared.Builder):
  """SMG skeletons: 3D joints of whole recordings and their view, cut into labelled clips."""

  track = tracks.Pose("kinect25", frame_size=(1080, 1920), joints3d=True)
  class_names, class_short_names, class_groups = zip(*CLASSES, strict=True)
  protocols = {"xsub": prepared.by_subject(train=[str(s) for s in TRAIN_SUBJECTS])}  # noqa: RUF012

  def recordings(self):
    skeletons, labels, data = (self._files(kind) for kind in ("skeleton", "finelabels", "data"))
    if not skeletons.keys() & labels.keys():
      expected = "Sample0001/Sample0001_skeleton.csv with Sample0001_finelabels.csv ..."
      raise DataError(self.raw, expected=expected, got="no such pair")
    for there, lacking, what in (
      (skeletons, labels, "no labels"),
      (labels, skeletons, "no skeleton file"),
    ):
      for sample in sorted(there.keys() - lacking.keys()):
        self.notes.append(f"sample {sample:04d} has {what} and is left out")
    rates = set()
    for sample in sorted(skeletons.keys() & labels.keys()):
      path = skeletons[sample]
      if sample not in (*TRAIN_SUBJECTS, *TEST_SUBJECTS):
        expected = f"samples 1 to {TEST_SUBJECTS[-1]}"
        raise DataError(path, expected=expected, got=sample, hint="not SMG?")
      declared = None  # frames
      if sample in data:
        declared, fps, _ = read_data(data[sample])
        rates.add(fps)
      yield path, (path, sample, declared, read_labels(labels[sample]))
    if len(rates) == 1:
      self.track = dataclasses.replace(self.track, fps=rates.pop())

  def clips(self, recording, known):
    path, sample, declared, labels = known
    if recording.joints3d is None:
      got = f"{recording.keypoints.shape[2]} key points without a place in space"
      raise DataError(path, expected="275 columns", got=got)
    num_frames = len(recording.keypoints)
    if (recording.keypoints[..., :2] < DEPTH_IMAGE).all():
      size = "{} x {}".format(*DEPTH_IMAGE)
      self.notes.append(f"sample {sample:04d} lies within {size}: pixels of the depth image?")
    if declared not in (None, num_frames):
      self.notes.append(f"sample {sample:04d} has {num_frames} of {declared} frames")
    for k, label in enumerate(labels):
      id = f"{sample:04d}_{k}"
      start, stop = label.start - FIRST_FRAME, label.end - FIRST_FRAME + 1
      first, last = max(start, 0), min(stop, num_frames) - 1
      if first > last:
        self.notes.append(f"clip {id} lies outside its file and is left out")
        continue
      if (first, last) != (start, stop - 1):
        left = last - first + 1
        self.notes.append(f"clip {id} is cut to {left} of {stop - start} frames by its file")
      clip = recording.cut(first, last)
      yield prepared.Example(id, label.label, str(sample), clip, f"{sample:04d}")

  def _files(self, kind: str) -> dict[int, pathlib.Path]:
    """The first file of each sample, wherever it lies."""
    found = {}
    for path in sorted(files.walk(self.raw)):
      if match := re.fullmatch(rf"Sample(\d+)_{kind}\.csv", path.name):
        found.setdefault(int(match[1]), path)
    return found


def read_labels(path: str | pathlib.Path) -> list[Label]:
  """Reads `Sample0001_finelabels.csv`: lines of class (1 to 17), start, end without a header."""
  labels = []
  for where, cells in _lines(pathlib.Path(path)):
    label, start, end = _integers(where, cells, ("class", "start_frame", "end_frame"))
    if not 1 <= label <= len(CLASSES):
      raise DataError(f"{where}: class", expected=f"1 to {len(CLASSES)}", got=label)
    if not 0 <= start <= end:
      raise DataError(f"{where}: frames", expected="0 <= start <= end", got=f"{start} to {end}")
    labels.append(Label(label - 1, start, end))
  return labels


def read_data(path: str | pathlib.Path) -> tuple[int, int, int]:
  """Reads `Sample0001_data.csv`: one line of frames, frames per second, largest depth."""
  lines = list(_lines(pathlib.Path(path)))
  if len(lines) != 1:
    raise DataError(path, expected="one line", got=len(lines))
  frames, fps, depth = _integers(*lines[0], ("frames", "fps", "max_depth"))
  if fps < 1:
    raise DataError(f"{lines[0][0]}: fps", expected="1 or more", got=fps)
  return frames, fps, depth


def _lines(path: pathlib.Path) -> Iterator[tuple[str, list[str]]]:
  """Yields `file:line` and the cells of each line that is not empty."""
  try:
    with open(path, encoding="utf-8-sig", newline="") as file:
      for number, cells in enumerate(csv.reader(file), 1):
        if any(cells):
          yield f"{path}:{number}", cells
  except FileNotFoundError:
    raise DataError(path, expected="a file", got="nothing") from None
  except (UnicodeDecodeError, csv.Error) as error:
    raise DataError(f"{path}: {error}") from error


def _integers(where: str, cells: list[str], names: tuple[str, ...]) -> list[int]:
  if len(cells) != len(names):
    raise DataError(where, expected=f"{len(names)} columns", got=len(cells))
  values = []
  for name, cell in zip(names, cells, strict=True):
    try:
      values.append(int(cell))
    except ValueError:
      raise DataError(f"{where}: {name}", expected="an integer", got=repr(cell)) from None
  return values
