import json
import pathlib
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmg import errors, models
from jaxmg.pretrained import convert, swinface

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
TAPS = {"patches": "backbone.patch_embed", "stage1": "backbone.layers.0"}
TAPS |= {"stage4": "backbone.layers.3"}
ALONE = {"embedding": "tokens", "expression": "expression", "age": "age", "gender": "gender"}


@pytest.fixture(scope="module")
def state_dict(seeded_state_dict):
  return seeded_state_dict("swinface")


@pytest.fixture(scope="module")
def model():
  return models.MODELS["swinface"](7, branches=True, classify="expression")


@pytest.fixture(scope="module")
def abstract(model):
  faces = jax.ShapeDtypeStruct((1, 1, 112, 112, 3), jnp.float32)
  return jax.eval_shape(model.init, jax.random.key(0), faces)


def test_the_published_network_gives_the_originals_outputs(state_dict, model, abstract):
  variables = convert.convert(state_dict, abstract, swinface.RULES, ignore=swinface.IGNORE)
  rng = np.random.default_rng(zlib.crc32(b"swinface"))
  faces = np.moveaxis(rng.standard_normal((2, 3, 112, 112)).astype(np.float32), 1, -1)

  with jax.default_matmul_precision("highest"):
    logits, out = jax.jit(model.apply)(variables, faces[:, None])
  out = {name: np.asarray(x) for name, x in out.items()}
  expected = dict(np.load(GOLDEN / "swinface.npz"))
  smiling = out["attributes"][:, 0, models.swinface.ATTRIBUTES.index("smiling")]
  found = {name: out[ours][:, 0] for name, ours in ALONE.items()}
  found |= {"local_features_mean": out["local"], "smiling": smiling}
  assert found.keys() == expected.keys()
  for name, x in expected.items():
    np.testing.assert_allclose(found[name], x, rtol=0, atol=1e-4 * np.abs(x).max(), err_msg=name)
  np.testing.assert_array_equal(logits, out["expression"][:, 0])
  gender = out["attributes"][:, :, models.swinface.ATTRIBUTES.index("gender")]
  np.testing.assert_array_equal(gender, out["gender"])
  taps = json.loads((GOLDEN / "swinface.json").read_text())["taps"]
  for name, theirs in TAPS.items():
    tap, x = taps[theirs], out[name]
    assert [2, x.shape[2] * x.shape[3], x.shape[4]] == tap["shape"]
    np.testing.assert_allclose(x.mean(), tap["mean"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(x.std(), tap["std"], rtol=1e-4)
    np.testing.assert_allclose(x.ravel()[:8], tap["first"], rtol=0, atol=1e-4)


def test_every_name_has_one_place_and_a_misfit_is_named(state_dict, abstract):
  tensors = {name: x for name, x in state_dict.items() if name != "om.output_fcs.41.bias"}
  tensors["backbone.layers.0.blocks.0.attn.relative_position_bias_table"] = np.ones((81, 3), "f4")
  tensors["fam.nets.11.norm.bias"] = np.ones(512, np.float32)
  with pytest.raises(errors.CheckpointError) as caught:
    convert.convert(tensors, abstract, swinface.RULES, ignore=swinface.IGNORE)
  message = str(caught.value)
  assert "problems: 3" in message
  assert "positions: expected (13, 13, 3), got (81, 3)" in message
  assert "fam.nets.11.norm.bias matches 0 rules" in message
  assert "params/branch_neck/wearing_necktie/bias is not filled" in message
