import contextlib
import json
import pathlib
import re

import jax
import numpy as np
import pytest

from jaxmg import errors, progress
from jaxmg.training import checkpoints, loop, losses, optimizers, sharding
from jaxmg.training import step as steps

STEPS, STEPS_PER_EPOCH = 12, 4


SCHEDULE = optimizers.schedule("cosine", learning_rate=0.1, steps=STEPS)
OPTIMIZER = optimizers.optimizer("sgd", SCHEDULE, weight_decay=1e-3)


class Run:
  """Trains the toy in a directory; each call makes all but the compiled step anew."""

  def __init__(self, toy, mesh, train_step, directory: pathlib.Path):
    self.toy, self.mesh, self.train_step, self.directory = toy, mesh, train_step, directory

  def __call__(self, *, batches=None, **options):
    state = steps.init_train_state(self.toy.model, OPTIMIZER, self.toy.key, self.toy.example)
    with checkpoints.Checkpoints(self.directory / "checkpoints") as saved:
      state = loop.train(
        state,
        self.train_step,
        batches or self.toy.Batches(),
        mesh=self.mesh,
        steps=STEPS,
        steps_per_epoch=STEPS_PER_EPOCH,
        key=self.toy.key,
        learning_rate=SCHEDULE,
        checkpoints=saved,
        logger=loop.Logger(self.directory),
        **options,
      )
    return jax.device_get(state)

  def lines(self):
    text = (self.directory / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]

  def figures(self):
    """The lines without the time that they took."""
    return [line | {"clips_per_second": None} for line in self.lines()]

  def steps_on_disk(self):
    return sorted(int(path.name) for path in (self.directory / "checkpoints").iterdir())


@pytest.fixture(scope="module")
def compiled(toy):
  mesh = sharding.data_mesh(jax.devices()[:2])
  train_step = steps.make_train_step(toy.model, toy.preprocess, losses.classification(), OPTIMIZER)
  return mesh, steps.compile_train_step(train_step, mesh)


@pytest.fixture
def make_run(toy, compiled, tmp_path):
  def make(name="run"):
    (tmp_path / name).mkdir()
    return Run(toy, *compiled, tmp_path / name)

  return make


def stop_after(calls, signal="SIGTERM"):
  """A `stop` that reports the signal at its n-th call."""
  count = iter(range(1, 1000))
  return lambda: signal if next(count) >= calls else None


