import os
import re
import shutil

import numpy as np
import pytest

from experiments import fuse_scores, launch
from jaxmg import scores

CLASSES = tuple(f"class {k}" for k in range(6))


def make(path, seed, strength, *, prefix="clip", hidden=False, run="run", split="test"):
  """A score file of 60 clips in an order of its own; the strength makes it right more often."""
  rng = np.random.default_rng(seed)
  rows = rng.permutation(60)
  labels = np.arange(60) % 6
  logits = rng.normal(size=(60, 6)) + strength * np.eye(6)[labels]
  probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
  path.parent.mkdir(parents=True, exist_ok=True)
  scores.save(
    path,
    scores.Scores(
      ids=tuple(f"{prefix}{row}" for row in rows),
      probabilities=np.float32(probabilities[rows]),
      labels=np.int32(-1 - 0 * rows if hidden else labels[rows]),
      class_names=CLASSES,
      split=split,
      run=run,
    ),
  )


@pytest.fixture(autouse=True)
def _in_a_folder_with_runs(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  make(tmp_path / "joint/test/scores.npz", 0, 2, run="joint")
  make(tmp_path / "bone/test/scores.npz", 1, 1.5, run="bone")
  make(tmp_path / "joint_fold/val/scores.npz", 2, 2, prefix="train", split="val")
  make(tmp_path / "bone_fold/val/scores.npz", 3, 1.5, prefix="train", split="val")


def fuse(*argv):
  return launch.command(fuse_scores.run, fuse_scores.define, argv, positional="RUN")


def parts():
  return [scores.load(f"{run}/test/scores.npz") for run in ("joint", "bone")]


def test_two_runs_with_weights_print_a_table_and_write_the_fused_scores(capsys):
  assert fuse("joint", "bone/test/scores.npz", "--weights=2,1", "--out=fused.npz") == 0
  out = capsys.readouterr().out
  written, head, titles, joint, bone, fused, gain = out.splitlines()
  assert written == "fused scores by id in fused.npz"
  assert head == "60 clips, 6 classes"
  assert titles.startswith("% [95 % interval] ")
  assert titles.split()[4:] == ["weight", "top-1", "top-5", "mean-class", "macro-F1"]
  figure = r"\d+\.\d \[\d+\.\d, \d+\.\d\]"
  assert re.fullmatch(rf"joint +2( +{figure}){{4}}", joint)
  assert re.fullmatch(rf"bone/test/scores.npz +1( +{figure}){{4}}", bone)
  assert re.fullmatch(rf"fused +( +{figure}){{4}}", fused)
  figure = r"[+-]\d+\.\d \[[+-]\d+\.\d, [+-]\d+\.\d\]"
  assert re.fullmatch(rf"fused - best single +( +{figure}){{4}}", gain)
  expected = scores.fuse(parts(), [2, 1])
  np.testing.assert_array_equal(scores.load("fused.npz").probabilities, expected.probabilities)


def test_the_gain_is_the_difference_of_the_figures_of_a_column(capsys):
  assert fuse("joint", "bone") == 0
  *_, joint, bone, fused, gain = capsys.readouterr().out.splitlines()
  for column in range(4):
    one, two, both, difference = (
      float(re.findall(r"([+-]?\d+\.\d) \[", line)[column]) for line in (joint, bone, fused, gain)
    )
    assert difference == pytest.approx(both - max(one, two), abs=0.11)


def test_a_run_fused_with_itself_gains_exactly_nothing(capsys):
  shutil.copyfile("joint/test/scores.npz", "again.npz")
  assert fuse("joint", "again.npz") == 0
  assert capsys.readouterr().out.splitlines()[-1].count("+0.0 [+0.0, +0.0]") == 4


def searched(*groups):
  """The temperatures and the weights of the folds of joint and bone."""
  kinds = [
    scores.join([scores.load(f"{run}_{fold}/val/scores.npz") for fold in groups])
    for run in ("joint", "bone")
  ]
  temperatures = [scores.fit_temperature(kind) for kind in kinds]
  return temperatures, scores.search(list(map(scores.calibrate, kinds, temperatures)))


def test_search_finds_temperatures_and_weights_of_the_folds(capsys):
  assert fuse("joint", "bone", "--search=joint_fold,bone_fold", "--out=f.npz") == 0
  temperatures, weights = searched("fold")
  expected = scores.fuse(list(map(scores.calibrate, parts(), temperatures)), weights)
  np.testing.assert_array_equal(scores.load("f.npz").probabilities, expected.probabilities)
  _, _, titles, *rows = capsys.readouterr().out.splitlines()
  assert titles.split()[4:7] == ["weight", "temperature", "top-1"]
  for row, weight, temperature in zip(rows, weights, temperatures, strict=False):
    assert row.split()[1:3] == [f"{weight:.3g}", f"{temperature:.3g}"]


def test_search_takes_the_clips_of_several_folds_together(tmp_path):
  for seed, run in enumerate(("joint", "bone")):
    make(tmp_path / f"{run}_other/val/scores.npz", seed + 4, 1, prefix="other", split="val")
  folds = "--search=joint_fold,bone_fold", "--search=joint_other,bone_other"
  assert fuse("joint", "bone", *folds, "--out=f.npz") == 0
  temperatures, weights = searched("fold", "other")
  assert temperatures != searched("fold")[0]
  expected = scores.fuse(list(map(scores.calibrate, parts(), temperatures)), weights)
  np.testing.assert_array_equal(scores.load("f.npz").probabilities, expected.probabilities)


def test_temperatures_are_given_beside_weights_or_alone(capsys):
  calibrated = list(map(scores.calibrate, parts(), (1.3, 0.8)))
  for argv, weights in ((["--weights=2,1"], [2, 1]), ([], [1, 1])):
    assert fuse("joint", "bone", "--temperatures=1.3,0.8", *argv, "--out=f.npz") == 0
    fused, expected = scores.load("f.npz"), scores.fuse(calibrated, weights)
    np.testing.assert_array_equal(fused.probabilities, expected.probabilities)
    *_, joint, bone, _, _ = capsys.readouterr().out.splitlines()
    assert joint.split()[1:3] == [str(weights[0]), "1.3"]
    assert bone.split()[1:3] == [str(weights[1]), "0.8"]
  assert fused.run == "0.5 joint at temperature 1.3 + 0.5 bone at temperature 0.8"


def test_the_figures_of_single_runs_do_not_depend_on_temperatures(capsys):
  tables = []
  for argv in ([], ["--temperatures=5,0.5"]):
    assert fuse("joint", "bone", *argv) == 0
    *_, joint, bone, _, _ = capsys.readouterr().out.splitlines()
    tables.append([re.findall(r"\d+\.\d \[[^]]*\]", row) for row in (joint, bone)])
  assert tables[0] == tables[1]


def test_hidden_labels_are_fused_without_figures(tmp_path, capsys):
  for seed, run in enumerate(("a", "b")):
    make(tmp_path / run / "test/scores.npz", seed, 1, hidden=True)
  assert fuse("a", "b", "--out=fused.npz") == 0
  assert "their labels are hidden: no metrics\n  1 a\n  1 b\n" in capsys.readouterr().out
  assert (scores.load("fused.npz").labels == -1).all()
  assert fuse("a", "b", "--temperatures=2,1") == 0
  assert "\n  1 at temperature 2 a\n  1 at temperature 1 b\n" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("argv", "code", "message"),
  [
    ([], 2, "RUN is required"),
    (["joint"], 2, "RUN: expected two or more, got one"),
    (["joint", "bone", "--weights=1"], 2, "weights: expected 2 numbers, none negative"),
    (["joint", "bone", "--weights=1,x"], 2, "--weights: expected numbers, got 1,x"),
    (["joint", "bone", "--weights=1,-1"], 2, "weights: expected 2 numbers, none negative"),
    (["joint", "bone", "--weights=0,nan"], 2, "none negative and one above 0, got 0, nan"),
    (
      ["joint", "bone", "--weights=1,1", "--search=joint_fold,bone_fold"],
      2,
      "--weights or --search: expected one of them",
    ),
    (["joint", "bone", "--search=joint_fold"], 2, "--search: expected 2 folds, got 1"),
    (
      ["joint", "bone", "--search=joint_fold,bone_fold", "--search=joint_fold"],
      2,
      "--search: expected 2 folds, got 1",
    ),
    (
      ["joint", "bone", "--search=joint_fold,bone_fold", "--search=joint_fold,bone_fold"],
      3,
      "--search: ids: expected each once, got repeated ones: 60 ('train",
    ),
    (
      ["joint", "bone", "--temperatures=1,1", "--search=joint_fold,bone_fold"],
      2,
      "--temperatures or --search: expected one of them",
    ),
    (["joint", "bone", "--temperatures=1"], 2, "--temperatures: expected 2 numbers, got 1"),
    (["joint", "bone", "--temperatures=1,x"], 2, "--temperatures: expected numbers, got 1,x"),
    (
      ["joint", "bone", "--temperatures=1,0"],
      2,
      "temperature: expected a number from 0.1 to 100, got 0",
    ),
    (["joint", "bone", "--temperatures=nan,1"], 2, "expected a number from 0.1 to 100, got nan"),
    (["joint", "bone", "--temperatures=1,-2"], 2, "expected a number from 0.1 to 100, got -2"),
    (["joint", "joint/test/scores.npz"], 2, "RUN: expected different runs, got "),
    (["joint", "none.npz"], 3, "none.npz: expected a score file, got no such file"),
    (["joint", "bone", "--split=val"], 3, "joint/val/scores.npz: expected a score file"),
    (["joint", "text"], 3, "text: expected a score file"),
    (
      ["joint", "joint_fold/val/scores.npz"],
      3,
      "scores 2 of 2 ('run'): expected the clips of the first, got others: without 60 ('clip",
    ),
    (
      ["joint", "bone", "--search=joint/test/scores.npz,bone/test/scores.npz"],
      3,
      "--search: expected clips of which nothing is reported, got 60 that are fused: 'clip0', ",
    ),
    (
      ["joint", "bone", "--search=joint_fold,bone/test/scores.npz"],
      3,
      "scores 2 of 2 ('bone'): expected the clips of the first",
    ),
    (
      ["joint", "bone", "--search=hidden.npz,hidden.npz"],
      3,
      "labels to search by: expected all known",
    ),
    (["joint", "bone", "--out=none/fused.npz"], 5, "none/fused.npz: No such file"),
    (["joint", "bone", "--out=."], 5, ""),
    (["joint", "bone", "--out=joint"], 5, "joint"),
  ],
)
def test_bad_input_is_one_line_and_leaves_nothing(argv, code, message, tmp_path, capsys):
  make(tmp_path / "hidden.npz", 0, 1, prefix="train", hidden=True)
  (tmp_path / "text").write_text("no scores")
  before = sorted(tmp_path.rglob("*"))
  assert fuse(*argv) == code
  captured = capsys.readouterr()
  assert captured.err.startswith("jaxmg: error: ")
  assert captured.err.count("\n") == 1
  assert message in captured.err
  assert captured.out == ""
  assert sorted(tmp_path.rglob("*")) == before


def test_the_command_says_what_it_takes(capsys):
  with pytest.raises(SystemExit):
    fuse("--help")
  assert "--weights" in capsys.readouterr().out
  assert os.path.exists("joint")
