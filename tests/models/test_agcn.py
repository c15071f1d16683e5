import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxmg import models
from jaxmg.models import agcn

PARAMETERS = {  # at 25 joints, two persons and 60 classes
  "agcn": 3_469_510,  # published: 3.48 M, with the running statistics
  "small": 575_722,
  "tiny": 14_745,
}
PARENTS = (0, 0, 1, 1, 3)
# Each program runs once or twice, so that compiling it is what takes long.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.mark.parametrize("variant", agcn.VARIANTS)
def test_variant_has_its_number_of_parameters(variant):
  model = agcn.AGCN(60, tuple(range(25)), variant=variant)
  x = jax.ShapeDtypeStruct((1, 8, 2, 25, 3), jnp.float32)
  params = jax.eval_shape(model.init, jax.random.key(0), x)["params"]
  assert sum(leaf.size for leaf in jax.tree.leaves(params)) == PARAMETERS[variant]


def tiny(**options):
  return models.MODELS["agcn"](5, PARENTS, variant="tiny", **options)


def filled(variables, dtype=np.float32):
  """Every parameter of some size: as initialised, the graph convolutions say almost nothing."""
  rng = np.random.default_rng(3)
  return jax.tree.map(lambda leaf: rng.uniform(0.1, 0.4, leaf.shape).astype(dtype), variables)


@pytest.fixture(scope="module")
def x():
  return np.random.default_rng(0).normal(size=(3, 7, 2, 5, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def variables(x):
  return quick_jit(tiny().init)(jax.random.key(1), x)


@pytest.fixture(scope="module")
def predict():
  return quick_jit(functools.partial(tiny().apply, mutable=["batch_stats"]))


@pytest.fixture(scope="module")
def train():
  @quick_jit
  def train(variables, x, rows):
    return tiny(dropout=0.5).apply(
      variables,
      x,
      train=True,
      rows=rows,
      mutable=["batch_stats"],
      rngs={"dropout": jax.random.key(2)},
    )

  return train


@pytest.fixture(scope="module")
def loss_and_gradient():
  """In training and float64: `(params, x) -> (loss, gradient)`."""
  target = np.random.default_rng(1).normal(size=(3, 5))

  @quick_jit
  @jax.value_and_grad
  def loss_and_gradient(params, batch_stats, x):
    (logits, _), _ = tiny(dtype=jnp.float64).apply(
      {"params": params, "batch_stats": batch_stats}, x, train=True, mutable=["batch_stats"]
    )
    return jnp.vdot(target, jnp.tanh(logits))

  return loss_and_gradient


def test_adjacency_of_a_small_tree():
  own, inward, outward = agcn.adjacency(PARENTS)
  np.testing.assert_array_equal(own, np.eye(5))
  to_parent = np.zeros((5, 5))
  to_parent[[0, 1, 1, 3], [1, 2, 3, 4]] = 1
  np.testing.assert_array_equal(inward, to_parent)
  to_child = to_parent.T / [1, 2, 1, 1, 1]  # joint 1 has two children
  np.testing.assert_array_equal(outward, to_child)


def test_every_intermediate_has_its_shape(variables, x):
  logits, out = jax.eval_shape(tiny().apply, variables, x)
  assert logits.shape == (3, 5)
  assert {name: leaf.shape[1:] for name, leaf in out.items()} == {
    "block1": (7, 2, 5, 8),
    "block2": (4, 2, 5, 16),
    "block3": (4, 2, 5, 16),
    "features": (16,),
    "tokens": (4, 16),
    "times": (4,),
  }


@pytest.mark.parametrize(("stride", "frames"), [(1, 7), (2, 1), (2, 7), (2, 8)])
def test_convolution_over_time_and_its_gradients_are_the_plain_ones(stride, frames):
  rng = np.random.default_rng(0)
  x, kernel = (rng.normal(size=s).astype(np.float32) for s in ((2, 3, frames, 4), (9, 4, 6)))
  upstream = rng.normal(size=(2, 3, -(-frames // stride), 6)).astype(np.float32)

  def plain(x, kernel):
    return jax.lax.conv_general_dilated(
      x, kernel[None], (1, stride), [(0, 0), (4, 4)], dimension_numbers=("NHWC", "HWIO", "NHWC")
    )

  @functools.partial(quick_jit, static_argnums=0)
  def with_gradients(function, x, kernel, upstream):
    y, pullback = jax.vjp(function, x, kernel)
    return y, pullback(upstream)

  ours = functools.partial(agcn.temporal_conv, stride=stride)
  found, expected = (with_gradients(f, x, kernel, upstream) for f in (ours, plain))
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4), found, expected)


def test_gradient_is_that_of_finite_differences(variables, x, loss_and_gradient):
  with jax.enable_x64(True):
    params, batch_stats = map(filled(variables, np.float64).get, ("params", "batch_stats"))
    x = x.astype(np.float64)
    _, gradient = loss_and_gradient(params, batch_stats, x)
    gradient = jax.tree.map(np.asarray, gradient)
    rng = np.random.default_rng(2)
    # Up the slope in every single parameter, so that no error cancels another.
    direction = jax.tree.map(
      lambda g: np.where(g < 0, -1, 1) * rng.uniform(0.5, 1, g.shape), gradient
    )
    slope = sum(jax.tree.leaves(jax.tree.map(np.vdot, gradient, direction)))

    def loss(move):
      moved = jax.tree.map(lambda p, d: p + move * d, params, direction)
      return loss_and_gradient(moved, batch_stats, x)[0]

    np.testing.assert_allclose(slope, (loss(1e-7) - loss(-1e-7)) / 2e-7, rtol=1e-6)


@pytest.mark.parametrize("missing", ["a person", "everybody"])
def test_missing_persons_leave_loss_and_gradient_finite(missing, variables, x, loss_and_gradient):
  x = x.copy()
  x[:, :, 1 if missing == "a person" else slice(None)] = 0
  with jax.enable_x64(True):
    wide = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), (variables, x))
    loss, gradient = loss_and_gradient(wide[0]["params"], wide[0]["batch_stats"], wide[1])
  assert np.isfinite(loss)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_the_network_begins_with_almost_nothing_of_its_graphs(variables):
  graph = variables["params"]["block2"]["graph"]
  np.testing.assert_allclose(graph["edges"], 1e-6)
  np.testing.assert_allclose(graph["bn"]["scale"], 1e-6)
  np.testing.assert_array_equal(graph["down"]["bn"]["scale"], 1)


def test_kernels_begin_as_those_of_the_original(variables):
  kernels = {
    jax.tree_util.keystr(path, simple=True, separator="/"): leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])
    if leaf.ndim == 3 and path[-1] == jax.tree_util.DictKey("kernel")
  }
  assert len(kernels) == 3 * 10 + 2 + 1  # three subsets of three, one over time; down; residual
  for name, kernel in kernels.items():
    size, inputs, outputs = kernel.shape
    deviation = (2 / (3 * inputs * outputs if "value" in name else size * outputs)) ** 0.5
    error = 4 / np.sqrt(2 * kernel.size)  # four standard errors of an estimate from so many numbers
    np.testing.assert_allclose(kernel.std(), deviation, rtol=error, err_msg=name)


