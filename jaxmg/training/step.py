"""The training step and the prediction step: pure functions in which everything is an argument.

Everything random comes from one key, the number of the step and the clip's row in the data set, so
that neither the order of rows nor the number of devices changes it.
"""

from collections.abc import Callable
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import optax
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Key

from jaxmg.training import sharding


class TrainState(flax.struct.PyTreeNode):
  """What training carries from step to step, all of it finite at all times."""

  step: Any  # int32: steps made, skipped ones included
  params: Any
  batch_stats: Any
  opt_state: Any
  skipped: Any  # int32: steps whose loss or gradient was not finite, and which changed nothing


def init_train_state(
  model: nn.Module, optimizer: optax.GradientTransformation, key: Key[Array, ""], example_input: Any
) -> TrainState:
  """Initialises the model and its optimizer; pure, so `jax.eval_shape` of it gives the shapes."""
  variables = model.init(key, example_input, train=False)
  return TrainState(
    step=jnp.int32(0),
    params=variables["params"],
    batch_stats=variables.get("batch_stats", {}),
    opt_state=optimizer.init(variables["params"]),
    skipped=jnp.int32(0),
  )


def make_train_step(
  model: nn.Module,
  preprocess: Callable,
  loss_fn: Callable,
  optimizer: optax.GradientTransformation,
) -> Callable:
  """Returns `train_step(state, batch, key) -> (state, metrics)`.

  `preprocess(keys, batch)` augments and renders, with one key per clip; `loss_fn(logits, out,
  batch)` returns the loss and further scalars for the metrics. The model is called with
  `train=True` and `rows=batch["clip"]`. A step whose loss or gradient is not finite, or that would
  put something else than a finite number into the state, only counts: see `TrainState.skipped`.
  """

  def train_step(state, batch, key):
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
    clip_keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(augment_key, batch["clip"])
    inputs = preprocess(clip_keys, batch)

    def loss_of(params):
      (logits, out), updated = model.apply(
        {"params": params, "batch_stats": state.batch_stats},
        inputs,
        train=True,
        rows=batch["clip"],
        rngs={"dropout": dropout_key},
        mutable=["batch_stats"],
      )
      loss, metrics = loss_fn(logits, out, batch)
      return loss, (updated.get("batch_stats", {}), metrics)

    (loss, (batch_stats, metrics)), gradient = jax.value_and_grad(loss_of, has_aux=True)(
      state.params
    )
    updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
    old = (state.params, state.batch_stats, state.opt_state)
    new = (optax.apply_updates(state.params, updates), batch_stats, opt_state)
    # A norm is finite only if every leaf is. The barrier keeps XLA from computing it once per leaf.
    finite = jnp.isfinite(optax.tree.norm((loss, gradient, updates, batch_stats)))
    finite = jax.lax.optimization_barrier(finite)
    params, batch_stats, opt_state = jax.tree.map(
      lambda old, new: jnp.where(finite, new, old), old, new
    )
    skipped = state.skipped + jnp.where(finite, 0, 1)
    state = TrainState(state.step + 1, params, batch_stats, opt_state, skipped)
    metrics |= {"loss": loss, "gradient_norm": optax.tree.norm(gradient), "skipped": skipped}
    return state, metrics

  return train_step


def make_predict_step(model: nn.Module, views: Callable, preprocess: Callable) -> Callable:
  """Returns `predict_step(params, batch_stats, batch) -> probabilities float32[B, K]`.

  `views(batch)` gives the views of the clips as arrays [R, B, ...], and `preprocess(view)` renders
  one of them. The probabilities of the R views are averaged; only one is rendered at a time.
  """

  def predict_step(params, batch_stats, batch):
    def probabilities(view):
      variables = {"params": params, "batch_stats": batch_stats}
      logits, _ = model.apply(variables, preprocess(view))
      return jax.nn.softmax(logits.astype(jnp.float32))

    return jax.lax.map(probabilities, views(batch)).mean(axis=0)

  return predict_step


def compile_train_step(train_step: Callable, mesh: Mesh) -> Callable:
  """Jits a training step over the mesh; the state given to it is donated."""
  everywhere = sharding.replicated(mesh)
  return jax.jit(
    train_step,
    in_shardings=(everywhere, sharding.by_row(mesh), everywhere),
    out_shardings=everywhere,
    donate_argnums=0,
    compiler_options=sharding.compiler_options(),
  )


def compile_predict_step(predict_step: Callable, mesh: Mesh) -> Callable:
  """Jits a prediction step over the mesh; the probabilities stay split by row."""
  everywhere, by_row = sharding.replicated(mesh), sharding.by_row(mesh)
  return jax.jit(
    predict_step,
    in_shardings=(everywhere, everywhere, by_row),
    out_shardings=by_row,
    compiler_options=sharding.compiler_options(),
  )
