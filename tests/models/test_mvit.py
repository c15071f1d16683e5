import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmg import gaussians, models
from jaxmg.models import layers, mvit
from jaxmg.skeletons import heatmaps
from jaxmg.training import parameters

PARAMETERS = {  # at 16 x 224 x 224 in colour and 400 classes
  "mvitv2-s": 34_537_744,  # published
  "small": 533_712,
  "tiny": 52_320,
}


@pytest.mark.parametrize("variant", mvit.VARIANTS)
def test_variant_has_its_number_of_parameters(variant):
  model = mvit.MViT(400, variant=variant)
  clips = jax.ShapeDtypeStruct((1, 16, 224, 224, 3), jnp.float32)
  params = jax.eval_shape(model.init, jax.random.key(0), clips)["params"]
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PARAMETERS[variant]


def tiny(**options):
  return models.MODELS["mvit"](num_classes=5, variant="tiny", **options)


def compiled(model, **options):
  """`model.apply` with these options, as one program."""
  return jax.jit(functools.partial(model.apply, **options))


@pytest.fixture(scope="module")
def clips():
  return jax.random.normal(jax.random.key(0), (3, 4, 32, 24, 1))


@pytest.fixture(scope="module")
def variables(clips):
  """Parameters that are all in use: at first every bias is zero, and tables nearly so."""
  shapes = jax.eval_shape(tiny().init, jax.random.key(1), clips)
  leaves, tree = jax.tree.flatten(shapes)
  rng = np.random.default_rng(0)
  leaves = [0.3 * rng.standard_normal(x.shape, np.float32) + (x.ndim == 1) for x in leaves]
  return jax.tree.map(jnp.asarray, jax.tree.unflatten(tree, leaves))


@pytest.fixture(scope="module")
def logits(variables, clips):
  return compiled(tiny())(variables, clips)[0]


def test_every_intermediate_has_its_shape(variables, clips):
  logits, out = jax.eval_shape(tiny(embedding_size=6).init_with_output, jax.random.key(0), clips)[0]
  assert logits.shape == (3, 5)
  assert {name: leaf.shape[1:] for name, leaf in out.items()} == {
    "patches": (1 + 2 * 8 * 6, 8),
    "block0": (1 + 2 * 8 * 6, 8),
    "block1": (1 + 2 * 4 * 3, 16),
    "block2": (1 + 2 * 2 * 2, 32),
    "block3": (1 + 2 * 2 * 2, 32),
    "features": (32,),
    "tokens": (1 + 2 * 2 * 2, 32),
    "times": (1 + 2 * 2 * 2,),
    "embedding": (6,),
  }


def test_the_published_network_pools_as_published():
  blocks = mvit.MViT(400).blocks()
  assert [(b["heads"], b["features"], b["strides"]) for b in blocks] == [
    (1, 96, (1, 8)),
    (2, 192, (2, 4)),
    (2, 192, (1, 4)),
    (4, 384, (2, 2)),
    *[(4, 384, (1, 2))] * 10,
    (8, 768, (2, 1)),
    (8, 768, (1, 1)),
  ]
  np.testing.assert_allclose([b["stochastic_depth"] for b in blocks], np.arange(16) * 0.2 / 15)


def test_patches_are_the_convolution_of_3_x_7_x_7(clips):
  patches = mvit.Patches(6)
  for shape in ((2, 4, 16, 20, 3), (1, 5, 13, 10, 1), (1, 1, 1, 1, 2)):
    x = jax.random.normal(jax.random.key(2), shape)
    variables = patches.init(jax.random.key(3), x)
    expected = jax.lax.conv_general_dilated(
      x,
      variables["params"]["kernel"],
      (2, 4, 4),
      [(1, 1), (3, 3), (3, 3)],
      dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
    )
    np.testing.assert_allclose(patches.apply(variables, x), expected, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2, 4, 8])
def test_pooling_and_its_gradients_are_those_of_a_depthwise_convolution(stride):
  x = jax.random.normal(jax.random.key(0), (2, 3, 7, 9, 2, 4))
  kernel = jax.random.normal(jax.random.key(1), (3, 3, 3, 4))

  def convolution(x, kernel):
    y = jax.lax.conv_general_dilated(
      x.reshape(*x.shape[:4], 8),
      jnp.tile(kernel, 2)[..., None, :],
      (1, stride, stride),
      [(1, 1)] * 3,
      dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
      feature_group_count=8,
    )
    return y.reshape(*y.shape[:4], 2, 4)

  def with_gradients(pool, x, kernel):
    y, pullback = jax.vjp(pool, x, kernel)
    return y, *pullback(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))

  ours = jax.jit(functools.partial(with_gradients, lambda *a: mvit._depthwise(*a, stride)))
  expected = jax.jit(functools.partial(with_gradients, convolution))(x, kernel)
  for a, b in zip(ours(x, kernel), expected, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-4)


def test_the_skips_pooling_gives_its_gradient_to_the_first_of_equal_ones():
  x = jnp.zeros((1, 1, 4, 4, 1))
  gradient = jax.grad(lambda x: mvit._max_pool(x, 2).sum())(x)
  expected = np.zeros((4, 4))
  expected[:2, :2] = expected[1, 1] = 1  # the first of each 3 x 3 inside the padding
  expected[0, 1], expected[1, 0], expected[0, 0] = 1, 1, 1
  np.testing.assert_array_equal(gradient[0, 0, :, :, 0], expected)


