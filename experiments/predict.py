"""Classifies one recording with a trained run and prints the most probable classes.

  python -m experiments.predict --run=RUN --input=FILE

FILE is .csv, .xlsx, .npy, .mat or a folder of OpenPose JSON (see `jaxmg.data.readers`). The whole
recording is taken as one clip: `--frames=FIRST:LAST` (from 0, LAST included) takes a part of it.
"""

import dataclasses
import pathlib

import numpy as np
from absl import flags

from jaxmg import errors, predict, recipe
from jaxmg.data import readers
from jaxmg.skeletons import topology

from . import launch


def define(values: flags.FlagValues) -> None:
  options = {"flag_values": values}
  flags.DEFINE_string(
    "run", None, "The work directory of a training run.", required=True, **options
  )
  flags.DEFINE_string("input", None, "The recording.", required=True, **options)
  flags.DEFINE_string("frames", None, "FIRST:LAST, a part of the recording.", **options)
  flags.DEFINE_string("layout", None, "The layout of its joints, if not the usual.", **options)
  flags.DEFINE_string("step", "best", "best, latest or a number.", **options)
  flags.DEFINE_integer("top", 5, "How many classes to print.", lower_bound=1, **options)


def run(values: flags.FlagValues) -> None:
  layout = values.layout
  if layout is None and pathlib.Path(values.run, recipe.FILE).exists():
    for one in recipe.load(values.run).inputs.values():
      if one.track == "pose" and one.skeleton not in topology.SKELETONS.values():
        layout = one.skeleton  # a user's own: its joints are not to be guessed
  clip = readers.read(values.input, layout=layout)
  if values.frames:
    clip = part(clip, values.frames)
  predictor = predict.Predictor(values.run, step=values.step)
  probabilities = predictor(clip)
  print(f"{values.input}: {len(clip.keypoints)} frames, {clip.layout}")
  for k in np.argsort(-probabilities, kind="stable")[: values.top]:
    print(f"  {probabilities[k]:6.1%}  {predictor.class_names[k]}")
  if predictor.label_embeddings is not None:
    near = (f"{name} ({cosine:.2f})" for name, cosine in predictor.nearest(clip)[: values.top])
    print(f"  nearest labels by embedding (cosine): {', '.join(near)}")


def part(clip: readers.Clip, frames: str) -> readers.Clip:
  try:
    first, last = map(int, frames.split(":"))
  except ValueError:
    raise errors.ConfigError("--frames", expected="FIRST:LAST", got=frames) from None
  if not 0 <= first <= last < len(clip.keypoints):
    expected = f"0 <= FIRST <= LAST < {len(clip.keypoints)}"
    raise errors.ConfigError("--frames", expected=expected, got=frames)
  arrays = {"keypoints": clip.keypoints, "joints3d": clip.joints3d}
  found = {name: array[first : last + 1] for name, array in arrays.items() if array is not None}
  return dataclasses.replace(clip, **found)


if __name__ == "__main__":
  launch.command(run, define)
