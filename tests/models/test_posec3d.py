import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxmg import gaussians, models
from jaxmg.models import convolutions, posec3d
from jaxmg.skeletons import heatmaps as drawing

PARAMETERS = {  # at 17 joints and 60 classes
  "slowonly-r50": 2_024_860,  # published
  "slowonly-r50-346": 3_034_140,  # mmaction2's table of 51, 101, 400 classes: 3.0, 3.1, 3.2 M
  "small": 199_852,
  "small-strided": 421_292,
  "tiny": 7_576,
}


@pytest.mark.parametrize("variant", posec3d.VARIANTS)
def test_variant_has_its_number_of_parameters(variant):
  model = posec3d.PoseC3D(60, variant=variant)
  heatmaps = jax.ShapeDtypeStruct((1, 8, 16, 16, 17), jnp.float32)
  params = jax.eval_shape(model.init, jax.random.key(0), heatmaps)["params"]
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PARAMETERS[variant]


def tiny(**options):
  return models.MODELS["posec3d"](num_classes=5, variant="tiny", **options)


def compiled(model, **options):
  """`model.apply` with these options, as one program."""
  return jax.jit(functools.partial(model.apply, **options))


@pytest.fixture(scope="module")
def heatmaps():
  return jax.random.uniform(jax.random.key(0), (3, 6, 12, 12, 4))


@pytest.fixture(scope="module")
def variables(heatmaps):
  return jax.jit(tiny().init)(jax.random.key(1), heatmaps)


def test_every_intermediate_has_its_shape(variables, heatmaps):
  logits, out = jax.eval_shape(tiny().apply, variables, heatmaps)
  assert logits.shape == (3, 5)
  assert {name: leaf.shape[1:] for name, leaf in out.items()} == {
    "stem": (6, 12, 12, 4),
    "pool": (6, 12, 12, 4),
    "stage1": (6, 6, 6, 16),
    "stage1/block0": (6, 6, 6, 16),
    "stage2": (3, 3, 3, 32),
    "stage2/block0": (3, 3, 3, 32),
    "features": (32,),
    "tokens": (3, 32),
    "times": (3,),
  }


def test_blocks_begin_as_identity_on_their_last_norm(variables):
  for stage in ("stage1", "stage2"):
    scale = variables["params"][stage]["block0"]["conv3"]["bn"]["scale"]
    np.testing.assert_array_equal(scale, 0)


def test_bfloat16_keeps_float32_parameters_and_logits(variables, heatmaps):
  logits, out = compiled(tiny(dtype=jnp.bfloat16))(variables, heatmaps)
  expected, _ = compiled(tiny())(variables, heatmaps)
  assert logits.dtype == jnp.float32
  assert out["stage2"].dtype == jnp.bfloat16
  np.testing.assert_allclose(logits, expected, atol=0.02 * np.abs(expected).max())


def test_training_changes_the_statistics_and_evaluation_does_not(variables, heatmaps):
  rngs = {"dropout": jax.random.key(2)}
  train = compiled(tiny(), train=True, mutable=["batch_stats"], rngs=rngs)
  (_, _), changed = train(variables, heatmaps)
  before, after = (jax.tree.leaves(v["batch_stats"]) for v in (variables, changed))
  assert all((a != b).any() for a, b in zip(before, after, strict=True))
  (_, _), same = compiled(tiny(), mutable=["batch_stats"])(variables, heatmaps)
  before, after = (jax.tree.leaves(v["batch_stats"]) for v in (variables, same))
  assert all((a == b).all() for a, b in zip(before, after, strict=True))


def test_a_clip_alone_is_a_clip_in_a_batch(variables, heatmaps):
  predict = compiled(tiny())
  together, _ = predict(variables, heatmaps)
  alone, _ = predict(variables, heatmaps[1:2])
  np.testing.assert_allclose(alone[0], together[1], atol=1e-5)


def test_training_moves_the_running_mean_a_tenth_of_the_way(variables, heatmaps):
  kernel = {"params": variables["params"]["stem"]["conv"]}
  of_the_batch = convolutions.Conv(4, (1, 7, 7)).apply(kernel, heatmaps).mean((0, 1, 2, 3))
  ones = jax.tree.map(jnp.ones_like, variables["batch_stats"])
  train = compiled(tiny(dropout=0.0), train=True, mutable=["batch_stats"])
  (_, _), changed = train({**variables, "batch_stats": ones}, heatmaps)
  found = changed["batch_stats"]["stem"]["bn"]["mean"]
  np.testing.assert_allclose(found, 0.9 + 0.1 * of_the_batch, rtol=1e-5)


