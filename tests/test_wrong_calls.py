# ruff: noqa: E501 (a row is a line)
"""Wrong calls from Python are answered in a line that says what to do."""

import fractions
import functools
import tempfile
import types
from types import MappingProxyType

import jax
import jaxtyping
import numpy as np
import optax
import pytest

import jaxmg
from jaxmg import export, fields, predict, recipe, scores
from jaxmg.data import memory, pipeline, readers, tracks
from jaxmg.models import MODELS
from jaxmg.skeletons import augment, topology
from jaxmg.training import losses, metrics, sharding, step

COCO17 = topology.get("coco17")
KEY = jax.random.key(0)
POSE = np.ones((2, 4, 1, 17, 3), np.float32)
PERSON = np.random.default_rng(0).uniform((9, 9, 0.5), (60, 44, 1), (4, 1, 17, 3))  # of 48 x 64
SIZE = np.array([[48, 64]] * 2)
HEATMAPS = np.zeros((2, 4, 8, 8, 17), np.float32)

GRAPH = jaxmg.inputs.Graph("coco17", (48, 64))
DRAWN = jaxmg.inputs.Heatmaps("coco17", (48, 64))
POSEC3D = {"name": "posec3d", "num_classes": 2, "variant": "tiny"}

heatmaps = functools.partial(jaxmg.inputs.heatmap_inputs, POSE, SIZE, skeleton="coco17", size=8)
graph = functools.partial(jaxmg.inputs.graph_inputs, POSE, SIZE, skeleton="coco17")
agcn = functools.partial(MODELS["agcn"], num_classes=2, variant="tiny")


@pytest.fixture(autouse=True)
def as_users_have_it():
  """Without the checks of types that all other tests run with."""
  jaxtyping.config.update("jaxtyping_disable", True)
  yield
  jaxtyping.config.update("jaxtyping_disable", False)


LABELS = {"label": np.int32([0, 1]), "clip": np.int32([0, 1])}
BATCH = {"pose": {"keypoints": POSE, "frame_size": np.int32(SIZE)}} | LABELS


def without(batch, name):
  return {key: value for key, value in batch.items() if key != name}


def traced(*, batch=BATCH, key=KEY, swapped=False, loss=None, initial=None, **options):
  """Traces a training step of 2s-AGCN."""
  made = recipe.Recipe(agcn(parents=COCO17.parents), {"pose": GRAPH}, ("still", "wave"))
  model, optimizer = made.build_model(), optax.adam(1e-3)
  init = functools.partial(step.init_train_state, model, initial or optimizer)
  state = jax.eval_shape(init, KEY, made.example())
  parts = {"preprocess": made.train_inputs, "loss_fn": loss or losses.classification()}
  parts |= {"model": model, "optimizer": optimizer} | options
  train_step = step.make_train_step(**parts)
  arguments = (batch, state, key) if swapped else (state, batch, key)
  return jax.eval_shape(train_step, *arguments)


@functools.cache
def trained(name):
  if name == "posec3d":
    model, x = MODELS[name](num_classes=2, variant="tiny"), HEATMAPS
  else:
    model, x = agcn(parents=COCO17.parents), POSE
  with jax.ensure_compile_time_eval():  # some ask for it in what they trace
    return model, jax.jit(model.init)(KEY, x)


def apply(name, x, *, change=lambda variables: variables, dropout=0, **options):
  model, variables = trained(name)
  model = model.clone(dropout=dropout or model.dropout)
  return model.apply(change(variables), x, **options)


def unreadable(label_table=None, **options):
  seen = {"pose": DRAWN}
  options = {"model": POSEC3D, "inputs": seen, "class_names": ("still", "wave")} | options
  recipe.save("nowhere", recipe.Recipe(**options), {"params": {}}, label_table=label_table)


def held(names=("still", "wave"), clips=None, labels=(0, 1), **options):
  """A set in memory of two clips."""
  options = {"layout": "coco17", "frame_size": (48, 64), "axes": "TMVC"} | options
  if clips is None:
    clips = np.random.default_rng(0).uniform(1, 48, (2, 4, 1, 17, 3)).astype(np.float32)
    clips[..., 2] = 1
  else:
    del options["axes"]
  return memory.from_arrays([*clips], labels, class_names=names, **options)


