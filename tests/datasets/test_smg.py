"""SMG: files in its formats, all made here, -> a prepared directory."""

import pathlib
import sys

import numpy as np
import pytest

from experiments import evaluate, launch, posec3d
from jaxmg import recipe
from jaxmg.data import prepared, readers, source
from jaxmg.errors import DataError
from jaxmg.skeletons import topology

# Samples 1 and 35 train, 36 tests.
LABELS = {1: "3,1,10\n17,6,15\n3,21,30\n", 35: "1,1,5\n", 36: "16,30,30\n2,4,8\n"}
NUM_FRAMES = 30


def values(sample):
  """float64[T, 25, 11]: metres, quaternion, pixels of the colour image, two more."""
  rng = np.random.default_rng(sample)
  low = [-1, -1, 1.5, -1, -1, -1, -1, 0, 0, 0, 0]
  high = [1, 1, 3, 1, 1, 1, 1, 1920, 1080, 2, 2]
  return rng.uniform(low, high, (NUM_FRAMES, 25, 11)).round(4)


def write_skeleton(raw, sample, array):
  path = raw / f"Sample{sample:04d}" / f"Sample{sample:04d}_skeleton.csv"
  path.write_text("".join(",".join(f"{x:g}" for x in row.ravel()) + "\n" for row in array))
  return path


@pytest.fixture
def raw(tmp_path):
  raw = tmp_path / "raw"
  for sample, lines in LABELS.items():
    name = f"Sample{sample:04d}"
    (raw / name).mkdir(parents=True)
    (raw / name / f"{name}_finelabels.csv").write_text(lines)
    (raw / name / f"{name}_data.csv").write_text(f"{NUM_FRAMES},28,8000\n")
    write_skeleton(raw, sample, values(sample))
  return raw


@pytest.fixture
def smg(prepare):
  return sys.modules[prepare.load("smg").__module__]


def write(prepare, raw):
  return source.Source(prepared.write(prepare.load("smg"), raw=raw, data_dir=raw.parent / "data"))


def notes(data):
  absent = "subjects to train on have no clip"  # these files are few of the data set's
  return [note for note in data.track("pose").notes if absent not in note]


def test_clips_are_the_lines_of_the_label_files(prepare, raw):
  data = write(prepare, raw)
  assert data.ids == ("0001_0", "0001_1", "0001_2", "0035_0", "0036_0", "0036_1")
  assert data.labels.tolist() == [2, 16, 2, 0, 15, 1]
  assert data.subjects.tolist() == ["1"] * 3 + ["35"] + ["36"] * 2
  assert data.recordings.tolist() == ["0001"] * 3 + ["0035"] + ["0036"] * 2
  assert data.track("pose").num_frames.tolist() == [10, 10, 10, 5, 1, 5]
  pose = data.track("pose").kind
  assert (str(pose), pose.frame_size, pose.fps) == ("kinect25", (1080, 1920), 28)
  assert (pose.joints3d, data.mirror, notes(data)) == (True, True, [])


def test_subjects_36_to_40_test(prepare, raw):
  data = write(prepare, raw)
  assert data.rows("train").tolist() == [0, 1, 2, 3]
  assert data.rows("test").tolist() == [4, 5]
  split = prepare.load("smg").protocols["xsub"]
  sides = [split({"subject": str(subject)}) for subject in range(1, 41)]
  assert sides == ["train"] * 35 + ["test"] * 5


def test_frames_count_from_one_and_ends_are_inclusive(prepare, raw):
  record = write(prepare, raw).track("pose")[1]
  np.testing.assert_allclose(record["joints3d"][:, 0], values(1)[5:15, :, :3], rtol=1e-4)
  np.testing.assert_allclose(record["keypoints"][:, 0, :, :2], values(1)[5:15, :, 7:9], rtol=1e-4)
  assert (record["keypoints"][..., 2] == 1).all()


def test_joints_of_zeros_are_absent(raw):
  array = values(1)
  array[0, 3] = 0  # neither metres nor pixels
  array[1, 4, 7:9] = 0
  array[2, 5, :3] = 0
  clip = readers.read(write_skeleton(raw, 1, array))
  absent = [tuple(place) for place in np.argwhere(clip.keypoints[:, 0, :, 2] == 0)]
  assert absent == [(0, 3), (1, 4), (2, 5)]
  assert not clip.keypoints[0, 0, 3].any()
  assert clip.joints3d[:3, 0, [3, 4, 5]].any(-1).diagonal().tolist() == [False, True, False]


