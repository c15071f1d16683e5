"""Training, going on, evaluation and prediction, through the commands that a user types."""

import json
import shutil

import numpy as np
import pytest

from experiments import evaluate, launch, posec3d, predict
from jaxmg import recipe, scores
from jaxmg.data import readers, source, tracks

TURNED = ("augment.turn=20", "augment.tilt=10", "augment.bone_scale=(0.9,1.1)")


@pytest.fixture
def train(training):
  return lambda *arguments: launch.main(posec3d.run, training(*arguments))


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
  assert (found.split, found.run) == ("test", run.name)
  summary = json.loads((run / "test" / "metrics.json").read_text())
  assert summary["num_clips"] == 6
  low, high = summary["interval"]["mean_class"]
  assert 0 <= low <= summary["mean_class"] <= high <= 1
  assert {"confusion.png", "views.png"} <= {path.name for path in (run / "test").iterdir()}
  assert "SYNTHETIC" in capsys.readouterr().out


def test_prediction_of_a_file_is_the_evaluation_of_its_clip(run, nods, tmp_path, capsys):
  data = source.Source(nods / "nods")
  np.save(tmp_path / "clip.npy", data.track("pose")[20]["keypoints"])
  arguments = [f"--run={run}", f"--input={tmp_path / 'clip.npy'}", "--layout=openpose25"]
  assert launch.command(predict.run, predict.define, arguments) == 0
  out = capsys.readouterr().out.splitlines()
  guess = "read as 12 frames of 1 person, 25 joints (openpose25), pixels, axes TMVC assumed"
  assert f"clip.npy: {guess}, 72 x 128 assumed" in out
  printed = [line for line in out if line.startswith("  ")]
  assert launch.command(evaluate.run, evaluate.define, [f"--run={run}"]) == 0
  found = scores.load(run / "test" / "scores.npz")
  probabilities = found.probabilities[found.ids.index("clip20")]
  order = np.argsort(-probabilities)
  assert printed == [f"  {probabilities[k]:6.1%}  {found.class_names[k]}" for k in order]


def test_the_same_command_goes_on_and_another_config_is_refused(run, train, tmp_path, capsys):
  workdir = shutil.copytree(run, tmp_path / "run")
  before = (workdir / "metrics.jsonl").read_text()
  assert train(workdir) == 0
  assert (workdir / "metrics.jsonl").read_text() == before
  assert train(workdir, "schedule.epochs=3") == 0
  assert json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])["step"] == 6
  assert train(workdir, "optimizer.weight_decay=0.5") == 2
  assert "optimizer.weight_decay 0.05 -> 0.5" in capsys.readouterr().err


@pytest.fixture(scope="module")
def turned_limbs(training, waves, tmp_path_factory):
  """A run with limbs of turned 3-D joints; the clips of one of two subjects are held out."""
  workdir = tmp_path_factory.mktemp("turned") / "run"
  settings = ["data.name=utd_mhad", f"data.dir={waves}", "skeleton=kinect20"]
  settings += ["data.fold=0/2", "train.batch_size=4", "inputs.stream=limb", *TURNED]
  assert launch.main(posec3d.run, training(workdir, *settings)) == 0
  return workdir


def test_a_fold_validates_on_held_out_training_subjects(turned_limbs):
  lines = map(json.loads, (turned_limbs / "metrics.jsonl").read_text().splitlines())
  assert [line["eval/num_clips"] for line in lines if "eval/top1" in line] == [4]  # of 8, and 8


def test_bodies_are_turned_in_space_where_the_data_have_it(
  turned_limbs, train, waves, tmp_path, capsys
):
  assert train(tmp_path / "flat", *TURNED) == 2
  message = "--config.augment.turn and tilt: expected 0, got 20 and 10 (nods has no 3-D joints of"
  assert message in capsys.readouterr().err
  one = recipe.load(turned_limbs).inputs["pose"]
  assert (one.train_points, one.points) == ("joints3d", "keypoints")
  arguments = [f"--run={turned_limbs}", f"--input={waves / 'a3_s2_t1_skeleton.mat'}"]
  assert launch.command(predict.run, predict.define, arguments) == 0


def test_bodies_are_turned_only_if_the_key_points_show_them():
  joints3d = np.random.default_rng(0).uniform((-1, -1, 2), (1, 1, 3), (4, 1, 20, 3))
  joints3d = joints3d.astype(np.float32)
  seen = {"joints3d": joints3d, "keypoints": readers.depth_view(joints3d)}
  unseen = {name: np.zeros_like(pose) for name, pose in seen.items()}
  mirrored = seen | {"joints3d": joints3d * np.float32([-1, 1, 1])}
  centred = seen | {"keypoints": unseen["keypoints"]}

  class Clips(list):
    kind = tracks.Pose("kinect20", (240, 320), joints3d=True)

    @property
    def rows(self):
      return np.arange(len(self))

  assert posec3d.shows_its_joints3d(Clips([unseen, seen]))
  for clip in (unseen, mirrored, centred):
    assert not posec3d.shows_its_joints3d(Clips([clip]))
