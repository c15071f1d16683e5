"""Files of which others find all or nothing, and folders that one process writes at a time."""

import contextlib
import datetime
import fcntl
import os
import pathlib
import socket
from collections.abc import Iterator

from jaxmg.errors import LockedError

LOCK = "lock"


@contextlib.contextmanager
def replace(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Gives the path of a temporary file to write, which gets the name `path` in one move.

  It is on the disk before that: neither a kill nor a power failure leaves half a file of this name.
  One process at a time.
  """
  path, part = pathlib.Path(path), _part(path)
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
  """Makes a folder and holds its lock, a file that says who does; LockedError if another does."""
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  with contextlib.ExitStack() as stack:
    who = "another process"
    try:
      lock = stack.enter_context(open(folder / LOCK, "a+"))
      # The kernel releases it when the process dies, however it dies.
      fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
      ours = os.path.samestat(os.fstat(lock.fileno()), os.stat(folder / LOCK))
    except BlockingIOError:
      lock.seek(0)
      ours, who = False, lock.read().strip() or who
    except FileNotFoundError:  # another process has just ended, and removed or moved it
      ours = False
    if not ours:
      raise LockedError(f"{folder} is in use by {who}")
    lock.truncate(0)
    now = datetime.datetime.now().isoformat(" ", "seconds")
    print(f"pid {os.getpid()} on {socket.gethostname()} since {now}", file=lock, flush=True)
    stack.callback((folder / LOCK).unlink, missing_ok=True)  # while it is held
    yield
