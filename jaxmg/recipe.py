"""What a run is, beside its weights: `recipe.json` of a run directory, checked when it is read.

    {"model": {"name": "posec3d", "num_classes": 32, "width": 32, "depths": [4, 6, 3], ...},
     "inputs": {"pose": {"kind": "heatmaps", "skeleton": "imigue22", "num_frames": 48, ...}},
     "views": {"num_clips": 10, "mirror": true},
     "class_names": [...], "data": {"name": "imigue", "fingerprint": ..., "fold": null, ...},
     "label_embeddings": null, "sha256": ...}

"model" are the fields of one of `models.MODELS`; a value among them that has a "name" is a model
itself. "inputs" are those of `inputs.INPUTS`: a model of one input is given its array, one of
several a dictionary by their names. A run with a head for label embeddings has their table beside
the recipe, `label_embeddings.npy` float32[K, D], whose digest the recipe holds.
"""

import dataclasses
import functools
import hashlib
import json
import math
import os
import pathlib
import types
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from jaxmg import errors, files, inputs, models
from jaxmg.skeletons import topology
from jaxmg.training import step

FILE, LABELS = "recipe.json", "label_embeddings.npy"


@dataclasses.dataclass(frozen=True)
class Recipe:
  """A run's model, inputs, test views, classes and data; `data` is None for imported weights."""

  model: Mapping[str, Any]
  inputs: Mapping[str, Any]  # name -> an input of `inputs.INPUTS`
  class_names: tuple[str, ...]
  num_clips: int = 1  # test views of a clip
  mirror: bool = (
    False  # whether clips are mirrored: half of them in training, and all as test views
  )
  data: Mapping[str, Any] | None = None
  label_embeddings: str | None = None  # the digest of their table

  def __post_init__(self):
    if self.num_clips < 1:
      raise ValueError(f"views: num_clips: expected at least 1, got {self.num_clips}")
    if self.model["num_classes"] != len(self.class_names):
      expected, got = len(self.class_names), self.model["num_classes"]
      raise ValueError(f"model: num_classes: expected {expected}, one a name, got {got}")

  def __str__(self) -> str:
    return " and ".join(map(str, self.inputs.values()))

  @property
  def num_views(self) -> int:
    return self.num_clips * (2 if self.mirror else 1)

  def build_model(self, dtype: Any = jnp.float32) -> nn.Module:
    """The model, computing in `dtype`."""
    return _build(self.model, dtype)

  def train_inputs(self, keys: Array, batch: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """What the model is given in training, and the batch: `preprocess` of the training step.

    One input draws all from the clip's key. Several share the draw of the mirror image.
    """
    if len(self.inputs) == 1:
      ((name, one),) = self.inputs.items()
      return one.train(keys, batch[name], self.mirror), batch
    fold_in = jax.vmap(jax.random.fold_in, (0, None))
    mirror = self.mirror and jax.vmap(jax.random.bernoulli)(fold_in(keys, len(self.inputs)))
    return {
      name: one.train(fold_in(keys, i), batch[name], mirror)
      for i, (name, one) in enumerate(self.inputs.items())
    }, batch

  def test_views(self, batch: Mapping[str, Any]) -> dict[str, Any]:
    """All test views of a batch, before they are drawn: arrays with a leading axis R."""
    return {name: one.views(batch[name], self.mirror) for name, one in self.inputs.items()}

  def test_view(self, view: Mapping[str, Any]) -> Any:
    """What the model is given of one view."""
    found = {name: one.view(view[name]) for name, one in self.inputs.items()}
    return found if len(found) > 1 else next(iter(found.values()))

  def example(self) -> Any:
    """The shapes of what the model is given of one training clip."""
    batch = {name: one.example() for name, one in self.inputs.items()}
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    return jax.eval_shape(lambda keys, batch: self.train_inputs(keys, batch)[0], keys, batch)

  def predict_step(self, model: nn.Module, *, output: str = "probabilities") -> Callable:
    """The step `(params, batch_stats, batch) -> probabilities [B, K]`, averaged over all views.

    Or what else of the model's outputs `output` names, such as "embedding" [B, D]. It takes
    variables as training leaves them: what a model folds for inference is folded inside the step.
    """
    predict = step.make_predict_step(model, self.test_views, self.test_view, output=output)
    fold = getattr(model, "folded", lambda variables: variables)

    def predict_step(params, batch_stats, batch):
      variables = fold({"params": params, "batch_stats": batch_stats})
      return predict(variables["params"], variables.get("batch_stats", {}), batch)

    return predict_step


def _build(options: Mapping[str, Any], dtype: Any) -> nn.Module:
  values = {
    name: _build(x, dtype) if _is_model(x) else tuple(x) if isinstance(x, list) else x
    for name, x in options.items()
    if name != "name"
  }
  return models.MODELS[options["name"]](**values, dtype=dtype)


def _is_model(value: Any) -> bool:
  return isinstance(value, Mapping) and "name" in value


def describe_input(one: Any) -> dict[str, Any]:
  """An input in a recipe: its kind and its fields."""
  (kind,) = (name for name, cls in inputs.INPUTS.items() if type(one) is cls)
  values = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
  return {"kind": kind} | {
    name: describe_skeleton(value) if isinstance(value, topology.Skeleton) else value
    for name, value in values.items()
  }


def describe_skeleton(skeleton: topology.Skeleton) -> str | dict[str, Any]:
  """A layout in a recipe: the name of one of ours, or a user's own, written out."""
  ours = skeleton in topology.SKELETONS.values()
  return skeleton.name if ours else topology.to_json(skeleton)


def to_json(recipe: Recipe) -> dict[str, Any]:
  """A recipe as its file holds it."""
  content = {
    "model": dict(recipe.model),
    "inputs": {name: describe_input(one) for name, one in recipe.inputs.items()},
    "views": {"num_clips": recipe.num_clips, "mirror": recipe.mirror},
    "class_names": recipe.class_names,
    "data": recipe.data,
    "label_embeddings": recipe.label_embeddings,
  }
  content = json.loads(json.dumps(content))  # tuples as lists
  return content | {"sha256": _digest(content)}


def save(run: str | os.PathLike, recipe: Recipe) -> None:
  """Writes the recipe of a run directory."""
  text = json.dumps(to_json(recipe), indent=2, sort_keys=True)
  with files.replace(pathlib.Path(run) / FILE) as part:
    part.write_text(f"{text}\n", encoding="utf-8")


def load(run: str | os.PathLike) -> Recipe:
  """Reads the recipe of a run directory.

  Raises CheckpointError where there is none, or one that is not as it was written.
  """
  path = pathlib.Path(run) / FILE
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError:
    expected = "a run directory with a recipe"
    raise errors.CheckpointError(path, expected=expected, got="no such file") from None
  except (ValueError, RecursionError) as error:
    raise errors.CheckpointError(path, expected="JSON", got=error) from error
  if not isinstance(content, dict) or "sha256" not in content:
    hint = "of an earlier version: train again"
    raise errors.CheckpointError(path, expected="a recipe with its digest", got="none", hint=hint)
  if _digest({name: x for name, x in content.items() if name != "sha256"}) != content["sha256"]:
    raise errors.CheckpointError(path, expected="the recipe as it was written", got="a changed one")
  try:
    return from_json(content)
  except ValueError as error:
    raise errors.CheckpointError(f"{path}: {error}") from error


def from_json(content: Mapping[str, Any]) -> Recipe:
  """The recipe of a file's content; ValueError, with the place, for what cannot be one."""
  keys = {"model", "inputs", "views", "class_names", "data", "label_embeddings", "sha256"}
  _check_keys("", content, required=keys - {"sha256"}, known=keys)
  found = {}
  for name, options in _mapping("inputs", content["inputs"]).items():
    place = f"inputs: {name}"
    kind = _choice(f"{place}: kind", _mapping(place, options).get("kind"), inputs.INPUTS)
    values = {name: value for name, value in options.items() if name != "kind"}
    found[name] = make(inputs.INPUTS[kind], values, place=place)
  views = _mapping("views", content["views"])
  _check_keys("views", views, required={"num_clips", "mirror"})
  return make(
    Recipe,
    {
      "model": _model("model", content["model"]),
      "inputs": found,
      "class_names": content["class_names"],
      "num_clips": views["num_clips"],
      "mirror": views["mirror"],
      "data": content["data"],
      "label_embeddings": content["label_embeddings"],
    },
  )


def label_table(run: str | os.PathLike, recipe: Recipe) -> Float[np.ndarray, "k d"] | None:
  """The table of a run's label embeddings, or None where it has no head for them."""
  if recipe.label_embeddings is None:
    return None
  path = pathlib.Path(run) / LABELS
  try:
    table = np.load(path, allow_pickle=False)
  except Exception as error:  # numpy raises what the damage of a file leads to
    raise errors.CheckpointError(f"{path}: {error}") from error
  if table_digest(table) != recipe.label_embeddings:
    raise errors.CheckpointError(path, expected="the table as it was written", got="another")
  return table


def table_digest(table: np.ndarray) -> str:
  return hashlib.sha256(f"{table.dtype}{table.shape}".encode() + table.tobytes()).hexdigest()[:16]


def _digest(content: Mapping[str, Any]) -> str:
  return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _model(place: str, options: Any) -> dict[str, Any]:
  """The options of a model, and of the models among them, as they are, but checked."""
  name = _choice(f"{place}: name", _mapping(place, options).get("name"), models.MODELS)
  given = {key: value for key, value in options.items() if key != "name"}
  for key, value in given.items():
    if _is_model(value):
      _model(f"{place}: {key}", value)
  fields = _fields(models.MODELS[name], ignore=("parent", "name", "dtype"))
  _check_keys(
    place, given, required={f for f, (_, needed) in fields.items() if needed}, known=fields
  )
  for key, value in given.items():
    _value(f"{place}: {key}", fields[key][0], value)
  return dict(options)


def make(cls: type, values: Mapping[str, Any], *, place: str = "") -> Any:
  """A dataclass of these values; ValueError, which begins with the field, where they cannot be."""
  fields = _fields(cls)
  required = {name for name, (_, needed) in fields.items() if needed}
  _check_keys(place, values, required=required, known=fields)
  prefix = f"{place}: " if place else ""
  checked = {name: _value(f"{prefix}{name}", fields[name][0], x) for name, x in values.items()}
  try:
    return cls(**checked)
  except ValueError as error:
    raise ValueError(f"{prefix}{error}") from error


@functools.cache
def _fields(cls: type, ignore: tuple[str, ...] = ()) -> dict[str, tuple[Any, bool]]:
  """The type of each field of a dataclass, and whether it must be given."""
  hints = typing.get_type_hints(cls)
  missing = dataclasses.MISSING
  return {
    field.name: (hints[field.name], field.default is missing and field.default_factory is missing)
    for field in dataclasses.fields(cls)
    if field.name not in ignore
  }


def _value(place: str, kind: Any, value: Any) -> Any:
  """A value of JSON as one of a field's type; ValueError where it is none."""
  origin, of = typing.get_origin(kind), typing.get_args(kind)
  if origin in (types.UnionType, typing.Union):
    others = [x for x in of if x is not type(None)]
    return None if value is None and len(others) < len(of) else _value(place, others[0], value)
  if origin is Literal:
    return _choice(place, value, of)
  if kind is topology.Skeleton:
    try:
      return topology.from_json(value) if isinstance(value, dict) else topology.get(value)
    except (ValueError, TypeError) as error:
      raise ValueError(f"{place}: {error}") from error
  if origin is tuple and isinstance(value, list | tuple):
    kinds = of[:1] * len(value) if of[-1] is ... else of
    if len(kinds) == len(value):
      return tuple(_value(place, *pair) for pair in zip(kinds, value, strict=True))
  number = isinstance(value, int | float) and not isinstance(value, bool)
  if (
    (kind is int and type(value) is int and value >= 0)
    or (kind is float and number and math.isfinite(value))
    or (kind in (bool, str) and type(value) is kind)
  ):
    return value
  if kind not in (int, float, bool, str) and origin is not tuple:
    return value  # what else a field may be, its class knows
  expected = {int: "a whole number from 0", float: "a number", bool: "true or false", str: "a text"}
  expected = expected.get(kind, f"{len(of)} values")
  raise ValueError(f"{place}: expected {expected}, got {value!r:.60}")


def _mapping(place: str, value: Any) -> Mapping[str, Any]:
  if not isinstance(value, Mapping):
    raise ValueError(f"{place}: expected names and values, got {value!r:.60}")
  return value


def _choice(place: str, value: Any, choices: Any) -> Any:
  if not isinstance(value, str) or value not in choices:
    got = value if isinstance(value, str) else repr(value)
    raise ValueError(f"{place}: expected {' or '.join(choices)}, got {got:.60}")
  return value


def _check_keys(place: str, values: Mapping[str, Any], *, required, known=None) -> None:
  known = required if known is None else known
  prefix = f"{place}: " if place else ""
  if missing := sorted(set(required) - values.keys()):
    raise ValueError(f"{prefix}expected {', '.join(missing)}, got none")
  if unknown := sorted(values.keys() - set(known)):
    raise ValueError(f"{prefix}expected {', '.join(sorted(known))}, got {unknown[0]}")
