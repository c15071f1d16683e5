"""Compiles what the commands run on a GPU or a Cloud TPU, without having one.

  python -m benchmarks.compiled --platform=cuda              # needs pip install 'jax[cuda13]'
  python -m benchmarks.compiled --platform=tpu --size=full   # needs pip install libtpu

For one NVIDIA H200, or for four chips of a TPU v5e. Each program is compiled in a process of its
own, because XLA can abort the process where it fails. "GB a clip" is what a run of the program
moves through memory, divided by its clips: for a GPU `benchmarks.hlo` of the compiled program, for
a TPU what the compiler says of a chip, in which a loop is one turn. Exit code 1 if a program does
not compile.

On a GPU the compiler would also try out its algorithms, which here are the default ones.
"""

import concurrent.futures.process
import functools
import importlib.util
import os
import pathlib
import tempfile
import time
from typing import ClassVar, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh

from benchmarks import hlo, peers, timing
from experiments import agcn, emotion, fusion, mvit, posec3d, settings, swinface, trainer
from jaxmg import models
from jaxmg import recipe as recipes
from jaxmg.data import readers, source, tracks
from jaxmg.recipe import Recipe
from jaxmg.training import parameters, sharding, step

CONFIGS = "experiments/configs/"
MODELS = {
  "posec3d": posec3d,
  "agcn": agcn,
  "mvit": mvit,
  "fusion": fusion,
  "emotion": emotion,
  "swinface": swinface,
}


class Program(NamedTuple):
  """One jitted function of a command: `job` is train, evaluate, predict or nearest.

  Or "bare": the training step of `benchmarks.posec3d`, which is given heatmaps.
  """

  config: str
  job: str
  settings: tuple[str, ...] = ()

  def __str__(self):
    return " ".join((self.config, self.job, *self.settings))


BFLOAT16 = "train.dtype=bfloat16"
BATCH_8 = "train.batch_size=8"  # 32 where nothing is said
CLASSIFIER = ("stage=classifier", "init_from=a_run")
# 2s-AGCN as published for NTU RGB+D: two persons, 25 joints, 300 frames.
NTU = ("skeleton=kinect25", "sampling.points=joints3d", "sampling.num_persons=2")
# And prepared as there.
PUBLISHED = "inputs.preparation=ntu"
KINETICS = (
  *("skeleton=openpose18", "sampling.points=keypoints", "sampling.num_persons=2"),
  *("sampling.num_frames=150", "inputs.preparation=kinetics"),
)

# Of MViTv2-S and of 2s-AGCN on 64 frames. Encoders, as runs, are made of these configs.
TOKENS = "tokens=video,pose"
ENCODERS = "encoders=mvit,agcn"
ENCODER_CONFIGS = {"mvit": "mvit.py:videos,frames", "agcn": "agcn.py:utd_mhad,joint"}

