"""Every setting of a config reaches what is trained: none is read and then forgotten."""

import dataclasses
import functools
import hashlib
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.interpreters import partial_eval

from experiments import agcn, launch, mvit, posec3d, settings, swinface, trainer
from jaxmg import gaussians, models, recipe
from jaxmg.data import pipeline, records, source
from jaxmg.models import layers

# What these settings do is not in the step, in the batches, or in the options of the loop.
ELSEWHERE = {
  "data.dir": "where the set lies",
  "data.name": "the name of the set: every figure",
  "data.protocol": "below: nods has one protocol",
  "init_from": "tests/experiments/test_trainer.py",
  "stage": "needs init_from: tests/experiments/test_trainer.py",
  "train.trainable": "likewise",
  "model.name": "each experiment has one model, and refuses another name",
  "augment.turn": "needs 3-D joints: tests/experiments/test_posec3d.py",
  "augment.tilt": "likewise",
  "sampling.points": "likewise, in tests/experiments/test_agcn.py",
}
# Where another value alone would not do, or does nothing by itself.
VALUES = {
  "data.fold": "0/3",
  "train.evaluate_every": 2,
  "skeleton": "openpose18",
  "inputs.preparation": "kinetics",
  "sampling.kind": "linspace",
  "sampling.num_persons": 2,
  "sampling.crop": "(0.5,0.9)",
  "augment.crop_area": "(0.5,0.9)",
  "augment.bone_scale": "(0.9,1.2)",
  "augment.scale": "(0.8,1.3)",
  "model.variant": "tiny",
  "model.dropout": 0.35,
  "semantic.loss": "contrastive",
  "semantic.weight": 3.0,
  "semantic.temperature": 0.5,
  "optimizer.name": "adamw",
  "optimizer.decay": "kernels",
  "optimizer.clip_norm": 2.0,
  "optimizer.momentum": 0.5,
  "optimizer.nesterov": True,
  "schedule.name": "step",
  "schedule.milestones": "(1,)",
  "schedule.warmup_epochs": 2.5,
  "train.dtype": "bfloat16",
  "train.accumulate": 2,
  "train.batch_size": 16,
  "train.ema": 0.5,
  "train.label_smoothing": 0.2,
  "train.logit_adjustment": 0.5,
  "train.class_weights": "inverse",
}
OWN_VALUES = {
  "posec3d": {"inputs.stream": "limb"},
  "agcn": {"inputs.stream": "bone"},
  "mvit": {
    "sampling.kind": "uniform",
    "inputs.stream": "both",
    "inputs.test_crop": 0.7,
    "model.stochastic_depth": 0.3,
    "model.variant": "mvitv2-s",
    "optimizer.layer_decay": 0.5,
  },
  "swinface": {
    "sampling.kind": "uniform",
    "model.stochastic_depth": 0.3,
    "model.variant": "swin-t",
    "optimizer.layer_decay": 0.5,
  },
}
# `spots` forbids to mirror: tests/inputs/test_video.py, and the others here.
OWN_ELSEWHERE = {
  "mvit": {"sampling.mirror"},
  "swinface": {"model.classify"},  # tests/models/test_swinface.py
}
# What the trainer makes of these is seen with two experiments; of the others, with their own.
TRAINERS = ("data.", "semantic.", "optimizer.", "schedule.", "train.")
BESIDE = {
  "inputs.preparation": [
    *("skeleton=openpose18", "sampling.kind=repeat", "sampling.num_persons=2"),
    *("sampling.crop=(1.0,1.0)", "augment.rotation=0.0", "augment.scale=(1.0,1.0)"),
  ],
  "semantic.temperature": ["semantic.loss=contrastive"],
  "schedule.milestones": ["schedule.name=step"],
  "sampling.crop": ["sampling.kind=uniform"],
  "train.class_weights": ["train.logit_adjustment=0.0"],
  "train.evaluate_every": ["data.fold=0/3"],
}
BASE = {
  "posec3d": ["inputs.size=12", "sampling.test_size=12", "augment.bone_scale=(0.9,1.1)"],
  "agcn": ["sampling.kind=uniform", "augment.rotation=5.0"],
  "mvit": ["sampling.seconds=0.4", "inputs.size=12"],
  "swinface": ["sampling.seconds=0.4", "inputs.size=12"],
}
POSES = ["data.name=nods", "skeleton=coco17"]
COMMON = [
  *("sampling.num_frames=4", "train.batch_size=8"),
  *("semantic.loss=mse", "optimizer.name=sgd", "optimizer.decay=all", "schedule.epochs=3"),
  *("train.label_smoothing=0.1", "train.logit_adjustment=0.1"),
]
CONFIGS = {
  "posec3d": "imigue,joint,small",
  "agcn": "imigue,joint",
  "mvit": "spots,frames,small",
  "swinface": "looks,faces,small",
}
EXPERIMENTS = {"posec3d": posec3d, "agcn": agcn, "mvit": mvit, "swinface": swinface}
ON_POSES = ("posec3d", "agcn")


