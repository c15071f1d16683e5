r"""Trains SwinFace on the faces of a prepared data set.

  jaxmg train swinface:NAME,faces,small \
    --config.data.dir=DATA --workdir=RUN

The same command in the same work directory goes on where it stopped. Afterwards:

  jaxmg evaluate --run=RUN
  jaxmg extract_tokens --run=RUN --data=DATA/NAME
"""

import pathlib
import re

from jaxmg import errors, inputs
from jaxmg.data.source import Source
from jaxmg.models import swinface

from . import launch, trainer, weights


def run(config, workdir: pathlib.Path) -> None:
  trainer.run(config, workdir, describe=describe)


def describe(config, data: Source) -> tuple[dict, dict]:
  """The model and the inputs of a config's recipe."""
  sampling = config.sampling
  one = trainer.make_input(
    config,
    inputs.Faces,
    {
      "sampling": sampling.kind,
      "num_frames": sampling.num_frames,
      "seconds": sampling.seconds,
      "crop": sampling.crop,
    }
    | config.inputs.to_dict()
    | config.augment.to_dict(),
  )
  try:
    one.check(data.track("faces").kind.about)
  except ValueError as error:
    raise errors.ConfigError(f"--config.inputs.{error}") from error
  model = trainer.model_options(config, "swinface", num_classes=len(data.class_names))
  return model, {"faces": one}


WEIGHTS_FLAGS = ("num_frames",)


def describe_weights(values, shapes: dict, data: Source | None) -> weights.Weights:
  """What a file of the authors' weights is, by the `shapes` of our parameters."""
  tables = r"params/stage(\d+)_block\d+/attention/positions"
  found = [int(match[1]) for path in shapes if (match := re.fullmatch(tables, path))]
  stages = range(1, max(found, default=1) + 1)
  heads = [shapes[f"params/stage{i}_block0/attention/positions"][-1] for i in stages]
  token_width = shapes["params/token/dense2/kernel"][-1]
  # The grid of the last stage is one window.
  size = swinface.WINDOW * 2 << len(stages) - 1
  try:
    one = inputs.Faces(num_frames=values.num_frames or 8, size=size)
    if data:
      one.check(data.track("faces").kind.about)
  except ValueError as error:
    raise errors.CheckpointError(f"{values.source}: {error}") from error
  return weights.Weights(
    model={
      "name": "swinface",
      "width": shapes["params/patches/kernel"][-1],
      "depths": [found.count(i) for i in stages],
      "heads": heads,
      "token_width": token_width,
      "stochastic_depth": 0.1,
      "dropout": 0.5,
      "branches": True,
      "classify": "tokens" if values.drop_head else "expression",
    },
    inputs={"faces": one},
    num_clips=5,
    mirror=False,
    example=(1, 1, size, size, 3),
    class_names=swinface.EXPRESSIONS,
    notes=(
      f"taken as published, since weights do not tell: values of mean {one.mean} and deviation "
      f"{one.std}; the faces of a clip are ours, its expression is their mean",
    ),
  )


if __name__ == "__main__":
  launch.main(run)
