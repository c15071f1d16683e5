"""Classes over time: the probabilities of windows that overlap, averaged frame by frame.

A piece `(first, last, probabilities)` is of frames counted from 0, both in it; its probabilities
are None where nobody is to be seen. All is done as windows come: what is held does not grow with
the length of a recording.
"""

import csv
import dataclasses
import itertools
import math
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from absl import flags

from jaxmg import errors, files

from . import movies, overlay

Piece = tuple[int, int, np.ndarray | None]

COLUMNS = 2000  # of a picture, at most


@dataclasses.dataclass(frozen=True)
class Clock:
  """How frames are told: in seconds, or by their numbers. `first` is that of the first one.

  `times` are those of the frames, where they are known, and `fps` the mean rate.
  """

  fps: float | None
  first: int = 0
  times: np.ndarray | None = None

  @property
  def unit(self) -> str:
    return "frame" if self.fps is None else "second"

  def of(self, frame: int) -> float:
    if self.times is not None and self.fps is not None:
      last = len(self.times) - 1
      return self.times[min(frame, last)] + max(frame - last, 0) / self.fps
    return self.first + frame if self.fps is None else (self.first + frame) / self.fps

  def span(self, first: int, last: int) -> str:
    """A frame's number is that of `predict --frames`; a second ends where the next frame begins."""
    if self.fps is None:
      return f"{self.of(first):7d} to {self.of(last):7d}"
    return f"{self.of(first):9.2f} to {self.of(last + 1):9.2f} s"


def define(values: flags.FlagValues) -> None:
  options = {"flag_values": values}
  flags.DEFINE_float("window", None, "Seconds, or frames where no rate is known.", **options)
  flags.DEFINE_float("hop", None, "From window to window; default: half a window.", **options)
  flags.DEFINE_float("fps", None, "Frames a second, of a file without a rate.", **options)
  flags.DEFINE_string("save", None, f"FILE in {', '.join(SAVERS)}.", **options)


def check(values: flags.FlagValues) -> None:
  """Raises ConfigError for flags that are wrong whatever the recording is."""
  drawn = draws(values)
  for name in ("hop", "fps"):
    if values.window is None and values[name].present and not (drawn and name == "fps"):
      raise errors.ConfigError(f"--{name} needs --window")
  if values.fps is not None and not 0 < values.fps < math.inf:
    raise errors.ConfigError("--fps", expected="frames a second, above 0", got=values.fps)
  if values.save is not None:
    path = pathlib.Path(values.save)
    if path.suffix.lower() not in SAVERS:
      expected = f"a name in {' or '.join(SAVERS)}"
      raise errors.ConfigError("--save", expected=expected, got=values.save)
    if values.window is None and not drawn:
      others = " and ".join(name for name, saver in SAVERS.items() if saver is not overlay.write)
      raise errors.ConfigError(f"--save={path.suffix} needs --window, as {others} are over time")
    if path.exists() and any(os.path.exists(x) and path.samefile(x) for x in values.input):
      raise errors.ConfigError("--save", expected="another file than --input", got=values.save)
    if path.is_dir() or not path.parent.is_dir():
      expected = "a file, in a folder that is there"
      raise errors.ConfigError("--save", expected=expected, got=values.save)


def draws(values: flags.FlagValues) -> bool:
  """Whether a video is to be made."""
  suffix = pathlib.Path(values.save or "").suffix.lower()
  return SAVERS.get(suffix) is overlay.write


def clock(values: flags.FlagValues, clips: Sequence[Any], first: int) -> Clock:
  """The clock of recordings of the same frames: a file's own rate, if one has it, or that told."""
  for one in clips:
    if one.fps is not None:
      if values.fps is not None:
        expected = f"none, as the {one.track} has {one.fps:.4g} frames a second"
        raise errors.ConfigError("--fps", expected=expected, got=f"{values.fps:g}")
      return Clock(one.fps, first, one.times)
  return Clock(values.fps, first)


def frames(values: flags.FlagValues, fps: float | None) -> tuple[int, int]:
  """The frames of a window and of a hop."""
  length = _frames("--window", values.window, fps)
  hop = max(1, length // 2) if values.hop is None else _frames("--hop", values.hop, fps)
  if hop > length:
    expected = f"at most the window, {values.window:g}"
    raise errors.ConfigError("--hop", expected=expected, got=f"{values.hop:g}")
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
  clips: Sequence[Any],
  save: str | None,
  top: int,
  seen: Any = None,
  mean: bool = True,
) -> None:
  """Prints the segments, and saves the pieces that they are made of as they come.

  And, with `mean`, what is the best class over all of the time. `top` is of a picture: it shows the
  classes that are among so many of the best anywhere. `seen` is of a moving picture
  (`experiments.input_pictures`).
  """
  if save is not None:
    pieces = saved(pieces, names, clock, clips=clips, save=save, top=top, seen=seen)
  total, frames = np.zeros(len(names)), 0

  def counted():
    nonlocal total, frames
    for first, last, probabilities in pieces:
      if probabilities is not None:
        length = last + 1 - first
        total, frames = total + length * probabilities, frames + length
      yield first, last, probabilities

  for first, last, k, probability in segments(counted()):
    what = f"{'':6}  nobody" if k is None else f"{probability:6.1%}  {names[k]}"
    print(f"  {clock.span(first, last)}  {what}")
  if mean and frames:
    best = int(total.argmax())
    print(f"  in the mean: {total[best] / frames:.1%}  {names[best]}")
  if save is not None:
    print(f"  saved: {save}")


def saved(pieces, names, clock, *, clips, save, top, seen) -> Iterator[Piece]:
  """The same pieces, which are saved on the way: after the last, the file is there."""
  path = pathlib.Path(save)
  return SAVERS[path.suffix.lower()](pieces, path, names, clock, clips=clips, top=top, seen=seen)


def table(pieces, path, names, clock, *, clips, top, seen) -> Iterator[Piece]:
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


def picture(pieces, path, names, clock, *, clips, top, seen) -> Iterator[Piece]:
  """The same pieces; in the end a picture of them is drawn, a column the mean of its time."""
  from . import plots  # with the loaders, which prediction does without

  num_frames = clips[0].num_frames
  columns = min(num_frames, COLUMNS)
  sums, counts = np.zeros((columns, len(names))), np.zeros((columns, 1))
  start, end = ends = clock.of(0), clock.of(num_frames)
  for first, last, probabilities in pieces:
    if probabilities is not None:
      low, high = ((clock.of(k) - start) / (end - start) * columns for k in (first, last + 1))
      at = np.arange(int(low), min(math.ceil(high), columns))
      share = np.minimum(at + 1, high) - np.maximum(at, low)
      share = np.where(share > 1e-6, share, 0)[:, None]  # rounding is no time
      sums[at] += share * probabilities
      counts[at] += share
    yield first, last, probabilities
  shares = np.where(counts > 0, sums / np.where(counts > 0, counts, 1), np.nan)
  order = np.argsort(-shares[counts[:, 0] > 0], axis=1, kind="stable")
  seen = np.unique(order[:, :top])
  plots.timeline(path, shares[:, seen], [names[k] for k in seen], ends=ends, unit=clock.unit)


SAVERS = {".csv": table, ".png": picture} | dict.fromkeys(movies.MOVIES, overlay.write)
