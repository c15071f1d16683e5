"""Tables, one frame per row: .csv and .xlsx, of which names in a header are not read.

A row is x, y and a score of each joint, or x and y alone, or x, y, z in metres; before them may be
the frame's number. A header whose names end in x, y, z, score (or another word for it) says which
columns are what, in any order: `nose_x, nose_y, nose_score, ...` or all x before all y. Without
one, the number of columns must tell, with that of the layout (iMiGUE: 411, which is 137 points;
SMG's `_skeleton.csv`: 11 values of 25 joints, whose scores are 1 where they were seen).

Cells are parted by commas, semicolons or tabs, and may be quoted; where they are not parted by
commas, a comma is a decimal point. Frame numbers rise; frames that are left out show nobody.
"""

import csv
import itertools
import pathlib
import re
import warnings
from collections.abc import Iterable, Iterator, Sequence

import numpy as np

from jaxmg.data import spreadsheets
from jaxmg.data.readers import clip as clips
from jaxmg.data.readers.damage import damage
from jaxmg.errors import DataError
from jaxmg.skeletons import topology

_SMG = 25 * 11  # columns
_SPARSE = 10_000  # frames, of which any number may be left out; of more, 1 % must be there
_WORDS = {
  "x": "x",
  "y": "y",
  "z": "z",
  **dict.fromkeys(("s", "c", "p", "score", "conf", "confidence", "likelihood", "prob"), "score"),
  **dict.fromkeys(("v", "vis", "visibility", "presence"), "visibility"),
}
_ROLE = re.compile(rf"(|.*[\W_\d])({'|'.join(_WORDS)})([\W_\d]*)")
_PREFIXED = re.compile(rf"^({'|'.join(_WORDS)})[\W_]+(.*[^\W\d_].*)")  # x_nose


def read_csv(path: pathlib.Path, told: clips.Told) -> clips.Clip:
  with open(path, encoding="utf-8-sig", newline="") as file:
    first = file.readline()
    delimiter = next((mark for mark in ";\t" if mark in first), ",")
    (cells,) = csv.reader([first], delimiter=delimiter) if first.strip() else ([""],)
    cells = [cell.strip() for cell in cells]
    if cells[0].lower() == "scorer":
      hint = "keep x, y, likelihood of each body part, drop the three lines of names"
      raise DataError("the table", expected="one header", got="DeepLabCut's", hint=hint)
    header = _is_header(cells)
    if not header:
      file.seek(0)
    with warnings.catch_warnings():
      warnings.simplefilter("ignore")  # numpy warns of an empty file; the error below says it
      try:
        lines = _lines(file, header)
        if delimiter != ",":
          lines = (line.replace(",", ".") for line in lines)
        table = np.loadtxt(lines, delimiter=delimiter, comments=None, ndmin=2, quotechar='"')
      except ValueError as error:
        raise DataError(_in_rows_of_the_file(str(error), header)) from error
  smg = table.shape[1] == _SMG and not header and str(told.layout or "kinect25") == "kinect25"
  if smg and not (len(table) > 1 and (np.diff(table[:, 0]) == 1).all()):  # numbers of frames
    return _from_smg(table, told)
  return _from_table(table, told, cells if header else ())


def read_xlsx(path: pathlib.Path, told: clips.Told) -> clips.Clip:
  rows, header = [], []
  with damage("xlsx"):
    for number, row in enumerate(spreadsheets.rows(path), 1):
      if number == 1 and row:
        # What a text says is not known here: a whole row of them is names.
        named = all(isinstance(cell, str) for cell in row)
        if named or _is_header([f"{cell:g}" if isinstance(cell, float) else "" for cell in row]):
          header = row
          continue
      width = len(rows[0]) if rows else len(row)
      rows.append(clips.numbers(f"row {number}", row, counts=(width,)))
    if header and not rows:  # then it is a faulty frame
      clips.numbers("row 1", header, counts=(len(header),))
  notes = ("columns in turn: names in an .xlsx are not read",) if header else ()
  return _from_table(np.array(rows), told, (), notes)


def _from_smg(table: np.ndarray, told: clips.Told) -> clips.Clip:
  """Rows of x, y, z, a quaternion, u, v and two more of each joint."""
  values = table.reshape(-1, 1, 25, 11)
  joints3d, uv = values[..., :3], values[..., 7:9]
  score = joints3d.any(-1, keepdims=True) & uv.any(-1, keepdims=True)
  keypoints = np.concatenate([uv, score], -1)
  return clips.from_points(keypoints, told, layout="kinect25", in_3d=False, joints3d=joints3d)