def assert_same_bits(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_stopped_and_resumed_run_ends_as_if_it_had_not_been(make_run):
  whole, stopped = make_run("whole"), make_run("stopped")
  expected = whole()
  with pytest.raises(errors.Preempted, match="step 3 is saved"):
    stopped(stop=stop_after(3))
  with pytest.raises(errors.Interrupted, match="step 8 is saved"):
    stopped(stop=stop_after(5, "SIGINT"))
  assert stopped.steps_on_disk() == [4, 8]
  assert_same_bits(stopped(), expected)
  assert [line["step"] for line in whole.lines()] == [4, 8, 12]
  assert [line["step"] for line in stopped.lines()] == [3, 4, 8, 12]
  assert whole.lines()[-1]["loss"] == stopped.lines()[-1]["loss"]


def test_training_step_is_compiled_once_before_it_is_called(toy, make_run, monkeypatch):
  @contextlib.contextmanager
  def compiling(what, mesh):
    events.append(f"begin {what}")
    yield
    events.append("end")

  def compiled(event, seconds, fun_name="", **_):
    if event.endswith("backend_compile_duration") and "train_step" in fun_name:
      events.append("compiled")

  events, run = [], make_run()
  train_step = steps.make_train_step(toy.model, toy.preprocess, losses.classification(), OPTIMIZER)
  run.train_step = steps.compile_train_step(train_step, run.mesh)
  monkeypatch.setattr(sharding, "compiling", compiling)
  jax.monitoring.register_event_duration_secs_listener(compiled)
  run()
  jax.monitoring.unregister_event_duration_listener(compiled)
  assert events == ["begin the training step", "compiled", "end"]


def test_run_that_broke_off_goes_on_from_its_last_checkpoint(make_run):
  class Failing:
    def __init__(self, batches, after):
      self.batches, self.left = batches, after

    def __next__(self):
      self.left -= 1
      if self.left < 0:
        raise errors.DataError("clip 7 is broken")
      return next(self.batches)

    def __getattr__(self, name):
      return getattr(self.batches, name)

  whole, broken = make_run("whole"), make_run("broken")
  expected = whole(log_every=1)
  with pytest.raises(errors.DataError):
    broken(log_every=1, batches=Failing(broken.toy.Batches(), 7))
  assert [line["step"] for line in broken.lines()] == list(range(1, 8))
  with (broken.directory / "metrics.jsonl").open("a") as file:
    file.write('{"step": 8, "lo')  # cut off by a kill
  assert_same_bits(broken(log_every=1), expected)
  assert broken.figures() == whole.figures()


def test_run_that_is_complete_only_returns_its_end(make_run):
  run = make_run()
  end = run()
  assert_same_bits(run(), end)
  assert [line["step"] for line in run.lines()] == [4, 8, 12]


def test_metrics_hold_means_rate_speed_and_evaluation(make_run):
  run = make_run()
  run(log_every=3, evaluate=lambda state: {"top1": 0.5}, evaluate_every=2)
  training = [line for line in run.lines() if "loss" in line]
  assert [line["step"] for line in training] == [3, 4, 6, 8, 9, 12]
  assert [line["epoch"] for line in training] == [0.75, 1, 1.5, 2, 2.25, 3]
  first = training[0]
  assert first["learning_rate"] == pytest.approx(0.05 * (1 + np.cos(np.pi * 2 / STEPS)))
  assert first["clips_per_second"] > 0
  assert first["skipped"] == 0
  assert {"accuracy", "gradient_norm"} < first.keys()
  evaluation = [line for line in run.lines() if "loss" not in line]
  assert evaluation == [
    {"step": 8, "epoch": 2.0, "eval/top1": 0.5},
    {"step": 12, "epoch": 3.0, "eval/top1": 0.5},
  ]
  assert list(run.directory.glob("events.out.tfevents.*"))


def test_best_and_newest_checkpoints_remain(make_run):
  run = make_run()
  scores = {4: 0.2, 8: 0.7, 12: 0.4}
  run(evaluate=lambda state: {"top1": scores[int(state.step)]})
  assert run.steps_on_disk() == [8, 12]


def test_evaluation_that_was_asked_to_stop_comes_again(make_run):
  whole, stopped = make_run("whole"), make_run("stopped")
  scores = {4: 0.2, 8: 0.7, 12: 0.4}
  whole(evaluate=lambda state: {"top1": scores[int(state.step)]})
  asked = []

  def evaluate(state):  # the first time, the signal comes meanwhile
    asked.append(int(state.step))
    return None if stop() else {"top1": scores[asked[-1]]}

  def stop():
    return "SIGTERM" if asked and asked.count(asked[-1]) == 1 else None

  for step in scores:
    with pytest.raises(errors.Preempted, match=f"step {step} is saved"):
      stopped(evaluate=evaluate, stop=stop)
  stopped(evaluate=evaluate, stop=stop)
  assert asked == [4, 4, 8, 8, 12, 12]
  assert stopped.steps_on_disk() == whole.steps_on_disk() == [8, 12]
  assert stopped.figures() == whole.figures()


def test_evaluation_is_logged_once_though_its_score_was_not_saved(make_run, monkeypatch):
  run = make_run()
  with monkeypatch.context() as patch:
    patch.setattr(checkpoints.Checkpoints, "set_score", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
      run(evaluate=lambda state: {"top1": 0.5})
  assert [line["step"] for line in run.lines()] == [4, 4]
  run(evaluate=lambda state: {"top1": 0.5})
  assert [line["step"] for line in run.lines()] == [4, 4, 8, 8, 12, 12]


def test_checkpoints_can_be_more_frequent_than_epochs(make_run):
  run = make_run()
  saved_at = []
  with pytest.raises(errors.Preempted):
    run(
      save_steps=3, stop=lambda: saved_at.append(1) or ("SIGTERM" if len(saved_at) == 4 else None)
    )
  assert [line["step"] for line in run.lines()] == [3, 4]


def test_epochs_that_end_soon_after_the_last_save_are_not_saved(make_run):
  often, seldom = make_run("often"), make_run("seldom")
  assert_same_bits(often(), seldom(save_seconds=1e6))
  assert often.steps_on_disk() == [8, 12]
  assert seldom.steps_on_disk() == [12]
  assert seldom.figures() == often.figures()


def test_what_is_evaluated_and_what_a_signal_stops_is_saved_however_soon(make_run):
  run, scores = make_run(), {4: 0.7, 8: 0.2, 12: 0.4}
  options = {"evaluate": lambda state: {"top1": scores[int(state.step)]}, "save_seconds": 1e6}
  with pytest.raises(errors.Preempted, match="step 2 is saved"):
    run(**options, stop=stop_after(2))
  assert run.steps_on_disk() == [2]
  run(**options)
  assert run.steps_on_disk() == [4, 8, 12]


def test_lines_of_metrics_do_not_depend_on_when_is_saved(make_run):
  often, seldom = make_run("often"), make_run("seldom")
  often(save_steps=3)
  seldom(save_steps=3, save_seconds=1e6)
  assert [line["step"] for line in seldom.lines()] == [3, 4, 6, 8, 9, 12]
  assert seldom.figures() == often.figures()


def test_run_that_diverges_before_the_first_save_says_that_there_is_none(make_run):
  run = make_run()

  class Poisoned(run.toy.Batches):
    def __next__(self):
      batch = super().__next__()
      return batch | {"values": batch["values"] * np.nan}

  with pytest.raises(errors.DivergedError, match=r"\(no checkpoint yet\)"):
    run(batches=Poisoned(), max_skipped=0, log_every=1)


def test_run_that_diverges_stops_and_keeps_its_last_good_checkpoint(make_run):
  class Poisoned:
    """NaN in every batch from the tenth on, and in the second."""

    def __init__(self, batches):
      self.batches = batches

    def __next__(self):
      batch = next(self.batches)
      if self.batches.next_index == 2 or self.batches.next_index >= 10:
        batch["values"][:] = np.nan
      return batch

    def __getattr__(self, name):
      return getattr(self.batches, name)

  run = make_run()
  with pytest.raises(errors.DivergedError, match=r"at most 2 .*, got 3 .*that of step 8"):
    run(batches=Poisoned(run.toy.Batches()), max_skipped=2, log_every=1)
  assert run.steps_on_disk() == [4, 8]
  lines = run.lines()
  assert [line["skipped"] for line in lines] == [0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 3]
  assert lines[1]["loss"] is None
  # The skipped second step made no update, so the third still has the second rate.
  assert lines[2]["learning_rate"] == pytest.approx(float(SCHEDULE(1)))


def test_epochs_are_printed_where_there_is_no_terminal(make_run, capsys):
  make_run()(evaluate=lambda state: {"top1": 0.5})
  out, err = capsys.readouterr()
  assert out.count("epoch") == 6
  assert "epoch 3: eval/top1 0.5" in out
  assert all(re.search(r", \d+\.\d s$", line) for line in out.splitlines())
  assert err == ""


def test_without_a_terminal_the_loss_is_said_now_and_then(make_run, monkeypatch, capsys):
  run = make_run()
  monkeypatch.setattr(progress, "SECONDS", 0.0)
  run()
  _, *lines = capsys.readouterr().err.splitlines()
  assert len(lines) == STEPS - 1
  assert all(re.match(r"training: \d+ of 12 steps, loss \d\S*, 0 min", line) for line in lines)