def test_the_head_begins_by_the_number_of_classes(variables):
  head = variables["params"]["head"]
  error = 4 / np.sqrt(2 * head["kernel"].size)
  np.testing.assert_allclose(head["kernel"].std(), (2 / 5) ** 0.5, rtol=error)
  np.testing.assert_array_equal(head["bias"], 0)


def test_bfloat16_keeps_float32_parameters_and_logits(variables, x, predict):
  logits, out = quick_jit(tiny(dtype=jnp.bfloat16).apply)(variables, x)
  (expected, _), _ = predict(variables, x)
  assert logits.dtype == jnp.float32
  assert out["block3"].dtype == jnp.bfloat16
  np.testing.assert_allclose(logits, expected, atol=0.02 * np.abs(expected).max())


def test_training_changes_the_statistics_and_evaluation_does_not(variables, x, predict, train):
  _, changed = train(variables, x, np.arange(3))
  before, after = (jax.tree.leaves(v["batch_stats"]) for v in (variables, changed))
  assert all((a != b).any() for a, b in zip(before, after, strict=True))
  _, same = predict(variables, x)
  jax.tree.map(np.testing.assert_array_equal, same["batch_stats"], variables["batch_stats"])


def test_a_clip_is_the_same_whatever_is_beside_it(variables, x, predict):
  variables = filled(variables)
  other = np.flip(x, axis=1).copy()
  other[1] = x[1]
  (logits, _), _ = predict(variables, x)
  (found, _), _ = predict(variables, other)
  np.testing.assert_allclose(found[1], logits[1], rtol=1e-6)
  assert np.abs(found[0] - logits[0]).max() > 1e-3


def test_order_of_the_clips_changes_no_clip_in_training(variables, x, train):
  variables = filled(variables)
  rows = np.array([11, 4, 7])
  (logits, _), changed = train(variables, x, rows)
  (turned, _), changed_too = train(variables, x[::-1], rows[::-1])
  np.testing.assert_allclose(turned[::-1], logits, rtol=1e-4)
  jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-4), changed_too, changed)
  (other, _), _ = train(variables, x[::-1], rows)  # the masks do follow the rows' names
  assert np.abs(other[::-1] - logits).max() > 1e-3


def test_published_network_lowers_in_bfloat16_for_every_platform():
  model = agcn.AGCN(60, tuple(range(25)), variant="agcn", dtype=jnp.bfloat16)
  x = jax.ShapeDtypeStruct((2, 300, 2, 25, 3), jnp.float32)
  variables = jax.eval_shape(model.init, jax.random.key(0), x)

  @jax.jit
  @jax.grad
  def gradient(params, batch_stats, x):
    variables = {"params": params, "batch_stats": batch_stats}
    (logits, _), _ = model.apply(variables, x, train=True, mutable=["batch_stats"])
    return logits.sum()

  exported = export.export(gradient, platforms=("cpu", "cuda", "tpu"))(
    variables["params"], variables["batch_stats"], x
  )
  text = exported.mlir_module()
  assert "?x" not in text  # every shape is static
  assert "x75x" in text  # of 300 frames
  assert "xbf16>" in text


def test_folded_norms_give_the_same_logits_and_cannot_be_trained(variables, predict, x):
  trained = jax.tree.map(jnp.asarray, filled(variables))
  folded = tiny().folded(trained)
  assert folded["batch_stats"].keys() == {"data_bn"}
  assert trained["batch_stats"].keys() > {"data_bn"}  # as they were
  (expected, found), _ = zip(*(predict(v, x) for v in (trained, folded)), strict=True)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4), found, expected)
  with pytest.raises(ValueError, match='expected "batch_stats" beside "params", got none'):
    tiny().apply(folded, jnp.asarray(x), train=True, mutable=["batch_stats"])
