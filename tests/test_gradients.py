"""PyTorch's gradients: of the pooling with ties, of the rendering, and of whole training steps."""

import functools
import importlib.util
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxmg import models
from jaxmg.models import layers
from jaxmg.pretrained import convert, posec3d
from jaxmg.skeletons import heatmaps
from jaxmg.training import losses, optimizers, step

GOLDEN = pathlib.Path(__file__).parent / "golden"
# Each program runs once or twice, so that compiling it is what takes long.
quick_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def golden(part):
  with np.load(GOLDEN / "gradients.npz") as archive:
    names = [name for name in archive.files if name.startswith(part + ".")]
    return {name.removeprefix(part + "."): archive[name] for name in names}


def assert_close(found, expected):
  """Every array to 1e-5 of its own largest value."""
  jax.tree.map(
    lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-5 * np.abs(b).max()),
    found,
    expected,
  )


def test_max_pool_gradient_goes_to_the_first_of_equal_values():
  x, upstream, expected = (
    np.moveaxis(golden("pool")[name], 1, -1) for name in ("x", "upstream", "gradient")
  )
  _, pullback = jax.vjp(layers.max_pool_3x3, jnp.asarray(x))
  assert_close(pullback(upstream)[0], expected)


@pytest.mark.parametrize("kind", ["joint", "limb"])
@pytest.mark.parametrize("window", [True, False])
def test_gradient_of_the_render_is_that_of_pytorch(kind, window):
  arrays = golden(kind)

  def draw(points):
    options = dict(size=(12, 14), sigma=0.8, window=window)
    if kind == "joint":
      return heatmaps.render_joints(points, **options)
    return heatmaps.render_limbs(points, [(0, 1), (1, 2), (2, 3)], **options)

  @quick_jit
  def gradient(points, upstream):
    return jax.vjp(draw, points)[1](upstream)[0]

  found = gradient(arrays["points"], arrays["upstream"])
  assert_close(found, arrays["windowed" if window else "smooth"])


def seeded_state_dict(names_and_shapes):
  spec = importlib.util.spec_from_file_location("seeded", GOLDEN / "seeded.py")
  seeded = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(seeded)
  return {name: seeded.seeded_array(name, shape) for name, shape in names_and_shapes}


def keep_gradient():
  """An optimizer's first link: its state is the last gradient."""
  return optax.GradientTransformation(
    lambda params: jax.tree.map(jnp.zeros_like, params), lambda gradient, *_: (gradient, gradient)
  )


def test_training_steps_are_those_of_pytorch():
  arrays = golden("step")
  model = models.MODELS["posec3d"](5, width=4, depths=(1, 1, 1), dropout=0.0)
  optimizer = optax.chain(
    keep_gradient(),
    optimizers.optimizer("sgd", lambda count: 0.1, weight_decay=0.01, clip_norm=0.5),
  )
  state = jax.eval_shape(
    lambda key: step.init_train_state(model, optimizer, key, jnp.zeros((1, 4, 12, 12, 4))),
    jax.random.key(0),
  )
  shapes = {"params": state.params}

  def ours(part):  # from PyTorch's names to our tree
    prefix = part + "."
    tensors = {n.removeprefix(prefix): arrays[n] for n in arrays if n.startswith(prefix)}
    return convert.convert(tensors, shapes, posec3d.RULES)["params"]

  weights = seeded_state_dict(
    (name.removeprefix("after."), arrays[name].shape) for name in arrays if "after." in name
  )
  params = convert.convert(weights, shapes, posec3d.RULES)["params"]
  # In training the running statistics do not enter: any will do.
  batch_stats = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), state.batch_stats)
  state = step.TrainState(
    jnp.int32(0), params, batch_stats, optimizer.init(params), jnp.int32(0), {}
  )
  train_step = quick_jit(
    step.make_train_step(
      model,
      lambda keys, batch: (
        heatmaps.render_joints(batch["keypoints"], size=(12, 12), sigma=0.8),
        batch,
      ),
      losses.classification(),
      optimizer,
    )
  )
  batch = {"keypoints": arrays["keypoints"], "label": arrays["label"], "clip": np.arange(3)}
  state, first = train_step(state, batch, jax.random.key(0))
  assert_close(state.opt_state[0], ours("gradient"))
  state, second = train_step(state, batch, jax.random.key(0))
  np.testing.assert_allclose([first["loss"], second["loss"]], arrays["loss"], rtol=1e-5)
  assert_close(state.params, ours("after"))
