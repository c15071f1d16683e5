"""Checkpoints on disk: the two newest and the best one. The only module that knows Orbax.

A checkpoint is a directory named by its step, with Orbax's files of the training state and the file
MANIFEST: the SHA-256 of each of them, the state of the data iterator and the score. It gets its
name when all of it is written, and what a killed save or removal leaves behind is `<step>.*tmp`:
whatever has a number is whole, or has been damaged since.
"""

import concurrent.futures
import contextlib
import copy
import hashlib
import json
import math
import os
import pathlib
import re
import shutil
import time
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from jaxmg import errors


class Checkpoints:
  """Checkpoints of one run, saved in the background; `close` it, or use it in a `with`.

  Nothing but the two newest and the one with the highest score is kept. `fingerprint` says by name
  what the state of the data iterator relies on; it is saved, and compared by `restore`.
  """

  def __init__(
    self, directory: str | os.PathLike, *, fingerprint: Mapping[str, str | int] | None = None
  ):
    self._directory = pathlib.Path(directory).absolute()
    self._fingerprint = dict(fingerprint or {})
    with _as_errors(errors.StorageError, self._directory):
      if jax.process_index() == 0:
        self._directory.mkdir(parents=True, exist_ok=True)
        for left in self._directory.glob("[0-9]*tmp"):
          shutil.rmtree(left) if left.is_dir() else left.unlink()
      if jax.process_count() > 1:
        multihost_utils.sync_global_devices("leftovers of killed saves are removed")
    # The first device writes an array as a whole. By default each writes a part, which it must cut
    # out first, by a program for each shape: seconds a save, however small the model.
    arrays = ocp.type_handlers.create_type_handler_registry(
      (jax.Array, ocp.type_handlers.ArrayHandler(use_replica_parallel=False)),
      (np.ndarray, ocp.type_handlers.NumpyHandler()),
    )
    self._orbax = ocp.AsyncCheckpointer(ocp.PyTreeCheckpointHandler(type_handler_registry=arrays))
    self._background = concurrent.futures.ThreadPoolExecutor(1)
    self._saving: concurrent.futures.Future | None = None
    self._saved = time.monotonic()

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()

  def latest_step(self) -> int | None:
    self.wait()
    return max(_steps(self._directory), default=None)

  def best_step(self) -> int | None:
    """Returns the step with the highest score, the newest of equals or where none has a score."""
    self.wait()
    return _best(self._directory)

  def due(self, seconds: float) -> bool:
    """Whether so many seconds have passed since the last save, or since the run was opened.

    Of several processes each must ask at the same points, and all get the answer of the first.
    """
    passed = time.monotonic() - self._saved >= seconds
    if jax.process_count() == 1:
      return passed
    return bool(multihost_utils.broadcast_one_to_all(np.int32(passed)))

  def where_to_go_on(self) -> str:
    """Which checkpoint is the newest, in words."""
    latest = self.latest_step()
    return (
      "no checkpoint yet" if latest is None else f"the last checkpoint is that of step {latest}"
    )

  def save(self, step: int, state: Any, iterator_state: Mapping[str, Any]) -> None:
    """Starts to save; the state may be donated at once.

    Raises:
      CheckpointError: the step is not newer than the latest.
      DivergedError: there is a number in the state that is not finite.
      StorageError: this save, or the one before it, could not be written.
    """
    latest = self.latest_step()
    if latest is not None and step <= latest:
      raise errors.CheckpointError(self._directory, expected=f"a step after {latest}", got=step)
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
      if not np.isfinite(np.asarray(leaf)).all():
        raise errors.DivergedError(
          f"step {step}: {_name(path)}",
          expected="finite numbers",
          got="others",
          hint=self.where_to_go_on(),
        )
    self._saved = time.monotonic()
    with _as_errors(errors.StorageError, self._directory):
      self._orbax.save(self._directory / f"{step}.tmp", args=ocp.args.PyTreeSave(state))
    iterator_state = copy.deepcopy(iterator_state)  # it may be the iterator's own
    contents = {"score": None, "iterator": iterator_state, "fingerprint": self._fingerprint}
    self._saving = self._background.submit(self._finish, step, contents)

  def score(self, step: int) -> float | None:
    """Returns the score of the checkpoint of `step`, or None if it has got none."""
    self.wait()
    return _manifest(self._directory / f"{step}")["score"]

  def set_score(self, step: int, score: float) -> None:
    """Gives the checkpoint of `step` its score; the highest one is the best."""
    if not math.isfinite(score):
      raise ValueError(f"score of step {step}: expected a finite number, got {score}")
    self.wait()
    if jax.process_index() > 0:
      return
    path, temporary = self._directory / f"{step}", self._directory / f"{step}.tmp"
    contents = _manifest(path) | {"score": float(score)}
    with _as_errors(errors.StorageError, path):
      temporary.write_bytes(_signed(json.dumps(contents).encode()))
      temporary.replace(path / "MANIFEST")

  def restore(self, abstract_state: Any, step: int | None = None) -> tuple[Any, dict[str, Any]]:
    """Returns (state, iterator state) of `step`, or of the latest.

    `abstract_state` gives the structure, shapes, dtypes and shardings: a state, or its shapes.

    Raises:
      CheckpointError: no such step, files that are not as they were saved, or a state that differs
        from `abstract_state` in any path, shape or dtype.
      DataError: the fingerprint is another. Either message lists all differences.
    """
    self.wait()
    path, manifest = _find(self._directory, "latest" if step is None else step)
    abstract_state = jax.tree.map(ocp.utils.to_shape_dtype_struct, abstract_state)
    with _as_errors(errors.CheckpointError, path):
      saved = self._orbax.metadata(path).item_metadata.tree
    state = _differences(expected=_leaves(abstract_state), got=_leaves(saved))
    data = _differences(expected=self._fingerprint, got=manifest["fingerprint"])
    if state or data:
      kind = errors.CheckpointError if state else errors.DataError
      title = f"{path}: the checkpoint does not fit this model, optimizer and data:"
      raise kind("\n  ".join([title, *state, *data]))
    restore_args = ocp.checkpoint_utils.construct_restore_args(abstract_state)
    with _as_errors(errors.CheckpointError, path):
      args = ocp.args.PyTreeRestore(abstract_state, restore_args)
      return self._orbax.restore(path, args=args), manifest["iterator"]

  def wait(self) -> None:
    """Returns when the last save is on disk; raises StorageError if it failed."""
    saving, self._saving = self._saving, None
    if saving:
      with _as_errors(errors.StorageError, self._directory):
        saving.result()

  def close(self) -> None:
    try:
      self.wait()
    finally:
      self._background.shutdown()
      self._orbax.close()

  def _finish(self, step: int, contents: dict[str, Any]) -> None:
    """Runs in the background: makes a checkpoint of what Orbax writes, and removes old ones."""
    self._orbax.wait_until_finished()
    if jax.process_index() > 0:
      return
    new = self._directory / f"{step}.tmp"
    contents["files"] = _digests(new)
    (new / "MANIFEST").write_bytes(_signed(json.dumps(contents).encode()))
    new.rename(self._directory / f"{step}")
    steps = _steps(self._directory)
    for step in set(steps) - {*steps[-2:], _best(self._directory)}:
      old = self._directory / f"{step}.tmp"
      (self._directory / f"{step}").rename(old)
      shutil.rmtree(old)


