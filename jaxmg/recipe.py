"""What a run is, beside its weights: `recipe.json` of a run directory, checked when it is read.

    {"model": {"name": "posec3d", "num_classes": 32, "width": 32, "depths": [4, 6, 3], ...},
     "inputs": {"pose": {"kind": "heatmaps", "skeleton": "imigue22", "num_frames": 48, ...}},
     "views": {"num_clips": 10, "mirror": true},
     "class_names": [...], "data": {"name": "imigue", "fingerprint": ..., "fold": null, ...},
     "label_embeddings": null, "sha256": ...}

"model" are all fields of one of `models.MODELS`; a value among them that has a "name" is a model
itself, and one that is a dictionary without holds models by their names. "inputs" are those of
`inputs.INPUTS`: a model of one input is given its array, one of several a dictionary by their
names. Where clips lack an input, its part of the batch holds "present" bool[B], and the dictionary
has, under this name, a mapping of inputs to these. A run with a head for label embeddings has their
table beside the recipe, `label_embeddings.npy` float32[K, D], whose digest the recipe holds.
"""

import dataclasses
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from jaxmg import errors, fields, files, inputs, models
from jaxmg.data.batch import PRESENT
from jaxmg.training import step

FILE, LABELS = "recipe.json", "label_embeddings.npy"
_NO_OPTIONS = ("parent", "name", "dtype")  # fields of a model that a recipe does not hold


