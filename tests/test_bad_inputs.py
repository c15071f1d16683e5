"""What is wrong outside jaxmg: one line on stderr, an exit code, and nothing on disk changed.

Every row is one case, by its number in the project's list of bad inputs, run through the command
that meets it. Work directories (B11 to B15) are in experiments/test_launch.py, checkpoints (B76 to
B87) in training/, damaged videos (B62 to B66, B68) in data/, arrays in memory (B88, B90) in
test_shapes.py and test_predict.py.
"""

import functools
import hashlib
import json
import os
import pathlib
import shutil
import subprocess
import sys

import jaxtyping
import numpy as np
import pytest
import scipy.io
import xlsxwriter

from experiments import evaluate, launch, posec3d, predict
from experiments import workdir as workdirs
from jaxmg.data import prepared, readers, tracks

ROOT = pathlib.Path(__file__).parents[1]


class Sandbox:
  """A folder with a prepared data set in `data`, in which commands are given and refused."""

  def __init__(self, path, capsys, training, prepare, monkeypatch):
    self.path, self.data = path, path / "data"
    self._capsys, self._monkeypatch = capsys, monkeypatch
    self._training, self._prepare = training, prepare

  def train(self, *settings, workdir="run"):
    argv = self._training(self.path / workdir, *settings, data=self.data)
    return launch.main(posec3d.run, argv)

  def evaluate(self, *argv):
    return launch.command(evaluate.run, evaluate.define, argv)

  def predict(self, *argv):
    return launch.command(predict.run, predict.define, argv)

  def prepare(self, *argv, builder=None):
    if builder is not None:
      self._monkeypatch.setattr(self._prepare, "load", lambda name, track: builder)
    folders = [f"--manual_dir={self.path}", f"--data_dir={self.data}"]
    return self._prepare.main([argv[0], *folders, *argv[1:]])

  def refuses(self, command, code, message):
    """`command()` must return the code, print one line with the message, and change nothing."""
    before = self._files()
    assert command() == code
    error = self._capsys.readouterr().err
    assert error.startswith("jaxmg: error: ")
    assert error.count("\n") == 1
    assert message in error
    assert self._files() == before

  def _files(self):
    return {
      path: _hash(path)
      for path in self.path.rglob("*")
      if path.is_file() and path.name != "lock"  # which nobody holds
      if path != self.path / "run" / "config.json" or (self.path / "run" / "recipe.json").exists()
    }


def _hash(path):
  if path.stat().st_size > 1 << 26:
    return path.stat().st_mtime_ns
  return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(autouse=True)
def _as_for_users(monkeypatch):
  """Annotations are not executed: what they would find must be found without them."""
  monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


@pytest.fixture
def sandbox(tmp_path, nods, training, prepare, capsys, monkeypatch):
  shutil.copytree(nods, tmp_path / "data")
  return Sandbox(tmp_path, capsys, training, prepare, monkeypatch)


def rows(table):
  """One test per row, called by the row's number."""
  return pytest.mark.parametrize("row", [pytest.param(row[1:], id=row[0]) for row in table])


# --- settings and flags

CONFIG, WORKDIR = (
  f"--config={ROOT}/experiments/configs/posec3d.py:imigue,joint",
  "--workdir=none/run",
)


