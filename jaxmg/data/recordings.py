"""Raw recordings in their order: read by this process, or ahead by several others."""

import collections
import concurrent.futures
import dataclasses
import itertools
import multiprocessing
import os
import pathlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from jaxmg.errors import DataError

# Starting processes takes some seconds: files of fewer bytes are read by this one.
BYTES_FOR_PROCESSES = 64 << 20


@dataclasses.dataclass(frozen=True, eq=False)
class Recording:
  """A pair of `prepared.Builder.recordings`, and the notes that were made before it."""

  source: Any
  known: Any
  notes: list[str]

  @property
  def is_file(self) -> bool:
    """Whether it is to be read; any other thing is handed over as it is."""
    return isinstance(self.source, os.PathLike)

  def stamp(self) -> str:
    """Of a file, its `stamp`; else nothing."""
    return stamp(self.source) if self.is_file else ""


def stamp(path: os.PathLike) -> str:
  """What tells a file, or the files of a folder, from other ones and from later versions.

  A copy or an archive may give two files one size and one time of change; the time at which the
  system last touched the file (ctime), which renaming moves too, nobody can set.
  """
  stats = [(file.name, file.stat()) for file in _files(path)]
  return f"{os.fspath(path)} " + repr(
    [(name, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in stats]
  )


def read(
  plan: list[Recording], read_one: Callable[[pathlib.Path], Any], jobs: int
) -> Iterator[tuple[Recording, Any]]:
  """Each recording and what it holds, in their order; `jobs` processes read files ahead."""
  raw = [one for one in plan if one.is_file]
  size = sum(file.stat().st_size for one in raw for file in _files(one.source))
  if jobs == 1 or len(raw) < 2 or size < BYTES_FOR_PROCESSES:
    for one in plan:
      yield one, read_one(one.source) if one.is_file else one.source
    return
  spawn = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
  with concurrent.futures.ProcessPoolExecutor(jobs, spawn, _end_with_parent) as pool:
    ahead, coming = collections.deque(), iter(plan)
    try:
      while True:
        for one in itertools.islice(coming, 2 * jobs - len(ahead)):
          ahead.append((one, pool.submit(read_one, one.source) if one.is_file else None))
        if not ahead:
          return
        one, future = ahead.popleft()
        yield one, one.source if future is None else future.result()
    except concurrent.futures.process.BrokenProcessPool as error:
      reading = [one.source, *(other.source for other, future in ahead if future)]
      where = " or ".join(map(os.fspath, reading))
      expected, got = "a file that can be read", "a process that died"
      raise DataError(where, expected=expected, got=got) from error
    finally:
      pool.shutdown(wait=True, cancel_futures=True)


def _files(path: os.PathLike) -> list[pathlib.Path]:
  path = pathlib.Path(path)
  if path.is_dir():
    return sorted(file for file in path.iterdir() if file.is_file())
  return [path] if path.exists() else []  # reading it will say that it is missing


def _end_with_parent() -> None:
  """In a process that reads files: ends it when its parent dies, and not by Ctrl-C before."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)

  def wait():
    multiprocessing.parent_process().join()
    os._exit(1)

  threading.Thread(target=wait, daemon=True).start()