def traceable(model):
  """A model of the same fields, all of which are to be seen in its trace, which is short."""
  hidden = ("parent", "name", "dtype")
  names = sorted(x.name for x in dataclasses.fields(model) if x.name not in hidden)

  @nn.compact
  def call(self, x, *, train=False, rows=None):
    x = gaussians.drawn(x)
    x = x.reshape(len(x), -1).astype(self.dtype)[:, :8]
    sizes = [getattr(self, name) for name in names]
    digest = hashlib.sha256(repr(sizes).encode()).digest()[0]
    features = layers.Dropout(self.dropout)(nn.Dense(4)(x), train=train, rows=rows)
    out = {"embedding": nn.Dense(self.embedding_size, name="embedding")(features)}
    self.variable("batch_stats", "count", jnp.zeros, ())
    return nn.Dense(self.num_classes, name="head")(features).astype(jnp.float32) * digest, out

  unchanged = {
    "folded": lambda self, variables: variables,
    "by_depth": lambda self: ("Dense_0/.*", "(head|embedding)/.*"),
  }
  return type("Traceable", (model,), {"__call__": call, "__annotations__": {}, **unchanged})


@pytest.fixture
def effects(nods, spots, looks, tmp_path, monkeypatch):
  """What a config makes of a run, by name: hashes of all that its training depends on.

  They are functions, what is soon said first: two runs are compared up to the first difference.
  """
  caught = {}
  monkeypatch.setattr(
    trainer.loop,
    "train",
    lambda state, step, batches, **options: caught.update(
      state=state, step=step, batches=batches, **options
    ),
  )
  monkeypatch.setattr(trainer.sharding, "on_host", jax.eval_shape)
  rows = []
  original = pipeline.train_batches

  def train_batches(source, taken, *args, **options):
    rows[:] = taken.tolist()
    return original(source, taken, *args, **options)

  monkeypatch.setattr(pipeline, "train_batches", train_batches)

  known = {}  # by recipe

  def of_recipe(run, state):
    """What evaluation and prediction make of a recipe: the recipe itself copies the config."""
    of = repr(recipe.to_json(run))
    if of not in known:
      data = source.Source(run.data["directory"])
      tested = pipeline.test_batches(
        data, data.rows("test"), run.inputs, num_clips=run.num_clips, batch_size=2
      )
      batch = next(iter(tested))
      predict_step = jax.jit(run.predict_step(run.build_model()))
      traced = predict_step.trace(state.params, state.batch_stats, batch)
      known[of] = digest((batch, program(traced.jaxpr)))
    return known[of]

  def effects(name, *settings, batches=1):
    workdir = tmp_path / f"run{len(list(tmp_path.iterdir()))}"
    where = {"mvit": spots, "swinface": looks}.get(name, nods)
    arguments = [f"--config.{setting}" for setting in (f"data.dir={where}", *settings)]
    config = f"--config={launch.__file__[:-9]}configs/{name}.py:{CONFIGS[name]}"
    assert launch.main(EXPERIMENTS[name].run, [config, f"--workdir={workdir}", *arguments]) == 0
    batch, *_ = [next(caught["batches"]) for _ in range(batches)]
    loop = ("steps", "steps_per_epoch", "evaluate_every", "log_every", "save_seconds")
    soon = {"rows": list(rows), "batch": batch, "loop": [caught[name] for name in loop]}
    soon["schedule"] = [float(caught["learning_rate"](step)) for step in range(9)]
    soon["key"] = jax.random.key_data(caught["key"])
    step, state, run = caught["step"], caught["state"], recipe.load(workdir)
    found = {name: functools.partial(digest, value) for name, value in soon.items()}
    found["step"] = lambda: digest(program(step.trace(state, batch, jax.random.key(0)).jaxpr))
    found["recipe"] = lambda: of_recipe(run, state)
    return {name: functools.cache(part) for name, part in found.items()}

  return effects