@pytest.mark.usefixtures("all_devices")
@rows(
  [
    ("B01", "model.varient=small", "did you mean --config.model.variant?"),
    ("B01", "batch_size=4", "did you mean --config.train.batch_size?"),
    ("B01", "modle.dropout=0", "did you mean --config.model.dropout?"),
    ("B01", "model.dropout.x=0", "--config.model.dropout.x: no such setting"),
    ("B01", "xyz=4", "--config.xyz: no such setting (settings: augment.bone_scale, "),
    ("B01", "model={}", "--config.model: no such setting"),
    (
      "B01",
      "model.variant=huge",
      "expected slowonly-r50 or slowonly-r50-346 or small or small-strided or tiny, got huge",
    ),
    ("B01", "model.name=posec4d", "--config.model.name: expected posec3d, got posec4d"),
    ("B01", "skeleton=coco71", "--config.skeleton: "),
    ("B01", "optimizer.name=sdg", "--config.optimizer.name: expected sgd or adamw, got sdg"),
    ("B01", "optimizer.decay=none", "expected all or kernels, got none"),
    ("B01", "schedule.name=cosin", "expected cosine or step, got cosin"),
    (
      "B01",
      "sampling.kind=random",
      "interpolate or linspace or linear or repeat or window, got random",
    ),
    ("B01", "inputs.stream=bone", "expected joint or limb, got bone"),
    ("B01", "train.dtype=float33", "expected float32 or bfloat16 or auto, got float33"),
    ("B01", "data.fold=1-4", '--config.data.fold: expected like "0/4", got 1-4'),
    ("B02", "train.batch_size=abc", "--config.train.batch_size=abc: "),
    ("B02", "train.batch_size=true", "'true'"),
    ("B02", "train.batch_size=1.5", "'1.5'"),
    ("B02", "optimizer.learning_rate=1e-3x", "'1e-3x'"),
    ("B02", "sampling.mirror=maybe", "--config.sampling.mirror=maybe: "),
    (
      "B02",
      "augment.crop_area=(0.5,)",
      "--config.augment.crop_area: expected 2 values, got (0.5,)",
    ),
    ("B03", "train.batch_size=0", "expected in [1, 1000000], got 0"),
    ("B03", "train.batch_size=-1", "got -1"),
    ("B03", "train.log_every=0", "expected in [1, 1000000], got 0"),
    ("B03", "model.dropout=1.5", "--config.model.dropout: expected in [0, 1), got 1.5"),
    ("B03", "sampling.num_frames=0", "--config.sampling.num_frames: expected in [1, 4096]"),
    ("B03", "sampling.num_persons=0", "--config.sampling.num_persons: expected in [1, 100]"),
    ("B03", "inputs.size=0", "--config.inputs.size: expected in [8, 1024], got 0"),
    (
      "B03",
      "augment.crop_area=(0.0,1.0)",
      "expected two numbers in (0, 1], the least first, got",
    ),
    ("B03", "schedule.epochs=1000000000", "--config.schedule.epochs: expected in [1, 1000000]"),
    ("B03", "optimizer.learning_rate=nan", "learning_rate: expected a finite number, got nan"),
    ("B03", "optimizer.learning_rate=inf", "learning_rate: expected a finite number, got inf"),
    ("B03", "optimizer.learning_rate=-1", "learning_rate: expected in [0, 1000], got -1"),
    ("B04", "train.batch_size=12", "expected a multiple of 8 devices, got 12 (nearest: 8 or 16)"),
  ]
)
def test_a_wrong_setting(sandbox, row):
  setting, message = row
  sandbox.refuses(lambda: sandbox.train(setting), 2, message)


@rows(
  [
    ("B01", ["--workdir=none/run"], "CONFIG[:ARGUMENT] is required"),
    ("B01", [CONFIG, "agcn:nods,joint"], "CONFIG: expected one, got "),
    ("B01", [CONFIG, "--wrkdir=none/run"], "Did you mean: workdir"),
    ("B01", ["--config=none.py", WORKDIR], "--config=none.py: expected a file, or "),
    ("B01", [f"--config={ROOT}/README.md", WORKDIR], "README.md: SyntaxError"),
    ("B01", [f"--config={ROOT}/Makefile", WORKDIR], "Makefile: "),
    (
      "B01",
      [f"--config={ROOT}/experiments/configs/posec3d.py:imigue,face", WORKDIR],
      "got 'imigue,face'",
    ),
    ("B02", [CONFIG, WORKDIR, "--config.model.dropout"], "Missing value for flag"),
    ("B02", [CONFIG, WORKDIR, "--config.model.dropout", "0"], "and 0 (a setting is --name=value)"),
    ("B02", [CONFIG, WORKDIR, "--debug=perhaps"], "--debug=perhaps"),
    ("B08", [CONFIG, WORKDIR, WORKDIR], "--workdir is given twice"),
    ("B08", [CONFIG, WORKDIR, *2 * ["--config.train.seed=1"]], "train.seed is given twice"),
    ("B14", [CONFIG, WORKDIR, "--distributed"], "JAX cannot start (JAX_PLATFORMS="),
  ]
)
def test_a_wrong_command_line_of_training(sandbox, row):
  argv, message = row
  sandbox.refuses(lambda: launch.main(posec3d.run, argv), 2, message)


