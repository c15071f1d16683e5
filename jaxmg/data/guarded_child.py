"""The process behind `jaxmg.data.guarded`: reads requests from a pipe, and answers with arrays.

It is started by its file, and loads the functions that it is asked for from theirs: so neither may
import anything of jaxmg, whose `__init__` would bring jax. A request is a line of JSON; an answer
is one too, and the bytes of the arrays that it names.
"""

import importlib.util
import json
import os
import resource
import signal
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

_PAGE = resource.getpagesize()


def main() -> None:
  signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one who asks
  resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  # What a library prints must not come between the answers.
  requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
  nothing = os.open(os.devnull, os.O_RDWR)
  for number in (0, 1, 2):
    os.dup2(nothing, number)
  functions, items = {}, iter(())
  for line in requests:
    try:
      request = json.loads(line)
      # The alarm's default is to end the process, also from within a library.
      signal.setitimer(signal.ITIMER_REAL, request["seconds"])
      if (place := request.get("function")) is not None:
        _limit(resource.RLIM_INFINITY)
        if (function := functions.get(tuple(place))) is None:
          function = functions[tuple(place)] = _load(*place)
        _limit(request["memory"])
        items = _items(function, request["arguments"])
      elif request.get("stop"):
        items.close()
      arrays = next(items, None)
      header = {} if arrays is None else {"arrays": [_header(*one) for one in arrays.items()]}
    except MemoryError:
      items = arrays = None  # and with it what fills the memory
      header = {"memory": True}
    except Exception as error:
      items = arrays = None
      header = _fault(error)
    answers.write(json.dumps(header).encode() + b"\n")
    for array in (arrays or {}).values():
      answers.write(memoryview(array).cast("B") if array.size else b"")
    answers.flush()
    arrays = None
    signal.setitimer(signal.ITIMER_REAL, 0)


def _items(function: Callable, arguments: list) -> Iterator[dict[str, np.ndarray]]:
  """What the function returns, or yields one after the other, as plain arrays."""
  result = function(*arguments)
  for arrays in (result,) if isinstance(result, dict) else result:
    yield {name: _plain(name, array) for name, array in arrays.items()}


def _plain(name: str, array: Any) -> np.ndarray:
  array = np.asarray(array)
  if array.dtype.kind not in "biuf" or array.dtype.itemsize > 8:
    raise ValueError(f"{name}: expected numbers, got {array.dtype}")
  return np.asarray(array, array.dtype.newbyteorder("<"), order="C")


def _header(name: str, array: np.ndarray) -> list:
  return [name, array.dtype.str, list(array.shape)]


def _fault(error: Exception) -> dict[str, Any]:
  text = str(error) or type(error).__name__
  fault = {"error": text.splitlines()[0][:1000]}
  if isinstance(error, ModuleNotFoundError):
    fault["missing"] = error.name
  elif isinstance(error, OSError) and error.filename is not None:  # the system's, not a library's
    fault |= {"errno": error.errno, "error": error.strerror, "file": os.fspath(error.filename)}
  return fault


def _load(file: str, name: str) -> Callable:
  spec = importlib.util.spec_from_file_location("guarded_functions", file)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return getattr(module, name)


def _limit(memory: int) -> None:
  """Lets the process take so many bytes more than it has."""
  if memory != resource.RLIM_INFINITY:
    try:
      with open("/proc/self/statm") as file:
        memory += int(file.read().split()[0]) * _PAGE
    except FileNotFoundError:  # not on Linux: then all that it has counts
      pass
  hard = resource.getrlimit(resource.RLIMIT_AS)[1]  # of a batch system, say
  if hard != resource.RLIM_INFINITY:
    memory = hard if memory == resource.RLIM_INFINITY else min(memory, hard)
  resource.setrlimit(resource.RLIMIT_AS, (memory, hard))


if __name__ == "__main__":
  main()
