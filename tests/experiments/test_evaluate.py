"""The command that evaluates a run: broken off, it goes on."""

import json
import pickle
import shutil

import numpy as np
import pytest

from experiments import evaluate, launch, plots, submit
from jaxmg import files, scores
from jaxmg.data import pipeline, source
from jaxmg.training import evaluate as evaluation


@pytest.fixture
def score(run, monkeypatch):
  """Evaluates the run's training split, 8 clips at a time; returns the code and the clips read."""
  monkeypatch.setattr(evaluate.Kept, "SECONDS", 0.0)
  read = []
  load = pipeline._load

  def counted(source, row, *args, **options):
    read.append(row)
    return load(source, row, *args, **options)

  monkeypatch.setattr(pipeline, "_load", counted)
  monkeypatch.setattr(plots, "views", lambda *args, **options: None)

  def call(batch_size=8, *flags):
    read.clear()
    argv = [f"--run={run}", "--split=train", f"--batch_size={batch_size}", *flags]
    return launch.command(evaluate.run, evaluate.define, argv), len(set(read))

  return call


def break_off(monkeypatch, after):
  """Makes the next evaluation end like one that is killed, after so many batches."""
  original = evaluation.evaluate

  def broken(*args, keep, **options):
    def keep_and_die(parts):
      keep(parts)
      if len(parts) == after:
        raise KeyboardInterrupt

    return original(*args, keep=keep_and_die, **options)

  monkeypatch.setattr(evaluation, "evaluate", broken)


def test_an_interrupted_evaluation_goes_on_to_the_same_bits(run, score, monkeypatch, capsys):
  folder = run / "train"
  assert score() == (0, 18)
  whole = {name: (folder / name).read_bytes() for name in ("scores.npz", "metrics.json")}
  (folder / "scores.npz").unlink()
  with monkeypatch.context() as patch:
    break_off(patch, after=2)
    assert score()[0] == 130
  assert (folder / "unfinished.npz").exists()
  assert "unfinished.npz holds the scores so far: the same command" in capsys.readouterr().err
  with files.locked(folder):
    assert score()[0] == 7
  assert score() == (0, 2)  # of 3 batches, the last with 2 of 18 clips
  assert "goes on where it was stopped: 2 batches are there" in capsys.readouterr().err
  assert {name: (folder / name).read_bytes() for name in whole} == whole
  assert not (folder / "unfinished.npz").exists()


@pytest.mark.parametrize("change", ["batch size", "damage", "split", "machine", "dtype"])
def test_scores_of_other_batches_are_not_gone_on_with(run, score, monkeypatch, capsys, change):
  path = run / "train" / "unfinished.npz"
  with monkeypatch.context() as patch:
    break_off(patch, after=2)
    assert score()[0] == 130
  if change == "damage":
    content = bytearray(path.read_bytes())
    content[6] ^= 1  # the flags of its first part, at which zipfile raises a RuntimeError
    content[content.rindex(b"PK\x01\x02") + 8] ^= 1
    path.write_bytes(content)
  if change == "machine":
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")  # read at the start alone
  if change == "split":
    (run / "test").mkdir(exist_ok=True)
    path = path.rename(run / "test" / "unfinished.npz")
    arguments = [f"--run={run}", "--split=test", "--batch_size=8"]
    assert launch.command(evaluate.run, evaluate.define, arguments) == 0
    assert len(scores.load(run / "test" / "scores.npz").ids) == 6
  else:
    flags = ["--dtype=bfloat16"] if change == "dtype" else []
    assert score(16 if change == "batch size" else 8, *flags) == (0, 18)
    dtype = "bfloat16" if flags else "float32"
    assert json.loads((run / "train" / "metrics.json").read_text())["dtype"] == dtype
  assert "begins again: " in capsys.readouterr().err
  assert not path.exists()


def test_ctrl_c_says_what_is_kept_and_not_what_is_refused(run, score, monkeypatch, capsys):
  path = run / "train" / "unfinished.npz"
  path.write_bytes(b"of something else")

  def interrupted(*args, **options):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(evaluation, "evaluate", interrupted)
    assert score()[0] == 130
  printed = capsys.readouterr().err
  assert "begins again: " in printed
  assert "no scores are kept: the same command begins again" in printed
  path.unlink()


def test_half_a_save_of_a_killed_evaluation_is_removed(tmp_path):
  path = tmp_path / ".part.unfinished.npz"
  path.write_bytes(b"half")
  evaluate.Kept(tmp_path / "unfinished.npz", []).remove()
  assert not path.exists()


def test_every_kept_part_is_what_its_batch_gave(tmp_path):
  parts = [(np.arange(n), np.full((n, 3), n / 7, np.float32), np.arange(n) % 3) for n in (4, 4, 1)]
  of = {"weights": np.ones(3), "recipe": "a"}
  kept = evaluate.Kept(tmp_path / "unfinished.npz", of)
  kept.SECONDS = 0
  kept.save(parts)
  for one, other in zip(evaluate.Kept(tmp_path / "unfinished.npz", of).parts, parts, strict=True):
    for x, y in zip(one, other, strict=True):
      np.testing.assert_array_equal(x, y, strict=True)
  assert evaluate.Kept(tmp_path / "unfinished.npz", of | {"weights": np.zeros(3)}).parts == []