@rows(
  [
    ("B10", "data/nods/1.0.0/index.json", "index.json: File exists"),
    ("B10", "data/nods/1.0.0/index.json/run", "index.json/run: Not a directory"),
    ("B10", "/proc/self", "/proc/"),
    ("B10", "/proc/run", "/proc/run: "),
  ]
)
def test_a_work_directory_that_cannot_be_written(sandbox, row):
  workdir, message = row
  sandbox.refuses(lambda: sandbox.train(workdir=workdir), 5, message)


# --- prepared data sets


@rows(
  [
    ("B16", ["data.name=none"], "data/none: expected a prepared data set"),
    ("B16", ["data.name=nods/1.0.0/index.json"], "got a file (jaxmg prepare"),
    ("B16", ["data.name=empty"], "got none (jaxmg prepare empty --manual_dir=RAW"),
    ("B20", ["data.protocol=xview"], "protocol: expected 'xsub', got 'xview'"),
    ("B20", ["data.fold=0/4"], "n from 2 to 3 training subjects, got 0/4"),
    ("B20", ["data.fold=3/3"], "i from 0 to n - 1"),
    ("B41", ["skeleton=kinect20"], "nods"),
    ("B04", ["train.batch_size=64"], "expected at least one batch of 64, got 18"),
  ]
)
def test_data_that_are_not_there(sandbox, row):
  settings, message = row
  (sandbox.data / "empty").mkdir()
  code = 2 if "skeleton" in settings[0] else 3
  sandbox.refuses(lambda: sandbox.train(*settings), code, message)


def put(value, *place):
  """An edit of the index: `put(1, "clips", "label", 0)`."""

  def edit(index):
    functools.reduce(lambda tree, name: tree[name], place[:-1], index)[place[-1]] = value

  return edit


def drop(*place):
  def edit(index):
    del functools.reduce(lambda tree, name: tree[name], place[:-1], index)[place[-1]]

  return edit


INDEX = "nods/1.0.0/index.json"
TRAIN, TEST = ("protocols", "xsub", "train"), ("protocols", "xsub", "test")


@rows(
  [
    ("B17", put([0, 3, 20], *TEST), "'xsub': expected no clip in both train and test, got 2: "),
    ("B18", put("a", "clips", "subject", 20), "no subject in both train and test, got 1: 'a'"),
    ("B20", put([20, 24], *TEST), "test rows: expected 0 to 23, got others"),
    ("B20", put([-1, 0], *TRAIN), "train rows: expected 0 to 23"),
    ("B20", drop(*TEST), "KeyError: 'test'"),
    ("B21", put([0, 0, 1], *TRAIN), "train rows: expected each row once, got repeated ones"),
    ("B21", put("clip0", "clips", "id", 1), "expected unique ids"),
    ("B22", put(-1, "clips", "label", 2), "label of train clip 'clip2': expected 0 to 1, got -1"),
    ("B22", put(2, "clips", "label", 20), "label of test clip 'clip20': expected -1 to 1, got 2"),
    ("B22", put(1.0, "clips", "label", 2), "expected integers, got 1.0"),
    ("B22", put("1", "clips", "label", 2), "expected integers, got '1'"),
    ("B22", put(True, "clips", "label", 2), "expected integers, got True"),
    ("B22", put(None, "clips", "label", 2), "expected integers, got None"),
    ("B22", put(2**40, "clips", "label", 2), "index.json: expected an index"),
    ("B22", drop("clips", "label", 2), "expected 24 labels, one a clip, got 23"),
    ("B26", drop("mirror"), "index.json: expected an index as prepare.py writes it"),
    ("B26", drop("clips", "label"), "KeyError: 'label' (remove the directory and prepare it"),
    ("B26", put([], "protocols"), "index.json: expected an index as prepare.py writes it"),
    ("B26", put([], "clips"), "index.json: expected an index as prepare.py writes it"),
  ]
)
def test_a_wrong_index(sandbox, row, edit_json):
  edit, message = row
  edit_json(sandbox.data / INDEX, edit)
  sandbox.refuses(sandbox.train, 3, message)


