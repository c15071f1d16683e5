"""Finds one person's face in a video, cuts it out aligned, and tells what it shows over time.

  jaxmg faces VIDEO --out=DIR --detector=FOLDER
  jaxmg faces VIDEO --out=DIR --keypoints=FILE

FOLDER has the weights of MTCNN, pnet.pt, rnet.pt and onet.pt. FILE is of poses of the same frames,
in a layout with a mouth: OpenPose's with its face points, iMiGUE's 137 or 41, MediaPipe's; what it
leaves open is told as to `predict`. Of several persons, the one with the largest and surest face in
all is followed; it is said where others are. DIR then has

  faces.csv   a line a picture: frame, second, score (0: lost), five landmarks in pixels of the
              video: x and y of the eye on the left of the picture, of that on the right, of the
              nose, of the corners of the mouth, left and right
  strip.png   up to 60 of the crops, in their order
  faces.png   the scores over time

With --run=RUN, an imported SwinFace, the csv has what it tells too, 48 numbers: age, a probability
of each expression, and of each attribute; the picture shows the expressions.
"""

import csv
import itertools
import math
import pathlib
from collections.abc import Iterable, Iterator

import jax
import numpy as np
from absl import flags

from jaxmg import detection, encoders, errors, faces, files, progress
from jaxmg.data import face_crops, readers
from jaxmg.models import swinface
from jaxmg.pretrained import mtcnn

from . import launch, recording_flags

MOST_SHOWN, ROW = 60, 10  # crops of the strip, and of a row of it
_TOGETHER = 8  # faces that a run sees at a time
_LANDMARKS = ("left_eye", "right_eye", "nose", "left_mouth", "right_mouth")
# The second of two logits says yes, or male.
_ATTRIBUTES = tuple("male" if name == "gender" else name for name in swinface.ATTRIBUTES)
OUTPUTS = ("age", *swinface.EXPRESSIONS, *_ATTRIBUTES)


def define(values: flags.FlagValues) -> None:
  options = {"flag_values": values}
  flags.DEFINE_string("out", None, "A folder for what is found.", required=True, **options)
  flags.DEFINE_string("keypoints", None, "Poses of the same frames.", **options)
  flags.DEFINE_string("detector", None, "A folder with MTCNN's weights.", **options)
  flags.DEFINE_float("rate", face_crops.RATE, "Pictures a second.", **options)
  flags.DEFINE_string("run", None, "An imported SwinFace.", **options)
  flags.DEFINE_string("step", "best", "Of the run: best, latest or a number.", **options)
  recording_flags.define(values)


def run(values: flags.FlagValues, path: str, *more: str) -> None:
  if more:
    raise errors.ConfigError(f"unexpected argument {more[0]!r}", hint="one VIDEO at a time")
  if (values.keypoints is None) == (values.detector is None):
    got = "neither" if values.detector is None else "both"
    raise errors.ConfigError("faces", expected="--keypoints=FILE or --detector=FOLDER", got=got)
  if not 0 < values.rate < math.inf:
    raise errors.ConfigError("--rate", expected="pictures a second, above 0", got=values.rate)
  video = readers.read(path)
  if video.track != "video":
    raise errors.DataError(path, expected="a video", got=f"a {video.track}")
  tell = _Analysis(values.run, values.step) if values.run else None
  print(f"{path}: {video.guess}", flush=True)
  try:
    found = face_crops.find(video, rate=values.rate, **_by(values, video))
    out = pathlib.Path(values.out)
    out.mkdir(parents=True, exist_ok=True)
    rows = _saved(found, out, tell)
  except errors.DataError as error:
    raise errors.DataError(f"{path}: {error}") from error
  for note in dict.fromkeys((*found.notes, *video.notes)):
    progress.say(f"note: {note}")
  with_face = sum(score > 0 for _, score, _ in rows)
  print(f"  a face in {with_face} of {len(rows)} pictures ({with_face / len(rows):.1%})")
  print(f"  saved: {out / 'faces.csv'}, strip.png and faces.png")


def _by(values: flags.FlagValues, video: readers.VideoFile) -> dict:
  """What faces are found by."""
  if values.detector is not None:
    return {"detector": detection.Detector(mtcnn.read(pathlib.Path(values.detector)))}
  clip = readers.read(values.keypoints, **vars(recording_flags.get(values)))
  if clip.track != "pose":
    raise errors.DataError(values.keypoints, expected="poses", got=f"a {clip.track}")
  print(f"{values.keypoints}: {clip.guess}", flush=True)
  for doubt in clip.doubts():
    progress.say(f"note: {doubt}")
  return {"keypoints": clip}


