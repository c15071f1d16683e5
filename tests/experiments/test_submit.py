import csv
import io
import pathlib
import pickle
import pickletools
import shutil
import zipfile

import numpy as np
import pytest

from experiments import launch, submit
from jaxmg import scores
from jaxmg.data.source import Source


def save(path, ids, num_classes, class_names=None, **changes):
  """A score file whose clip i is of class i, modulo the classes."""
  labels = np.arange(len(ids), dtype=np.int32) % num_classes
  probabilities = 0.5 * np.eye(num_classes)[labels] + 0.5 / num_classes
  values = {
    "ids": tuple(ids),
    "probabilities": np.float32(probabilities),
    "labels": np.full(len(ids), -1, np.int32),
    "class_names": class_names or tuple(f"class {k}" for k in range(num_classes)),
  }
  scores.save(path, scores.Scores(**values | changes))


@pytest.fixture(autouse=True)
def _in_a_folder(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)


def write(*argv):
  return launch.command(submit.run, submit.define, argv)


def test_miga_is_a_zip_of_one_csv_of_ids_and_classes_in_order(capsys):
  ids = ["0067_0", "0054_10", "0054_9", "0300_2"]
  save("s.npz", ids, 32)
  assert write("--scores=s.npz", "--format=miga", "--out=Submission.zip") == 0
  assert "4 clips in Submission.zip" in capsys.readouterr().out
  with zipfile.ZipFile("Submission.zip") as archive:
    assert archive.namelist() == ["Submission.csv"]
    text = archive.read("Submission.csv").decode()
  assert list(csv.reader(io.StringIO(text))) == [
    ["0054_9", "2"],
    ["0054_10", "1"],
    ["0067_0", "0"],
    ["0300_2", "3"],
  ]


def test_the_same_scores_give_the_same_bytes():
  save("s.npz", ["0054_1", "0054_0"], 32)
  contents = []
  for _ in range(2):
    assert write("--scores=s.npz", "--format=miga", "--out=a.zip") == 0
    contents.append(pathlib.Path("a.zip").read_bytes())
  assert contents[0] == contents[1]


@pytest.fixture
def ids_of_test(nods):
  data = Source(nods / "nods")
  return [data.ids[row] for row in data.rows("test")]


def test_pyskl_is_a_list_of_vectors_in_the_order_of_the_prepared_set(nods, ids_of_test):
  shuffled = ids_of_test[::-1]
  save("s.npz", shuffled, 2, ("nod", "shake"))
  assert write("--scores=s.npz", "--format=pyskl", f"--data={nods}/nods", "--out=result.pkl") == 0
  content = pathlib.Path("result.pkl").read_bytes()
  vectors = pickle.loads(content)
  assert isinstance(vectors, list)
  assert {(x.shape, x.dtype) for x in vectors} == {((2,), np.dtype("float32"))}
  expected = scores.load("s.npz").probabilities[::-1]
  np.testing.assert_array_equal(vectors, expected)
  # What NumPy 1 and old versions of Python know.
  names = {arg for op, arg, _ in pickletools.genops(content) if op.name == "GLOBAL"}
  assert names == {
    "numpy.core.multiarray _reconstruct",
    "numpy ndarray",
    "numpy dtype",
    "_codecs encode",
  }


def test_pyskl_knows_the_split_by_its_clips(nods, tmp_path, ids_of_test, edit_json):
  shutil.copytree(nods, tmp_path / "data")

  def edit(index):
    protocol = dict(index["protocols"]["xsub"])
    index["protocols"]["few"] = protocol | {"test": protocol["test"][2::-1]}

  (path,) = (tmp_path / "data").rglob("index.json")
  edit_json(path, edit)
  save("s.npz", [ids_of_test[1], ids_of_test[2], ids_of_test[0]], 2, ("nod", "shake"))
  assert write("--scores=s.npz", "--format=pyskl", "--data=data/nods", "--out=result.pkl") == 0
  vectors = pickle.loads(pathlib.Path("result.pkl").read_bytes())
  np.testing.assert_array_equal(vectors, scores.load("s.npz").probabilities[[2, 0, 1]])


@pytest.mark.parametrize(
  ("argv", "code", "message"),
  [
    (["--scores=32.npz"], 2, "--format is required"),
    (["--scores=32.npz", "--format=kaggle"], 2, "--format"),
    (["--scores=nods.npz", "--format=pyskl"], 2, "--data is required for --format=pyskl"),
    (["--scores=none.npz", "--format=miga"], 3, "none.npz: expected a score file"),
    (["--scores=nods.npz", "--format=miga"], 3, "miga: expected 32 classes, got 2"),
    (
      ["--scores=names.npz", "--format=miga"],
      3,
      "expected ids such as '0054_3', video and clip, got 6 others: '54_3', '0054-3', '0054_', ",
    ),
    (
      ["--scores=32.npz", "--format=miga", "--data={nods}"],
      3,
      "expected the classes of the scores",
    ),
    (
      ["--scores=nods.npz", "--format=pyskl", "--data={nods}"],
      3,
      "expected the clips of one split, got 2 clips, 1 of them in none: 'clip99'",
    ),
    (
      ["--scores=some.npz", "--format=pyskl", "--data={nods}"],
      3,
      "expected the clips of one split, got 1 clips",
    ),
    (
      ["--scores=nods.npz", "--format=pyskl", "--data=none"],
      3,
      "none: expected a prepared data set",
    ),
    (["--scores=32.npz", "--format=miga", "--out=none/a.zip"], 5, "none/a.zip: No such file"),
    (["--scores=32.npz", "--format=miga", "--out=folder"], 5, "folder"),
    (["--scores=32.npz", "--format=miga", "--out=."], 5, ""),
  ],
)
def test_bad_input_is_one_line_and_leaves_nothing(argv, code, message, nods, tmp_path, capsys):
  save("32.npz", ["0054_0", "0054_1"], 32)
  save("nods.npz", ["clip18", "clip99"], 2, ("nod", "shake"))
  save("some.npz", ["clip18"], 2, ("nod", "shake"))
  save("names.npz", ["54_3", "0054-3", "0054_", "0054_03", "٠٠٥٤_3", "0054_3\n", "0054_3"], 32)
  (tmp_path / "folder").mkdir()
  before = sorted(tmp_path.rglob("*"))
  out = [] if any("--out" in argument for argument in argv) else ["--out=out"]
  assert write(*(argument.format(nods=nods / "nods") for argument in argv), *out) == code
  error = capsys.readouterr().err
  assert error.startswith("jaxmg: error: ")
  assert error.count("\n") == 1
  assert message in error
  assert sorted(tmp_path.rglob("*")) == before
