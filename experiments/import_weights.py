"""Makes a run directory of weights that PyTorch trained: PoseC3D of PYSKL or mmaction2, 2s-AGCN.

  python -m experiments.import_weights --model=posec3d --source=FILE --out=DIR [--data=DATA/NAME]

FILE is .pth, .pt or .safetensors; nothing in it is run. DIR is what `evaluate` and `predict` take,
and `--config.init_from=DIR` of a training. Its test settings are those of the papers. Sizes are
read from the weights; what they do not tell is said here:

  --skeleton=NAME    the layout of the joints, where several have as many
  --stream=limb      what the network was trained on, if not joints
  --data=DATA/NAME   a prepared set with its classes, in their order: to evaluate on
  --class_names=FILE without --data, their names, one a line

For another task, `--drop_head` makes the classifier new, for the classes of --data or
--class_names. For other joints, `--stem_from=NAME --skeleton=NEW` takes PoseC3D's first kernels by
name: a joint (or limb) that NAME has keeps its kernel, any other gets the mean of all.
"""

import collections
import contextlib
import itertools
import pathlib
import re
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from experiments import launch, trainer
from jaxmg import errors, inputs, predict
from jaxmg.data.source import Source
from jaxmg.pretrained import agcn, convert, posec3d, torch_files
from jaxmg.skeletons import topology
from jaxmg.skeletons.topology import Skeleton
from jaxmg.training import checkpoints

TABLES = {"posec3d": posec3d, "agcn": agcn}
STREAMS = {
  "posec3d": ("joint", "limb"),
  "agcn": inputs.STREAMS,
}
FRAME_SIZE = (1080, 1920)  # that of NTU RGB+D
HEAD = "params/head/"


def define(values: flags.FlagValues) -> None:
  options = {"flag_values": values}
  flags.DEFINE_enum("model", None, list(TABLES), "Whose weights.", required=True, **options)
  flags.DEFINE_string("source", None, "The file of weights.", required=True, **options)
  flags.DEFINE_string("out", None, "The run directory to make.", required=True, **options)
  flags.DEFINE_string("data", None, "A prepared set, DATA/NAME.", **options)
  flags.DEFINE_string("class_names", None, "A text file, one name a line.", **options)
  flags.DEFINE_string("skeleton", None, "The layout of the joints.", **options)
  flags.DEFINE_string("stream", "joint", "joint, limb; agcn: bone, joint_motion, ...", **options)
  flags.DEFINE_boolean("drop_head", False, "Make the classifier new.", **options)
  flags.DEFINE_string("stem_from", None, "The layout of the weights, if another.", **options)


def run(values: flags.FlagValues) -> None:
  out, table = pathlib.Path(values.out).absolute(), TABLES[values.model]
  if out.exists() and not (out.is_dir() and not any(out.iterdir())):
    raise errors.ConfigError("--out", expected="a new directory", got=f"{out}, which is there")
  if values.stream not in STREAMS[values.model]:
    expected = " or ".join(STREAMS[values.model])
    raise errors.ConfigError("--stream", expected=expected, got=values.stream)
  data = Source(values.data) if values.data else None
  tensors = torch_files.read(values.source)
  shapes = our_shapes(tensors, table.RULES)
  describe = {"posec3d": describe_posec3d, "agcn": describe_agcn}[values.model]
  try:
    recipe, source_skeleton = describe(values, shapes, data)
    recipe |= {"frame_size": list(FRAME_SIZE), "data": None}
    recipe |= find_classes(values, shapes, data) | (trainer.describe_data(data) if data else {})
  except LookupError as error:
    raise errors.CheckpointError(
      values.source,
      expected=f"the weights of {values.model}",
      got=f"{', '.join(list(tensors)[:3])}, ...",
      hint=f"not found: {error}",
    ) from error
  recipe["model"]["num_classes"] = len(recipe["class_names"])
  try:
    variables = fill(tensors, table, recipe, source_skeleton, drop_head=values.drop_head)
  except errors.CheckpointError as error:
    raise errors.CheckpointError(f"{values.source}: {error}") from error
  write(out, recipe, variables)
  report(values, tensors, recipe, variables)


def our_shapes(
  tensors: Mapping[str, np.ndarray], rules: Sequence[convert.Rule]
) -> dict[str, tuple[int, ...]]:
  """Our paths and the shapes, in our layout, of the tensors that a rule fits."""
  shapes = {}
  for name, tensor in tensors.items():
    for rule in rules:
      match = re.fullmatch(rule.pattern, name)
      if match and tensor.size:
        with contextlib.suppress(ValueError):  # another rank: `convert` will say so
          shapes[match.expand(rule.target)] = rule.layout(tensor).shape
  return shapes


