"""What a network is given of a recording of poses, as pictures for people, frame by frame."""

import collections
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jaxmg.recipe import Recipe


class InputPictures:
  """The pictures of the inputs of poses that have some (`Input.picture`); else there are none.

  A network sees few frames of a clip: of a frame that it does not see, the picture is that of the
  nearest that it does. Of windows that overlap, the one counts whose middle is nearest.
  """

  def __init__(self, recipe: Recipe, clips: Mapping[str, Any]):
    self._recipe, self._clips = recipe, clips
    self._windows = collections.deque()
    self._programs, self._made = {}, {}
    for name, one in recipe.inputs.items():
      if one.track != "pose" or one.track not in clips:
        continue
      program = jax.jit(lambda part, one=one: _pictures(one, part))
      shape = jax.eval_shape(program, one.example(recipe.num_clips))
      if shape is not None:
        self._programs[name] = program, shape.shape[-2:]

  @property
  def shapes(self) -> list[tuple[int, int]]:
    """Height and width of each picture."""
    return [shape for _, shape in self._programs.values()]

  def watched(self, pieces: Iterable[tuple]) -> Iterator[tuple]:
    """The same pieces: windows, whose first frame and last frame are kept."""
    for piece in pieces:
      self._windows.append(piece[:2])
      yield piece

  def of(self, frame: int) -> list[Float[np.ndarray, "h w"]]:
    """The pictures of a frame; frames are asked for in the order of time."""
    while self._windows and self._windows[0][1] < frame:
      self._windows.popleft()
    covering = [window for window in self._windows if window[0] <= frame]
    first, last = min(covering, key=lambda window: abs(sum(window) - 2 * frame))
    found = []
    for name, (program, shape) in self._programs.items():
      kept = self._made.get(name)
      if kept is None or kept[0] != (first, last):
        kept = self._made[name] = (first, last), *self._make(name, program, first, last)
      _, numbers, pictures = kept
      nearest = pictures[np.abs(numbers + first - frame).argmin()] if len(numbers) else None
      found.append(np.zeros(shape, np.float32) if nearest is None else nearest)
    return found

  def _make(self, name, program, first, last):
    """The frames of a window that the network is given, in all test clips, and their pictures."""
    one, num_clips = self._recipe.inputs[name], self._recipe.num_clips
    record = self._clips[one.track].cut(first, last).record()
    if not one.shows(record):
      return np.zeros(0), []
    part = jax.tree.map(lambda x: np.asarray(x)[None], one.read_test(record, num_clips))
    numbers = np.asarray(one.sampled(record, num_clips)).ravel()
    pictures = np.asarray(program(part))
    return numbers, pictures.reshape(-1, *pictures.shape[-2:])


def _pictures(one, part):
  """Of a batch of one, [N, 1, T, H, W] of all test clips, or None."""
  return jax.lax.map(lambda view: one.picture(one.view(view)), one.views(part, False))
