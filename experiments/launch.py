"""The edge between a shell and jaxmg: flags, config, work directory, signals, errors as one line.

An experiment is a function and one call:

  def run(config: ml_collections.ConfigDict, workdir: pathlib.Path): ...

  if __name__ == "__main__":
    launch.main(run)

  jaxmg train CONFIG[:ARGUMENT] [--workdir=DIR] [--config.KEY=VALUE ...]

CONFIG is the name of one of ours or a file, FILE.py; --config=CONFIG is the same. Without --workdir
the run lives in runs/, by the name of its config.

Exit codes: 0 done, 2 command line or config, 3 data, 4 checkpoint, 5 disk, 6 diverged, 7 in use by
another process (a work directory, an evaluated split, a set that is being prepared), 75 stopped by
SIGTERM and saved (start the same command again), 130 stopped by Ctrl-C, 1 a fault of jaxmg's own.
"""

import contextlib
import re
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
from absl import flags

from jaxmg import errors

from . import backend, settings, signals, workdir


def main(
  run: Callable[..., Any],
  argv: Sequence[str] | None = None,
  *,
  devices: bool = True,
) -> int:
  """Runs an experiment in its work directory; the process ends with the exit code.

  With `argv` (without the program's name) the code is returned instead. `devices=False` leaves
  accelerators to the processes that it starts.
  """
  if argv is None:
    sys.exit(main(run, sys.argv[1:], devices=devices))
  overrides = [argument for argument in argv if re.match(r"--?(no)?config\.", argument)]
  plain = [argument for argument in argv if argument not in overrides]

  def define(values):
    flags.DEFINE_string(
      "config",
      None,
      "FILE.py[:ARGUMENT], or the NAME[:ARGUMENT] of a shipped one, as without --config=;"
      " --config.KEY=VALUE changes one setting (with --help: lists them).",
      flag_values=values,
    )
    flags.DEFINE_string(
      "workdir",
      None,
      "Where the run lives; else in runs/, by the name of its config.",
      flag_values=values,
    )

  def body():
    values, given = _parse(run, define, plain, "CONFIG", required=False)
    text = _config(values, given)
    config = settings.read_config(text, overrides)
    if not devices:
      jax.config.update("jax_platforms", "cpu")
    _start(values)
    place = values.workdir or str(workdir.default(text))
    with workdir.taken(place, config) as folder, signals.watched():
      run(config, folder)

  return errors.exit_code(body, debug="--debug" in argv)


def command(
  run: Callable[..., Any],
  define: Callable[[flags.FlagValues], Any],
  argv: Sequence[str] | None = None,
  *,
  positional: str | None = None,
  devices: bool = True,
) -> int:
  """Runs a command without config and work directory, such as `predict`, as `main` does.

  `define(values)` declares its flags: `flags.DEFINE_string(..., flag_values=values)`. With
  `positional="FILE"` there is at least one argument that is no flag: `run(values, *arguments)`.
  `devices=False` is for commands that compute nothing on them, and leaves them to others.
  """
  if argv is None:
    sys.exit(command(run, define, sys.argv[1:], positional=positional, devices=devices))

  def body():
    values, arguments = _parse(run, define, argv, positional)
    if devices:
      _start(values)
    run(values, *arguments)

  return errors.exit_code(body, debug="--debug" in argv)


def _config(values, given):
  """The config that a command line names, by --config or without it."""
  texts = [*filter(None, [values.config]), *given]
  if len(texts) > 1:
    got, hint = " and ".join(texts), "a setting is --name=value"
    raise errors.ConfigError("CONFIG", expected="one", got=got, hint=hint)
  if not texts:
    hint = "the name of one of ours, as posec3d:utd_mhad,joint,small, or a file"
    raise errors.ConfigError("CONFIG[:ARGUMENT] is required", hint=hint)
  return texts[0]


def _parse(run, define, argv, positional=None, *, required=True):
  # A FlagValues of its own: several commands can run in one process.
  values = flags.FlagValues()
  values.set_gnu_getopt(True)
  flags.DEFINE_boolean("debug", False, "Print the traceback of every error.", flag_values=values)
  flags.DEFINE_boolean(
    "distributed", False, "One of several processes (TPU pod, Slurm).", flag_values=values
  )
  flags.DEFINE_boolean(
    "compilation_cache", True, "Keep compiled programs in ~/.cache/jaxmg.", flag_values=values
  )
  define(values)
  if "--help" in argv:
    print(run.__globals__["__doc__"] or "", values.get_help(), sep="\n")
    given = []
    if "config" in values:
      with contextlib.suppress(flags.Error):
        _, *arguments = values(["", *(argument for argument in argv if argument != "--help")])
        given = [*filter(None, [values.config, *arguments])]
      for text in given:
        print(f"\n{text}:")
        for key, value in settings.flatten(settings.read_config(text, []).to_dict()).items():
          print(f"  --config.{key}={shlex.quote(str(value))}")
    sys.exit(0)
  try:
    _, *arguments = values(["", *argv])
  except flags.Error as error:
    message = re.sub(r"^flag (--\w+)=None: .*", r"\1 is required", str(error), flags=re.MULTILINE)
    if unit := re.match(r"flag (--\w+)=(([-+.\d]+)\s*[a-z]+): could not convert", message):
      flag, got, number = unit.groups()
      hint = f"without its unit: {flag}={number}"
      raise errors.ConfigError(flag, expected="a number", got=got, hint=hint) from error
    raise errors.ConfigError(message.removeprefix("flag ").replace("\n", ", ")) from error
  if arguments and not positional:
    raise errors.ConfigError(f"unexpected argument {arguments[0]!r}", hint="write --name=value")
  if positional and required and not arguments:
    raise errors.ConfigError(f"{positional} is required")
  for name in values:
    if values[name].present > 1 and not isinstance(values[name], flags.MultiFlag):
      raise errors.ConfigError(f"--{name} is given twice")
  return values, arguments


def _start(values):
  backend.start(distributed=values.distributed, keep_programs=values.compilation_cache)
