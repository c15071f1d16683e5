"""The training loop: steps, metrics, evaluation, checkpoints, and going on where a run stopped."""

import json
import os
import pathlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np
import tensorboardX
from jax.sharding import Mesh
from jaxtyping import Array, Key

from jaxmg import errors, files, progress
from jaxmg.training import sharding
from jaxmg.training.checkpoints import Checkpoints
from jaxmg.training.step import TrainState


class Logger:
  """Writes metrics.jsonl, TensorBoard events, how far training is, and a line per epoch.

  A line of metrics.jsonl is an object with "step" and "epoch" and either the means over the steps
  since the line before ("loss", "learning_rate", "clips_per_second", ...; null where none was
  finite) or, as "eval/<name>", what `evaluate` returned. Of several processes the first one writes.
  """

  def __init__(self, directory: str | os.PathLike):
    self._directory = pathlib.Path(directory)
    self._active = jax.process_index() == 0

  def start(self, step: int, steps: int, *, evaluated: bool = True) -> None:
    """Opens the files, without what a killed run wrote beyond `step`: that comes again.

    So does the evaluation after `step`, unless it was `evaluated`.
    """
    self._bar, self._place = None, {"done": step, "total": steps}
    if not self._active:
      return
    if step:
      print(
        f"going on after step {step} of {steps}" if step < steps else f"all {steps} steps are made"
      )
    path = self._directory / "metrics.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []

    def place(line):
      values = json.loads(line)
      return values["step"], "loss" not in values

    # A kill can cut off the last line.
    kept = [x for x in lines if x.endswith("\n") and place(x) <= (step, evaluated)]
    with files.replace(path) as part:
      part.write_text("".join(kept))
    self._file = path.open("a")
    self._events = tensorboardX.SummaryWriter(str(self._directory), purge_step=step + 1)

  def begin(self) -> None:
    """Steps are made from here on: what was done before does not count for their speed."""
    if self._bar is None:
      self._bar = progress.Bar("training", unit="steps", shown=self._active, **self._place)
    self._bar.resume()

  def advance(self, metrics: Mapping[str, Array] | None) -> None:
    """One more step is made; the metrics are those of the newest one that has ended, if any."""
    self._bar.update(lambda: f"loss {float(metrics['loss']):.3g}" if metrics else "")

  def log(self, step: int, epoch: float, values: Mapping[str, float | None]) -> None:
    """Writes one line of metrics.jsonl and the same to TensorBoard."""
    if not self._active:
      return
    self._file.write(json.dumps({"step": step, "epoch": epoch, **values}, allow_nan=False) + "\n")
    self._file.flush()
    for name, value in values.items():
      if value is not None:
        self._events.add_scalar(name, value, step)

  def say(self, epoch: float, values: Mapping[str, float | None], seconds: float) -> None:
    """Prints a line, which ends with the time that was taken."""
    if self._active:
      figures = (f"{name} {x:.4g}" for name, x in values.items() if x is not None)
      line = f"epoch {epoch:g}: {', '.join([*figures, f'{seconds:.1f} s'])}"
      (self._bar.write if self._bar else print)(line)

  def close(self) -> None:
    if self._bar is not None:
      self._bar.close()
    if self._active:
      self._file.close()
      self._events.close()


