"""A model on two inputs, which only this file knows: it trains, goes on, is evaluated, predicts."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import export

from experiments import evaluate, launch, trainer
from jaxmg import gaussians, inputs, models, predict, recipe, scores
from jaxmg.data import batch as batches
from jaxmg.data import readers, source
from jaxmg.skeletons import topology
from jaxmg.training import checkpoints, losses, optimizers, sharding, step


class Both(nn.Module):
  """Heatmaps and a graph of the same clip, averaged and put together."""

  num_classes: int
  width: int = 4
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, *, train=False, rows=None):
    del train, rows
    maps = gaussians.drawn(x["drawn"]).mean((1, 2, 3))
    nodes = x["joints"].mean((1, 2)).reshape(len(maps), -1)
    features = nn.relu(nn.Dense(self.width)(jnp.concatenate([maps, nodes], -1)))
    return nn.Dense(self.num_classes, name="head")(features), {"features": features}


def describe(config, data):
  fields = trainer.pose_fields(config, data)
  drawn = trainer.make_input(config, inputs.Heatmaps, fields | {"size": 16, "test_size": 16})
  joints = trainer.make_input(config, inputs.Graph, fields | {"stream": "bone"})
  model = {"name": "both", "num_classes": len(data.class_names)}
  return model, {"drawn": drawn, "joints": joints}


run = functools.partial(trainer.run, describe=describe)


@pytest.fixture(autouse=True, scope="module")
def both():
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(models.MODELS, "both", Both)
    yield


@pytest.fixture(scope="module")
def trained(both, training, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("both") / "run"
  assert launch.main(run, training(workdir, "schedule.epochs=3")) == 0
  return workdir


def variables(workdir):
  return checkpoints.restore_variables(workdir / "checkpoints", "latest")


def test_it_goes_on_exactly(trained, training, tmp_path):
  for epochs in (1, 3):
    assert launch.main(run, training(tmp_path / "run", f"schedule.epochs={epochs}")) == 0
  parts = variables(trained), variables(tmp_path / "run")
  jax.tree.map(np.testing.assert_array_equal, *parts)
  assert parts[0]["params"]["Dense_0"]["kernel"].shape == (17 + 17 * 3, 4)


def test_a_file_is_predicted_as_in_evaluation(trained, nods):
  assert launch.command(evaluate.run, evaluate.define, [f"--run={trained}"]) == 0
  found = scores.load(trained / "test" / "scores.npz")
  assert (trained / "test" / "views.png").stat().st_size > 5000
  predictor = predict.Predictor(trained)
  data = source.Source(nods / "nods")
  for row in data.rows("test").tolist():
    clip = readers.Clip(data.track("pose")[row]["keypoints"], "openpose25")
    expected = found.probabilities[found.ids.index(data.ids[row])]
    np.testing.assert_allclose(predictor(clip), expected, rtol=0, atol=1e-6)
  with pytest.raises(predict.errors.DataError, match="the clip: expected a pose, got video"):
    predictor({"video": {}})


def test_both_are_mirrored_together():
  skeleton = topology.get("coco17")
  options = {"num_frames": 4, "sampling": "uniform"}
  found = recipe.Recipe(
    model={"name": "both", "num_classes": 2},
    inputs={
      "drawn": inputs.Heatmaps(skeleton, (72, 128), size=16, crop_area=(1.0, 1.0), **options),
      "joints": inputs.Graph(skeleton, (72, 128), **options),
    },
    class_names=("nod", "shake"),
    mirror=True,
  )
  pose = jax.tree.map(jnp.asarray, batches.fake(batch_size=16)["pose"])
  keys = jax.random.split(jax.random.key(0), 16)
  batch = {"drawn": pose, "joints": pose}

  @jax.jit
  def plainly(keys, pose):
    return {name: one.train(keys, pose, False) for name, one in found.inputs.items()}

  (mirrored, _), plain = jax.jit(found.train_inputs)(keys, batch), plainly(keys, pose)
  for given in (mirrored, plain):
    given["drawn"] = gaussians.drawn(given["drawn"])
  turned = {
    name: [
      not np.allclose(a, b, atol=1e-5) for a, b in zip(mirrored[name], plain[name], strict=True)
    ]
    for name in plain
  }
  assert turned["drawn"] == turned["joints"]
  assert 0 < sum(turned["drawn"]) < 16


def test_its_step_lowers_for_every_platform(trained):
  found = recipe.load(trained)
  model = found.build_model()
  optimizer = optimizers.optimizer("sgd", lambda count: 0.1)
  train_step = step.make_train_step(model, found.train_inputs, losses.classification(), optimizer)
  init = functools.partial(step.init_train_state, model, optimizer)
  state = jax.eval_shape(init, jax.random.key(0), found.example())
  leaves, structure = jax.tree.flatten(state)

  def on_leaves(leaves, batch, key):  # the state's own types have no serial form
    state, metrics = train_step(jax.tree.unflatten(structure, leaves), batch, key)
    return jax.tree.leaves(state), metrics

  parts = {name: one.example() for name, one in found.inputs.items()}
  row = jax.ShapeDtypeStruct((1,), jnp.int32)
  batch = parts | {"label": row, "clip": row, "mask": jax.ShapeDtypeStruct((1,), bool)}
  compiled = step.compile_train_step(on_leaves, sharding.data_mesh(jax.devices()[:1]))
  key = jax.eval_shape(jax.random.key, 0)
  exported = export.export(compiled, platforms=("cpu", "cuda", "tpu"))(leaves, batch, key)
  assert exported.platforms == ("cpu", "cuda", "tpu")