@rows(
  [
    ("B26", "index.json", b"<html>", "index.json: expected an index as prepare.py writes it"),
    ("B26", "index.json", None, "data/nods: expected a prepared data set"),
    ("B26", "pose/track.json", None, "nods/1.0.0: track: expected pose, got none"),
    ("B26", "pose/track.json", b"{", "pose/track.json: expected a track as prepare.py writes it"),
    ("B26", "pose/dataset_info.json", None, "nods/1.0.0/pose: "),
    ("B26", "pose/features.json", None, "nods/1.0.0/pose/features.json: "),
    ("B26", "pose/*array_record*", None, "nods/1.0.0/pose: "),
    ("B26", "pose/*array_record*", b"", "nods/1.0.0/pose: "),
  ]
)
def test_files_of_a_data_set_that_are_lost(sandbox, row):
  name, content, message = row
  (path,) = (sandbox.data / "nods" / "1.0.0").glob(name)
  path.unlink()
  if content is not None:
    path.write_bytes(content)
  sandbox.refuses(sandbox.train, 3, message)


def test_b25_data_that_changed_since_the_run_began(sandbox, run, edit_json):
  workdir = shutil.copytree(run, sandbox.path / "run")
  config = json.loads((workdir / "config.json").read_text())
  config["data"]["dir"] = str(sandbox.data)
  workdirs.write(workdir / "config.json", config)
  edit_json(sandbox.data / INDEX, put(0, "clips", "label", 3))
  sandbox.refuses(sandbox.train, 3, "does not fit this model, optimizer and data: data: expected")
  edit_json(workdir / "recipe.json", put(str(sandbox.data / "nods"), "data", "directory"))
  argv = [f"--run={workdir}"]
  sandbox.refuses(lambda: sandbox.evaluate(*argv), 3, "expected the clips and classes that the run")


# --- preparing


class Desk(prepared.Builder):
  track = tracks.Pose("coco17", frame_size=(720, 1280))
  class_names = ("idle", "typing")
  protocols = {"xsub": prepared.by_subject(train=("ann",))}  # noqa: RUF012
  examples = ()

  def clips(self, recording, known):
    yield from self.examples


def example(
  id="a", label=0, subject="ann", recording="", *, layout="coco17", shape=(3, 1), **options
):
  num_joints = 18 if layout == "openpose18" else 17
  keypoints = np.full((*shape, num_joints, 3), 0.5)
  keypoints[..., :2] = 20 + 5 * np.arange(num_joints)[:, None]
  return prepared.Example(id, label, subject, readers.Clip(keypoints, layout, **options), recording)


NAME = "expected 1 to 200 printable bytes that are no path"


@rows(
  [
    ("B17", [dict(), dict()], "'a': expected an id of its own"),
    ("B19", [dict(), dict(id="b", label=1, subject="bob")], "no copies between train and test"),
    ("B20", [], "expected at least one clip"),
    ("B22", [dict(label=-1)], "label of train clip 'a': expected 0 to 1, got -1"),
    (
      "B22",
      [dict(label=2)],
      "'a': label: expected a class name, or an integer from -1 to 1, got 2",
    ),
    ("B22", [dict(label=-2)], "got -2"),
    ("B22", [dict(label=1.0)], "got 1.0"),
    ("B22", [dict(label="1")], "got '1'"),
    ("B22", [dict(label=True)], "got True"),
    ("B22", [dict(label=None)], "got None"),
    ("B23", [dict(id="../a")], f"id: {NAME}"),
    ("B23", [dict(id="/etc/a")], f"id: {NAME}"),
    ("B23", [dict(id="..")], f"id: {NAME}"),
    ("B23", [dict(id="~a")], f"id: {NAME}"),
    ("B23", [dict(id="a\\b")], f"id: {NAME}"),
    ("B23", [dict(id="a\nb")], f"'a\\nb': id: {NAME}"),
    ("B23", [dict(id="a\0")], f"id: {NAME}"),
    ("B23", [dict(id="a\x1b[2J")], f"id: {NAME}"),
    ("B23", [dict(id="é" * 150)], f"id: {NAME}"),
    ("B23", [dict(id="")], f"id: {NAME}"),
    ("B23", [dict(id="\udcff")], f"id: {NAME}"),
    ("B23", [dict(id=3)], f"id: {NAME}"),
    ("B23", [dict(subject="a\tb")], f"subject: {NAME}, got 'a\\tb'"),
    ("B23", [dict(recording="a\nb")], f"recording: {NAME}, got 'a\\nb'"),
    ("B41", [dict(layout="openpose18")], "layout: expected coco17, got openpose18"),
    ("B41", [dict(shape=(3, 2))], "persons: expected at most 1, got 2"),
    ("B41", [dict(joints3d=np.ones((3, 1, 17, 3)))], "joints3d: expected False, got True"),
  ]
)
def test_a_clip_that_cannot_be_prepared(sandbox, row):
  examples, message = row
  examples = [example(**options) for options in examples]
  builder = type("Desk", (Desk,), {"examples": examples})
  sandbox.refuses(lambda: sandbox.prepare("desk", builder=builder), 3, message)


