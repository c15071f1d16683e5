"""The settings of a run: read from a config file, changed on the command line, and checked."""

import json
import math
import os
import pathlib
import re
import runpy
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from jaxmg import errors, ranges
from jaxmg.training import losses, optimizers, precision

# Those of the trainer alone: the fields of inputs have theirs in `jaxmg.inputs`.
RANGES = {
  "sampling.test_clips": "[1, 1000]",
  "model.dropout": "[0, 1)",
  "model.modality_dropout": "[0, 1)",
  "model.stochastic_depth": "[0, 1)",
  "optimizer.learning_rate": "[0, 1000]",
  "optimizer.reference_batch": "[1, 1000000]",
  "optimizer.momentum": "[0, 1)",
  "optimizer.weight_decay": "[0, 1]",
  "optimizer.clip_norm": "(0, 1000000]",
  "optimizer.layer_decay": "(0, 1]",
  "schedule.warmup_epochs": "[0, 1000000]",
  "schedule.epochs": "[1, 1000000]",
  "semantic.weight": "[0, 1000000]",
  "semantic.temperature": "(0, 1000]",
  "train.batch_size": "[1, 1000000]",
  "train.label_smoothing": "[0, 1)",
  "train.logit_adjustment": "[0, 10]",
  "train.mixup": "[0, 100]",
  "train.cutmix": "[0, 100]",
  "train.accumulate": "[1, 4096]",
  "train.ema": "[0, 1)",
  "train.seed": "[0, 2147483647]",
  "train.evaluate_every": "[1, 1000000]",
  "train.log_every": "[1, 1000000]",
  "train.save_every": "[0, 1000000]",
}

CHOICES = {
  "stage": ("all", "classifier"),
  "optimizer.name": optimizers.OPTIMIZERS,
  "optimizer.decay": optimizers.DECAY,
  "schedule.name": optimizers.SCHEDULES,
  "semantic.loss": ("off", *losses.EMBEDDING),
  "train.class_weights": ("none", *losses.CLASS_WEIGHTS),
  "train.dtype": precision.CHOICES,
}

# Settings that do something only where others, if there are such, have one of these values, or any
# at all.
USED_WITH = {
  "augment.tilt": {"sampling.points": ("joints3d", None)},
  "optimizer.momentum": {"optimizer.name": ("sgd",)},
  "optimizer.nesterov": {"optimizer.name": ("sgd",)},
  "schedule.milestones": {"schedule.name": ("step",)},
  "semantic.weight": {"semantic.loss": tuple(losses.EMBEDDING), "stage": ("all",)},
  "semantic.temperature": {"semantic.loss": ("contrastive",), "stage": ("all",)},
  # The classifier stage keeps the table that its head has learnt.
  "semantic.table": {"semantic.loss": tuple(losses.EMBEDDING), "stage": ("all",)},
  # The classifier stage is shown all classes equally often.
  "train.class_weights": {"stage": ("all",)},
  "train.logit_adjustment": {"stage": ("all",)},
  "train.trainable": {"stage": ("all",)},  # the classifier stage names its own
  "train.evaluate_every": {"data.fold": ()},
}
NOTHING = (None, False, 0, (), "none")  # values that ask for nothing


def read_config(text: str, overrides: Sequence[str]) -> ConfigDict:
  """The config of FILE.py[:ARGUMENT], changed by `--config.KEY=VALUE`, checked and locked.

  Where there is no such file, NAME[:ARGUMENT] is experiments/configs/NAME.py. Raises
  `errors.ConfigError`.
  """
  name, *argument = text.split(":", 1)
  try:
    config = load(name)["get_config"](*argument)
    settings = flatten(config.to_dict())
  except Exception as error:
    # Our own configs raise ValueError, with a sentence.
    kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
    raise errors.ConfigError(f"--config={text}: {kind}{error}") from error
  seen = set()
  for override in overrides:
    key = re.sub(r"--?(no)?config\.", "", override, count=1).partition("=")[0]
    if key not in settings:
      near = errors.nearest(key, settings)
      hint = f"did you mean --config.{near}?" if near else f"settings: {', '.join(settings)}"
      raise errors.ConfigError(f"--config.{key}: no such setting", hint=hint)
    if key in seen:
      raise errors.ConfigError(f"--config.{key} is given twice")
    seen.add(key)
  values = flags.FlagValues()
  try:
    config_flags.DEFINE_config_dict(
      "config", config, flag_values=values, lock_config=True, sys_argv=["", *overrides]
    )
    values(["", *overrides])
  except flags.Error as error:
    text = str(error).removeprefix("flag ")
    text = re.sub(r"invalid literal for int\(\).*: ", "expected a whole number, got ", text)
    text = text.replace("could not convert string to float: ", "expected a number, got ")
    raise errors.ConfigError(text) from error
  check(values.config, given=seen)
  return values.config


