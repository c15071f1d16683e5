"""Classes over time: the probabilities of windows that overlap, averaged frame by frame.

A piece `(first, last, probabilities)` is of frames counted from 0, both in it; its probabilities
are None where nobody is to be seen. All is done as windows come: what is held does not grow with
the length of a recording.
"""

import csv
import dataclasses
import itertools
import math
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np
from absl import flags

from jaxmg import errors, files

Piece = tuple[int, int, np.ndarray | None]

COLUMNS = 2000  # of a picture, at most


@dataclasses.dataclass(frozen=True)
class Clock:
  """How frames are told: in seconds, or by their numbers. `first` is that of the first one."""

  fps: float | None
  first: int = 0

  @property
  def unit(self) -> str:
    return "frame" if self.fps is None else "second"

  def of(self, frame: int) -> float:
    return self.first + frame if self.fps is None else (self.first + frame) / self.fps

  def span(self, first: int, last: int) -> str:
    """A frame's number is that of `predict --frames`; a second ends where the next frame begins."""
    if self.fps is None:
      return f"{self.of(first):7d} to {self.of(last):7d}"
    return f"{self.of(first):9.2f} to {self.of(last + 1):9.2f} s"


def define(values: flags.FlagValues) -> None:
  options = {"flag_values": values}
  flags.DEFINE_float("window", None, "Seconds (with --fps), or frames, of a window.", **options)
  flags.DEFINE_float("hop", None, "From window to window; default: half a window.", **options)
  flags.DEFINE_float("fps", None, "Frames a second of the recording.", **options)
  flags.DEFINE_string("save", None, "FILE.csv or FILE.png, for the timeline.", **options)


def frames(values: flags.FlagValues) -> tuple[int, int] | None:
  """The frames of a window and of a hop, or None without --window; ConfigError for wrong flags."""
  if values.window is None:
    for name in ("hop", "fps", "save"):
      if values[name].present:
        raise errors.ConfigError(f"--{name} needs --window")
    return None
  if values.fps is not None and not 0 < values.fps < math.inf:
    raise errors.ConfigError("--fps", expected="frames a second, above 0", got=values.fps)
  length = _frames("--window", values.window, values.fps)
  hop = max(1, length // 2) if values.hop is None else _frames("--hop", values.hop, values.fps)
  if hop > length:
    expected = f"at most the window, {values.window:g}"
    raise errors.ConfigError("--hop", expected=expected, got=f"{values.hop:g}")
  if values.save is not None:
    path = pathlib.Path(values.save)
    if path.suffix.lower() not in SAVERS:
      expected = f"a name in {' or '.join(SAVERS)}"
      raise errors.ConfigError("--save", expected=expected, got=values.save)
    if path.is_dir() or not path.parent.is_dir():
      expected = "a file, in a folder that is there"
      raise errors.ConfigError("--save", expected=expected, got=values.save)
  return length, hop


def _frames(flag: str, value: float, fps: float | None) -> int:
  if fps is not None:
    if not 1 <= value * fps < math.inf:
      raise errors.ConfigError(
        flag, expected=f"seconds, a frame ({1 / fps:.3g}) at least", got=value
      )
    return round(value * fps)
  if not 1 <= value < math.inf or value != int(value):
    hint = "the file has no rate: --fps=25 makes them seconds"
    raise errors.ConfigError(flag, expected="whole frames", got=f"{value:g}", hint=hint)
  return int(value)


def averaged(windows: Iterable[Piece]) -> Iterator[Piece]:
  """Windows, each beginning at or after the one before -> pieces that the same windows cover.

  Of each piece the mean of the windows that show somebody. Only windows that may still cover a
  frame are held.
  """
  covering, at = [], 0
  for window in itertools.chain(windows, (None,)):
    while covering and (window is None or at < window[0]):
      last = min(last for _, last, _ in covering)
      last = last if window is None else min(last, window[0] - 1)
      shown = [probabilities for *_, probabilities in covering if probabilities is not None]
      yield at, last, np.mean(shown, axis=0) if shown else None
      at = last + 1
      covering = [one for one in covering if one[1] >= at]
    covering.append(window)


def segments(pieces: Iterable[Piece]) -> Iterator[tuple[int, int, int | None, float]]:
  """Runs of frames of one best class, or of nobody (None), and the mean of its probability."""

  def best(piece):
    return None if piece[2] is None else int(piece[2].argmax())

  for k, run in itertools.groupby(pieces, best):
    start, total = None, 0.0
    for first, last, probabilities in run:
      start = first if start is None else start
      total += 0.0 if k is None else (last + 1 - first) * float(probabilities[k])
    yield start, last, k, total / (last + 1 - start)


def tell(
  pieces: Iterable[Piece],
  names: tuple[str, ...],
  clock: Clock,
  *,
  num_frames: int,
  save: str | None,
  top: int,
) -> None:
  """Prints the segments, and saves the pieces that they are made of as they come.

  `top` is of a picture: it shows the classes that are among so many of the best anywhere.
  """
  if save is not None:
    path = pathlib.Path(save)
    options = {"num_frames": num_frames, "top": top}
    pieces = SAVERS[path.suffix.lower()](pieces, path, names, clock, **options)
  for first, last, k, probability in segments(pieces):
    what = f"{'':6}  nobody" if k is None else f"{probability:6.1%}  {names[k]}"
    print(f"  {clock.span(first, last)}  {what}")
  if save is not None:
    print(f"  saved: {save}")


def table(pieces, path, names, clock, *, num_frames, top) -> Iterator[Piece]:
  """The same pieces, which are on the way written to a csv, a line a frame."""
  seconds = clock.fps is not None
  with files.replace(path) as part, open(part, "w", newline="", encoding="utf-8") as file:
    writer = csv.writer(file)
    writer.writerow(["frame", *["second"] * seconds, "class", *names])
    for first, last, probabilities in pieces:
      if probabilities is None:
        cells = [""] * (1 + len(names))
      else:
        cells = [names[probabilities.argmax()], *(f"{value:.6f}" for value in probabilities)]
      for frame in range(first, last + 1):
        at = [f"{clock.of(frame):.3f}"] if seconds else []
        writer.writerow([clock.first + frame, *at, *cells])
      yield first, last, probabilities


def picture(pieces, path, names, clock, *, num_frames, top) -> Iterator[Piece]:
  """The same pieces; in the end a picture of them is drawn, a column the mean of its frames."""
  from . import plots  # with the loaders, which prediction does without

  columns = min(num_frames, COLUMNS)
  sums, counts = np.zeros((columns, len(names))), np.zeros((columns, 1))
  for first, last, probabilities in pieces:
    if probabilities is not None:
      at, count = np.unique(np.arange(first, last + 1) * columns // num_frames, return_counts=True)
      sums[at] += count[:, None] * probabilities
      counts[at] += count[:, None]
    yield first, last, probabilities
  shares = np.where(counts > 0, sums / np.maximum(counts, 1), np.nan)
  order = np.argsort(-shares[counts[:, 0] > 0], axis=1, kind="stable")
  seen = np.unique(order[:, :top])
  ends = clock.of(0), clock.of(num_frames)
  plots.timeline(path, shares[:, seen], [names[k] for k in seen], ends=ends, unit=clock.unit)


SAVERS = {".csv": table, ".png": picture}
