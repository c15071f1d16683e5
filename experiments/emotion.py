r"""Trains InterFusion: was the match won or lost, from an interview's faces, video and key points.

  jaxmg train emotion:NAME,mean,small --config.tokens=faces,video \
    --config.data.dir=DATA --workdir=RUN

A clip of the set is a whole video; its windows are the views of its tokens. `swinface`, `mvit`
and `agcn` are encoders, `jaxmg extract_tokens` keeps what they make of each window. The same
command in the same work directory goes on where it stopped. Afterwards:

  jaxmg evaluate --run=RUN --timelines
  jaxmg predict --run=RUN --input=VIDEO --input=KEYPOINTS
"""

import pathlib

from jaxmg import errors
from jaxmg.data.source import Source

from . import fusion, launch, trainer


def run(config, workdir: pathlib.Path) -> None:
  trainer.run(config, workdir, describe=describe, begin=fusion.begin)


def describe(config, data: Source) -> tuple[dict, dict, fusion.Views]:
  """The model, the inputs and the views of a config's recipe."""
  if not 0 <= config.windows <= 4096:
    raise errors.ConfigError("--config.windows", expected="0 to 4096", got=config.windows)
  windows = config.windows if config.tokens else 0
  if config.model.pool == "attention" and windows < 2:
    expected, got = "2 or more, of tokens, to weigh against each other", windows
    raise errors.ConfigError("--config.windows", expected=expected, got=got)
  return fusion.describe(config, data, model="interfusion", windows=windows)


if __name__ == "__main__":
  launch.main(run)
