"""What JAX computes on, and where the programs that it compiles are kept."""

import hashlib
import os
import pathlib
import platform
import sys
import tempfile
import warnings

import jax
import numpy as np
from absl import flags, logging
from jax.experimental import multihost_utils

from jaxmg import errors
from jaxmg.training import precision, sharding


def start(*, distributed: bool, keep_programs: bool) -> None:
  """Starts JAX on the platform that the environment names; ConfigError where it cannot."""
  logging.set_verbosity(logging.FATAL)  # what Orbax logs as an error, at length, it raises as well
  _hide_late_writes()
  sharding.reuse_memory()
  # Programs with oneDNN cannot be kept (jaxlib 0.12): they are compiled anew by every command.
  warnings.filterwarnings(
    "ignore", "Error writing persistent compilation cache entry .*MemoryError"
  )
  _keep_programs(keep_programs)
  asked = jax.config.jax_platforms or ""
  devices_alone = asked and "cpu" not in asked.split(",")
  try:
    if devices_alone:
      jax.config.update("jax_platforms", f"{asked},cpu")  # where models are initialised
    if distributed:
      jax.distributed.initialize()
    if devices_alone and jax.devices()[0].platform == "cpu":
      raise RuntimeError("there is no such device")
    jax.devices()
  except Exception as error:
    raise errors.ConfigError(
      f"JAX cannot start (JAX_PLATFORMS={asked!r}, --distributed={distributed}): "
      f"{type(error).__name__}: {error}"
    ) from error


def define_dtype(values: flags.FlagValues) -> None:
  """The flag of what a network predicts in."""
  text = "What the network computes in; auto: what is fast."
  flags.DEFINE_enum("dtype", "float32", precision.CHOICES, text, flag_values=values)


def dtype(name: str) -> str:
  """The dtype of this name on the first process, for all of them; of "auto", what is fast there."""
  found = precision.resolve(name, jax.devices()[0])
  if jax.process_count() > 1:
    known = precision.CHOICES
    found = known[int(multihost_utils.broadcast_one_to_all(np.int32(known.index(found))))]
  return found


def _hide_late_writes():
  """A save that fails is raised; the writes of its other arrays then find Orbax's loop closed.

  Their callbacks come from C++, and so are no object of Python's, unlike those of anybody's own.
  """
  before = sys.unraisablehook
  if getattr(before, "__module__", None) == __name__:
    return

  def hook(unraisable):
    error = unraisable.exc_value
    closed = type(error) is RuntimeError and str(error) == "Event loop is closed"
    if not closed or unraisable.object is not None:
      before(unraisable)

  sys.unraisablehook = hook


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
