"""Pictures of a run: what the network saw, and what it takes for what. Needs `jaxmg[plots]`."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxmg import inputs, skeletons
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
  skeleton = skeletons.get(recipe["skeleton"])
  options = dict(recipe["inputs"])
  chosen = np.linspace(0, len(rows) - 1, 3).astype(int)
  batches = pipeline.test_batches(
    data, rows[chosen], skeleton=skeleton, batch_size=len(chosen), **recipe["sampling"]
  )
  batch = next(iter(batches))
  keypoints, frame_size = map(jnp.asarray, (batch["keypoints"], batch["frame_size"]))
  options.pop("mirror")
  view = inputs.heatmap_views(keypoints, frame_size, size=options["size"])
  view = jax.tree.map(lambda x: x[0], view)
  volume = np.asarray(inputs.render_view(view, skeleton=skeleton, **options)).max(-1)  # B T H W
  frames = np.linspace(0, volume.shape[1] - 1, 6).astype(int)
  figure, grid = pyplot.subplots(6, 6, figsize=(12, 12.5), layout="constrained")
  figure.suptitle(title)
  for i, clip in enumerate(chosen):
    keypoints = batch["keypoints"][i, 0]  # T M V 3
    seen = keypoints[keypoints[..., 2] > 0]
    low, high = (seen[:, :2].min(0), seen[:, :2].max(0)) if len(seen) else (0, 1)
    for j, frame in enumerate(frames):
      poses, heatmap = grid[2 * i, j], grid[2 * i + 1, j]
      for person in keypoints[frame]:
        for start, end in skeleton.limbs:
          if person[start, 2] > 0 and person[end, 2] > 0:
            poses.plot(*person[[start, end], :2].T, color="tab:blue", linewidth=1)
        present = person[person[:, 2] > 0]
        poses.scatter(present[:, 0], present[:, 1], s=6, color="tab:red", zorder=2)
      margin = 0.1 * np.max(high - low) + 1
      poses.set(xlim=(low[0] - margin, high[0] + margin), ylim=(high[1] + margin, low[1] - margin))
      poses.set_aspect("equal")
      heatmap.imshow(volume[i, frame], cmap="magma", vmin=0, vmax=1)
      heatmap.set_xlabel(f"frame {frame + 1} of {volume.shape[1]}", fontsize=8)
      for axes in (poses, heatmap):
        axes.set_xticks([])
        axes.set_yticks([])
    label, guess = batch["label"][i], probabilities[clip].argmax()
    names = recipe["class_names"]
    said = names[label] if label >= 0 else "hidden"
    guessed = f"predicted: {names[guess]} ({probabilities[clip, guess]:.0%})"
    first = grid[2 * i, 0]
    heading = f"{data.ids[rows[clip]]}: {said}; {guessed}"
    # Out of the layout, it may reach over the next columns.
    first.text(0, 1.04, heading, fontsize=8, transform=first.transAxes).set_in_layout(False)
    first.set_title(" ", fontsize=8)
    grid[2 * i + 1, 0].set_ylabel(f"{options['kind']} heatmaps, maximum", fontsize=8)
  figure.savefig(path, dpi=100)
  pyplot.close(figure)


def _pyplot():
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot

  return pyplot
