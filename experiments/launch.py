"""The edge between a shell and jaxmg: flags, config, work directory, signals, errors as one line.

An experiment is a function and one call:

  def run(config: ml_collections.ConfigDict, workdir: pathlib.Path): ...

  if __name__ == "__main__":
    launch.main(run)

  python -m experiments.NAME --config=FILE.py[:ARGUMENT] --workdir=DIR [--config.KEY=VALUE ...]

Exit codes: 0 done, 2 command line or config, 3 data, 4 checkpoint, 5 disk, 6 diverged, 7 in use by
another process (a work directory, an evaluated split, a set that is being prepared), 75 stopped by
SIGTERM and saved (start the same command again), 130 stopped by Ctrl-C, 1 a fault of jaxmg's own.
"""

import contextlib
import difflib
import hashlib
import json
import math
import operator
import os
import pathlib
import platform
import re
import runpy
import shlex
import shutil
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags, logging
from jax.experimental import multihost_utils
from ml_collections import ConfigDict, config_flags

from jaxmg import errors, files
from jaxmg.training import sharding

# Settings that a run may be continued with after a change.
MAY_CHANGE = frozenset({"schedule.epochs", "train.log_every"})

RANGES = {
  "jobs": "[1, 1000]",
  "sampling.num_frames": "[1, 4096]",
  "sampling.num_persons": "[1, 100]",
  "sampling.crop": "(0, 1] to (0, 1]",
  "sampling.test_clips": "[1, 1000]",
  "sampling.test_size": "[8, 1024]",
  "inputs.size": "[8, 1024]",
  "inputs.sigma": "(0, 100]",
  "augment.crop_area": "(0, 1] to (0, 1]",
  "augment.rotation": "[0, 180]",
  "augment.turn": "[0, 180]",
  "augment.tilt": "[0, 180]",
  "augment.bone_scale": "(0, 10] to (0, 10]",
  "augment.scale": "(0, 10] to (0, 10]",
  "augment.jitter": "[0, 1000]",
  "augment.joint_dropout": "[0, 1)",
  "model.dropout": "[0, 1)",
  "optimizer.learning_rate": "[0, 1000]",
  "optimizer.reference_batch": "[1, 1000000]",
  "optimizer.momentum": "[0, 1)",
  "optimizer.weight_decay": "[0, 1]",
  "optimizer.clip_norm": "(0, 1000000]",
  "schedule.warmup_epochs": "[0, 1000000]",
  "schedule.epochs": "[1, 1000000]",
  "train.batch_size": "[1, 1000000]",
  "train.label_smoothing": "[0, 1)",
  "train.logit_adjustment": "[0, 10]",
  "train.accumulate": "[1, 4096]",
  "train.ema": "[0, 1)",
  "semantic.weight": "[0, 1000000]",
  "semantic.temperature": "(0, 1000]",
  "train.seed": "[0, 2147483647]",
  "train.evaluate_every": "[1, 1000000]",
  "train.log_every": "[1, 1000000]",
}

CHOICES = {
  "sampling.kind": ("uniform", "interpolate", "linspace", "linear", "repeat"),
  "sampling.points": ("keypoints", "joints3d"),
  "sampling.style": ("mmaction2", "pyskl"),
  "optimizer.name": ("sgd", "adamw"),
  "optimizer.decay": ("all", "kernels"),
  "schedule.name": ("cosine", "step"),
  "train.dtype": ("float32", "bfloat16"),
  "train.class_weights": ("none", "inverse", "square_root"),
  "semantic.loss": ("off", "mse", "contrastive"),
  "stage": ("all", "classifier"),
}

_stop: str | None = None


def main(
  run: Callable[[ConfigDict, pathlib.Path], Any],
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
      "FILE.py[:ARGUMENT]; --config.KEY=VALUE changes one setting (with --help: lists them).",
      required=True,
      flag_values=values,
    )
    flags.DEFINE_string("workdir", None, "Where the run lives.", required=True, flag_values=values)

  def body():
    values, _ = _parse(run, define, plain)
    config = read_config(values.config, overrides)
    if not devices:
      jax.config.update("jax_platforms", "cpu")
    _start_jax(values)
    with _work_directory(values.workdir, config) as workdir, _signals():
      run(config, workdir)

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
      _start_jax(values)
    run(values, *arguments)

  return errors.exit_code(body, debug="--debug" in argv)


def stop_reason() -> str | None:
  """Why to save after this step and leave: "SIGTERM", "SIGINT" (Ctrl-C), or None to go on.

  Of several processes each must ask at the same points, and all get the same answer: the signal of
  one, which arrives between other steps of the others, stops all.
  """
  if jax.process_count() == 1:
    return _stop
  reasons = (None, "SIGTERM", "SIGINT")
  asked = multihost_utils.process_allgather(np.int32(reasons.index(_stop)))
  return reasons[asked.max()]


