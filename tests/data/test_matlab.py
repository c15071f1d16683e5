import os
import pathlib

import numpy as np
import pytest
import scipy.io

from jaxmg.data import guarded, matlab
from jaxmg.errors import DataError

JOINTS = np.random.default_rng(0).uniform(-1, 4, (20, 3, 12))


def load(path):
  return guarded.call(matlab.load, path)["d_skel"]


def test_the_joints_of_a_file_come_as_they_are(tmp_path):
  for compressed in (False, True):
    scipy.io.savemat(tmp_path / "a.mat", {"d_skel": JOINTS, "b": 3}, do_compression=compressed)
    np.testing.assert_array_equal(load(tmp_path / "a.mat"), JOINTS)


@pytest.mark.parametrize(
  ("variables", "message"),
  [
    ({"skel": JOINTS}, "variable d_skel is missing"),
    ({"d_skel": JOINTS[:19]}, r"d_skel: expected numbers \[20, 3, T\], got float64 \[19, 3, 12\]"),
    ({"d_skel": JOINTS * 1j}, r"d_skel: expected numbers \[20, 3, T\], got complex128"),
    ({"d_skel": [["a"]]}, r"d_skel: expected numbers \[20, 3, T\], got"),
  ],
)
def test_other_variables_are_refused(variables, message, tmp_path):
  scipy.io.savemat(tmp_path / "a.mat", variables)
  with pytest.raises(DataError, match=f"^{message}"):
    load(tmp_path / "a.mat")


def test_what_is_no_matlab_file_is_refused(tmp_path):
  (tmp_path / "a.mat").write_text("1,2,3\n" * 100)
  with pytest.raises(DataError, match=r"^expected a whole MATLAB file"):
    load(tmp_path / "a.mat")
  with pytest.raises(FileNotFoundError):
    load(tmp_path / "b.mat")


def damaged(data: bytes, rng: np.random.Generator) -> bytes:
  """The file cut off, or with one to eight bits flipped, or with up to 64 bytes replaced."""
  data, place = bytearray(data), int(rng.integers(len(data)))
  kind = rng.integers(4)
  if kind == 0:
    return bytes(data[:place])
  if kind == 1:
    data[place : place + int(rng.integers(1, 64))] = rng.bytes(int(rng.integers(1, 64)))
  else:  # where most of a file's structure is, or anywhere
    for bit in rng.integers(8 * (320 if kind == 2 else len(data)), size=rng.integers(1, 9)):
      data[bit // 8] ^= 1 << (bit % 8)
  return bytes(data)


def check_damaged(files, folder, count, *, sums):
  """Every damaged file is one error, or right: the very numbers where the file has check sums."""
  rng = np.random.default_rng(0)
  refused = []
  for number in range(count):
    file = files[rng.integers(len(files))]
    right, path = load(file), folder / f"{number}.mat"
    path.write_bytes(damaged(file.read_bytes(), rng))
    try:
      joints = load(path)
    except DataError as error:
      refused.append(str(error))
    else:
      assert joints.shape[:2] == (20, 3)
      assert not sums or np.array_equal(joints, right)
  assert all(len(message.splitlines()) == 1 for message in refused)
  return len(refused)


def test_a_damaged_file_is_right_or_one_error(tmp_path):
  for compressed in (False, True):
    path = tmp_path / "whole.mat"
    scipy.io.savemat(path, {"d_skel": JOINTS}, do_compression=compressed)
    assert check_damaged([path], tmp_path, 40, sums=compressed) > 10


@pytest.mark.skipif(
  "JAXMG_REAL_DATA" not in os.environ, reason="JAXMG_REAL_DATA names no folder of real data"
)
def test_3520_damaged_files_of_utd_mhad_are_right_or_one_error(tmp_path):
  folder = pathlib.Path(os.environ["JAXMG_REAL_DATA"]) / "utd_mhad" / "Skeleton"
  files = sorted(folder.glob("*.mat"))
  assert len(files) == 861
  assert check_damaged(files, tmp_path, 3520, sums=True) > 3000
