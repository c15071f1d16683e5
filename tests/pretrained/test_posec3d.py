import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmg import errors, models
from jaxmg.pretrained import convert, posec3d, torch_files
from jaxmg.skeletons import heatmaps

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def _model(num_classes=60, num_joints=17):
  model = models.MODELS["posec3d"](num_classes, variant="slowonly-r50")
  return model, jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 4, 16, 16, num_joints)))


def test_key_points_through_the_published_network_give_its_logits_and_intermediates(
  torch_file, monkeypatch
):
  taps = json.loads((GOLDEN / "posec3d_slowonly_r50.json").read_text())["taps"]
  arrays = np.load(GOLDEN / "posec3d_slowonly_r50.npz")
  monkeypatch.setitem(sys.modules, "torch", None)  # cannot be imported
  state_dict = torch_files.read(torch_file("posec3d_slowonly_r50", "zip"))
  model, abstract = _model()
  variables = convert.convert(state_dict, abstract, posec3d.RULES, ignore=posec3d.IGNORE)
  points = np.concatenate([arrays["keypoint"], arrays["score"][..., None]], -1)  # M T V 3

  @jax.jit
  def predict(variables, points):
    volume = heatmaps.render_joints(points, size=(56, 56), sigma=0.6)
    logits, out = model.apply(variables, volume[None])
    return logits, {name: out[name] for name in ("stem", "stage1", "stage2", "stage3")}

  points = jnp.asarray(points.swapaxes(0, 1))
  with jax.default_matmul_precision("highest"):
    logits, out = predict(variables, points)
    folded_logits, _ = predict(models.posec3d.fold_batch_norm(variables), points)
  scale = np.abs(arrays["logits"]).max()
  np.testing.assert_allclose(logits, arrays["logits"], rtol=0, atol=1e-5 * scale)
  np.testing.assert_allclose(folded_logits, logits, rtol=0, atol=1e-5 * scale)
  for name, tap in (
    ("stem", "backbone.conv1"),  # after its BN and ReLU, before the max-pool
    ("stage1", "backbone.layer1"),
    ("stage2", "backbone.layer2"),
    ("stage3", "backbone.layer3"),
  ):
    got, expected = np.moveaxis(out[name], -1, 1), taps[tap]  # B C T H W, as PyTorch flattens it
    assert list(got.shape) == expected["shape"]
    np.testing.assert_allclose(got.mean(), expected["mean"], rtol=1e-4)
    np.testing.assert_allclose(got.std(), expected["std"], rtol=1e-4)
    np.testing.assert_allclose(got.ravel()[:8], expected["first"], rtol=0, atol=1e-4)


@pytest.mark.parametrize(
  ("other", "problem"),
  [
    (dict(num_classes=32), r"cls_head.fc_cls.weight: params/head/kernel: expected \(512, 32\)"),
    (dict(num_joints=22), r"backbone.conv1.conv.weight: .* expected \(1, 7, 7, 22, 32\)"),
  ],
)
def test_weights_of_other_classes_or_joints_are_refused_by_name(other, problem, seeded_state_dict):
  state_dict = seeded_state_dict("posec3d_slowonly_r50")
  _, abstract = _model(**other)
  with pytest.raises(errors.CheckpointError, match=problem):
    convert.convert(state_dict, abstract, posec3d.RULES, ignore=posec3d.IGNORE)
