"""Trains PoseC3D on joint or limb heatmaps of a prepared data set.

  python -m experiments.posec3d --config=experiments/configs/posec3d.py:utd_mhad,joint \
    --config.data.dir=DATA --workdir=RUN

The same command in the same work directory goes on where it stopped. Afterwards:

  python -m experiments.evaluate --run=RUN
  python -m experiments.predict --run=RUN --input=FILE
"""

import functools
import os
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from experiments import evaluate, launch
from jaxmg import errors, inputs, predict, skeletons
from jaxmg.data import pipeline
from jaxmg.data.source import Source
from jaxmg.models import posec3d
from jaxmg.training import checkpoints, loop, losses, optimizers, sharding, step


def run(config, workdir: pathlib.Path) -> None:
  mesh = sharding.data_mesh()
  sharding.check_batch_size(mesh, config.train.batch_size, where="--config.train.batch_size")
  data = Source(os.path.join(config.data.dir, config.data.name))
  recipe = make_recipe(config, data)
  skeleton = skeletons.get(config.skeleton)
  rows = data.rows("train", protocol=config.data.protocol, fold=recipe["data"]["fold"])
  stream = {
    "skeleton": skeleton,
    "kind": config.sampling.kind,
    "num_frames": config.sampling.num_frames,
    "num_persons": config.sampling.num_persons,
    "batch_size": config.train.batch_size,
    "seed": config.train.seed,
  }
  fingerprint = pipeline.fingerprint(data, rows, **stream)
  batches = pipeline.train_batches(
    data,
    rows,
    process_index=jax.process_index(),
    process_count=jax.process_count(),
    **stream,
  )

  steps_per_epoch = len(rows) // config.train.batch_size
  steps = config.schedule.epochs * steps_per_epoch
  rate = optimizers.scaled_learning_rate(
    config.optimizer.learning_rate,
    batch_size=config.train.batch_size,
    reference_batch=config.optimizer.reference_batch,
  )
  schedule = optimizers.schedule(
    config.schedule.name,
    learning_rate=rate,
    steps=steps,
    warmup_steps=round(config.schedule.warmup_epochs * steps_per_epoch),
    milestones=[epoch * steps_per_epoch for epoch in config.schedule.milestones],
  )
  options = config.optimizer.to_dict()
  del options["learning_rate"], options["reference_batch"]
  optimizer = optimizers.optimizer(options.pop("name"), schedule, **options)

  model = predict.build_model(recipe, dtype=jnp.dtype(config.train.dtype))
  render = functools.partial(
    inputs.heatmap_inputs,
    skeleton=skeleton,
    mirror=recipe["inputs"]["mirror"],
    **config.inputs.to_dict(),
    **config.augment.to_dict(),
  )
  train_step = step.make_train_step(
    model,
    lambda keys, batch: render(batch["keypoints"], batch["frame_size"], keys=keys),
    losses.classification(
      label_smoothing=config.train.label_smoothing,
      log_prior=log_prior(data.labels[rows], len(data.class_names), config.train.logit_adjustment),
    ),
    optimizer,
  )
  channels = skeleton.num_joints if config.inputs.kind == "joint" else len(skeleton.limbs)
  size, num_frames = config.inputs.size, config.sampling.num_frames
  example = jnp.zeros((1, num_frames, size, size, channels))
  init = functools.partial(step.init_train_state, model, optimizer)
  init_key, train_key = jax.random.split(jax.random.key(config.train.seed))
  state = sharding.jit_once(init)(init_key, example)

  parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
  if jax.process_index() == 0:
    print(
      f"{data.name}{' (synthetic)' if data.synthetic else ''}: {len(rows)} training clips of "
      f"{len(data.class_names)} classes; {config.inputs.kind}s of {config.skeleton}\n"
      f"{config.model.name} {config.model.variant}: {parameters:,} parameters\n"
      f"learning rate {config.optimizer.learning_rate:g} x batch {config.train.batch_size} / "
      f"{config.optimizer.reference_batch} = {rate:g}",
      flush=True,
    )
  with checkpoints.Checkpoints(workdir / "checkpoints", fingerprint=fingerprint) as saved:
    if saved.latest_step() is None and jax.process_index() == 0:  # weights keep their recipe
      launch.write(workdir / "recipe.json", recipe)
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
      evaluate_every=config.train.evaluate_every,
      log_every=config.train.log_every,
      stop=launch.stop_reason,
    )


def make_recipe(config, data: Source) -> dict:
  """What prediction needs beside the weights (see `jaxmg.predict`)."""
  if config.model.variant not in posec3d.VARIANTS:
    raise errors.ConfigError(
      "--config.model.variant",
      expected=" or ".join(posec3d.VARIANTS),
      got=config.model.variant,
    )
  if config.model.name != "posec3d":
    raise errors.ConfigError("--config.model.name", expected="posec3d", got=config.model.name)
  try:
    skeletons.get(config.skeleton)
  except ValueError as error:
    raise errors.ConfigError(f"--config.skeleton: {error}") from error
  return {
    "model": {
      "name": config.model.name,
      "num_classes": len(data.class_names),
      **posec3d.VARIANTS[config.model.variant],
      "dropout": config.model.dropout,
    },
    "sampling": {
      "kind": config.sampling.kind,
      "num_frames": config.sampling.num_frames,
      "num_clips": config.sampling.test_clips,
      "num_persons": config.sampling.num_persons,
      "style": config.sampling.style,
    },
    "inputs": {
      **config.inputs.to_dict(),
      "size": config.sampling.test_size,
      "mirror": config.sampling.mirror and data.mirror,
    },
    "skeleton": config.skeleton,
    "class_names": list(data.class_names),
    "frame_size": list(data.frame_size),
    "data": {
      "name": data.name,
      "version": data.version,
      "fingerprint": data.fingerprint(),
      "directory": str(data.directory.resolve()),
      "protocol": config.data.protocol,
      "fold": parse_fold(config.data.fold),
      "synthetic": data.synthetic,
    },
  }


def log_prior(labels: np.ndarray, num_classes: int, strength: float) -> np.ndarray | None:
  """`strength` times the logarithm of the classes' shares; a class without clips counts as one."""
  if not strength:
    return None
  counts = np.bincount(labels, minlength=num_classes).clip(1)
  return (strength * np.log(counts / counts.sum())).astype(np.float32)


def parse_fold(text: str | None) -> list[int] | None:
  """ "0/4" -> [0, 4]: the first of four groups of training subjects is for validation."""
  if text is None:
    return None
  try:
    i, n = map(int, text.split("/"))
  except ValueError:
    raise errors.ConfigError("--config.data.fold", expected='like "0/4"', got=text) from None
  return [i, n]


if __name__ == "__main__":
  launch.main(run)
