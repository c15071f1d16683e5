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

from experiments import launch, trainer
from jaxmg import errors, inputs
from jaxmg.data.source import Source
from jaxmg.models import posec3d
from jaxmg.skeletons.topology import Skeleton


def run(config, workdir: pathlib.Path) -> None:
  trainer.run(config, workdir, describe=describe, augment=augment)


def describe(config, data: Source, skeleton: Skeleton) -> dict:
  del skeleton
  if config.sampling.points != "keypoints":
    got = config.sampling.points
    raise errors.ConfigError("--config.sampling.points", expected="keypoints", got=got)
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
  render = functools.partial(
    inputs.heatmap_inputs,
    skeleton=skeleton,
    kind=config.inputs.kind,
    size=config.inputs.size,
    sigma=config.inputs.sigma,
    mirror=recipe["inputs"]["mirror"],
    **config.augment.to_dict(),
  )
  return lambda keys, batch: render(batch["keypoints"], batch["frame_size"], keys=keys)


if __name__ == "__main__":
  launch.main(run)
