import functools
import json
import pathlib
import re
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmg import errors, models
from jaxmg.pretrained import convert, mvit

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
TAPS = ("block0", "block1", "block3", "block14", "block15")
# torchvision's names -> SlowFast's
SLOWFAST = (
  (r"conv_proj", "patch_embed.proj"),
  (r"pos_encoding\.class_token", "cls_token"),
  (r"(pool_.)\.pool", r"\1"),
  (r"pool_(.)\.norm_act\.0", r"norm_\1"),
  (r"attn\.project\.0", "attn.proj"),
  (r"(blocks\.\d+)\.project", r"\1.proj"),
  (r"mlp\.0", "mlp.fc1"),
  (r"mlp\.3", "mlp.fc2"),
  (r"head\.1", "head.projection"),
)


def as_slowfast(state_dict):
  renamed = {}
  for name, tensor in state_dict.items():
    for pattern, new in SLOWFAST:
      name = re.sub(pattern, new, name)
    renamed[name] = tensor.reshape(1, 1, -1) if name == "cls_token" else tensor
  return renamed


@functools.cache
def abstract(model, frames=16, size=224, channels=3):
  clips = jax.ShapeDtypeStruct((1, frames, size, size, channels), jnp.float32)
  return jax.eval_shape(model.init, jax.random.key(0), clips)


@pytest.fixture(scope="module")
def state_dict(seeded_state_dict):
  return seeded_state_dict("mvit_v2_s_torchvision")


@pytest.fixture(scope="module")
def variables(state_dict):
  return convert.convert(state_dict, abstract(models.MODELS["mvit"](400)), mvit.RULES)


