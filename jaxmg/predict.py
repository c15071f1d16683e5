"""A run directory -> class probabilities of a clip. What is in one, says `jaxmg.recipe`."""

import dataclasses
import itertools
import os
import pathlib
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from jaxmg import encoders, errors, recipe
from jaxmg.data import batch, embeddings, readers
from jaxmg.training import sharding
from jaxmg.training import step as steps

_WINDOWS = 8  # of a recording, in a batch

Reading = readers.Clip | readers.Frames | readers.VideoFile | readers.FacesOfVideo
# What is predicted: a recording, several of the same frames, or records by the tracks of inputs.
Clip = Reading | Iterable[Reading] | Mapping[str, Any]


@dataclasses.dataclass(frozen=True, eq=False)
class Attribution:
  """What of a clip speaks for a class: gradient times input.

  Of each frame and place, by how much the logit of the class would fall, to first order, if what
  is shown there were taken away: if pixels were the mean grey of the input (of its motion: still),
  a joint not drawn on heatmaps, a node of a graph (a joint, or the bone that ends in it) all zero.
  Negative numbers speak against the class. The logit is the mean over the test views; what several
  of them show is summed. Of two classes it is the difference to that of the other, as their
  probabilities depend on nothing else.

  It is local: it sees slopes, where a network may be saturated, and each part alone, where two may
  stand for each other. So the numbers do not sum up to the logit, and say nothing of frames that
  were not sampled or of what is outside the crop. Of pixels they are noisy: sums over squares and
  frames say more.

  Attributes:
    number: of the class.
    logit: of the class.
    frames: by input, int64[F]: the numbers in the recording of the frames that were shown, or of
      faces, among all of the recording's faces.
    values: by input, in logits, float32[F, ...]: of videos [F, H, W], of the square that is shown;
      of poses [F, M, V], M persons in the order in which the input takes them.
  """

  number: int
  logit: float
  frames: Mapping[str, np.ndarray]
  values: Mapping[str, np.ndarray]