def check(config: ConfigDict) -> None:
  """Raises `errors.ConfigError` for a setting outside RANGES or CHOICES, NaN or infinity."""
  for key, value in flatten(config.to_dict()).items():
    if value is None:
      continue
    values = list(value) if isinstance(value, list | tuple) else [value]
    if any(isinstance(x, float) and not math.isfinite(x) for x in values):
      raise errors.ConfigError(f"--config.{key}", expected="a finite number", got=value)
    if key in RANGES:
      ranges = RANGES[key].split(" to ")
      if len(values) != len(ranges) or not all(map(_inside, values, ranges)):
        expected = f"in {RANGES[key]}"
        if len(ranges) == 2 and len(values) != 2:
          expected = f"two numbers {expected}, like (0.8,1.0)"
        raise errors.ConfigError(f"--config.{key}", expected=expected, got=value)
      if values != sorted(values):
        raise errors.ConfigError(f"--config.{key}", expected="the least, then the most", got=value)
    if key in CHOICES and value not in CHOICES[key]:
      raise errors.ConfigError(f"--config.{key}", expected=" or ".join(CHOICES[key]), got=value)


def _inside(value, interval):
  low, high = map(float, interval[1:-1].split(","))
  above = operator.ge if interval[0] == "[" else operator.gt
  below = operator.le if interval[-1] == "]" else operator.lt
  return isinstance(value, int | float) and above(value, low) and below(value, high)


def _parse(run, define, argv, positional=None):
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
    for text in (flag.partition("=")[2] for flag in argv if re.match("--?config=", flag)):
      print(f"\n{text}:")
      for key, value in flatten(read_config(text, []).to_dict()).items():
        print(f"  --config.{key}={shlex.quote(str(value))}")
    sys.exit(0)
  try:
    _, *arguments = values(["", *argv])
  except flags.Error as error:
    message = re.sub(r"^flag (--\w+)=None: .*", r"\1 is required", str(error))
    raise errors.ConfigError(message.removeprefix("flag ")) from error
  if arguments and not positional:
    raise errors.ConfigError(f"unexpected argument {arguments[0]!r}", hint="write --name=value")
  if positional and not arguments:
    raise errors.ConfigError(f"{positional} is required")
  for name in values:
    if values[name].present > 1 and not isinstance(values[name], flags.MultiFlag):
      raise errors.ConfigError(f"--{name} is given twice")
  return values, arguments


def read_config(text: str, overrides: Sequence[str]) -> ConfigDict:
  """The config of FILE.py[:ARGUMENT], changed by `--config.KEY=VALUE`, checked and locked.

  Raises `errors.ConfigError`.
  """
  path, *argument = text.split(":", 1)
  try:
    config = runpy.run_path(path)["get_config"](*argument)
    settings = flatten(config.to_dict())
  except Exception as error:
    # Our own configs raise ValueError, with a sentence.
    kind = "" if type(error) is ValueError else f"{type(error).__name__}: "
    raise errors.ConfigError(f"--config={text}: {kind}{error}") from error
  seen = set()
  for override in overrides:
    key = re.sub(r"--?(no)?config\.", "", override, count=1).partition("=")[0]
    if key not in settings:
      close = difflib.get_close_matches(key, settings, n=1)
      hint = f"did you mean --config.{close[0]}?" if close else f"settings: {', '.join(settings)}"
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
    raise errors.ConfigError(str(error).removeprefix("flag ")) from error
  check(values.config)
  return values.config


def _start_jax(values):
  logging.set_verbosity(logging.FATAL)  # what Orbax logs as an error, at length, it raises as well
  sharding.reuse_memory()
  _keep_programs(values.compilation_cache)
  asked = jax.config.jax_platforms or ""
  devices_alone = asked and "cpu" not in asked.split(",")
  try:
    if devices_alone:
      jax.config.update("jax_platforms", f"{asked},cpu")  # where models are initialised
    if values.distributed:
      jax.distributed.initialize()
    if devices_alone and jax.devices()[0].platform == "cpu":
      raise RuntimeError("there is no such device")
    jax.devices()
  except Exception as error:
    raise errors.ConfigError(
      f"JAX cannot start (JAX_PLATFORMS={asked!r}, --distributed={values.distributed}): "
      f"{type(error).__name__}: {error}"
    ) from error


