import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen as nn

from jaxmg import errors
from jaxmg.models import layers
from jaxmg.training import losses, optimizers, parameters, sharding
from jaxmg.training import step as steps

SGD = optimizers.optimizer("sgd", lambda count: 0.1, weight_decay=1e-3)


def make(toy, optimizer, *, model=None, accumulate=1, ema_decay=0.0, trainable=(".*",)):
  model = model or toy.model
  options = dict(ema=ema_decay > 0, trainable=trainable)
  state = jax.jit(
    lambda key: steps.init_train_state(model, optimizer, key, toy.example, **options)
  )(toy.key)
  loss = losses.classification(label_smoothing=0.1)
  options = dict(accumulate=accumulate, ema_decay=ema_decay, trainable=trainable)
  return state, steps.make_train_step(model, toy.preprocess, loss, optimizer, **options)


@pytest.fixture(scope="module")
def made(toy):
  state, train_step = make(toy, SGD)
  return state, jax.jit(train_step)


def assert_same_bits(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_close(a, b):
  jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6), a, b)


def test_gradient_of_the_step_agrees_with_finite_differences(toy):
  with jax.enable_x64(True):
    state, train_step = make(toy, optax.sgd(1.0))
    state = state.replace(params=jax.tree.map(lambda x: x.astype(jnp.float64), state.params))
    train_step, batch = jax.jit(train_step), next(toy.Batches())
    after, _ = train_step(state, batch, toy.key)
    gradient = jax.tree.map(jnp.subtract, state.params, after.params)

    def loss(params):
      return train_step(state.replace(params=params), batch, toy.key)[1]["loss"]

    rng = np.random.default_rng(0)
    for path, leaf in jax.tree_util.tree_leaves_with_path(gradient):
      direction = rng.normal(size=leaf.shape)

      def moved(amount, path=path, direction=direction):
        return jax.tree_util.tree_map_with_path(
          lambda p, x: x + amount * direction if p == path else x, state.params
        )

      slope = (loss(moved(1e-5)) - loss(moved(-1e-5))) / 2e-5
      np.testing.assert_allclose((leaf * direction).sum(), slope, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("poison", ["values", "label"])
def test_step_that_is_not_finite_changes_nothing_but_the_counts(toy, made, poison):
  (state, train_step), batches = made, toy.Batches()
  state, _ = train_step(state, next(batches), toy.key)
  bad = next(batches)
  bad[poison][0] = np.nan if poison == "values" else -1
  after, metrics = train_step(state, bad, toy.key)
  assert_same_bits(after, state.replace(step=jnp.int32(2), skipped=jnp.int32(1)))
  assert np.isnan(metrics["loss"])
  after, metrics = train_step(after, next(batches), toy.key)
  assert (after.step, after.skipped, metrics["skipped"]) == (3, 1, 1)
  assert (after.params["head"]["bias"] != state.params["head"]["bias"]).all()


def test_update_that_overflows_never_reaches_the_parameters(toy):
  state, train_step = make(toy, optax.sgd(1e38, momentum=0.9))
  train_step, batches = jax.jit(train_step), toy.Batches()
  for _ in range(5):
    state, metrics = train_step(state, next(batches), toy.key)
  assert metrics["skipped"] > 0
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state))


def test_training_learns_and_moves_the_batch_statistics(toy, made):
  (start, train_step), batches = made, toy.Batches()
  state, history = start, []
  for _ in range(80):
    state, metrics = train_step(state, next(batches), toy.key)
    history.append(float(metrics["loss"]))
  assert np.mean(history[-10:]) < 0.8 * np.mean(history[:10])
  assert (start.batch_stats["bn"]["mean"] != state.batch_stats["bn"]["mean"]).all()


def test_order_of_the_rows_does_not_change_a_step(toy, made):
  state, train_step = made
  batch = next(toy.Batches())
  turned = {name: values[::-1] for name, values in batch.items()}
  assert_close(train_step(state, batch, toy.key), train_step(state, turned, toy.key))