def number(directory: str | os.PathLike, step: int | str) -> int | str:
  """Returns the number of "best" or "latest", or the `step` itself where there is none."""
  directory = pathlib.Path(directory)
  found = {"best": _best, "latest": lambda path: max(_steps(path), default=None)}
  number = found[step](directory) if step in found else step
  return step if number is None else number


def fingerprint(directory: str | os.PathLike, step: int | str = "best") -> dict[str, Any]:
  """Returns what the data of a step were, by name; nothing of weights that were not trained here.

  Raises CheckpointError as `restore_variables`.
  """
  return _find(pathlib.Path(directory).absolute(), step)[1]["fingerprint"]


def restore_variables(directory: str | os.PathLike, step: int | str = "best") -> dict[str, Any]:
  """Returns {"params", "batch_stats"} as numpy arrays of "best", "latest" or a numbered step.

  They are the moving averages where training kept some (`step.TrainState.ema`). Reads
  only, and needs to know neither the model nor the optimizer.

  Raises:
    CheckpointError: no such step, or files that are not as they were saved.
  """
  path, _ = _find(pathlib.Path(directory).absolute(), step)
  with (
    _as_errors(errors.CheckpointError, path),
    contextlib.closing(ocp.Checkpointer(ocp.PyTreeCheckpointHandler())) as orbax,
  ):
    saved = orbax.metadata(path).item_metadata.tree
    averaged = bool(saved.get("ema"))
    wanted = {name: saved[name] for name in ("params", "batch_stats")}
    wanted = {"ema": saved["ema"]} if averaged else wanted
    restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    args = ocp.args.PyTreeRestore(wanted, restore_args, partial_restore=True)
    restored = orbax.restore(path, args=args)
    return restored["ema"] if averaged else restored