def written(suffix, text):
  """Reads a file of this text."""
  with tempfile.NamedTemporaryFile("w", suffix=suffix) as file:
    file.write(text)
    file.flush()
    return readers.read(file.name)


def saved(change=lambda x: x, **options):
  model, variables = trained("agcn")
  seen = jaxmg.inputs.Graph("coco17", (48, 64), num_frames=4)
  variables = jax.tree.map(change, variables)
  recipe.save("nowhere", recipe.Recipe(model, {"pose": seen}, ("a", "b")), variables, **options)


def described(**options):
  return held(**options).describe(["pose"])


def batches(rows=(0, 1), inputs=MappingProxyType({"pose": GRAPH}), seed=0, batch_size=2):
  return pipeline.train_batches(held(), rows, inputs, batch_size=batch_size, seed=seed)


def exported(variables=MappingProxyType({"params": {}}), *, run=None, **options):
  run = run or recipe.Recipe(POSEC3D, {"pose": DRAWN}, ("a", "b"))
  return export.exported(run, variables, **options)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda: unreadable(inputs={"pose": GRAPH}), "^inputs: pose: expected heatmaps or video, which posec3d takes, got graph"),
    (lambda: unreadable(model=agcn(parents=COCO17.parents)), "^inputs: pose: expected graph, which agcn takes, got heatmaps"),
    (lambda: unreadable(model=agcn(parents=topology.get("h36m17").parents), inputs={"pose": GRAPH}), "^model: parents: expected those of coco17, as the input, got "),
    (lambda: unreadable(model={"name": "fusion", "num_classes": 2, "encoders": {"pose": POSEC3D}}, inputs={"pose": GRAPH}), "^inputs: pose: expected heatmaps or video, which posec3d"),
    (lambda: unreadable(mirror=True, data=described(mirror=False)), "^mirror: expected False, as the data"),
    (lambda: unreadable(data=described(names=("wave", "still"))), "^class_names: expected those of the data in their order, got others"),
    (lambda: traced(batch=BATCH | {"label": np.float32([0.5, 1.5])}), r"^label: expected int\[2\], got float32\[2\]"),
    (lambda: traced(batch=BATCH | {"label": np.eye(2, dtype=np.int32)}), r"^label: expected int\[2\], got int32\[2, 2\]"),
    (lambda: traced(batch=without(BATCH, "label")), "^batch: expected label, int.B., got clip and pose"),
    (lambda: traced(batch=without(BATCH, "clip")), "^batch: expected a dictionary with clip, int.B., got label and pose"),
    (lambda: traced(batch=without(BATCH, "pose")), "^batch: expected pose, got clip and label"),
    (lambda: traced(batch=BATCH | {"pose": {"keypoints": POSE}}), "^batch: pose: expected frame_size, got keypoints"),
    (lambda: traced(batch=BATCH | {"clip": np.float32([0, 1])}), r"^clip: expected int\[B\], got float32\[2\]"),
    (lambda: traced(swapped=True), "^state: expected what init_train_state gives, of .*got dict"),
    (lambda: traced(key=0), r"^key: expected jax.random.key\(seed\), got int"),
    (lambda: traced(key=jax.random.split(KEY, 2)), r"^key: expected jax.random.key\(seed\), got key"),
    (lambda: traced(preprocess=recipe.Recipe(POSEC3D, {"pose": DRAWN}, ("a", "b"))), r"^preprocess: expected a function \(keys, batch\), like recipe.train_inputs, got Recipe"),
    (lambda: traced(loss=losses.classification), r"^loss_fn: expected a function .*losses.classification\(\), got classification"),
    (lambda: traced(accumulate=3), "^accumulate: expected a divisor of 2 clips, got 3"),
    (lambda: traced(accumulate=1.0), "^accumulate: expected 1 or more, got 1.0"),
    (lambda: traced(optimizer=optax.adam), "^optimizer: expected one of Optax, like .*got function"),
    (lambda: traced(model="agcn"), "^model: expected a Flax module, got str"),
    (lambda: traced(initial=optax.sgd(0.1)), "^state: expected one of this optimizer and trainable"),
    (lambda: traced(trainable=("head/.*",)), "^state: expected one of this optimizer and trainable"),
    (lambda: traced(loss=losses.classification(semantic=losses.embedding_regression(np.eye(2)))), "^semantic: expected a model with an embedding_size"),
    (lambda: losses.classification(label_smoothing=10), r"^label_smoothing: expected in \[0, 1\), got 10"),
    (lambda: losses.classification(label_smoothing=-1), r"^label_smoothing: expected in \[0, 1\), got -1"),
    (lambda: losses.cross_entropy(np.zeros((2, 3), np.float32), [0, 1]), r"^label: expected int\[2\], got list, which is no array"),
    (lambda: exported(platforms="gpu"), "^platforms: expected some of cpu, cuda, tpu, got gpu"),
    (lambda: exported(run="runs/demo"), "^recipe: expected what jaxmg.recipe.load gives, got str"),
    (lambda: exported({"head": {}}), r'^variables: expected {"params": ..., "batch_stats": ...} .*got head'),
    (lambda: recipe.save("nowhere", recipe.Recipe(POSEC3D, {"pose": DRAWN}, ("a", "b")), {"head": {}}), r'^variables: expected {"params": ..., "batch_stats": ...} .*got head'),
    (lambda: batches(rows=np.array([True, False])), r'^arrays: rows: expected int\[N\], such as data.rows."train".*np.flatnonzero'),
    (lambda: batches(rows="train"), r"^arrays: rows: expected int.*got 'train' \(data.rows\('train'\)"),
    (lambda: batches(rows=[0.0, 1.0]), r"^arrays: rows: expected int\[N\], .*got float64\[2\]"),
    (lambda: batches(rows=[[0, 1]]), r"^arrays: rows: expected int\[N\], .*got int64\[1, 2\]"),
    (lambda: batches(rows=[0, 99]), "^arrays: rows: expected 0 to 1, got 0 to 99"),
    (lambda: batches(inputs=GRAPH), "^inputs: expected inputs by name, .*got Graph"),
    (lambda: batches(seed=0.5), "^seed: expected a whole number from 0, got 0.5"),
    (lambda: batches(batch_size=2.0), "^batch size: expected a whole number, got 2.0"),
    (lambda: pipeline.train_batches(POSE, [0], {"pose": GRAPH}, batch_size=1, seed=0), "^source: expected a Source, .*got ndarray"),
    (lambda: pipeline.test_batches(held(), [2], {"pose": GRAPH}, num_clips=1, batch_size=1), "^arrays: rows: expected 0 to 1, got 2 to 2"),
    (lambda: held(clips=[*np.ones((9, 1, 17, 3), np.float32)], labels=[0] * 9), r"^clips: expected several recordings, got 9 of 1 frame \(one clip is an array"),
    (lambda: agcn(parents=COCO17.parents).init(KEY, np.ones((2, 3, 16, 17, 1), np.float32)), r"^x: expected float\[B, T, M, 17, 3\], .*\(channels come last\)"),
    (lambda: MODELS["mvit"](num_classes=2, variant="tiny").init(KEY, np.ones((1, 3, 4, 32, 32), np.float32)), r"^clips: expected float\[B, T, H, W, 3\], .*\(channels come last\)"),
    (lambda: apply("posec3d", HEATMAPS, train="yes"), "^train: expected True or False, got 'yes'"),
    (lambda: MODELS["posec3d"](3, "tiny"), r"^width: expected a whole number from 0, got 'tiny' \(sizes by their name: variant="),
    (lambda: MODELS["posec3d"](3, dropout=50), r"^dropout: expected in \[0, 1\), got 50"),
    (lambda: MODELS["posec3d"](3, depths=2), "^depths: expected whole numbers, got 2"),
    (lambda: jax.eval_shape(lambda: apply("agcn", POSE, train=True, rows=np.arange(3), mutable=["batch_stats"], rngs={"dropout": KEY}, dropout=0.5)), r"^rows: expected int\[2\], got int64\[3\]"),
    (lambda: metrics.summary(np.eye(2, dtype=np.float32), np.eye(2, dtype=np.int32), 2), r"^labels: expected int\[2\], got int32\[2, 2\]"),
    (lambda: metrics.summary(np.eye(2, dtype=np.float32), np.array([0.0, 1.0]), 2), r"^labels: expected int\[2\], got float64\[2\]"),
    (lambda: metrics.summary([[0.5, 0.5]], np.array([0]), 2), "^probabilities: expected float.*got list, which is no array"),
    (lambda: scores.fuse(["a.npz", "b.npz"], [1, 1]), r"^scores: expected Scores, got 'a.npz' \(scores.load"),
    (lambda: scores.fuse(["a.npz", "b.npz"], ["1", "1"]), "^weights: expected 2 numbers, none negative"),
    (lambda: jaxmg.load(recipe.Recipe(POSEC3D, {"pose": DRAWN}, ("a", "b"))), "^run: expected the path of a run directory, got Recipe"),
    (lambda: sharding.shard_batch(BATCH, sharding.data_mesh()), "^mesh: expected a mesh, and then the batch"),
    (lambda: sharding.shard_batch(sharding.data_mesh(), {"step": 3}), "^batch: step: expected rows, .*got a number"),
    (lambda: sharding.data_mesh(2), r"^devices: expected several of JAX, got 2 \(jax.devices\(\)\[:2\]"),
    (lambda: jaxmg.inputs.Heatmaps("coco17", (48, 64), size="10"), "^size: expected a whole number, got '10'"),
    (lambda: jaxmg.inputs.Graph("coco17", (48, 64), rotation="10"), r"^rotation: expected in \[0, 180\], got '10'"),
    (lambda: readers.from_array(np.ones((9, 17, 3), np.uint8)), r"^the array: expected numbers of another kind, got uint8.*key points\? array.astype"),
    (lambda: readers.from_array(np.ones((9, 17, 3), bool)), r"^the array: expected numbers of another kind, got bool.*key points\? array.astype"),
    (lambda: written(".txt", "some words\n"), "expected .csv, .*got .txt$"),
    (lambda: written(".csv", "some,words\nand,more\n"), "row 2, column 1: expected a number, got 'and'"),
    (lambda: saved(lambda x: x * np.nan), r"^variables: .*: expected finite numbers, got NaN"),
    (lambda: saved(label_table=np.eye(2, dtype=np.float32)), r"^label_table: expected none, got another \(Recipe\(..., label_embeddings="),
    (lambda: heatmaps(skeleton="coco"), r"skeleton: expected .*coco17 or .*got coco \(did you mean coco17"),
    (lambda: heatmaps(skeleton=None), "skeleton: expected .*coco17 or .*got None"),
    (lambda: heatmaps(skeleton="imigue22"), r"expected float\[B, T, M, 22, 3\], got float32\[2, 4"),
    (lambda: heatmaps(size=(8, 8)), r"size: expected pixels of a side, .*got \(8, 8\)"),
    (lambda: heatmaps(stream="limbs"), 'stream: expected "joint" or "limb"'),
    (lambda: heatmaps(rotation=9.0), "rotation: expected keys=, one for each clip, .*got none"),
    (lambda: heatmaps(crop_area=(0.1, 1.0)), "crop_area: expected keys="),
    (lambda: heatmaps(mirror=True), "mirror: expected keys="),
    (lambda: graph(scale=(0.9, 1.1)), "scale: expected keys="),
    (lambda: heatmaps(keys=KEY), r"keys: expected one for each of 2 clips: jax\.random\.split.*one key"),
    (lambda: graph(keys=jax.random.PRNGKey(0)), "keys: expected one for each of 2 .*got one key"),
    (lambda: graph(keys=jax.random.split(KEY, 3)), r"keys: expected one for each of 2 .*got .*\(3,\)"),
    (
      lambda: jaxmg.inputs.heatmap_inputs(POSE.transpose(0, 4, 1, 2, 3), SIZE, skeleton="coco17"),
      r"got float32\[2, 3, 4, 1, 17\] \(channels come last\)",
    ),
    (
      lambda: jaxmg.inputs.heatmap_inputs(POSE, (48, 64), skeleton="coco17"),
      r"frame_size: expected int\[2, 2\], got tuple, which is no array",
    ),
    (lambda: jaxmg.skeletons.heatmaps.render_joints(POSE, size=8), r"size: expected \(height, width\)"),
    (lambda: MODELS["posec"], r"model: expected agcn or .*swinface, got 'posec' \(did you mean posec3d"),
    (lambda: jaxmg.inputs.INPUTS["heatmap"], "input: expected faces or .*did you mean heatmaps"),
    (lambda: MODELS["posec3d"](num_classes=2, variant="big"), "variant: expected slowonly-r50 or "),
    (lambda: MODELS["posec3d"](num_classes=0), "num_classes: expected 1 or more, got 0"),
    (lambda: agcn(parents="coco17"), "parents: expected the parent of every joint"),
    (lambda: agcn(parents=(1, 2, 0)), "parents: expected the parent of every joint, the root its own"),
    (lambda: apply("posec3d", HEATMAPS.transpose(0, 4, 1, 2, 3)), r"8, 8\] \(channels come last\)"),
    (lambda: apply("posec3d", HEATMAPS[..., :12]), r"\[B, T, H, W, 17\], got float32\[2, 4, 8, 8, 12"),
    (lambda: apply("posec3d", HEATMAPS[0]), r"heatmaps: expected float\[B, T, H, W, 17\], got"),
    (lambda: apply("agcn", POSE[..., :12, :]), r"x: expected float\[B, T, 1, 17, 3\]"),
    (lambda: apply("agcn", POSE[..., :2]), r"x: expected float\[B, T, 1, 17, 3\], got float32\[2, 4, 1, 17, 2\]"),
    (lambda: apply("agcn", np.ones((2, 4, 3, 17, 1), np.float32)), r"x: expected float\[B, T, 1, 17, 3\], got float32\[2, 4, 3, 17, 1\]"),
    (lambda: apply("agcn", POSE, change=lambda x: x | {"params": {"data_bn": x["params"]["data_bn"]}}), "variables: expected what init gave, got parts"),
    (lambda: apply("posec3d", HEATMAPS, train=True), r'expected mutable=\["batch_stats"\]'),
    (
      lambda: apply("posec3d", HEATMAPS, train=True, mutable=["batch_stats"]),
      r'train=True: expected rngs=\{"dropout": key\}',
    ),
    (
      lambda: apply("posec3d", HEATMAPS, change=lambda variables: variables["params"]),
      "variables: expected what init gave",
    ),
    (
      lambda: apply("posec3d", HEATMAPS, change=lambda x: {"params": x["params"]}),
      'variables: expected "batch_stats" beside "params"',
    ),
    (
      lambda: topology.Skeleton("coco17", ("a", "b"), (0, 0), ((0, 1),), ()),
      "its name is that of one of ours, which has other joints",
    ),
    (lambda: jaxmg.inputs.Heatmaps("coco17", 48), "frame_size: expected height and width, whole numbers above 0"),
    (lambda: jaxmg.inputs.Heatmaps("coco17", (48, 64), stream="limbs"), "stream: expected joint or limb"),
    (lambda: jaxmg.inputs.Heatmaps("coco17", (48, 64), crop=0.8), "crop: expected two numbers in"),
    (lambda: memory.from_arrays([POSE[0]], [0], class_names=("a",), protocols=["b"]), "protocols: expected a dictionary, like"),
    (lambda: memory.from_arrays(None, [0], class_names=("a",)), "clips: expected an array for each clip, got None"),
    (lambda: memory.from_arrays({"pose": None}, [0], class_names=("a",)), "clips: pose: expected an array for each clip, got None"),
    (lambda: memory.from_arrays([POSE[0]], None, class_names=("a",)), "labels: expected a number or a name for each clip, got None"),
    (lambda: memory.from_arrays([POSE[0]], [0], class_names=5), "class_names: expected a text for each class, got 5"),
    (lambda: memory.from_arrays([POSE[0]], [0], class_names=("a",), subjects="ann"), "subjects: expected a text for each clip, got 'ann'"),
    (lambda: memory.from_arrays([readers.Clip(PERSON, "coco17", (48, 64))], [0], class_names=("a",), subjects=[True]), "clip '0': subject: expected .* got True"),
    (lambda: heatmaps(keys=jax.random.split(KEY, 2), joint_dropout=30.0), r"joint_dropout: expected in \[0, 1\), got 30.0"),
    (lambda: heatmaps(sigma=-1.0), r"sigma: expected in \(0, 100\], got -1.0"),
    (lambda: jaxmg.inputs.Graph("coco17", (48, 64), num_frames=16.0), "num_frames: expected a whole number"),
    (lambda: memory.from_arrays([POSE[0]], [0], class_names=("a",), points="kp"), "points: expected keypoints or joints3d, got 'kp'"),
    (lambda: memory.from_arrays([POSE[0]], [0], class_names=("a",), frame_size=640), "frame_size: expected height and width, whole numbers above 0, got 640"),
    (lambda: unreadable(num_clips=2.0), "recipe: num_clips: expected a whole number from 0, got 2.0"),
    (lambda: unreadable(num_clips="2"), "recipe: num_clips: expected a whole number from 0, got '2'"),
    (lambda: unreadable(mirror=1), "recipe: mirror: expected true or false, got 1"),
    (lambda: unreadable(model={"name": "agcn"}), "^model: num_classes: expected 2, one a name, got none"),
    (lambda: unreadable(model={"name": "agcn", "num_classes": 2}, inputs={"pose": GRAPH}), "recipe: model: expected parents, got none"),
    (lambda: unreadable(model="agcn"), "^model: expected names and values, got 'agcn'"),
    (lambda: unreadable(model=POSEC3D | {"widht": 3}), "expected .*width, got widht"),
    (lambda: recipe.Recipe(POSEC3D | {"width": "4"}, {"pose": DRAWN}, ("a", "b")).build_model(), "^model: width: expected a whole number"),
    (lambda: unreadable(inputs={"pose": "graph"}), r"^inputs: pose: expected an input, like Graph\(...\), got 'graph'"),
    (lambda: unreadable(inputs={}), "^inputs: expected inputs by name, .*got none"),
    (lambda: unreadable(data={}), "recipe: data: expected what Source.describe gives, got none"),
    (lambda: unreadable(label_embeddings="abc"), "^label_table: expected the table of recipe.label_embeddings, got none"),
    (lambda: unreadable(label_embeddings="abc", label_table=[[1.0, 0.0], [0.0, 1.0]]), r"^label_table: expected the table of .*, got float64\[2, 2\] \(its digest is that of float32\?"),
    (lambda: unreadable(label_embeddings="abc", label_table=np.eye(2)), r"^label_table: expected the table of .*, got float64\[2, 2\]"),
    (lambda: unreadable(label_table=[[1.0, 0.0]]), "^label_table: expected none, got another"),
    (lambda: agcn(parents=(0, 2, 1)), "parents: expected the parent of every joint, the root its own"),
    (lambda: agcn(parents=(0, 0, 99)), "parents: expected the parent of every joint, the root its own"),
    (lambda: MODELS["posec3d"](num_classes=True), "num_classes: expected 1 or more, got True"),
    (lambda: jaxmg.inputs.Graph("coco17", (48, True)), r"frame_size: expected height and width, whole numbers above 0, got \(48, True\)"),
    (lambda: memory.from_arrays([POSE[0]], [0], class_names=("a",), fps=True), "fps: expected frames a second, got True"),
    (lambda: unreadable(class_names=(0, 1)), "recipe: class_names: expected a text, got 0"),
    (lambda: jaxmg.load("nowhere"), "recipe.json: expected a run directory with a recipe, got no such"),
  ],
)  # fmt: skip
def test_a_wrong_call_says_what_to_do(call, message):
  with pytest.raises((ValueError, KeyError), match=message) as raised:
    call()
  assert len(str(raised.value)) < 400


