"""One raw file -> its key points.

`read` knows these, by suffix:

  .csv      one frame per line: x, y, score of 17, 18, 22, 25, 35 (iMiGUE's `_light_hand`), 41 or
            137 points; a header line and a first column of frame numbers may be there. Or SMG's
            `_skeleton.csv`: 11 values of 25 joints, whose scores are 1 where they were seen
  .xlsx     one frame per row, the same columns (iMiGUE: 411, which is 137 points)
  .npy      [T, V, 3], [T, M, V, 3], or the MiGA organisers' [3, T, V, M], whose last frames of
            zeros are padding, and dropped
  .mat      UTD-MHAD: `d_skel` [20, 3, T] in metres; its key points are the depth camera's view
  a folder  OpenPose's `*_keypoints.json`, one file per frame: body (18 or 25 points), or body, face
            and hands (137)

Every fault of a file is one DataError that names the file and the field.
"""

import contextlib
import dataclasses
import functools
import json
import pathlib
import re
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from jaxmg.data import spreadsheets
from jaxmg.errors import ConfigError, DataError
from jaxmg.skeletons import topology

Layout = str | topology.Skeleton  # the name of one of ours, or one of the user's own

# The layout of a file that does not name its own. Of 22 points, the corrected one.
_LAYOUTS = {
  17: "coco17",
  18: "openpose18",
  22: "imigue22",
  25: "openpose25",
  35: "imigue35",
  41: "imigue41",
  137: "openpose137",
}
_LAYOUTS_3D = {20: "kinect20", 25: "kinect25"}

_MAX_SCORE = 1.2  # OpenPose gives a little more than 1 at times: those become 1
_MAX_FRAMES = 1_000_000  # 11 hours at 25 fps; a wrong frame number must not ask for more memory
_MAX_COORDINATE = 1e9  # pixels; beyond it the squares and differences of float32 overflow
_MAX_JSON_BYTES = 16 << 20


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
  """Key points of one recording, checked and cleaned when made.

  A joint whose score is 0, or which lies at (0, 0), is absent: all its values become 0. Coordinates
  outside the frame are kept, up to 1e9 pixels.

  Attributes:
    keypoints: float32[T, M, V, 3], x, y in pixels (x right, y down) and score in [0, 1]; T, M >= 1.
    layout: the joints' layout: a name in `jaxmg.skeletons.topology.SKELETONS`, or a Skeleton of
      the user's own.
    frame_size: (height, width) of the source frame, where the file or the caller knows it.
    joints3d: float32[T, M, V, 3], metres in the camera's frame (x right, y up, z forward), of 3D
      files.

  Raises DataError for any other shape, a million frames, a value that is not finite, or a score
  outside [0, 1].
  """

  keypoints: np.ndarray
  layout: Layout
  frame_size: tuple[int, int] | None = None
  joints3d: np.ndarray | None = None

  def __post_init__(self):
    num_joints = topology.get(self.layout).num_joints
    keypoints = _finite("keypoints", self.keypoints, num_joints)
    score = keypoints[..., 2]
    if wrong := _first((score < 0) | (score > _MAX_SCORE)):
      raise DataError(
        _place("keypoints", wrong), expected="a score in [0, 1]", got=f"{score[wrong]:g}"
      )
    if wrong := _first(np.abs(keypoints[..., :2]) > _MAX_COORDINATE):
      place = _place("keypoints", wrong)
      raise DataError(place, expected="at most 1e9 pixels", got=f"{keypoints[wrong]:g}")
    np.minimum(score, 1, out=score)
    x, y = keypoints[..., 0], keypoints[..., 1]
    keypoints[(score == 0) | ((x == 0) & (y == 0))] = 0
    object.__setattr__(self, "keypoints", keypoints)
    if self.joints3d is not None:
      joints3d = _finite("joints3d", self.joints3d, num_joints)
      if joints3d.shape != keypoints.shape:
        raise DataError("joints3d", expected=list(keypoints.shape), got=list(joints3d.shape))
      object.__setattr__(self, "joints3d", joints3d)
    if self.frame_size is not None and not all(side > 0 for side in self.frame_size):
      raise DataError("frame_size", expected="height and width above 0", got=self.frame_size)

  def record(self) -> dict[str, Any]:
    """The clip as an input of poses reads it (`jaxmg.inputs`)."""
    found = {"layout": topology.get(self.layout), "frame_size": self.frame_size}
    arrays = {"keypoints": self.keypoints, "joints3d": self.joints3d}
    return found | {name: array for name, array in arrays.items() if array is not None}

  def cut(self, first: int, last: int) -> "Clip":
    """The frames from `first` to `last`, both counted from 0, and both in the part.

    Raises DataError where the clip does not have them.
    """
    num_frames = len(self.keypoints)
    if not 0 <= first <= last < num_frames:
      expected = f"a first and a last one from 0 to {num_frames - 1}"
      raise DataError("frames", expected=expected, got=f"{first} to {last}")
    frames = slice(first, last + 1)
    joints3d = None if self.joints3d is None else self.joints3d[frames]
    return dataclasses.replace(self, keypoints=self.keypoints[frames], joints3d=joints3d)