@rows(
  [
    (
      "B18",
      {"protocols": {"random": lambda clip: "train" if clip["id"] == "a" else "test"}},
      "no subject in both train and test, got 1: 'ann'",
    ),
  ]
)
def test_a_data_set_that_is_declared_wrongly(sandbox, row):
  attributes, message = row
  examples = [example("a"), example("b", shape=(4, 1))]
  builder = type("Desk", (Desk,), {"examples": examples, **attributes})
  sandbox.refuses(lambda: sandbox.prepare("desk", builder=builder), 3, message)


@rows(
  [
    ("B01", ["utd_mhat"], 2, "did you mean utd_mhad?"),
    ("B01", ["utd_mhad", "--force"], 2, "--force"),
    ("B01", ["utd_mhad", "--layout=coco17"], 2, "layout: expected kinect20, got coco17"),
    ("B01", ["utd_mhad", "--data_dir=file"], 2, "file: expected a folder, got a file"),
    ("B16", ["utd_mhad", "--manual_dir=none"], 3, "none: expected the folder of the raw files"),
    ("B16", ["utd_mhad", "--manual_dir=empty"], 3, "empty: expected files a1_s1_t1_skeleton.mat"),
    ("B23", ["../datasets"], 2, "data set: expected"),
    ("B26", ["utd_mhad", "--data_dir=faulty"], 3, "index.json: expected an index"),
    ("B16", ["smg", "--manual_dir=empty"], 3, "empty: expected Sample0001/Sample0001_skeleton.csv"),
    ("B41", ["utd_mhad", "--manual_dir=damaged"], 3, "a1_s1_t1_skeleton.mat: "),
  ]
)
def test_a_wrong_command_line_of_preparing(sandbox, row, monkeypatch):
  argv, code, message = row
  monkeypatch.chdir(sandbox.path)
  for folder in ("empty", "damaged", "faulty/utd_mhad/1.1.0"):
    pathlib.Path(folder).mkdir(parents=True)
  pathlib.Path("damaged/a1_s1_t1_skeleton.mat").write_bytes(b"MATLAB")
  pathlib.Path("faulty/utd_mhad/1.1.0/index.json").write_text("{")
  pathlib.Path("file").touch()
  sandbox.refuses(lambda: sandbox.prepare(*argv), code, message)


# --- recordings


def text(content, name="a.csv"):
  def make(folder):
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name

  return make


def pose(num_frames=4, num_joints=25):
  return np.random.default_rng(0).uniform((1, 1, 0.1), (1280, 720, 1), (num_frames, num_joints, 3))


def changed(value, *place):
  keypoints = pose()
  keypoints[place] = value
  return keypoints


def csv(table):
  return text("\n".join(",".join(f"{x:g}" for x in row) for row in table))


def npy(array):
  def make(folder):
    np.save(folder / "a.npy", array)
    return folder / "a.npy"

  return make


def edited_npy(edit):
  def make(folder):
    path = npy(np.float32(pose()))(folder)
    path.write_bytes(edit(path.read_bytes()))
    return path

  return make


def huge_npy(folder):
  """A frame too many in a file with holes, which takes no room on the disk."""
  array = np.lib.format.open_memmap(folder / "a.npy", "w+", np.float32, (10**6 + 1, 17, 3))
  del array
  return folder / "a.npy"


def xlsx(*lines):
  def make(folder):
    with xlsxwriter.Workbook(folder / "a.xlsx") as book:
      sheet = book.add_worksheet()
      for number, line in enumerate(lines):
        sheet.write_row(number, 0, line)
    return folder / "a.xlsx"

  return make


def mat(**variables):
  def make(folder):
    scipy.io.savemat(folder / "a.mat", variables)
    return folder / "a.mat"

  return make


