"""The work directory of a run: one process at a time, one config for good."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import jax
from ml_collections import ConfigDict

from jaxmg import errors, files

from . import backend, settings

# Settings that a run may be continued with after a change; of the data there is a fingerprint.
MAY_CHANGE = frozenset({"data.dir", "schedule.epochs", "train.log_every", "train.save_every"})


def default(config: str) -> pathlib.Path:
  """Where a run lives by default: runs/agcn-nods-joint-small of `agcn:nods,joint,small`."""
  name, colon, argument = config.partition(":")
  return pathlib.Path("runs", re.sub(r"[^\w.]+", "-", pathlib.Path(name).stem + colon + argument))


@contextlib.contextmanager
def taken(text: str, config: ConfigDict) -> Iterator[pathlib.Path]:
  """Makes and locks the work directory, and settles which config runs in it."""
  if not text:
    raise errors.ConfigError("--workdir", expected="a folder", got="no name")
  workdir = pathlib.Path(os.path.abspath(os.path.expanduser(text)))
  if any(workdir.glob("*/index.json")):
    raise errors.ConfigError("--workdir", expected="a run's own", got=f"{workdir}, a prepared set")
  made = not workdir.exists()
  workdir.mkdir(parents=True, exist_ok=True)
  _settle_dtype(workdir, config)
  if jax.process_index() > 0:
    yield workdir
    return
  tempfile.TemporaryFile(dir=workdir).close()  # fails now rather than at the first checkpoint
  path = workdir / "config.json"
  before = path.read_bytes() if path.is_file() else None
  with files.locked(workdir):
    _settle_config(path, config)
    print(f"work directory: {workdir}")
    print(f"devices: {jax.device_count()} x {jax.devices()[0].device_kind}", flush=True)
    try:
      yield workdir
    except BaseException as error:
      if before and isinstance(error, errors.ConfigError):  # the run is that of the config before
        with files.replace(path) as part:
          part.write_bytes(before)
      if made and {path.name for path in workdir.iterdir()} <= {files.LOCK, "config.json"}:
        shutil.rmtree(workdir)  # it came to nothing
      raise


def _settle_dtype(workdir, config):
  """In the place of "auto": what the run began with, on whatever machine, or what is fast here."""
  if config.get("train", {}).get("dtype") != "auto":
    return
  began = settings.of_run(workdir).get("train", {}).get("dtype") if _has_begun(workdir) else None
  config.train.dtype = backend.dtype(began or "auto")
  if jax.process_index() == 0:
    why = "as the run began" if began else "chosen for this machine"
    print(f"train.dtype: {config.train.dtype}, {why}")


def _has_begun(workdir):
  return any(workdir.glob("checkpoints/[0-9]*"))


def _settle_config(path, config):
  if _has_begun(path.parent):  # before the first, nothing is lost by a change
    try:
      old = settings.flatten(json.loads(path.read_text(encoding="utf-8")))
      new = settings.flatten(json.loads(json.dumps(config.to_dict())))
    except (OSError, ValueError) as error:
      hint = "it cannot go on without its config: take another --workdir"
      raise errors.ConfigError(
        path, expected="the config of a run", got=error, hint=hint
      ) from error
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
