"""Tables -> key points."""

import tracemalloc

import numpy as np
import pytest
import xlsxwriter

from jaxmg.data import readers
from jaxmg.errors import DataError
from jaxmg.skeletons import topology


def pose(num_frames=4, num_joints=25, seed=0):
  """float64[T, V, 3], every joint present; a few digits, so that text keeps it."""
  shape = (num_frames, num_joints)
  rng = np.random.default_rng(seed)
  return rng.uniform((1, 1, 0.1), (1280, 720, 1), (*shape, 3)).round(3)


def write_csv(path, table, *, header=False):
  lines = [",".join(f"{value:g}" for value in row) for row in table]
  if header:
    lines.insert(0, ",".join(f"column {i}" for i in range(len(table[0]))))
  path.write_text("\n".join(lines) + "\n")
  return path


def write_xlsx(path, rows):
  with xlsxwriter.Workbook(path) as book:
    sheet = book.add_worksheet()
    for number, row in enumerate(rows):
      sheet.write_row(number, 0, row)
  return path


def numbered(keypoints, numbers):
  return np.concatenate([np.array(numbers)[:, None], keypoints.reshape(len(keypoints), -1)], 1)


@pytest.mark.parametrize(
  ("num_joints", "layout"), [(17, "coco17"), (25, "openpose25"), (137, "openpose137")]
)
def test_a_csv_tells_its_layout_by_the_number_of_columns(tmp_path, num_joints, layout):
  keypoints = pose(num_joints=num_joints)
  clip = readers.read(write_csv(tmp_path / "a.csv", keypoints.reshape(4, -1)))
  assert clip.layout == layout
  assert clip.keypoints.dtype == np.float32
  np.testing.assert_allclose(clip.keypoints, keypoints[:, None], rtol=1e-5)


def test_imigue_csv_has_a_header_and_frame_numbers(tmp_path):
  keypoints = pose(num_joints=35)
  path = write_csv(
    tmp_path / "0001_light_hand.csv", numbered(keypoints, [7, 8, 9, 10]), header=True
  )
  clip = readers.read(path, frame_size=(720, 1280))
  assert (clip.layout, clip.frame_size) == ("imigue35", (720, 1280))
  np.testing.assert_allclose(clip.keypoints[:, 0], keypoints, rtol=1e-5)


def test_frames_that_a_csv_leaves_out_are_all_zero(tmp_path):
  keypoints = pose(num_frames=3)
  clip = readers.read(write_csv(tmp_path / "a.csv", numbered(keypoints, [1, 2, 5])))
  assert clip.keypoints.any((1, 2, 3)).tolist() == [True, True, False, False, True]


def test_a_byte_order_mark_is_no_part_of_the_first_number(tmp_path):
  path = write_csv(tmp_path / "a.csv", pose().reshape(4, -1))
  path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
  assert len(readers.read(path).keypoints) == 4


def test_an_xlsx_of_411_columns_has_137_points(tmp_path):
  keypoints = pose(num_frames=3, num_joints=137)
  clip = readers.read(write_xlsx(tmp_path / "0001_2.xlsx", keypoints.reshape(3, -1).tolist()))
  assert clip.layout == "openpose137"
  np.testing.assert_allclose(clip.keypoints[:, 0], keypoints, rtol=1e-5)


@pytest.mark.parametrize("names", [["frame", *"abc"], ["", 0.0, 1.0, 2.0], [0.0, 1.0, 2.0, 3.0]])
def test_an_xlsx_may_have_a_header(tmp_path, names):
  path = write_xlsx(tmp_path / "one.xlsx", [names, *([i, 10, 20, 1] for i in range(3))])
  layout = topology.Skeleton("dot", ("dot",), (0,), (), ())
  assert readers.read(path, layout=layout).keypoints.tolist() == [[[[10, 20, 1]]]] * 3


def test_an_error_of_a_csv_counts_rows_from_one(tmp_path):
  path = tmp_path / "one.csv"
  path.write_text("1,2,1\n1,x,1\n")
  with pytest.raises(DataError, match="row 2, column 2: expected a number, got 'x'"):
    readers.read(path, layout="coco17")
  path.write_text("x,y,score\n1,2,1\n1,2\n")
  with pytest.raises(DataError, match="from 3 to 2 at row 3"):
    readers.read(path, layout="coco17")