def program(closed):
  """All that is computed, and from which constants, without what no output depends on."""
  jaxpr, _ = partial_eval.dce_jaxpr(closed.jaxpr, [True] * len(closed.jaxpr.outvars))
  return re.sub("0x[0-9a-f]+", "", str(jaxpr)), [np.asarray(x) for x in closed.consts]


def same(one, other):
  return all(one[name]() == other[name]() for name in one)


def digest(tree):
  leaves = jax.tree.leaves_with_path(tree)
  parts = [
    (jax.tree_util.keystr(path), x.tobytes() if isinstance(x, np.ndarray) else repr(x))
    for path, x in leaves
  ]
  return hashlib.sha256(repr(parts).encode()).hexdigest()


def changed(name, value):
  """Another value of a setting, as it is typed."""
  if name in VALUES:
    return VALUES[name]
  if isinstance(value, bool):
    return not value
  if isinstance(value, int):
    return value + 1
  if isinstance(value, float):
    return value + 0.25
  raise AssertionError(f"{name}: say another value of {value!r}")


@pytest.mark.parametrize("name", CONFIGS)
def test_every_setting_reaches_the_step(name, effects, tmp_path, monkeypatch):
  monkeypatch.setitem(models.MODELS, name, traceable(models.MODELS[name]))
  np.save(tmp_path / "table.npy", np.eye(2, 5, dtype=np.float32))
  values = VALUES | {"semantic.table": tmp_path / "table.npy"} | OWN_VALUES[name]
  monkeypatch.setattr(f"{__name__}.VALUES", values)
  path = f"{launch.__file__[:-9]}configs/{name}.py:{CONFIGS[name]}"
  base = [*(POSES if name in ON_POSES else ()), *COMMON, *BASE[name]]
  config = settings.read_config(path, [f"--config.{setting}" for setting in base])
  plain = functools.cache(lambda *beside: effects(name, *merged(base, beside)))
  assert same(effects(name, *base), plain())
  common = settings.flatten(settings.read_config(f"agcn:{CONFIGS['agcn']}", []).to_dict())
  dead = []
  for leaf, value in settings.flatten(config.to_dict()).items():
    seen = name not in ON_POSES and leaf.startswith(TRAINERS) and leaf in common
    if seen or leaf in {*ELSEWHERE, *OWN_ELSEWHERE.get(name, ())}:
      continue
    beside = BESIDE.get(leaf, [])
    other = effects(name, *merged(base, [*beside, f"{leaf}={changed(leaf, value)}"]))
    if same(other, plain(*beside)):
      dead.append(leaf)
  assert dead == []


@pytest.mark.parametrize("name", ON_POSES)
def test_a_set_that_forbids_mirroring_is_not_mirrored(name, waves):
  path = f"{launch.__file__[:-9]}configs/{name}.py:utd_mhad,joint"
  config = settings.read_config(path, ["--config.sampling.mirror=True"])
  data = source.Source(waves / "utd_mhad")
  found = trainer.make_recipe(config, data, EXPERIMENTS[name].describe, None)
  assert config.sampling.mirror
  assert not found.mirror


def test_training_reads_no_clip_outside_its_split(effects, nods, monkeypatch):
  data, read = source.Source(nods / "nods"), set()
  original = records.Track.__getitem__

  def get(self, row):
    read.add(row)
    return original(self, row)

  monkeypatch.setitem(models.MODELS, "agcn", traceable(models.MODELS["agcn"]))
  monkeypatch.setattr(records.Track, "__getitem__", get)
  effects("agcn", *POSES, *COMMON, *BASE["agcn"], "data.fold=1/3", batches=4)  # nearly three epochs
  assert read - set(data.rows("test").tolist()) == set(data.rows("train", fold=(1, 3)).tolist())


def merged(base, more):
  """Settings, the later of which count."""
  return [f"{key}={value}" for key, value in dict(x.split("=", 1) for x in (*base, *more)).items()]
