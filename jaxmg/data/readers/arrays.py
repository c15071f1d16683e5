"""NumPy's files: .npy and .npz.

An array has the axes T (frames), M (persons), V (joints), C (x, y; these and a score; x, y, z) in
one of these orders: TVC, CTV, TMVC, MTVC (the `keypoint` of PYSKL and mmaction2), CTVM (of
organisers, whose last frames of zeros are padding). Which one, its sizes must tell, or `Told.axes`.

A .npz holds one such array; beside it may be the scores of its joints, called `...score...`.
"""

import pathlib
import zipfile
from typing import Any

import numpy as np
from jaxtyping import Shaped

from jaxmg.data.readers import clip as clips
from jaxmg.data.readers.damage import damage
from jaxmg.errors import ConfigError, DataError
from jaxmg.skeletons import topology

ORDERS = ("TVC", "CTV", "TMVC", "MTVC", "CTVM")
_NUMBERS = "fiub"  # kinds of NumPy's dtypes
_FEW_PERSONS = 8  # an axis of more is no persons', one of fewer no frames', where sizes must tell
MOST_ASSUMED = 2  # persons; an axis of more may be that of the frames of several clips
_MAX_BYTES = 4 << 30  # of a .npz, unpacked
_MAX_RATIO = 200  # of a .npz's array to its packed size


def read_npy(path: pathlib.Path, told: clips.Told) -> clips.Clip:
  return read_array(load_array(path), told)


def read_npz(path: pathlib.Path, told: clips.Told) -> clips.Clip:
  arrays = load_npz(path)
  scores = [name for name in arrays if "score" in name.lower() or "conf" in name.lower()]
  points = [name for name, array in arrays.items() if array.ndim and name not in scores]
  if len(points) != 1 or len(scores) > 1:
    shapes = ", ".join(f"{name} {list(array.shape)}" for name, array in arrays.items())
    raise DataError(
      "arrays", expected="one of points and at most one of scores", got=shapes or "none"
    )
  array = arrays[points[0]]
  if scores:
    score = arrays[scores[0]]
    if array.shape[-1] != 2 or score.shape not in (array.shape[:-1], (*array.shape[:-1], 1)):
      got = f"{list(array.shape)} and {list(score.shape)}"
      raise DataError("arrays", expected="points [..., V, 2] and scores [..., V]", got=got)
    array = np.concatenate([array, score.reshape(*array.shape[:-1], 1)], -1)
  return read_array(array, told, in_3d=False if scores else None)


def read_array(
  array: np.ndarray,
  told: clips.Told,
  *,
  in_3d: bool | None = None,
  otherwise: str = "several clips: a file each",
) -> clips.Clip:
  """An array as the head of this module says; `otherwise` as in `find_axes`."""
  axes, assumed = find_axes(array.shape, told, otherwise=otherwise)
  if axes.startswith("C"):
    points = frames_first(array if "M" in axes else array[..., None])
  else:
    points = array if "M" in axes else array[:, None]
    points = points.swapaxes(0, 1) if axes == "MTVC" else points
  return clips.from_points(
    points, told, in_3d=in_3d, axes=axes, assumed=frozenset({"axes"} if assumed else ())
  )


def find_axes(shape: tuple[int, ...], told: clips.Told, *, otherwise: str) -> tuple[str, bool]:
  """The order of an array's axes, and whether its sizes alone tell it.

  Raises DataError where no order fits, or several do, or more than two persons are seen, which may
  be the frames of several clips: these are asked for. `otherwise` is a hint for what is no clip.
  """
  if told.axes is not None:
    if told.axes not in ORDERS:
      raise ConfigError("axes", expected=" or ".join(ORDERS), got=told.axes)
    sizes = dict(zip(told.axes, shape, strict=False))
    if len(told.axes) != len(shape) or sizes["C"] not in (2, 3):
      hint = otherwise if len(shape) > len(told.axes) else None
      got = f"the shape {list(shape)}"
      raise DataError(f"axes {told.axes}", expected="C of 2 or 3", got=got, hint=hint)
    return told.axes, False
  known = _known(told.layout)
  fitting = [axes for axes in ORDERS if len(axes) == len(shape) and _fits(axes, shape, known)]
  if not fitting:
    counts = "a known number" if told.layout is None else next(iter(known))
    orders = ", ".join(f"[{', '.join(axes)}]" for axes in ORDERS)
    expected = f"{orders}; V {counts}, C 2 or 3"
    hints = [otherwise] * (len(shape) > 3) + ["name the layout: --layout"] * (len(shape) < 5)
    raise DataError("shape", expected=expected, got=list(shape), hint="; ".join(hints))
  if {"TMVC", "MTVC"} <= {*fitting}:
    first, second = shape[:2]
    if first == second == 1 or (second <= _FEW_PERSONS < first):
      fitting.remove("MTVC")
    elif first <= _FEW_PERSONS < second:
      fitting.remove("TMVC")
  axes, *others = fitting
  persons = shape[axes.index("M")] if axes in ("TMVC", "MTVC") else 1
  if not others and persons <= MOST_ASSUMED:
    return axes, len(shape) > 3
  hint = f"{' or '.join(f'--axes={axes}' for axes in fitting)}; {otherwise}"
  expected = "sizes that tell frames (T) from persons (M)"
  if not others:
    expected += f", at most {MOST_ASSUMED}, or to be told"
  raise DataError("shape", expected=expected, got=list(shape), hint=hint)