def read(
  path: str | pathlib.Path,
  *,
  layout: Layout | None = None,
  frame_size: tuple[int, int] | None = None,
) -> Clip:
  """Reads one recording; which files, says the head of this module.

  Args:
    layout: the layout of the joints, where their number alone does not tell it (`find_layout`).
    frame_size: (height, width) in pixels, where the file does not tell it (only .mat does).
  """
  path = pathlib.Path(path)
  if layout is not None:
    layout = find_layout(layout)
  if not (path.is_file() or path.is_dir()):
    got = "a pipe or a device" if path.exists() else "nothing"
    raise DataError(path, expected="a file or a folder", got=got)
  reader = _READERS.get("folder" if path.is_dir() else path.suffix.lower())
  if reader is None:
    expected = ", ".join(suffix for suffix in _READERS if suffix != "folder")
    raise DataError(
      path,
      expected=f"{expected} or a folder of OpenPose's *_keypoints.json",
      got=path.suffix or "no suffix",
    )
  try:
    clip = reader(path, layout)
    check_pixels(clip)
    return clip if frame_size is None else dataclasses.replace(clip, frame_size=frame_size)
  except ImportError as error:
    raise DataError(
      f"{path}: reading {path.suffix} needs {error.name} (pip install 'jaxmg[prepare]')"
    ) from error
  except ValueError as error:  # DataError is one, as is all that numpy and json raise
    raise DataError(f"{path}: {str(error) or type(error).__name__}".splitlines()[0]) from error


def find_layout(layout: Layout) -> Layout:
  """The layout of a name, or of a user's JSON file (`jaxmg.skeletons.topology.from_json`).

  Raises:
    ConfigError: a name that is none of ours.
    DataError: a file that is missing or holds no sound layout.
  """
  if isinstance(layout, str) and layout.endswith(".json"):
    try:
      text = pathlib.Path(layout).read_text(encoding="utf-8-sig")
      return topology.from_json(json.loads(text, object_pairs_hook=_unique_keys))
    except FileNotFoundError:
      raise DataError(layout, expected="a layout's JSON file", got="nothing") from None
    except (ValueError, RecursionError) as error:
      raise DataError(f"{layout}: {'; '.join(map(str.strip, str(error).splitlines()))}") from error
  try:
    topology.get(layout)
  except ValueError as error:
    raise ConfigError(f"layout: {error}") from error
  return layout


def layout_of(num_joints: int, *, in_3d: bool = False) -> str:
  """The layout of so many joints; DataError where their number does not tell it."""
  layouts = _LAYOUTS_3D if in_3d else _LAYOUTS
  if num_joints not in layouts:
    known = ", ".join(f"{number} ({name})" for number, name in layouts.items())
    raise DataError("points", expected=known, got=num_joints, hint="name the layout")
  return layouts[num_joints]


def check_pixels(clip: Clip) -> None:
  """Raises DataError where all coordinates of a clip are so small that they are no pixels."""
  if 0 < np.abs(clip.keypoints[..., :2]).max() <= 1:
    raise DataError("coordinates", expected="pixels", got="none above 1", hint="normalised ones?")


def load_array(path: pathlib.Path) -> np.ndarray:
  """The numbers of a .npy file, left in the file until they are used; DataError for any other."""
  with _damage("npy"):
    # A memory map compares the header with the size of the file before it takes any memory.
    array = np.load(path, mmap_mode="r", allow_pickle=False)
  if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
    raise DataError("one array of numbers is expected")
  if array.offset + array.nbytes != path.stat().st_size:
    raise DataError(
      "size", expected=f"{array.offset + array.nbytes} bytes", got=path.stat().st_size
    )
  return array