def _keep_programs(wanted):
  """Sets where compiled programs are kept, if they are."""
  if not wanted:
    os.environ["JAX_ENABLE_COMPILATION_CACHE"] = "false"  # of the commands that it starts
    jax.config.update("jax_enable_compilation_cache", False)
    return
  folder = jax.config.jax_compilation_cache_dir
  if not folder:
    # XLA compiles for the very CPU, and a home may be shared by several.
    cpu = hashlib.sha256(_cpu_features().encode()).hexdigest()[:8]
    folder = os.path.expanduser(f"~/.cache/jaxmg/jax-{jax.__version__}-{cpu}")
    jax.config.update("jax_compilation_cache_dir", folder)
  if "://" in folder:  # a bucket
    return
  try:
    os.makedirs(folder, exist_ok=True)
    tempfile.TemporaryFile(dir=folder).close()
  except OSError as error:
    print(f"jaxmg: compiled programs are not kept: {folder}: {error.strerror}", file=sys.stderr)
    jax.config.update("jax_enable_compilation_cache", False)


def _cpu_features():
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
  except OSError:  # not Linux
    return platform.processor()
  names = ("model name", "flags", "Features")  # the last on ARM
  return "\n".join(sorted({line for line in lines if line.startswith(names)}))


@contextlib.contextmanager
def _work_directory(text, config) -> Iterator[pathlib.Path]:
  """Makes and locks the work directory, and settles which config runs in it."""
  workdir = pathlib.Path(os.path.abspath(os.path.expanduser(text)))
  if any(workdir.glob("*/index.json")):
    raise errors.ConfigError("--workdir", expected="a run's own", got=f"{workdir}, a prepared set")
  made = not workdir.exists()
  workdir.mkdir(parents=True, exist_ok=True)
  if jax.process_index() > 0:
    yield workdir
    return
  tempfile.TemporaryFile(dir=workdir).close()  # fails now rather than at the first checkpoint
  with files.locked(workdir):
    _settle_config(workdir / "config.json", config)
    print(f"work directory: {workdir}")
    print(f"devices: {jax.device_count()} x {jax.devices()[0].device_kind}", flush=True)
    try:
      yield workdir
    except BaseException:
      if made and {path.name for path in workdir.iterdir()} <= {files.LOCK, "config.json"}:
        shutil.rmtree(workdir)  # it came to nothing
      raise


def _settle_config(path, config):
  if any(path.parent.glob("checkpoints/[0-9]*")):  # before the first, nothing is lost by a change
    try:
      old = flatten(json.loads(path.read_text(encoding="utf-8")))
      new = flatten(json.loads(json.dumps(config.to_dict())))
    except (OSError, ValueError) as error:
      raise errors.ConfigError(path, expected="the config of a run", got=error) from error
    changes = {
      key: f"{key} {old.get(key, 'absent')!r} -> {new.get(key, 'absent')!r}"
      for key in sorted(old.keys() | new.keys())
      if old.get(key, "absent") != new.get(key, "absent")
    }
    if refused := [change for key, change in changes.items() if key not in MAY_CHANGE]:
      raise errors.ConfigError(
        f"{path.parent} holds a run with another config: {', '.join(refused)}",
        hint="take another --workdir, or the settings of that run",
      )
    if changes:
      print(f"changed from here on: {', '.join(changes.values())}")
  write(path, config.to_dict())


def write(path: pathlib.Path, tree: Any) -> None:
  """Writes JSON in one move: whoever reads the file finds all of it or none."""
  with files.replace(path) as part:
    part.write_text(json.dumps(tree, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """{"train": {"seed": 0}} -> {"train.seed": 0}."""
  leaves = {}
  for name, value in tree.items():
    key = f"{prefix}{name}"
    leaves |= flatten(value, f"{key}.") if isinstance(value, dict) else {key: value}
  return leaves


@contextlib.contextmanager
def _signals() -> Iterator[None]:
  """SIGTERM and Ctrl-C set the stop reason; the second Ctrl-C ends the process at once."""
  global _stop
  _stop = None
  # Python's handlers wait for the next bytecode, through a whole compilation; only the byte that C
  # writes to the wake-up pipe arrives at once.
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  thread = threading.Thread(target=_watch, args=(reader,), daemon=True)
  thread.start()
  wakeup = signal.set_wakeup_fd(writer)
  handlers = {n: signal.signal(n, _ask_to_stop) for n in (signal.SIGTERM, signal.SIGINT)}
  try:
    yield
  finally:
    for number, handler in handlers.items():
      signal.signal(number, handler)
    signal.set_wakeup_fd(wakeup)
    os.close(writer)
    thread.join()
    os.close(reader)


def _ask_to_stop(number, frame):
  global _stop
  _stop = _stop or signal.Signals(number).name


def _watch(reader):
  interrupted = False
  while number := os.read(reader, 1):
    if number[0] == signal.SIGINT and interrupted:
      os._exit(errors.Interrupted.exit_code)
    interrupted |= number[0] == signal.SIGINT
    name = signal.Signals(number[0]).name
    os.write(2, f"\njaxmg: {name}: saving after this step, Ctrl-C to stop at once\n".encode())