def openpose(*frames, names=None):
  """A folder of one file per frame: its text, or the list of its persons' numbers."""

  def make(folder):
    folder /= "take"
    folder.mkdir()
    for number, frame in enumerate(frames):
      if not isinstance(frame, str | bytes):
        frame = json.dumps({"people": [{"pose_keypoints_2d": person} for person in frame]})
      name = names[number] if names else f"take_{number:012d}_keypoints.json"
      text(frame, name)(folder)
    return folder

  return make


BODY = [100.0, 50.0, 0.5] * 25
ONE_BODY = '{"people": [{"pose_keypoints_2d": [%s]}]}'


@rows(
  [
    ("B16", lambda folder: folder / "none.csv", "none.csv: expected a file or a folder"),
    ("B16", text("1", "a.txt"), "a.txt: expected .csv, "),
    ("B16", text(""), "a.csv: the table: expected at least one frame"),
    ("B16", text("<html>\n<p>sorry</p>\n"), "a.csv: "),
    ("B41", text("1,2,3\n1,2\n"), "columns changed from 3 to 2"),
    ("B41", text("1,2,3\n1,b,3\n"), "'b'"),
    ("B41", text(b"\xe9,2,3\n"), "utf-8"),
    ("B41", csv(np.full((3, 153), 5.0)), "got 153 (name the layout: --layout)"),
    ("B41", csv(np.full((3, 77), 5.0)), "columns: expected 2 or 3 for each joint of a layout"),
    ("B41", npy(pose()[..., :1]), "C 2 or 3, got [4, 25, 1]"),
    ("B41", npy(pose()[0, 0]), "a.npy: shape: expected [T, V, C]"),
    ("B41", npy(pose(num_joints=51)), "got [4, 51, 3] (name the layout: --layout)"),
    ("B41", text("PK but no", "a.xlsx"), "expected a whole xlsx file"),
    ("B41", xlsx([1.0] * 411, [1.0] * 410 + [None]), "row 2: expected 411 numbers"),
    ("B41", xlsx(["x"] * 411), "row 1: expected 411 numbers"),
    ("B41", xlsx(), "expected at least one frame"),
    ("B41", text("MATLAB 5.0", "a.mat"), "expected a whole MATLAB file"),
    ("B41", mat(x=1), "variable d_skel is missing"),
    ("B41", mat(d_skel=np.ones((25, 3, 9))), "expected numbers [20, 3, T], got float64 [25, 3, 9]"),
    ("B42", npy(pose(0)), "a.npy: "),
    ("B42", npy(np.ones((4, 0, 25, 3))), "a.npy: "),
    ("B42", npy(pose(num_joints=0)), "a.npy: "),
    ("B44", npy(changed(np.nan, 2, 5, 1)), "frame 2, person 0, joint 5, axis 1: expected a finite"),
    ("B44", npy(changed(np.inf, 2, 5, 1)), "expected a finite number, got inf"),
    ("B44", csv(changed(np.nan, 2, 5, 1).reshape(4, 75)), "expected a finite number, got nan"),
    ("B44", mat(d_skel=np.full((20, 3, 9), np.inf)), "joints3d: frame 0, person 0, joint 0"),
    ("B45", npy(changed(3.0, 1, slice(9), 2)), "third values from 0.1 to 3 (millimetres?"),
    ("B45", npy(changed(-3.0, 1, slice(9), 2)), "per cent? divide by 100"),
    (
      "B45",
      openpose([BODY], [[100.0, 50.0, 3.0, *BODY[3:]]]),
      "frame 1, person 0, joint 0: expected a score in [0, 1], got 3 (logits?",
    ),
    ("B45", npy(changed(np.nan, 1, 0, 2)), "expected a finite number, got nan"),
    ("B46", npy(changed(-3e38, 1, 0, 0)), "expected at most 1e9 pixels, got -3e+38"),
    ("B47", npy(changed(1e300, 0, 0, 0)), "expected a finite number, got 1e+300"),
    ("B47", npy(np.float16(changed(np.inf, 0, 0, 0))), "expected a finite number, got inf"),
    ("B48", huge_npy, "expected at most 1000000 frames, got 1000001"),
    (
      "B49",
      csv([[0, *BODY], [1, *BODY], [1, *BODY]]),
      "column 1: expected frame numbers that rise",
    ),
    ("B49", csv([[1, *BODY], [0, *BODY]]), "column 1: expected frame numbers that rise"),
    ("B49", csv([[0.5, *BODY], [1, *BODY]]), "column 1: expected frame numbers that rise"),
    (
      "B48",
      csv([[0, *BODY], [1e9, *BODY]]),
      "column 1: expected 1 % of the frames, or more, got 2 of",
    ),
    ("B50", openpose("{}"), "keypoints.json: expected a list `people`, got NoneType"),
    ("B50", openpose('{"people": {}}'), "keypoints.json: expected a list `people`, got dict"),
    ("B50", openpose("[]"), "keypoints.json: expected a list `people`"),
    ("B50", openpose([], []), "no person in any frame"),
    (
      "B51",
      openpose([BODY[:51]]),
      "people[0]: pose_keypoints_2d: expected 75 or 54 numbers, got 51",
    ),
    ("B51", openpose([BODY], [BODY[:54]]), "expected 25 points as in take_000000000000"),
    (
      "B52",
      openpose(ONE_BODY % ("1e400," * 74 + "1")),
      "number 0: expected a finite number, got inf",
    ),
    (
      "B52",
      openpose(ONE_BODY % ("NaN," * 74 + "1")),
      "number 0: expected a finite number, got nan",
    ),
    ("B52", openpose(ONE_BODY % ("Infinity," * 74 + "1")), "number 0: expected a finite number"),
    ("B53", openpose("[" * 100_000), "recursion"),
    ("B53", openpose(ONE_BODY % ("1" * 400 + ",1" * 74)), "expected finite numbers"),
    ("B53", openpose(ONE_BODY % ("1" * 5000 + ",1" * 74)), "keypoints.json: Exceeds the limit"),
    ("B53", openpose('{"people": [], "people": []}'), "a key occurs twice"),
    ("B53", openpose('{"people": [' + " " * (16 << 20)), "expected at most 16777216 bytes"),
    ("B54", npy(pose() / (1280, 720, 1)), "expected pixels or metres, got a body of 0.8"),
    ("B54", openpose([[0.5, -1.0, 0.5] * 25]), "expected pixels, got a body of 0 (normalised?"),
    ("B55", openpose('{"people": ['), "take_000000000000_keypoints.json: "),
    (
      "B55",
      openpose([BODY], [BODY], names=["take_1_keypoints.json", "take_3_keypoints.json"]),
      "expected a file for every frame 1 to 3, got none for 2",
    ),
    (
      "B55",
      openpose([BODY], [BODY], names=["take_1_keypoints.json", "other_2_keypoints.json"]),
      "expected one recording, got 'other', 'take'",
    ),
    ("B55", lambda folder: folder, "expected OpenPose's *_keypoints.json, got none"),
    ("B57", npy(np.array([{}], object)), "a.npy: expected a whole npy file"),
    ("B57", text(b"\x80\x04N.", "a.npy"), "a.npy: expected a whole npy file"),
    ("B57", text("", "a.npy"), "a.npy: expected a whole npy file"),
    ("B58", edited_npy(lambda b: b.replace(b"(4, 25", b"(9, 25")), "expected a whole npy file"),
    ("B58", edited_npy(lambda b: b.replace(b"(4, 25", b"(-4,25")), "a.npy: "),
    ("B58", edited_npy(lambda b: b[:-1]), "expected a whole npy file"),
    ("B58", edited_npy(lambda b: b + b"x"), "size: expected 1328 bytes, got 1329"),
    ("B59", text("PK", "a.npz"), "a.npz: expected a whole npz file"),
    ("B60", npy(np.zeros(3, "f4,f4")), "expected one array of numbers"),
    ("B60", npy(np.zeros((4, 25, 3), "M8[s]")), "expected one array of numbers"),
    ("B60", npy(np.zeros((4, 25, 3), "U3")), "expected one array of numbers"),
    ("B61", text("", "a.mp4"), "a.mp4: expected a video, got what FFmpeg cannot read"),
    ("B61", text("<html></html>", "a.mkv"), "a.mkv: expected a video, got what FFmpeg cannot read"),
    ("B67", text("#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n", "a.mp4"), "a.mp4: expected a video"),
    ("B67", text("ffconcat version 1.0\nfile 'b.mkv'\n", "a.MOV"), "a.MOV: expected a video, got"),
  ]
)
def test_a_wrong_recording(sandbox, row):
  make, message = row
  path = make(sandbox.path)
  argv = ["--run=none", f"--input={path}"]
  sandbox.refuses(lambda: sandbox.predict(*argv), 3, message)