class Later:
  """Pickles of clips of `nods` under other ids, and the commands on them."""

  def __init__(self, path, nods, run, prepare):
    self.path, self.run, self._prepare = path, run, prepare
    self._nods = source.Source(nods / "nods")

  def make(self, rows, ids, labels=None, names=None, name="later_test"):
    raw = self.path / f"{name}.pkl"
    clips = []
    for i, (row, id) in enumerate(zip(rows, ids, strict=True)):
      points = self._nods.track("pose")[row]["keypoints"].swapaxes(0, 1)
      clips.append({"frame_dir": id, "keypoint": points[..., :2], "img_shape": (72, 128)})
      clips[-1] |= {"keypoint_score": points[..., 2]} | ({"label": labels[i]} if labels else {})
    raw.write_bytes(pickle.dumps({"split": {"test": list(ids)}, "annotations": clips}))
    if names:
      raw.with_suffix(".classes.txt").write_text(names)
    argv = ["pyskl_pickle", f"--manual_dir={raw}", f"--data_dir={self.path / 'data'}"]
    assert self._prepare.main(argv) == 0
    return self.path / "data" / name

  def evaluate(self, data, *argv, run=None):
    argv = [f"--run={run or self.run}", f"--data={data}", *argv]
    return launch.command(evaluate.run, evaluate.define, argv)


@pytest.fixture
def later(tmp_path, nods, run, prepare, monkeypatch):
  monkeypatch.setattr(plots, "views", lambda *args, **options: None)
  return Later(tmp_path, nods, shutil.copytree(run, tmp_path / "run"), prepare)


IDS = [f"new{i}" for i in range(6)]  # of the test clips of nods: rows 18 to 23


def test_a_later_test_set_ends_in_the_scores_of_its_clips_and_in_a_submission(later, capsys):
  assert launch.command(evaluate.run, evaluate.define, [f"--run={later.run}"]) == 0
  before = (later.run / "test" / "scores.npz").read_bytes()
  data = later.make(range(18, 24), IDS)
  assert later.evaluate(data) == 0
  printed = capsys.readouterr().out
  assert "later_test is not the set of the run" in printed
  assert "it names 0 of 2 classes: the others are the run's" in printed
  assert "their labels are hidden: no metrics" in printed
  assert "NOTE" not in printed
  assert (later.run / "test" / "scores.npz").read_bytes() == before
  folder = later.run / "later_test-test"
  assert [path.name for path in folder.iterdir()] == ["scores.npz"]
  found, own = (scores.load(later.run / name / "scores.npz") for name in (folder.name, "test"))
  assert (found.ids, found.split, found.class_names) == (tuple(IDS), folder.name, own.class_names)
  assert (found.labels == -1).all()
  np.testing.assert_array_equal(found.probabilities, own.probabilities)
  out = later.path / "result.pkl"
  argv = [f"--scores={folder / 'scores.npz'}", "--format=pyskl", f"--data={data}", f"--out={out}"]
  assert launch.command(submit.run, submit.define, argv) == 0
  np.testing.assert_array_equal(pickle.loads(out.read_bytes()), own.probabilities)


def test_labels_of_another_set_are_those_of_the_names(later, capsys):
  labels = [i % 2 for i in range(6)]
  data = later.make(range(18, 24), IDS, labels, "nod\nshake\n")
  folder = later.run / "later_test-test"
  assert later.evaluate(data) == 0
  assert scores.load(folder / "scores.npz").labels.tolist() == labels
  assert "\nlater_test, test, 6 clips:\n" in capsys.readouterr().out
  shutil.rmtree(data)
  assert later.evaluate(later.make(range(18, 24), IDS)) == 0  # of the same name, without labels
  assert [path.name for path in folder.iterdir()] == ["scores.npz"]
  other = later.make(range(18, 24), IDS, labels, "shake\nnod\n", name="other")
  assert later.evaluate(other) == 3
  error = capsys.readouterr().err
  assert "other/1.0.0: expected the classes that the run was trained with, got the same in" in error
  assert not (later.run / "other-test").exists()


@pytest.mark.parametrize(
  ("rows", "ids", "copies"),
  [((18, 3, 19), ("a", "b", "c"), "1: 'b'"), ((18, 19), ("clip0", "clip19"), "1: 'clip0'")],
)
def test_clips_that_were_trained_on_are_known_by_their_data_and_by_their_ids(
  later, capsys, rows, ids, copies
):
  assert later.evaluate(later.make(rows, ids)) == 3
  message = f"expected no clips trained on, got {copies} (nods has their ids or their data)"
  assert message in capsys.readouterr().err
  assert not (later.run / "later_test-test").exists()


def test_where_the_training_set_is_gone_it_is_said_that_nothing_is_known(later, edit_json, capsys):
  edit_json(later.run / "recipe.json", lambda recipe: recipe["data"].update(directory="/gone"))
  assert later.evaluate(later.make([3, 18], "ab")) == 0
  note = "NOTE: it is not known which clips the weights were trained on: nods is not in /gone"
  assert note in capsys.readouterr().out
  argv = [f"--run={later.run}"]
  assert launch.command(evaluate.run, evaluate.define, argv) == 3
  assert "/gone: expected a prepared data set" in (error := capsys.readouterr().err)
  assert "(moved? --data=DATA/nods)" in error


def test_the_set_of_a_run_is_known_where_it_was_moved_and_with_other_protocols(
  later, nods, edit_json, capsys
):
  moved = shutil.copytree(nods / "nods", later.path / "moved")
  edit_json(later.run / "recipe.json", lambda recipe: recipe["data"].update(directory="/gone"))
  assert later.evaluate(moved) == 0
  assert len(scores.load(later.run / "test" / "scores.npz").ids) == 6
  edit_json(moved / "1.0.0" / "index.json", lambda index: index["clips"]["label"].reverse())
  assert later.evaluate(moved) == 3
  assert "expected no clips trained on, got 6: 'clip18'" in capsys.readouterr().err
