"""Checkpoints on disk: the newest and the best one. The only module that knows Orbax.

A step holds the training state, the state of the data iterator and the score it was given; a step
directory without its temporary name is complete.
"""

import contextlib
import math
import os
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers

from jaxmg import errors


class Checkpoints:
  """Checkpoints of one run, saved in the background; `close` it, or use it in a `with`.

  Nothing but the newest checkpoint and the one with the highest score is kept.
  """

  def __init__(self, directory: str | os.PathLike):
    self._directory = os.path.abspath(directory)  # Orbax takes no other
    with _as_errors(errors.StorageError, directory):
      self._manager = _manager(self._directory, writable=True)

  def __enter__(self):
    return self

  def __exit__(self, *_):
    self.close()

  def latest_step(self) -> int | None:
    return self._manager.latest_step()

  def best_step(self) -> int | None:
    """Returns the step with the highest score, the newest of equals or where none has a score."""
    return self._manager.best_step()

  def save(
    self, step: int, state: Any, iterator_state: dict[str, Any], score: float | None = None
  ) -> None:
    """Starts to save; the state may be donated at once. The highest finite `score` is the best.

    Raises:
      CheckpointError: the step is not newer than the latest.
      StorageError: this save, or the one before it, could not be written.
    """
    if score is not None and not math.isfinite(score):
      raise ValueError(f"score of step {step}: expected a finite number, got {score}")
    with _as_errors(errors.StorageError, self._directory):
      saved = self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.PyTreeSave(state), iterator=ocp.args.JsonSave(iterator_state)
        ),
        metrics={} if score is None else {"score": float(score)},
      )
    if not saved:
      raise errors.CheckpointError(
        self._directory, expected=f"a step after {self.latest_step()}", got=step
      )

  def restore(self, abstract_state: Any, step: int | None = None) -> tuple[Any, dict[str, Any]]:
    """Returns (state, iterator state) of `step`, or of the latest.

    `abstract_state` gives the structure, shapes, dtypes and shardings: a state, or its shapes.

    Raises:
      CheckpointError: no such step, files that cannot be read, or a state that differs from
        `abstract_state` in any path, shape or dtype; all differences are listed.
    """
    self.wait()
    step = _find(self._manager, self._directory, "latest" if step is None else step)
    where = os.path.join(self._directory, str(step))
    abstract_state = jax.tree.map(ocp.utils.to_shape_dtype_struct, abstract_state)
    with _as_errors(errors.CheckpointError, where):
      saved = self._manager.item_metadata(step)["state"].tree
    _compare(where, expected=_leaves(abstract_state), got=_leaves(saved))
    restore_args = ocp.checkpoint_utils.construct_restore_args(abstract_state)
    with _as_errors(errors.CheckpointError, where):
      restored = self._manager.restore(
        step,
        args=ocp.args.Composite(
          state=ocp.args.PyTreeRestore(abstract_state, restore_args),
          iterator=ocp.args.JsonRestore(),
        ),
      )
    return restored["state"], restored["iterator"]

  def wait(self) -> None:
    """Returns when the last save is on disk; raises StorageError if it failed."""
    with _as_errors(errors.StorageError, self._directory):
      self._manager.wait_until_finished()

  def close(self) -> None:
    with _as_errors(errors.StorageError, self._directory):
      self._manager.close()


def restore_variables(directory: str | os.PathLike, step: int | str = "best") -> dict[str, Any]:
  """Returns {"params", "batch_stats"} as numpy arrays of "best", "latest" or a numbered step.

  Reads only, and needs to know neither the model nor the optimizer.

  Raises:
    CheckpointError: no such step, or files that cannot be read.
  """
  directory = os.path.abspath(directory)
  with (
    _as_errors(errors.CheckpointError, directory),
    contextlib.closing(_manager(directory, writable=False)) as manager,
  ):
    step = _find(manager, directory, step)
    saved = manager.item_metadata(step)["state"].tree
    wanted = {name: saved[name] for name in ("params", "batch_stats")}
    restore_args = jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted)
    args = ocp.args.PyTreeRestore(wanted, restore_args, partial_restore=True)
    return manager.restore(step, args=ocp.args.Composite(state=args))["state"]


def _manager(directory: str | os.PathLike, *, writable: bool) -> ocp.CheckpointManager:
  # LatestN too: by itself the best one would push out the newest, from which a run goes on.
  keep = checkpoint_managers.AnyPreservationPolicy(
    [
      checkpoint_managers.LatestN(1),
      checkpoint_managers.BestN(get_metric_fn=_score, n=1),
    ]
  )
  return ocp.CheckpointManager(
    directory,
    item_handlers={"state": ocp.PyTreeCheckpointHandler(), "iterator": ocp.JsonCheckpointHandler()},
    options=ocp.CheckpointManagerOptions(
      create=writable,
      cleanup_tmp_directories=writable,  # what killed saves left behind
      best_fn=_score,
      preservation_policy=keep,
    ),
  )


def _score(metrics: dict[str, float]) -> float:
  return metrics.get("score", -math.inf)


def _find(manager: ocp.CheckpointManager, directory: str | os.PathLike, step: int | str) -> int:
  steps = sorted(manager.all_steps())
  found = {"latest": manager.latest_step(), "best": manager.best_step()}.get(step, step)
  if found not in steps:
    raise errors.CheckpointError(directory, expected=f"step {step}", got=steps or "no checkpoint")
  return found


def _leaves(tree: Any) -> dict[str, str]:
  return {
    jax.tree_util.keystr(path, simple=True, separator="/"): f"{leaf.dtype}{list(leaf.shape)}"
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
  }


def _compare(where: str, *, expected: dict[str, str], got: dict[str, str]) -> None:
  differences = [
    f"{path}: expected {expected.get(path, 'nothing')}, got {got.get(path, 'nothing')}"
    for path in sorted(expected.keys() | got.keys())
    if expected.get(path) != got.get(path)
  ]
  if differences:
    raise errors.CheckpointError(
      "\n  ".join([f"{where}: the checkpoint does not fit this model and optimizer:", *differences])
    )


@contextlib.contextmanager
def _as_errors(kind: type[errors.Error], where: object):
  """Orbax raises anything, at length: one line, with the whole as its cause."""
  try:
    yield
  except errors.Error:
    raise
  except Exception as error:
    message = str(error).strip().split("\n")[0][:200]
    raise kind(f"{where}: {type(error).__name__}: {message}") from error