def _from_table(
  table: np.ndarray, told: clips.Told, header: Sequence[str], notes: tuple[str, ...] = ()
) -> clips.Clip:
  if not table.size:
    raise DataError("the table", expected="at least one frame", got="none")
  layout, rows = None, len(table)
  if found := _by_name(table, header):
    numbered, points, in_3d, joints = found
    order, layout, more = _order(joints, told)
    points, notes = points[:, order], notes + more
  else:
    numbered, points, in_3d = _by_number(table, told)
  if numbered:
    points = _with_frames_left_out(table[:, 0], points)
  if len(points) > rows:
    notes += (f"{rows} of the frames are there",)
  return clips.from_points(points[:, None], told, layout=layout, in_3d=in_3d, notes=notes)


def _by_name(
  table: np.ndarray, header: Sequence[str]
) -> tuple[bool, np.ndarray, bool, list[str]] | None:
  """Whether there are frame numbers, points [T, V, C], whether in 3-D, and the names of the joints.

  None where the names do not say which column is what.
  """
  names = [name.lower() for name in header]
  matches = [_ROLE.fullmatch(x) or _ROLE.fullmatch(_PREFIXED.sub(r"\2_\1", x)) for x in names]
  if not header or sum(map(bool, matches)) < len(header) / 2:
    return None
  numbered = matches[0] is None
  if None in matches[numbered:]:
    unknown = matches.index(None, int(numbered))
    expected = "x, y and score of joints, after one number of the frame"
    raise DataError("header", expected=expected, got=f"{header[unknown]!r}, column {unknown + 1}")
  roles = [_WORDS[match[2]] for match in matches[numbered:]]
  columns = {role: [i for i, name in enumerate(roles, numbered) if name == role] for role in roles}
  kinds = {*columns}
  if kinds not in ({"x", "y"}, {"x", "y", "score"}, {"x", "y", "z"}, {"x", "y", "visibility"}) or (
    len({*map(len, columns.values())}) > 1
  ):
    got = ", ".join(f"{len(found)} of {role}" for role, found in columns.items())
    hint = "MediaPipe's z is no depth in metres: leave it out" if "visibility" in kinds else None
    raise DataError("columns", expected="as many x, y and scores, or x, y, z", got=got, hint=hint)

  def joint(column):
    before, _, after = matches[column].groups()
    return re.sub(r"[\W_]+", "_", before).strip("_") or re.sub(r"\D", "", after)

  joints = [*map(joint, columns["x"])]
  if len({*joints}) == len(joints):  # else they have no names, and come in turn
    for role, found in columns.items():
      places = {joint(column): column for column in found}
      if places.keys() != {*joints}:
        other = sorted(places.keys() ^ {*joints})[0]
        raise DataError("header", expected=f"{role} of the joints that have an x", got=repr(other))
      columns[role] = [places[name] for name in joints]
  last = [columns[role] for role in ("score", "visibility", "z") if role in columns]
  order = np.array([columns["x"], columns["y"], *last]).T  # V C
  return numbered, table[:, order], "z" in kinds, joints


def _order(
  joints: list[str], told: clips.Told
) -> tuple[list[int], clips.Layout | None, tuple[str, ...]]:
  """The order of a layout whose joints these names or numbers are; it; and what is to be noted."""
  in_turn = [*range(len(joints))]
  if len({*joints}) < len(joints):
    return in_turn, None, ()
  numbers = [re.fullmatch(r"(.*?)_?(\d+)", joint) for joint in joints]
  if all(numbers) and len({match[1] for match in numbers}) == 1:
    return sorted(in_turn, key=lambda v: int(numbers[v][2])), None, ()
  layouts = [*topology.SKELETONS.values()] if told.layout is None else [topology.get(told.layout)]
  for layout in layouts:
    if {*layout.joints} == {*joints}:
      name = layout.name if told.layout is None else told.layout
      return [joints.index(joint) for joint in layout.joints], name, ()
  # Not by their names; but these must not say that they are others.
  usual = told.layout or clips.LAYOUTS.get(len(joints))
  expected = topology.get(usual).joints if usual else ()
  known = {joint for layout in topology.SKELETONS.values() for joint in layout.joints}
  for v, name in enumerate(joints):
    if name in known and expected[v : v + 1] != (name,):
      raise DataError(
        "header",
        expected=f"the joints of {usual or 'a layout of ours'}, all by their names or in turn",
        got=f"{name} as number {v + 1}",
        hint="or a layout of your own: --layout=FILE.json",
      )
  return in_turn, None, ("joints in turn: their names are not known",)


