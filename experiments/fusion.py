r"""Trains Cross-Modal Token Fusion of encoders that were trained before.

  jaxmg extract_tokens --run=runs/depth --data=DATA/utd_mhad --folds=4
  jaxmg extract_tokens --run=runs/joint --data=DATA/utd_mhad --folds=4
  jaxmg train fusion:utd_mhad,joint,small --config.data.dir=DATA \
    --config.tokens=depth-folds4,joint-folds4 --workdir=runs/fusion

trains on tokens, which takes minutes. The run holds the encoders, and so predicts from raw files.

  jaxmg train fusion:utd_mhad,joint,small --config.data.dir=DATA \
    --config.encoders=runs/depth,runs/joint --workdir=runs/whole

trains the encoders as well, from raw data: end to end. With
--config.train.trainable='("(?!encoders_).*",)' they stay as they are; with
--config.init_from=runs/fusion the fusion goes on from one of tokens of the same names.

The same command in the same work directory goes on where it stopped. Afterwards:

  jaxmg evaluate --run=RUN
  jaxmg predict --run=RUN --input=FILE --input=FILE
"""

import dataclasses
import pathlib
from typing import Any, NamedTuple

import jax

from jaxmg import encoders, errors, inputs
from jaxmg import recipe as recipes
from jaxmg.data.records import Track
from jaxmg.data.source import Source
from jaxmg.recipe import Recipe
from jaxmg.training import checkpoints, parameters

from . import launch, trainer


class Views(NamedTuple):
  """Of tests."""

  test_clips: int
  mirror: bool


def run(config, workdir: pathlib.Path) -> None:
  trainer.run(config, workdir, describe=describe, begin=begin)


def describe(
  config, data: Source, *, model: str = "fusion", windows: int = 0
) -> tuple[dict, dict, Views]:
  """The model, the inputs and the views of a config's recipe; `windows` are those of training."""
  if config.tokens and config.encoders:
    where = "--config.tokens or --config.encoders"
    raise errors.ConfigError(where, expected="one of them", got="both")
  found, models, test_clips, views = {}, {}, [], {}
  for name, track in tokens(config, data).items():
    kind = track.kind
    found[name] = inputs.Tokens(
      f"tokens-{name}", kind.num_tokens, kind.width, kind.encoder, windows=windows
    )
    test_clips.append(kind.test_views or int(track.num_frames.min()))
    if kind.step is not None:
      one = encoders.of_track(track)
      mirrored = " and their mirror images" if one.mirror else ""
      others = track.num_frames.max() - kind.test_views
      views[name] = f"{one.num_clips} clips{mirrored}, {others} others"
  if len({*views.values()}) > 1:  # view k of each is of the same moment
    got = "; ".join(f"{name}: {text}" for name, text in views.items())
    hint = "extract_tokens --test_clips, --views"
    raise errors.ConfigError(
      "--config.tokens", expected="as many views of each", got=got, hint=hint
    )
  runs = {name: recipes.load(directory) for name, directory in _runs(config).items()}
  for name, one in runs.items():
    where = f"--config.encoders: {name}"
    if len(one.inputs) > 1:
      got = " and ".join(one.inputs)
      raise errors.ConfigError(where, expected="a run of one input", got=got)
    if one.class_names != data.class_names:
      raise errors.ConfigError(where, expected=f"the classes of {data.name}", got="others")
    found[name], models[name] = encoders.input_of(one), one.model
    test_clips.append(one.num_clips)
  if len(found) < 2 or recipes.PRESENT in found:
    got = " and ".join(found) or "none"
    hint = "--config.tokens=a,b or --config.encoders=RUN,RUN"
    expected = f"two inputs or more, none called {recipes.PRESENT}"
    raise errors.ConfigError("--config.tokens", expected=expected, got=got, hint=hint)
  model = trainer.model_options(
    config, model, num_classes=len(data.class_names), encoders=models or None
  )
  # Tokens of mirror images are views among others.
  return model, found, Views(max(test_clips), bool(runs) and all(x.mirror for x in runs.values()))


def begin(config, workdir: pathlib.Path, state: Any, recipe: Recipe, data: Source) -> tuple:
  """The state with the weights of the encoders, and the recipe with what these were trained on."""
  trained = {}
  for name, directory in _runs(config).items():
    where, theirs = f"--config.encoders: {name}", recipes.load(directory)
    trained[name] = trainer.check_unseen(where, directory, theirs, recipe, data)[0]
    if config.init_from:
      continue  # which has the weights
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    found = checkpoints.restore_variables(directory / "checkpoints")
    found = parameters.take_over(variables, found, part=encoders.parameters(name))
    state = state.replace(**found, ema=found if state.ema else {})
  for name, track in tokens(config, data).items():
    trained[name] = None
    if track.kind.step is None:
      continue  # no network of ours
    theirs, encoder = encoders.of_track(track), track.folder / encoders.ENCODER
    trained[name] = theirs.data or {}
    if not track.kind.folds:
      hint = "extract_tokens --folds"
      trainer.check_unseen(f"tokens-{name}", encoder, theirs, recipe, data, hint=hint)
    if jax.process_index() == 0:
      encoders.copy(workdir / encoders.FOLDER / name, encoder)
  return state, dataclasses.replace(recipe, data=recipe.data | {"encoders": trained})


def tokens(config, data: Source) -> dict[str, Track]:
  """The tracks of tokens that a config names, by their names without "tokens-"."""
  names = _names("tokens", config.tokens)
  there = [name.removeprefix("tokens-") for name in data.track_names if name.startswith("tokens-")]
  if unknown := [name for name in names if name not in there]:
    there = there or ["tracks of tokens (extract_tokens)"]
    raise errors.ConfigError(errors.unknown("--config.tokens", there, unknown[0]))
  return {name: data.track(f"tokens-{name}") for name in names}


def _runs(config) -> dict[str, pathlib.Path]:
  found = [pathlib.Path(text) for text in _names("encoders", config.encoders)]
  names = _names("encoders", ",".join(path.resolve().name for path in found))
  return dict(zip(names, found, strict=True))


def _names(key: str, text: str) -> list[str]:
  names = [name for name in text.split(",") if name]
  if len({*names}) < len(names):
    raise errors.ConfigError(f"--config.{key}", expected="different names", got=" and ".join(names))
  return names


if __name__ == "__main__":
  launch.main(run)
