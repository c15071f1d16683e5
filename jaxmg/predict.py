"""A run directory -> class probabilities of a clip.

`recipe.json` in the run directory holds all that prediction needs beside the weights:

    {"model": {"name": "posec3d", "num_classes": 32, "width": 32, "depths": [4, 6, 3], ...},
     "sampling": {"kind": "uniform", "num_frames": 48, "num_clips": 10, "num_persons": 1,
                  "style": "mmaction2", "points": "keypoints"},
     "inputs": {"kind": "joint", "size": 64, "sigma": 0.6, "mirror": true},
     "skeleton": "imigue22", "class_names": [...], "frame_size": [720, 1280], "data": {...}}

"inputs" are the options of `inputs.heatmap_views` and `heatmap_view`, or, for "agcn", those of
`inputs.graph_views` and `graph_view`. A model with a head for label embeddings has their table
beside the recipe, `label_embeddings.npy` float32[K, D].
"""

import functools
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Float

from jaxmg import errors, inputs, models
from jaxmg.data import batch, embeddings, readers
from jaxmg.skeletons import sampling, topology
from jaxmg.training import checkpoints, sharding
from jaxmg.training import step as steps

LABELS = "label_embeddings.npy"
_KEYS = {"model", "sampling", "inputs", "skeleton", "class_names", "frame_size", "data"}


def load_recipe(run: str | os.PathLike) -> dict[str, Any]:
  """Reads the recipe of a run directory; raises CheckpointError where there is none."""
  path = pathlib.Path(run) / "recipe.json"
  try:
    recipe = json.loads(path.read_text(encoding="utf-8"))
  except FileNotFoundError:
    raise errors.CheckpointError(
      path, expected="a run directory with a recipe", got="no such file"
    ) from None
  except ValueError as error:
    raise errors.CheckpointError(path, expected="JSON", got=error) from error
  if not isinstance(recipe, dict) or (missing := _KEYS - recipe.keys()):
    got = f"none of {', '.join(sorted(missing))}" if isinstance(recipe, dict) else "no object"
    raise errors.CheckpointError(path, expected="a recipe as training writes it", got=got)
  return recipe


def recipe_skeleton(recipe: dict[str, Any]) -> topology.Skeleton:
  """The layout that the model sees: the name of one of ours, or a user's own, written out."""
  found = recipe["skeleton"]
  return topology.from_json(found) if isinstance(found, dict) else topology.get(found)


def build_model(recipe: dict[str, Any], *, dtype: Any = jnp.float32) -> nn.Module:
  """The model of a recipe, computing in `dtype`."""
  options = dict(recipe["model"])
  model = models.MODELS[options.pop("name")]
  return model(
    **{name: tuple(x) if isinstance(x, list) else x for name, x in options.items()}, dtype=dtype
  )


def build_predict_step(
  recipe: dict[str, Any], model: nn.Module, *, output: str = "probabilities"
) -> Callable:
  """The step `(params, batch_stats, batch) -> probabilities [B, K]`, averaged over all views.

  Or what else of the model's outputs `output` names, such as "embedding" [B, D].

  It takes variables as training leaves them: PoseC3D's batch norms are folded into the convolutions
  inside the step.
  """
  options = dict(recipe["inputs"])
  mirror = options.pop("mirror")
  skeleton = recipe_skeleton(recipe)
  points = recipe["sampling"]["points"]
  if recipe["model"]["name"] == "posec3d":
    views = functools.partial(inputs.heatmap_views, size=options["size"], mirror=mirror)
    view = functools.partial(inputs.heatmap_view, skeleton=skeleton, **options)
    ready = models.posec3d.fold_batch_norm
  else:
    options |= {"skeleton": skeleton, "points": points}
    views = functools.partial(inputs.graph_views, skeleton=skeleton, points=points, mirror=mirror)
    view = functools.partial(inputs.graph_view, **options)
    ready = dict
  predict = steps.make_predict_step(
    model, lambda batch: views(batch[points], batch["frame_size"]), view, output=output
  )

  def predict_step(params, batch_stats, batch):
    variables = ready({"params": params, "batch_stats": batch_stats})
    return predict(variables["params"], variables.get("batch_stats", {}), batch)

  return predict_step


class Predictor:
  """The model of a run directory, ready to classify clips.

      predictor = Predictor("runs/demo")
      probabilities = predictor(readers.read("clip.csv"))  # float32[K], as predictor.class_names

  `step` is "best" (the highest score in training, the latest where none was taken), "latest" or a
  number. `label_embeddings` is the table of a model with such a head, or None.
  """

  def __init__(self, run: str | os.PathLike, *, step: str | int = "best"):
    run = pathlib.Path(run)
    self.recipe = load_recipe(run)
    self.class_names = tuple(self.recipe["class_names"])
    self.label_embeddings = None
    if self.recipe["model"].get("embedding_size"):
      self.label_embeddings = embeddings.from_npy(run / LABELS, len(self.class_names))
    self._variables = checkpoints.restore_variables(run / "checkpoints", step)
    model = build_model(self.recipe)
    mesh = sharding.data_mesh(jax.local_devices()[:1])
    self._predict = {
      output: steps.compile_predict_step(
        build_predict_step(self.recipe, model, output=output), mesh
      )
      for output in ("probabilities", "embedding")
    }

  def __call__(self, clip: readers.Clip) -> Float[np.ndarray, " k"]:
    """The probabilities of the classes for one clip, averaged over its test views.

    Raises DataError where the run's skeleton cannot be taken from the clip's layout, or its points
    are 3-D joints and the clip has none.
    """
    return self._run("probabilities", clip)

  def nearest(self, clip: readers.Clip) -> list[tuple[str, float]]:
    """All classes and the cosines of their label embeddings with the clip's, the nearest first.

    Raises CheckpointError for a run that was trained without label embeddings; DataError as above.
    """
    if self.label_embeddings is None:
      where = "the run: label embeddings"
      raise errors.CheckpointError(where, expected="a head for them", got="none")
    order, cosines = embeddings.nearest(self._run("embedding", clip), self.label_embeddings)
    return [(self.class_names[k], float(cosine)) for k, cosine in zip(order, cosines, strict=True)]

  def _run(self, output: str, clip: readers.Clip) -> np.ndarray:
    try:
      joints = recipe_skeleton(self.recipe).indices_in(clip.layout)
    except ValueError as error:
      raise errors.DataError(f"layout of the clip: {error}") from error
    options = dict(self.recipe["sampling"])
    points = options.pop("points")
    pose = getattr(clip, points)
    if pose is None:
      raise errors.DataError("the clip", expected="3-D joints, as in training", got="key points")
    pose = batch.select(pose, joints=joints, num_persons=options.pop("num_persons"), points=points)
    frame_size = clip.frame_size or self.recipe["frame_size"]
    one = {
      points: sampling.sample_test(pose, **options)[None],
      "frame_size": np.array([frame_size], np.int32),
    }
    params, batch_stats = self._variables["params"], self._variables["batch_stats"]
    return np.asarray(self._predict[output](params, batch_stats, one)[0])
