"""Raw files -> key points: which reader reads them. The readers are tested in readers/."""

import os
import sys

import numpy as np
import pytest

from jaxmg.data import readers
from jaxmg.errors import ConfigError, DataError


def _bytes(path, content):
  path.write_bytes(content)
  return path


def test_a_missing_package_says_what_to_install(tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "python_calamine", None)
  with pytest.raises(DataError, match=r"needs python_calamine \(pip install 'jaxmg\[prepare\]'\)"):
    readers.read(_bytes(tmp_path / "a.xlsx", b""))


def test_a_pipe_is_not_waited_for(tmp_path):
  os.mkfifo(tmp_path / "one.csv")
  with pytest.raises(DataError, match=r"one\.csv: expected a file or a folder, got a pipe"):
    readers.read(tmp_path / "one.csv")


@pytest.mark.parametrize(
  ("name", "seen", "hint"),
  [
    ("a.json", "JSON of AlphaPose, MMPose or MediaPipe", "one OpenPose file per frame, or a .npy"),
    ("a.txt", "text of YOLO-pose", r"its x, y are normalised: .* x \* width, y \* height, score"),
    ("a.h5", "DeepLabCut or SLEAP", "write a csv, a frame per row, of x, y, score of each point"),
    ("a.c3d", "motion capture", "in metres, and --points=joints3d"),
    ("a.BVH", "motion capture", "in metres, and --points=joints3d"),
  ],
)
def test_a_file_of_another_tool_is_one_error_that_says_how_to_convert_it(
  tmp_path, name, seen, hint
):
  with pytest.raises(DataError, match=rf"{name}: expected \.csv, .*, got {seen}\? \(.*{hint}"):
    readers.read(_bytes(tmp_path / name, b"1"))


@pytest.mark.parametrize(("name", "got"), [("a.gif", r"\.gif"), ("a", "no suffix")])
def test_any_other_suffix_is_named(tmp_path, name, got):
  with pytest.raises(DataError, match=rf"expected \.csv, \.xlsx, \.npy, \.npz, .*, got {got}$"):
    readers.read(_bytes(tmp_path / name, b"1"))


def test_flags_that_cannot_be_are_no_faults_of_the_file(tmp_path):
  np.save(tmp_path / "a.npy", np.ones((4, 17, 3)))
  for told in ({"axes": "XYZ"}, {"layout": "coco71"}):
    with pytest.raises(ConfigError):
      readers.read(tmp_path / "a.npy", **told)