@pytest.mark.parametrize("header", ["frame,x0,y0,score", ",0,1,2", "0,1,2,3", "frame,1,2,3", None])
def test_a_first_line_is_a_header_or_data(tmp_path, header):
  count = 18
  names = header and header + "".join(f",{header[-1]}{i}" for i in range(3, 3 * count))
  if header and header[-1].isdecimal():  # numbered to the end
    first = int(header[-1]) + 1
    names = ",".join([header, *map(str, range(first, first + 3 * count - 3))])
  rows = np.concatenate([np.arange(2)[:, None], pose(2, count).reshape(2, -1)], 1)
  text = "\n".join(",".join(map(str, row)) for row in rows)
  (tmp_path / "clip.csv").write_text(f"{names}\n{text}" if names else text)
  assert len(readers.read(tmp_path / "clip.csv").keypoints) == 2


@pytest.mark.parametrize("damaged", ["", "1O"])
def test_a_damaged_first_line_is_no_header(tmp_path, damaged):
  rows = [["0.5"] * 54 for _ in range(3)]
  rows[0][0] = damaged
  (tmp_path / "clip.csv").write_text("\n".join(map(",".join, rows)))
  with pytest.raises(DataError, match=r"expected a number, got|an empty cell, where 0 is"):
    readers.read(tmp_path / "clip.csv")


@pytest.mark.parametrize("cell", ["N/A", "null", "l"])
def test_a_first_frame_with_a_damaged_first_cell_is_no_header(tmp_path, cell):
  lines = [",".join(["1"] * 51)] * 3
  lines[0] = cell + lines[0][1:]
  (tmp_path / "x.csv").write_text("\n".join(lines))
  with pytest.raises(DataError, match=r"x\.csv: row 1, column 1: expected a number, got"):
    readers.read(tmp_path / "x.csv")


def test_an_empty_line_among_the_frames_is_refused_and_at_the_end_is_none(tmp_path):
  line = ",".join(f"{20 + 3 * v},{30 + v},1" for v in range(17))
  (tmp_path / "x.csv").write_text(f"{line}\n{line}\n\n \n")
  assert len(readers.read(tmp_path / "x.csv").keypoints) == 2
  (tmp_path / "x.csv").write_text(f"{line}\n\n{line}\n")
  with pytest.raises(DataError, match=r"x\.csv: row 2: expected a frame, got an empty line"):
    readers.read(tmp_path / "x.csv")


# --- which columns are what

KEYPOINTS = pose(num_frames=5, num_joints=17)
NUMBERED = np.concatenate([np.arange(5)[:, None], KEYPOINTS.reshape(5, -1)], 1)
NAMES = [f"joint {v}_{role}" for v in range(17) for role in ("x", "y", "score")]
AS_COCO = "read as 5 frames of 1 person, 17 joints (coco17 assumed), pixels"


def text(rows, names=(), *, sep=",", quote="", point="."):
  lines = [sep.join(f"{value:g}" for value in row).replace(".", point) for row in rows]
  header = [sep.join(f"{quote}{name}{quote}" for name in names)] * bool(names)
  return "\n".join([*header, *lines])


def read(folder, content, **told):
  (folder / "a.csv").write_text(content)
  return readers.read(folder / "a.csv", **told)


def by_role(roles, points=KEYPOINTS):
  """Names and columns with all values of a role before those of the next one."""
  names = [f"{role}{v}" for role in roles for v in range(points.shape[1])]
  columns = points[..., [{"x": 0, "y": 1}.get(role, 2) for role in roles]]
  return columns.swapaxes(1, 2).reshape(len(points), -1), names


@pytest.mark.parametrize(
  "content",
  [
    text(NUMBERED, ["", *NAMES]),
    text(NUMBERED, ["", *NAMES], quote='"'),
    text(NUMBERED, ["", *map(str, range(51))]),
    text(NUMBERED + np.eye(1, 52) * 7),  # the numbers begin at 7
    text(KEYPOINTS.reshape(5, -1), sep=";", point=","),
    text(NUMBERED, ["frame", *NAMES], sep=";", quote='"', point=","),
    text(NUMBERED, ["frame", *NAMES], sep="\t", point=","),
    text(*by_role(["x", "y", "conf"])),
    text(*by_role(["likelihood", "y", "x"])),
  ],
  ids=["index", "quoted", "numbers", "from 7", ";", "; and all", "tabs", "blocks", "score first"],
)
def test_a_table_is_read_however_its_cells_are_written(tmp_path, content):
  clip = read(tmp_path, content)
  np.testing.assert_allclose(clip.keypoints[:, 0], KEYPOINTS, rtol=1e-5)
  assert str(clip.guess) == AS_COCO