PROGRAMS = (
  Program("slowonly-r50", "bare"),
  Program("posec3d.py:imigue,joint", "train"),
  Program("posec3d.py:imigue,joint", "train", (BFLOAT16,)),
  Program("posec3d.py:imigue,joint", "train", ("train.accumulate=2", "train.ema=0.99")),
  Program("posec3d.py:imigue,joint", "train", (BFLOAT16, "train.accumulate=2")),
  Program("posec3d.py:imigue,joint", "train", CLASSIFIER),
  Program("posec3d.py:imigue,joint", "evaluate"),
  Program("posec3d.py:imigue,joint", "predict"),
  Program("posec3d.py:imigue,limb", "train", (BFLOAT16, "train.ema=0.99")),
  Program("posec3d.py:imigue,limb", "evaluate"),
  Program(
    "posec3d.py:imigue,joint,small", "train", ("augment.rotation=10.0", "augment.jitter=1.0")
  ),
  Program("posec3d.py:imigue,joint,small", "evaluate"),
  Program("posec3d.py:utd_mhad,joint,small", "train"),
  Program("posec3d.py:utd_mhad,limb,small", "train", (BFLOAT16, "augment.joint_dropout=0.1")),
  Program("posec3d.py:utd_mhad,joint,small", "predict"),
  Program("posec3d.py:synthetic_imigue,recipe_a", "train", (BFLOAT16,)),
  Program("posec3d.py:imigue,recipe_a", "train", (BFLOAT16, "skeleton=openpose137")),
  Program("posec3d.py:imigue,recipe_a", "train", ("semantic.loss=contrastive",)),
  Program("posec3d.py:imigue,recipe_a", "nearest", ("skeleton=openpose137",)),
  Program("agcn.py:imigue,joint", "train"),
  Program("agcn.py:imigue,bone", "train", (BFLOAT16, "train.accumulate=2", "train.ema=0.99")),
  Program("agcn.py:imigue,joint", "evaluate"),
  Program("agcn.py:utd_mhad,bone_motion", "train"),
  Program("agcn.py:utd_mhad,joint", "train", CLASSIFIER),
  Program("agcn.py:utd_mhad,joint,small", "predict"),
  Program("agcn.py:ntu,joint,paper", "train", NTU),
  Program("agcn.py:ntu,joint,paper", "train", (*NTU, BFLOAT16)),
  Program("agcn.py:ntu,bone,paper", "evaluate", NTU),
  Program("agcn.py:kinetics,joint,paper", "train", KINETICS),
  Program("agcn.py:ntu,bone,paper", "evaluate", (*NTU, PUBLISHED)),
  Program("mvit.py:videos,frames", "train", (BFLOAT16, BATCH_8)),
  Program("mvit.py:videos,frames", "train", (BFLOAT16, BATCH_8, "model.remat=True")),
  Program("mvit.py:videos,frames", "evaluate"),
  Program("mvit.py:videos,frames,small", "train"),
  Program("swinface.py:clips,faces", "train", (BFLOAT16, BATCH_8)),
  Program("swinface.py:clips,faces", "evaluate"),
  Program("swinface.py:clips,faces,small", "train"),
  Program("swinface.py:clips,faces,small", "evaluate"),
  Program("fusion.py:clips,joint", "train", (TOKENS,)),
  Program("fusion.py:clips,cross", "train", (TOKENS, BFLOAT16, "model.modality_dropout=0.5")),
  Program("fusion.py:clips,joint", "evaluate", (TOKENS,)),
  Program("fusion.py:clips,joint", "train", (ENCODERS, BFLOAT16, BATCH_8)),
  Program("fusion.py:clips,joint", "predict", (ENCODERS,)),
  Program("emotion.py:clips,mean", "train", (TOKENS, BFLOAT16, "model.modality_dropout=0.5")),
  Program("emotion.py:clips,attention", "train", (TOKENS,)),
  Program("emotion.py:clips,attention", "evaluate", (TOKENS,)),
  Program("emotion.py:clips,mean", "train", (ENCODERS, BATCH_8)),
)

COMPILERS = {"cuda": "jax_cuda13_plugin", "tpu": "libtpu"}  # the packages

# Small enough to compile in seconds, and with every kind of layer.
TINY = {
  "posec3d": {"sampling.num_frames": 8, "sampling.test_size": 16, "inputs.size": 16},
  "agcn": {"sampling.num_frames": 17},
  "mvit": {"sampling.num_frames": 4, "inputs.size": 32},
  "fusion": {},
  "emotion": {},
  "swinface": {"sampling.num_frames": 2, "inputs.size": 56},
}

# What XLA has to know of an NVIDIA H200.
H200 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152
  shared_memory_per_core: 233472 threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000 l2_cache_size: 52428800 clock_rate_ghz: 1.98
  device_memory_size: 151397597184 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 patch: 0 }
