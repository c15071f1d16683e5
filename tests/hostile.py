"""Reads files that attack their reader, in a process of its own that cannot take much memory.

  python hostile.py MODULE FUNCTION FOLDER

prints a line of JSON for every file of the folder: what came of it, the seconds, and by how many
bytes the process has grown since the first.
"""

import importlib
import json
import pathlib
import resource
import sys
import time
import types

PACKAGE = pathlib.Path(__file__).parents[1] / "jaxmg"
MEMORY = 300 << 20


def used(name):
  """Bytes of memory by their name in /proc; getrusage has those of the parent process in it."""
  status = pathlib.Path("/proc/self/status").read_text()
  return int(status.partition(f"{name}:")[2].split()[0]) << 10


def main(module, function, folder):
  # Without its __init__, which imports jax: that would take more than the files may.
  jaxmg = types.ModuleType("jaxmg")
  jaxmg.__path__ = [str(PACKAGE)]
  sys.modules["jaxmg"] = jaxmg
  read = getattr(importlib.import_module(module), function)
  limit = used("VmSize") + MEMORY
  resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
  before = used("VmHWM")
  for path in sorted(pathlib.Path(folder).iterdir()):
    start = time.process_time()
    try:
      outcome = f"read: {type(read(path)).__name__}"
    except Exception as error:
      outcome = f"{type(error).__name__}: {error}"
    seconds = time.process_time() - start
    print(json.dumps([path.name, outcome, seconds, used("VmHWM") - before]), flush=True)


if __name__ == "__main__":
  main(*sys.argv[1:])
