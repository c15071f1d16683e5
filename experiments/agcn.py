r"""Trains one stream of 2s-AGCN on a prepared data set, from 3-D joints or key points.

  python -m experiments.agcn --config=experiments/configs/agcn.py:utd_mhad,joint \
    --config.data.dir=DATA --workdir=RUN

The same command in the same work directory goes on where it stopped. Afterwards:

  python -m experiments.evaluate --run=RUN
  python -m experiments.predict --run=RUN --input=FILE
"""

import functools
import pathlib
from collections.abc import Callable

from experiments import launch, trainer
from jaxmg import inputs
from jaxmg.data.source import Source
from jaxmg.models import agcn
from jaxmg.skeletons.topology import Skeleton


def run(config, workdir: pathlib.Path) -> None:
  trainer.run(config, workdir, describe=describe, augment=augment)


def describe(config, data: Source, skeleton: Skeleton) -> dict:
  return {
    "model": {
      "name": config.model.name,
      "num_classes": len(data.class_names),
      "parents": list(skeleton.parents),
      **trainer.variant(config, "agcn", agcn.VARIANTS),
      "dropout": config.model.dropout,
    },
    "inputs": {
      "stream": config.inputs.stream,
      "mirror": config.sampling.mirror and data.mirror,
    },
  }


def augment(config, recipe: dict, skeleton: Skeleton) -> Callable:
  points = recipe["sampling"]["points"]
  derive = functools.partial(
    inputs.graph_inputs,
    skeleton=skeleton,
    points=points,
    stream=config.inputs.stream,
    mirror=recipe["inputs"]["mirror"],
    **config.augment.to_dict(),
  )
  return lambda keys, batch: derive(batch[points], batch["frame_size"], keys=keys)


if __name__ == "__main__":
  launch.main(run)