@dataclasses.dataclass(frozen=True)
class Recipe:
  """A run's model, inputs, test views, classes and data; `data` is None for imported weights.

  The model is given as one of `models.MODELS`, or as its options with its name. `data` is what
  `Source.describe` says. Raises ValueError for what cannot be together.
  """

  model: Mapping[str, Any] | nn.Module
  inputs: Mapping[str, Any]  # name -> an input of `inputs.INPUTS`
  class_names: tuple[str, ...]
  num_clips: int = 1  # test views of a clip
  mirror: bool = (
    False  # whether clips are mirrored: half of them in training, and all as test views
  )
  data: Mapping[str, Any] | None = None
  label_embeddings: str | None = None  # the digest of their table

  def __post_init__(self):
    if isinstance(self.model, nn.Module):
      object.__setattr__(self, "model", describe_model(self.model))
    if isinstance(self.class_names, str):
      raise ValueError(f"class_names: expected a text for each class, got {self.class_names!r}")
    object.__setattr__(self, "class_names", tuple(self.class_names))
    fields.mapping("model", self.model)
    if not isinstance(self.inputs, Mapping) or not self.inputs:
      expected, got = 'inputs by name, like {"pose": Graph(...)}', type(self.inputs).__name__
      raise ValueError(f"inputs: expected {expected}, got {got if self.inputs else 'none'}")
    for name, one in self.inputs.items():
      if isinstance(one, type) or not hasattr(one, "train"):
        raise ValueError(f"inputs: {name}: expected an input, like Graph(...), got {one!r:.60}")
    if not isinstance(self.data, Mapping | None):
      got = type(self.data).__name__
      raise ValueError(f"data: expected what Source.describe gives, got {got}")
    if PRESENT in self.inputs:
      raise ValueError(f"inputs: expected other names than {PRESENT}, got it")
    given = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
    for name, value in fields.check(Recipe, given, place="recipe").items():
      object.__setattr__(self, name, value)
    if self.num_clips < 1:
      raise ValueError(f"views: num_clips: expected at least 1, got {self.num_clips}")
    expected, got = len(self.class_names), self.model.get("num_classes", "none")
    if got != expected:
      raise ValueError(f"model: num_classes: expected {expected}, one a name, got {got}")
    _check_fit(self.model, self.inputs)
    _check_data(self)

  def __str__(self) -> str:
    return " and ".join(map(str, self.inputs.values()))

  @property
  def num_views(self) -> int:
    return self.num_clips * (2 if self.mirror else 1)

  @property
  def may_lack(self) -> bool:
    """Whether a clip may lack inputs, all but one: the model has learnt to do without."""
    return self.model.get("modality_dropout", 0) > 0

  @property
  def tracks(self) -> tuple[str, ...]:
    return tracks(self.inputs)

  def build_model(self, dtype: Any = jnp.float32) -> nn.Module:
    """The model, computing in `dtype`."""
    return _build("model", self.model, dtype)

  def train_inputs(self, keys: Array, batch: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any]]:
    """What the model is given in training, and the batch: `preprocess` of the training step.

    One input draws all from the clip's key. Several share the draw of the mirror image.
    """
    if len(self.inputs) == 1:
      (name,) = self.inputs
      return self._train(name, keys, batch, self.mirror), batch
    fold_in = jax.vmap(jax.random.fold_in, (0, None))
    mirror = self.mirror and jax.vmap(jax.random.bernoulli)(fold_in(keys, len(self.inputs)))
    found = {
      name: self._train(name, fold_in(keys, i), batch, mirror) for i, name in enumerate(self.inputs)
    }
    return found | self._present(batch), batch

  def _train(self, name: str, keys: Array, batch: Mapping[str, Any], mirror: Any) -> Any:
    one, part = self.inputs[name], batch.get(name)
    wanted = one.example()
    for where, found, names in (("batch", batch, [name]), (f"batch: {name}", part, wanted)):
      if missing := [key for key in names if not isinstance(found, Mapping) or key not in found]:
        got = " and ".join(found) if isinstance(found, Mapping) else type(found).__name__
        raise ValueError(f"{where}: expected {missing[0]}, got {got}")
    return one.train(keys, part, mirror)

  def test_views(self, batch: Mapping[str, Any]) -> dict[str, Any]:
    """All test views of a batch, before they are drawn: arrays with a leading axis R."""
    views = {name: one.views(batch[name], self.mirror) for name, one in self.inputs.items()}
    repeat = lambda x: jnp.broadcast_to(x, (self.num_views, *x.shape))  # noqa: E731
    return views | jax.tree.map(repeat, self._present(batch))

  def test_view(self, view: Mapping[str, Any], masks: Mapping[str, Array] | None = None) -> Any:
    """What the model is given of one view; masks multiply it, by input (`Input.ones`)."""
    masks = masks or dict.fromkeys(self.inputs)
    found = {name: one.view(view[name], masks[name]) for name, one in self.inputs.items()}
    if len(found) == 1:
      return next(iter(found.values()))
    return found | {name: view[name] for name in (PRESENT,) if name in view}

  def _present(self, batch: Mapping[str, Any]) -> dict[str, dict[str, Array]]:
    """Which clips have which input, of those inputs that some lack."""
    there = {name: batch[name][PRESENT] for name in self.inputs if PRESENT in batch[name]}
    return {PRESENT: there} if there else {}

  def example(self) -> Any:
    """The shapes of what the model is given of one training clip."""
    batch = {name: one.example() for name, one in self.inputs.items()}
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    return jax.eval_shape(lambda keys, batch: self.train_inputs(keys, batch)[0], keys, batch)

  def predict_step(
    self, model: nn.Module, *, output: str = "probabilities", average: bool = True
  ) -> Callable:
    """The step `(params, batch_stats, batch) -> probabilities [B, K]`, averaged over all R views.

    Or what else of the model's outputs `output` names, such as "features" [B, C]; with
    `average=False` that of every view, [B, R, ...]. It takes variables as training leaves them:
    what a model folds for inference is folded inside the step.
    """
    predict = step.make_predict_step(
      model, self.test_views, self.test_view, output=output, average=average
    )

    def predict_step(params, batch_stats, batch):
      variables = folded(model, params, batch_stats)
      return predict(variables["params"], variables["batch_stats"], batch)

    return predict_step

  def attribution_step(self, model: nn.Module) -> Callable:
    """The step `(params, batch_stats, batch) -> (logit [B, R], gradients by input [B, R, ...])`.

    The logit is that of the class `batch["class"]` int32[B], of two classes less that of the other,
    the gradients are those with respect
    to a mask of each input that hides nothing (`Input.ones`): gradient times input, summed over
    what one number of the mask multiplies.
    """

    def attribution_step(params, batch_stats, batch):
      variables = folded(model, params, batch_stats)

      def of_view(view):
        def logit(masks):
          logits, _ = model.apply(variables, self.test_view(view, masks))
          of = lambda k: jnp.take_along_axis(logits, k[:, None], -1)[:, 0]  # noqa: E731
          found = of(batch["class"])
          if logits.shape[-1] == 2:  # of which each alone says nothing
            found -= of(1 - batch["class"])
          return found.sum(), found  # a row's logit depends on its own masks alone

        masks = {name: one.ones(view[name]) for name, one in self.inputs.items()}
        gradients, found = jax.grad(logit, has_aux=True)(masks)
        return found, gradients

      found = jax.lax.map(of_view, self.test_views(batch))
      return jax.tree.map(lambda x: x.swapaxes(0, 1), found)

    return attribution_step