def test_convolutions_begin_as_kaiming_normal_by_their_outputs(variables):
  kernels = {
    jax.tree_util.keystr(path): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])
    if leaf.ndim == 5
  }
  assert len(kernels) == 9  # the stem, and four in each of two blocks
  for name, kernel in kernels.items():
    time, height, width, _, outputs = kernel.shape
    deviation = np.sqrt(2 / (time * height * width * outputs))
    error = 4 / np.sqrt(2 * kernel.size)  # four standard errors of an estimate from so many numbers
    np.testing.assert_allclose(kernel.std(), deviation, rtol=error, err_msg=name)


def test_the_head_begins_small_and_without_bias(variables):
  head = variables["params"]["head"]
  np.testing.assert_allclose(head["kernel"].std(), 0.01, rtol=4 / np.sqrt(2 * head["kernel"].size))
  np.testing.assert_array_equal(head["bias"], 0)


def test_order_of_the_clips_changes_no_clip_in_training(variables, heatmaps):
  @jax.jit
  def train(heatmaps, rows):
    (logits, _), changed = tiny().apply(
      variables,
      heatmaps,
      train=True,
      rows=rows,
      mutable=["batch_stats"],
      rngs={"dropout": jax.random.key(2)},
    )
    return logits, changed

  rows = jnp.array([11, 4, 7])
  logits, changed = train(heatmaps, rows)
  turned, changed_too = train(heatmaps[::-1], rows[::-1])
  np.testing.assert_allclose(turned[::-1], logits, atol=1e-6)
  # Statistics of a first batch, of the order of 1.
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), changed_too, changed)
  other, _ = train(heatmaps[::-1], rows)  # the masks do follow the rows' names
  assert np.abs(other[::-1] - logits).max() > 1e-3


def test_published_network_lowers_in_bfloat16_for_every_platform():
  model = posec3d.PoseC3D(60, variant="slowonly-r50", dtype=jnp.bfloat16)
  heatmaps = jax.ShapeDtypeStruct((2, 48, 56, 56, 17), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), heatmaps)

  @jax.jit
  @jax.grad
  def gradient(params, batch_stats, heatmaps, key):
    (logits, _), _ = model.apply(
      {"params": params, "batch_stats": batch_stats},
      heatmaps,
      train=True,
      mutable=["batch_stats"],
      rngs={"dropout": key},
    )
    return logits.sum()

  exported = export.export(gradient, platforms=("cpu", "cuda", "tpu"))(
    variables["params"], variables["batch_stats"], heatmaps, jax.random.key(0)
  )
  text = exported.mlir_module()
  assert "?x" not in text  # every shape is static
  assert "xbf16>" in text


def test_folded_norms_give_the_same_logits_and_intermediates(variables, heatmaps):
  leaves, tree = jax.tree.flatten(variables)
  keys = jax.random.split(jax.random.key(3), len(leaves))
  leaves = [jax.random.uniform(k, x.shape, minval=0.2) for k, x in zip(keys, leaves, strict=True)]
  trained = jax.tree.unflatten(tree, leaves)
  folded = posec3d.fold_batch_norm(trained)
  assert folded.keys() == {"params"}
  assert folded["params"]["stem"].keys() == {"conv", "bias"}
  expected, found = (compiled(tiny())(v, heatmaps) for v in (trained, folded))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), found, expected)


def test_heatmaps_need_not_be_drawn(variables):
  points = jax.random.uniform(jax.random.key(0), (3, 6, 4, 3)) * jnp.array([24, 24, 1])
  x = drawing.joint_gaussians(points, size=(24, 24))
  for state in (variables, posec3d.fold_batch_norm(variables)):
    expected, found = (compiled(tiny())(state, x) for x in (gaussians.drawn(x), x))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)
  with pytest.raises(ValueError, match=r"float\[B, T, H, W, 4\], got float32\[3, 6, 24, 24, 3\]"):
    tiny().apply(variables, drawing.joint_gaussians(points[:, :, :3], size=(24, 24)))


def test_folded_norms_cannot_be_trained(variables, heatmaps):
  folded = posec3d.fold_batch_norm(variables)
  with pytest.raises(ValueError, match='expected "batch_stats" beside "params", got none'):
    tiny().apply(
      folded, heatmaps, train=True, mutable=["batch_stats"], rngs={"dropout": jax.random.key(2)}
    )