class Predictor:
  """The model of a run directory, ready to classify clips.

      predictor = Predictor("runs/demo")
      probabilities = predictor(readers.read("clip.csv"))  # float32[K], as predictor.class_names

  `step` is "best" (the highest score in training, the latest where none was taken), "latest" or a
  number. `label_embeddings` is the table of a model with such a head, or None. A model of several
  inputs takes several recordings of the same frames, one of each track (`readers`), or a dictionary
  of records by track; trained with modality dropout, it can do without some. What no input reads is
  left alone.
  """

  def __init__(self, run: str | os.PathLike, *, step: str | int = "best"):
    run = pathlib.Path(run)
    self.recipe, self._variables = encoders.load(run, step=step)
    self.class_names = self.recipe.class_names
    self.label_embeddings = recipe.label_table(run, self.recipe)
    model = self.recipe.build_model()
    self._mesh = mesh = sharding.data_mesh(jax.local_devices()[:1])
    programs = {
      output: self.recipe.predict_step(model, output=output)
      for output in ("probabilities", "embedding")
    } | {"attribution": self.recipe.attribution_step(model)}
    self._programs = {
      name: steps.compile_predict_step(program, mesh) for name, program in programs.items()
    }
    self._compiled: set[tuple[str, int]] = set()  # programs, and of how many clips

  def __call__(self, clip: Clip) -> Float[np.ndarray, " k"]:
    """The probabilities of the classes for one clip, averaged over its test views.

    Raises DataError where an input cannot be taken from the clip (another layout, or 3-D joints
    that it does not have), and where it shows nobody, or nothing that pixels could be.
    """
    return self._one("probabilities", clip)

  def windows(
    self, clip: Clip, *, length: int, hop: int
  ) -> Iterator[tuple[int, int, Float[np.ndarray, " k"] | None]]:
    """The probabilities of parts of a recording, each as those of a clip: `(first, last, them)`.

    Windows of `length` frames, one every `hop`, and one that ends at the last frame; `first` and
    `last` count from 0, and both are in the window. A recording of fewer frames is one window. None
    in the place of the probabilities where a recording shows nobody in the window.

    Nothing is held but the recording, of a video a window of it, and what a batch of windows reads.
    What `__call__` raises, of the whole recording, is raised at once; ConfigError where hop is not
    from 1 to length, DataError for records, which cannot be cut in time.
    """
    if not 1 <= hop <= length:
      raise errors.ConfigError("hop", expected=f"frames from 1 to the length, {length}", got=hop)
    if isinstance(clip, Mapping):
      raise errors.DataError("the recording", expected="what readers.read gives", got="records")
    clips = by_track(clip)
    self._check({track: one.record() for track, one in clips.items()})
    num_frames = next(iter(clips.values())).num_frames
    final = max(num_frames - length, 0)
    bounds = (
      (first, min(first + length, num_frames) - 1)
      for first in itertools.chain(range(0, final, hop), (final,))
    )
    return self._windows(clips, bounds)

  def _windows(self, clips, bounds):
    while some := [*itertools.islice(bounds, _WINDOWS)]:
      parts = {}
      for window in some:
        records = {track: one.cut(*window).record() for track, one in clips.items()}
        given = [one for one in self.recipe.inputs.values() if one.track in records]
        shown = [one for one in given if one.shows(records[one.track])]
        if shown and (self.recipe.may_lack or len(shown) == len(given)):
          parts[window] = self._read({one.track: records[one.track] for one in shown})
      full = [*parts.values()]
      full += full[:1] * (_WINDOWS - len(full))  # all are of one size, compiled once
      found = self._run("probabilities", *full) if parts else ()
      probabilities = dict(zip(parts, found, strict=False))
      for window in some:
        yield *window, probabilities.get(window)

  def nearest(self, clip: Clip) -> list[tuple[str, float]]:
    """All classes and the cosines of their label embeddings with the clip's, the nearest first.

    Raises CheckpointError for a run that was trained without label embeddings; DataError as above.
    """
    if self.label_embeddings is None:
      where = "the run: label embeddings"
      raise errors.CheckpointError(where, expected="a head for them", got="none")
    order, cosines = embeddings.nearest(self._one("embedding", clip), self.label_embeddings)
    return [(self.class_names[k], float(cosine)) for k, cosine in zip(order, cosines, strict=True)]

  def attribution(self, clip: Clip, number: int | None = None) -> Attribution:
    """What of the clip speaks for the class of this number, or for the most probable one.

    Raises as `__call__`, and ValueError for a number of no class.
    """
    records = self._records(clip)
    part = self._read(records)
    if number is None:
      number = int(self._run("probabilities", part)[0].argmax())
    if not 0 <= number < len(self.class_names):
      raise ValueError(f"number: expected 0 to {len(self.class_names) - 1}, got {number}")
    logits, gradients = self._run("attribution", part | {"class": np.int32(number)})
    frames, values = {}, {}
    for name, one in self.recipe.inputs.items():
      if one.track not in records:
        continue  # of nothing
      chosen = np.rint(one.sampled(records[one.track], self.recipe.num_clips)).astype(np.int64)
      views = gradients[name][0]  # R T ...: all clips, and perhaps their mirror images after them
      chosen = np.tile(chosen, (len(views) // len(chosen), 1))
      frames[name], places = np.unique(chosen, return_inverse=True)
      values[name] = np.zeros((len(frames[name]), *views.shape[2:]), np.float32)
      np.add.at(values[name], places.reshape(chosen.shape), views / len(views))
    return Attribution(number, float(logits.mean()), frames, values)

  def _one(self, output: str, clip: Clip) -> np.ndarray:
    return self._run(output, self._read(self._records(clip)))[0]

  def _records(self, clip: Clip) -> Mapping[str, Any]:
    records = clip
    if not isinstance(clip, Mapping):
      records = {track: one.record() for track, one in by_track(clip).items()}
    self._check(records)
    return records

  def _check(self, records: Mapping[str, Any]) -> None:
    there = [one for one in self.recipe.inputs.values() if one.track in records]
    for one in there if there and self.recipe.may_lack else self.recipe.inputs.values():
      if one.track not in records:
        readable = {cls.track for cls in typing.get_args(Reading)}
        hint = "which no file holds: evaluate takes it from a prepared set"
        hint = None if one.track in readable else hint
        expected = one.track if one.track == "faces" else f"a {one.track}"
        got = " and ".join(records)
        raise errors.DataError("the clip", expected=expected, got=got, hint=hint)
      try:
        one.check(records[one.track])
        one.check_shown(records[one.track])
      except ValueError as error:
        raise errors.DataError(f"the clip: {error}") from error

  def _read(self, records: Mapping[str, Any]) -> dict[str, Any]:
    num_clips, may_lack = self.recipe.num_clips, self.recipe.may_lack
    read = lambda one, record: one.read_test(record, num_clips)  # noqa: E731
    options = {"num_clips": num_clips, "may_lack": may_lack}
    return {
      name: batch.part(one, records.get(one.track), read, **options)
      for name, one in self.recipe.inputs.items()
    }

  def _run(self, program: str, *parts: Mapping[str, Any]) -> Any:
    stacked = jax.tree.map(lambda *x: np.stack(x), *parts)
    given = self._variables["params"], self._variables["batch_stats"], stacked
    if (program, len(parts)) not in self._compiled:
      with sharding.compiling("the prediction", self._mesh):
        self._programs[program].lower(*given).compile()  # which the call then finds
      self._compiled.add((program, len(parts)))
    return jax.tree.map(np.asarray, self._programs[program](*given))


def by_track(clip: Reading | Iterable[Reading]) -> dict[str, Reading]:
  """Recordings of the same frames, by their tracks.

  Raises DataError for two of one track, or of other numbers of frames.
  """
  clips = [clip] if isinstance(clip, Reading) else [*clip]
  found = {one.track: one for one in clips}
  if len(found) < len(clips):
    got = f"two: {' and '.join(one.track for one in clips)}"
    raise errors.DataError("the recordings", expected="one of each kind", got=got)
  if len({one.num_frames for one in clips}) > 1:
    got = " and ".join(f"{one.num_frames} of the {track}" for track, one in found.items())
    raise errors.DataError("frames", expected="as many in each recording", got=got)
  return found