def _by_number(table: np.ndarray, told: clips.Told) -> tuple[bool, np.ndarray, bool | None]:
  """As `_by_name`, of a table without names: where its width leaves no choice."""
  width = table.shape[1]
  steps = np.diff(table[:, 0])
  # Numbers that do not rise are let through: `_with_frames_left_out` names them.
  whole = np.isfinite(table[:, 0]).all() and not (table[:, 0] % 1).any()
  counts = bool(whole and len(steps) and (steps == 1).all())
  if told.layout is None:
    known = {*clips.LAYOUTS, *(() if told.points == "keypoints" else clips.LAYOUTS_3D)}
  else:
    known = {topology.get(told.layout).num_joints}
  found = [
    (numbered, size)
    for numbered, size in itertools.product((False, True), (3, 2))
    if (width - numbered) % size == 0 and (width - numbered) // size in known
    if size == 3 or told.points != "joints3d"
  ]
  if len(found) > 1:  # 17 x 3, or a number and 25 x 2; 22 x 3, or 33 x 2: scores are no pixels
    scored = [one for one in found if one[1] == 3 and _are_scores(table[:, one[0] :][:, 2::3])]
    found = scored or [one for one in found if one[0] == counts and one[1] == 2] or found
  if len(found) > 1:
    expected = "a number of them that tells the joints"
    raise DataError("columns", expected=expected, got=width, hint="name the layout: --layout")
  if not found:
    expected = "2 or 3 for each joint of a layout, with or without a frame number"
    raise DataError("columns", expected=expected, got=width, hint="name the layout: --layout")
  ((numbered, size),) = found
  points = table[:, numbered:].reshape(len(table), -1, size)
  return numbered, points, None if size == 3 else False


def _are_scores(values: np.ndarray) -> bool:
  low, high = clips.SCORES
  return bool(((values >= low) & (values <= high)).mean() > 0.99)


def _with_frames_left_out(numbers: np.ndarray, points: np.ndarray) -> np.ndarray:
  steps = np.diff(numbers)
  if not np.isfinite(numbers).all() or (numbers % 1).any() or (steps <= 0).any():
    hint = "seconds? leave them out" if (steps > 0).all() else None
    raise DataError("column 1", expected="frame numbers that rise", got="others", hint=hint)
  rows = numbers - numbers[0]
  length = int(rows[-1]) + 1
  if length > max(_SPARSE, 100 * len(rows)):
    expected = "1 % of the frames, or more"
    raise DataError("column 1", expected=expected, got=f"{len(rows)} of {length}")
  if not (steps > 1).any():
    return points
  clips.check_counts("column 1", length, 1, points.shape[1])
  full = np.zeros((length, *points.shape[1:]), np.float32)
  full[rows.astype(int)] = points
  return full


def _in_rows_of_the_file(message: str, header: bool) -> str:
  """numpy's message, with the row counted from 1 and the header as one."""
  text = message.split(";")[0]  # what follows is advice on loadtxt
  text = text.replace("could not convert string '' to float64", "an empty cell, where 0 is absent,")
  text = re.sub(
    r"could not convert string (.*) to float64 at row (\d+), column (\d+)\.?",
    r"row \2, column \3: expected a number, got \1",
    text,
  )
  # In some of its messages the first row is row 0, though the first column is column 1.
  text = re.sub(r"row (\d+)(?=, column)", lambda match: f"row {int(match[1]) + 1}", text)
  return re.sub(r"row (\d+)", lambda match: f"row {int(match[1]) + header}", text)


def _lines(file: Iterable[str], header: bool) -> Iterator[str]:
  """The lines up to the empty ones at the end; an empty one before is a frame that is lost."""
  empty = None
  for number, line in enumerate(file, 1 + header):
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
  columns = [str(i) for i in range(len(cells) + 1)]
  names = [cell for cell in cells if cell]
  named = cells[0][:1].isalpha() or (not cells[0] and len(names) == len(cells) - 1 > 1)
  named = named and not any(map(_is_number, names))
  counts = len(cells) > 1 and cells[1:] in (columns[:-2], columns[1:-1])
  return named or counts or (len(cells) > 9 and cells == columns[1:])


def _is_number(text: str) -> bool:
  try:
    float(text.replace(",", "."))
  except ValueError:
    return False
  return True