def frames_first(array: Shaped[np.ndarray, "c t v m"]) -> Shaped[np.ndarray, "length m v c"]:
  """The organisers' order of axes -> ours, without the last frames that are all zero: padding."""
  array = array.transpose(1, 3, 2, 0)
  present = np.flatnonzero(array.any((1, 2, 3)))
  return array[: present[-1] + 1 if present.size else 1]


def depth_view(joints3d: Float[np.ndarray, "t m v 3"]) -> Float[np.ndarray, "t m v 3"]:
  """Projects metres in the camera's frame onto Kinect v1's 320 x 240 depth image, with score 1.

  u = 160 + 285.63 x / z, v = 120 - 285.63 y / z. A joint that is not before the camera is absent.
  """
  x, y, z = np.moveaxis(np.asarray(joints3d, np.float64), -1, 0)
  seen = z > 1e-3
  depth = np.where(seen, z, 1)
  view = np.stack([160 + 285.63 * x / depth, 120 - 285.63 * y / depth, np.ones_like(z)], -1)
  return np.where(seen[..., None], view, 0).astype(np.float32)


def _read_csv(path: pathlib.Path, layout: Layout | None) -> Clip:
  with open(path, encoding="utf-8-sig") as file:
    cells = [cell.strip() for cell in file.readline().split(",")]
    smg = len(cells) == 25 * 11  # which has no header
    header = not smg and _is_header(cells)
    if not header:
      file.seek(0)
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # numpy warns of an empty file; the error below says it
      try:
        table = np.loadtxt(_lines(file), delimiter=",", comments=None, ndmin=2)
      except ValueError as error:
        text = str(error).split(";")[0]  # what follows is advice on loadtxt
        # In some of its messages the first row is row 0, though the first column is column 1.
        text = re.sub(r"row (\d+), column", lambda match: f"row {int(match[1]) + 1}, column", text)
        raise DataError(text + " (not counting the header)" * header) from error
  return _from_smg(table, layout) if smg else _from_table(table, layout)


def _from_smg(table: np.ndarray, layout: Layout | None) -> Clip:
  """Rows of x, y, z, a quaternion, u, v and two more of each joint."""
  values = table.reshape(-1, 1, 25, 11)
  joints3d, uv = values[..., :3], values[..., 7:9]
  score = joints3d.any(-1, keepdims=True) & uv.any(-1, keepdims=True)
  return Clip(np.concatenate([uv, score], -1), layout or "kinect25", joints3d=joints3d)


def _read_xlsx(path: pathlib.Path, layout: Layout | None) -> Clip:
  rows, header = [], []
  with _damage("xlsx"):
    for number, row in enumerate(spreadsheets.rows(path), 1):
      if number == 1 and row:
        # What a text says is not known here: a whole row of them is names.
        named = all(isinstance(cell, str) for cell in row)
        if named or _is_header([f"{cell:g}" if isinstance(cell, float) else "" for cell in row]):
          header = row
          continue
      rows.append(_numbers(f"row {number}", row, counts=(len(rows[0]) if rows else len(row),)))
    if header and not rows:  # then it is a faulty frame
      _numbers("row 1", header, counts=(len(header),))
  return _from_table(np.array(rows), layout)


def _read_npy(path: pathlib.Path, layout: Layout | None) -> Clip:
  array = load_array(path)
  if array.ndim == 3:
    array = array[:, None]
  elif array.ndim == 4 and array.shape[-1] != 3 and array.shape[0] == 3:
    array = frames_first(array)
  if array.ndim != 4 or array.shape[-1] != 3:
    raise DataError(
      "shape",
      expected="[T, V, 3], [T, M, V, 3] or [3, T, V, M], of x, y, score",
      got=list(array.shape),
    )
  return Clip(array, layout or layout_of(array.shape[2]))


def _read_mat(path: pathlib.Path, layout: Layout | None) -> Clip:
  import scipy.io

  with _damage("MATLAB"):
    joints3d = scipy.io.loadmat(path, variable_names=["d_skel"]).get("d_skel")
  if joints3d is None:
    raise DataError("variable d_skel is missing")
  if joints3d.ndim != 3 or joints3d.shape[:2] != (20, 3) or joints3d.dtype.kind not in "fiu":
    raise DataError(
      "d_skel", expected="numbers [20, 3, T]", got=f"{joints3d.dtype} {list(joints3d.shape)}"
    )
  joints3d = _finite("d_skel", joints3d.transpose(2, 0, 1)[:, None], 20)
  return Clip(depth_view(joints3d), layout or "kinect20", (240, 320), joints3d)


