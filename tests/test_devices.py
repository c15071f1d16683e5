"""One, two or eight devices, one or two processes: the same training, and every clip once."""

import functools
import json
import os
import pathlib
import re
import signal
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest

from experiments import evaluate, launch, posec3d
from jaxmg import recipe, scores
from jaxmg.data import pipeline, source
from jaxmg.training import checkpoints, metrics, sharding, step
from jaxmg.training import evaluate as evaluation

ROOT = pathlib.Path(__file__).parents[1]
STEPS, EPOCHS, TEST_CLIPS = 30, 5, 17
# All that is random is on. The rate is constant, so that a run can be cut in two; a step of Adam is
# as long for a gradient that is nothing but rounding.
SETTINGS = [
  "model.dropout=0.5",
  "augment.rotation=10.0",
  "augment.jitter=1.0",
  "augment.joint_dropout=0.1",
  "optimizer.name=sgd",
  "optimizer.learning_rate=0.02",
  "optimizer.reference_batch=8",
  "train.log_every=1",
]


@pytest.fixture(scope="module")
def data(make_nods):
  return make_nods(16 * "a" + 16 * "b" + 16 * "c" + TEST_CLIPS * "d")


@pytest.fixture(scope="module")
def arguments(training, data):
  return lambda workdir, epochs=EPOCHS: training(
    workdir, *SETTINGS, f"schedule.epochs={epochs}", data=data
  )


def mesh(count):
  return sharding.data_mesh(jax.devices()[:count])


@pytest.fixture(scope="module")
def train(arguments):
  """Trains by the command, on the first `count` devices."""

  def train(workdir, count, epochs=EPOCHS):
    devices = mesh(count)
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(sharding, "data_mesh", lambda: devices)
      assert launch.main(posec3d.run, arguments(workdir, epochs)) == 0
    return workdir

  return train


@pytest.fixture(scope="module")
def runs(train, tmp_path_factory):
  """The work directories of the same training on 1, 2 and 8 devices."""
  folder = tmp_path_factory.mktemp("devices")
  return {count: train(folder / str(count), count) for count in (1, 2, 8)}


def variables(workdir):
  return checkpoints.restore_variables(workdir / "checkpoints", "latest")


def losses(workdir):
  lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
  return np.array([line["loss"] for line in lines if "loss" in line])


def assert_same_training(a, b, *, tolerance):
  assert losses(a).shape == losses(b).shape == (STEPS,)
  np.testing.assert_allclose(losses(a), losses(b), rtol=0, atol=tolerance)
  same = functools.partial(np.testing.assert_allclose, rtol=0, atol=tolerance)
  jax.tree.map(same, variables(a), variables(b))


@pytest.mark.parametrize("count", [2, 8])
def test_thirty_steps_are_those_of_one_device(runs, count):
  assert np.ptp(losses(runs[1])) > 0.05
  assert_same_training(runs[1], runs[count], tolerance=1e-5)


def test_a_checkpoint_moves_between_devices(runs, train, tmp_path):
  for count, epochs in ((1, 2), (8, 4), (1, EPOCHS)):
    train(tmp_path / "run", count, epochs)
  assert_same_training(runs[1], tmp_path / "run", tolerance=1e-5)


@pytest.fixture(scope="module")
def evaluate_on(runs, data):
  """Evaluates the run on `rows` of the data set, on the first `count` devices."""
  found = recipe.load(runs[1])
  predict_step = found.predict_step(found.build_model())
  compiled = {count: step.compile_predict_step(predict_step, mesh(count)) for count in (1, 2, 8)}
  prepared, weights = source.Source(data / "nods"), variables(runs[1])

  def run(count, rows):
    batches = pipeline.test_batches(
      prepared, rows, found.inputs, num_clips=found.num_clips, batch_size=8
    )
    return evaluation.evaluate(compiled[count], weights, batches, mesh=mesh(count))

  return run


