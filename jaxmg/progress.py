"""How far a long command is: a bar on a terminal; elsewhere, a line every 30 seconds."""

import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

SECONDS = 30.0  # between two lines
_REFRESH = 0.5  # seconds, of what a bar says beside itself


class Bar:
  """Counts what is done of `total`, and says it on stderr and how long the rest takes.

  `done` of them were done before: they do not count for the speed. With `shown=False` nothing is
  said, as by all but the first of several processes.
  """

  def __init__(self, what: str, *, total: int, unit: str, done: int = 0, shown: bool = True):
    self._what, self._total, self._unit = what, total, unit
    self._before, self._count, self._shown = done, 0, shown
    self._start = self._last = self._said = time.monotonic()
    self._bar = None
    if shown and sys.stderr is not None and sys.stderr.isatty():
      import tqdm

      self._bar = tqdm.tqdm(desc=what, total=total, initial=done, unit=f" {unit}", leave=False)

  def update(self, about: Callable[[], str] = str) -> None:
    """One more is done; `about()`, called when it is shown, is what else there is to say of it."""
    self._count, self._last = self._count + 1, time.monotonic()
    if self._bar is not None:
      if self._last - self._said >= _REFRESH:
        self._bar.set_postfix_str(about(), refresh=False)
        self._said = self._last
      self._bar.update()
    elif self._shown and self._last - self._said >= SECONDS:
      done = self._before + self._count
      left = (self._total - done) * (self._last - self._start) / self._count
      more = f"{text}, " if (text := about()) else ""
      say(f"{self._what}: {done:,} of {self._total:,} {self._unit}, {more}{_duration(left)} left")
      self._said = self._last

  def resume(self) -> None:
    """The time since the last update does not count: something else was done."""
    now = time.monotonic()
    self._start, self._last = self._start + now - self._last, now
    if self._bar is not None:
      self._bar.unpause()

  def write(self, text: str) -> None:
    """Prints a line on stdout, above the bar."""
    if self._bar is not None:
      self._bar.write(text)
    else:
      print(text)
    sys.stdout.flush()

  def close(self) -> None:
    if self._bar is not None:
      self._bar.close()


def track(items: Iterable[T], what: str, *, total: int, unit: str, done: int = 0) -> Iterator[T]:
  """Yields the items, and counts them with a `Bar`."""
  bar = Bar(what, total=total, unit=unit, done=done)
  try:
    for item in items:
      yield item
      bar.update()
  finally:
    bar.close()


def say(text: str) -> None:
  """A line on stderr, if there is one: its place is not the command's output."""
  if sys.stderr is not None:
    print(text, file=sys.stderr, flush=True)


def say_once(notes: Iterable[str], said: set[str]) -> None:
  """Says notes, each once: those that differ in numbers alone are one. `said` are those before."""
  for note in notes:
    if (same := re.sub(r"[\d.]+", "", note)) not in said:
      said.add(same)
      say(f"note: {note}")


def _duration(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
