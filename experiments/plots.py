"""Pictures of a run: what the network saw, and what it takes for what; and of the two layouts of
iMiGUE's 22 joints. Needs `jaxmg[plots]`."""

import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from jaxmg import files, skeletons
from jaxmg.data import pipeline
from jaxmg.recipe import Recipe
from jaxmg.skeletons import augment

# x, y of the joints of imigue22, in a frame of 101 x 101: right hand raised, left hand before the
# body. The person faces us: the right side is on the left.
_POSE = (
  *((50, 23), (50, 41), (32, 43), (21, 64), (15, 42), (68, 43), (79, 64), (66, 79)),
  *((44, 16), (56, 16), (37, 20), (63, 20)),
  *((57, 73), (51, 77), (49, 83), (52, 89), (59, 94)),
  *((25, 32), (22, 25), (15, 22), (8, 25), (4, 32)),
)


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
  _save(figure, path, dpi=110, bbox_inches="tight")


def views(
  path: pathlib.Path,
  recipe: Recipe,
  data,
  rows: np.ndarray,
  probabilities: np.ndarray,
  *,
  title: str,
):
  """Three clips, in the first of their test views, and below what the model is given of them."""
  pyplot = _pyplot()
  chosen = np.linspace(0, len(rows) - 1, 3).astype(int)
  batches = pipeline.test_batches(
    data,
    rows[chosen],
    recipe.inputs,
    num_clips=recipe.num_clips,
    batch_size=len(chosen),
    may_lack=recipe.may_lack,
  )
  batch = next(iter(batches))
  parts = {name: jax.tree.map(jnp.asarray, batch[name]) for name in recipe.inputs}
  pictures = {  # B T H W, or None
    name: one.picture(one.view(jax.tree.map(lambda x: x[0], one.views(parts[name], False))))
    for name, one in recipe.inputs.items()
  }
  lines = []  # of the grid, for each clip: what is drawn, and what the model is given
  for name, picture in pictures.items():
    lines += [(name, None)] if picture is None else [(name, None), (name, picture)]
  height = len(lines)
  figure, grid = pyplot.subplots(
    3 * height, 6, figsize=(12, 0.5 + 6 * height), layout="constrained", squeeze=False
  )
  figure.suptitle(title)
  for i, clip in enumerate(chosen):
    for line, (name, volume) in enumerate(lines, height * i):
      one, present = recipe.inputs[name], batch[name].get("present")
      if present is not None and not present[i]:
        grid[line, 0].set_title(f"no {name}", fontsize=8)
        continue
      for axes, frame in zip(
        grid[line], np.linspace(0, one.num_frames - 1, 6).astype(int).tolist(), strict=True
      ):
        if volume is None:
          one.draw(axes, batch[name], i, frame)
        else:
          axes.imshow(volume[i, frame], cmap="magma", vmin=0, vmax=1)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.set_xlabel(f"frame {frame + 1} of {one.num_frames}", fontsize=8)
      grid[line, 0].set_ylabel(str(one) if volume is None else f"{name}, as given", fontsize=8)
    label, guess = batch["label"][i], probabilities[clip].argmax()
    names = recipe.class_names
    said = names[label] if label >= 0 else "hidden"
    guessed = f"predicted: {names[guess]} ({probabilities[clip, guess]:.0%})"
    first = grid[height * i, 0]
    heading = f"{data.ids[rows[clip]]}: {said}; {guessed}"
    # Out of the layout, it may reach over the next columns.
    first.text(0, 1.04, heading, fontsize=8, transform=first.transAxes).set_in_layout(False)
    first.set_title(" ", fontsize=8)
  _save(figure, path, dpi=100)