def train(
  state: TrainState,
  train_step: Callable,
  batches: Any,
  *,
  mesh: Mesh,
  steps: int,
  steps_per_epoch: int,
  key: Key[Array, ""],
  learning_rate: Callable,
  checkpoints: Checkpoints,
  logger: Logger,
  evaluate: Callable[[TrainState], Mapping[str, float] | None] | None = None,
  evaluate_every: int = 1,
  best_metric: str = "top1",
  save_seconds: float = 0.0,
  save_steps: int | None = None,
  log_every: int = 50,
  max_skipped: int = 10,
  stop: Callable[[], str | None] = lambda: None,
) -> TrainState:
  """Trains to `steps` steps in all, from the latest checkpoint if there is one.

  `train_step` comes from `step.compile_train_step`; `state` is donated. `batches` is an endless
  iterator of this process's rows with Grain's `get_state` and `set_state`. A checkpoint is saved
  every `save_steps` steps (an epoch, if None), if `save_seconds` have passed since the last
  one, and in any case before each evaluation, and at the end; the state of the iterator in it
  belongs to the same step. `evaluate` is called every `evaluate_every` epochs
  and at the end; it may return None when it was asked to stop, and is called again when the run
  goes on. `learning_rate` is the optimizer's schedule, for the metrics.

  `stop()` is asked after each step and after each evaluation, and must answer alike in all
  processes: None, or the name of the signal that ends the run there, saved.

  Raises:
    DivergedError: more than `max_skipped` steps had a loss or gradient that was not finite.
    Interrupted, Preempted: by "SIGINT", or by another signal.
  """
  save_steps = save_steps or steps_per_epoch
  evaluate_every *= steps_per_epoch

  def evaluates_after(step):
    return evaluate and step and (step == steps or step % evaluate_every == 0)

  def score(step):
    start = time.perf_counter()
    if results := evaluate(state):
      values = {f"eval/{name}": x for name, x in results.items()}
      logger.log(step, round(step / steps_per_epoch, 3), values)
      logger.say(round(step / steps_per_epoch, 3), values, time.perf_counter() - start)
      checkpoints.set_score(step, results[best_metric])

  def leave(step, signal):
    if signal:
      checkpoints.wait()
      kind = errors.Interrupted if signal == "SIGINT" else errors.Preempted
      raise kind(f"{signal}: step {step} is saved; the same command goes on from there")

  state = sharding.replicate(mesh, state)
  if checkpoints.latest_step() is not None:
    state, iterator_state = checkpoints.restore(state)
    batches.set_state(iterator_state)
  start = int(state.step)
  evaluated = not evaluates_after(start) or checkpoints.score(start) is not None
  logger.start(start, steps, evaluated=evaluated)
  try:
    if not evaluated:
      score(start)
      leave(start, stop())
    history, logged = [], 0  # the metrics of this epoch's steps; how many of them are written
    previous = None
    for step in range(start + 1, steps + 1):
      batch = sharding.shard_batch(mesh, next(batches))
      if step == start + 1:
        with sharding.compiling("the training step", mesh):
          train_step.lower(state, batch, key).compile()  # which the calls then find
        logger.begin()
        since = began = time.perf_counter()
      state, metrics = train_step(state, batch, key)
      history.append(metrics)
      # One step runs and one waits: enough to keep the devices busy, and no stop is far away.
      jax.block_until_ready(previous)
      logger.advance(previous)
      previous = metrics

      signal = stop()
      last = step == steps
      evaluates = evaluates_after(step) and not signal
      may_save = step % save_steps == 0
      saves = evaluates or signal or last or (may_save and checkpoints.due(save_seconds))
      epoch, epoch_ends = round(step / steps_per_epoch, 3), step % steps_per_epoch == 0
      if not (saves or may_save or epoch_ends or step % log_every == 0):
        continue

      skipped = int(state.skipped)
      rate = learning_rate(step - 1 - skipped)  # the optimizer counts the updates it has made
      speed = (len(history) - logged) * len(batch["clip"]) / (time.perf_counter() - since)
      other = {"skipped": skipped, "learning_rate": float(rate), "clips_per_second": speed}
      logger.log(step, epoch, _means(history[logged:]) | other)
      logged = len(history)
      if epoch_ends or last:
        logger.say(epoch, _means(history) | other, time.perf_counter() - began)
        history, logged = [], 0
      if skipped > max_skipped:
        raise errors.DivergedError(
          f"step {step}",
          expected=f"at most {max_skipped} losses or gradients that are not finite",
          got=skipped,
          hint=checkpoints.where_to_go_on(),
        )
      if saves:
        checkpoints.save(step, state, batches.get_state())
      if evaluates:
        score(step)
        signal = stop()
      leave(step, signal)
      logger.begin()
      since = time.perf_counter()
      began = since if epoch_ends else began
  finally:
    logger.close()
    checkpoints.wait()
  return state


def _means(steps: list[dict[str, Array]]) -> dict[str, float | None]:
  """Means over the steps of each metric, without the values that are not finite."""
  columns = {name: np.array(jax.device_get([step[name] for step in steps])) for name in steps[0]}
  finite = {name: column[np.isfinite(column)] for name, column in columns.items()}
  return {name: float(column.mean()) if len(column) else None for name, column in finite.items()}