def _read_openpose(path: pathlib.Path, layout: Layout | None) -> Clip:
  """Orders the persons of a frame by their summed score: their order in the file plays no part."""
  files = {}  # number of the frame -> file
  names = set()
  for file in path.glob("*_keypoints.json"):
    match = re.fullmatch(r"(.*?)_?(\d{1,15})_keypoints\.json", file.name)
    if match is None:
      raise DataError(file.name, expected="NAME_NUMBER_keypoints.json", got="no number")
    names.add(match[1])
    files[int(match[2])] = file
  if not files:
    raise DataError(
      "the folder",
      expected="OpenPose's *_keypoints.json",
      got="none",
      hint="a folder is one recording: of other files, name one",
    )
  if len(names) > 1:
    raise DataError(
      "the folder", expected="one recording", got=", ".join(map(repr, sorted(names)[:5]))
    )
  first, last = min(files), max(files)
  if last - first >= len(files):
    gap = next(number for number in range(first, last) if number not in files)
    raise DataError(
      "the folder", expected=f"a file for every frame {first} to {last}", got=f"none for {gap}"
    )

  frames = []  # of one array [V, 3] per person
  found = None  # the number of points, and the file that set it
  for number in range(first, last + 1):
    persons = list(_openpose_persons(files[number], body_only=layout not in (None, "openpose137")))
    for person in persons:
      found = found or (len(person), files[number].name)
      if len(person) != found[0]:
        raise DataError(
          files[number].name, expected=f"{found[0]} points as in {found[1]}", got=len(person)
        )
    frames.append(sorted(persons, key=lambda person: -person[:, 2].sum()))
  if found is None and layout is None:
    raise DataError("no person in any frame", hint="its layout is not known: name it")
  num_joints = topology.get(layout).num_joints if found is None else found[0]
  keypoints = np.zeros((len(frames), max(1, *map(len, frames)), num_joints, 3))
  for frame, persons in zip(keypoints, frames, strict=True):
    if persons:
      frame[: len(persons)] = persons
  return Clip(keypoints, layout or layout_of(num_joints))


def _openpose_persons(file: pathlib.Path, *, body_only: bool) -> Iterator[np.ndarray]:
  if file.stat().st_size > _MAX_JSON_BYTES:
    raise DataError(file.name, expected=f"at most {_MAX_JSON_BYTES} bytes", got=file.stat().st_size)
  try:
    frame = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=_unique_keys)
  except (ValueError, RecursionError) as error:
    raise DataError(f"{file.name}: {error}") from error
  people = frame.get("people") if isinstance(frame, dict) else None
  if not isinstance(people, list):
    raise DataError(file.name, expected="a list `people`", got=type(people).__name__)
  for i, person in enumerate(people):
    where = f"{file.name}: people[{i}]"
    if not isinstance(person, dict):
      raise DataError(where, expected="an object", got=type(person).__name__)
    points = functools.partial(_openpose_points, where, person)
    body = points("pose", (25, 18), required=True)
    parts = [points("face", (70,)), points("hand_left", (21,)), points("hand_right", (21,))]
    whole = len(body) == 25 and all(part is not None for part in parts) and not body_only
    yield np.concatenate([body, *parts]) if whole else body


def _openpose_points(
  where: str, person: dict, part: str, sizes: tuple[int, ...], *, required: bool = False
) -> np.ndarray | None:
  field = f"{part}_keypoints_2d"
  values = person.get(field)
  if not values and not required:
    return None  # this detector was off
  counts = tuple(3 * size for size in sizes)
  return _numbers(f"{where}: {field}", values, counts=counts).reshape(-1, 3)


_READERS = {
  ".csv": _read_csv,
  ".xlsx": _read_xlsx,
  ".npy": _read_npy,
  ".mat": _read_mat,
  "folder": _read_openpose,
}