@pytest.fixture(scope="module")
def predictor(tmp_path_factory):
  model, variables = trained("agcn")
  seen = {"pose": jaxmg.inputs.Graph("coco17", (48, 64), num_frames=4)}
  run = tmp_path_factory.mktemp("runs") / "run"
  recipe.save(run, recipe.Recipe(model, seen, ("still", "wave")), variables)
  found = jaxmg.load(run / "recipe.json")  # its directory
  model = model.clone(embedding_size=3)
  variables = jax.jit(model.init)(KEY, POSE)
  found.run, found.headed = run, run.with_name("headed")
  recipe.save(found.headed, recipe.Recipe(model, seen, ("still", "wave")), variables)
  return found


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda p: p.attribution(POSE[0], 0.5), r"number: expected 0 to 1, got 0.5 \(or a class's name"),
    (lambda p: p.attribution(POSE[0], True), "number: expected 0 to 1, got True"),
    (lambda p: p.attribution(POSE[0], jax.numpy.array([1])), "number: expected 0 to 1, got Array"),
    (lambda p: p.attribution(POSE[0], 2), "number: expected 0 to 1, got 2"),
    (lambda p: p.attribution(POSE[0], "Wave"), "class: expected still or wave, got Wave .did you mean wave"),
    (lambda p: type(p)("nowhere", batch_size=2.5), "batch_size: expected 1 or more, got 2.5"),
    (lambda p: p.windows(POSE[0], length=10.0, hop=1), "length: expected whole frames, got 10.0"),
    (lambda p: p.windows(POSE[0], length=4, hop=1.0), "hop: expected frames from 1 to the length, 4, got 1.0"),
    (lambda p: p.windows([POSE[0]], length=4, hop=1), "a clip: expected one recording, got a list"),
    (lambda p: p.attribution([POSE[0]]), "a clip: expected one recording, got a list"),
    (lambda p: p(POSE[0].tolist()), r"a clip: expected one recording, got a list \(of numbers\? np.asarray"),
    (lambda p: type(p)(p.run, step="last"), "step: expected best, latest or a number, got 'last'"),
    (lambda p: type(p)(p.headed).nearest(POSE[0], axes="TMVC"), r"the run: label embeddings: expected their table, got a head for them alone \(Recipe"),
    (lambda p: p([*POSE[0]]), "clips: expected several recordings, got 4 of 1 frame "),
    (lambda p: p(POSE[0], fps=25), "fps: expected one of layout, .*got a run that sees pose"),
    (lambda p: p.nearest(POSE[0]), "the run: label embeddings: expected a head for them, got none"),
    (lambda p: p({"poses": POSE[0]}), r"the clip: expected pose, got poses \(did you mean pose\?\)"),
    (lambda p: p({"poses": {"keypoints": POSE[0]}}), r"the clip: expected pose, got poses \(did you mean"),
    (lambda p: p({"skeleton": POSE[0]}), "the clip: expected pose, got skeleton"),
  ],
)  # fmt: skip
def test_a_wrong_prediction_says_what_to_do(predictor, call, message):
  with pytest.raises((ValueError, TypeError), match=f"^{message}"):
    call(predictor)