def _check_fit(model: Mapping[str, Any], seen: Mapping[str, Any]) -> None:
  """Raises ValueError where a model, or an encoder in it, does not take what it would be given."""
  encoders = model.get("encoders")
  encoders = encoders if isinstance(encoders, Mapping) else {}
  for name, one in seen.items():
    taker = encoders.get(name, model)
    taker = taker if isinstance(taker, Mapping) else {}
    takes = getattr(models.MODELS.get(str(taker.get("name"))), "TAKES", None)
    kinds = [kind for kind, cls in inputs.INPUTS.items() if isinstance(one, cls)]
    if takes and kinds and kinds[0] not in takes:
      expected = f"{' or '.join(takes)}, which {taker['name']} takes"
      raise ValueError(f"inputs: {name}: expected {expected}, got {kinds[0]}")
    skeleton, parents = getattr(one, "skeleton", None), taker.get("parents")
    if skeleton and parents is not None and not np.array_equal(parents, skeleton.parents):
      raise ValueError(f"model: parents: expected those of {skeleton}, as the input, got {parents}")


def _check_data(recipe: Recipe) -> None:
  """Raises ValueError for what the data says otherwise; that of earlier versions may not say it."""
  data = recipe.data or {}
  if recipe.mirror and data.get("mirror") is False:
    expected = "False, as the data: a mirrored clip has another label"
    raise ValueError(f"mirror: expected {expected}, got True")
  if data.get("names", names := fields.digest({"names": recipe.class_names})) != names:
    raise ValueError("class_names: expected those of the data in their order, got others")


def folded(model: nn.Module, params: Any, batch_stats: Any) -> dict[str, Any]:
  """The variables for inference of a model that training has left these of."""
  variables = {"params": params, "batch_stats": batch_stats}
  fold = getattr(model, "folded", lambda variables: variables)
  return {"batch_stats": {}} | fold(variables)


def write_out(options: Mapping[str, Any]) -> dict[str, Any]:
  """The options of a model with all of its fields, and no variant: tables of these may change.

  Raises ValueError, which begins with the field, where the model refuses one.
  """
  return describe_model(_build("", options, jnp.float32))


def describe_model(model: nn.Module) -> dict[str, Any]:
  """The options of a model in a recipe: its name in `models.MODELS`, and all of its fields.

  Raises ValueError for a model that is not one of these.
  """
  names = [name for name, cls in models.MODELS.items() if type(model) is cls]
  if not names:
    expected = f"one of models.MODELS: {' or '.join(models.MODELS)}"
    raise ValueError(f"model: expected {expected}, got {type(model).__name__}")
  found = {"name": names[0]}
  for field in dataclasses.fields(model):
    if field.name not in _NO_OPTIONS:
      value = getattr(model, field.name)
      if isinstance(value, nn.Module):
        value = describe_model(value)
      elif isinstance(value, Mapping):
        value = {name: describe_model(one) for name, one in value.items()}
      found[field.name] = value
  return found


def _build(place: str, options: Mapping[str, Any], dtype: Any) -> nn.Module:
  values = _model(place, options, may_have=("variant",))
  for name, value in values.items():
    if isinstance(value, Mapping):
      make = lambda of, one: _build(of, one, dtype)  # noqa: E731
      values[name] = _of_models(_within(place, name), value, make)
  return models.MODELS[values.pop("name")](**values, dtype=dtype)


def _of_models(place: str, value: Mapping[str, Any], make: Callable) -> Any:
  """What `make` makes of a model among the options of another, or of each in a dictionary."""
  if _is_model(value):
    return make(place, value)
  return {name: make(f"{place}: {name}", one) for name, one in value.items()}


def _within(place: str, name: str) -> str:
  return f"{place}: {name}" if place else name


def _is_model(value: Mapping[str, Any]) -> bool:
  return isinstance(value.get("name"), str)  # and not a model that is called "name"


def tracks(inputs: Mapping[str, Any]) -> tuple[str, ...]:
  """What of a prepared set the inputs read."""
  return tuple(sorted({one.track for one in inputs.values()}))


def describe_input(one: Any) -> dict[str, Any]:
  """An input in a recipe: its kind and its fields."""
  kinds = [name for name, cls in inputs.INPUTS.items() if type(one) is cls]
  if not kinds:
    expected = f"one of inputs.INPUTS: {' or '.join(inputs.INPUTS)}"
    raise ValueError(f"inputs: expected {expected}, got {type(one).__name__}")
  return {"kind": kinds[0]} | fields.to_json(one)