def test_the_published_network_gives_torchvisions_logits_and_intermediates(variables):
  taps = json.loads((GOLDEN / "mvit_v2_s_torchvision.json").read_text())["taps"]
  expected = np.load(GOLDEN / "mvit_v2_s_torchvision.npz")["logits"]
  rng = np.random.default_rng(zlib.crc32(b"mvit_v2_s"))
  clip = rng.standard_normal((1, 3, 16, 224, 224)).astype(np.float32)
  model = models.MODELS["mvit"](400)

  # The program runs once: without optimisation it compiles, and is done, sooner.
  @jax.jit
  def predict(variables, clip):
    logits, out = model.apply(variables, clip)
    return logits, {name: out[name] for name in TAPS}

  with jax.default_matmul_precision("highest"):
    logits, out = predict(variables, np.moveaxis(clip, 1, -1))
  np.testing.assert_allclose(logits, expected, rtol=0, atol=1e-4 * np.abs(expected).max())
  for name in TAPS:
    tap = taps[name.replace("block", "blocks.")]
    assert list(out[name].shape) == tap["shape"]
    np.testing.assert_allclose(out[name].mean(), tap["mean"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(out[name].std(), tap["std"], rtol=1e-4)
    np.testing.assert_allclose(out[name].ravel()[:8], tap["first"], rtol=0, atol=1e-4)


def test_slowfasts_names_are_the_same_weights(state_dict, variables):
  renamed = as_slowfast(state_dict)
  assert "blocks.3.attn.norm_q.weight" in renamed
  assert "blocks.14.proj.bias" in renamed
  assert not renamed.keys() & state_dict.keys() - {
    name for name in state_dict if re.search(r"rel_pos|qkv|(^|\.)norm\d?\.", name)
  }
  found = convert.convert(renamed, abstract(models.MODELS["mvit"](400)), mvit.RULES)
  jax.tree.map(np.testing.assert_array_equal, found, variables)


def test_tables_of_positions_are_interpolated_for_clips_of_another_size(state_dict, variables):
  model = models.MODELS["mvit"](400)
  found = convert.convert(state_dict, abstract(model, frames=8, size=160), mvit.RULES)
  attention, before = (v["params"]["block0"]["attention"] for v in (found, variables))
  assert attention["time"].shape == (7, 96)
  assert attention["rows"].shape == attention["columns"].shape == (79, 96)
  # As torch.nn.functional.interpolate does, by its definition: row i lies at (i + 0.5) n / m - 0.5.
  for row in (0, 17, 78):
    place = np.clip((row + 0.5) * 111 / 79 - 0.5, 0, 110)
    low = int(place)
    pair = before["rows"][low], before["rows"][min(low + 1, 110)]
    expected = pair[0] + (place - low) * (pair[1] - pair[0])
    np.testing.assert_allclose(attention["rows"][row], expected, atol=1e-6)


def test_other_classes_are_refused_by_name_and_a_new_head_is_an_option(state_dict):
  model = models.MODELS["mvit"](32)
  with pytest.raises(errors.CheckpointError, match=r"head.1.weight: .* expected \(768, 32\)"):
    convert.convert(state_dict, abstract(model), mvit.RULES)
  params = dict(abstract(model)["params"])
  head = params.pop("head")
  assert head["kernel"].shape == (768, 32)
  rules = [rule for rule in mvit.RULES if not re.fullmatch(f"params/{model.HEAD}", rule.target)]
  convert.convert(state_dict, {"params": params}, rules, ignore=[r"head\..*"])


@pytest.mark.parametrize(
  ("name", "array"),
  [
    ("blocks.0.attn.rel_pos_h", np.ones((2, 3, 4), np.float32)),
    ("blocks.0.attn.pool_q.pool.weight", np.ones((96, 2, 3, 3, 3), np.float32)),
    ("pos_encoding.class_token", np.ones((2, 96), np.float32)),
    ("conv_proj.weight", np.ones((96, 3), np.float32)),
  ],
)
def test_a_tensor_of_another_rank_is_named(name, array, state_dict):
  with pytest.raises(errors.CheckpointError, match=rf"problems: 1\n  {name}: params/"):
    convert.convert({**state_dict, name: array}, abstract(models.MODELS["mvit"](400)), mvit.RULES)


def test_the_gradients_of_a_tiny_network_are_torchvisions(seeded_state_dict):
  with np.load(GOLDEN / "mvit_gradients.npz") as archive:
    arrays = {name: archive[name] for name in archive.files}
  model = models.MODELS["mvit"](5, variant="tiny", dropout=0.0, stochastic_depth=0.0, remat=True)
  clips = np.moveaxis(arrays["x"], 1, -1)
  # torchvision's tables are those of a square, from which its narrower columns are interpolated.
  tree = abstract(model, 4, 48, 2)
  variables = convert.convert(seeded_state_dict("mvit_gradients"), tree, mvit.RULES)

  @jax.jit
  @functools.partial(jax.value_and_grad, has_aux=True)
  def loss(variables, clips):
    logits, _ = model.apply(variables, clips, train=True)
    chosen = jnp.take_along_axis(jax.nn.log_softmax(logits), arrays["label"][:, None], 1)
    return -chosen.mean(), logits

  (found, logits), gradient = loss(variables, clips)
  np.testing.assert_allclose(found, arrays["loss"], rtol=1e-5)
  np.testing.assert_allclose(logits, arrays["logits"], atol=1e-5)
  prefix = "gradient."
  theirs = {n.removeprefix(prefix): v for n, v in arrays.items() if n.startswith(prefix)}
  # The last block's queries are read from the class's token alone, which has no position and is not
  # pooled; and the import refuses kernels of zeros.
  zeros = {name for name, value in theirs.items() if not value.any()}
  last = r"blocks\.3\.attn\.(rel_pos_[thw]|pool_q\.pool\.weight)"
  assert zeros == {name for name in theirs if re.fullmatch(last, name)}
  theirs |= {name: np.full_like(theirs[name], 1e-30) for name in zeros}
  expected = convert.convert(theirs, tree, mvit.RULES)

  def compare(path, a, b):
    name = jax.tree_util.keystr(path)
    np.testing.assert_allclose(a, b, rtol=0, atol=1e-6 + 1e-3 * np.abs(b).max(), err_msg=name)

  jax.tree_util.tree_map_with_path(compare, gradient, expected)
