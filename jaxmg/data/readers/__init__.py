"""Raw files -> key points or frames: `read` gives a clip, and with it what the file was taken for.

  .csv .xlsx   a frame per row (`tables`)
  .npy .npz    arrays (`arrays`)
  .pkl         annotations of PYSKL and mmaction2, one or several (`annotations`)
  .skeleton    NTU RGB+D (`ntu`)
  .mat         UTD-MHAD (`matlab`)
  a folder     OpenPose's `*_keypoints.json`, one file per frame (`openpose`)
  .mp4 .mkv .avi .mov .webm ...    frames (`video`), decoded when they are asked for

What is read, a `Clip` of poses or a `VideoFile`, tells of itself:

  track, num_frames    the track of a prepared set that it is of
  times, fps           float64[T] seconds, and the mean rate; None where they are not known
  guess, notes         what the file was taken for, and what is to be said of it
  doubts()             what is odd about it; DataError if that is so of what was assumed
  record()             what an input reads of it (`jaxmg.inputs`)
  cut(first, last)     these frames, in memory; part(first, last): the same, read when wanted
  sized(frame_size)    with this size of frames, where it has none of its own

Every fault of a file is one DataError that names the file and the field.
"""

import contextlib
import dataclasses
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxmg.data.readers import annotations, arrays, matlab, ntu, openpose, tables, video
from jaxmg.data.readers.clip import (
  Clip,
  Guess,
  Layout,
  Told,
  check,
  depth_view,
  find_layout,
  frame_size,
  layout_of,
  same_shape,
)
from jaxmg.data.readers.faces import FaceCrops, FacesOfVideo
from jaxmg.data.readers.video import Frames, VideoFile, without_loss
from jaxmg.errors import EXTRAS, ConfigError, DataError

__all__ = [
  "READERS",
  "VIDEOS",
  "Clip",
  "FaceCrops",
  "FacesOfVideo",
  "Frames",
  "Guess",
  "Layout",
  "Told",
  "VideoFile",
  "annotations",
  "check",
  "check_several",
  "depth_view",
  "find_layout",
  "frame_size",
  "from_array",
  "hints_as_arguments",
  "layout_of",
  "read",
  "read_all",
  "remarks",
  "same_shape",
  "told",
  "without_loss",
]

VIDEOS = (".mp4", ".mkv", ".avi", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".wmv", ".ts")

# By suffix: what reads a file (path, told), into a clip or, of several, into their names and clips.
READERS = {
  ".csv": tables.read_csv,
  ".xlsx": tables.read_xlsx,
  ".npy": arrays.read_npy,
  ".npz": arrays.read_npz,
  ".pkl": annotations.read_clips,
  ".pickle": annotations.read_clips,
  ".skeleton": ntu.read_skeleton,
  ".mat": matlab.read_mat,
  "folder": openpose.read_folder,
  **dict.fromkeys(VIDEOS, video.read_video),
}

# What other tools write, and how it becomes what we read.
_OTHERS = {
  ".json": (
    "JSON of AlphaPose, MMPose or MediaPipe?",
    "one OpenPose file per frame, or a .npy [T, M, V, 3] of x, y in pixels and score",
  ),
  ".txt": (
    "text of YOLO-pose?",
    "its x, y are normalised: write a csv, a frame per row, of x * width, y * height, score",
  ),
  ".h5": ("DeepLabCut or SLEAP?", "write a csv, a frame per row, of x, y, score of each point"),
  ".c3d": ("motion capture?", "write a .npy [T, V, 3] in metres, and --points=joints3d"),
  ".bvh": ("motion capture?", "write a .npy [T, V, 3] in metres, and --points=joints3d"),
}


def read(
  path: str | pathlib.Path,
  *,
  layout: Layout | None = None,
  frame_size: tuple[int, int] | None = None,
  **told: Any,
) -> Clip | VideoFile:
  """Reads one recording; DataError for a file of several.

  Args:
    layout: the layout of the joints, where their number alone does not tell it (`find_layout`).
    frame_size: (height, width) in pixels, where the file does not tell it.
    told: what else is known of the file, as in `Told`.
  """
  found = [*read_all(path, Told(layout, frame_size, **told), most=1)]
  return found[0][1]


def read_all(
  path: str | pathlib.Path, told: Told | None = None, *, most: int | None = None
) -> Iterator[tuple[str, Clip | VideoFile]]:
  """Yields the recordings of a file with their names: of most files, one.

  Raises DataError for whatever is wrong with the file, and if there are more than `most`.
  """
  path, told = pathlib.Path(path), told or Told()
  if told.layout is not None:
    told = dataclasses.replace(told, layout=find_layout(told.layout))
  reader = _reader(path)
  if told.axes and reader not in (arrays.read_npy, arrays.read_npz, annotations.read_clips):
    raise ConfigError("axes", expected="an array's", got=path.name, hint="this file has none")
  try:
    found = reader(path, told)
    if isinstance(found, Clip | VideoFile):
      found = ((path.name, found),)
    for number, (name, clip) in enumerate(found):
      if number == most:
        raise DataError("recordings", expected=most, got="more", hint="take one of them out")
      yield name, clip.sized(told.expects_size)
  except ConfigError:
    raise
  except ImportError as error:
    extra = EXTRAS.get((error.name or "").partition(".")[0], "prepare")
    raise DataError(
      f"{path}: reading {path.suffix} needs {error.name} (pip install 'jaxmg[{extra}]')"
    ) from error
  except ValueError as error:  # DataError is one, as is all that numpy and json raise
    text = (str(error) or type(error).__name__).splitlines()[0]
    raise DataError(text if text.startswith(str(path)) else f"{path}: {text}") from error


