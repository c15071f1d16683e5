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
  path = pathlib.Path(path)
  part = path.with_name(f".part.{path.name}")
  try:
    yield part
    sync(part)
    os.replace(part, path)
  except BaseException:
    part.unlink(missing_ok=True)
    raise
  sync(path.parent)


def sync(path: str | os.PathLike) -> None:
  """Waits until a file, or the names in a folder, are on the disk."""
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)