def _saved(found: face_crops.Found, out: pathlib.Path, tell: "_Analysis | None") -> list[tuple]:
  """Writes the files as faces come; returns of each picture its time, score and outputs."""
  from . import plots

  with_face = np.flatnonzero(found.scores)
  shown = with_face[np.linspace(0, len(with_face) - 1, min(len(with_face), MOST_SHOWN)).astype(int)]
  shown, strip, rows = {*shown.tolist()}, [], []
  crops = found.crops(size=tell.size if tell else faces.SIZE)
  crops = progress.track(crops, "faces", total=len(found.frames), unit="pictures")
  with files.replace(out / "faces.csv") as part, open(part, "w", newline="") as file:
    writer = csv.writer(file)
    marks = [f"{name}_{axis}" for name in _LANDMARKS for axis in "xy"]
    writer.writerow(["frame", "second", "score", *marks, *(OUTPUTS if tell else ())])
    for k, crop, outputs in _told(crops, tell):
      there = crop is not None
      cells = [f"{value:.2f}" for value in found.landmarks[k].ravel()] if there else [""] * 10
      if tell:
        cells += [f"{value:.4f}" for value in outputs] if there else [""] * len(OUTPUTS)
      writer.writerow([found.frames[k], f"{found.times[k]:.3f}", f"{found.scores[k]:.4f}", *cells])
      rows.append((found.times[k], float(found.scores[k]), outputs))
      if k in shown and there:
        strip.append(crop)
  if not strip:
    raise errors.DataError("the video", expected="a face", got=f"none ({'; '.join(found.notes)})")
  _save_strip(out / "strip.png", strip)
  curves = {"score": [score or np.nan for _, score, _ in rows]}
  if tell:
    none = np.full(len(OUTPUTS), np.nan)
    outputs = np.stack([none if one is None else one for *_, one in rows])
    curves |= {name: outputs[:, 1 + i] for i, name in enumerate(swinface.EXPRESSIONS)}
  plots.curves(out / "faces.png", np.array([time for time, *_ in rows]), curves)
  return rows


def _told(crops: Iterable, tell: "_Analysis | None") -> Iterator[tuple]:
  """The same, with what a run tells of each face, some of them at a time."""
  crops = iter(crops)
  while some := [*itertools.islice(crops, _TOGETHER)]:
    there = [crop for _, crop in some if crop is not None]
    outputs = iter(tell(there) if tell and there else ())
    for k, crop in some:
      yield k, crop, None if crop is None else next(outputs, None)


def _save_strip(path: pathlib.Path, crops: list[np.ndarray]) -> None:
  from PIL import Image

  size = crops[0].shape[0]
  columns = min(ROW, len(crops))
  image = Image.new("RGB", (size * columns, size * math.ceil(len(crops) / columns)))
  for k, crop in enumerate(crops):
    image.paste(Image.fromarray(crop), (size * (k % columns), size * (k // columns)))
  with files.replace(path) as part:
    image.save(part, "PNG")


class _Analysis:
  """Called on aligned faces, returns OUTPUTS of each."""

  def __init__(self, run: str, step: str):
    recipe, variables = encoders.load(run, step=step)
    model = recipe.build_model()
    one = next(iter(recipe.inputs.values()))
    if not getattr(model, "branches", False):
      got = "one without" if isinstance(model, swinface.SwinFace) else type(model).__name__
      expected = "an imported SwinFace with its branches"
      raise errors.CheckpointError(run, expected=expected, got=got)
    self.size = one.size

    @jax.jit
    def outputs(variables, crops):
      x = (crops.astype(np.float32) / 255 - one.mean) / one.std
      _, out = model.apply(variables, x[:, None])
      kinds = (jax.nn.softmax(out[name][:, 0]) for name in ("expression", "attributes"))
      expressions, attributes = kinds
      return jax.numpy.concatenate([out["age"][:, 0], expressions, attributes[..., 1]], -1)

    self._outputs, self._variables = outputs, variables

  def __call__(self, crops: list[np.ndarray]) -> np.ndarray:
    padded = np.stack([*crops, *crops[-1:] * (_TOGETHER - len(crops))])
    return np.asarray(self._outputs(self._variables, padded))[: len(crops)]


if __name__ == "__main__":
  launch.command(run, define, positional="VIDEO")