def from_array(array: np.ndarray, told: Told | None = None) -> Clip | Frames:
  """A recording that is an array: key points, as in a .npy file, or frames of a video.

  Frames are uint8: [T, H, W, 3] of red, green and blue, or [T, H, W] of one channel, such as depth.

  Raises DataError as `read` does, for any other kind of array, and where a first axis may be that
  of persons or of clips.
  """
  told = told or Told()
  if told.layout is not None:
    told = dataclasses.replace(told, layout=find_layout(told.layout))
  as_points = array.shape[-1:] in ((2,), (3,)) and (array.ndim == 3 or array.shape[1] < 4)
  if array.dtype == bool or (array.dtype == np.uint8 and as_points):
    got, hint = f"{array.dtype}{[*array.shape]}", "key points? array.astype(np.float32)"
    raise DataError("the array", expected="numbers of another kind", got=got, hint=hint)
  if array.dtype == np.uint8:
    if 0 in array.shape or array.shape[3:] not in ((), (3,)) or array.ndim < 3:
      expected = "uint8[T, H, W, 3] or uint8[T, H, W]"
      got = f"uint8{[*array.shape]}"
      raise DataError("frames", expected=expected, got=got, hint=_NO_CLIP)
    return without_loss(array, told.fps and np.arange(len(array)) / told.fps)
  otherwise = _SEVERAL if arrays.are_joints(array.shape, told) else _NO_CLIP
  clip = arrays.read_array(arrays.of_numbers(array), told, otherwise=otherwise)
  if clip.guess.axes == "MTVC" and "axes" in clip.guess.assumed and len(array) > 1:
    expected, hint = "frames first, or to be told", f"axes=MTVC; {_SEVERAL}"
    raise DataError("axes", expected=expected, got=[*array.shape], hint=hint)
  return clip.sized(told.expects_size)


def _is_numbers(path: pathlib.Path) -> bool:
  """Whether the first line of a text is numbers."""
  with path.open("rb") as file:
    words = file.readline(1 << 16).split()
  try:
    return len([*map(float, words)]) > 0
  except ValueError:
    return False


def check_several(clips: Sequence[Any], told: Mapping[str, Any]) -> None:
  """Raises DataError where arrays of key points are the frames of one clip, and no clips.

  Then each would be read as a clip of as many frames as there are persons.
  """
  shapes = {one.shape if isinstance(one, np.ndarray) else () for one in clips}
  kinds = {one.dtype for one in clips if isinstance(one, np.ndarray)}
  (shape,) = shapes if len(shapes) == 1 else ((),)
  frames = len(shape) == 3 and shape[0] <= arrays.MOST_ASSUMED and np.uint8 not in kinds
  if len(clips) > 1 and frames and told.get("axes") is None:
    expected, got = "several recordings", f"{len(clips)} of {shape[0]} frame{'s' * (shape[0] > 1)}"
    hint = "one clip is an array, not a list of its frames: np.stack(clip); if not: axes=TVC"
    raise DataError("clips", expected=expected, got=got, hint=hint)


def remarks(found: Clip | Frames | VideoFile) -> list[str]:
  """What is to be said of a recording that was read: what was assumed, and what is odd about it."""
  kind = []
  if isinstance(found, Clip) and (guess := found.guess).assumed:
    several = "axes" in guess.assumed and guess.num_persons > 1  # or clips of so many frames
    kind = [f"clips are read as {guess.kind}{f'; this one: {guess.counts}' * several}"]
  return kind + (found.doubts() if isinstance(found, Clip | VideoFile) else [])


_SEVERAL = "several clips: in a list"
_NO_CLIP = f"{_SEVERAL}; frames of a video are uint8[T, H, W, 3]"
_ARGUMENTS = ("layout", "frame_size", "axes", "points", "fps")


def told(given: Mapping[str, Any], known: Mapping[str, Any] | None = None) -> Told:
  """What a caller from Python tells of an array or a file, before what is `known` of it.

  None is nothing told. Raises TypeError for another name than `layout`, `frame_size`, `axes`,
  `points` and `fps`.
  """
  if unknown := sorted(given.keys() - {*_ARGUMENTS}):
    expected = ", ".join(f"{name}=" for name in _ARGUMENTS)
    raise TypeError(f"expected {expected}, got {unknown[0]}=")
  given = {name: value for name, value in given.items() if value is not None}
  return Told(**{**(known or {}), **given})


@contextlib.contextmanager
def hints_as_arguments() -> Iterator[None]:
  """For callers from Python: an error says how an argument settles it, where it names a flag."""
  try:
    yield
  except (ConfigError, DataError) as error:
    names = "|".join(_ARGUMENTS)
    raise type(error)(re.sub(rf"--({names})\b=?", r"\1=", str(error))) from error


def _reader(path: pathlib.Path):
  if not (path.is_file() or path.is_dir()):
    got = "a pipe or a device" if path.exists() else "nothing"
    raise DataError(path, expected="a file or a folder", got=got)
  suffix = "folder" if path.is_dir() else path.suffix.lower()
  if suffix in READERS:
    return READERS[suffix]
  suffixes = ", ".join(suffix for suffix in READERS if suffix != "folder")
  if suffix == ".txt" and not _is_numbers(path):
    suffix = ""
  seen, hint = _OTHERS.get(suffix, (path.suffix or "no suffix", None))
  expected = f"{suffixes} or a folder of OpenPose's *_keypoints.json"
  raise DataError(path, expected=expected, got=seen, hint=hint)