def describe_posec3d(values, shapes, data) -> tuple[dict[str, Any], Skeleton]:
  channels, width = shapes["params/stem/conv/kernel"][-2:]

  def fits(skeleton):
    return len(input_channels(skeleton, values.stream)) == channels

  skeleton = find_skeleton(values, data, fits)
  source_skeleton = layout("stem_from", values.stem_from) if values.stem_from else skeleton
  if not fits(source_skeleton):
    raise errors.CheckpointError(
      f"{values.source}: {values.stream}s",
      expected=f"{len(input_channels(source_skeleton, values.stream))}, of {source_skeleton.name}",
      got=channels,
      hint="weights of another layout: --stem_from says which",
    )
  depths = []
  for stage in itertools.count(1):
    blocks = (f"params/stage{stage}/block{i}/conv2/conv/kernel" for i in itertools.count())
    depth = sum(1 for _ in itertools.takewhile(shapes.__contains__, blocks))
    if not depth:
      break
    depths.append(depth)
  recipe = {
    "model": {"name": "posec3d", "width": width, "depths": depths, "dropout": 0.5},
    "sampling": {
      "kind": "uniform",
      "num_frames": 48,
      "num_clips": 10,
      "num_persons": data.num_persons if data else 2,
      "style": "mmaction2",
      "points": "keypoints",
    },
    "inputs": {
      "kind": values.stream,
      "size": 64,
      "sigma": 0.6,
      "mirror": data.mirror if data else True,
    },
    "skeleton": trainer.describe_skeleton(skeleton),
  }
  return recipe, source_skeleton


def describe_agcn(values, shapes, data) -> tuple[dict[str, Any], Skeleton]:
  if values.stem_from:
    raise errors.ConfigError("--stem_from", expected="--model=posec3d", got=values.model)
  joints = shapes["params/block1/graph/edges"][-1]
  skeleton = find_skeleton(values, data, lambda skeleton: skeleton.num_joints == joints)
  if skeleton.num_joints != joints:
    raise errors.CheckpointError(
      f"{values.source}: joints", expected=f"{skeleton.num_joints} of {skeleton.name}", got=joints
    )
  in_space = data.joints3d if data else skeleton.name.startswith("kinect")
  widths = []
  for block in itertools.count(1):
    path = f"params/block{block}/temporal/conv/kernel"
    if path not in shapes:
      break
    widths.append(shapes[path][-1])
  recipe = {
    "model": {
      "name": "agcn",
      "parents": list(skeleton.parents),
      "width": shapes["params/block1/temporal/conv/kernel"][-1],
      "depths": [len(list(blocks)) for _, blocks in itertools.groupby(widths)],
      "dropout": 0.0,
    },
    "sampling": {
      "kind": "repeat",
      "num_frames": 300,
      "num_clips": 1,
      "num_persons": max(1, shapes["params/data_bn/scale"][0] // (3 * joints)),
      "style": "mmaction2",
      "points": "joints3d" if in_space else "keypoints",
    },
    "inputs": {"stream": values.stream, "mirror": False},
    "skeleton": trainer.describe_skeleton(skeleton),
  }
  return recipe, skeleton


def layout(flag: str, name: str) -> Skeleton:
  try:
    return topology.get(name)
  except ValueError as error:
    raise errors.ConfigError(f"--{flag}: {error}") from error


def find_skeleton(values, data: Source | None, fits) -> Skeleton:
  """The layout that --skeleton names, or the only one that fits the weights and the data."""
  if data is not None and values.skeleton == data.skeleton:
    return data.layout  # which may be a user's own
  if values.skeleton:
    return layout("skeleton", values.skeleton)
  found = [
    skeleton
    for skeleton in {*topology.SKELETONS.values(), *([data.layout] if data else [])}
    if fits(skeleton)
    and (data is None or data.skeleton in (skeleton.name, *dict(skeleton.sources)))
  ]
  if not found and data is not None:
    return data.layout  # which then does not fit, and it is said how
  if len(found) != 1 or values.stem_from:
    names = " or ".join(sorted(x.name for x in found or topology.SKELETONS.values()))
    raise errors.ConfigError("--skeleton", expected=names, got="none", hint="weights do not tell")
  return found[0]


def input_channels(skeleton: Skeleton, stream: str, *, published: bool = False) -> list:
  """What the channels of PoseC3D's input are, by names; in the order of `published` weights."""
  if stream == "joint":
    return list(skeleton.joints)
  limbs = posec3d.LIMBS.get(skeleton.name, skeleton.limbs) if published else skeleton.limbs
  return [frozenset(skeleton.joints[v] for v in limb) for limb in limbs]


def find_classes(values, shapes, data: Source | None) -> dict[str, Any]:
  bias = shapes.get(f"{HEAD}bias")
  if data is not None and values.class_names:
    raise errors.ConfigError("--class_names", expected="no --data beside it", got=values.data)
  if data is not None:
    names, where = list(data.class_names), data.directory
  elif values.class_names:
    where = values.class_names
    try:
      text = pathlib.Path(where).read_text(encoding="utf-8-sig")
    except ValueError as error:
      raise errors.DataError(f"{where}: {error}") from error
    names = [line.strip() for line in text.splitlines() if line.strip()]
    counts = collections.Counter(names)
    if not names or max(counts.values()) > 1 or not all(name.isprintable() for name in names):
      got = f"{counts.most_common(1)[0][0]!r} among them" if names else "none"
      raise errors.DataError(where, expected="names, one a line, each once", got=got)
  elif values.drop_head or bias is None:
    raise errors.ConfigError("the new head's classes: expected --data or --class_names, got none")
  else:
    return {"class_names": [f"class {k}" for k in range(bias[0])]}
  if not values.drop_head and bias is not None and bias[0] != len(names):
    raise errors.CheckpointError(
      f"{values.source}: classes",
      expected=f"{len(names)} as in {where}",
      got=bias[0],
      hint="--drop_head makes the classifier new",
    )
  return {"class_names": names}


def fill(tensors, table, recipe, source_skeleton: Skeleton, *, drop_head: bool) -> dict[str, Any]:
  """The variables of the recipe's model."""
  model = predict.build_model(recipe)
  skeleton, ignore = predict.recipe_skeleton(recipe), list(table.IGNORE)
  if recipe["model"]["name"] == "posec3d":
    stream = recipe["inputs"]["kind"]
    ours = input_channels(skeleton, stream)
    theirs = input_channels(source_skeleton, stream, published=True)
    example = jnp.zeros((1, 2, 16, 16, len(theirs)))
  else:
    example = jnp.zeros((1, 4, recipe["sampling"]["num_persons"], skeleton.num_joints, 3))
  abstract = jax.eval_shape(model.init, jax.random.key(0), example)
  rules = table.RULES
  if drop_head:
    ignore += [rule.pattern for rule in rules if rule.target.startswith(HEAD)]
    rules = [rule for rule in rules if not rule.target.startswith(HEAD)]
    params = {name: leaf for name, leaf in abstract["params"].items() if name != "head"}
    abstract = {**abstract, "params": params}
  variables = convert.convert(tensors, abstract, rules, ignore=ignore)
  if drop_head:
    init = jax.jit(lambda key: model.init(key, example)["params"]["head"])
    variables["params"]["head"] = jax.tree.map(np.asarray, init(jax.random.key(0)))
  if recipe["model"]["name"] == "posec3d":
    stem = variables["params"]["stem"]["conv"]
    stem["kernel"] = reorder(stem["kernel"], theirs, ours)
  return variables


def reorder(kernel: np.ndarray, theirs: list, ours: list) -> np.ndarray:
  """Brings a kernel's input channels to our order; one that is not among theirs gets the mean."""
  if not set(ours) & set(theirs):
    raise errors.ConfigError("--stem_from", expected="a layout with joints of ours", got="others")
  mean = kernel.mean(-2)
  channels = [kernel[..., theirs.index(x), :] if x in theirs else mean for x in ours]
  return np.stack(channels, -2)


def write(out: pathlib.Path, recipe: dict[str, Any], variables: dict[str, Any]) -> None:
  """Writes the run directory beside its place and gives it its name: it is there whole, or not."""
  out.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=out.parent) as folder:
    half = pathlib.Path(folder) / out.name
    with checkpoints.Checkpoints(half / "checkpoints") as saved:
      saved.save(0, variables, {})
    launch.write(half / "recipe.json", recipe)
    half.rename(out)


