"""Libraries that damaged files crash, run in a process of their own.

    arrays = guarded.call(matlab.load, path)
    for chunk in guarded.stream(decoding.pictures, path, 256, 341, 0, memory=4 << 30):
      ...

The process is started once, with all that its functions import, and serves call after call; where
a file ends it, the next call starts another. What it answers is not trusted: arrays of numbers as
plain bytes, no larger than the memory it was allowed, and one sentence for what went wrong.
"""

import atexit
import contextlib
import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from jaxmg.data import guarded_child
from jaxmg.errors import DataError

_MAX_LINE = 1 << 16  # bytes of an answer's head
_DTYPE = re.compile(r"\|[biu]1|<[iuf][248]")


def call(
  function: Callable, *arguments: Any, memory: int = 2 << 30, seconds: int | float = 60
) -> dict[str, np.ndarray]:
  """What `function(*arguments)` returns, a dictionary of arrays of numbers (`stream`)."""
  (arrays,) = stream(function, *arguments, memory=memory, seconds=seconds)
  return arrays


def stream(
  function: Callable, *arguments: Any, memory: int = 2 << 30, seconds: int | float = 60
) -> Iterator[dict[str, np.ndarray]]:
  """Yields the dictionaries of arrays that `function(*arguments)` yields, each when it is wanted.

  Two streams that are open at a time, or two threads, have a process each. The error does not say
  which file it was.

  Args:
    function: one at the top of a module that imports nothing of jaxmg.
    arguments: texts, paths and numbers.
    memory: bytes that the function may take.
    seconds: how long each dictionary may take.

  Raises:
    DataError: where the function raises, or takes too much memory or time, or crashes.
    OSError, ModuleNotFoundError: as the function's.
  """
  worker = _take()
  usable = False
  try:
    place = [sys.modules[function.__module__].__file__, function.__name__]
    arguments = [os.fspath(one) if isinstance(one, os.PathLike) else one for one in arguments]
    limits = {"memory": memory, "seconds": seconds}
    answer = worker.ask(limits | {"function": place, "arguments": arguments}, **limits)
    while answer.keys() == {"arrays"}:
      usable = True
      yield answer["arrays"]
      usable = False
      answer = worker.ask({"seconds": seconds}, **limits)
    usable = "memory" not in answer
    if answer:
      raise _error(answer, memory)
  except GeneratorExit:
    usable = usable and _idle is not None and worker.stopped(**limits)
    raise
  finally:
    if _idle is None:  # Python is ending, and with it the pipe that the process waits at
      pass
    elif usable:
      _idle.append(worker)
    else:
      worker.end()


class _Worker:
  """A process that waits for requests."""

  def __init__(self):
    # Their threads would reserve more memory than most files need.
    single = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"), "1")
    self.owner = os.getpid()
    self.process = subprocess.Popen(
      # Without -P the modules beside the file could be taken for others of their names.
      [sys.executable, "-P", guarded_child.__file__],
      stdin=subprocess.PIPE,
      stdout=subprocess.PIPE,
      stderr=subprocess.DEVNULL,
      env=os.environ | single,
    )

  @property
  def alive(self) -> bool:
    """Whether it can be asked; one that another process started, before a fork, cannot."""
    return self.owner == os.getpid() and self.process.poll() is None

  def ask(self, request: dict[str, Any], *, memory: int, seconds: int | float) -> dict[str, Any]:
    """The checked answer; "arrays" of it is the dictionary of arrays."""
    if self.owner != os.getpid():
      raise RuntimeError("a stream cannot go on in a forked process")
    try:
      self.process.stdin.write(json.dumps(request).encode() + b"\n")
      self.process.stdin.flush()
      line = self.process.stdout.readline(_MAX_LINE)
      if not line.endswith(b"\n"):
        raise ValueError if len(line) == _MAX_LINE else EOFError
      answer = dict(json.loads(line))
      if "arrays" in answer:
        answer["arrays"] = self._arrays(answer["arrays"], memory)
      return answer
    except (EOFError, BrokenPipeError):
      self.process.stdout.close()  # else it might wait for room to write
      raise DataError(_end(self.process.wait(), seconds), hint="a damaged file?") from None
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
      raise DataError("its reader answered nonsense", hint="a damaged file?") from error

  def _arrays(self, heads: list, memory: int) -> dict[str, np.ndarray]:
    arrays = {}
    for name, dtype, shape in heads:
      sound = _DTYPE.fullmatch(dtype) and all(type(size) is int and size >= 0 for size in shape)
      memory -= math.prod(shape) * np.dtype(dtype).itemsize if sound else 0
      if not sound or memory < 0:
        raise ValueError
      arrays[name] = np.empty(shape, dtype)
      if arrays[name].size:
        into = memoryview(arrays[name].reshape(-1)).cast("B")
        if self.process.stdout.readinto(into) != len(into):
          raise EOFError
    return arrays

  def stopped(self, *, memory: int, seconds: int | float) -> bool:
    """Whether it has left the function in whose middle it is."""
    try:
      return not self.ask({"stop": True, "seconds": seconds}, memory=memory, seconds=seconds)
    except (DataError, RuntimeError):
      return False

  def end(self) -> None:
    if self.owner == os.getpid():
      self.process.kill()
      self.process.wait()
    else:
      self.process.returncode = 0  # not this process's to wait for
    for pipe in (self.process.stdout, self.process.stdin):
      with contextlib.suppress(OSError):
        pipe.close()


_idle: list[_Worker] = []


def _take() -> _Worker:
  while _idle:
    worker = _idle.pop()
    if worker.alive:
      return worker
    worker.end()
  return _Worker()


@atexit.register
def _end_all() -> None:
  while _idle:
    _idle.pop().end()


def _error(answer: dict[str, Any], memory: int) -> Exception:
  if "memory" in answer:
    return DataError(f"its reader needs more than {memory >> 20} MiB", hint="a damaged file?")
  text = str(answer.get("error"))
  if "missing" in answer:
    return ModuleNotFoundError(text, name=str(answer["missing"]))
  if "errno" in answer:
    return OSError(answer["errno"], text, str(answer.get("file")))
  return DataError(text)


def _end(code: int, seconds: int | float) -> str:
  if code == -signal.SIGALRM:
    return f"its reader took more than {seconds:g} s"
  if code < 0:
    return f"its reader ended by signal {-code} ({signal.Signals(-code).name})"
  return f"its reader ended with code {code}"
