"""Raw files -> key points."""

import dataclasses
import json
import os
import sys

import numpy as np
import pytest
import scipy.io
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


def save(path, array):
  np.save(path, array)
  return path


def numbered(keypoints, numbers):
  return np.concatenate([np.array(numbers)[:, None], keypoints.reshape(len(keypoints), -1)], 1)


def write_openpose(folder, frames, *, start=0):
  """`frames`: per frame a list of persons, each a dict of part -> array."""
  folder.mkdir(exist_ok=True)
  for number, persons in enumerate(frames, start):
    people = [
      {f"{part}_keypoints_2d": np.ravel(values).tolist() for part, values in person.items()}
      for person in persons
    ]
    file = folder / f"take_{number:012d}_keypoints.json"
    file.write_text(json.dumps({"version": 1.3, "people": people}))
  return folder


# --- tables


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


# --- arrays


@pytest.mark.parametrize("names", [["frame", *"abc"], ["", 0.0, 1.0, 2.0], [0.0, 1.0, 2.0, 3.0]])
def test_an_xlsx_may_have_a_header(tmp_path, names):
  path = write_xlsx(tmp_path / "one.xlsx", [names, *([i, 10, 20, 1] for i in range(3))])
  layout = topology.Skeleton("dot", ("dot",), (0,), (), ())
  assert readers.read(path, layout=layout).keypoints.tolist() == [[[[10, 20, 1]]]] * 3


def test_a_pipe_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / "one.csv")
  with pytest.raises(DataError, match=r"one\.csv: expected a file or a folder, got a pipe"):
    readers.read(tmp_path / "one.csv")


def test_an_error_of_a_csv_counts_rows_from_one(tmp_path):
  path = tmp_path / "one.csv"
  path.write_text("1,2,1\n1,x,1\n")
  with pytest.raises(DataError, match="'x' to float64 at row 2, column 2"):
    readers.read(path, layout="coco17")
  path.write_text("x,y,score\n1,2,1\n1,2\n")
  with pytest.raises(DataError, match=r"from 3 to 2 at row 2 \(not counting the header\)"):
    readers.read(path, layout="coco17")


def test_a_clip_is_cut_in_both_kinds_of_points(tmp_path):
  keypoints = np.random.default_rng(0).uniform(1, 9, (5, 1, 20, 3))
  keypoints[..., 2] = 1
  clip = readers.Clip(keypoints, "kinect20", (240, 320), keypoints)
  part = clip.cut(1, 3)
  assert part.keypoints.tolist() == clip.keypoints[1:4].tolist()
  assert part.joints3d.tolist() == clip.joints3d[1:4].tolist()
  assert part.frame_size == (240, 320)
  for first, last in ((-1, 3), (3, 2), (2, 5)):
    with pytest.raises(DataError, match="a first and a last one from 0 to 4"):
      clip.cut(first, last)


def test_npy_may_leave_out_the_persons_axis(tmp_path):
  keypoints = pose(num_joints=17)
  one = readers.read(save(tmp_path / "one.npy", keypoints))
  many = readers.read(save(tmp_path / "many.npy", np.stack([keypoints] * 2, 1)))
  np.testing.assert_array_equal(one.keypoints, np.float32(keypoints[:, None]))
  assert (many.keypoints.shape, many.layout) == ((4, 2, 17, 3), "coco17")


@pytest.mark.parametrize(
  "convert",
  [
    lambda array: array.astype(">f4"),
    lambda array: array.astype(np.float64),
    np.asfortranarray,
  ],
  ids=["big-endian", "float64", "column-major"],
)
def test_numbers_may_lie_in_a_file_in_any_way(tmp_path, convert):
  keypoints = np.float32(pose())
  clip = readers.read(save(tmp_path / "a.npy", convert(keypoints)))
  np.testing.assert_array_equal(clip.keypoints[:, 0], keypoints)
  assert clip.keypoints.dtype == np.float32


def test_whole_numbers_and_half_precision_are_taken(tmp_path):
  keypoints = pose().round()
  keypoints[..., 2] = 1
  for dtype in (np.int16, np.uint16, np.float16):
    clip = readers.read(save(tmp_path / "a.npy", keypoints.astype(dtype)))
    np.testing.assert_array_equal(clip.keypoints[:, 0, 0], keypoints.astype(dtype)[:, 0])