@pytest.mark.parametrize(
  ("columns", "layout"),
  [
    (34, "coco17"),
    (35, "coco17"),  # of which one counts the frames
    (50, "openpose25"),
    (51, "openpose25"),
    (66, "mediapipe33"),
    (67, "mediapipe33"),
    (274, "openpose137"),
  ],
)
def test_x_and_y_may_come_without_scores(tmp_path, columns, layout):
  points = pose(num_joints=columns // 2)[..., :2]
  rows = points.reshape(4, -1)
  if columns % 2:
    rows = np.concatenate([np.arange(4)[:, None], rows], 1)
  clip = read(tmp_path, text(rows))
  assert (clip.layout, clip.guess.units) == (layout, "pixels")
  np.testing.assert_allclose(clip.keypoints[:, 0, :, :2], points, rtol=1e-5)
  assert (clip.keypoints[..., 2] == 1).all()


def test_names_may_say_that_there_are_no_scores(tmp_path):
  for roles in (["x", "y"], ["y", "x"]):
    keypoints = read(tmp_path, text(*by_role(roles))).keypoints[:, 0]
    np.testing.assert_allclose(keypoints[..., :2], KEYPOINTS[..., :2], rtol=1e-5)
    assert (keypoints[..., 2] == 1).all()


@pytest.mark.parametrize(("num_joints", "layout"), [(17, "coco17"), (22, "imigue22")])
def test_scores_are_told_from_pixels_where_the_number_of_columns_does_not(
  tmp_path, num_joints, layout
):
  keypoints = pose(num_joints=num_joints)  # 51 and 66 columns: as many as 1 + 25 x 2 and 33 x 2
  clip = read(tmp_path, text(keypoints.reshape(4, -1)))
  assert clip.layout == layout
  np.testing.assert_allclose(clip.keypoints[:, 0], keypoints, rtol=1e-5)


def test_an_x_that_counts_up_is_no_frame_number(tmp_path):
  keypoints = pose(num_joints=17).round(2)
  keypoints[:, 0, 0] = 320, 321, 322, 323
  for rows in (keypoints, keypoints[:1]):
    clip = read(tmp_path, text(rows.reshape(len(rows), -1)))
    assert clip.layout == "coco17"
    np.testing.assert_allclose(clip.keypoints[:, 0], rows, rtol=1e-5)


def test_names_may_say_that_the_numbers_are_metres(tmp_path):
  joints = np.random.default_rng(0).uniform((-1, -1, 2), (1, 1, 3), (4, 25, 3)).round(3)
  names = [f"joint {v}.{axis}" for v in range(25) for axis in "xyz"]
  clip = read(tmp_path, text(joints.reshape(4, -1), names))
  np.testing.assert_allclose(clip.joints3d[:, 0], joints, rtol=1e-5)
  assert str(clip.guess) == "read as 4 frames of 1 person, 25 joints (kinect25 assumed), metres"
  unnamed = read(tmp_path, text(joints.reshape(4, -1)))
  np.testing.assert_array_equal(unnamed.joints3d, clip.joints3d)
  assert str(unnamed.guess) == f"{clip.guess} assumed"


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (
      "scorer,net,net,net\nbodyparts,nose,nose,nose\ncoords,x,y,likelihood\n0,1,2,0.9\n",
      r"expected one header, got DeepLabCut's \(keep x, y, likelihood of each body part, drop",
    ),
    (
      text(np.full((2, 8), 0.5), [f"{role}{v}" for v in (0, 1) for role in ("x", "y", "z", "v")]),
      r"got 2 of x, 2 of y, 2 of z, 2 of visibility \(MediaPipe's z is no depth in metres",
    ),
    (text(np.full((2, 3), 0.5), ["x0", "y0", "x1"]), "as many x, y and scores, .*got 2 of x, 1 of"),
    (text(NUMBERED / 25), r"column 1: expected frame numbers that rise"),  # seconds
  ],
)
def test_what_other_columns_are_is_not_guessed(tmp_path, content, message):
  with pytest.raises(DataError, match=rf"a\.csv: .*{message}"):
    read(tmp_path, content)


