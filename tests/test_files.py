import errno
import os
import pathlib

import pytest

from jaxmg import errors, files


def test_a_folder_is_locked_once_and_its_lock_goes_with_its_holder(tmp_path):
  with files.locked(tmp_path / "set"):
    assert f"pid {os.getpid()}" in (tmp_path / "set" / "lock").read_text()
    message = f"set is in use by pid {os.getpid()}"
    with pytest.raises(errors.LockedError, match=message), files.locked(tmp_path / "set"):
      pass
  assert list(tmp_path.rglob("*")) == [tmp_path / "set"]


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EIO])
def test_without_locks_it_goes_on_with_a_notice_and_leaves_no_lock(
  tmp_path, monkeypatch, capsys, code
):
  def flock(lock, how):
    raise OSError(code, os.strerror(code))

  monkeypatch.setattr(files.fcntl, "flock", flock)
  with files.locked(tmp_path / "set"):
    assert f"pid {os.getpid()}" in (tmp_path / "set" / "lock").read_text()
  assert list((tmp_path / "set").iterdir()) == []
  notice = f"set: no lock ({os.strerror(code)}): use it from one process at a time\n"
  assert capsys.readouterr().err.endswith(notice)


def test_a_network_mount_that_calls_a_held_lock_forbidden_is_in_use(tmp_path, monkeypatch):
  def flock(lock, how):
    raise PermissionError(errno.EACCES, "Permission denied")

  monkeypatch.setattr(files.fcntl, "flock", flock)
  (tmp_path / "lock").write_text("pid 7 on far")
  with pytest.raises(errors.LockedError, match="in use by pid 7"), files.locked(tmp_path):
    pass
  assert (tmp_path / "lock").read_text() == "pid 7 on far"


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_what_is_no_file_is_no_lock_and_stays_as_it_is(tmp_path, kind):
  (tmp_path / "mine").write_text("precious")
  (tmp_path / "set").mkdir()
  lock = tmp_path / "set" / "lock"
  lock.symlink_to(tmp_path / "mine") if kind == "link" else os.mkfifo(lock)
  with pytest.raises(errors.LockedError, match="lock: expected a file"), files.locked(lock.parent):
    pass
  assert (tmp_path / "mine").read_text() == "precious"
  assert os.path.lexists(lock)


def test_a_lock_of_another_holder_is_left(tmp_path):
  with files.locked(tmp_path):
    os.rename(tmp_path / "lock", tmp_path / "moved")
    (tmp_path / "lock").write_text("of the next one")
  assert (tmp_path / "lock").read_text() == "of the next one"


def test_a_folder_that_gets_another_name_at_that_moment_is_in_use(tmp_path, monkeypatch):
  def open_moved(path, *args):
    path.parent.rename(tmp_path / "whole")
    return original(path, *args)

  original = os.open
  monkeypatch.setattr(os, "open", open_moved)
  match = "part is in use by another process"
  with pytest.raises(errors.LockedError, match=match), files.locked(tmp_path / "part"):
    pass


def test_files_of_linked_folders_are_found_and_a_loop_ends(tmp_path):
  (tmp_path / "raw" / "a").mkdir(parents=True)
  (tmp_path / "disk2").mkdir()
  for path in ("raw/one", "raw/a/two", "disk2/three"):
    (tmp_path / path).touch()
  (tmp_path / "raw" / "b").symlink_to(tmp_path / "disk2")
  (tmp_path / "disk2" / "loop").symlink_to(tmp_path / "raw")
  found = [path.relative_to(tmp_path / "raw") for path in files.walk(tmp_path / "raw")]
  assert found == list(map(pathlib.Path, ("one", "a/two", "b/three")))


def test_a_file_has_its_name_when_it_is_whole(tmp_path):
  def fail():
    with files.replace(tmp_path / "file") as part:
      part.write_text("half")
      raise RuntimeError

  with pytest.raises(RuntimeError):
    fail()
  assert not list(tmp_path.iterdir())
  with files.replace(tmp_path / "file") as part:
    part.write_text("whole")
  assert [path.name for path in tmp_path.iterdir()] == ["file"]
  with pytest.raises(OSError, match=r"No space.*'the file'"), files.naming("the file"):
    raise OSError(28, "No space left on device")


def test_a_file_has_one_writer_at_a_time(tmp_path):
  path = tmp_path / "film.gif"
  with files.replace(path) as part:
    part.write_bytes(b"first")
    message = "gif is being written by another process"
    with pytest.raises(errors.LockedError, match=message), files.replace(path):
      pass
  assert path.read_bytes() == b"first"
  message = "expected a file, got a folder"
  with pytest.raises(errors.StorageError, match=message), files.replace(tmp_path):
    pass
  nowhere = tmp_path / "nowhere" / "film.gif"
  with pytest.raises(FileNotFoundError, match=r"nowhere/film\.gif"), files.replace(nowhere):
    pass
  assert [*tmp_path.iterdir()] == [path]