def _from_table(table: np.ndarray, layout: Layout | None) -> Clip:
  """Rows of (frame number,) x, y, score, ...: numbers rise, and frames left out are all zero."""
  if not table.size:
    raise DataError("the table", expected="at least one frame", got="none")
  num_joints, numbered = divmod(table.shape[1], 3)
  if numbered == 2:
    raise DataError(
      "columns", expected="3 per point, with or without a frame number", got=table.shape[1]
    )
  layout = layout or layout_of(num_joints)
  keypoints = table[:, numbered:].reshape(len(table), 1, num_joints, 3)
  if numbered:
    numbers = table[:, 0]
    steps = np.diff(numbers)
    if not np.isfinite(numbers).all() or (numbers % 1).any() or (steps <= 0).any():
      raise DataError("column 1", expected="frame numbers that rise", got="others")
    rows = numbers - numbers[0]
    if rows[-1] >= _MAX_FRAMES:
      raise DataError(
        "column 1", expected=f"at most {_MAX_FRAMES} frames", got=f"{rows[-1] + 1:.0f}"
      )
    if (steps > 1).any():
      full = np.zeros((int(rows[-1]) + 1, *keypoints.shape[1:]))
      full[rows.astype(int)] = keypoints
      keypoints = full
  return Clip(keypoints, layout)


def _finite(field: str, values: np.ndarray, num_joints: int) -> np.ndarray:
  """A new float32 array of shape [T, M, V, 3]."""
  shape = np.shape(values)
  if len(shape) != 4 or shape[2:] != (num_joints, 3) or 0 in shape:
    raise DataError(field, expected=f"[T, M, {num_joints}, 3], T and M at least 1", got=list(shape))
  if shape[0] > _MAX_FRAMES:
    raise DataError(field, expected=f"at most {_MAX_FRAMES} frames", got=shape[0])
  return _float32(field, values)


def _float32(field: str, values: object) -> np.ndarray:
  try:
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is found below
      array = np.array(values, np.float32)
  except OverflowError:  # an integer of more than 308 digits
    raise DataError(field, expected="finite numbers", got="a larger one") from None
  if wrong := _first(~np.isfinite(array)):
    got = np.asarray(values)[wrong]
    raise DataError(_place(field, wrong), expected="a finite number", got=f"{got:g}")
  return array


def _numbers(field: str, values: object, *, counts: tuple[int, ...]) -> np.ndarray:
  """float32[n] of a sequence of Python numbers, n in `counts`."""
  plain = isinstance(values, (list, tuple)) and {*map(type, values)} <= {int, float}
  if not plain or len(values) not in counts:
    expected = f"{' or '.join(map(str, counts))} numbers"
    raise DataError(field, expected=expected, got=len(values) if plain else "other things")
  return _float32(field, values)


@contextlib.contextmanager
def _damage(kind: str) -> Iterator[None]:
  """A library raises whatever the damage of a file leads to: here it becomes a sentence."""
  try:
    yield
  except (DataError, ImportError, OSError):
    raise
  except Exception as error:
    raise DataError(
      f"expected a whole {kind} file ({str(error) or type(error).__name__})"
    ) from error


def _first(mask: np.ndarray) -> tuple[int, ...] | None:
  return tuple(map(int, np.argwhere(mask)[0])) if mask.any() else None


def _place(field: str, index: tuple[int, ...]) -> str:
  names = ("frame", "person", "joint", "axis") if len(index) > 1 else ("number",)
  return f"{field}: " + ", ".join(f"{name} {i}" for name, i in zip(names, index, strict=False))


def _lines(file: Iterable[str]) -> Iterator[str]:
  """The lines up to the empty ones at the end; an empty one before is a frame that is lost."""
  empty = None
  for number, line in enumerate(file, 1):
    if not line.strip():
      empty = empty or number
    elif empty:
      raise DataError(f"row {empty}", expected="a frame", got="an empty line")
    else:
      yield line


def _is_header(cells: list[str]) -> bool:
  """Whether a first row has names, or numbers its columns, as pandas does.

  Any other one is data, of which a cell may be damaged.
  """
  columns = [str(i) for i in range(len(cells))]
  named = cells[0][:1].isalpha() and not any(map(_is_number, cells))
  return named or (len(cells) > 1 and cells[1:] in (columns[:-1], columns[1:]))


def _is_number(text: str) -> bool:
  try:
    float(text)
  except ValueError:
    return False
  return True


def _unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
  items = dict(pairs)
  if len(items) < len(pairs):
    raise ValueError("a key occurs twice in one object")
  return items