# --- runs


@rows(
  [
    ("B16", ["--run=none"], 4, "none/recipe.json: expected a run directory with a recipe"),
    ("B01", [], 2, "--run is required"),
    ("B01", ["--run={run}", "--splitt=test"], 2, "splitt"),
    ("B01", ["--run={run}", "--split=tset"], 2, "--split=tset: value should be one of"),
    ("B02", ["--run={run}", "--batch_size=many"], 2, "--batch_size=many: "),
    ("B03", ["--run={run}", "--batch_size=0"], 2, "--batch_size=0: "),
    ("B16", ["--run={run}", "--data=none"], 3, "none: expected a prepared data set"),
    ("B20", ["--run={run}", "--split=val"], 3, "got 'val' (a fold makes 'val'"),
  ]
)
def test_a_wrong_command_line_of_evaluation(sandbox, row, run):
  argv, code, message = row
  argv = [argument.format(run=run) for argument in argv]
  sandbox.refuses(lambda: sandbox.evaluate(*argv), code, message)


@rows(
  [
    ("B01", ["--input={clip}"], 2, "--run is required"),
    ("B01", ["--run={run}", "--input={clip}", "--layout=coco71"], 2, "layout: "),
    (
      "B41",
      ["--run={run}", "--input={clip}", "--layout=coco17"],
      3,
      "V 17, C 2 or 3, got [4, 25, 3]",
    ),
    (
      "B41",
      ["--run={run}", "--input={hands}"],
      3,
      "the clip: source of skeleton coco17: expected ",
    ),
    ("B16", ["--run=none", "--input={clip}"], 4, "none/recipe.json: expected a run directory"),
    (
      "B03",
      ["--run={run}", "--input={clip}", "--frames=3:9"],
      2,
      "0 <= FIRST <= LAST < 4, got 3:9",
    ),
    ("B02", ["--run={run}", "--input={clip}", "--frames=all"], 2, "expected FIRST:LAST, got all"),
  ]
)
def test_a_wrong_command_line_of_prediction(sandbox, row, run):
  argv, code, message = row
  files = {"run": run, "clip": sandbox.path / "clip.npy", "hands": sandbox.path / "hands.npy"}
  np.save(files["clip"], pose())
  np.save(files["hands"], pose(num_joints=22))
  argv = [argument.format(**files) for argument in argv]
  sandbox.refuses(lambda: sandbox.predict(*argv), code, message)


