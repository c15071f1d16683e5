"""From a config to a training run: what all experiments share.

An experiment says what is its own: `describe(config, data, skeleton)` gives the "model" and the
"inputs" of the recipe (see `jaxmg.recipe`).
"""

import functools
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from experiments import evaluate, launch
from jaxmg import errors
from jaxmg import recipe as recipes
from jaxmg.data import embeddings, pipeline
from jaxmg.data.source import Source
from jaxmg.recipe import Recipe
from jaxmg.skeletons import topology
from jaxmg.skeletons.topology import Skeleton
from jaxmg.training import checkpoints, loop, losses, optimizers, sharding, step

NTU_FRAME_SIZE = (1080, 1920)  # of clips that come without one, for published weights


class Weights(NamedTuple):
  """What an experiment says of a file of another framework's weights; see `import_weights`."""

  model: dict[str, Any]  # without the number of classes
  inputs: dict[str, Any]
  num_clips: int  # test views
  mirror: bool
  example: tuple[int, ...]  # the shape of what the network of the file is given
  fit: Callable[[dict], dict] = lambda variables: variables  # to what ours is given
  notes: tuple[str, ...] = ()  # lines to print


def run(config, workdir: pathlib.Path, *, describe: Callable) -> None:
  """Trains the model of a config in a work directory, from where it stopped.

  `describe(config, data, skeleton)` returns the model and the inputs of the recipe.
  """
  mesh = sharding.data_mesh()
  check_batch_size(config, mesh)
  check_stage(config)
  data = Source(os.path.join(config.data.dir, config.data.name))
  table = label_embeddings(config, data)
  recipe = make_recipe(config, data, describe, table)
  rows = data.rows("train", protocol=config.data.protocol, fold=recipe.data["fold"])
  classifier_only = config.stage == "classifier"
  trainable = ("head",) if classifier_only else None
  drawn = {
    "balanced": classifier_only,
    "batch_size": config.train.batch_size,
    "seed": config.train.seed,
  }
  inputs = launch.flatten(recipes.to_json(recipe)["inputs"])
  fingerprint = pipeline.fingerprint(data, rows, **inputs, **drawn)
  if table is not None:
    fingerprint["label embeddings"] = recipe.label_embeddings
  batches = pipeline.train_batches(
    data,
    rows,
    recipe.inputs,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    **drawn,
  )

  steps_per_epoch = len(rows) // config.train.batch_size
  optimizer, schedule, rate = make_optimizer(config, steps_per_epoch)
  counts = class_counts(data, rows, balanced=classifier_only)

  model = recipe.build_model(jnp.dtype(config.train.dtype))
  train_step = step.make_train_step(
    model,
    recipe.train_inputs,
    make_loss(config, counts, None if classifier_only else table),
    optimizer,
    accumulate=config.train.accumulate,
    ema_decay=config.train.ema,
    trainable=trainable,
  )
  init = functools.partial(
    step.init_train_state, model, optimizer, ema=config.train.ema > 0, trainable=trainable
  )
  init_key, train_key = jax.random.split(jax.random.key(config.train.seed))
  example = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), recipe.example())
  state = sharding.on_host(init, init_key, example)

  parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  if jax.process_index() == 0:
    print(
      f"{data.name}{' (synthetic)' if data.synthetic else ''}: {len(rows)} training clips of "
      f"{len(data.class_names)} classes; {recipe}\n"
      f"{config.model.name} {config.model.variant}: {parameters:,} parameters\n"
      f"learning rate {config.optimizer.learning_rate:g} x batch {config.train.batch_size} / "
      f"{config.optimizer.reference_batch} = {rate:g}",
      flush=True,
    )
    if table is not None:
      found = (
        config.semantic.table or "built in, of the spelling of the names: no corpus, no meaning"
      )
      mean_square = np.square(table).mean()
      print(f"label embeddings: {found}; {table.shape[1]} values, mean square {mean_square:.3g}")
  with checkpoints.Checkpoints(workdir / "checkpoints", fingerprint=fingerprint) as saved:
    if saved.latest_step() is None:
      if config.init_from:
        state = with_weights(state, config.init_from, recipe, data, new=trainable or ())
      if jax.process_index() == 0:
        if table is not None:
          np.save(workdir / recipes.LABELS, table)
        recipes.save(workdir, recipe)  # weights keep their recipe
    loop.train(
      state,
      step.compile_train_step(train_step, mesh),
      batches,
      mesh=mesh,
      steps=config.schedule.epochs * steps_per_epoch,
      steps_per_epoch=steps_per_epoch,
      key=train_key,
      learning_rate=schedule,
      checkpoints=saved,
      logger=loop.Logger(workdir),
      evaluate=evaluate.validation(recipe, model, data, mesh),
      evaluate_every=config.train.evaluate_every,
      log_every=config.train.log_every,
      stop=launch.stop_reason,
    )


