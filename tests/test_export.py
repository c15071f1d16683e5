"""The way from key points to the new state as one program: exported, and differentiated."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxmg import inputs, models, recipe, skeletons
from jaxmg.data import batch as batches
from jaxmg.training import losses, optimizers, sharding, step

SKELETON = skeletons.get("imigue22")
KINECT25 = skeletons.get("kinect25")
CHANNELS = {"joint": 22, "limb": 21}
KINDS = tuple(CHANNELS)
NAMES = ("nod", "shake", "wave")
# As in the tiny variants.
MODEL = {"num_classes": 3, "width": 4, "depths": (1, 1)}

fake = functools.partial(batches.fake, num_joints=22)
# Each program runs a few times, so that compiling it is what takes long.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def filled(shapes, dtype=jnp.float32):
  """Seeded values for a tree of shapes: initialising takes longer, and has scales of 0."""
  rng = np.random.default_rng(0)

  def fill(path, leaf):
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
      return np.zeros(leaf.shape, leaf.dtype)
    if path[-1] in map(jax.tree_util.DictKey, ("scale", "var")):
      return rng.uniform(0.5, 1.5, leaf.shape).astype(dtype)
    fan_in = max(1, np.prod(leaf.shape[:-1]))
    return (rng.normal(size=leaf.shape) / np.sqrt(fan_in)).astype(dtype)

  return jax.tree_util.tree_map_with_path(fill, shapes)


def assert_exported_alike(function, compiler, *args):
  """Exports a function for all platforms; what comes back gives the same numbers here."""
  compiled = compiler(function, sharding.data_mesh(jax.devices()[:1]))
  exported = export.export(compiled, platforms=("cpu", "cuda", "tpu"))(*args)
  text = exported.mlir_module()
  assert "?x" not in text  # every shape is static
  assert "xla_cpu" not in text  # the options for CPUs stay here
  restored = export.deserialize(exported.serialize())
  assert restored.platforms == ("cpu", "cuda", "tpu")

  @quick_jit  # one program, in which XLA compiles what is equal once
  def both(*args):
    return restored.call(*args), function(*args)

  found, expected = both(*args)
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), found, expected)
  return found


def heatmaps(batch, keys, kind, **options):
  return inputs.heatmap_inputs(
    **{"pose": batch["pose"]["keypoints"], "frame_size": batch["pose"]["frame_size"]},
    skeleton=SKELETON,
    stream=kind,
    keys=keys,
    **options,
  )


@pytest.mark.parametrize("kind", KINDS)
def test_training_step_runs_on_every_platform(kind):
  model = models.MODELS["posec3d"](**MODEL)
  schedule = optimizers.schedule("cosine", learning_rate=0.1, steps=10)
  optimizer = optimizers.optimizer("sgd", schedule, weight_decay=1e-3, clip_norm=40.0)
  options = dict(mirror=True, rotation=10.0, jitter=1.0, joint_dropout=0.1)
  train_step = step.make_train_step(
    model,
    lambda keys, batch: (heatmaps(batch, keys, kind, size=16, **options), batch),
    losses.classification(label_smoothing=0.1),
    optimizer,
  )
  shapes = jax.eval_shape(
    lambda key: step.init_train_state(
      model, optimizer, key, jnp.zeros((1, 4, 16, 16, CHANNELS[kind]))
    ),
    jax.random.key(0),
  )
  leaves, structure = jax.tree.flatten(filled(shapes))

  def on_leaves(leaves, batch, key):  # the state's own types have no serial form
    state, metrics = train_step(jax.tree.unflatten(structure, leaves), batch, key)
    return jax.tree.leaves(state), metrics

  _, metrics = assert_exported_alike(
    on_leaves, step.compile_train_step, leaves, fake(), jax.random.key(0)
  )
  assert metrics["skipped"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_prediction_runs_on_every_platform(kind):
  one = inputs.Heatmaps(SKELETON, (72, 128), stream=kind, test_size=16)
  found = recipe.Recipe({"name": "posec3d"} | MODEL, {"pose": one}, NAMES, mirror=True)
  model = found.build_model()
  example = jnp.zeros((1, 4, 16, 16, CHANNELS[kind]))
  variables = filled(jax.eval_shape(model.init, jax.random.key(0), example))
  predict_step = found.predict_step(model)
  args = (variables["params"], variables["batch_stats"], fake(num_views=2))
  probabilities = assert_exported_alike(predict_step, step.compile_predict_step, *args)
  np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)


NTU = {"points": "joints3d", "sampling": "repeat", "num_persons": 2, "preparation": "ntu"}


@pytest.mark.parametrize(
  ("skeleton", "stream", "options"),
  [(SKELETON, "joint", {}), (SKELETON, "bone_motion", {}), (KINECT25, "bone", NTU)],
)
def test_prediction_from_a_graph_runs_on_every_platform(skeleton, stream, options):
  size = {"width": 4, "depths": (1, 1)}
  agcn = {"name": "agcn", "num_classes": 3, "parents": skeleton.parents, **size}
  one = inputs.Graph(skeleton, (72, 128), stream=stream, **options)
  found = recipe.Recipe(agcn, {"pose": one}, NAMES, mirror=True)
  model = found.build_model()
  persons, joints = one.num_persons, skeleton.num_joints
  example = jnp.zeros((1, 4, persons, joints, 3))
  variables = filled(jax.eval_shape(model.init, jax.random.key(0), example))
  predict_step = found.predict_step(model)
  batch = batches.fake(num_views=2, num_persons=persons, num_joints=joints)
  batch["pose"][one.points] = batch["pose"].pop("keypoints")
  args = (variables["params"], variables["batch_stats"], batch)
  probabilities = assert_exported_alike(predict_step, step.compile_predict_step, *args)
  np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)


def test_gradient_from_key_points_to_loss_is_that_of_finite_differences():
  with jax.enable_x64(True):
    model = models.MODELS["posec3d"](**MODEL, dtype=jnp.float64)
    loss_fn = losses.classification()

    @quick_jit
    @jax.value_and_grad
    def loss_and_gradient(params, batch_stats, batch):
      (logits, out), _ = model.apply(
        {"params": params, "batch_stats": batch_stats},
        heatmaps(batch, None, "joint", size=16),
        train=True,
        rows=batch["clip"],
        rngs={"dropout": jax.random.key(0)},
        mutable=["batch_stats"],
      )
      return loss_fn(logits, out, batch)[0]

    example = jnp.zeros((1, 4, 16, 16, CHANNELS["joint"]))
    shapes = jax.eval_shape(model.init, jax.random.key(0), example)
    params, batch_stats = map(filled(shapes, np.float64).get, ("params", "batch_stats"))
    batch = fake()
    batch["pose"]["keypoints"] = batch["pose"]["keypoints"].astype(np.float64)
    _, gradient = loss_and_gradient(params, batch_stats, batch)
    gradient = jax.tree.map(np.asarray, gradient)

    rng = np.random.default_rng(1)
    # Up the slope in every single parameter, so that no error cancels another.
    direction = jax.tree.map(
      lambda g: np.where(g < 0, -1, 1) * rng.uniform(0.5, 1, g.shape), gradient
    )
    slope = sum(jax.tree.leaves(jax.tree.map(np.vdot, gradient, direction)))

    def loss(move):
      moved = jax.tree.map(lambda p, d: p + move * d, params, direction)
      return loss_and_gradient(moved, batch_stats, batch)[0]

    np.testing.assert_allclose(slope, (loss(1e-7) - loss(-1e-7)) / 2e-7, rtol=1e-6)