def report(values, tensors, recipe, variables) -> None:
  count = len(jax.tree.leaves(variables))
  dropped = 2 if values.drop_head else 0
  print(f"{values.source}: {len(tensors)} tensors, {count - dropped} of them taken")
  kinds = collections.Counter(str(x.dtype) for x in tensors.values() if x.dtype.kind in "fV")
  for kind, number in kinds.items():
    if kind != "float32":
      print(f"{number} of {kind}, which are now float32")
  model, layout_name = recipe["model"], predict.recipe_skeleton(recipe).name
  points = recipe["sampling"]["points"].replace("3d", " in 3-D")
  print(
    f"{model['name']}, width {model['width']}, depths {model['depths']}; {values.stream} of "
    f"{layout_name}, {points}; {model['num_classes']} classes"
  )
  if values.stream == "limb" and (values.stem_from or layout_name) in posec3d.LIMBS:
    print("limbs in the order of the configs of PYSKL and mmaction2, not of their code's default")
  if values.stem_from:
    print(f"first kernels by name from {values.stem_from}; joints that it has not: their mean")
  if values.drop_head:
    print("the classifier is new, and knows nothing before training")
  if recipe["data"] is None:
    height, width = recipe["frame_size"]
    print(f"no --data: not to be evaluated; frames of {width} x {height} where a clip has no size")
  print(f"run directory: {values.out}")


if __name__ == "__main__":
  launch.command(run, define)