def test_what_a_set_has_beside_the_tracks_of_a_run_is_left_alone():
  run = types.SimpleNamespace(recipe=types.SimpleNamespace(tracks=("face", "pose")))
  clip = {"pose": readers.Clip(PERSON, "coco17").record(), "faces": {"frames": None}}
  taken = jaxmg.predict.Predictor._by_track
  assert taken(run, clip, readers.Told()).keys() == clip.keys()
  with pytest.raises(ValueError, match=r"expected face or pose, got faces \(did you mean face"):
    taken(run, {"faces": {"frames": None}}, readers.Told())


def test_a_class_may_be_the_number_that_jax_found(predictor):
  clip = readers.Clip(PERSON, "coco17")
  for number in (jax.numpy.argmax(jax.numpy.array([0, 1])), np.array(1), np.int64(1)):
    assert predictor.attribution(clip, number).number == 1


def test_what_no_video_uses_is_refused():
  predictor = object.__new__(predict.Predictor)
  video = jaxmg.inputs.Video((48, 64), num_frames=4, size=32)
  predictor.recipe = recipe.Recipe({"name": "mvit", "num_classes": 1}, {"video": video}, ("a",))
  assert predictor._told({"fps": 25}).fps == 25
  with pytest.raises(ValueError, match="frame_size: expected one of fps, got a run that sees vid"):
    predictor._told({"frame_size": (48, 64)})


