"""Pictures of a run: what the network saw, and what it takes for what. Needs `jaxmg[plots]`."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxmg import inputs, predict
from jaxmg.data import pipeline


def confusion(path: pathlib.Path, counts: np.ndarray, names: tuple[str, ...], *, title: str):
  """Rows are labels, columns predictions, in shares of the row."""
  pyplot = _pyplot()
  shares = counts / np.maximum(counts.sum(1, keepdims=True), 1)
  side = 3 + 0.22 * len(names)
  figure, axes = pyplot.subplots(figsize=(side + 1, side), layout="constrained")
  image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
  axes.set_xticks(range(len(names)), names, rotation=90, fontsize=7)
  axes.set_yticks(range(len(names)), names, fontsize=7)
  axes.set(xlabel="predicted", ylabel="label", title=title)
  figure.colorbar(image, shrink=0.6, label="share of the label's clips")
  figure.savefig(path, dpi=110, bbox_inches="tight")
  pyplot.close(figure)


def views(
  path: pathlib.Path, recipe: dict, data, rows: np.ndarray, probabilities: np.ndarray, *, title: str
):
  """Three clips, in the first of their test views: skeletons, and the heatmaps made of them."""
  pyplot = _pyplot()
  skeleton = predict.recipe_skeleton(recipe)
  points = recipe["sampling"]["points"]
  chosen = np.linspace(0, len(rows) - 1, 3).astype(int)
  batches = pipeline.test_batches(
    data, rows[chosen], skeleton=skeleton, batch_size=len(chosen), **recipe["sampling"]
  )
  batch = next(iter(batches))
  volume = _heatmaps(recipe, skeleton, batch)  # B T H W
  height = 1 if volume is None else 2  # of a clip's pictures
  frames = np.linspace(0, batch[points].shape[2] - 1, 6).astype(int)
  figure, grid = pyplot.subplots(
    3 * height, 6, figsize=(12, 0.5 + 6 * height), layout="constrained"
  )
  figure.suptitle(title)
  for i, clip in enumerate(chosen):
    pose = batch[points][i, 0].copy()  # T M V 3
    there = pose[..., 2] > 0 if points == "keypoints" else pose.any(-1)
    if points == "joints3d":
      pose[..., 1] *= -1  # of pictures, y points down
    seen = pose[there]
    low, high = (seen[:, :2].min(0), seen[:, :2].max(0)) if len(seen) else ((0, 0), (1, 1))
    for j, frame in enumerate(frames):
      axes = grid[height * i, j]
      for person, present in zip(pose[frame], there[frame], strict=True):
        for limb in skeleton.limbs:
          if present[list(limb)].all():
            axes.plot(*person[list(limb), :2].T, color="tab:blue", linewidth=1)
        axes.scatter(*person[present, :2].T, s=6, color="tab:red", zorder=2)
      margin = 0.1 * np.ptp([low, high], axis=0).max() + 0.01
      axes.set(xlim=(low[0] - margin, high[0] + margin), ylim=(high[1] + margin, low[1] - margin))
      axes.set_aspect("equal")
      if volume is not None:
        grid[height * i + 1, j].imshow(volume[i, frame], cmap="magma", vmin=0, vmax=1)
      for axes in grid[height * i : height * (i + 1), j]:
        axes.set_xticks([])
        axes.set_yticks([])
      axes.set_xlabel(f"frame {frame + 1} of {batch[points].shape[2]}", fontsize=8)
    label, guess = batch["label"][i], probabilities[clip].argmax()
    names = recipe["class_names"]
    said = names[label] if label >= 0 else "hidden"
    guessed = f"predicted: {names[guess]} ({probabilities[clip, guess]:.0%})"
    first = grid[height * i, 0]
    heading = f"{data.ids[rows[clip]]}: {said}; {guessed}"
    # Out of the layout, it may reach over the next columns.
    first.text(0, 1.04, heading, fontsize=8, transform=first.transAxes).set_in_layout(False)
    first.set_title(" ", fontsize=8)
    if volume is not None:
      below = grid[height * i + 1, 0]
      below.set_ylabel(f"{recipe['inputs']['kind']} heatmaps, maximum", fontsize=8)
  figure.savefig(path, dpi=100)
  pyplot.close(figure)


def _heatmaps(recipe, skeleton, batch):
  """The maximum over the channels of the first view, if that is what the model sees."""
  if recipe["model"]["name"] != "posec3d":
    return None
  options = {name: value for name, value in recipe["inputs"].items() if name != "mirror"}
  keypoints, frame_size = map(jnp.asarray, (batch["keypoints"], batch["frame_size"]))
  views = inputs.heatmap_views(keypoints, frame_size, size=options["size"])
  view = jax.tree.map(lambda x: x[0], views)
  return np.asarray(inputs.heatmap_view(view, skeleton=skeleton, **options)).max(-1)


def _pyplot():
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot

  return pyplot
