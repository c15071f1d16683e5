"""The command `python datasets/prepare.py`."""

import pathlib
import subprocess
import sys

import numpy as np
import pytest
import scipy.io

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def raw(tmp_path):
  raw = tmp_path / "raw"
  raw.mkdir()
  for name in ("a1_s1_t1", "a2_s2_t1"):
    scipy.io.savemat(raw / f"{name}_skeleton.mat", {"d_skel": np.ones((20, 3, 4))})
  return raw


def arguments(raw, name="utd_mhad"):
  return [name, f"--manual_dir={raw}", f"--data_dir={raw.parent / 'data'}"]


def test_it_runs_as_a_script_from_the_root(raw):
  command = [sys.executable, "datasets/prepare.py", *arguments(raw)]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
  assert "2 clips, 27 classes, 2 subjects, kinect20" in done.stdout
  assert "xsub: 1 to train, 1 to test" in done.stdout
  assert "xsub: no training clip of swipe right, wave" in done.stdout
  assert (raw.parent / "data" / "utd_mhad" / "1.0.0" / "index.json").exists()


def test_the_same_command_again_says_that_all_is_there(prepare, raw, capsys):
  assert prepare.main(arguments(raw)) == 0
  assert "1.0.0 made in" in capsys.readouterr().out
  assert prepare.main(arguments(raw)) == 0
  assert "1.0.0 is already whole" in capsys.readouterr().out


def test_the_description_of_the_data_set_goes_along(prepare, raw):
  assert prepare.main(arguments(raw)) == 0
  text = (raw.parent / "data" / "utd_mhad" / "1.0.0" / "dataset_info.json").read_text()
  assert "says nothing about" in text
  assert "chen2015utdmhad" in text


def _damage(raw):
  (raw / "a1_s1_t1_skeleton.mat").write_bytes(b"MATLAB")


FAULTS = {
  "a misspelt name": (lambda raw: arguments(raw, "utd_mhat"), 2, "did you mean utd_mhad?"),
  "a path as name": (lambda raw: arguments(raw, "../datasets"), 2, "data set: expected"),
  "no data_dir": (lambda raw: arguments(raw)[:2], 2, "--data_dir"),
  "an unknown flag": (lambda raw: [*arguments(raw), "--force"], 2, "--force"),
  "another layout": (lambda raw: [*arguments(raw), "--layout=coco17"], 2, "expected kinect20"),
  "no raw files": (lambda raw: arguments(raw / "none"), 3, "got no such folder"),
  "a damaged file": (lambda raw: _damage(raw) or arguments(raw), 3, "a1_s1_t1_skeleton.mat"),
  "a file in the way": (
    lambda raw: (raw.parent / "data").touch() or arguments(raw),
    5,
    "data",
  ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_one_line_and_an_exit_code(prepare, raw, capsys, name):
  make, code, expected = FAULTS[name]
  assert prepare.main(make(raw)) == code
  out, err = capsys.readouterr()
  assert out == ""
  assert err.startswith("jaxmg: error: ")
  assert err.count("\n") == 1
  assert expected in err