@pytest.mark.parametrize("count", [1, 2, 8])
def test_every_clip_counts_once_in_test_sets_of_1_to_17_clips(evaluate_on, data, count):
  prepared = source.Source(data / "nods")
  test = prepared.rows("test")
  _, whole, _ = evaluate_on(1, test)
  for number in range(1, TEST_CLIPS + 1):
    rows, probabilities, labels = evaluate_on(count, test[:number])
    np.testing.assert_array_equal(rows, test[:number])
    np.testing.assert_array_equal(labels, prepared.labels[rows])
    np.testing.assert_allclose(probabilities, whole[:number], rtol=0, atol=1e-6)
    assert metrics.summary(probabilities, labels, 2) == metrics.summary(whole[:number], labels, 2)


def start_two(argv):
  """Starts a command as two processes of one run."""
  with socket.socket() as free:
    free.bind(("localhost", 0))
    address = f"localhost:{free.getsockname()[1]}"
  processes = []
  for index in range(2):
    slurm = {"JOB_ID": "1", "STEP_NODELIST": "localhost", "NTASKS": "2"}
    slurm |= {"PROCID": str(index), "LOCALID": str(index)}
    environment = os.environ | {f"SLURM_{name}": value for name, value in slurm.items()}
    environment |= {"JAX_PLATFORMS": "cpu", "JAX_COORDINATOR_ADDRESS": address}
    pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    processes.append(subprocess.Popen(argv, cwd=ROOT, env=environment, **pipes))
  return processes


def test_two_processes_stop_train_and_evaluate_as_one(runs, arguments, tmp_path):
  workdir = tmp_path / "run"
  code = """
import json, sys
from experiments import evaluate, launch, posec3d
train, score = json.loads(sys.argv[1])
if code := launch.main(posec3d.run, train):
  sys.exit(code)
keep = evaluate.Kept.save
def keep_one(self, parts):
  self.SECONDS = 0.0
  keep(self, parts)
  raise KeyboardInterrupt
evaluate.Kept.save = keep_one
assert launch.command(evaluate.run, evaluate.define, score) == 130
evaluate.Kept.save = keep
sys.exit(launch.command(evaluate.run, evaluate.define, score))
"""
  # The second command finds what the first one has started, the third what the second has kept.
  commands = [["--distributed", *arguments(workdir)], [f"--run={workdir}", "--step=latest"]]
  argv = [sys.executable, "-c", code, json.dumps(commands)]
  first, second = processes = start_two(argv)
  for line in first.stdout:
    if "learning rate" in line:  # the step is compiled next
      break
  second.send_signal(signal.SIGTERM)
  printed = [process.communicate(timeout=120)[0] for process in processes]
  assert [process.returncode for process in processes] == [75, 75], "\n".join(printed)
  last = [output.splitlines()[-1] for output in printed]
  assert last[0] == last[1]
  assert re.fullmatch(r"jaxmg: error: SIGTERM: step \d+ is saved; .*", last[0])

  processes = start_two(argv)
  printed = [process.communicate(timeout=300)[0] for process in processes]
  assert [process.returncode for process in processes] == [0, 0], "\n".join(printed)
  assert "goes on where it was stopped: 1 batches" in printed[0]

  assert_same_training(runs[1], workdir, tolerance=1e-4)
  assert launch.command(evaluate.run, evaluate.define, [f"--run={runs[1]}", "--step=latest"]) == 0
  one, two = (scores.load(run / "test" / "scores.npz") for run in (runs[1], workdir))
  assert one.ids == two.ids
  np.testing.assert_array_equal(one.labels, two.labels)
  np.testing.assert_allclose(one.probabilities, two.probabilities, rtol=0, atol=1e-4)
  one, two = (json.loads((run / "test" / "metrics.json").read_text()) for run in (runs[1], workdir))
  for name in ("top1", "mean_class", "macro_f1", "num_clips"):
    assert one[name] == two[name]