def _steps(directory: pathlib.Path) -> list[int]:
  names = [path.name for path in directory.glob("*")]
  return sorted(int(name) for name in names if re.fullmatch("0|[1-9][0-9]*", name))


def _best(directory: pathlib.Path) -> int | None:
  def rank(step):
    score = _manifest(directory / f"{step}")["score"]
    return -math.inf if score is None else score, step

  return max(_steps(directory), key=rank, default=None)


def _find(directory: pathlib.Path, step: int | str) -> tuple[pathlib.Path, dict[str, Any]]:
  """Returns the path and the manifest of a step, after a look at all of its bytes."""
  steps = _steps(directory)
  try:
    if step == "best":
      found = _best(directory)
    else:
      found = max(steps, default=None) if step == "latest" else step
    if found in steps:
      return directory / f"{found}", _check(directory / f"{found}")
  except errors.CheckpointError as error:
    whole = [other for other in steps if _is_whole(directory / f"{other}")]
    hint = f"step {whole[-1]} is whole: remove the damaged one to go on from it" if whole else None
    raise errors.CheckpointError(error, hint=hint) from error
  if isinstance(step, str) and step not in ("best", "latest"):
    raise errors.CheckpointError("step", expected="best, latest or a number", got=repr(step))
  raise errors.CheckpointError(directory, expected=f"step {step}", got=steps or "no checkpoint")


def _check(path: pathlib.Path) -> dict[str, Any]:
  """Returns the manifest of a checkpoint whose files are as they were saved."""
  manifest = _manifest(path)
  saved = manifest["files"]
  with _as_errors(errors.CheckpointError, path):
    found = _digests(path)
  wrong = [
    f"{name} {'added' if name not in saved else 'changed' if name in found else 'missing'}"
    for name in sorted(saved.keys() | found.keys())
    if saved.get(name) != found.get(name)
  ]
  if wrong:
    raise errors.CheckpointError(path, expected="the files that were saved", got=", ".join(wrong))
  return manifest


def _is_whole(path: pathlib.Path) -> bool:
  try:
    return bool(_check(path))
  except errors.CheckpointError:
    return False


def _manifest(path: pathlib.Path) -> dict[str, Any]:
  path /= "MANIFEST"
  with _as_errors(errors.CheckpointError, path):
    content = path.read_bytes()
  line = content.partition(b"\n")[0]
  if content != _signed(line):
    raise errors.CheckpointError(path, expected="what was saved", got="something else")
  return json.loads(line)


def _signed(line: bytes) -> bytes:
  return line + b"\n" + hashlib.sha256(line).hexdigest().encode() + b"\n"


def _digests(path: pathlib.Path) -> dict[str, str]:
  """Returns the SHA-256 of every file below `path` but the manifest."""
  digests = {}
  for file in path.rglob("*"):
    name = file.relative_to(path).as_posix()
    if not file.is_dir() and name != "MANIFEST":
      with file.open("rb") as stream:
        digests[name] = hashlib.file_digest(stream, "sha256").hexdigest()
  return digests


def _leaves(tree: Any) -> dict[str, str]:
  return {
    _name(path): f"{leaf.dtype}{list(leaf.shape)}"
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _name(path: tuple) -> str:
  return jax.tree_util.keystr(path, simple=True, separator="/")


def _differences(*, expected: Mapping[str, Any], got: Mapping[str, Any]) -> list[str]:
  return [
    f"{name}: expected {expected.get(name, 'nothing')}, got {got.get(name, 'nothing')}"
    for name in sorted(expected.keys() | got.keys())
    if expected.get(name) != got.get(name)
  ]


@contextlib.contextmanager
def _as_errors(kind: type[errors.Error], where: object):
  """Orbax raises anything, at length: one line, with the whole as its cause."""
  try:
    yield
  except errors.Error:
    raise
  except Exception as error:
    message = str(error).strip().split("\n")[0][:500]
    raise kind(f"{where}: {type(error).__name__}: {message}") from error
