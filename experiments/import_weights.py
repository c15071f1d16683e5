"""Makes a run directory of weights that PyTorch trained: PoseC3D, 2s-AGCN, MViTv2, SwinFace.

  jaxmg import --model=posec3d --stream=joint --source=FILE --out=DIR

They are those of PYSKL or mmaction2, of 2s-AGCN's authors, of torchvision or SlowFast, and of
SwinFace's authors. FILE is .pth, .pt or .safetensors; nothing in it is run. DIR is what `evaluate`
and `predict` take, and `--config.init_from=DIR` of a training. Its test settings are those of the
papers. Sizes are read from the weights; what they do not tell is said here:

  --stream=joint     what the network was trained on: limb, bone, ...
  --preparation=ntu  of 2s-AGCN: how its authors prepared NTU RGB+D ("ntu") or Kinetics ("kinetics")
                     for the weights that they published; "ours" for weights trained on our input
  --skeleton=NAME    the layout of the joints, where several have as many
  --copy=NAME        a copy of the weights in the file (ema, state_dict_ema, ...) in their place
  --data=DATA/NAME   a prepared set with its classes, in their order: to evaluate on
  --class_names=FILE without --data, their names, one a line

For another task, `--drop_head` makes the classifier new, for the classes of --data or
--class_names. For other joints, `--stem_from=NAME --skeleton=NEW` takes PoseC3D's first kernels by
name: a joint (or limb) that NAME has keeps its kernel, any other gets the mean of all. For other
clips, MViTv2's tables of positions are resized by `--num_frames=N` and `--size=PIXELS`; SwinFace
sees N faces of a clip.
"""

import collections
import contextlib
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from jaxmg import errors, models
from jaxmg import recipe as recipes
from jaxmg.data.source import Source
from jaxmg.pretrained import agcn as pretrained_agcn
from jaxmg.pretrained import convert, names, torch_files
from jaxmg.pretrained import mvit as pretrained_mvit
from jaxmg.pretrained import posec3d as pretrained_posec3d
from jaxmg.pretrained import swinface as pretrained_swinface
from jaxmg.recipe import Recipe
from jaxmg.training import parameters

from . import agcn, launch, mvit, posec3d, swinface
from .weights import Weights

MODELS = {
  "posec3d": (posec3d, pretrained_posec3d),
  "agcn": (agcn, pretrained_agcn),
  "mvit": (mvit, pretrained_mvit),
  "swinface": (swinface, pretrained_swinface),
}


def define(values: flags.FlagValues) -> None:
  options = {"flag_values": values}
  flags.DEFINE_enum("model", None, list(MODELS), "Whose weights.", required=True, **options)
  flags.DEFINE_string("source", None, "The file of weights.", required=True, **options)
  flags.DEFINE_string("out", None, "The run directory to make.", required=True, **options)
  flags.DEFINE_string("data", None, "A prepared set, DATA/NAME.", **options)
  flags.DEFINE_string("class_names", None, "A text file, one name a line.", **options)
  flags.DEFINE_string("skeleton", None, "The layout of the joints.", **options)
  flags.DEFINE_string("stream", None, "joint, limb; agcn: bone, joint_motion, ...", **options)
  flags.DEFINE_enum(
    "preparation", None, agcn.PREPARATIONS, "agcn: how its input was prepared.", **options
  )
  flags.DEFINE_integer("num_frames", None, "mvit, swinface: of a clip.", 1, 1024, **options)
  flags.DEFINE_integer("size", None, "mvit: pixels of a side, if others.", 8, 1024, **options)
  flags.DEFINE_string("copy", None, "The copy of the weights to take.", **options)
  flags.DEFINE_boolean("drop_head", False, "Make the classifier new.", **options)
  flags.DEFINE_string("stem_from", None, "The layout of the weights, if another.", **options)