def test_there_are_17_classes_with_short_names_and_groups(prepare, raw):
  builder = prepare.load("smg")
  assert len(set(builder.class_names)) == len(set(builder.class_short_names)) == 17
  assert builder.class_names[16] == "illustrative hand gestures"
  data = write(prepare, raw)
  assert (data.class_short_names[7], data.class_groups[7]) == ("rub hand", "hand")


def test_recipe_a_runs_on_it_unchanged(prepare, raw):
  lines = "".join(f"{k},{k},{k + 9}\n" for k in range(1, 11))
  (raw / "Sample0001" / "Sample0001_finelabels.csv").write_text(lines)
  write(prepare, raw)
  small = {
    "data.dir": raw.parent / "data",
    "model.variant": "tiny",
    "inputs.size": 16,
    "sampling.test_size": 16,
    "train.batch_size": 8,
    "schedule.epochs": 1,
  }
  config = pathlib.Path(posec3d.__file__).parent / "configs" / "posec3d.py"
  workdir = raw.parent / "run"
  command = [f"--config={config}:smg,recipe_a_limb,small", f"--workdir={workdir}"]
  command += [f"--config.{key}={value}" for key, value in small.items()]
  assert launch.main(posec3d.run, command) == 0
  assert launch.command(evaluate.run, evaluate.define, [f"--run={workdir}"]) == 0
  found = recipe.load(workdir)
  one = found.inputs["pose"]
  assert (one.skeleton.name, one.sampling) == ("kinect25", "interpolate")
  assert found.model["embedding_size"] == 300


def test_gestures_that_imigue_has_too_are_called_and_grouped_as_there(prepare):
  smg, imigue = (
    dict(zip(builder.class_short_names, builder.class_groups, strict=True))
    for builder in (prepare.load("smg"), prepare.load("imigue"))
  )
  shared = smg.keys() & imigue.keys()
  assert len(shared) == 12
  assert {name: smg[name] for name in shared} == {name: imigue[name] for name in shared}


def test_the_columns_are_those_of_kinect_v2(tmp_path):
  path = tmp_path / "recording.csv"
  row = np.arange(1000.0, 1275).reshape(25, 11)
  row[:, :3] /= 1000  # metres
  path.write_text(",".join(map(str, row.ravel())) + "\n")
  clip = readers.read(path)
  head = topology.get("kinect25").joints.index("head")
  assert clip.joints3d[0, 0, head].tolist() == np.float32([1.033, 1.034, 1.035]).tolist()
  assert clip.keypoints[0, 0, head].tolist() == [1040, 1041, 1]


def test_another_csv_file_is_no_skeleton_of_smg(prepare, raw):
  row = ",".join(f"{5 * v},{50 - v},1" for v in range(25))
  (raw / "Sample0001" / "Sample0001_skeleton.csv").write_text(row)
  with pytest.raises(
    DataError, match=r"_skeleton.csv: expected 275 columns, got 25 key points without"
  ):
    write(prepare, raw)


def test_files_may_lie_in_any_folder(prepare, raw):
  (raw / "smg_skeleton_validate").mkdir()
  (raw / "Sample0036").rename(raw / "smg_skeleton_validate" / "Sample0036")
  assert len(write(prepare, raw)) == 6


def test_clips_outside_their_file_are_cut_or_left_out_and_noted(prepare, raw):
  (raw / "Sample0001" / "Sample0001_finelabels.csv").write_text("3,0,9\n4,29,33\n5,31,40\n6,2,3\n")
  data = write(prepare, raw)
  assert data.ids[:3] == ("0001_0", "0001_1", "0001_3")
  assert data.track("pose").num_frames[:3].tolist() == [9, 2, 2]
  assert notes(data) == [
    "clip 0001_0 is cut to 9 of 10 frames by its file",
    "clip 0001_1 is cut to 2 of 5 frames by its file",
    "clip 0001_2 lies outside its file and is left out",
  ]


def test_samples_that_lack_a_file_are_left_out_and_noted(prepare, raw):
  (raw / "Sample0001" / "Sample0001_finelabels.csv").unlink()
  (raw / "Sample0035" / "Sample0035_skeleton.csv").unlink()
  data = write(prepare, raw)
  assert data.ids == ("0036_0", "0036_1")
  assert notes(data) == [
    "sample 0001 has no labels and is left out",
    "sample 0035 has no skeleton file and is left out",
  ]


def test_what_the_data_files_say_may_differ_or_be_absent(prepare, raw):
  (raw / "Sample0001" / "Sample0001_data.csv").write_text("31,28,8000\n")
  (raw / "Sample0035" / "Sample0035_data.csv").write_text("30,30,8000\n")
  (raw / "Sample0036" / "Sample0036_data.csv").unlink()
  data = write(prepare, raw)
  assert data.track("pose").kind.fps is None
  assert notes(data) == ["sample 0001 has 30 of 31 frames"]