def are_joints(shape: tuple[int, ...], told: clips.Told) -> bool:
  """Whether the last two axes can be joints of a layout and their values."""
  return len(shape) > 2 and shape[-2] in _known(told.layout) and shape[-1] in (2, 3)


def _known(layout: clips.Layout | None) -> set[int]:
  if layout is not None:
    return {topology.get(layout).num_joints}
  return {*clips.LAYOUTS, *clips.LAYOUTS_3D}


def _fits(axes: str, shape: tuple[int, ...], known: set[int]) -> bool:
  sizes = dict(zip(axes, shape, strict=True))
  persons = sizes.get("M", 1) <= clips.MAX_PERSONS
  values = (3,) if axes == "CTVM" else (2, 3)  # organisers' arrays have a third
  return sizes["V"] in known and sizes["C"] in values and persons and 0 not in shape


def load_array(path: pathlib.Path) -> np.ndarray:
  """The numbers of a .npy file, left in the file until they are used; DataError for any other."""
  with damage("npy"):
    # A memory map compares the header with the size of the file before it takes any memory.
    array = np.load(path, mmap_mode="r", allow_pickle=False)
  of_numbers(array)
  if array.offset + array.nbytes != path.stat().st_size:
    raise DataError(
      "size", expected=f"{array.offset + array.nbytes} bytes", got=path.stat().st_size
    )
  return array


def of_numbers(array: Any) -> np.ndarray:
  """The array; DataError for any other thing than one of numbers."""
  if not isinstance(array, np.ndarray) or array.dtype.kind not in _NUMBERS:
    got = array.dtype if isinstance(array, np.ndarray) else "several"
    raise DataError("the data", expected="one array of numbers", got=got)
  return array


def frames_first(array: Shaped[np.ndarray, "c t v m"]) -> Shaped[np.ndarray, "length m v c"]:
  """The organisers' order of axes -> ours, without the last frames that are all zero: padding."""
  array = array.transpose(1, 3, 2, 0)
  present = np.flatnonzero(array.any((1, 2, 3)))
  return array[: present[-1] + 1 if present.size else 1]


def load_npz(path: pathlib.Path, kinds: str = _NUMBERS) -> dict[str, np.ndarray]:
  """The arrays of a .npz by name, of these kinds (`np.dtype.kind`); DataError for any others.

  What each would take is checked before any is unpacked.
  """
  arrays = {}
  with damage("npz"), zipfile.ZipFile(path) as file:
    infos = file.infolist()
    if len({info.filename for info in infos}) < len(infos):
      raise DataError("an array's name occurs twice")
    for info in infos:
      name = info.filename
      if not name.endswith(".npy") or "/" in name or "\\" in name:
        raise DataError(f"{name!r}", expected="an array, NAME.npy", got="another file")
      small = info.file_size <= max(1 << 20, _MAX_RATIO * info.compress_size)
      if not small or sum(info.file_size for info in infos) > _MAX_BYTES:
        raise DataError(f"{name!r} unpacks to {info.file_size} bytes: too many to be believed")
      with file.open(info) as member:
        arrays[name.removesuffix(".npy")] = _stored(name, member, info.file_size, kinds)
  return arrays


def _stored(name: str, member, size: int, kinds: str) -> np.ndarray:
  """An array whose header agrees with the size of its file."""
  version = np.lib.format.read_magic(member)
  readers = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
  }
  if version not in readers:
    raise DataError("the array's format", expected="1.0 or 2.0", got=version)
  shape, column_major, dtype = readers[version](member)
  whole = member.tell() + int(np.prod(shape, dtype=object)) * dtype.itemsize == size
  if dtype.kind not in kinds or not whole:
    what = "numbers" if kinds == _NUMBERS else "numbers or texts"
    raise DataError(f"{name!r}", expected=f"{what}, as many as it says", got=dtype)
  array = np.frombuffer(member.read(), dtype)
  return array.reshape(shape, order="F" if column_major else "C")