def test_randomness_differs_from_step_to_step_and_key_to_key(toy, made):
  (state, train_step), batch = made, next(toy.Batches())
  found = {
    float(train_step(state.replace(step=jnp.int32(step)), batch, jax.random.key(seed))[1]["loss"])
    for step in range(3)
    for seed in range(3)
  }
  assert len(found) == 9


class NoNorm(nn.Module):
  @nn.compact
  def __call__(self, x, *, train=False, rows=None):
    x = jnp.tanh(nn.Dense(8)(x))
    return nn.Dense(3)(x), {"features": x}


@pytest.mark.parametrize("parts", [2, 4, 16])
def test_parts_of_a_batch_make_the_step_of_the_whole(toy, parts):
  batch, ends = next(toy.Batches()), []
  for accumulate in (1, parts):
    state, train_step = make(toy, SGD, model=NoNorm(), accumulate=accumulate)
    ends.append(jax.jit(train_step)(state, batch, toy.key))
  assert_close(*ends)


def test_parts_are_written_out_for_cpus_alone(toy):
  mesh, loops = sharding.data_mesh(jax.devices()[:1]), {}
  for accumulate in (1, 4):
    state, train_step = make(toy, SGD, accumulate=accumulate)
    step = steps.compile_train_step(train_step, mesh)
    traced = step.trace(state, next(toy.Batches()), toy.key)
    for platform in ("cpu", "cuda", "tpu"):  # from this process, which has CPUs
      text = traced.lower(lowering_platforms=(platform,)).as_text()
      loops[platform, accumulate] = text.count("stablehlo.while")
  added = {platform: loops[platform, 4] - loops[platform, 1] for platform, _ in loops}
  assert added == {"cpu": 0, "cuda": 1, "tpu": 1}


def test_parts_of_a_batch_need_the_memory_of_one(toy):
  wide, batch = Wide(), next(toy.Batches(size=64))
  needed = {}
  for accumulate in (1, 8):
    state, train_step = make(toy, SGD, model=wide, accumulate=accumulate)
    compiled = jax.jit(train_step).lower(state, batch, toy.key).compile()
    needed[accumulate] = compiled.memory_analysis().temp_size_in_bytes
  assert needed[8] < 0.4 * needed[1]


class Wide(nn.Module):
  """Needs much memory for each clip, and little for its parameters."""

  @nn.compact
  def __call__(self, x, *, train=False, rows=None):
    x = jnp.tile(x[:, None], (1, 4000, 1))
    for _ in range(4):
      x = jnp.tanh(nn.Dense(12)(x))
    return nn.Dense(3)(x.mean(1)), {"features": x}


def test_batch_norm_sees_one_part_after_the_other(toy):
  batch = next(toy.Batches())
  state, train_step = make(toy, optax.sgd(0.0), accumulate=2)
  after, _ = jax.jit(train_step)(state, batch, toy.key)
  _, one_step = make(toy, optax.sgd(0.0))
  expected = state
  for part in range(2):
    half = {name: values[part::2] for name, values in batch.items()}
    expected = jax.jit(one_step)(expected.replace(step=state.step), half, toy.key)[0]
  assert_close(after.batch_stats, expected.batch_stats)


def test_part_that_is_not_finite_spoils_the_step(toy):
  state, train_step = make(toy, SGD, accumulate=4, ema_decay=0.9)
  batch = next(toy.Batches())
  batch["values"][5] = np.nan
  after, metrics = jax.jit(train_step)(state, batch, toy.key)
  assert_same_bits(after, state.replace(step=jnp.int32(1), skipped=jnp.int32(1)))
  assert np.isnan(metrics["loss"])


def test_average_follows_parameters_and_statistics(toy):
  state, train_step = make(toy, SGD, ema_decay=0.6)
  train_step, batches = jax.jit(train_step), toy.Batches()
  average = {"params": state.params, "batch_stats": state.batch_stats}
  for step in range(12):
    state, _ = train_step(state, next(batches), toy.key)
    share = min(0.6, (1 + step) / (10 + step))
    new = {"params": state.params, "batch_stats": state.batch_stats}
    average = jax.tree.map(lambda x, y, share=share: share * x + (1 - share) * y, average, new)
  assert_close(state.ema, average)
  assert state.variables is state.ema
  with pytest.raises(ValueError, match=r"^ema_decay: expected a state with a moving average"):
    jax.eval_shape(train_step, state.replace(ema={}), next(toy.Batches()), toy.key)
  plain, _ = make(toy, SGD)
  assert_same_bits(plain.variables, {"params": plain.params, "batch_stats": plain.batch_stats})


