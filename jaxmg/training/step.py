"""The training step and the prediction step: pure functions in which everything is an argument.

Everything random comes from one key, the number of the step and the clip's row in the data set, so
that neither the order of rows nor the number of devices changes it.
"""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh
from jaxtyping import Array, Key

from jaxmg import ranges, shapes
from jaxmg.training import parameters, sharding


class TrainState(flax.struct.PyTreeNode):
  """What training carries from step to step, all of it finite at all times."""

  step: Any  # int32: steps made, skipped ones included
  params: Any
  batch_stats: Any
  opt_state: Any  # of the parameters that are trained
  skipped: Any  # int32: steps whose loss or gradient was not finite, and which changed nothing
  ema: Any  # moving average of {"params", "batch_stats"}; {} where none is kept

  @property
  def variables(self) -> dict[str, Any]:
    """What to predict with: the moving average, where there is one."""
    return self.ema or {"params": self.params, "batch_stats": self.batch_stats}


def init_train_state(
  model: nn.Module,
  optimizer: optax.GradientTransformation,
  key: Key[Array, ""],
  example_input: Any,
  *,
  ema: bool = False,
  trainable: Sequence[str] = parameters.ALL,
) -> TrainState:
  """Initialises the model and its optimizer; pure, so `jax.eval_shape` of it gives the shapes.

  Of `example_input`, arrays or `jax.ShapeDtypeStruct`, the shapes count alone.

  `ema`: whether the step keeps a moving average; `trainable`: see `make_train_step`.
  """
  _check_parts(model, optimizer)
  example_input = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), example_input)
  variables = model.init(key, example_input, train=False)
  params, batch_stats = variables["params"], variables.get("batch_stats", {})
  return TrainState(
    step=jnp.int32(0),
    params=params,
    batch_stats=batch_stats,
    opt_state=optimizer.init(parameters.select(params, trainable)),
    skipped=jnp.int32(0),
    ema={"params": params, "batch_stats": batch_stats} if ema else {},
  )


def make_train_step(
  model: nn.Module,
  preprocess: Callable,
  loss_fn: Callable,
  optimizer: optax.GradientTransformation,
  *,
  accumulate: int = 1,
  ema_decay: float = 0.0,
  trainable: Sequence[str] = parameters.ALL,
) -> Callable:
  """Returns `train_step(state, batch, key) -> (state, metrics)`.

  `preprocess(keys, batch)` augments and renders, with one key per clip, and returns the model's
  inputs and the batch, whose labels it may have mixed; `loss_fn(logits, out, batch)` returns the
  loss and further scalars for the metrics. The model is called with
  `train=True` and `rows=batch["clip"]`. A step whose loss or gradient is not finite, or that would
  put something else than a finite number into the state, only counts: see `TrainState.skipped`.

  `accumulate` parts of the batch, of which only one is in memory at a time, go through the model
  one after the other, and the mean of their gradients makes the step; batch norms see a part each.
  Part i has the rows i, i + `accumulate`, ...: of every device as many.

  `TrainState.ema`, where it is kept, becomes its own share min(ema_decay, (1 + step) / (10 + step))
  and, for the rest, the new parameters and batch statistics (exponential moving average).

  `trainable` are patterns of the parameters that are trained (see `parameters`); the others stay,
  have no gradient, and no place in the optimizer. A module (Flax Linen, called with a keyword
  `train`) is called as in training only where all parameters in it are trained: what is frozen, in
  part or as a whole, has no dropout, and neither takes nor changes batch statistics. A module
  without parameters, such as a dropout, goes by the one that it is in. So the classifier alone is
  trained on the features of inference, and a block beside a frozen encoder keeps its dropout.

  Raises ValueError for what is none of these, as does the step, when it is traced: for a state of
  another optimizer or of other `trainable`, a batch without "clip", and what is no key.
  """
  _check_parts(model, optimizer)
  _check_function("preprocess", preprocess, "keys, batch", "recipe.train_inputs")
  _check_function("loss_fn", loss_fn, "logits, out, batch", "losses.classification()")
  if not ranges.is_whole(accumulate) or accumulate < 1:
    raise ValueError(f"accumulate: expected 1 or more, got {accumulate!r}")

  def train_step(state, batch, key):
    _check_call(state, batch, key, accumulate)
    if ema_decay and not state.ema:
      expected = "a state with a moving average (init_train_state(..., ema=True))"
      raise ValueError(f"ema_decay: expected {expected}, got one without")
    augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))

    def gradient_of(batch_stats, batch):
      clip_keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(augment_key, batch["clip"])
      inputs, batch = preprocess(clip_keys, batch)

      def loss_of(params):
        params = parameters.merge(state.params, params)
        with nn.intercept_methods(_train_where(params, trainable)):
          (logits, out), updated = model.apply(
            {"params": params, "batch_stats": batch_stats},
            inputs,
            train=True,
            rows=batch["clip"],
            rngs={"dropout": dropout_key},
            mutable=["batch_stats"],
          )
        loss, metrics = loss_fn(logits, out, batch)
        return loss, (updated.get("batch_stats", {}), metrics | {"loss": loss})

      params = parameters.select(state.params, trainable)
      (_, (batch_stats, metrics)), gradient = jax.value_and_grad(loss_of, has_aux=True)(params)
      return batch_stats, gradient, metrics

    batch_stats, gradient, metrics = _accumulate(gradient_of, state.batch_stats, batch, accumulate)
    params = parameters.select(state.params, trainable)
    _check_optimizer(optimizer, params, state.opt_state)
    updates, opt_state = optimizer.update(gradient, state.opt_state, params)
    params = parameters.merge(state.params, optax.apply_updates(params, updates))
    ema = state.ema
    if ema:
      share = jnp.minimum(ema_decay, (1 + state.step) / (10 + state.step))
      new = {"params": params, "batch_stats": batch_stats}
      ema = jax.tree.map(lambda old, new: new + share * (old - new), ema, new)
    old = (state.params, state.batch_stats, state.opt_state, state.ema)
    new = (params, batch_stats, opt_state, ema)
    # A norm is finite only if every leaf is. The barrier keeps XLA from computing it once per leaf.
    finite = jnp.isfinite(optax.tree.norm((metrics["loss"], gradient, updates, batch_stats)))
    finite = jax.lax.optimization_barrier(finite)
    params, batch_stats, opt_state, ema = jax.tree.map(
      lambda old, new: jnp.where(finite, new, old), old, new
    )
    skipped = state.skipped + jnp.where(finite, 0, 1)
    state = TrainState(state.step + 1, params, batch_stats, opt_state, skipped, ema)
    metrics |= {"gradient_norm": optax.tree.norm(gradient), "skipped": skipped}
    return state, metrics

  return train_step


