"""A folder of OpenPose's `*_keypoints.json`, one file per frame.

Each person has a body (18 or 25 points), or body, face and hands (137). Persons are linked over
time by where they are: their order in a file plays no part.
"""

import functools
import json
import pathlib
import re
from collections.abc import Iterator

import numpy as np

from jaxmg.data import linking
from jaxmg.data.readers import clip as clips
from jaxmg.errors import DataError
from jaxmg.skeletons import topology

_MAX_JSON_BYTES = 16 << 20
_MOST_PERSONS = 10  # that are kept of all who come and go


def read_folder(path: pathlib.Path, told: clips.Told) -> clips.Clip:
  files = _files(path)
  body_only = told.layout is not None and topology.get(told.layout).num_joints != 137
  frames = []  # of one array [V, 3] per person
  found = None  # the number of points, and the file that set it
  for file in files:
    persons = list(_persons(file, body_only=body_only))
    for person in persons:
      found = found or (len(person), file.name)
      if len(person) != found[0]:
        raise DataError(file.name, expected=f"{found[0]} points as in {found[1]}", got=len(person))
    frames.append(persons)
  if found is None and told.layout is None:
    raise DataError("no person in any frame", hint="its layout is not known: name it")
  num_joints = topology.get(told.layout).num_joints if found is None else found[0]
  clips.check_counts("the folder", len(frames), 1, num_joints)
  nobody = np.zeros((0, num_joints, 3), np.float32)
  linked, left = linking.link(
    [np.array(persons) if persons else nobody for persons in frames], most=_MOST_PERSONS
  )
  notes = (f"{left} more persons or ghosts left out",) if left else ()
  return clips.from_points(linked, told, in_3d=False, notes=notes)


def _files(path: pathlib.Path) -> list[pathlib.Path]:
  """The files of all frames, in order."""
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
  return [files[number] for number in range(first, last + 1)]


def _persons(file: pathlib.Path, *, body_only: bool) -> Iterator[np.ndarray]:
  if not file.is_file():
    raise DataError(file.name, expected="a file", got="another thing")
  if file.stat().st_size > _MAX_JSON_BYTES:
    raise DataError(file.name, expected=f"at most {_MAX_JSON_BYTES} bytes", got=file.stat().st_size)
  try:
    frame = json.loads(file.read_text(encoding="utf-8-sig"), object_pairs_hook=clips.unique_keys)
  except (ValueError, RecursionError) as error:
    raise DataError(f"{file.name}: {error}") from error
  people = frame.get("people") if isinstance(frame, dict) else None
  if not isinstance(people, list):
    raise DataError(file.name, expected="a list `people`", got=type(people).__name__)
  if len(people) > clips.MAX_PERSONS:
    expected = f"at most {clips.MAX_PERSONS} people in a frame"
    raise DataError(file.name, expected=expected, got=len(people))
  for i, person in enumerate(people):
    where = f"{file.name}: people[{i}]"
    if not isinstance(person, dict):
      raise DataError(where, expected="an object", got=type(person).__name__)
    points = functools.partial(_points, where, person)
    body = points("pose", (25, 18), required=True)
    parts = [points("face", (70,)), points("hand_left", (21,)), points("hand_right", (21,))]
    whole = len(body) == 25 and all(part is not None for part in parts) and not body_only
    yield np.concatenate([body, *parts]) if whole else body


def _points(
  where: str, person: dict, part: str, sizes: tuple[int, ...], *, required: bool = False
) -> np.ndarray | None:
  field = f"{part}_keypoints_2d"
  values = person.get(field)
  if not values and not required:
    return None  # this detector was off
  counts = tuple(3 * size for size in sizes)
  return clips.numbers(f"{where}: {field}", values, counts=counts).reshape(-1, 3)
