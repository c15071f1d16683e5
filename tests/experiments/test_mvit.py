"""MViTv2 on videos, through the commands that a user types."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from experiments import evaluate, launch, mvit, settings, trainer
from jaxmg import errors, recipe, scores
from jaxmg.data import source, tracks
from jaxmg.training import checkpoints

SETTINGS = [
  # A rate that is constant, so that a run can be cut in two; all that is random is small.
  *("schedule.name=step", "schedule.warmup_epochs=0.0", "optimizer.learning_rate=0.03"),
  *("model.dropout=0.0", "augment.erase=0.0", "augment.crop_area=(0.9,1.0)"),
]


@pytest.fixture(scope="module")
def train(video_training):
  return lambda workdir, *more: launch.main(mvit.run, video_training(workdir, *SETTINGS, *more))


@pytest.fixture(scope="module")
def run(train, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("mvit") / "run"
  assert train(workdir) == 0
  return workdir


def variables(workdir):
  return checkpoints.restore_variables(workdir / "checkpoints", "latest")


def test_it_learns_its_training_clips_to_the_last(run):
  argv = [f"--run={run}", "--split=train", "--step=latest"]
  assert launch.command(evaluate.run, evaluate.define, argv) == 0
  found = scores.load(run / "train" / "scores.npz")
  assert sorted(found.ids) == sorted(f"clip{i}" for i in range(18))
  assert json.loads((run / "train" / "metrics.json").read_text())["top1"] == 1.0
  assert {"confusion.png", "views.png"} <= {path.name for path in (run / "train").iterdir()}
  assert not recipe.load(run).mirror  # the set forbids it, the config does not


def test_a_run_that_is_cut_in_two_ends_in_the_same_bits(run, train, tmp_path):
  assert train(tmp_path / "parts", "schedule.epochs=3") == 0
  assert train(tmp_path / "parts") == 0
  jax.tree.map(np.testing.assert_array_equal, variables(tmp_path / "parts"), variables(run))


def test_what_is_trained_may_be_named(run, train, tmp_path, capsys):
  named = "train.trainable=('head/.*','norm/.*')"
  assert train(tmp_path / "run", named, "schedule.epochs=1") == 2
  assert "--config.init_from: expected a run directory, got None (whose" in capsys.readouterr().err
  more = (f"init_from={run}", "schedule.epochs=1", "train.mixup=0.8", "train.cutmix=1.0")
  assert train(tmp_path / "run", named, *more, "optimizer.layer_decay=0.5") == 0
  before, after = variables(run)["params"], variables(tmp_path / "run")["params"]
  moved = {name for name, x in before.items() if differs(x, after[name])}
  assert moved == {"head", "norm"}
  assert train(tmp_path / "other", named, f"init_from={run}", "inputs.mean=0.5") == 4
  assert "video.mean: expected 0.5, got 0.45" in capsys.readouterr().err


def differs(a, b):
  return any((x != y).any() for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


def test_frames_without_times_are_sampled_over_the_clip(spots, capsys):
  config = settings.read_config("mvit:spots,frames", [])
  data = source.Source(spots / "spots")
  (one,) = mvit.describe(config, data)[1].values()
  assert (one.sampling, one.frame_size, one.channels) == ("seconds", (20, 24), 3)

  class Untimed:
    name, class_names = "depth", ("a", "b")

    def track(self, name):
      return type("Track", (), {"kind": tracks.Video((112, 112), channels=1, timed=False)})

  (one,) = mvit.describe(config, Untimed())[1].values()
  assert (one.sampling, one.channels, str(one)) == (
    "uniform",
    1,
    "16 frames over a clip, 224 x 224",
  )


def test_clips_are_mixed_for_a_model_that_sees_a_video_alone(spots, nods):
  data = source.Source(spots / "spots")
  config = settings.read_config("mvit:spots,frames", [])
  found = trainer.make_recipe(config, data, mvit.describe, None)
  assert trainer.make_preprocess(config, found) != found.train_inputs
  two = dataclasses.replace(found, inputs=found.inputs | {"again": found.inputs["video"]})
  with pytest.raises(errors.ConfigError, match=r"mixup and cutmix: expected 0, got 0\.8 and"):
    trainer.make_preprocess(config, two)
  with config.unlocked():
    config.train.update(mixup=0.0, cutmix=0.0)
  assert trainer.make_preprocess(config, two) == two.train_inputs