def run(values: flags.FlagValues) -> None:
  out = pathlib.Path(values.out).absolute()
  experiment, table = MODELS[values.model]
  if out.exists() and not (out.is_dir() and not any(out.iterdir())):
    raise errors.ConfigError("--out", expected="a new directory", got=f"{out}, which is there")
  for flag in sorted({flag for one, _ in MODELS.values() for flag in one.WEIGHTS_FLAGS}):
    if values[flag].value is not None and flag not in experiment.WEIGHTS_FLAGS:
      read_by = " or ".join(name for name, (one, _) in MODELS.items() if flag in one.WEIGHTS_FLAGS)
      raise errors.ConfigError(f"--{flag}", expected=f"--model={read_by}", got=values.model)
  data = Source(values.data) if values.data else None
  tensors = torch_files.read(values.source)
  try:
    tensors, copy, others = names.unwrap(tensors, values.copy)
  except errors.CheckpointError as error:
    raise errors.CheckpointError(f"{values.source}: {error}") from error
  shapes = our_shapes(tensors, table.RULES)
  try:
    found = experiment.describe_weights(values, shapes, data)
    class_names = find_classes(values, shapes, found, data)
  except LookupError as error:
    raise errors.CheckpointError(
      values.source,
      expected=f"the weights of {values.model}",
      got=f"{', '.join(list(tensors)[:3])}, ...",
      hint=f"not found: {error}",
    ) from error
  recipe = Recipe(
    model=found.model | {"num_classes": len(class_names)},
    inputs=found.inputs,
    class_names=tuple(class_names),
    num_clips=found.num_clips,
    mirror=found.mirror,
    data=data.describe(recipes.tracks(found.inputs)) if data else None,
  )
  try:
    variables = fill(tensors, table, recipe, found, drop_head=values.drop_head)
  except errors.CheckpointError as error:
    raise errors.CheckpointError(f"{values.source}: {error}") from error
  recipes.save(out, recipe, variables, imported=True)
  notes = [f"the copy of the weights called {copy} is taken"] if copy else []
  notes += [f"not taken: the copy of the weights called {x} (--copy={x})" for x in others]
  report(values, tensors, recipe, variables, [*notes, *found.notes])


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
          # Our model is not known yet: nothing is resized.
          shapes[match.expand(rule.target)] = rule.layout(tensor, tensor.shape).shape
  return shapes


def find_classes(values, shapes, found: Weights, data: Source | None) -> list[str]:
  if found.class_names:
    bias = [len(found.class_names)]
  else:
    head = models.MODELS[values.model].HEAD
    biases = [path for path in shapes if re.fullmatch(f"params/{head}", path) and "bias" in path]
    bias = shapes[biases[0]] if biases else None
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
    return [*found.class_names] or [f"class {k}" for k in range(bias[0])]
  if not values.drop_head and bias is not None and bias[0] != len(names):
    raise errors.CheckpointError(
      f"{values.source}: classes",
      expected=f"{len(names)} as in {where}",
      got=bias[0],
      hint="--drop_head makes the classifier new",
    )
  return names


def fill(tensors, table, recipe: Recipe, found: Weights, *, drop_head) -> dict[str, Any]:
  """The variables of the recipe's model."""
  model, ignore, rules = recipe.build_model(), list(table.IGNORE), table.RULES
  example, head = jnp.zeros(found.example), f"params/{model.HEAD}"
  abstract = jax.eval_shape(model.init, jax.random.key(0), example)
  if drop_head:
    ignore += [rule.pattern for rule in rules if re.fullmatch(head, rule.target)]
    rules = [rule for rule in rules if not re.fullmatch(head, rule.target)]
    rest = parameters.select(abstract["params"], [rf"(?!{model.HEAD}$).*"])
    abstract = {**abstract, "params": rest}
  variables = convert.convert(tensors, abstract, rules, ignore=ignore)
  if drop_head:
    init = jax.jit(lambda key: parameters.select(model.init(key, example)["params"], [model.HEAD]))
    new = jax.tree.map(np.asarray, init(jax.random.key(0)))
    variables["params"] = parameters.merge(variables["params"], new)
  return found.fit({"batch_stats": {}} | variables)  # which a model may have none of


def report(values, tensors, recipe: Recipe, variables, notes) -> None:
  count = len(jax.tree.leaves(variables))
  dropped = 2 if values.drop_head else 0
  print(f"{values.source}: {len(tensors)} tensors, {count - dropped} of them taken")
  kinds = collections.Counter(str(x.dtype) for x in tensors.values() if x.dtype.kind in "fV")
  for kind, number in kinds.items():
    if kind != "float32":
      print(f"{number} of {kind}, which are now float32")
  model = recipe.model
  print(
    f"{model['name']}, width {model['width']}, depths {model['depths']}; {recipe}; "
    f"{model['num_classes']} classes"
  )
  for note in notes:
    print(note)
  if values.drop_head:
    print("the classifier is new, and knows nothing before training")
  if recipe.data is None:
    print("no --data: evaluate needs one")
  print(f"run directory: {values.out}")


if __name__ == "__main__":
  launch.command(run, define)
