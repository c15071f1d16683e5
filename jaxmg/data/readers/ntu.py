"""NTU RGB+D's `.skeleton`, as the data set's authors give it: text, in metres.

The number of frames; for each frame the number of bodies; for each body a line of 10 values, of
which the first is its id, a line with the number of joints, and a line of 12 values for each joint,
of which the first three are x, y, z. A body keeps its place among the persons by its id.
"""

import contextlib
import itertools
import pathlib
from collections.abc import Iterator

import numpy as np

from jaxmg.data.readers import clip as clips
from jaxmg.errors import DataError

_JOINTS = 25
_MAX_BYTES = 1 << 30


def read_skeleton(path: pathlib.Path, told: clips.Told) -> clips.Clip:
  if path.stat().st_size > _MAX_BYTES:
    raise DataError("size", expected=f"at most {_MAX_BYTES} bytes", got=path.stat().st_size)
  with open(path, encoding="ascii") as file:
    lines = enumerate(file, 1)
    num_frames = _count(lines, "frames")
    clips.check_counts("line 1", num_frames, 1, _JOINTS)
    bodies = {}  # id -> frame -> [V, 3], in the order in which they come
    for frame in range(num_frames):
      for _ in range(_count(lines, "bodies", most=clips.MAX_PERSONS)):
        number, values = _values(lines, 10)
        if bodies.setdefault(values[0], {}).get(frame) is not None:
          raise DataError(f"line {number}", expected="a body once in a frame", got=values[0])
        if (num_joints := _count(lines, "joints")) != _JOINTS:
          raise DataError(f"line {number + 1}", expected=f"{_JOINTS} joints", got=num_joints)
        rows = [_values(lines, 12)[1][:3] for _ in range(_JOINTS)]
        bodies[values[0]][frame] = _floats(number, rows)
    for number, line in lines:
      if line.strip():
        raise DataError(f"line {number}", expected="the end after all frames", got="more")
  if not num_frames:
    raise DataError("line 1", expected="at least one frame", got=0)
  clips.check_counts("the file", num_frames, len(bodies), _JOINTS)
  points = np.zeros((num_frames, max(1, len(bodies)), _JOINTS, 3), np.float32)
  for person, (frames, values) in enumerate(
    (list(found), list(found.values())) for found in bodies.values()
  ):
    points[frames, person] = values
  return clips.from_points(points, told, layout="kinect25", in_3d=True)


def _values(lines: Iterator[tuple[int, str]], count: int) -> tuple[int, list[str]]:
  """The next line that is not empty: its number, and its values."""
  for number, line in lines:
    if values := line.split():
      if len(values) != count:
        raise DataError(f"line {number}", expected=f"{count} values", got=len(values))
      return number, values
  raise DataError("the file", expected="more lines", got="its end")


def _count(lines: Iterator[tuple[int, str]], noun: str, *, most: int = clips.MAX_FRAMES) -> int:
  number, (value,) = _values(lines, 1)
  if not (value.isascii() and value.isdecimal() and len(value) < 10 and int(value) <= most):
    raise DataError(f"line {number}", expected=f"a number of {noun} up to {most}", got=value[:20])
  return int(value)


def _floats(number: int, rows: list[list[str]]) -> np.ndarray:
  with contextlib.suppress(ValueError):
    with np.errstate(over="ignore"):  # what does not fit is infinite
      joints = np.array(rows, np.float64).astype(np.float32)
    if np.isfinite(joints).all():
      return joints
  got = " ".join(itertools.chain(*rows))[:40]
  raise DataError(f"line {number}: its joints", expected="finite numbers", got=got)
