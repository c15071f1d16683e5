"""A run -> one program from whole recordings to probabilities, which needs jax alone.

    program = export.exported(recipe, variables, num_frames=48)
    open("nod.jaxexport", "wb").write(program.serialize())

    # In a process without jaxmg and flax:
    program = jax.export.deserialize(open("nod.jaxexport", "rb").read())
    probabilities = program.call(keypoints, frame_size)  # float32[b, K]

It gives what `jaxmg.predict.Predictor` gives for a recording of so many frames: the frames that the
test views take depend on their number alone, and are constants in it, as are the weights. It checks
nothing: a recording that shows nobody has probabilities too.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax import export

from jaxmg import errors, ranges
from jaxmg import recipe as recipes
from jaxmg.data.batch import PRESENT
from jaxmg.inputs.whole import Whole
from jaxmg.recipe import Recipe
from jaxmg.training import step

PLATFORMS = ("cpu", "cuda", "tpu")


def recordings(
  recipe: Recipe,
  *,
  num_frames: int | None = None,
  frame_size: tuple[int, int] | None = None,
  fps: float | None = None,
) -> dict[str, Whole]:
  """What a program of a recipe takes of whole recordings, by the inputs' names.

  `num_frames` is that of the recordings; else of what the network sees. Frames of a video have a
  size (height, width; else that of the run's track) and come at `fps`; else all of them last as
  long as what the network sees. Where recordings may lack inputs, "present" says which are there.

  Raises ConfigError for an input that is not of recordings, and for what no input uses.
  """
  inputs = recipe.inputs
  if num_frames is None:
    num_frames = max(one.num_frames for one in inputs.values())
  if not ranges.is_whole(num_frames) or num_frames < 1:
    raise errors.ConfigError("frames", expected="at least 1", got=num_frames)
  given = {"frame_size": frame_size, "fps": fps}
  options_of = {name: getattr(one, "whole_options", ()) for name, one in inputs.items()}
  used = {option for some in options_of.values() for option in some}
  for option, expected in (
    ("frame_size", "a run that sees videos"),
    ("fps", "a run that samples frames by seconds"),
  ):
    # What nothing would use is refused, as among the settings of a run.
    if given[option] is not None and option not in used:
      raise errors.ConfigError(option, expected=expected, got=f"one of {recipe}")
  if fps is not None and not (ranges.is_rate(fps) and fps <= 1e6):
    raise errors.ConfigError("fps", expected="frames a second, above 0", got=fps)
  if frame_size is not None and not ranges.frame_size(frame_size):
    raise errors.ConfigError("frame_size", expected=ranges.FRAME_SIZE, got=frame_size)
  num_frames, fps = ranges.plain((num_frames, fps))
  given = {"frame_size": ranges.frame_size(frame_size), "fps": fps}
  wholes = {}
  for name, one in inputs.items():
    try:
      options = {option: given[option] for option in options_of[name]}
      wholes[name] = one.whole(num_frames, recipe.num_clips, **options)
    except ValueError as error:
      hint = "tokens of our own networks need their encoders beside them"
      raise errors.ConfigError(f"input {name}: {error}", hint=hint) from error
  return {name: _or_absent(one) for name, one in wholes.items()} if recipe.may_lack else wholes


def exported(
  recipe: Recipe,
  variables: Mapping[str, Any],
  *,
  num_frames: int | None = None,
  frame_size: tuple[int, int] | None = None,
  fps: float | None = None,
  platforms: str | Sequence[str] = PLATFORMS,
) -> export.Exported:
  """The program of a recipe and its variables ("params", "batch_stats"), for these platforms.

  It takes the arrays of `recordings`, in their order, each with an axis for the batch, which may be
  of any size; of several inputs, one dictionary of dictionaries of arrays. It returns
  probabilities float32[b, K], averaged over the test views as in `Recipe.predict_step`.

  Raises ConfigError as `recordings`, and for what is no recipe, variables or platform.
  """
  if not isinstance(recipe, Recipe):
    got = type(recipe).__name__
    raise errors.ConfigError("recipe", expected="what jaxmg.recipe.load gives", got=got)
  recipes.check_variables(variables)
  platforms = (platforms,) if isinstance(platforms, str) else tuple(platforms)
  if not platforms or {*platforms} - {*PLATFORMS}:
    expected, got = f"some of {', '.join(PLATFORMS)}", ", ".join(map(str, platforms)) or "none"
    raise errors.ConfigError("platforms", expected=expected, got=got)
  options = {"num_frames": num_frames, "frame_size": frame_size, "fps": fps}
  wholes = recordings(recipe, **options)
  model = recipe.build_model()
  # Folded once, here: as a part of the program it would be done at each start.
  fold = jax.jit(lambda variables: recipes.folded(model, **variables))
  constants = jax.tree.map(np.asarray, fold({"batch_stats": {}} | dict(variables)))
  predict = step.make_predict_step(model, recipe.test_views, recipe.test_view)

  def program(*given):
    parts = given[0] if len(wholes) > 1 else {name: _named(wholes[name], given) for name in wholes}
    batch = {name: one.read(parts[name]) for name, one in wholes.items()}
    return predict(constants["params"], constants["batch_stats"], batch)

  (size,) = export.symbolic_shape("b")
  arrays = {
    name: {
      key: jax.ShapeDtypeStruct((size, *array.shape), array.dtype)
      for key, array in one.arrays.items()
    }
    for name, one in wholes.items()
  }
  args = (arrays,) if len(arrays) > 1 else tuple(*(one.values() for one in arrays.values()))
  with _without_paths():
    return export.export(jax.jit(program), platforms=platforms)(*args)


def describe(recipe: Recipe, wholes: Mapping[str, Whole]) -> dict[str, Any]:
  """What goes in and out of the program, for people and for other programs (JSON)."""
  inputs = {}
  for name, one in wholes.items():
    inputs[name] = {
      "arrays": {
        key: {"dtype": array.dtype.name, "shape": ["b", *array.shape], "about": one.about[key]}
        for key, array in one.arrays.items()
      },
      "frames": None if one.frames is None else np.round(one.frames, 6).tolist(),
    }
    if (skeleton := getattr(recipe.inputs[name], "skeleton", None)) is not None:
      inputs[name] |= {"skeleton": str(skeleton), "joints": skeleton.joints}
  return {
    "inputs": inputs,
    "views": {"num_clips": recipe.num_clips, "mirror": recipe.mirror},
    "output": {
      "dtype": "float32",
      "shape": ["b", len(recipe.class_names)],
      "about": "probabilities",
    },
    "class_names": recipe.class_names,
  }


@contextlib.contextmanager
def _without_paths() -> Iterator[None]:
  """Leaves out where in which file each operation comes from: it would name folders of ours."""
  name = "jax_traceback_in_locations_limit"
  before = getattr(jax.config, name)
  jax.config.update(name, 0)
  try:
    yield
  finally:
    jax.config.update(name, before)


def _named(one, arrays):
  return dict(zip(one.arrays, arrays, strict=True))


def _or_absent(one):
  """With an array that says of which recordings the input is there."""

  def read(part):
    return one.read(part) | {PRESENT: part[PRESENT]}

  arrays = {**one.arrays, PRESENT: jax.ShapeDtypeStruct((), bool)}
  about = {**one.about, PRESENT: "batch; where it is false, the other arrays are all zero"}
  return one._replace(arrays=arrays, about=about, read=read)
