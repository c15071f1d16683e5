"""Training, going on, evaluation and prediction, through the commands that a user types."""

import json
import pathlib

import numpy as np
import pytest

from experiments import evaluate, launch, posec3d, predict
from jaxmg import scores
from jaxmg.data import prepared, readers

CONFIGS = pathlib.Path(__file__).parents[2] / "experiments" / "configs"


class Nods(prepared.Builder):
  """Subjects who nod or shake their heads."""

  skeleton = "openpose25"
  class_names = ("nod", "shake")
  frame_size = (72, 128)
  protocols = {"xsub": prepared.by_subject(train=("a", "b", "c"))}  # noqa: RUF012
  synthetic = True

  def clips(self):
    rng = np.random.default_rng(0)
    for i in range(24):
      body = rng.uniform((20, 10), (60, 60), (25, 2))
      keypoints = np.ones((12, 1, 25, 3), np.float32)
      keypoints[..., :2] = body
      swing = 6 * np.sin(np.arange(12) + rng.uniform(0, 6))
      keypoints[:, 0, [0, 15, 16, 17, 18], 1 - i % 2] += swing[:, None]
      clip = readers.Clip(keypoints, "openpose25")
      yield prepared.Example(f"clip{i}", i % 2, "abcd"[i // 6], clip)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
  folder = tmp_path_factory.mktemp("nods")
  prepared.write(Nods, raw=folder, data_dir=folder / "data")
  return folder / "data"


def train(data, workdir, *extra):
  settings = {
    "data.name": "nods",
    "data.dir": data,
    "skeleton": "coco17",
    "sampling.num_frames": 8,
    "sampling.test_size": 16,
    "inputs.size": 16,
    "model.variant": "tiny",
    "train.batch_size": 8,
    "schedule.epochs": 2,
  } | dict(setting.split("=") for setting in extra)
  arguments = [f"--config={CONFIGS}/posec3d.py:imigue,joint,small", f"--workdir={workdir}"]
  arguments += [f"--config.{key}={value}" for key, value in settings.items()]
  return launch.main(posec3d.run, arguments)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("runs") / "nods"
  assert train(data, workdir) == 0
  return workdir


def test_run_directory_holds_what_a_run_leaves(run):
  names = {path.name for path in run.iterdir()}
  assert {"config.json", "recipe.json", "metrics.jsonl", "checkpoints"} <= names
  assert any(name.startswith("events.out.tfevents") for name in names)
  lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
  assert lines[-1]["step"] == 4
  assert np.isfinite(lines[-1]["loss"])


def test_evaluation_writes_scores_of_every_clip_and_pictures(run, capsys, monkeypatch):
  monkeypatch.chdir(run.parent)  # a relative path, as users type it
  assert launch.command(evaluate.run, evaluate.define, [f"--run={run.name}"]) == 0
  found = scores.load(run / "test" / "scores.npz")
  assert sorted(found.ids) == sorted(f"clip{i}" for i in range(18, 24))
  np.testing.assert_allclose(found.probabilities.sum(1), 1, atol=1e-5)
  summary = json.loads((run / "test" / "metrics.json").read_text())
  assert summary["num_clips"] == 6
  assert {"confusion.png", "views.png"} <= {path.name for path in (run / "test").iterdir()}
  assert "SYNTHETIC" in capsys.readouterr().out


def test_prediction_of_a_file_is_the_evaluation_of_its_clip(run, data, tmp_path, capsys):
  from jaxmg.data.source import Source

  source = Source(data / "nods")
  row = source.ids.index("clip20")
  np.save(tmp_path / "clip.npy", source[row]["keypoints"])
  arguments = [f"--run={run}", f"--input={tmp_path / 'clip.npy'}", "--layout=openpose25"]
  assert launch.command(predict.run, predict.define, arguments) == 0
  printed = capsys.readouterr().out.splitlines()[1:]
  assert launch.command(evaluate.run, evaluate.define, [f"--run={run}"]) == 0
  found = scores.load(run / "test" / "scores.npz")
  probabilities = found.probabilities[found.ids.index("clip20")]
  order = np.argsort(-probabilities)
  assert printed == [f"  {probabilities[k]:6.1%}  {found.class_names[k]}" for k in order]


def test_the_same_command_goes_on_and_another_config_is_refused(run, data, capsys):
  before = (run / "metrics.jsonl").read_text()
  assert train(data, run) == 0
  assert (run / "metrics.jsonl").read_text() == before
  assert train(data, run, "schedule.epochs=3") == 0
  assert json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 6
  assert train(data, run, "optimizer.momentum=0.5") == 2
  assert "optimizer.momentum 0.9 -> 0.5" in capsys.readouterr().err


def test_data_that_changed_meanwhile_is_refused(run, data, capsys):
  (index,) = data.glob("*/*/index.json")
  saved = index.read_text()
  changed = json.loads(saved)
  changed["clips"]["label"][3] ^= 1
  index.write_text(json.dumps(changed))
  try:
    assert train(data, run) == 3
  finally:
    index.write_text(saved)
  assert "does not fit this model, optimizer and data: data: expected" in capsys.readouterr().err


def test_a_fold_validates_on_held_out_training_subjects(data, tmp_path):
  assert train(data, tmp_path / "fold", "data.fold=0/3", "inputs.kind=limb") == 0
  lines = (tmp_path / "fold" / "metrics.jsonl").read_text().splitlines()
  assert [json.loads(line)["eval/num_clips"] for line in lines if "eval/top1" in line] == [6]


@pytest.mark.parametrize(
  ("setting", "message"),
  [
    ("model.variant=huge", "--config.model.variant: expected slowonly-r50 or small or tiny"),
    ("data.fold=1-4", '--config.data.fold: expected like "0/4", got 1-4'),
    ("data.protocol=xview", "expected 'xsub', got 'xview'"),
    ("skeleton=kinect20", "skeleton"),
    ("train.batch_size=64", "expected at least one batch of 64, got 18"),
    ("optimizer.name=sdg", "optimizer: expected sgd or adamw, got sdg"),
  ],
)
def test_a_wrong_setting_is_one_line(data, tmp_path, capsys, setting, message):
  code = train(data, tmp_path / "run", setting)
  error = capsys.readouterr().err.strip()
  assert code in (2, 3)
  assert message in error
  assert error.startswith("jaxmg: error: ")
  assert "\n" not in error


@pytest.mark.parametrize("config", sorted(CONFIGS.glob("*.py")), ids=lambda path: path.stem)
def test_every_shipped_config_is_complete_and_in_range(config):
  import runpy

  module = runpy.run_path(str(config))
  for name in module["DATASETS"]:
    for stream in ("joint", "limb"):
      for size in ("", ",small"):
        launch.check(module["get_config"](f"{name},{stream}{size}"))
