"""Runs that are killed or stopped: real processes, started again with the same command."""

import shutil
import signal
import time

import numpy as np
import pytest

from benchmarks import soak

EPOCHS = 14


@pytest.fixture(scope="module")
def make_run(tmp_path_factory):
  folder = tmp_path_factory.mktemp("soak")
  data = soak.make_data(folder)
  return lambda name: soak.Run(folder / name, data, epochs=EPOCHS)


@pytest.fixture(scope="module")
def whole(make_run):
  run = make_run("whole")
  assert run.start().wait() == 0, run.log()
  return run.outcome()


def wait_for(condition, process):
  while not condition():
    assert process.poll() is None
    time.sleep(0.001)


def test_run_that_is_stopped_and_killed_ends_as_if_it_had_not_been(make_run, whole):
  run = make_run("stopped")
  process = run.start()
  wait_for(lambda: "learning rate" in run.log(), process)  # the step is compiled next
  process.send_signal(signal.SIGINT)
  assert process.wait(30) == 130
  assert "error: SIGINT: step 1 is saved" in run.log()

  process = run.start()
  wait_for(lambda: list(run.directory.glob("checkpoints/4*")), process)  # and evaluated next
  process.send_signal(signal.SIGTERM)
  assert process.wait(30) == 75
  assert "error: SIGTERM: step 4 is saved" in run.log()

  hits = soak.kill(run, 2, np.random.default_rng(0))
  assert 2 * sum(hits) >= len(hits) >= 2
  assert run.start().wait() == 0, run.log()
  assert run.outcome() == whole


def test_set_whose_preparation_is_killed_is_as_if_it_had_not_been(tmp_path):
  command = soak.Preparation(tmp_path, soak.make_recordings(tmp_path, 12))
  said, different = soak.soak(command, 2, np.random.default_rng(0))
  assert said.startswith("2 kills")
  assert different == []


def test_scores_of_an_evaluation_that_is_killed_are_as_if_it_had_not_been(run, tmp_path):
  evaluated = shutil.ignore_patterns("train", "test")  # by other tests
  shutil.copytree(run, tmp_path / "run", ignore=evaluated)
  said, different = soak.soak(soak.Evaluation(tmp_path / "run"), 2, np.random.default_rng(0))
  assert said.startswith("2 kills")
  assert different == []
