"""Pictures of what spoke for a class (`jaxmg.predict.Attribution`), and its numbers."""

import io
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxmg import files, predict, video
from jaxmg.recipe import Recipe

from . import overlay

FILE = "attribution.npz"
_PICTURES = 48  # of an input, at most: those of the frames that spoke most
_CELLS = 28  # of a video's square, along each side: what is drawn are sums over them


def save(
  folder: pathlib.Path,
  found: predict.Attribution,
  recipe: Recipe,
  clips: Mapping[str, Any],
  *,
  first: int = 0,
) -> None:
  """Prints which frames spoke most for the class, draws what did, and writes all numbers.

  `clips` are the recordings by track; `first` is the number of their first frame. FILE has `class`
  and `logit`, and of each input NAME what `Attribution` says, as NAME and NAME_frames, and the
  names of joints as NAME_joints.
  """
  folder.mkdir(parents=True, exist_ok=True)
  name_of_class = recipe.class_names[found.number]
  print(f"  what speaks for {name_of_class} (logit {found.logit:.2f}), gradient times input:")
  arrays = {"class": name_of_class, "logit": found.logit}
  for name, values in found.values.items():
    one, frames = recipe.inputs[name], found.frames[name]
    sums = values.sum(axis=tuple(range(1, values.ndim)))
    most = np.argsort(-np.abs(sums), kind="stable")[:3]
    # Faces are counted among themselves.
    shift, what = (0, "faces") if one.track == "faces" else (first, "frames")
    at = _times(clips[one.track])
    said = ", ".join(f"{_place(at, frames[i], shift)} ({sums[i]:+.3f})" for i in most)
    print(f"  {name}: {sums.sum():+.3f} in all, most of it in the {what} {said}")
    arrays |= {name: values, f"{name}_frames": shift + frames}
    options = {"clip": clips[one.track], "first": shift, "title": f"for {name_of_class}"}
    arrays |= _DRAW[one.track](folder, name, one, frames, values, **options)
  with files.replace(folder / FILE) as part, open(part, "wb") as file:
    np.savez(file, **arrays)
  print(f"  saved: {folder}")


def _frames(folder, name, one, frames, values, *, clip, first, title):
  """A picture of each frame: red speaks for the class, blue against it; dark is not shown."""
  from PIL import Image

  cells = np.stack([_sums(value) for value in values])
  most = np.abs(cells).max() or 1
  box = np.asarray(video.centred_box(jnp.array(clip.frame_size), one.test_crop)).round().astype(int)
  left, top, right, bottom = box.tolist()
  at = _times(clip)
  for i in _chosen(values):
    number, heat, value = int(frames[i]), cells[i], values[i]
    image = overlay.draw([clip], number)
    picture = np.asarray(image) * np.float32(0.4)
    seen = np.asarray(image)[top:bottom, left:right]
    picture[top:bottom, left:right] = _heated(seen, heat / most)
    image = Image.fromarray(picture.round().astype(np.uint8))
    overlay.label(image, f"{_place(at, number, first)}: {value.sum():+.3f} {title}")
    with files.replace(folder / f"{name}_{first + number:06d}.png") as part:
      image.save(part)
  return {}


def _faces(folder, name, one, frames, values, *, clip, first, title):
  """A picture of each face, as `_frames`."""
  from PIL import Image

  cells = np.stack([_sums(value) for value in values])
  most = np.abs(cells).max() or 1
  at = _times(clip)
  for i in _chosen(values):
    number, heat, value = int(frames[i]), cells[i], values[i]
    face = Image.open(io.BytesIO(clip.crops.pictures[number])).convert("RGB")
    seen = np.asarray(face.resize((224, 224)))
    image = Image.fromarray(_heated(seen, heat / most).round().astype(np.uint8))
    overlay.label(image, f"{_place(at, number, first)}: {value.sum():+.3f} {title}")
    with files.replace(folder / f"{name}_{number:06d}.png") as part:
      image.save(part)
  return {}


def _times(clip):
  """When frames are seen, or faces, in seconds; None where that is not known."""
  return clip.crops.times if clip.track == "faces" else clip.times


def _place(times, number, shift):
  """The number of a frame, and its second where that is known."""
  known = times is not None and np.isfinite(times[number])
  return f"{shift + number}" + (f" at {times[number]:.2f} s" if known else "")


def _chosen(values):
  """The places, in their order, of those that spoke most."""
  sums = np.abs(values.sum(axis=tuple(range(1, values.ndim))))
  return np.sort(np.argsort(-sums, kind="stable")[:_PICTURES])


def _heated(seen, heat):
  """A picture [H, W, 3], red where the cells of heat, in [-1, 1], are above 0, blue below."""
  from PIL import Image

  size = seen.shape[1::-1]
  heat = Image.fromarray(np.float32(heat)).resize(size, Image.Resampling.BILINEAR)
  heat, seen = np.asarray(heat)[..., None], seen.astype(np.float32)
  color = np.where(heat > 0, np.float32([255, 30, 30]), np.float32([40, 90, 255]))
  return seen + 0.75 * np.abs(heat) ** 0.5 * (color - seen)


def _sums(value):
  """Sums [CELLS, CELLS], or fewer, over squares of a square [H, W]."""
  side = len(value)
  edges = np.unique(np.arange(_CELLS) * side // _CELLS)
  return np.add.reduceat(np.add.reduceat(value, edges, axis=0), edges, axis=1)


def _joints(folder, name, one, frames, values, *, clip, first, title):
  """Joints x time, a panel for each person who is there."""
  from . import plots  # with the loaders, which prediction does without

  joints = one.skeleton.joints
  options = {"frames": first + frames, "joints": joints, "title": f"{title}: {one}"}
  plots.joints(folder / f"{name}.png", values, **options)
  return {f"{name}_joints": joints}


_DRAW = {"video": _frames, "pose": _joints, "faces": _faces}
