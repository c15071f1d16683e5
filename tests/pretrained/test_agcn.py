import functools
import importlib.util
import json
import pathlib
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmg import errors, models, skeletons
from jaxmg.pretrained import agcn, convert, torch_files

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
SKELETONS = {"agcn_ntu25": "kinect25", "agcn_openpose18": "openpose18"}
BLOCKS = (1, 4, 5, 8, 10)


@functools.cache
def _golden(name):
  spec = importlib.util.spec_from_file_location("seeded", GOLDEN / "seeded.py")
  seeded = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(seeded)
  golden = json.loads((GOLDEN / f"{name}.json").read_text())
  shapes = golden["state_dict"].items()
  state_dict = {name: seeded.seeded_array(name, tuple(shape)) for name, shape in shapes}
  return state_dict, golden["taps"], np.load(GOLDEN / f"{name}.npz")


def _model(skeleton, num_classes=60):
  parents = skeletons.get(skeleton).parents
  model = models.MODELS["agcn"](num_classes, parents, variant="agcn")
  x = jnp.zeros((1, 8, 2, len(parents), 3))
  return model, jax.eval_shape(model.init, jax.random.key(0), x)


@pytest.mark.parametrize("name", SKELETONS)
def test_the_original_network_gives_its_logits_and_intermediates(name, torch_file, monkeypatch):
  monkeypatch.setitem(sys.modules, "torch", None)  # nothing here may import it
  state_dict = torch_files.read(torch_file(name, "legacy"))
  _, taps, arrays = _golden(name)
  model, abstract = _model(SKELETONS[name], len(arrays["logits"][0]))
  variables = convert.convert(state_dict, abstract, agcn.RULES, ignore=agcn.IGNORE)

  # The program runs once, so that compiling it is what takes long.
  @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
  def predict(variables, x):
    logits, out = model.apply(variables, x.transpose(0, 2, 4, 3, 1))
    return logits, {i: out[f"block{i}"] for i in BLOCKS}

  with jax.default_matmul_precision("highest"):
    logits, out = predict(variables, arrays["x"])
  for i in BLOCKS:
    expected = taps[f"l{i}"]
    got = np.asarray(out[i]).transpose(0, 2, 4, 1, 3)  # B M C T V
    assert [got.shape[0] * got.shape[1], *got.shape[2:]] == expected["shape"]
    np.testing.assert_allclose(got.mean(), expected["mean"], rtol=1e-5)
    np.testing.assert_allclose(got.std(), expected["std"], rtol=1e-5)
    np.testing.assert_allclose(
      got.ravel()[:8], expected["first"], rtol=0, atol=1e-5 * np.abs(got).max()
    )
  # These weights make attention sharp: the original's own logits are 1.1e-5 away from float64.
  scale = np.abs(arrays["logits"]).max()
  np.testing.assert_allclose(logits, arrays["logits"], rtol=0, atol=1e-4 * scale)


@pytest.mark.parametrize("name", SKELETONS)
def test_adjacency_of_our_skeleton_is_that_of_the_original(name):
  _, _, arrays = _golden(name)
  parents = skeletons.get(SKELETONS[name]).parents
  np.testing.assert_allclose(models.agcn.adjacency(parents), arrays["adjacency"], rtol=1e-6)


def test_the_names_of_some_published_weights_are_the_same_weights():
  state_dict, *_ = _golden("agcn_ntu25")
  _, abstract = _model("kinect25")
  plain, other = (
    convert.convert(tensors, abstract, agcn.RULES, ignore=agcn.IGNORE)
    for tensors in (
      state_dict,
      {name.replace(".gcn1.down.", ".gcn1.conv_res."): x for name, x in state_dict.items()},
    )
  )
  assert any(".gcn1.down.1.running_var" in name for name in state_dict)
  jax.tree.map(np.testing.assert_array_equal, other, plain)


@pytest.mark.parametrize(
  ("other", "problem"),
  [
    (dict(num_classes=32), r"fc.weight: params/head/kernel: expected \(256, 32\)"),
    (dict(skeleton="kinect20"), r"data_bn.weight: params/data_bn/scale: expected \(120,\)"),
  ],
)
def test_weights_of_other_classes_or_joints_are_refused_by_name(other, problem):
  state_dict, *_ = _golden("agcn_ntu25")
  _, abstract = _model(**{"skeleton": "kinect25", **other})
  with pytest.raises(errors.CheckpointError, match=problem):
    convert.convert(state_dict, abstract, agcn.RULES, ignore=agcn.IGNORE)


def test_a_kernel_that_reaches_over_joints_is_refused():
  with pytest.raises(ValueError, match="size not equal to one"):
    agcn.temporal(np.zeros((4, 3, 9, 2)), (9, 3, 4))