def make_recipe(config, data: Source, describe: Callable, table: np.ndarray | None) -> Recipe:
  """What a run is, beside its weights; `table` are the label embeddings."""
  model, inputs = describe(config, data, find_skeleton(config, data))
  if table is not None:
    model["embedding_size"] = table.shape[1]
  return Recipe(
    model=model,
    inputs=inputs,
    class_names=data.class_names,
    num_clips=config.sampling.test_clips,
    mirror=config.sampling.mirror and data.mirror,
    data=describe_data(data, protocol=config.data.protocol, fold=parse_fold(config.data.fold)),
    label_embeddings=None if table is None else recipes.table_digest(table),
  )


def pose_fields(config, data: Source, skeleton: Skeleton) -> dict[str, Any]:
  """The fields that all inputs of poses have."""
  return {
    "skeleton": skeleton,
    "frame_size": data.frame_size,
    "sampling": config.sampling.kind,
    "num_frames": config.sampling.num_frames,
    "num_persons": config.sampling.num_persons or data.num_persons,
    "crop": config.sampling.crop,
    "style": config.sampling.style,
  }


def make_input(config, kind: type, fields: dict[str, Any]) -> Any:
  """An input with these fields; ConfigError where they cannot be."""
  try:
    return recipes.make(kind, fields)
  except ValueError as error:
    field = str(error).partition(":")[0]
    sections = [name for name in ("inputs", "augment", "sampling") if field in config[name]]
    raise errors.ConfigError(f"--config.{'.'.join([*sections[:1], str(error)])}") from error


def describe_data(
  data: Source, *, protocol: str | None = None, fold: list[int] | None = None
) -> dict:
  """A data set in a recipe."""
  return {
    "name": data.name,
    "version": data.version,
    "fingerprint": data.fingerprint(),
    "directory": str(data.directory.resolve()),
    "protocol": protocol,
    "fold": fold,
    "synthetic": data.synthetic,
  }


def find_skeleton(config, data: Source) -> Skeleton:
  """One of ours, or the data set's, which may be a user's own."""
  if config.skeleton in (None, data.skeleton):
    return data.layout
  try:
    return topology.get(config.skeleton)
  except ValueError as error:
    raise errors.ConfigError(f"--config.skeleton: {error}") from error


def variant(config, name: str, variants: dict[str, dict]) -> dict:
  """The options of `config.model.variant` of the model called `name`."""
  for key, choices in (("name", [name]), ("variant", variants)):
    if config.model[key] not in choices:
      expected = " or ".join(choices)
      raise errors.ConfigError(f"--config.model.{key}", expected=expected, got=config.model[key])
  return variants[config.model.variant]


def with_weights(
  state: step.TrainState, run: str, recipe: Recipe, data: Source, *, new: Sequence[str] = ()
) -> step.TrainState:
  """The state with the weights of another run, which must be those of the very same model.

  Only one of the two may have a head for label embeddings. The parameters named by `new` stay as
  they are; if there are any, the others are not trained, and must see what they were trained on.
  """
  where = f"--config.init_from={run}"
  if pathlib.Path(run).is_file():
    hint = "PyTorch's weights: experiments.import_weights makes one"
    raise errors.CheckpointError(where, expected="a run directory", got="a file", hint=hint)
  theirs = recipes.load(run)
  loose = ("dropout", "embedding_size")
  ours, others = (
    {name: x for name, x in one["model"].items() if name not in loose}
    | (one["inputs"] if new else {})
    for one in (seen_by(recipe), seen_by(theirs))
  )
  ours, others = launch.flatten(ours), launch.flatten(others)
  for name in [*ours, *(others.keys() - ours.keys())]:
    if ours.get(name) != others.get(name):
      hint = "of other classes: import_weights --drop_head" if name == "num_classes" else None
      expected, got = ours.get(name), others.get(name)
      raise errors.CheckpointError(f"{where}: {name}", expected=expected, got=got, hint=hint)
  trained = pathlib.Path(run, "config.json").is_file()  # and not imported: those saw other data
  if trained and (seen := held_out_clips(data, recipe.data, theirs.data)):
    expected = "weights that have not seen the clips held out here"
    raise errors.CheckpointError(where, expected=expected, got=f"{seen} trained on")
  found = checkpoints.restore_variables(pathlib.Path(run) / "checkpoints", "best")
  if "embedding" not in state.params:
    found["params"].pop("embedding", None)
  elif "embedding" not in found["params"]:
    new = (*new, "embedding")
  found["params"] |= {name: state.params[name] for name in new}
  wanted = {"params": state.params, "batch_stats": state.batch_stats}
  shapes = [
    {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree.leaves_with_path(tree)}
    for tree in (wanted, found)
  ]
  if wrong := sorted(name for name, _ in shapes[0].items() ^ shapes[1].items()):
    expected, got = (shape.get(wrong[0], "nothing") for shape in shapes)
    hint = f"{len(set(wrong))} such weights; other joints or persons?"
    raise errors.CheckpointError(f"{where}: {wrong[0]}", expected=expected, got=got, hint=hint)
  if jax.process_index() == 0:
    print(f"begins with the weights of {run}", flush=True)
  return state.replace(**found, ema=found if state.ema else {})


