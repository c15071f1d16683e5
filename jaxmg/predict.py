"""A run directory -> class probabilities of clips. What is in one, says `jaxmg.recipe`."""

import collections
import dataclasses
import functools
import itertools
import operator
import os
import pathlib
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, SupportsIndex

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from jaxmg import encoders, errors, progress, ranges, recipe
from jaxmg.data import batch, embeddings, readers
from jaxmg.training import precision, sharding
from jaxmg.training import step as steps

_WINDOWS = 8  # of a recording, in a batch

Reading = readers.Clip | readers.Frames | readers.VideoFile | readers.FacesOfVideo
# What may be told of a recording.
_USED = {"pose": ("layout", "frame_size", "axes", "points"), "video": ("fps",)}
_TRACKS = {cls.track for cls in typing.get_args(Reading)}
# One thing that is seen: an array, a file, or what `readers.read` gives.
Seen = np.ndarray | Array | str | os.PathLike | Reading
# What is predicted: of a model of one input, one thing; of any, things, or a set's records, by the
# tracks of its inputs ("pose", "video", "faces", "tokens").
Clip = Seen | Mapping[str, Seen | Mapping[str, Any]]


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
  """The model of a run directory, ready to classify clips; `jaxmg.load` makes one.

      p = jaxmg.load("runs/demo")
      p("clip.csv")                                              # float32[K], as p.class_names
      p(keypoints, layout="imigue22", frame_size=(720, 1280))    # height, width
      p(["a.mp4", "b.mp4"])                                      # float32[2, K]
      p({"pose": "a.csv", "video": "a.mp4"})                     # of a model that sees both

  A clip is one of these, or a dictionary of them by track, where the model sees several things of
  the same frames:

      a path                   whatever `jaxmg.data.readers.read` reads
      float or int array       key points [T, M, V, C] or [T, V, C]: C is x, y in pixels and perhaps
                               a score, or x, y, z in metres; other orders as in a .npy file;
                               more than two persons with axes="TMVC"
      uint8 array              frames of a video [T, H, W, 3], or [T, H, W] of depth
      a `readers.Clip`, `Frames`, `VideoFile` or `FacesOfVideo`
      a mapping                the record of a prepared set, in a dictionary by track alone

  A list, a tuple or an iterator holds several clips: results then have an axis more, in front. They
  are computed `batch_size` at a time. What an array or a file leaves open is told by `layout`,
  `frame_size`, `axes`, `points` and, of frames, `fps` (`readers.Told`); what is assumed instead is
  said on stderr, once.

  `dtype` is what the network computes in, "float32", "bfloat16", or "auto": the one in which this
  device is faster, which the attribute of that name says. All results are float32.

  `step` is "best" (the highest score in training, the latest where none was taken), "latest" or a
  number. `label_embeddings` is the table of a model with such a head, or None. A model trained with
  modality dropout can do without some of its inputs. What no input reads is left alone.

  All methods raise DataError for a clip that cannot be read or taken by the inputs (another layout,
  or 3-D joints that it does not have), and for one that shows nobody, or nothing that pixels could
  be; TypeError for anything else.
  """

  def __init__(
    self,
    run: str | os.PathLike,
    *,
    step: str | int = "best",
    batch_size: int = 16,
    dtype: str = "float32",
  ):
    if not ranges.is_whole(batch_size) or batch_size < 1:
      raise ValueError(f"batch_size: expected 1 or more, got {batch_size!r}")
    if not isinstance(run, str | os.PathLike):
      got = type(run).__name__
      raise errors.ConfigError("run", expected="the path of a run directory", got=got)
    self.dtype = precision.resolve(dtype, jax.local_devices()[0])
    run = pathlib.Path(run)
    run = run.parent if run.name == recipe.FILE else run
    step = int(step) if isinstance(step, str) and step.isdecimal() else step
    self.recipe, variables = encoders.load(run, step=step)
    self.class_names = self.recipe.class_names
    self.label_embeddings = recipe.label_table(run, self.recipe)
    self.batch_size = batch_size
    self._model = self.recipe.build_model(jnp.dtype(self.dtype))
    self._mesh = sharding.data_mesh(jax.local_devices()[:1])
    self._variables = jax.device_put(variables, sharding.replicated(self._mesh))
    self._program = functools.cache(self._jitted)
    self._compiled: set[tuple[str, int]] = set()  # programs, and of how many clips
    self._said: set[str] = set()

  def __call__(self, clips: Any, **told: Any) -> Float[np.ndarray, "*n k"]:
    """The probabilities of the classes, averaged over the test views of a clip."""
    return self._all("probabilities", clips, told)

  def features(self, clips: Any, **told: Any) -> Float[np.ndarray, "*n c"]:
    """What the classifier sees of a clip: the model's "features", averaged over its test views."""
    return self._all("features", clips, told)

  def tokens(self, clips: Any, **told: Any) -> Float[np.ndarray, "*n r l d"]:
    """The model's "tokens" of each of the R test views: the clips, then their mirror images.

    They are in the order of time, with a class token before them where the model has one.
    """
    return self._all("tokens", clips, told)

  def nearest(self, clips: Any, **told: Any) -> list:
    """All classes and the cosines of their label embeddings with the clip's, the nearest first.

    A list of (name, cosine); of several clips, a list of these. Raises CheckpointError for a run
    that was trained without label embeddings.
    """
    if self.label_embeddings is None:
      where, hint = "the run: label embeddings", None
      expected, got = "a head for them", "none"
      if self.recipe.model.get("embedding_size"):
        expected, got = "their table", "a head for them alone"
        hint = "Recipe(..., label_embeddings=table_digest(table)); save(..., label_table=table)"
      raise errors.CheckpointError(where, expected=expected, got=got, hint=hint)
    found = self._all("embedding", clips, told)
    names = [self._nearest(one) for one in found.reshape(-1, found.shape[-1])]
    return names if found.ndim > 1 else names[0]

  def windows(
    self, clip: Clip, *, length: int, hop: int, **told: Any
  ) -> Iterator[tuple[int, int, Float[np.ndarray, " k"] | None]]:
    """The probabilities of parts of a recording, each as those of a clip: `(first, last, them)`.

    Windows of `length` frames, one every `hop`, and one that ends at the last frame; `first` and
    `last` count from 0, and both are in the window. A recording of fewer frames is one window. None
    in the place of the probabilities where a recording shows nobody in the window.

    Nothing is held but the recording, of a video a window of it, and what a batch of windows reads.
    What is wrong with the whole recording is raised at once; ConfigError where length or hop are no
    whole numbers, or hop is not from 1 to length, DataError for records, which cannot be cut.
    """
    if not ranges.is_whole(length):
      raise errors.ConfigError("length", expected="whole frames", got=repr(length))
    if not ranges.is_whole(hop) or not 1 <= hop <= length:
      raise errors.ConfigError("hop", expected=f"frames from 1 to the length, {length}", got=hop)
    clips = self._by_track(clip, self._told(told))
    if any(isinstance(one, Mapping) for one in clips.values()):
      raise errors.DataError("the recording", expected="what readers.read gives", got="records")
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

  def attribution(
    self, clip: Clip, number: SupportsIndex | str | None = None, **told: Any
  ) -> Attribution:
    """What of the clip speaks for the class of this number or name, or for the most probable one.

    Raises ValueError for a number or a name of no class.
    """
    if isinstance(number, str):
      if number not in self.class_names:
        raise ValueError(errors.unknown("class", self.class_names, number))
      number = self.class_names.index(number)
    if number is not None:
      number = self._number(number)
    records = self._records(clip, self._told(told))
    part = self._read(records)
    if number is None:
      number = int(self._run("probabilities", part)[0].argmax())
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

  def _number(self, number: Any) -> int:
    last = len(self.class_names) - 1
    try:
      found = -1 if isinstance(number, bool) else operator.index(number)
    except TypeError:
      found = -1
    if not 0 <= found <= last:
      raise ValueError(f"number: expected 0 to {last}, got {number!r} (or a class's name)")
    return found

  def _all(self, output: str, clips: Any, told: Mapping[str, Any]) -> np.ndarray:
    several = isinstance(clips, list | tuple | Iterator)
    if isinstance(clips, list | tuple):
      readers.check_several(clips, told)
    found = [*self._each(output, clips if several else [clips], self._told(told), several)]
    if not found:
      raise ValueError("clips: expected at least one, got none")
    return np.stack(found) if several else found[0]

  def _each(
    self, output: str, clips: Iterable[Any], told: readers.Told, several: bool
  ) -> Iterator[np.ndarray]:
    """What the model says of each clip; while a GPU or TPU computes a batch, the next is read."""
    numbered, computed = enumerate(clips), collections.deque()
    while some := [*itertools.islice(numbered, self.batch_size)]:
      parts = []
      for number, clip in some:
        try:
          parts.append(self._read(self._records(clip, told)))
        except errors.DataError as error:
          raise errors.DataError(f"clips[{number}]: {error}" if several else error) from error
      # Of few sizes, so that few programs are compiled: what is left takes the next power of two.
      size = min(self.batch_size, 1 << (len(parts) - 1).bit_length())
      computed.append((len(parts), self._start(output, *parts, *parts[:1] * (size - len(parts)))))
      if len(computed) > 1:
        yield from _rows(*computed.popleft())
    for batch_of in computed:
      yield from _rows(*batch_of)

  def _told(self, told: Mapping[str, Any]) -> readers.Told:
    """What the caller knows of an array or a file; the rest is as the run has it.

    What nothing would use is refused.
    """
    if {*self.recipe.tracks} <= {*_USED}:
      used = [option for track in self.recipe.tracks for option in _USED[track]]
      for option in told:
        if option not in used and any(option in options for options in _USED.values()):
          got = f"a run that sees {' and '.join(self.recipe.tracks)}"
          raise errors.ConfigError(option, expected=f"one of {', '.join(used)}", got=got)
    known = {}
    for one in self.recipe.inputs.values():
      known = one.told | known
    return readers.told(told, known)

  def _records(self, clip: Any, told: readers.Told) -> Mapping[str, Any]:
    found = self._by_track(clip, told)
    records = {
      track: one if isinstance(one, Mapping) else one.record() for track, one in found.items()
    }
    self._check(records)
    return records

  def _by_track(self, clip: Any, told: readers.Told) -> dict[str, Any]:
    """The recordings or records of a clip by their tracks."""
    if isinstance(clip, list | tuple | Iterator):
      got = f"a {type(clip).__name__} (of numbers? np.asarray)"
      raise TypeError(f"a clip: expected one recording, got {got}")
    given, ours = clip if isinstance(clip, Mapping) else {None: clip}, self.recipe.tracks
    none_of_ours = given.keys().isdisjoint(ours)
    for track in given.keys() - {None, *ours}:
      other = track in _TRACKS or isinstance(given[track], Mapping)  # of a set: left alone
      if not other or (none_of_ours and errors.nearest(track, ours)):
        raise errors.DataError(errors.unknown("the clip", ours, track))
    found = {
      track: one if track and isinstance(one, Mapping) else self._reading(one, told)
      for track, one in given.items()
    }
    if not found or not all(isinstance(track, str | None) for track in found):
      expected = f"a dictionary by track: {' and '.join(self.recipe.tracks)}"
      raise errors.DataError("the clip", expected=expected, got=[*found])
    for track, one in found.items():
      if track == "pose" and isinstance(one, Mapping) and one and "layout" not in one:
        expected, hint = "the record of a set", "arrays: {'pose': array}, layout=..."
        raise errors.DataError("the clip: 'pose'", expected=expected, got=[*one], hint=hint)
      if track and not isinstance(one, Mapping) and one.track != track:
        raise errors.DataError(f"the clip: {track!r}", expected=f"a {track}", got=f"a {one.track}")
    recordings = [one for one in found.values() if not isinstance(one, Mapping)]
    return {track: one for track, one in found.items() if track} | by_track(recordings)

  def _reading(self, one: Any, told: readers.Told) -> Reading:
    if isinstance(one, Reading):
      return one
    with readers.hints_as_arguments():
      if isinstance(one, str | os.PathLike):
        ((_, found),) = readers.read_all(one, told, most=1)
      elif isinstance(one, np.ndarray | jax.Array):
        found = readers.from_array(np.asarray(one), told)
      else:
        raise TypeError(f"a clip: expected {_EXPECTED}, got {type(one).__name__}")
      progress.say_once(readers.remarks(found), self._said)
    return found

  def _check(self, records: Mapping[str, Any]) -> None:
    there = [one for one in self.recipe.inputs.values() if one.track in records]
    for one in there if there and self.recipe.may_lack else self.recipe.inputs.values():
      if one.track not in records:
        hint = "which no file holds: evaluate takes it from a prepared set"
        hint = None if one.track in _TRACKS else hint
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

  def _run(self, output: str, *parts: Mapping[str, Any]) -> Any:
    return jax.tree.map(np.asarray, self._start(output, *parts))

  def _start(self, output: str, *parts: Mapping[str, Any]) -> Any:
    """The program's outcome, which may still be being computed."""
    stacked = jax.tree.map(lambda *x: np.stack(x), *parts)
    given = self._variables["params"], self._variables["batch_stats"], stacked
    program = self._program(output)
    if (output, len(parts)) not in self._compiled:
      with sharding.compiling("the prediction", self._mesh):
        program.lower(*given).compile()  # which the call then finds
      self._compiled.add((output, len(parts)))
    return program(*given)

  def _jitted(self, output: str) -> Any:
    if output == "attribution":
      program = self.recipe.attribution_step(self._model)
    else:
      average = output != "tokens"
      program = self.recipe.predict_step(self._model, output=output, average=average)
    return steps.compile_predict_step(program, self._mesh)

  def _nearest(self, embedding: np.ndarray) -> list[tuple[str, float]]:
    order, cosines = embeddings.nearest(embedding, self.label_embeddings)
    return [(self.class_names[k], float(cosine)) for k, cosine in zip(order, cosines, strict=True)]


_EXPECTED = (
  "an array of key points or of frames, a path, what jaxmg.data.readers.read gives, or a dictionary"
  " of these by track; several in a list"
)


def _rows(count: int, found: Array) -> np.ndarray:
  return np.asarray(found)[:count]


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
