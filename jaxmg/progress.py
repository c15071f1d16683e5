"""How far a long command is: a bar on a terminal; elsewhere, a line every 30 seconds."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

T = TypeVar("T")

SECONDS = 30.0  # between two lines


def track(items: Iterable[T], what: str, *, total: int, unit: str, done: int = 0) -> Iterator[T]:
  """Yields the items, and says on stderr how many of `total` are done and how long the rest takes.

  `done` of them were done before: they do not count for the speed.
  """
  if sys.stderr is not None and sys.stderr.isatty():
    import tqdm

    yield from tqdm.tqdm(items, what, total=total, initial=done, unit=f" {unit}", leave=False)
    return
  start = said = time.monotonic()
  for count, item in enumerate(items):
    now = time.monotonic()
    if count and now - said >= SECONDS:
      left = (total - done - count) * (now - start) / count
      say(f"{what}: {done + count:,} of {total:,} {unit}, {_duration(left)} left")
      said = now
    yield item


def say(text: str) -> None:
  """A line on stderr, if there is one: its place is not the command's output."""
  if sys.stderr is not None:
    print(text, file=sys.stderr, flush=True)


def _duration(seconds: float) -> str:
  minutes, seconds = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds} s"
