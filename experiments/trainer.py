"""From a config to a training run: what all experiments share.

An experiment says what is its own: `describe(config, data)` gives the "model" and the "inputs" of
the recipe (see `jaxmg.recipe`), and in a third place the "views" of tests if they are not those of
`config.sampling`.
"""

import dataclasses
import functools
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from jaxmg import encoders, errors, fields, files
from jaxmg import recipe as recipes
from jaxmg.data import embeddings, pipeline, source
from jaxmg.data.source import Source
from jaxmg.recipe import Recipe
from jaxmg.skeletons import topology
from jaxmg.skeletons.topology import Skeleton
from jaxmg.training import (
  checkpoints,
  loop,
  losses,
  mixing,
  optimizers,
  parameters,
  sharding,
  step,
)

from . import evaluate, lineage, settings, signals

HINTS = {
  "num_classes": "of other classes: jaxmg import --drop_head",
  "preparation": "--config.inputs.preparation",
}


def run(
  config, workdir: pathlib.Path, *, describe: Callable, begin: Callable | None = None
) -> None:
  """Trains the model of a config in a work directory, from where it stopped.

  `describe(config, data)` returns the model and the inputs of the recipe. A run that does not go
  on is handed to `begin(config, workdir, state, recipe, data)`, which returns the state and the
  recipe to begin with.
  """
  mesh = sharding.data_mesh()
  check_batch_size(config, mesh)
  check_stage(config)
  data = Source(os.path.join(config.data.dir, config.data.name))
  rows = train_rows(config, data)
  table = label_embeddings(config, data)
  recipe = make_recipe(config, data, describe, table)
  classifier_only = config.stage == "classifier"
  drawn = {
    "balanced": classifier_only,
    "batch_size": config.train.batch_size,
    "seed": config.train.seed,
  }
  inputs = settings.flatten(recipes.to_json(recipe)["inputs"])
  fingerprint = pipeline.fingerprint(data, rows, recipe.tracks, **inputs, **drawn)
  fingerprint |= {"mirror": recipe.mirror, "class names": list(recipe.class_names)}
  if table is not None:
    fingerprint["label embeddings"] = recipe.label_embeddings
  batches = pipeline.train_batches(
    data,
    rows,
    recipe.inputs,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    may_lack=recipe.may_lack and not recipe.model["encoders"],  # which would learn of nothing
    **drawn,
  )

  steps = last_step(config, data)
  steps_per_epoch = steps // config.schedule.epochs
  counts = class_counts(data, rows, balanced=classifier_only)

  model = recipe.build_model(jnp.dtype(config.train.dtype))
  optimizer, schedule, rate = make_optimizer(config, steps_per_epoch, model)
  trainable = (model.HEAD,) if classifier_only else config.train.trainable or parameters.ALL
  train_step = step.make_train_step(
    model,
    make_preprocess(config, recipe),
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

  size = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  if jax.process_index() == 0:
    print(
      f"{data.name}{' (synthetic)' if data.synthetic else ''}: {len(rows)} training clips of "
      f"{len(data.class_names)} classes; {recipe}\n"
      f"{config.model.name} {config.model.variant}: {size:,} parameters\n"
      f"learning rate {config.optimizer.learning_rate:g} x batch {config.train.batch_size} / "
      f"{config.optimizer.reference_batch} = {rate:g}",
      flush=True,
    )
    epochs, warmup = config.schedule.epochs, config.schedule.warmup_epochs
    if warmup > epochs:
      print(
        f"NOTE: a warm-up of {warmup:g} epochs does not end in {epochs}: its rate is not reached"
      )
    if recipe.mirror and (sides := source.left_and_right(data.class_names)):
      print(f"{sides}: --config.sampling.mirror=False, or prepare --no_mirror", flush=True)
    if table is not None:
      found = (
        config.semantic.table or "built in, of the spelling of the names: no corpus, no meaning"
      )
      mean_square = np.square(table).mean()
      print(f"label embeddings: {found}; {table.shape[1]} values, mean square {mean_square:.3g}")
      for first, second in embeddings.same(table):
        names = f"{data.class_names[first]!r} and {data.class_names[second]!r}"
        print(f"NOTE: {names} have the same embedding, which does not tell them apart")
  with checkpoints.Checkpoints(workdir / "checkpoints", fingerprint=fingerprint) as saved:
    if (made := saved.latest_step() or 0) > steps:
      expected = f"{-(-made // steps_per_epoch)} or more, as {made} steps are made"
      raise errors.ConfigError(
        "--config.schedule.epochs", expected=expected, got=config.schedule.epochs
      )
    if saved.latest_step() is None:
      if config.init_from:
        new = trainable if classifier_only else ()
        frozen = trainable != parameters.ALL
        state, before = with_weights(state, config.init_from, recipe, data, new=new, frozen=frozen)
        recipe = dataclasses.replace(recipe, data=recipe.data | {"began_with": before})
      if begin:
        state, recipe = begin(config, workdir, state, recipe, data)
      if jax.process_index() == 0:
        if table is not None:
          with files.replace(workdir / recipes.LABELS) as part:
            np.save(part, table)
        recipes.save(workdir, recipe)  # weights keep their recipe
    elif jax.process_index() == 0:
      keep_place(workdir, recipe.data)
    loop.train(
      state,
      step.compile_train_step(train_step, mesh),
      batches,
      mesh=mesh,
      steps=steps,
      steps_per_epoch=steps_per_epoch,
      key=train_key,
      learning_rate=schedule,
      checkpoints=saved,
      logger=loop.Logger(workdir),
      evaluate=evaluate.validation(recipe, model, data, mesh),
      evaluate_every=config.train.evaluate_every or 5,
      save_seconds=config.train.get("save_every", 60.0),  # which runs of before lack
      log_every=config.train.log_every,
      stop=signals.stop_reason,
    )


def last_step(config, data: Source) -> int:
  """How many steps a run makes."""
  return config.schedule.epochs * (len(train_rows(config, data)) // config.train.batch_size)


def train_rows(config, data: Source) -> np.ndarray:
  """The rows that a run trains on; DataError where the protocol has none."""
  protocol = config.data.protocol
  if not data.rows("train", protocol=protocol).size:
    where = f"{data.directory}: protocol {protocol or next(iter(data.protocols))!r}"
    hint = "it is there to be tested on: evaluate --data"
    raise errors.DataError(where, expected="clips to train on", got="none", hint=hint)
  return data.rows("train", protocol=protocol, fold=parse_fold(config.data.fold))


def keep_place(workdir: pathlib.Path, data: Mapping[str, Any]) -> None:
  """Writes where the set of a run is now into its recipe, if it is the same and was moved."""
  recipe = recipes.load(workdir)
  now = recipe.data | {"directory": data["directory"]}
  if now != recipe.data and data["fingerprint"] == recipe.data["fingerprint"]:
    recipes.save(workdir, dataclasses.replace(recipe, data=now))


def make_recipe(config, data: Source, describe: Callable, table: np.ndarray | None) -> Recipe:
  """What a run is, beside its weights; `table` are the label embeddings."""
  model, inputs, *views = describe(config, data)
  views = views[0] if views else config.sampling
  if table is not None:
    model["embedding_size"] = table.shape[1]
  return Recipe(
    model=model,
    inputs=inputs,
    class_names=data.class_names,
    num_clips=views.test_clips,
    mirror=views.mirror and data.mirror,
    data=data.describe(
      recipes.tracks(inputs),
      protocol=config.data.protocol,
      fold=parse_fold(config.data.fold),
    ),
    label_embeddings=recipes.table_digest(table),
  )


def pose_fields(config, data: Source) -> dict[str, Any]:
  """The fields that all inputs of poses have."""
  pose, num_persons = data.track("pose").kind, config.sampling.num_persons
  return {
    "skeleton": find_skeleton(config, pose.layout),
    "frame_size": pose.frame_size,
    "sampling": config.sampling.kind,
    "num_frames": config.sampling.num_frames,
    "num_persons": pose.num_persons if num_persons is None else num_persons,
    "crop": config.sampling.crop,
  }


def make_input(config, kind: type, values: dict[str, Any]) -> Any:
  """An input with these fields; ConfigError where they cannot be."""
  try:
    return fields.make(kind, values)
  except ValueError as error:
    field, colon, rest = str(error).partition(":")
    name = "kind" if field == "sampling" else field
    sections = [section for section in ("inputs", "augment", "sampling") if name in config[section]]
    where = ".".join([*sections[:1], name if sections else field])
    raise errors.ConfigError(f"--config.{where}{colon}{rest}") from error


def find_skeleton(config, layout: Skeleton) -> Skeleton:
  """One of ours, or the data set's, which may be a user's own."""
  if config.skeleton in (None, layout.name):
    return layout
  try:
    return topology.get(config.skeleton)
  except ValueError as error:
    raise errors.ConfigError(f"--config.skeleton: {error}") from error


def model_options(config, name: str, **fields) -> dict[str, Any]:
  """The options in a recipe of the model called `name`: the config's, and these."""
  if config.model.name != name:
    raise errors.ConfigError("--config.model.name", expected=name, got=config.model.name)
  try:
    return recipes.write_out(config.model.to_dict() | fields)
  except ValueError as error:
    raise errors.ConfigError(f"--config.model.{error}") from error


def with_weights(
  state: step.TrainState,
  run: str,
  recipe: Recipe,
  data: Source,
  *,
  new: Sequence[str] = (),
  frozen: bool = False,
) -> tuple[step.TrainState, Mapping[str, Any] | None]:
  """The state with the weights of another run, which must be those of the very same model.

  And what these were trained on, as a recipe holds it; None where it is not known.

  Only one of the two may have a head for label embeddings. Parameters that a pattern of `new`
  matches stay as they are. Where some are `frozen`, they must see what they were trained on.
  """
  where = f"--config.init_from={run}"
  if pathlib.Path(run).is_file():
    hint = "PyTorch's weights: jaxmg import makes one"
    raise errors.CheckpointError(where, expected="a run directory", got="a file", hint=hint)
  # A fusion of tokens has its encoders beside its weights.
  of_run = encoders.load_recipe if recipe.model.get("encoders") else recipes.load
  theirs = of_run(run)
  loose = ("dropout", "stochastic_depth", "remat", "embedding_size")
  ours, others = (
    {name: x for name, x in one["model"].items() if name not in loose}
    | (one["inputs"] if frozen else prepared(one["inputs"]))
    for one in (seen_by(recipe), seen_by(theirs))
  )
  ours, others = settings.flatten(ours), settings.flatten(others)
  for name in [*ours, *(others.keys() - ours.keys())]:
    if ours.get(name) != others.get(name):
      hint = HINTS.get(name.rpartition(".")[2])
      expected, got = ours.get(name), others.get(name)
      raise errors.CheckpointError(f"{where}: {name}", expected=expected, got=got, hint=hint)
  if new and recipe.label_embeddings and not theirs.label_embeddings:
    raise errors.CheckpointError(where, expected="a head for label embeddings", got="none")
  before = check_unseen(where, pathlib.Path(run), theirs, recipe, data)
  if recipe.model.get("encoders"):
    _, found = encoders.load(run)
  else:
    found = checkpoints.restore_variables(pathlib.Path(run) / "checkpoints", "best")
  if (recipe.label_embeddings is None) != (theirs.label_embeddings is None):
    new = (*new, recipe.build_model().LABEL_HEAD)
  variables = {"params": state.params, "batch_stats": state.batch_stats}
  try:
    found = parameters.take_over(variables, found, new=new)
  except errors.CheckpointError as error:
    hint = "other joints or persons?"
    raise errors.CheckpointError(f"{where}: {error}", hint=hint) from error
  if jax.process_index() == 0:
    print(f"begins with the weights of {run}", flush=True)
  return state.replace(**found, ema=found if state.ema else {}), before[0]


def check_unseen(
  where: str,
  run: pathlib.Path,
  theirs: Recipe,
  ours: Recipe,
  data: Source,
  *,
  hint: str | None = None,
) -> list[Mapping[str, Any] | None]:
  """What the weights of a run were trained on: not on what is held out here, or CheckpointError."""
  before = lineage.of(run, theirs)
  for trained in filter(None, before):  # and not imported: those saw other data
    if "ids" not in trained:
      expected, hint = "a run that says its clips", "of an earlier version: train again"
      raise errors.CheckpointError(where, expected=expected, got="none", hint=hint)
    if trained["ids"] == ours.data["ids"] and trained["clips"] != ours.data["clips"]:
      expected = "the labels, subjects and protocols of the set that it was trained on"
      raise errors.CheckpointError(where, expected=expected, got="others of the same clips")
    if seen := held_out_clips(data, ours.data, trained):
      expected, got = "weights that have not seen the clips held out here", f"{seen} trained on"
      raise errors.CheckpointError(where, expected=expected, got=got, hint=hint)
  return before


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


def prepared(seen: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
  """What weights were not trained without, even where all of them are trained on."""
  return {name: {"preparation": x["preparation"]} for name, x in seen.items() if "preparation" in x}


def held_out_clips(data: Source, ours: dict, theirs: dict) -> int:
  """How many of the clips that we validate or test on another run of the same clips trained on."""
  if theirs["clips"] != ours["clips"]:
    return 0
  held_out = "test" if ours["fold"] is None else "val"
  rows = [
    data.rows(split, protocol=location["protocol"], fold=location["fold"])
    for split, location in ((held_out, ours), ("train", theirs))
  ]
  return np.intersect1d(*rows).size


def check_stage(config) -> None:
  """Raises ConfigError for a stage that lacks the run before it, and for a tail corrected twice."""
  begins = config.init_from or (config.stage == "all" and config.get("encoders"))
  if (config.stage == "classifier" or config.train.trainable) and not begins:
    hint = "the run whose classifier is to be trained anew"
    if config.train.trainable:
      hint = "whose weights stay where --config.train.trainable does not name them"
    raise errors.ConfigError("--config.init_from", expected="a run directory", got=None, hint=hint)
  if config.stage == "all" and config.train.logit_adjustment:
    where, got = "--config.train.class_weights", config.train.class_weights
    hint = "or --config.train.logit_adjustment=0.0: together they correct twice"
    if got != "none":
      raise errors.ConfigError(where, expected="none", got=got, hint=hint)


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


def make_preprocess(config, recipe: Recipe) -> Callable:
  """What the training step does with a batch before the model."""
  shares = {name: config.train.get(name, 0.0) for name in ("mixup", "cutmix")}
  if not any(shares.values()):
    return recipe.train_inputs
  if [one.track for one in recipe.inputs.values()] != ["video"]:
    where, got = "--config.train.mixup and cutmix", shares.values()
    hint = "they are for models that see a video and nothing else"
    raise errors.ConfigError(where, expected="0", got=" and ".join(map(str, got)), hint=hint)
  if config.train.batch_size // config.train.accumulate < 2:
    where = "--config.train.batch_size / accumulate"
    hint = "a clip is mixed with another, or --config.train.mixup=0.0 --config.train.cutmix=0.0"
    raise errors.ConfigError(where, expected="2 or more", got=1, hint=hint)
  return mixing.mixed(recipe.train_inputs, **shares)


def make_optimizer(
  config, steps_per_epoch: int, model: Any
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
  ours = ("name", "learning_rate", "reference_batch", "layer_decay")
  options = {name: x for name, x in settings.used(config, "optimizer").items() if name not in ours}
  if (decay := config.optimizer.get("layer_decay", 1.0)) != 1.0:
    if not hasattr(model, "by_depth"):
      hint = f"{config.model.name} does not say how deep its parameters are"
      raise errors.ConfigError("--config.optimizer.layer_decay", expected=1.0, got=decay, hint=hint)
    options["factors"] = optimizers.layer_factors(model.by_depth(), decay)
  return optimizers.optimizer(config.optimizer.name, schedule, **options), schedule, rate


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
  if table is not None:
    options = settings.used(config, "semantic")
    options.pop("table", None)
    semantic = losses.EMBEDDING[options.pop("loss")](table, **options)
  return losses.classification(
    label_smoothing=config.train.label_smoothing,
    log_prior=log_prior,
    class_weights=class_weights,
    semantic=semantic,
  )


def parse_fold(text: str | None) -> list[int] | None:
  """ "0/4" -> [0, 4]: the first of four groups of training subjects is for validation; "0" too."""
  if text is None:
    return None
  try:
    i, n = map(int, (text if "/" in text else f"{text}/4").split("/"))
  except ValueError:
    raise errors.ConfigError("--config.data.fold", expected='like "0/4"', got=text) from None
  return [i, n]