def test_optimizers_and_keys_of_other_kinds_are_taken():
  optimizer = optax.MultiSteps(optax.adam(1e-3), 2)
  assert traced(optimizer=optimizer, initial=optimizer)
  assert traced(key=jax.random.key(0, impl="rbg"))


def test_rows_may_be_a_list():
  assert sorted(next(batches(rows=[1, 0]))["clip"]) == [0, 1]


def test_numbers_of_numpy_are_numbers(tmp_path):
  size = (np.int64(48), np.int32(64))
  graph = jaxmg.inputs.Graph("coco17", size, rotation=np.float32(10), num_frames=np.int64(4))
  model = agcn(num_classes=np.int64(2), parents=np.array(COCO17.parents), width=np.int64(4))
  views = {"num_clips": np.int64(2), "mirror": np.True_}
  made = recipe.Recipe(model, {"pose": graph}, np.array(["still", "wave"]), **views)
  recipe.save(tmp_path, made)  # as JSON
  found = recipe.load(tmp_path)
  assert (found.num_clips, found.mirror, found.model["width"]) == (2, True, 4)
  assert found.inputs == {
    "pose": jaxmg.inputs.Graph("coco17", (48, 64), rotation=10.0, num_frames=4)
  }
  assert heatmaps(sigma=np.float64(0.6)).shape == heatmaps().shape
  for given in (np.array([48, 64]), [48, 64], (48.0, np.float32(64))):
    assert jaxmg.inputs.Graph("coco17", given) == GRAPH
    assert readers.Told(frame_size=given).frame_size == (48, 64)
  frames = np.zeros((4, 48, 64, 3), np.uint8)
  for fps in (10, np.float64(10), fractions.Fraction(10), np.int64(10)):
    given = readers.from_array(frames, readers.Told(fps=fps))
    assert given.times.tolist() == [0, 0.1, 0.2, 0.3]
    assert tracks.Pose("coco17", size, fps=fps) == tracks.Pose("coco17", (48, 64), fps=10)