device_description_str: "NVIDIA H200 141GB HBM3e"
"""
# libtpu asks the machine, unless it is told what it is on.
TPU_SETTINGS = {
  "TPU_SKIP_MDS_QUERY": "1",
  "TPU_ACCELERATOR_TYPE": "v5litepod-4",
  "TPU_WORKER_HOSTNAMES": "localhost",
  "TPU_WORKER_ID": "0",
  "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # there is no TPU that only one process may have
}


def main(argv: list[str] | None = None) -> None:
  parser = timing.parser(__doc__)
  parser.add_argument("--platform", required=True, choices=("cuda", "tpu"))
  parser.add_argument("--size", default="tiny", choices=("tiny", "full"))
  parser.add_argument("--only", default="", help="the programs in whose names this text is")
  parser.add_argument("--jobs", type=int, default=1, help="programs compiled side by side")
  arguments = parser.parse_args(argv)
  os.environ |= {"JAX_PLATFORMS": "cpu"} | TPU_SETTINGS  # of the processes that compile
  jax.config.update("jax_platforms", "cpu")
  if importlib.util.find_spec(COMPILERS[arguments.platform]) is None:
    package = COMPILERS[arguments.platform]
    parser.error(f"--platform={arguments.platform}: {package} is missing (make accelerators)")
  programs = [program for program in PROGRAMS if arguments.only in str(program)]
  if not programs:
    names = "\n  ".join(map(str, PROGRAMS))
    parser.error(f"--only={arguments.only}: no program of that name. There are:\n  {names}")

  def row_of(program):
    try:
      found = timing.in_new_process(measure, arguments.platform, arguments.size, program)
    except concurrent.futures.process.BrokenProcessPool:
      found = {"outcome": "aborted"}
    except Exception as error:
      found = {"outcome": f"{type(error).__name__}: {str(error)[:200]!r}"}
    row = dict.fromkeys(("seconds", "temporary GB", "GB a clip", "kernels"))
    row = {"program": str(program)} | row | {"outcome": "compiled"} | found
    print(f"{row['outcome']}: {program}", flush=True)
    return row

  with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
    rows = list(pool.map(row_of, programs))
  timing.report(arguments, rows)
  if any(row["outcome"] != "compiled" for row in rows):
    raise SystemExit(1)


def target(platform: str) -> Mesh:
  """The mesh over devices that are not there."""
  if platform == "cuda":
    options = {"topology_name": "h200", "topology": "1x1x1", "target_config": H200}
  else:
    options = {"topology_name": "v5e:2x2"}
  return sharding.data_mesh(topologies.get_topology_desc(platform=platform, **options).devices)


def measure(platform: str, size: str, program: Program) -> dict[str, float]:
  """Compiles a program for the target and says what that took, and what it will take."""
  mesh = target(platform)
  jitted, inputs, clips = build(program, size, mesh)
  start = time.perf_counter()
  compiled = jitted.lower(*inputs).compile()
  seconds = time.perf_counter() - start
  found = hlo.traffic(compiled.as_text())
  moved, devices = found.bytes, 1
  if platform == "tpu":
    moved, devices = compiled.cost_analysis()["bytes accessed"], mesh.size
  return {
    "seconds": seconds,
    "temporary GB": compiled.memory_analysis().temp_size_in_bytes / 1e9,
    "GB a clip": moved * devices / clips / 1e9,
    "kernels": found.kernels,
  }


class Clips:
  """What the commands ask of a prepared set, or of one of its tracks, before they read it."""

  name, version, directory, synthetic = "clips", "1.0.0", pathlib.Path("clips"), True
  mirror, protocols, is_held = True, {}, False
  class_names = class_short_names = tuple(f"class {k}" for k in range(32))
  class_groups = ("all",) * 32

  kinds: ClassVar = {
    "pose": tracks.Pose("kinect25", frame_size=(720, 1280), joints3d=True),
    "video": tracks.Video((256, 456)),
    "faces": tracks.Faces(),
    "tokens-video": tracks.Tokens(393, 768, "video", test_views=5),
    "tokens-pose": tracks.Tokens(16, 256, "pose", test_views=5),
  }
  rows, folder, track_names = np.arange(1), pathlib.Path("clips"), tuple(kinds)

  def __init__(self, kind=None):
    self.kind = kind

  def track(self, name):
    return Clips(self.kinds[name])

  def __getitem__(self, row):
    pose = np.random.default_rng(row).normal((0, 0, 3), 0.1, (8, 1, 25, 3)).astype(np.float32)
    return {"joints3d": pose, "keypoints": readers.depth_view(pose)}

  def fingerprint(self, names=()):
    return ""

  clips_fingerprint = ids_fingerprint = fingerprint

  def describe(self, tracks, **of):
    return source.Source.describe(self, tracks, **of)


def build(program: Program, size: str, mesh: Mesh) -> tuple:
  """The function of a command, jitted for the mesh; its arguments as shapes; its clips."""
  if program.job == "bare":
    return bare(program.config if size == "full" else "tiny", mesh)
  data = Clips()
  config, table, recipe = described(program, size, mesh, data)
  model = recipe.build_model(jnp.dtype(config.train.dtype))
  optimizer, _, _ = trainer.make_optimizer(config, 100, model)
  classifier_only = config.stage == "classifier"
  trainable = (model.HEAD,) if classifier_only else parameters.ALL
  init = functools.partial(
    step.init_train_state, model, optimizer, ema=config.train.ema > 0, trainable=trainable
  )
  state = jax.eval_shape(init, jax.random.key(0), recipe.example())
  if program.job == "train":
    train_step = step.make_train_step(
      model,
      trainer.make_preprocess(config, recipe),
      trainer.make_loss(config, np.ones(len(data.class_names)), None if classifier_only else table),
      optimizer,
      accumulate=config.train.accumulate,
      ema_decay=config.train.ema,
      trainable=trainable,
    )
    batch = shapes(recipe, config.train.batch_size)
    inputs = (state, batch, jax.eval_shape(jax.random.key, 0))
    return step.compile_train_step(train_step, mesh), inputs, config.train.batch_size

  output = "embedding" if program.job == "nearest" else "probabilities"
  predict_step = recipe.predict_step(recipe.build_model(), output=output)
  # experiments.evaluate takes 16 clips at a time, jaxmg.predict one, on one device.
  clips = 16 if program.job == "evaluate" else 1
  if clips == 1:
    mesh = sharding.data_mesh(list(mesh.devices.flat)[:1])
  batch = shapes(recipe, clips, recipe.num_clips)
  inputs = (state.params, state.batch_stats, batch)
  return step.compile_predict_step(predict_step, mesh), inputs, clips


def described(program: Program, size: str, mesh: Mesh, data: Clips) -> tuple:
  """The config of a program, its label embeddings and its recipe."""
  model_name = program.config.partition(".")[0]
  overrides = [f"--config.{setting}" for setting in program.settings]
  config = settings.read_config(CONFIGS + program.config, overrides)
  if BATCH_8 not in program.settings:
    config.train.batch_size = 32
  if size == "tiny":
    config.update_from_flattened_dict(TINY[model_name])
    config.train.batch_size = 4 * mesh.size
    if config.model.variant in ("slowonly-r50", "agcn", "mvitv2-s", "base", "swin-t"):
      config.model.variant = "tiny"
  table = trainer.label_embeddings(config, data)
  with tempfile.TemporaryDirectory() as folder:
    if ENCODERS in program.settings:
      config.encoders = ",".join(f"{folder}/{name}" for name in ENCODER_CONFIGS)
      for name, encoder in ENCODER_CONFIGS.items():
        pathlib.Path(folder, name).mkdir()
        _, _, recipe = described(Program(encoder, "train"), size, mesh, data)
        recipes.save(pathlib.Path(folder, name), recipe)
    return config, table, trainer.make_recipe(config, data, MODELS[model_name].describe, table)


def bare(variant: str, mesh: Mesh) -> tuple:
  """The step of `benchmarks.posec3d --dtype=bfloat16 --batch_size=32`."""
  model = models.posec3d.PoseC3D(60, variant=variant, dtype=jnp.bfloat16)
  optimizer, train_step = peers.bare_step(model)
  side = 16 if variant == "tiny" else 56
  x = jax.ShapeDtypeStruct((32, 48, side, side, 17), jnp.float32)
  integers = jax.ShapeDtypeStruct(x.shape[:1], jnp.int32)
  key = jax.eval_shape(jax.random.key, 0)
  state = jax.eval_shape(functools.partial(step.init_train_state, model, optimizer), key, x)
  inputs = (state, {"x": x, "label": integers, "clip": integers}, key)
  return step.compile_train_step(train_step, mesh), inputs, x.shape[0]


def shapes(recipe: Recipe, clips: int, num_clips: int | None = None) -> dict:
  """A batch as shapes, of training or of `num_clips` test clips each; see `jaxmg.data.batch`."""
  batch = {name: one.example(num_clips) for name, one in recipe.inputs.items()}
  batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((clips, *x.shape[1:]), x.dtype), batch)
  integers = jax.ShapeDtypeStruct((clips,), jnp.int32)
  mask = jax.ShapeDtypeStruct((clips,), jnp.bool_)
  return batch | {"label": integers, "clip": integers, "mask": mask}


if __name__ == "__main__":
  main()