def test_organisers_npy_is_channels_first_and_loses_its_padding(tmp_path):
  keypoints = np.zeros((90, 22, 3))
  keypoints[:5] = pose(5, 22)
  clip = readers.read(save(tmp_path / "a.npy", keypoints.transpose(2, 0, 1)[..., None]))
  assert clip.layout == "imigue22"
  np.testing.assert_array_equal(clip.keypoints, np.float32(keypoints[:5, None]))


def test_utd_mhad_is_read_in_3d_and_as_the_view_of_its_camera(tmp_path):
  joints = np.random.default_rng(0).uniform((-1, -1, 2), (1, 1, 4), (6, 20, 3))
  scipy.io.savemat(tmp_path / "a.mat", {"d_skel": joints.transpose(1, 2, 0)})
  clip = readers.read(tmp_path / "a.mat")
  assert (clip.layout, clip.frame_size) == ("kinect20", (240, 320))
  np.testing.assert_array_equal(clip.joints3d[:, 0], np.float32(joints))
  x, y, z = np.moveaxis(joints, -1, 0)
  u, v, score = np.moveaxis(clip.keypoints[:, 0], -1, 0)
  np.testing.assert_allclose(u, 160 + 285.63 * x / z, rtol=1e-6)
  np.testing.assert_allclose(v, 120 - 285.63 * y / z, rtol=1e-6)
  assert (score == 1).all()


def test_a_joint_behind_the_camera_is_absent_from_its_view():
  view = readers.depth_view(np.full((1, 1, 1, 3), -1.0))
  np.testing.assert_array_equal(view, np.zeros((1, 1, 1, 3)))


# --- OpenPose


@pytest.mark.parametrize(("num_joints", "layout"), [(18, "openpose18"), (25, "openpose25")])
def test_openpose_folder_of_bodies(tmp_path, num_joints, layout):
  keypoints = pose(num_joints=num_joints)
  clip = readers.read(write_openpose(tmp_path / "a", [[{"pose": body}] for body in keypoints]))
  assert clip.layout == layout
  np.testing.assert_array_equal(clip.keypoints[:, 0], np.float32(keypoints))


def test_openpose_with_face_and_hands_has_137_points_in_order(tmp_path):
  keypoints = pose(num_joints=137)
  parts = ("pose", "face", "hand_left", "hand_right")
  frames = [[dict(zip(parts, np.split(frame, [25, 95, 116]), strict=True))] for frame in keypoints]
  folder = write_openpose(tmp_path / "a", frames, start=1)
  np.testing.assert_array_equal(readers.read(folder).keypoints[:, 0], np.float32(keypoints))
  assert readers.read(folder, layout="openpose25").keypoints.shape == (4, 1, 25, 3)


def test_the_order_of_openpose_people_plays_no_part(tmp_path):
  first, second = pose(seed=1), pose(seed=2)
  frames = [[{"pose": a}, {"pose": b}] for a, b in zip(first, second, strict=True)]
  one = readers.read(write_openpose(tmp_path / "one", [*frames, []]))
  other = readers.read(write_openpose(tmp_path / "other", [*(f[::-1] for f in frames), []]))
  assert one.keypoints.shape == (5, 2, 25, 3)
  assert not one.keypoints[-1].any()
  np.testing.assert_array_equal(one.keypoints, other.keypoints)


# --- the clip


def test_an_absent_joint_is_all_zero():
  keypoints = pose()[:, None]
  keypoints[0, 0, 3, 2] = 0  # no score
  keypoints[1, 0, 5, :2] = 0  # at the origin
  cleaned = readers.Clip(keypoints, "openpose25").keypoints
  absent = ~cleaned.any(-1)
  assert np.argwhere(absent).tolist() == [[0, 0, 3], [1, 0, 5]]


def test_a_score_a_little_above_one_becomes_one():
  keypoints = pose()[:, None]
  keypoints[0, 0, 0, 2] = 1.05
  assert readers.Clip(keypoints, "openpose25").keypoints[0, 0, 0, 2] == 1


def test_a_clip_does_not_share_memory_with_its_source():
  keypoints = np.float32(pose()[:, None])
  clip = readers.Clip(keypoints, "openpose25")
  keypoints[:] = -1
  assert clip.keypoints.min() > 0


def _bytes(path, content):
  path.write_bytes(content)
  return path