def seen_by(recipe: Recipe) -> dict[str, Any]:
  """The model, and of its inputs the fields that must not change under trained weights."""
  content = recipes.to_json(recipe)
  return {
    "model": content["model"],
    "inputs": {
      name: {field: content["inputs"][name][field] for field in ("kind", *one.SEEN)}
      for name, one in recipe.inputs.items()
    },
  }


def held_out_clips(data: Source, ours: dict, theirs: dict) -> int:
  """How many of the clips that we validate or test on another run of the same data trained on."""
  if theirs["fingerprint"] != ours["fingerprint"]:
    return 0
  held_out = "test" if ours["fold"] is None else "val"
  rows = [
    data.rows(split, protocol=location["protocol"], fold=location["fold"])
    for split, location in ((held_out, ours), ("train", theirs))
  ]
  return np.intersect1d(*rows).size


def check_stage(config) -> None:
  """Raises ConfigError for settings that do not go together."""
  if config.stage == "classifier" and not config.init_from:
    hint = "the run whose classifier is to be trained anew"
    raise errors.ConfigError("--config.init_from", expected="a run directory", got=None, hint=hint)
  if config.semantic.table and config.semantic.loss == "off":
    hint = "--config.semantic.loss=mse or contrastive takes one"
    where = "--config.semantic.table"
    raise errors.ConfigError(where, expected="none", got=config.semantic.table, hint=hint)
  if config.train.class_weights != "none" and config.train.logit_adjustment:
    where = "--config.train.class_weights"
    hint = "or --config.train.logit_adjustment=0.0: together they correct twice"
    raise errors.ConfigError(where, expected="none", got=config.train.class_weights, hint=hint)


def check_batch_size(config, mesh) -> None:
  """Raises ConfigError unless each part of a batch can be split over the devices."""
  batch_size, parts = config.train.batch_size, config.train.accumulate
  if batch_size % parts:
    where = "--config.train.batch_size"
    raise errors.ConfigError(where, expected=f"a multiple of {parts} parts", got=batch_size)
  where = "--config.train.batch_size" + (f" / {parts} (accumulate)" if parts > 1 else "")
  sharding.check_batch_size(mesh, batch_size // parts, where=where)


def label_embeddings(config, data: Source) -> np.ndarray | None:
  """The table that the second head learns, [K, D], or None."""
  if config.semantic.loss == "off":
    return None
  learnt = pathlib.Path(config.init_from or "", recipes.LABELS)
  if config.stage == "classifier" and learnt.is_file():  # what the head, which stays, has learnt
    return embeddings.from_npy(learnt, len(data.class_names))
  return embeddings.load(config.semantic.table, data.class_short_names, data.class_groups)


def make_optimizer(
  config, steps_per_epoch: int
) -> tuple[optax.GradientTransformation, optax.Schedule, float]:
  """The optimizer, the learning rate of every step, and the rate that it begins or peaks at."""
  rate = optimizers.scaled_learning_rate(
    config.optimizer.learning_rate,
    batch_size=config.train.batch_size,
    reference_batch=config.optimizer.reference_batch,
  )
  schedule = optimizers.schedule(
    config.schedule.name,
    learning_rate=rate,
    steps=config.schedule.epochs * steps_per_epoch,
    warmup_steps=round(config.schedule.warmup_epochs * steps_per_epoch),
    milestones=[epoch * steps_per_epoch for epoch in config.schedule.milestones],
  )
  options = config.optimizer.to_dict()
  del options["learning_rate"], options["reference_batch"]
  return optimizers.optimizer(options.pop("name"), schedule, **options), schedule, rate


def class_counts(data: Source, rows: np.ndarray, *, balanced: bool) -> np.ndarray:
  """How often the classes come in training, [K]."""
  counts = np.bincount(data.labels[rows], minlength=len(data.class_names))
  return np.minimum(counts, 1) if balanced else counts


def make_loss(config, counts: np.ndarray, table: np.ndarray | None) -> Callable:
  """Cross-entropy against a long tail's `counts`, and what brings label embeddings in."""
  log_prior = class_weights = semantic = None
  if config.train.logit_adjustment:  # a class without clips counts as one
    shares = counts.clip(1) / counts.clip(1).sum()
    log_prior = np.float32(config.train.logit_adjustment * np.log(shares))
  if config.train.class_weights != "none":
    class_weights = losses.class_weights(counts, config.train.class_weights)
  weight = config.semantic.weight
  if table is not None and config.semantic.loss == "mse":
    semantic = losses.embedding_regression(table, weight=20.0 if weight is None else weight)
  elif table is not None:
    temperature = config.semantic.temperature
    weight = 1.0 if weight is None else weight
    semantic = losses.embedding_contrast(table, weight=weight, temperature=temperature)
  return losses.classification(
    label_smoothing=config.train.label_smoothing,
    log_prior=log_prior,
    class_weights=class_weights,
    semantic=semantic,
  )


def parse_fold(text: str | None) -> list[int] | None:
  """ "0/4" -> [0, 4]: the first of four groups of training subjects is for validation."""
  if text is None:
    return None
  try:
    i, n = map(int, text.split("/"))
  except ValueError:
    raise errors.ConfigError("--config.data.fold", expected='like "0/4"', got=text) from None
  return [i, n]
