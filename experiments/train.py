"""Trains the model of a config, whichever it is.

  python -m experiments.train --config=posec3d:utd_mhad,joint,small --workdir=RUN

`config.model.name` names the experiment, whose own command does the same; --help beside --config
lists the settings. The same command in the same work directory goes on where it stopped.
"""

import importlib
import pathlib
from types import ModuleType

from jaxmg import errors, models

from . import launch

EXPERIMENTS = {"interfusion": "emotion"}  # of models, where it has another name


def run(config, workdir: pathlib.Path) -> None:
  experiment(config).run(config, workdir)


def experiment(config) -> ModuleType:
  """The experiment of a config, which has the name of its model."""
  name = config.model.name if "model" in config else None
  if name not in models.MODELS:
    expected = " or ".join(models.MODELS)
    raise errors.ConfigError("--config.model.name", expected=expected, got=name)
  return importlib.import_module(f".{EXPERIMENTS.get(name, name)}", __package__)


if __name__ == "__main__":
  launch.main(run)