def test_a_missing_package_says_what_to_install(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "python_calamine", None)
  with pytest.raises(DataError, match=r"needs python_calamine \(pip install 'jaxmg\[prepare\]'\)"):
    readers.read(_bytes(tmp_path / "a.xlsx", b""))


@pytest.mark.parametrize("header", ["frame,x0,y0,score", ",0,1,2", "0,1,2,3", "frame,1,2,3", None])
def test_a_first_line_is_a_header_or_data(tmp_path, header):
  count = 18
  names = header and header + "".join(f",{header[-1]}{i}" for i in range(3, 3 * count))
  if header and header[-1].isdecimal():  # numbered to the end
    first = int(header[-1]) + 1
    names = ",".join([header, *map(str, range(first, first + 3 * count - 3))])
  rows = np.concatenate([np.arange(2)[:, None], np.full((2, 3 * count), 1.1)], 1)
  text = "\n".join(",".join(map(str, row)) for row in rows)
  (tmp_path / "clip.csv").write_text(f"{names}\n{text}" if names else text)
  assert len(readers.read(tmp_path / "clip.csv").keypoints) == 2


@pytest.mark.parametrize("damaged", ["", "1O"])
def test_a_damaged_first_line_is_no_header(tmp_path, damaged):
  rows = [["0.5"] * 54 for _ in range(3)]
  rows[0][0] = damaged
  (tmp_path / "clip.csv").write_text("\n".join(map(",".join, rows)))
  with pytest.raises(DataError, match="could not convert string"):
    readers.read(tmp_path / "clip.csv")


# --- layouts

DOT = {"name": "dot", "joints": ["dot"], "parents": [0], "limbs": [], "mirror_pairs": []}


def test_a_recording_may_have_a_layout_of_the_users_own(tmp_path):
  layout = tmp_path / "dot.json"
  layout.write_text(json.dumps(DOT))
  path = write_csv(tmp_path / "a.csv", pose(num_joints=1).reshape(4, -1))
  with pytest.raises(DataError, match=r"got 1 \(name the layout"):
    readers.read(path)
  clip = readers.read(path, layout=str(layout))
  assert clip.keypoints.shape == (4, 1, 1, 3)
  assert f"{clip.layout}" == "dot"
  assert dataclasses.replace(clip, frame_size=(2, 3)).layout == clip.layout


def test_the_number_of_joints_tells_a_layout_apart_by_dimension():
  assert readers.layout_of(25) == "openpose25"
  assert readers.layout_of(25, in_3d=True) == "kinect25"
  with pytest.raises(DataError, match=r"expected 20 \(kinect20\), 25 \(kinect25\), got 17"):
    readers.layout_of(17, in_3d=True)


@pytest.mark.parametrize(
  ("text", "message"),
  [
    ("{", "a.json: Expecting property name"),
    ("[" * 100_000, "a.json: .*recursion"),
    ('{"name": "a", "name": "b"}', "a.json: a key occurs twice"),
    (json.dumps(DOT | {"parents": [1], "limbs": [[0, 1]]}), "is not valid:; parents: .*; limb"),
    ("3", "a.json: skeleton: expected name, .* got int"),
  ],
)
def test_a_faulty_layout_is_one_line(tmp_path, text, message):
  (tmp_path / "a.json").write_text(text)
  with pytest.raises(DataError, match=message) as caught:
    readers.find_layout(str(tmp_path / "a.json"))
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize("cell", ["N/A", "null", "l"])
def test_a_first_frame_with_a_damaged_first_cell_is_no_header(tmp_path, cell):
  lines = [",".join(["1"] * 51)] * 3
  lines[0] = cell + lines[0][1:]
  (tmp_path / "x.csv").write_text("\n".join(lines))
  with pytest.raises(DataError, match=r"x\.csv: could not convert string .* at row 1, column 1"):
    readers.read(tmp_path / "x.csv")


def test_an_empty_line_among_the_frames_is_refused_and_at_the_end_is_none(tmp_path):
  line = ",".join(["20", "30", "1"] * 17)
  (tmp_path / "x.csv").write_text(f"{line}\n{line}\n\n \n")
  assert len(readers.read(tmp_path / "x.csv").keypoints) == 2
  (tmp_path / "x.csv").write_text(f"{line}\n\n{line}\n")
  with pytest.raises(DataError, match=r"x\.csv: row 2: expected a frame, got an empty line"):
    readers.read(tmp_path / "x.csv")