@rows(
  [
    (
      "B24",
      "клип 手 🙂.npy",
      "клип 手 🙂.npy: read as 4 frames of 1 person, 25 joints (openpose25)",
    ),
    ("B24", "a; touch b $(c) -d.npy", "a; touch b $(c) -d.npy: read as 4 frames"),
    ("B24", os.fsdecode(b"caf\xe9.npy"), "caf\\udce9.npy: read as 4 frames"),
  ]
)
def test_a_name_of_any_script_works(sandbox, row, run, capsys):
  name, printed = row
  with open(sandbox.path / name, "wb") as file:
    np.save(file, pose())
  argv = [f"--run={run}", f"--input={sandbox.path / name}", "--layout=openpose25"]
  assert sandbox.predict(*argv, "--frame_size=720x1280") == 0
  assert printed in capsys.readouterr().out


# --- processes


@rows(
  [
    ("2", ["predict", "--run=none"], "--input is required"),
    ("3", ["predict", "--run=none", "--input=none"], "none: expected a file or a folder"),
    ("4", ["evaluate", "--run=none"], "none/recipe.json: expected a run directory"),
    (
      "5",
      ["posec3d", CONFIG, "--workdir=/proc/run"],
      "/proc/run: No such file or directory",
    ),
  ]
)
def test_the_code_is_that_of_the_process(row, request):
  (command, *argv), message = row
  argv = [sys.executable, "-m", f"experiments.{command}", *argv]
  environment = os.environ | {"JAX_PLATFORMS": "cpu"}
  done = subprocess.run(argv, cwd=ROOT, env=environment, capture_output=True, text=True)
  assert f"[{done.returncode}]" in request.node.name
  assert done.stderr.startswith("jaxmg: error: ")
  assert done.stderr.count("\n") == 1
  assert message in done.stderr