def _check_parts(model: Any, optimizer: Any) -> None:
  if not isinstance(model, nn.Module):
    raise ValueError(f"model: expected a Flax module, got {type(model).__name__}")
  if not all(callable(getattr(optimizer, name, None)) for name in ("init", "update")):
    expected, got = "one of Optax, like optax.adamw(1e-3)", type(optimizer).__name__
    raise ValueError(f"optimizer: expected {expected}, got {got}")


def _check_function(name: str, function: Any, arguments: str, example: str) -> None:
  """Raises ValueError for what cannot be called with these; a maker that was not called is none."""
  try:
    inspect.signature(function).bind(*arguments.split())
  except TypeError as error:
    got = getattr(function, "__qualname__", type(function).__name__)
    expected = f"a function ({arguments}), like {example}"
    raise ValueError(f"{name}: expected {expected}, got {got}") from error


def _check_call(state: Any, batch: Any, key: Any, accumulate: int) -> None:
  """Raises ValueError, as a step is traced, for arguments that cannot be."""
  if not isinstance(state, TrainState):
    expected = "what init_train_state gives, of train_step(state, batch, key)"
    raise ValueError(f"state: expected {expected}, got {type(state).__name__}")
  if not isinstance(batch, Mapping) or "clip" not in batch:
    got = " and ".join(batch) if isinstance(batch, Mapping) else type(batch).__name__
    raise ValueError(f"batch: expected a dictionary with clip, int[B], got {got or 'none'}")
  shapes.check("clip", batch["clip"], "int", "B")
  if (count := len(batch["clip"])) % accumulate:
    raise ValueError(f"accumulate: expected a divisor of {count} clips, got {accumulate}")
  dtype, shape = getattr(key, "dtype", None), getattr(key, "shape", None)
  typed = dtype is not None and jnp.issubdtype(dtype, jax.dtypes.prng_key)
  if not (shape == () if typed else dtype == np.uint32 and shape in ((2,), (4,))):
    got = type(key).__name__ if dtype is None else f"{dtype}{list(shape)}"
    raise ValueError(f"key: expected jax.random.key(seed), got {got}")


def _check_optimizer(optimizer: Any, params: Any, opt_state: Any) -> None:
  """Raises ValueError where a state was made for another optimizer, or for other parameters."""
  expected, got = jax.eval_shape(optimizer.init, params), opt_state
  if jax.tree.map(jnp.shape, expected) != jax.tree.map(jnp.shape, got):
    expected = "one of this optimizer and trainable, given to init_train_state too"
    raise ValueError(f"state: expected {expected}, got another")


