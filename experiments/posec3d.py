r"""Trains PoseC3D on joint or limb heatmaps of a prepared data set.

  python -m experiments.posec3d --config=experiments/configs/posec3d.py:utd_mhad,joint \
    --config.data.dir=DATA --workdir=RUN

The same command in the same work directory goes on where it stopped. Afterwards:

  python -m experiments.evaluate --run=RUN
  python -m experiments.predict --run=RUN --input=FILE
"""

import functools
import pathlib
from collections.abc import Callable

import numpy as np

from experiments import launch, trainer
from jaxmg import errors, inputs
from jaxmg.data import readers
from jaxmg.data.source import Source
from jaxmg.models import posec3d
from jaxmg.skeletons.topology import Skeleton


def run(config, workdir: pathlib.Path) -> None:
  trainer.run(
    config, workdir, describe=describe, augment=augment, train_points=train_points(config)
  )


def train_points(config) -> str:
  """Key points, unless bodies are turned in space before they are projected."""
  return "joints3d" if config.augment.turn or config.augment.tilt else "keypoints"


def shows_its_joints3d(data: Source) -> bool:
  """Whether there are 3-D joints, and the key points are what a camera sees of them."""
  for row in range(min(len(data), 16) if data.joints3d else 0):
    pose, keypoints = data[row]["joints3d"], data[row]["keypoints"]
    there = pose.any(-1) & keypoints.any(-1)
    if there.any():
      view = readers.depth_view(pose)[there]
      pairs = zip(view.T[:2], keypoints[there].T[:2], strict=True)
      return all(np.corrcoef(*pair)[0, 1] > 0.5 for pair in pairs)
  return False


def describe(config, data: Source, skeleton: Skeleton) -> dict:
  del skeleton
  if config.sampling.points != "keypoints":
    got = config.sampling.points
    raise errors.ConfigError("--config.sampling.points", expected="keypoints", got=got)
  if train_points(config) == "joints3d" and not shows_its_joints3d(data):
    got = f"{config.augment.turn:g} and {config.augment.tilt:g}"
    hint = f"{data.name} has no 3-D joints of which its key points are a camera's view"
    raise errors.ConfigError("--config.augment.turn and tilt", expected="0", got=got, hint=hint)
  return {
    "model": {
      "name": config.model.name,
      "num_classes": len(data.class_names),
      **trainer.variant(config, "posec3d", posec3d.VARIANTS),
      "dropout": config.model.dropout,
    },
    "inputs": {
      "kind": config.inputs.kind,
      "size": config.sampling.test_size,
      "sigma": config.inputs.sigma,
      "mirror": config.sampling.mirror and data.mirror,
    },
  }


def augment(config, recipe: dict, skeleton: Skeleton) -> Callable:
  points = train_points(config)
  render = functools.partial(
    inputs.heatmap_inputs,
    skeleton=skeleton,
    points=points,
    kind=config.inputs.kind,
    size=config.inputs.size,
    sigma=config.inputs.sigma,
    mirror=recipe["inputs"]["mirror"],
    **config.augment.to_dict(),
  )
  return lambda keys, batch: render(batch[points], batch["frame_size"], keys=keys)


if __name__ == "__main__":
  launch.main(run)