def to_json(recipe: Recipe) -> dict[str, Any]:
  """A recipe as its file holds it."""
  content = {
    "model": describe_model(recipe.build_model()),
    "inputs": {name: describe_input(one) for name, one in recipe.inputs.items()},
    "views": {"num_clips": recipe.num_clips, "mirror": recipe.mirror},
    "class_names": recipe.class_names,
    "data": recipe.data,
    "label_embeddings": recipe.label_embeddings,
  }
  content = json.loads(json.dumps(content))  # tuples as lists
  return content | {"sha256": fields.digest(content)}


def save(
  run: str | os.PathLike,
  recipe: Recipe,
  variables: Mapping[str, Any] | None = None,
  *,
  imported: bool = False,
  label_table: Float[np.ndarray, "k d"] | None = None,
) -> None:
  """Writes the recipe of a run directory; with the variables of its model, a whole run.

  Every command and `jaxmg.load` then take it. `variables` are "params" and, if the model has any,
  "batch_stats", as training leaves them. They were trained on the recipe's `data`, unless they are
  `imported`: evaluation refuses clips that were trained on. Of a recipe with label embeddings, a
  whole run holds their `label_table` too.

  Raises CheckpointError where the directory exists already, and for variables or a table of another
  model.
  """
  if not isinstance(recipe, Recipe):
    raise ValueError(f"recipe: expected a jaxmg.recipe.Recipe, got {type(recipe).__name__}")
  if variables is not None:
    check_variables(variables)
    _save_run(pathlib.Path(run), recipe, variables, imported, label_table)
    return
  if label_table is not None:
    raise ValueError("label_table: expected variables beside it, got none")
  text = json.dumps(to_json(recipe), indent=2, sort_keys=True)
  with files.replace(pathlib.Path(run) / FILE) as part:
    part.write_text(f"{text}\n", encoding="utf-8")


def check_variables(variables: Any) -> None:
  """Raises ValueError where these are no variables of a model."""
  names = sorted(map(str, variables)) if isinstance(variables, Mapping) else []
  if "params" not in names:
    expected = '{"params": ..., "batch_stats": ...} (TrainState.variables)'
    got = " and ".join(names[:3]) or type(variables).__name__
    raise ValueError(f"variables: expected {expected}, got {got}")


def _save_run(run, recipe, variables, imported, label_table):
  from jaxmg.training import checkpoints  # which few of those who read a recipe need

  if run.exists():
    expected, got = "a new folder", "a run" if (run / FILE).exists() else "one that is there"
    raise errors.CheckpointError(run, expected=expected, got=got)
  try:
    from_json(to_json(recipe))  # as whoever loads it
  except (ValueError, TypeError, LookupError, AttributeError) as error:
    raise errors.CheckpointError(f"recipe: {error}") from error
  label_table = None if label_table is None else np.asarray(label_table)
  if table_digest(label_table) != recipe.label_embeddings:
    whose = "the table of recipe.label_embeddings" if recipe.label_embeddings else "none"
    got, hint = "none" if label_table is None else "another", None
    if not recipe.label_embeddings:
      hint = "Recipe(..., label_embeddings=table_digest(table))"
    elif label_table is not None and label_table.dtype != np.float32:
      got, hint = f"{label_table.dtype}{[*label_table.shape]}", "its digest is that of float32?"
    raise errors.CheckpointError("label_table", expected=whose, got=got, hint=hint)
  trained = recipe.data is not None and not imported
  if trained and "fingerprint" not in recipe.data:
    got = " and ".join(recipe.data) or "none"
    raise errors.CheckpointError("recipe: data", expected="what Source.describe gives", got=got)
  variables = {"batch_stats": {}, **variables}
  model = recipe.build_model()
  wanted = jax.eval_shape(model.init, jax.random.key(0), recipe.example())
  shapes = [
    {
      f"{kind}{jax.tree_util.keystr(path)}": _numbers(leaf)
      for kind in ("params", "batch_stats")
      for path, leaf in jax.tree_util.tree_leaves_with_path(one.get(kind, {}))
    }
    for one in (wanted, variables)
  ]
  for name in sorted({*shapes[0], *shapes[1]}):
    expected, got = (found.get(name, "none") for found in shapes)
    if expected != got:
      raise errors.CheckpointError(f"variables: {name}", expected=expected, got=got)
  for path, leaf in jax.tree_util.tree_leaves_with_path(variables):
    if not np.isfinite(np.asarray(leaf)).all():
      where = f"variables: {jax.tree_util.keystr(path)}"
      raise errors.CheckpointError(where, expected="finite numbers", got="NaN or infinity")
  fingerprint = {"data": recipe.data["fingerprint"]} if trained else None
  run.parent.mkdir(parents=True, exist_ok=True)
  with tempfile.TemporaryDirectory(dir=run.parent) as folder:  # it is there whole, or not
    half = pathlib.Path(folder) / run.name
    with checkpoints.Checkpoints(half / "checkpoints", fingerprint=fingerprint) as saved:
      saved.save(0, jax.tree.map(np.asarray, variables), {})
    save(half, recipe)
    if label_table is not None:
      np.save(half / LABELS, label_table)
    half.rename(run)


