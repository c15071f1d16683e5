"""SwinFace on faces, through the commands that a user types."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import evaluate, extract_tokens, launch, settings, swinface, trainer
from jaxmg import errors, models, recipe
from jaxmg.data import source
from jaxmg.training import checkpoints

# One stage without a shifted window compiles sooner than "tiny".
ONE_STAGE = dict(width=8, depths=(1,), heads=(1,), token_width=8, stochastic_depth=0.1)


@pytest.fixture(scope="module")
def train(looks):
  def command(workdir, *more):
    values = {
      "data.dir": looks,
      "sampling.num_frames": 2,
      "sampling.seconds": 0.4,
      "inputs.size": 14,
      "model.variant": "one_stage",
      "model.dropout": 0.0,
      "optimizer.learning_rate": 0.05,
      "train.batch_size": 6,
      "schedule.epochs": 6,
      "schedule.warmup_epochs": 0.0,
    } | dict(setting.split("=", 1) for setting in more)
    overrides = (f"--config.{name}={value}" for name, value in values.items())
    config = "--config=swinface:looks,faces,small"
    return launch.main(swinface.run, [config, f"--workdir={workdir}", *overrides])

  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(models.swinface.VARIANTS, "one_stage", ONE_STAGE)
    yield command


@pytest.fixture(scope="module")
def run(train, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("swinface") / "run"
  assert train(workdir) == 0
  return workdir


def test_it_learns_and_tells_the_faces_of_another_person(run):
  argv = [f"--run={run}", "--split=test", "--step=latest"]
  assert launch.command(evaluate.run, evaluate.define, argv) == 0
  assert json.loads((run / "test" / "metrics.json").read_text())["top1"] == 1.0
  assert {"confusion.png", "views.png"} <= {path.name for path in (run / "test").iterdir()}
  assert recipe.load(run).mirror


def test_its_tokens_are_one_for_each_face(run, looks, tmp_path):
  data = shutil.copytree(looks, tmp_path / "data") / "looks"
  argv = [f"--run={run}", f"--data={data}", "--views=1"]
  assert launch.command(extract_tokens.run, extract_tokens.define, argv) == 0
  track = source.Source(data).track("tokens-run")
  assert (track.kind.num_tokens, track.kind.width) == (2, 8)
  found = recipe.load(run)
  assert set(track.num_frames) == {found.num_views + 1}
  view = track[3]["views"][0]
  np.testing.assert_allclose(view["times"], [0.25, 0.75])
  one = found.inputs["faces"]
  part = one.read_test(source.Source(data).track("faces")[3], found.num_clips)
  views = one.views({"frames": jnp.asarray(part["frames"])[None]}, True)
  variables = checkpoints.restore_variables(run / "checkpoints")
  first = one.view({name: x[0] for name, x in views.items()})
  _, out = jax.jit(found.build_model().apply)(variables, first)
  np.testing.assert_allclose(view["tokens"], out["tokens"][0], rtol=0.01, atol=0.01)


def test_it_begins_with_the_weights_of_a_run(run, train, tmp_path, capsys):
  more = (f"init_from={run}", "schedule.epochs=1", "train.trainable=('head/.*',)")
  assert train(tmp_path / "run", *more) == 0
  before, after = (
    checkpoints.restore_variables(x / "checkpoints", "latest")["params"]
    for x in (run, tmp_path / "run")
  )
  differs = jax.tree.map(lambda a, b: bool((a != b).any()), before, after)
  assert {name for name, x in differs.items() if any(jax.tree.leaves(x))} == {"head"}
  assert train(tmp_path / "no", *more, "inputs.mean=0.4") == 4
  assert "faces.mean: expected 0.4, got 0.5" in capsys.readouterr().err


def test_faces_that_are_too_small_are_refused(looks):
  config = settings.read_config("swinface:looks,faces,small", [])
  with pytest.raises(errors.ConfigError, match=r"^--config.inputs.size: expected at most 28, got"):
    trainer.make_recipe(config, source.Source(looks / "looks"), swinface.describe, None)
