"""Trains the model of a config, whichever it is.

  jaxmg train posec3d:utd_mhad,joint,small
  jaxmg train FILE.py:ARGUMENT --workdir=RUN

The first is a config of ours, by its name, the second a file of one's own. Without --workdir the
run lives in runs/, by the name of its config: runs/posec3d-utd_mhad-joint-small. The same command
goes on where it stopped. --help beside a config lists its settings. `config.model.name` names the
experiment, whose own command does the same.
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
    raise errors.ConfigError(errors.unknown("--config.model.name", models.MODELS, name))
  return importlib.import_module(f".{EXPERIMENTS.get(name, name)}", __package__)


if __name__ == "__main__":
  launch.main(run)
