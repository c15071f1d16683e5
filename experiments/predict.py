"""Classifies recordings with a trained run and prints the most probable classes.

  python -m experiments.predict --run=RUN --input=FILE

FILE is .csv, .xlsx, .npy, .npz, .pkl, .skeleton, .mat or a folder of OpenPose JSON (see
`jaxmg.data.readers`); of a .pkl, every clip. What the file was taken for is printed; what it leaves
open is told by

  --layout=NAME        the layout of its joints, or a JSON file of one's own
  --frame_size=HxW     of the pictures, in pixels (else: that of the run's data)
  --axes=MTVC          of an array: T frames, M persons, V joints, C values
  --points=joints3d    x, y, z in metres; or keypoints: x, y in pixels and a score

The whole recording is taken as one clip: `--frames=FIRST:LAST` (from 0, LAST included) takes a part
of it. A long one is gone through by windows:

  --window=2.5 --hop=0.5 --fps=25   seconds; without --fps frames: no file is asked for its rate
  --save=FILE.csv                   the probabilities of every frame; .png: a picture of them

Each frame has the mean of the windows that cover it; what is printed is from when to when which
class is the best. Windows that show nobody have no class.
"""

import dataclasses
import pathlib

import numpy as np
from absl import flags

from jaxmg import errors, predict, progress, recipe
from jaxmg.data import readers
from jaxmg.skeletons import plausible, topology

from . import launch, timeline, told


def define(values: flags.FlagValues) -> None:
  options = {"flag_values": values}
  flags.DEFINE_string(
    "run", None, "The work directory of a training run.", required=True, **options
  )
  flags.DEFINE_string("input", None, "The recording.", required=True, **options)
  flags.DEFINE_string("frames", None, "FIRST:LAST, a part of the recording.", **options)
  told.define(values)
  timeline.define(values)
  flags.DEFINE_string("step", "best", "best, latest or a number.", **options)
  flags.DEFINE_integer("top", 5, "How many classes to print.", lower_bound=1, **options)


def run(values: flags.FlagValues) -> None:
  known, frame_size, windows = told.get(values), None, timeline.frames(values)
  if pathlib.Path(values.run, recipe.FILE).exists():
    poses = [one for one in recipe.load(values.run).inputs.values() if one.track == "pose"]
    for one in poses:
      frame_size = one.frame_size
      known = dataclasses.replace(known, expects=one.points)
      if known.layout is None and one.skeleton not in topology.SKELETONS.values():
        known = dataclasses.replace(known, layout=one.skeleton)  # its joints are not to be guessed
  predictor = None
  found = readers.read_all(values.input, known, most=1 if values.save else None)
  for name, clip in [*found] if values.save else found:  # several would overwrite each other's file
    predictor = predictor or predict.Predictor(values.run, step=values.step)
    first, clip = part(clip, values.frames) if values.frames else (0, clip)
    guess = clip.guess.with_frame_size(frame_size) if frame_size else clip.guess
    try:
      notes = doubts(clip)
      if windows:
        length, hop = windows
        pieces = timeline.averaged(predictor.windows(clip, length=length, hop=hop))
      else:
        probabilities = predictor(clip)
    except errors.DataError as error:
      raise errors.DataError(f"{values.input}: {guess}: {error}") from error
    print(f"{name}: {guess}", flush=True)
    for note in notes:
      progress.say(f"note: {note}")
    if windows:
      rate = f"{values.fps:g} a second" if values.fps else "the file has no rate (--fps)"
      print(f"  windows of {length} frames, every {hop}; frames: {rate}")
      clock = timeline.Clock(values.fps, first)
      options = {"num_frames": clip.num_frames, "save": values.save, "top": values.top}
      timeline.tell(pieces, predictor.class_names, clock, **options)
      continue
    for k in np.argsort(-probabilities, kind="stable")[: values.top]:
      print(f"  {probabilities[k]:6.1%}  {predictor.class_names[k]}")
    if predictor.label_embeddings is not None:
      near = (f"{name} ({cosine:.2f})" for name, cosine in predictor.nearest(clip)[: values.top])
      print(f"  nearest labels by embedding (cosine): {', '.join(near)}")


def doubts(clip: readers.Clip) -> list[str]:
  """What is odd about the joints; DataError if that is so of a layout that was assumed."""
  in_3d = clip.guess.units == "metres"
  points = clip.joints3d if in_3d else clip.keypoints
  found = plausible.doubts(points, topology.get(clip.layout), in_3d=in_3d)
  for doubt in found:
    if "layout" in clip.guess.assumed and not doubt.startswith("the head"):
      expected, hint = f"joints of {clip.layout}, by their number", "name it: --layout"
      raise errors.DataError("layout", expected=expected, got=doubt, hint=hint)
  return found


def part(clip: readers.Clip, frames: str) -> tuple[int, readers.Clip]:
  """The number of the first frame, and the frames."""
  try:
    first, last = map(int, frames.split(":"))
  except ValueError:
    raise errors.ConfigError("--frames", expected="FIRST:LAST", got=frames) from None
  if not 0 <= first <= last < clip.num_frames:
    expected = f"0 <= FIRST <= LAST < {clip.num_frames}"
    raise errors.ConfigError("--frames", expected=expected, got=frames)
  return first, clip.cut(first, last)


if __name__ == "__main__":
  launch.command(run, define)
