"""Files of which others find all or nothing, and folders that one process writes at a time."""

import contextlib
import datetime
import errno
import fcntl
import os
import pathlib
import socket
import stat
from collections.abc import Iterator
from typing import IO

from jaxmg import progress
from jaxmg.errors import LockedError, StorageError

LOCK = "lock"


@contextlib.contextmanager
def replace(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Gives the path of a temporary file to write, which gets the name `path` in one move.

  It is on the disk before that: neither a kill nor a power failure leaves half a file of this name.
  LockedError where another process is writing it.
  """
  path, part = pathlib.Path(path), _part(path)
  if path.is_dir():
    raise StorageError(path, expected="a file", got="a folder")
  try:
    lock = open(part, "ab")  # noqa: SIM115 (closed below)
  except OSError as error:
    error.filename = os.fspath(path)
    raise
  with lock:
    try:
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # of a file system without locks, nothing is known
      if error.errno in (errno.EAGAIN, errno.EACCES):
        raise LockedError(f"{path} is being written by another process") from error
    try:
      with naming(path):
        yield part
        sync(part)
        os.replace(part, path)
    except BaseException:
      part.unlink(missing_ok=True)
      raise
  sync(path.parent)


@contextlib.contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
  """Gives an OSError of a file that is open, which names none, the name of it."""
  try:
    yield
  except OSError as error:
    if error.filename is None:
      error.filename = os.fspath(path)
    raise


def remove(path: str | os.PathLike) -> None:
  """Removes a file, if it is there, and what a killed `replace` left of it."""
  for left in (pathlib.Path(path), _part(path)):
    left.unlink(missing_ok=True)


def _part(path: str | os.PathLike) -> pathlib.Path:
  path = pathlib.Path(path)
  return path.parent / f".part.{path.name}"


def sync(path: str | os.PathLike) -> None:
  """Waits until a file, or the names in a folder, are on the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


@contextlib.contextmanager
def locked(folder: str | os.PathLike) -> Iterator[None]:
  """Makes a folder and holds its lock, a file that says who does; LockedError if another does.

  Where the file system has no locks, as on some network mounts, it says so: none then keeps others
  out.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / LOCK
  with contextlib.ExitStack() as stack:
    try:
      # Neither through a link nor into a pipe: what another put there stays as it is.
      descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
      if error.errno == errno.ELOOP:
        raise LockedError(f"{path}: expected a file, got a link") from error
      if error.errno == errno.ENOENT:  # the folder has just got another name
        raise LockedError(f"{folder} is in use by another process") from error
      raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
      os.close(descriptor)
      raise LockedError(f"{path}: expected a file, got a pipe or a device")
    lock = stack.enter_context(open(descriptor, "r+", encoding="utf-8", errors="replace"))
    try:
      # The kernel releases it when the process dies, however it dies.
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
      if error.errno in (errno.EAGAIN, errno.EACCES):  # the second of a lock on a network mount
        who = lock.read().strip() or "another process"
        raise LockedError(f"{folder} is in use by {who}") from error
      # ENOLCK, ENOTSUP, ...: every file system without locks says it in its own way.
      progress.say(f"{folder}: no lock ({error.strerror}): use it from one process at a time")
    if not _is_at(lock, path):  # another process has just ended, and removed or moved it
      raise LockedError(f"{folder} is in use by another process")
    stack.callback(lambda: path.unlink() if _is_at(lock, path) else None)  # while it is held
    with naming(path):
      lock.truncate(0)
      now = datetime.datetime.now().isoformat(" ", "seconds")
      print(f"pid {os.getpid()} on {socket.gethostname()} since {now}", file=lock, flush=True)
    yield


def _is_at(file: IO, path: pathlib.Path) -> bool:
  """Whether an open file still has this name."""
  try:
    return os.path.samestat(os.fstat(file.fileno()), os.stat(path, follow_symlinks=False))
  except FileNotFoundError:
    return False


def walk(folder: str | os.PathLike) -> Iterator[pathlib.Path]:
  """All files below a folder, in order, those of linked folders too; a loop of links ends."""
  seen = set()
  for at, names, files in os.walk(folder, followlinks=True):
    place = os.stat(at)
    if (place.st_dev, place.st_ino) in seen:
      names.clear()
      continue
    seen.add((place.st_dev, place.st_ino))
    names.sort()
    yield from (pathlib.Path(at, name) for name in sorted(files))