@pytest.mark.parametrize(
  "size",
  [(48.0, 64.0), np.array([48, 64]), jax.numpy.array([48, 64]), (jax.numpy.int32(48), 64.0)],
)
def test_a_frame_size_is_two_whole_numbers_of_any_kind(size):
  for one in (
    jaxmg.inputs.Graph("coco17", size),
    jaxmg.inputs.Video(size),
    tracks.Pose("coco17", size),
    tracks.Video(size),
    readers.Told(frame_size=size),
    readers.Clip(POSE[0], "coco17", size),
    memory.from_arrays([readers.Clip(PERSON, "coco17", size)], [0], class_names=("a",))
    .track("pose")
    .kind,
  ):
    assert one.frame_size == (48, 64)
    assert [*map(type, one.frame_size)] == [int, int]
  content = {"layout": "coco17", "frame_size": [48.0, 64.0]}  # of JSON
  assert fields.make(tracks.Pose, content).frame_size == (48, 64)


@pytest.mark.parametrize(
  "size", [(48.5, 64), (0, 64), (48, 64, 3), "48", 1e9, (1e300, 1), {48, 64}]
)
def test_what_is_no_frame_size_is_refused(size):
  for make in (
    lambda: jaxmg.inputs.Graph("coco17", size),
    lambda: tracks.Pose("coco17", size),
    lambda: readers.Told(frame_size=size),
    lambda: readers.Clip(POSE[0], "coco17", size),
  ):
    with pytest.raises(ValueError, match="frame_size: expected height and width, whole numbers"):
      make()


def test_what_may_be_given_otherwise_is_taken():
  made = topology.Skeleton("mine", ["a", "b"], np.array([0, 0]), [[0, 1]], [])
  assert hash(made) == hash(topology.Skeleton("mine", ("a", "b"), (0, 0), ((0, 1),), ()))
  by_name = jaxmg.inputs.Heatmaps("coco17", [48, 64], crop=[0.8, 1.0])
  assert by_name == jaxmg.inputs.Heatmaps(COCO17, (48, 64), crop=(0.8, 1.0))
  assert hash(by_name) is not None
  legacy = jax.random.split(jax.random.PRNGKey(0), 2)
  assert heatmaps(keys=legacy, rotation=9.0).shape == (2, 4, 8, 8, 17)
  pose, permutation = POSE[0], COCO17.mirror.tolist()
  for changed in (
    augment.flip(pose, permutation, width=8),
    augment.jitter(KEY, pose, pixels=1.0),
    augment.drop_joints(KEY, pose, probability=0.5),
    augment.scale(KEY, pose, factors=(0.9, 1.1)),
    augment.stretch(KEY, pose, COCO17.parents, permutation, factors=(0.9, 1.1)),
  ):
    assert changed.shape == pose.shape