def _numbers(leaf: Any) -> tuple[int, ...] | str:
  """The shape of an array; with the kind of its numbers, where they are no floats."""
  dtype, shape = jnp.result_type(leaf), np.shape(leaf)
  return shape if jnp.issubdtype(dtype, jnp.floating) else f"{dtype}{list(shape)}"


def load(run: str | os.PathLike) -> Recipe:
  """Reads the recipe of a run directory.

  Raises CheckpointError where there is none, or one that is not as it was written.
  """
  path = pathlib.Path(run) / FILE
  try:
    content = json.loads(path.read_text(encoding="utf-8"))
  except (FileNotFoundError, NotADirectoryError):
    expected, hint = "a run directory with a recipe", _beside(pathlib.Path(run))
    raise errors.CheckpointError(path, expected=expected, got="no such file", hint=hint) from None
  except (ValueError, RecursionError) as error:
    raise errors.CheckpointError(path, expected="JSON", got=error) from error
  if not isinstance(content, dict) or "sha256" not in content:
    hint = "of an earlier version: train again"
    raise errors.CheckpointError(path, expected="a recipe with its digest", got="none", hint=hint)
  if fields.digest(content) != content["sha256"]:
    raise errors.CheckpointError(path, expected="the recipe as it was written", got="a changed one")
  try:
    return from_json(content)
  except ValueError as error:
    raise errors.CheckpointError(f"{path}: {error}") from error


def _beside(run: pathlib.Path) -> str | None:
  """A hint at a run of nearly this name, in the same folder or in ./runs."""
  folders = (pathlib.Path("runs"), run.parent)
  found = {path.parent.name: path.parent for one in folders for path in one.glob(f"*/{FILE}")}
  near = errors.nearest(run.name, found)
  return near and f"did you mean {found[near]}?"


def from_json(content: Mapping[str, Any]) -> Recipe:
  """The recipe of a file's content; ValueError, with the place, for what cannot be one."""
  keys = {"model", "inputs", "views", "class_names", "data", "label_embeddings", "sha256"}
  fields.check_keys("", content, required=keys - {"sha256"}, known=keys)
  found = {}
  for name, options in fields.mapping("inputs", content["inputs"]).items():
    place = f"inputs: {name}"
    kind = fields.choice(
      f"{place}: kind", fields.mapping(place, options).get("kind"), inputs.INPUTS
    )
    values = {name: value for name, value in options.items() if name != "kind"}
    found[name] = fields.make(inputs.INPUTS[kind], values, place=place)
  _model("model", content["model"])
  views = fields.mapping("views", content["views"])
  fields.check_keys("views", views, required={"num_clips", "mirror"})
  return fields.make(
    Recipe,
    {
      "model": content["model"],
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


def table_digest(table: np.ndarray | None) -> str | None:
  """What a recipe holds of its table of label embeddings."""
  if table is None:
    return None
  return hashlib.sha256(f"{table.dtype}{table.shape}".encode() + table.tobytes()).hexdigest()[:16]


def _model(place: str, options: Any, *, may_have: tuple[str, ...] = ()) -> dict[str, Any]:
  """The options of a model, checked; those of models among them are as they are, but checked."""
  options = fields.mapping(place or "model", options)
  name = fields.choice(_within(place, "name"), options.get("name"), models.MODELS)
  given = {key: value for key, value in options.items() if key not in ("name", *may_have)}
  for key, value in given.items():
    if isinstance(value, Mapping):
      check = lambda of, one: _model(of, one, may_have=may_have)  # noqa: E731
      _of_models(_within(place, key), value, check)
  checked = fields.check(models.MODELS[name], given, place=place, ignore=_NO_OPTIONS)
  return {**options, **checked}
