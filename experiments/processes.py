"""Commands as processes of their own: side by side, to their end, and stopped when we are."""

import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Sequence
from concurrent import futures
from typing import IO

from jaxmg import errors

from . import signals


def share_cores(jobs: int) -> Callable[[], None]:
  """What gives each of some threads, and what it starts, as many cores of its own (Linux)."""
  cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
  shares = iter([cores[i::jobs][: len(cores) // jobs] for i in range(jobs)])

  def begin():
    if share := next(shares):
      os.sched_setaffinity(0, share)

  return begin


def call(arguments: Sequence[str], log: IO[str], stop: threading.Event) -> None:
  """Runs a module to its end; one that a killed ablation has left running is waited for."""
  begin, waited = log.seek(0, os.SEEK_END), False
  while True:
    # In a process group of its own: Ctrl-C reaches it through us alone, once.
    child = subprocess.Popen(
      [sys.executable, "-m", *arguments], stdout=log, stderr=log, start_new_session=True
    )
    while child.poll() is None and not stop.wait(0.1):
      pass
    if stop.is_set():
      child.terminate()
      child.wait()
      raise errors.Preempted("stopped")
    if child.returncode != errors.LockedError.exit_code:
      break
    if not waited:
      print(f"{log.name}: waits for a process that has the run in hand", flush=True)
      waited = True
    stop.wait(2)
  if child.returncode:
    log.seek(begin)
    said = re.findall("^jaxmg: error: (.*)$", log.read(), re.MULTILINE)
    last = said[-1] if said else f"{arguments[0]} ended with code {child.returncode}"
    error = errors.Error(f"{log.name}: {last}")
    error.exit_code = child.returncode if child.returncode > 0 else errors.Error.exit_code
    raise error


def wait(pending: Iterable[futures.Future]) -> None:
  """Returns when all is done; raises what the first of them raises, or that we were stopped."""
  pending = set(pending)
  while pending:
    if signal_name := signals.stop_reason():
      kind = errors.Interrupted if signal_name == "SIGINT" else errors.Preempted
      raise kind(f"{signal_name}: the runs are saved; the same command goes on from there")
    done, pending = futures.wait(pending, timeout=0.2, return_when=futures.FIRST_EXCEPTION)
    for future in done:
      future.result()