def _train_where(params, trainable):
  """Calls a module as in training where all parameters in it are trained; see `make_train_step`."""
  paths = parameters.paths(params)
  trained = parameters.matching(paths, trainable)

  def call(method, args, kwargs, context):
    if "train" not in kwargs or trained == {*paths}:  # then a model's own False stays
      return method(*args, **kwargs)
    names = context.module.path
    while not (inside := {path for path in paths if path.startswith("/".join((*names, "")))}):
      names = names[:-1]
    return method(*args, **kwargs | {"train": inside <= trained})

  return call


def _accumulate(gradient_of, batch_stats, batch, parts):
  """The batch statistics after the parts of a batch, and their mean gradient and metrics."""
  if parts == 1:
    return gradient_of(batch_stats, batch)

  def add(carry, part):
    batch_stats, total = carry
    # Written out, the parts would be computed and kept side by side: each waits for the one before.
    nothing = 0 * sum(leaf.ravel()[0] for leaf in jax.tree.leaves(total))
    part = jax.tree.map(
      lambda x: x + nothing.astype(x.dtype) if jnp.issubdtype(x.dtype, jnp.floating) else x, part
    )
    batch_stats, gradient, metrics = gradient_of(batch_stats, part)
    return (batch_stats, jax.tree.map(jnp.add, total, gradient)), metrics

  batch = jax.tree.map(lambda x: x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1), batch)
  shapes = jax.eval_shape(gradient_of, batch_stats, jax.tree.map(lambda x: x[0], batch))
  zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes[1])
  # In a loop, XLA runs the gradients of convolutions on CPUs many times as long.
  (batch_stats, total), metrics = jax.lax.platform_dependent(
    (batch_stats, zeros),
    batch,
    cpu=functools.partial(jax.lax.scan, add, unroll=True),
    default=functools.partial(jax.lax.scan, add),
  )
  mean = functools.partial(jnp.mean, axis=0)
  return batch_stats, jax.tree.map(lambda x: x / parts, total), jax.tree.map(mean, metrics)


def make_predict_step(
  model: nn.Module,
  views: Callable,
  preprocess: Callable,
  *,
  output: str = "probabilities",
  average: bool = True,
) -> Callable:
  """Returns `predict_step(params, batch_stats, batch) -> probabilities float32[B, K]`.

  `views(batch)` gives the views of the clips as arrays [R, B, ...], and `preprocess(view)` renders
  one of them. The probabilities of the R views are averaged, or what else of the model's `out` is
  named as `output`; with weights, the softmax over the views of its "gate" [B], where `out` has
  one. With `average=False` all are kept, [B, R, ...]. Only one view is rendered at a time.
  """

  def predict_step(params, batch_stats, batch):
    def output_of(view):
      variables = {"params": params, "batch_stats": batch_stats}
      logits, out = model.apply(variables, preprocess(view))
      if output == "probabilities":
        out = out | {output: jax.nn.softmax(logits.astype(jnp.float32))}
      wanted = [name for name in (output, "gate") if name in out]
      return {
        name: out[name].astype(jnp.promote_types(out[name].dtype, jnp.float32)) for name in wanted
      }

    found = jax.lax.map(output_of, views(batch))  # R B ...
    if not average:
      return found[output].swapaxes(0, 1)
    if "gate" not in found or output == "gate":
      return found[output].mean(axis=0)
    weights = jax.nn.softmax(found["gate"], axis=0)
    return jnp.einsum("rb,rb...->b...", weights, found[output])

  return predict_step


def compile_train_step(train_step: Callable, mesh: Mesh) -> Callable:
  """Jits a training step over the mesh; the state given to it is donated."""
  everywhere = sharding.replicated(mesh)
  return jax.jit(
    train_step,
    in_shardings=(everywhere, sharding.by_row(mesh), everywhere),
    out_shardings=everywhere,
    donate_argnums=0,
    compiler_options=sharding.compiler_options(mesh),
  )


def compile_predict_step(predict_step: Callable, mesh: Mesh) -> Callable:
  """Jits a prediction step over the mesh; what it returns stays split by row."""
  everywhere, by_row = sharding.replicated(mesh), sharding.by_row(mesh)
  return jax.jit(
    predict_step,
    in_shardings=(everywhere, everywhere, by_row),
    out_shardings=by_row,
    compiler_options=sharding.compiler_options(mesh),
  )