def of_run(run: str | os.PathLike) -> ConfigDict:
  """The config that a run directory holds, which the caller may change."""
  path = pathlib.Path(run, "config.json")
  try:
    found = json.loads(path.read_text(encoding="utf-8"))
  except (OSError, ValueError) as error:
    hint = "training writes it: train again, in another --workdir"
    raise errors.ConfigError(path, expected="the config of a run", got=error, hint=hint) from error
  return ConfigDict(_tuples(found))


def _tuples(value: Any) -> Any:
  if isinstance(value, dict):
    return {key: _tuples(x) for key, x in value.items()}
  return tuple(map(_tuples, value)) if isinstance(value, list) else value


def load(name: str) -> dict[str, Any]:
  """What a config file defines, or the shipped one of that name."""
  folder = pathlib.Path(__file__).with_name("configs")
  shipped = {
    str(path.relative_to(folder).with_suffix("")): str(path)
    for path in sorted(folder.rglob("*.py"))
    if path.stem != "grammar"
  }
  path = name if os.path.isfile(name) else shipped.get(name)
  if path is None:
    last = {pathlib.PurePath(one).name: one for one in shipped}  # ablations/labels, as "labels"
    near = errors.nearest(name, shipped) or last.get(errors.nearest(name, last))
    hint = f"did you mean {near}?" if near else "jaxmg alone lists them"
    raise ValueError(f"expected a file, or {' or '.join(shipped)}, got {name} ({hint})")
  # As if it lay in configs/, wherever that is and it is: so `from . import grammar` finds it.
  stem = pathlib.Path(path).stem.replace(".", "_")
  return runpy.run_path(path, run_name=f"{__package__}.configs.{stem}")


def check(config: ConfigDict, given: Collection[str] = ()) -> None:
  """Raises `errors.ConfigError` for a setting outside RANGES or CHOICES, NaN or infinity.

  And for one that would do nothing, by USED_WITH; but not for one of the file that does nothing
  because another one was `given` on the command line.
  """
  settings = flatten(config.to_dict())
  for key, value in settings.items():
    where, expected = f"--config.{key}", None
    values = value if isinstance(value, list | tuple) else [value]
    if any(isinstance(x, float) and not math.isfinite(x) for x in values):
      expected = "a finite number"
    elif key in RANGES and value is not None:
      expected = ranges.wanted(value, RANGES[key])
    elif key in CHOICES and value not in CHOICES[key]:
      raise errors.ConfigError(errors.unknown(where, CHOICES[key], value))
    if expected:
      raise errors.ConfigError(where, expected=expected, got=value)
    other = _lacking(settings, key)
    if other and value not in NOTHING and (key in given or other not in given):
      wanted = " or ".join(map(str, USED_WITH[key][other]))
      hint = f"used with --config.{other}" + f"={wanted}" * bool(wanted)
      raise errors.ConfigError(where, expected="none", got=value, hint=hint)


def used(config: ConfigDict, section: str) -> dict[str, Any]:
  """The settings of a section that do something and are not left to their owners' defaults."""
  settings = flatten(config.to_dict())
  return {
    name: value
    for name, value in config[section].to_dict().items()
    if value is not None and not _lacking(settings, f"{section}.{name}")
  }


def _lacking(settings: Mapping[str, Any], key: str) -> str | None:
  """The setting because of whose value another one does nothing."""
  for other, wanted in USED_WITH.get(key, {}).items():
    there = settings.get(other)
    if other in settings and (there not in wanted if wanted else there in NOTHING):
      return other
  return None


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """{"train": {"seed": 0}} -> {"train.seed": 0}."""
  leaves = {}
  for name, value in tree.items():
    key = f"{prefix}{name}"
    leaves |= flatten(value, f"{key}.") if isinstance(value, dict) else {key: value}
  return leaves