def layouts(path: str | pathlib.Path):
  """One pose of 22 joints: limbs and mirror image by imigue22_legacy (above) and by imigue22.

  The mirror images are made as in training, and drawn with the limbs of imigue22.
  """
  pyplot = _pyplot()
  correct = skeletons.get("imigue22")
  limbs = {frozenset(limb) for limb in correct.limbs}
  pose = np.array(_POSE, np.float32)
  figure, grid = pyplot.subplots(2, 2, figsize=(9, 9.6), layout="constrained")
  for row, skeleton in zip(grid, (skeletons.get("imigue22_legacy"), correct), strict=True):
    right = sum(frozenset(limb) in limbs for limb in skeleton.limbs)
    fixed = sum(int(a == b) for a, b in zip(skeleton.mirror, correct.mirror, strict=True))
    _layout(row[0], pose, skeleton.limbs, correct)
    row[0].set_title(f"{skeleton.name}: {right} of {len(skeleton.limbs)} limbs are limbs")
    mirrored = augment.flip(jnp.asarray(pose), skeleton.mirror, width=101)
    _layout(row[1], np.asarray(mirrored), correct.limbs, correct)
    row[1].set_title(f"its mirror image: {fixed} of {skeleton.num_joints} joints are in place")
  names = [f"{v} {joint.replace('_', ' ')}" for v, joint in enumerate(correct.joints)]
  lines = [",  ".join(names[start : start + 6]) for start in range(0, len(names), 6)]
  key = "blue: the person's left; orange: the right; black: the middle; red, dashed: no limb"
  figure.supxlabel("\n".join([*lines, key]), fontsize=8)
  _save(figure, path, dpi=80)


def _layout(axes, pose, limbs, correct):
  """Draws a pose, each joint in the colour of its side, and in red what joins no neighbours."""
  sides = {"left": "tab:blue", "right": "tab:orange"}
  colors = [sides.get(joint.partition("_")[0], "black") for joint in correct.joints]
  known = {frozenset(limb) for limb in correct.limbs}
  for a, b in limbs:
    sound = frozenset((a, b)) in known
    color = colors[b] if colors[b] != "black" else colors[a]
    style = {"color": color} if sound else {"color": "tab:red", "linestyle": "--", "alpha": 0.7}
    axes.plot(*pose[[a, b]].T, linewidth=1.2, zorder=1, **style)
  axes.scatter(*pose.T, s=110, c=colors, zorder=2)
  for v, (x, y) in enumerate(pose):
    axes.text(x, y, v, color="white", fontsize=7, ha="center", va="center_baseline", zorder=3)
  axes.set(xlim=(0, 100), ylim=(100, 8), xticks=[], yticks=[], aspect="equal")


def timeline(
  path: pathlib.Path,
  shares: np.ndarray,
  names: list[str],
  *,
  ends: tuple[float, float],
  unit: str,
):
  """Probabilities [N, K] of classes over time, from the first end to the second; NaN: nobody."""
  pyplot = _pyplot()
  size = (12, 1.5 + 0.22 * len(names))
  figure, axes = pyplot.subplots(figsize=size, layout="constrained")
  axes.set_facecolor("lightgray")
  extent = (*ends, len(names) - 0.5, -0.5)
  image = axes.imshow(
    shares.T, extent=extent, aspect="auto", interpolation="none", cmap="Blues", vmin=0, vmax=1
  )
  axes.set_yticks(range(len(names)), names, fontsize=7)
  axes.set_xlabel(f"{unit} (gray: nobody)")
  figure.colorbar(image, label="probability")
  _save(figure, path, dpi=200)


def curves(path: pathlib.Path, times: np.ndarray, values: dict[str, np.ndarray]):
  """A panel for each of several curves with values in [0, 1] over seconds; NaN: a gap."""
  pyplot = _pyplot()
  size = (10, 0.6 + 0.9 * len(values))
  figure, panels = pyplot.subplots(
    len(values), figsize=size, sharex=True, squeeze=False, layout="constrained"
  )
  for axes, (name, one) in zip(panels[:, 0], values.items(), strict=True):
    axes.plot(times, one, ".-", markersize=3, linewidth=1)
    axes.set_ylim(-0.05, 1.05)
    axes.set_ylabel(name, fontsize=8)
  axes.set_xlabel("second")
  _save(figure, path, dpi=130)


