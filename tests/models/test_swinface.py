import functools
import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmg import models
from jaxmg.models import swinface
from jaxmg.training import parameters

# With the branches and the seven expressions; with a head of 32 classes and no branches.
PARAMETERS = {"swin-t": (67_415_538, 28_517_914), "tiny": (80_532, 26_769)}


def size(model):
  faces = jax.ShapeDtypeStruct((1, 1, 112, 112, 3), jnp.float32)
  params = jax.eval_shape(model.init, jax.random.key(0), faces)["params"]
  return sum(leaf.size for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize("variant", swinface.VARIANTS)
def test_variant_has_its_number_of_parameters(variant):
  whole = swinface.SwinFace(7, branches=True, classify="expression", variant=variant)
  assert (size(whole), size(swinface.SwinFace(32, variant=variant))) == PARAMETERS[variant]


def tiny(num_classes=5, **options):
  return models.MODELS["swinface"](num_classes, variant="tiny", **options)


def compiled(model, **options):
  """`model.apply` with these options, as one program."""
  return jax.jit(functools.partial(model.apply, **options))


@pytest.fixture(scope="module")
def faces():
  return jax.random.normal(jax.random.key(0), (3, 2, 56, 56, 3))


def in_use(model, faces):
  """Parameters that are all in use: at first every bias is zero, and tables nearly so."""
  shapes = jax.eval_shape(model.init, jax.random.key(1), faces)
  rng = np.random.default_rng(0)

  def drawn(path, x):
    if path[0].key == "batch_stats":
      return jnp.asarray(rng.uniform(0.5, 1.5, x.shape).astype(np.float32))
    return jnp.asarray(0.3 * rng.standard_normal(x.shape, np.float32) + (x.ndim == 1))

  return jax.tree.map_with_path(drawn, shapes)


@pytest.fixture(scope="module")
def variables(faces):
  return in_use(tiny(branches=True), faces)


@pytest.fixture(scope="module")
def found(variables, faces):
  return compiled(tiny(branches=True))(variables, faces)


def test_every_output_has_its_shape(faces):
  model = tiny(branches=True, embedding_size=6)
  logits, out = jax.eval_shape(model.init_with_output, jax.random.key(0), faces)[0]
  assert logits.shape == (3, 5)
  assert {name: leaf.shape[1:] for name, leaf in out.items()} == {
    "patches": (2, 28, 28, 8),
    "stage1": (2, 14, 14, 16),
    "stage2": (2, 7, 7, 32),
    "stage3": (2, 7, 7, 32),
    "tokens": (2, 16),
    "times": (2,),
    "features": (16,),
    "age": (2, 1),
    "expression": (2, 7),
    "gender": (2, 2),
    "attributes": (2, 40, 2),
    "local": (48,),
    "embedding": (6,),
  }


def test_there_are_42_outputs_and_each_has_a_name():
  assert len(swinface.OUTPUTS) == len({*swinface.OUTPUTS}) == 42
  assert (len(swinface.BRANCHES), len(swinface.ATTRIBUTES), len(swinface.EXPRESSIONS)) == (
    11,
    40,
    7,
  )


def test_expressions_are_averaged_over_the_faces(variables, faces, found):
  model = tiny(7, branches=True, classify="expression")
  params = {name: x for name, x in variables["params"].items() if name != "head"}
  logits, out = compiled(model)(variables | {"params": params}, faces)
  np.testing.assert_allclose(logits, found[1]["expression"].mean(1), atol=1e-5)
  np.testing.assert_allclose(out["tokens"], found[1]["tokens"], atol=1e-5)
  assert np.abs(out["expression"][:, 0] - out["expression"][:, 1]).max() > 1e-3


def test_a_face_alone_is_a_face_among_others(variables, faces, found):
  _, out = compiled(tiny(branches=True))(variables, faces[1:2, 1:])
  for name in ("tokens", "age", "attributes"):
    np.testing.assert_allclose(out[name][0, 0], found[1][name][1, 1], atol=1e-4)


def test_larger_faces_have_more_windows(variables, faces):
  larger = jnp.pad(faces, [(0, 0), (0, 0), (0, 56), (0, 56), (0, 0)])
  logits, out = compiled(tiny(branches=True))(variables, larger)
  assert out["stage3"].shape == (3, 2, 14, 14, 32)
  assert np.isfinite(logits).all()


def test_a_shifted_window_is_one_of_the_grid_that_is_moved(variables):
  """Written a second time: each token looks at those of its window, by their relative position."""
  attention = swinface.Attention(heads=2, shift=3)
  x = np.asarray(jax.random.normal(jax.random.key(1), (1, 14, 14, 4)))
  params = {
    "qkv": {"kernel": jax.random.normal(jax.random.key(2), (4, 12)), "bias": jnp.arange(12.0)},
    "project": {"kernel": jnp.eye(4), "bias": jnp.zeros(4)},
    "positions": jax.random.normal(jax.random.key(3), (13, 13, 2)),
  }
  found = np.asarray(jax.jit(attention.apply)({"params": params}, x))[0]
  qkv = x[0] @ np.asarray(params["qkv"]["kernel"]) + np.arange(12)
  q, k, v = np.moveaxis(qkv.reshape(14, 14, 3, 2, 2), 2, 0)
  window = (np.arange(14) + 4) // 7  # 0 to 2, 3 to 9 and 10 to 13
  table = np.asarray(params["positions"])
  for row, column in ((0, 0), (2, 5), (8, 13), (13, 9)):
    rows, columns = (np.flatnonzero(window == window[i]) for i in (row, column))
    places = np.ix_(rows, columns)
    scores = (k[places] * q[row, column]).sum(-1) / np.sqrt(2)
    scores += table[np.ix_(row - rows + 6, column - columns + 6)]
    shares = np.exp(scores - scores.max((0, 1)))
    expected = (shares[..., None] * v[places]).sum((0, 1)) / shares.sum((0, 1))[:, None]
    np.testing.assert_allclose(found[row, column], expected.ravel(), atol=1e-4)


def test_bfloat16_keeps_float32_parameters_and_outputs(variables, faces, found):
  logits, out = compiled(tiny(branches=True, dtype=jnp.bfloat16))(variables, faces)
  assert {logits.dtype, *(out[name].dtype for name in ("tokens", "age", "local"))} == {
    jnp.dtype("float32")
  }
  assert out["stage3"].dtype == jnp.bfloat16
  np.testing.assert_allclose(logits, found[0], atol=0.05 * np.abs(found[0]).max())


def test_inference_leaves_nothing_out(variables, faces, found):
  logits, _ = compiled(tiny(branches=True, stochastic_depth=0.9, dropout=0.9))(variables, faces)
  np.testing.assert_allclose(logits, found[0], atol=1e-6)


def test_order_of_the_clips_changes_no_clip_in_training(variables, faces):
  model = tiny(stochastic_depth=0.7)
  params = {name: x for name, x in variables["params"].items() if not name.startswith("branch_")}

  @jax.jit
  def train(faces, rows):
    rngs, whole = {"dropout": jax.random.key(2)}, variables | {"params": params}
    options = {"train": True, "rows": rows, "rngs": rngs, "mutable": ["batch_stats"]}
    return model.apply(whole, faces, **options)[0][0]

  rows = jnp.array([11, 4, 7])
  logits = train(faces, rows)
  np.testing.assert_allclose(train(faces[::-1], rows[::-1])[::-1], logits, rtol=0, atol=1e-3)
  assert np.abs(train(faces[::-1], rows)[::-1] - logits).max() > 1e-2  # by name, not by place


def test_it_learns_what_is_on_a_few_faces(faces):
  model = tiny(branches=True, dropout=0.1, depths=(1, 1), heads=(1, 2))
  faces = faces[:, :1, :28, :28]
  variables = in_use(model, faces)
  state = {"params": variables["params"], "stats": variables["batch_stats"]}
  optimizer = optax.adam(1e-2)
  labels = jnp.array([0, 3, 1])

  @jax.jit
  def step(state, moments, key):
    def loss(params):
      whole = {"params": params, "batch_stats": state["stats"]}
      options = {"train": True, "rngs": {"dropout": key}, "mutable": ["batch_stats"]}
      (logits, _), new = model.apply(whole, faces, **options)
      found = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
      return found, new["batch_stats"]

    (value, stats), gradient = jax.value_and_grad(loss, has_aux=True)(state["params"])
    updates, moments = optimizer.update(gradient, moments)
    params = optax.apply_updates(state["params"], updates)
    return {"params": params, "stats": stats}, moments, value

  before, moments, losses = state, optimizer.init(state["params"]), []
  for number in range(20):
    state, moments, value = step(state, moments, jax.random.key(number))
    losses.append(float(value))
  assert losses[-1] < 0.3 * losses[0]
  # The classes do not come from the branches, which stay as they are.
  moved = {
    path[1].key
    for path, same in jax.tree.leaves_with_path(
      jax.tree.map(lambda a, b: bool((a == b).all()), before, state)
    )
    if not same
  }
  assert {name for name in moved if name.startswith("branch_")} == set()
  assert {"head", "token", "patches", "merge1", "stage1_block0"} <= moved


@pytest.mark.parametrize(
  ("options", "size", "message"),
  [
    ({"classify": "age"}, 56, "classify: expected tokens or expression, got age"),
    ({"classify": "expression", "num_classes": 7}, 56, "branches: expected True, as expressions"),
    ({"classify": "expression", "branches": True}, 56, "num_classes: expected 7, got 5"),
    ({}, 100, "faces: expected multiples of 56 x 56 pixels, got 100 x 100"),
  ],
)
def test_what_cannot_be_is_refused(options, size, message):
  with pytest.raises(ValueError, match=f"^{message}"):
    tiny(**options).init(jax.random.key(0), jnp.zeros((1, 1, size, size, 3)))


def test_every_parameter_has_one_depth(faces):
  model = tiny(branches=True, embedding_size=6)
  params = jax.eval_shape(model.init, jax.random.key(0), faces)["params"]
  flat = parameters.paths(params)
  found = [{path for path in flat if re.fullmatch(one, path)} for one in model.by_depth()]
  assert sorted(itertools.chain(*found)) == sorted(flat)
  assert [len({path.split("/")[0] for path in one}) for one in found] == [1, 2, 1, 2, 1, 15]
