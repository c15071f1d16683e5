"""The encoders of a fusion that was trained on tokens: its run directory holds them.

    RUN/encoders/NAME/   recipe.json and checkpoints/STEP, of weights alone, of the input NAME

With them the run is whole: it takes raw files, as if it had been trained end to end. So it does
not matter what becomes of the runs that the encoders come from.
"""

import contextlib
import dataclasses
import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

from jaxmg import errors, fields, inputs
from jaxmg import recipe as recipes
from jaxmg.recipe import Recipe
from jaxmg.training import checkpoints

FOLDER = "encoders"
ENCODER = "encoder"  # in the folder of a track of tokens: the run that they are of


def fingerprint(recipe: Recipe, variables: Mapping[str, Any]) -> str:
  """Which network with which input it is: all but the names of its classes, and its data."""
  content = recipes.to_json(recipe)
  weights = {
    jax.tree_util.keystr(path): recipes.table_digest(np.asarray(leaf))
    for path, leaf in jax.tree_util.tree_leaves_with_path(variables)
  }
  parts = {name: content[name] for name in ("model", "inputs", "views")}
  return fields.digest({**parts, "weights": weights})


def tested_by(recipe: Recipe, num_clips: int | None, *, class_token: bool) -> Recipe:
  """The recipe with so many test clips; None: with its own. Perhaps with the class token alone.

  Raises ConfigError for a model that has none.
  """
  model = recipe.model
  if class_token:
    if "tokens" not in recipes.write_out(model):
      raise errors.ConfigError("--class_token", expected="an encoder with one", got=model["name"])
    model = {**model, "tokens": "class"}
  return dataclasses.replace(recipe, model=model, num_clips=num_clips or recipe.num_clips)


def save(
  place: pathlib.Path,
  run: pathlib.Path,
  step: int,
  *,
  encoder: str,
  num_clips: int | None = None,
  class_token: bool = False,
) -> None:
  """Copies what a run is at a step, without its optimizer, to a place.

  What is there stays if it is whole and has this fingerprint.
  """
  with contextlib.suppress(errors.CheckpointError):
    _checked(place, encoder)
    return
  part = place.with_name(f"{place.name}.part")
  shutil.rmtree(part, ignore_errors=True)
  part.mkdir(parents=True)
  recipes.save(part, tested_by(recipes.load(run), num_clips, class_token=class_token))
  if (run / recipes.LABELS).exists():
    shutil.copyfile(run / recipes.LABELS, part / recipes.LABELS)
  variables = checkpoints.restore_variables(run / "checkpoints", step)
  trained = checkpoints.fingerprint(run / "checkpoints", step)
  with checkpoints.Checkpoints(part / "checkpoints", fingerprint=trained) as saved:
    saved.save(step, variables, {})
  shutil.rmtree(place, ignore_errors=True)
  part.rename(place)


def of_track(track: Any) -> Recipe:
  """The recipe of the encoder that is in the folder of a track of tokens.

  Raises CheckpointError where it has none, or that of other tokens.
  """
  place = track.folder / ENCODER
  if not place.is_dir():
    hint = "the same extract_tokens command goes on"
    raise errors.CheckpointError(track.folder, expected="its encoder", got="none", hint=hint)
  return _checked(place, track.kind.encoder)[0]


def copy(place: pathlib.Path, encoder: pathlib.Path) -> None:
  """Copies what `save` has made to another place, over what is there."""
  part = place.with_name(f"{place.name}.part")
  shutil.rmtree(part, ignore_errors=True)
  shutil.copytree(encoder, part)
  shutil.rmtree(place, ignore_errors=True)
  part.rename(place)


def load(run: str | os.PathLike, *, step: str | int = "best") -> tuple[Recipe, dict[str, Any]]:
  """The recipe of a run and its variables; of a fusion of tokens, with its encoders.

  Then the inputs are those of the encoders, instead of their tokens. Tokens of networks that are
  not ours stay. Raises CheckpointError where an encoder is not the one that was trained on.
  """
  run = pathlib.Path(run)
  recipe, places = load_recipe(run), _places(run)
  variables = checkpoints.restore_variables(run / "checkpoints", step)
  variables = {kind: dict(tree) for kind, tree in variables.items()}
  for name, (place, one) in places.items():
    for kind, tree in _checked(place, one.encoder)[1].items():
      variables[kind][parameters(name)] = tree
  return recipe, variables


def load_recipe(run: str | os.PathLike) -> Recipe:
  """The recipe of a run; of a fusion of tokens, with its encoders, as `load` has it."""
  found = {name: recipes.load(place) for name, (place, _) in _places(pathlib.Path(run)).items()}
  recipe = recipes.load(run)
  return with_encoders(recipe, found) if found else recipe


def _places(run):
  """The folders of the encoders of a run of tokens, and these inputs."""
  recipe, found = recipes.load(run), {}
  trained = (recipe.data or {}).get("encoders", {})
  for name, one in recipe.inputs.items():
    # Of a network that is not ours, it is None what it was trained on.
    if isinstance(one, inputs.Tokens) and trained.get(name) is not None:
      found[name] = run / FOLDER / name, one
      if not found[name][0].is_dir():
        expected = "the encoder that was trained on"
        raise errors.CheckpointError(found[name][0], expected=expected, got="none")
  return found


def _checked(place, encoder):
  found = recipes.load(place), checkpoints.restore_variables(place / "checkpoints")
  if (got := fingerprint(*found)) != encoder:
    hint = "of a track: remove it, and the same extract_tokens command makes it again"
    raise errors.CheckpointError(place, expected=f"encoder {encoder}", got=got, hint=hint)
  return found


def with_encoders(recipe: Recipe, encoders: Mapping[str, Recipe]) -> Recipe:
  """The recipe of a fusion that sees what these encoders see, instead of their tokens.

  Views of tests are those of the encoders, and mirrored if all are.
  """
  whole = len(encoders) == len(recipe.inputs)  # tokens of other networks have no mirror images
  return dataclasses.replace(
    recipe,
    model={**recipe.model, "encoders": {name: one.model for name, one in encoders.items()}},
    inputs={
      name: input_of(encoders[name]) if name in encoders else one
      for name, one in recipe.inputs.items()
    },
    num_clips=max(one.num_clips for one in encoders.values()),
    mirror=whole and all(one.mirror for one in encoders.values()),
  )


def input_of(recipe: Recipe) -> Any:
  """The input of an encoder."""
  (one,) = recipe.inputs.values()
  return one


def parameters(name: str) -> str:
  """Where the variables of an encoder are among those of a fusion (`models.fusion`)."""
  return f"{FOLDER}_{name}"