def test_normalised_coordinates_are_refused_though_one_of_them_is_above_1(tmp_path):
  keypoints = pose(num_frames=30, num_joints=17) / (1280, 720, 1)
  keypoints[5, 15, 1] = 1.2  # a foot below the picture
  with pytest.raises(DataError, match=r"expected pixels or metres, .*\(normalised\? multiply x by"):
    read(tmp_path, text(keypoints.reshape(30, -1)))
  without = text(keypoints[..., :2].reshape(30, -1))
  with pytest.raises(DataError, match=r"expected pixels, got a body of 0\.\d+ \(normalised\?"):
    read(tmp_path, without)


def test_two_frames_far_apart_are_refused_before_they_take_memory(tmp_path):
  content = text(numbered(pose(num_frames=2, num_joints=137), [0, 999_999]))
  tracemalloc.start()
  with pytest.raises(DataError, match=r"1 % of the frames, or more, got 2 of 1000000$"):
    read(tmp_path, content)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 2 << 20


@pytest.mark.parametrize("block", [False, True])
@pytest.mark.parametrize("form", ["{joint}_{role}", "{role}_{joint}"])
def test_names_of_joints_say_which_is_which(tmp_path, form, block):
  joints = topology.get("coco17").joints
  keypoints = pose(num_joints=17)
  order = np.random.default_rng(1).permutation(17)
  places = [(v, role) for v in order for role in range(3)]
  if block:
    places = [(v, role) for role in range(3) for v in order]
  names = [form.format(joint=joints[v], role=("x", "y", "score")[role]) for v, role in places]
  table = np.stack([keypoints[:, v, role] for v, role in places], 1)
  clip = read(tmp_path, text(table, names))
  np.testing.assert_allclose(clip.keypoints[:, 0], keypoints, rtol=1e-5)
  assert str(clip.guess) == "read as 4 frames of 1 person, 17 joints (coco17), pixels"


def test_numbers_of_joints_are_no_texts(tmp_path):
  keypoints = pose(num_joints=17)
  order = sorted(range(17), key=str)  # 0, 1, 10, 11, ...
  names = [f"{role}{v}" for v in order for role in ("x", "y", "score")]
  clip = read(tmp_path, text(keypoints[:, order].reshape(4, -1), names))
  np.testing.assert_allclose(clip.keypoints[:, 0], keypoints, rtol=1e-5)


@pytest.mark.parametrize(
  ("edit", "message"),
  [
    (lambda names: ["frame", "person_id", *names], "got 'person_id', column 2"),
    (lambda names: ["frame", *names, "label"], "got 'label', column 36"),
    (lambda names: [*names[:2][::-1], *names[2:-2], "foo_x", "foo_y"], None),
    (lambda names: [*names[2:4], *names[:2], *names[4:-2], "foo_x", "foo_y"], "got left_eye as"),
  ],
)
def test_a_header_is_understood_or_refused(tmp_path, edit, message):
  joints = topology.get("coco17").joints
  names = edit([f"{joint}_{role}" for joint in joints for role in "xy"])
  table = pose(num_joints=17)[..., :2].reshape(4, -1)
  extra = np.arange(4)[:, None]
  table = np.concatenate([*[extra] * (names[0] == "frame"), table], 1)
  table = np.concatenate([table, *[extra] * (len(names) - table.shape[1])], 1)
  if message is None:
    assert "names are not known" in str(read(tmp_path, text(table, names)).guess)
    return
  with pytest.raises(DataError, match=message):
    read(tmp_path, text(table, names))


def test_frames_that_are_left_out_are_said(tmp_path):
  table = numbered(pose(num_joints=17), [0, 5, 10, 15])
  assert "read as 16 frames" in str(read(tmp_path, text(table)).guess)
  assert "4 of the frames are there" in str(read(tmp_path, text(table)).guess)
