"""A file is whole when it has its name."""

import contextlib
import os
import pathlib
from collections.abc import Iterator


@contextlib.contextmanager
def replace(path: str | os.PathLike) -> Iterator[pathlib.Path]:
  """Gives the path of a temporary file to write, which gets the name `path` in one move.

  It is on the disk before that: neither a kill nor a power failure leaves half a file of this name.
  One process at a time.
  """
  path, part = pathlib.Path(path), _part(path)
  try:
    yield part
    sync(part)
    os.replace(part, path)
  except BaseException:
    part.unlink(missing_ok=True)
    raise
  sync(path.parent)


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