def test_pixels_of_the_depth_image_are_noted(prepare, raw):
  array = values(35)
  array[..., 7:9] *= 0.25
  write_skeleton(raw, 35, array)
  data = write(prepare, raw)
  assert notes(data) == ["sample 0035 lies within 512 x 424: pixels of the depth image?"]


def test_a_folder_without_samples_is_refused(prepare, raw):
  for path in raw.rglob("*_finelabels.csv"):
    path.unlink()
  with pytest.raises(
    DataError, match=r"expected Sample0001/Sample0001_skeleton\.csv with Sample00"
  ):
    write(prepare, raw)


def test_a_sample_that_smg_does_not_have_is_refused(prepare, raw):
  for path in list((raw / "Sample0036").iterdir()):
    path.rename(path.with_name(path.name.replace("36", "41")))
  with pytest.raises(DataError, match=r"Sample0041_skeleton.csv: expected samples 1 to 40, got 41"):
    write(prepare, raw)


def line(column=None, cell="0.5", count=275):
  cells = ["0.5"] * count
  if column is not None:
    cells[column - 1] = cell
  return ",".join(cells) + "\n"


@pytest.mark.parametrize(
  ("content", "expected"),
  [
    (line() + line(count=274), "columns changed from 275 to 274 at row 2"),
    (
      line(count=276),
      "columns: expected 2 or 3 for each joint of a layout, with or without a frame",
    ),
    (line() + line(12, "nan"), "joints3d: frame 1, person 0, joint 1, axis 0"),
    (line(9, "-inf"), "keypoints: frame 0, person 0, joint 0, axis 1"),
    (line(1, "1e39"), "joints3d: frame 0, person 0, joint 0, axis 0"),
    (line(1, "x") + line(), "row 1, column 1: expected a number, got 'x'"),
    (line(3, "x"), "row 1, column 3: expected a number, got 'x'"),
    (line(8, ""), "an empty cell, where 0 is absent, at row 1, column 8"),
    (line(8, "1e10"), ": keypoints: frame 0, person 0, joint 0, axis 0: expected at most 1e9"),
    (line(), ": coordinates: expected pixels, got a body of 0 (normalised?"),
    ("", "the table: expected at least one frame, got none"),
    (b"\xff\n", "utf-8"),
  ],
)
def test_a_faulty_skeleton_is_named_by_its_place(tmp_path, content, expected):
  path = tmp_path / "Sample0001_skeleton.csv"
  path.write_bytes(content if isinstance(content, bytes) else content.encode())
  with pytest.raises(DataError) as caught:
    readers.read(path)
  assert str(caught.value).startswith(str(path))
  assert expected in str(caught.value)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("content", "expected"),
  [
    ("1,10,35\n18,10,35\n", ":2: class: expected 1 to 17, got 18"),
    ("0,10,35\n", ":1: class: expected 1 to 17, got 0"),
    ("1,35,10\n", ":1: frames: expected 0 <= start <= end, got 35 to 10"),
    ("1,-1,10\n", ":1: frames: expected 0 <= start <= end, got -1 to 10"),
    ("1,10\n", ":1: expected 3 columns, got 2"),
    ("1,10,x\n", ":1: end_frame: expected an integer, got 'x'"),
    ("1,10,2.5\n", ":1: end_frame: expected an integer, got '2.5'"),
  ],
)
def test_a_faulty_label_is_named_by_line_and_field(smg, tmp_path, content, expected):
  path = tmp_path / "Sample0001_finelabels.csv"
  path.write_text(content)
  with pytest.raises(DataError) as caught:
    smg.read_labels(path)
  assert str(caught.value) == f"{path}{expected}"


@pytest.mark.parametrize(
  ("content", "expected"),
  [
    ("", ": expected one line, got 0"),
    ("30,28,8000\n30,28,8000\n", ": expected one line, got 2"),
    ("30,28\n", ":1: expected 3 columns, got 2"),
    ("30,x,8000\n", ":1: fps: expected an integer, got 'x'"),
    ("30,0,8000\n", ":1: fps: expected 1 or more, got 0"),
  ],
)
def test_a_faulty_data_file_is_named_by_line_and_field(smg, tmp_path, content, expected):
  path = tmp_path / "Sample0001_data.csv"
  path.write_text(content)
  with pytest.raises(DataError) as caught:
    smg.read_data(path)
  assert str(caught.value) == f"{path}{expected}"
