"""Being asked to stop: SIGTERM, and Ctrl-C once; the second one ends the process at once."""

import contextlib
import os
import signal
import threading
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxmg import errors

_stop: str | None = None


def stop_reason() -> str | None:
  """Why to save after this step and leave: "SIGTERM", "SIGINT" (Ctrl-C), or None to go on.

  Of several processes each must ask at the same points, and all get the same answer: the signal of
  one, which arrives between other steps of the others, stops all.
  """
  if jax.process_count() == 1:
    return _stop
  reasons = (None, "SIGTERM", "SIGINT")
  asked = multihost_utils.process_allgather(np.int32(reasons.index(_stop)))
  return reasons[asked.max()]


@contextlib.contextmanager
def watched() -> Iterator[None]:
  """SIGTERM and Ctrl-C set the stop reason; the second Ctrl-C ends the process at once."""
  global _stop
  _stop = None
  # Python's handlers wait for the next bytecode, through a whole compilation; only the byte that C
  # writes to the wake-up pipe arrives at once.
  reader, writer = os.pipe()
  os.set_blocking(writer, False)
  thread = threading.Thread(target=_watch, args=(reader,), daemon=True)
  thread.start()
  wakeup = signal.set_wakeup_fd(writer)
  handlers = {n: signal.signal(n, _ask_to_stop) for n in (signal.SIGTERM, signal.SIGINT)}
  try:
    yield
  finally:
    for number, handler in handlers.items():
      signal.signal(number, handler)
    signal.set_wakeup_fd(wakeup)
    os.close(writer)
    thread.join()
    os.close(reader)


def _ask_to_stop(number, frame):
  global _stop
  _stop = _stop or signal.Signals(number).name


def _watch(reader):
  interrupted = False
  while number := os.read(reader, 1):
    if number[0] == signal.SIGINT and interrupted:
      os._exit(errors.Interrupted.exit_code)
    interrupted |= number[0] == signal.SIGINT
    name = signal.Signals(number[0]).name
    os.write(2, f"\njaxmg: {name}: saving after this step, Ctrl-C to stop at once\n".encode())