def test_what_is_not_trained_stays_and_the_model_is_that_of_inference(toy):
  optimizer = optimizers.optimizer("adamw", lambda count: 0.1, weight_decay=0.1)
  state, train_step = make(toy, optimizer, trainable=("head/.*",))
  moments = [leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim == 2]
  assert {leaf.shape for leaf in moments} == {(8, 3)}
  batch = next(toy.Batches())
  after, metrics = jax.jit(train_step)(state, batch, toy.key)
  assert_same_bits(after.batch_stats, state.batch_stats)
  for name in state.params:
    moved = [
      (a != b).any()
      for a, b in zip(*map(jax.tree.leaves, (after.params[name], state.params[name])), strict=True)
    ]
    assert all(moved) if name == "head" else not any(moved)
  _, everything = make(toy, optimizer)
  assert metrics["loss"] != jax.jit(everything)(make(toy, optimizer)[0], batch, toy.key)[1]["loss"]


class Mode(nn.Module):
  """Has no parameters, like a dropout; tells in which mode it was called."""

  @nn.compact
  def __call__(self, x, *, train):
    self.sow("modes", "train", train)
    return x


class Block(nn.Module):
  @nn.compact
  def __call__(self, x, *, train):
    x = layers.BatchNorm(name="bn")(nn.Dense(8, name="dense")(x), train=train)
    return Mode(name="mode")(x, train=train)


class Nested(nn.Module):
  """Parts of which some may be frozen."""

  @nn.compact
  def __call__(self, x, *, train=False, rows=None):
    x = Block(name="encoder")(x, train=train)
    x = Mode(name="mode")(Block(name="fusion")(x, train=train), train=train)
    return nn.Dense(3, name="head")(x), {}


@pytest.mark.parametrize(
  ("trainable", "training"),
  [
    ((".*",), {"encoder", "fusion", ""}),
    (("fusion/.*", "head/.*"), {"fusion"}),
    (("(?!encoder/).*",), {"fusion"}),
    (("head/.*",), set()),
    (("fusion/dense/.*", "head/.*"), set()),
  ],
)
def test_a_module_is_in_training_where_all_of_it_is_trained(toy, trainable, training, monkeypatch):
  modes = {}
  monkeypatch.setattr(Mode, "sow", lambda self, *_: modes.update({self.path[:-1]: _[-1]}))
  state, train_step = make(toy, SGD, model=Nested(), trainable=trainable)
  after, _ = jax.jit(train_step)(state, next(toy.Batches()), toy.key)
  assert {"/".join(path) for path, train in modes.items() if train} == training
  for name in ("encoder", "fusion"):
    before, found = (x.batch_stats[name]["bn"]["mean"] for x in (state, after))
    assert (before != found).any() == (name in training)


def test_only_leaves_that_a_pattern_matches_move(toy):
  trainable = ("fusion/(dense/kernel|bn/.*)", "head/bias")
  state, train_step = make(toy, optax.adam(0.1), model=Nested(), trainable=trainable)
  after, _ = jax.jit(train_step)(state, next(toy.Batches()), toy.key)
  before, found = map(dict, map(jax.tree.leaves_with_path, (state.params, after.params)))
  moved = {
    jax.tree_util.keystr(path, simple=True, separator="/")
    for path, leaf in found.items()
    if (leaf != before[path]).any()
  }
  trained = {"fusion/dense/kernel", "fusion/bn/scale", "fusion/bn/bias", "head/bias"}
  assert moved == trained
  assert set(parameters.paths(state.opt_state[0].mu)) == trained