def test_heatmaps_that_are_not_drawn_are_drawn():
  points = jax.random.uniform(jax.random.key(0), (1, 4, 5, 3)) * jnp.array([32, 32, 1])
  x = heatmaps.joint_gaussians(points, size=(32, 32))
  variables = jax.jit(tiny().init)(jax.random.key(1), x)
  found, expected = (compiled(tiny())(variables, x)[0] for x in (x, gaussians.drawn(x)))
  np.testing.assert_allclose(found, expected, atol=1e-6)


def test_positions_are_whole_steps_of_the_wider_grid():
  weights = mvit.relative_positions(4, 2, 7)  # keys are two queries apart
  np.testing.assert_array_equal(weights.argmax(-1), [[2, 0], [3, 1], [4, 2], [5, 3]])
  np.testing.assert_array_equal(weights.sum(-1), 1)


def test_clips_of_other_lengths_and_sizes_take_interpolated_positions(variables, clips):
  longer = jnp.concatenate([clips, clips], 1)[:, :, :20, :20]
  logits, out = compiled(tiny())(variables, longer)
  assert out["block0"].shape[1] == 1 + 4 * 5 * 5
  assert np.isfinite(logits).all()
  # As if the tables had been made for these clips.
  shapes = jax.eval_shape(tiny().init, jax.random.key(0), longer)

  def resized(leaf, like):
    if leaf.shape == like.shape:
      return leaf
    return mvit.interpolation(len(leaf), len(like)) @ leaf

  expected, _ = compiled(tiny())(jax.tree.map(resized, variables, shapes), longer)
  np.testing.assert_allclose(logits, expected, atol=1e-5)


def test_bfloat16_keeps_float32_parameters_and_logits(variables, clips, logits):
  found, out = compiled(tiny(dtype=jnp.bfloat16))(variables, clips)
  assert found.dtype == out["features"].dtype == jnp.float32
  assert out["block3"].dtype == jnp.bfloat16
  np.testing.assert_allclose(found, logits, atol=0.03 * np.abs(logits).max())


def test_a_clip_alone_is_a_clip_in_a_batch(variables, clips, logits):
  alone, _ = compiled(tiny())(variables, clips[1:2])
  np.testing.assert_allclose(alone[0], logits[1], atol=1e-5)


def test_inference_leaves_nothing_out(variables, clips, logits):
  found, _ = compiled(tiny(stochastic_depth=0.9, dropout=0.9))(variables, clips)
  np.testing.assert_array_equal(found, logits)


def test_order_of_the_clips_changes_no_clip_in_training(variables, clips):
  model = tiny(stochastic_depth=0.7)
  rngs = {"dropout": jax.random.key(2)}
  train = jax.jit(
    lambda clips, rows: model.apply(variables, clips, train=True, rows=rows, rngs=rngs)[0]
  )
  rows = jnp.array([11, 4, 7])
  logits = train(clips, rows)
  np.testing.assert_allclose(train(clips[::-1], rows[::-1])[::-1], logits, rtol=0, atol=1e-4)
  assert np.abs(train(clips[::-1], rows)[::-1] - logits).max() > 1e-3  # by name, not by place


def test_stochastic_depth_leaves_out_whole_rows_at_its_rate():
  x = jnp.ones((2000, 3, 2))
  drop = layers.StochasticDepth(0.25)
  rngs = {"dropout": jax.random.key(0)}
  y = np.asarray(drop.apply({}, x, train=True, rngs=rngs))
  assert set(np.unique(y.reshape(2000, -1).round(5))) == {0, np.float32(4 / 3).round(5)}
  assert (y == y[:, :1, :1]).all()
  np.testing.assert_allclose((y == 0).mean(), 0.25, atol=0.04)
  np.testing.assert_array_equal(drop.apply({}, x, train=False), x)
  np.testing.assert_array_equal(layers.StochasticDepth(0.0).apply({}, x, train=True), x)


def test_stochastic_depth_without_a_key_is_named(variables, clips):
  model = tiny(dropout=0.0, stochastic_depth=0.7)
  with pytest.raises(ValueError, match=r'^train=True: expected rngs={"dropout": key} in apply'):
    jax.eval_shape(lambda clips: model.apply(variables, clips, train=True), clips)


def test_every_form_of_attention_gives_the_same(variables, clips, logits, monkeypatch):
  monkeypatch.setattr(mvit, "ATTENTION", "bias")
  found, _ = compiled(tiny())(variables, clips)
  np.testing.assert_allclose(found, logits, atol=1e-4)


def test_every_parameter_has_one_depth(clips):
  model = tiny(embedding_size=6)
  params = jax.eval_shape(model.init, jax.random.key(0), clips)["params"]
  flat = parameters.paths(params)
  layers = [{path for path in flat if re.fullmatch(one, path)} for one in model.by_depth()]
  assert sorted(itertools.chain(*layers)) == sorted(flat)
  first, *blocks, last = ({path.split("/")[0] for path in layer} for layer in layers)
  assert first == {"patches", "class_token"}
  assert blocks == [{f"block{i}"} for i in range(4)]
  assert last == {"norm", "head", "embedding"}
