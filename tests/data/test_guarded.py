import importlib.util
import os
import pathlib
import select
import signal
import subprocess
import sys

import numpy as np
import pytest

from jaxmg.data import guarded
from jaxmg.errors import DataError

FILE = pathlib.Path(__file__).parent / "guarded_functions.py"
spec = importlib.util.spec_from_file_location("guarded_functions", FILE)
functions = sys.modules["guarded_functions"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(functions)


def pid():
  return int(guarded.call(functions.pid)["pid"])


def test_a_call_gives_arrays_of_every_kind_and_of_no_size():
  found = guarded.call(functions.add, pathlib.Path("/a"), 3)
  assert found["sum"].tolist() == [5, 0.5]
  assert found["none"].shape == (0, 3)
  assert found["none"].dtype == np.int16
  kinds = guarded.call(functions.kinds)
  assert [array.dtype.str for array in kinds.values()] == ["|b1", "|u1", "<i2", "<f4", "<i8", "<f8"]
  assert all(array.tolist() == [1, 1] for array in kinds.values())


def test_a_large_result_is_whole():
  np.testing.assert_array_equal(guarded.call(functions.large)["large"], np.arange(1 << 20))


def test_one_process_serves_all_calls_and_it_is_not_this_one():
  assert pid() == pid() != os.getpid()


def test_what_a_library_prints_is_not_seen(capfd):
  before = pid()
  assert guarded.call(functions.noise)["pid"] == before
  assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
  ("function", "limits", "message"),
  [
    ("crash", {}, r"its reader ended by signal 11 \(SIGSEGV\) \(a damaged file\?\)"),
    ("leave", {}, r"its reader ended with code 7 \(a damaged file\?\)"),
    ("fill", {"memory": 64 << 20}, r"its reader needs more than 64 MiB \(a damaged file\?\)"),
  ],
)
def test_a_reader_that_dies_is_one_error_and_the_next_call_has_another(function, limits, message):
  before = pid()
  with pytest.raises(DataError, match=f"^{message}$"):
    guarded.call(getattr(functions, function), **limits)
  assert pid() != before


def test_a_reader_that_hangs_is_ended(tmp_path):
  os.mkfifo(tmp_path / "fifo")
  reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK)
  with pytest.raises(DataError, match=r"^its reader took more than 0\.2 s \(a damaged file\?\)$"):
    guarded.call(functions.hang, tmp_path / "fifo", seconds=0.2)
  os.close(reader)


@pytest.mark.parametrize(
  ("kind", "message"),
  [("value", "^first$"), ("library", "^could not read$"), ("objects", "^objects: .*got object$")],
)
def test_what_a_reader_raises_is_one_line_and_its_process_goes_on(kind, message):
  before = pid()
  with pytest.raises(DataError, match=message):
    guarded.call(functions.fail, kind)
  assert pid() == before


def test_faults_of_the_system_and_the_installation_stay_what_they_are():
  with pytest.raises(FileNotFoundError) as error:
    guarded.call(functions.fail, "system")
  assert error.value.filename == "/nowhere"
  with pytest.raises(ModuleNotFoundError) as error:
    guarded.call(functions.fail, "module")
  assert error.value.name == "nowhere"


@pytest.mark.parametrize(
  "text",
  [
    "[1]",
    "[" * 20000,
    "x" * (1 << 17),
    '{"arrays": [["a", "<f8", [1000000000]]]}',
    '{"arrays": [["a", "|O", [1]]]}',
    '{"arrays": [["a", "<f8", [-1]]]}',
  ],
)
def test_an_answer_that_cannot_be_is_not_believed(text):
  with pytest.raises(
    DataError, match=r"^its reader (answered nonsense|ended with code 1) \(a damaged"
  ):
    guarded.call(functions.lie, text)


def test_a_stream_comes_as_it_is_wanted(tmp_path):
  numbers = [int(one["number"]) for one in guarded.stream(functions.count, 5, tmp_path / "end")]
  assert numbers == [0, 1, 2, 3, 4]


def test_a_stream_that_is_left_early_is_closed_and_its_process_goes_on(tmp_path):
  before = pid()
  stream = guarded.stream(functions.count, 1 << 40, tmp_path / "end")
  assert [int(next(stream)["number"]) for _ in range(3)] == [0, 1, 2]
  assert not (tmp_path / "end").exists()
  stream.close()
  assert (tmp_path / "end").exists()
  assert pid() == before


def test_two_streams_at_a_time_do_not_mix(tmp_path):
  streams = [guarded.stream(functions.count, 3, tmp_path / "end") for _ in range(2)]
  pairs = [[int(one["number"]) for one in pair] for pair in zip(*streams, strict=True)]
  assert pairs == [[0, 0], [1, 1], [2, 2]]


def test_a_process_from_before_a_fork_is_not_asked(monkeypatch, tmp_path):
  guarded._end_all()
  before = pid()
  stream = guarded.stream(functions.count, 3, tmp_path / "end")
  next(stream)
  other = os.getpid() + 1
  with monkeypatch.context() as patch:
    patch.setattr(os, "getpid", lambda: other)
    with pytest.raises(RuntimeError, match="forked"):
      next(stream)
    assert pid() != before
    guarded._end_all()
  os.waitpid(before, 0)  # it ends with its pipes


SCRIPT = f"""
import importlib.util, signal, sys
from jaxmg.data import guarded
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell's jobs ignore it
spec = importlib.util.spec_from_file_location("guarded_functions", {str(FILE)!r})
functions = sys.modules["guarded_functions"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(functions)
try:
  guarded.call(functions.hang, sys.argv[1])
except KeyboardInterrupt:
  print(int(guarded.call(functions.pid)["pid"]), flush=True)
  sys.stdin.read()
"""


@pytest.mark.skipif(not hasattr(os, "pidfd_open"), reason="needs Linux")
def test_ctrl_c_is_for_the_parent_and_its_end_is_the_end_of_both(tmp_path):
  os.mkfifo(tmp_path / "fifo")
  with subprocess.Popen(
    [sys.executable, "-c", SCRIPT, tmp_path / "fifo"],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
    start_new_session=True,
  ) as process:
    open(tmp_path / "fifo").close()  # opens when the function has begun
    os.killpg(process.pid, signal.SIGINT)
    child = os.pidfd_open(int(process.stdout.readline()))
    process.kill()
    assert select.select([child], [], [], 60)[0]  # readable when the process has ended
    os.close(child)
    assert process.stderr.read() == ""