def test_a_pattern_that_matches_nothing_is_refused(toy):
  with pytest.raises(errors.ConfigError, match=r"got haed/\.\*, which matches none of 4") as caught:
    make(toy, SGD, model=NoNorm(), trainable=("haed/.*",))
  assert str(caught.value).count("\n") == 0


@pytest.mark.parametrize("accumulate", [1, 2])
def test_one_two_and_eight_devices_agree(toy, accumulate):
  ends = []
  for count in (1, 2, 8):
    mesh = sharding.data_mesh(jax.devices()[:count])
    state, train_step = make(toy, SGD, accumulate=accumulate)
    state, batches = sharding.replicate(mesh, state), toy.Batches()
    train_step = steps.compile_train_step(train_step, mesh)
    for _ in range(10):
      state, metrics = train_step(state, sharding.shard_batch(mesh, next(batches)), toy.key)
    ends.append(jax.device_get((state, metrics)))
  assert_close(ends[1], ends[0])
  assert_close(ends[2], ends[0])


def test_state_is_donated(toy):
  mesh = sharding.data_mesh(jax.devices()[:2])
  state, train_step = make(toy, SGD)
  state = sharding.replicate(mesh, state)
  batch = sharding.shard_batch(mesh, next(toy.Batches()))
  steps.compile_train_step(train_step, mesh)(state, batch, toy.key)
  assert all(leaf.is_deleted() for leaf in jax.tree.leaves((state.params, state.opt_state)))


def test_shapes_of_the_state_are_known_without_computing_it(toy, made):
  shapes = jax.eval_shape(
    lambda key: steps.init_train_state(toy.model, SGD, key, toy.example), toy.key
  )
  assert jax.tree.map(jnp.shape, made[0]) == jax.tree.map(jnp.shape, shapes)


def test_prediction_is_the_mean_of_the_views_probabilities(toy, made):
  state, _ = made
  found, both = of_two_views(toy, state)
  np.testing.assert_allclose(found, sum(map(jax.nn.softmax, both["logits"])) / 2, rtol=1e-5)


def test_prediction_may_keep_the_views_apart(toy, made):
  state, _ = made
  found, both = of_two_views(toy, state, output="features", average=False)
  assert found.shape == (16, 2, 8)
  np.testing.assert_allclose(found, jnp.stack(both["features"], 1), rtol=1e-5)


class Gated(nn.Module):
  """Logits, and a gate, that are what it is given."""

  @nn.compact
  def __call__(self, x):
    return x[:, :2], {"gate": x[:, 2], "features": x}


def test_a_gate_weighs_the_views():
  views = jax.random.normal(jax.random.key(0), (3, 5, 3)) * 3

  def predicted(**options):
    step = steps.make_predict_step(Gated(), lambda batch: views, lambda view: view, **options)
    return np.asarray(jax.jit(step)({}, {}, {}))

  shares = np.asarray(jax.nn.softmax(views[..., 2], 0))[..., None]
  found = np.asarray(jax.nn.softmax(views[..., :2]))
  np.testing.assert_allclose(predicted(), (shares * found).sum(0), rtol=1e-5)
  np.testing.assert_allclose(
    predicted(output="features"), (shares * views).sum(0), rtol=1e-4, atol=1e-5
  )
  np.testing.assert_allclose(predicted(average=False), found.swapaxes(0, 1), rtol=1e-5)
  np.testing.assert_allclose(predicted(output="gate"), views[..., 2].mean(0), rtol=1e-5)


def of_two_views(toy, state, **options):
  """What a prediction step makes of clips and of their negatives; the model's outputs of either."""
  values = next(toy.Batches())["values"]
  predict = steps.make_predict_step(
    toy.model,
    lambda batch: jnp.stack([batch["values"], -batch["values"]]),
    lambda view: view,
    **options,
  )
  found = jax.jit(predict)(state.params, state.batch_stats, {"values": values})
  variables = {"params": state.params, "batch_stats": state.batch_stats}
  views = [jax.jit(toy.model.apply)(variables, x) for x in (values, -values)]
  return found, {
    "logits": [logits for logits, _ in views],
    "features": [out["features"] for _, out in views],
  }