def timelines(path: pathlib.Path, moments: np.ndarray, titles: list[str], names: tuple[str, ...]):
  """A panel for each clip of N: what its R views say, [N, R, K], of the second of two classes, else
  of the three that are best in the mean.
  """
  pyplot = _pyplot()
  shown = [1] if len(names) == 2 else np.argsort(-moments.mean((0, 1)))[:3].tolist()
  columns = min(4, len(moments))
  lines = -(-len(moments) // columns)
  figure, grid = pyplot.subplots(
    lines,
    columns,
    figsize=(3 * columns, 0.5 + 1.3 * lines),
    sharex=True,
    sharey=True,
    squeeze=False,
    layout="constrained",
  )
  for axes, clip, title in zip(grid.flat, moments, titles, strict=False):
    for k in shown:
      axes.plot(np.arange(len(clip)), clip[:, k], ".-", linewidth=1, markersize=3, label=names[k])
    if len(names) == 2:
      axes.axhline(0.5, color="gray", linewidth=0.8, linestyle=":")
    axes.set_title(title, fontsize=8)
    axes.set_ylim(-0.05, 1.05)
  for axes in grid.flat[len(moments) :]:
    axes.set_axis_off()
  grid[0, 0].legend(fontsize=7)
  figure.supxlabel("window, in the order of time", fontsize=8)
  _save(figure, path, dpi=110)


def joints(
  path: pathlib.Path, values: np.ndarray, *, frames: np.ndarray, joints: tuple[str, ...], title: str
):
  """Numbers [F, M, V] of joints over sampled frames: red is above 0; a panel for each person."""
  pyplot = _pyplot()
  there = [m for m in range(values.shape[1]) if values[:, m].any()] or [0]
  size = (3 + 0.18 * len(frames), len(there) * (1 + 0.17 * len(joints)))
  figure, panels = pyplot.subplots(
    len(there), figsize=size, sharex=True, squeeze=False, layout="constrained"
  )
  most = np.abs(values).max() or 1
  for axes, m in zip(panels[:, 0], there, strict=True):
    options = {"cmap": "RdBu_r", "vmin": -most, "vmax": most, "interpolation": "none"}
    image = axes.imshow(values[:, m].T, aspect="auto", **options)
    axes.set_yticks(range(len(joints)), joints, fontsize=7)
  marks = np.unique(np.linspace(0, len(frames) - 1, 13).round().astype(int))
  axes.set_xticks(marks, frames[marks], fontsize=7)
  axes.set_xlabel("frame of the recording")
  figure.suptitle(title, fontsize=9)
  figure.colorbar(image, ax=panels, label="gradient times input")
  _save(figure, path, dpi=130)


def differences(
  path: pathlib.Path, columns: dict[str, dict[str, tuple[float, float, float]]], *, title: str
):
  """Differences of rows to others and their intervals, in points: a panel for each metric."""
  pyplot = _pyplot()
  rows = list(next(iter(columns.values())))
  size = (2 + 2.4 * len(columns), 1.6 + 0.4 * len(rows))
  figure, panels = pyplot.subplots(
    1, len(columns), figsize=size, sharey=True, squeeze=False, layout="constrained"
  )
  for axes, (name, found) in zip(panels[0], columns.items(), strict=True):
    for y, row in enumerate(rows):
      mean, low, high = found[row]
      axes.plot([low, high], [y, y], color="tab:blue", linewidth=2)
      axes.plot(mean, y, "o", color="tab:blue")
    axes.axvline(0, color="gray", linewidth=1)
    axes.set_title(name, fontsize=8)
    axes.set_yticks(range(len(rows)), rows, fontsize=8)
    axes.set_xlabel("difference in points", fontsize=8)
  panels[0, 0].invert_yaxis()
  figure.suptitle(title, fontsize=9)
  _save(figure, path, dpi=110)


def _save(figure, path, **options):
  with files.replace(path) as part:
    figure.savefig(part, **options)
  _pyplot().close(figure)


def _pyplot():
  import matplotlib

  matplotlib.use("Agg")
  from matplotlib import pyplot

  return pyplot
