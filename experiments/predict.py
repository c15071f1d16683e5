"""Classifies recordings with a trained run and prints the most probable classes.

  jaxmg predict --run=RUN --input=FILE

FILE is a video, or poses: .csv, .xlsx, .npy, .npz, .pkl, .skeleton, .mat or a folder of OpenPose
JSON (see `jaxmg.data.readers`); of a .pkl, every clip. A model of several inputs is given a file of
each kind by several --input, of the same frames; trained with modality dropout, it goes on without
what is missing. What a file was taken for is printed; what one of
poses leaves open is told by

  --layout=NAME        the layout of its joints, or a JSON file of one's own
  --frame_size=HxW     of the pictures, in pixels (else: that of the run's data)
  --axes=MTVC          of an array: T frames, M persons, V joints, C values
  --points=joints3d    x, y, z in metres; or keypoints: x, y in pixels and a score

The whole recording is taken as one clip: `--frames=FIRST:LAST` (from 0, LAST included) takes a part
of it. A long one is gone through by windows:

  --window=2.5 --hop=0.5   seconds of a video, which knows its rate, or with --fps=25 of poses,
                           which do not: else frames. Where the rate of a video varies, windows
                           are frames of its mean rate, and what is printed is when they are shown
  --save=FILE.csv          the probabilities of every frame; .png: a picture of them

Each frame has the mean of the windows that cover it; what is printed is from when to when which
class is the best. Windows that show nobody have no class.

  --save=FILE.mp4 or .gif  the frames with their class drawn on them, with windows or without; and
                           the skeleton, where poses are among the inputs, and beside it the
                           heatmaps that the network sees. With windows the classes so far are
                           drawn below. What the model does not take is only drawn: poses over a
                           video, or what poses are seen in. A .gif is small: at most 12.5 frames a
                           second, and 750 in all
  --detector=FOLDER        of a run that sees faces, which are found in the video: MTCNN's weights.
                           Without it they are found by key points, another --input
  --attribution=DIR        what in the clip speaks for the class, or for --class=NAME: pictures and
                           numbers (`jaxmg.predict.Attribution` says what they are)
"""

import pathlib

import numpy as np
from absl import flags

from jaxmg import detection, encoders, errors, predict, progress, recipe
from jaxmg.data import face_crops, readers
from jaxmg.pretrained import mtcnn

from . import attribution, backend, input_pictures, launch, overlay, recording_flags, timeline


def define(values: flags.FlagValues) -> None:
  options = {"flag_values": values}
  flags.DEFINE_string(
    "run", None, "The work directory of a training run.", required=True, **options
  )
  flags.DEFINE_multi_string(
    "input", None, "A recording; several are of the same frames.", required=True, **options
  )
  flags.DEFINE_string("frames", None, "FIRST:LAST, a part of the recording.", **options)
  recording_flags.define(values)
  timeline.define(values)
  flags.DEFINE_string("detector", None, "A folder with MTCNN's weights.", **options)
  flags.DEFINE_string("attribution", None, "A folder for what speaks for the class.", **options)
  flags.DEFINE_string("class", None, "Another than the most probable one.", **options)
  flags.DEFINE_string("step", "best", "best, latest or a number.", **options)
  backend.define_dtype(values)
  flags.DEFINE_integer("top", 5, "How many classes to print.", lower_bound=1, **options)


def run(values: flags.FlagValues) -> None:
  timeline.check(values)
  if values.window is not None and values.attribution:
    raise errors.ConfigError("--attribution is of one clip, without --window: --frames cuts it out")
  if values["class"].value is not None and not values.attribution:
    raise errors.ConfigError("--class needs --attribution")
  inputs = {}
  if pathlib.Path(values.run, recipe.FILE).exists():
    inputs = encoders.load_recipe(values.run).inputs
  known = recording_flags.get(values, inputs.values())
  # Of several, each would overwrite the files of the one before.
  alone = len(values.input) > 1 or values.save or values.attribution
  found = [readers.read_all(path, known, most=1 if alone else None) for path in values.input]
  found = zip(*found, strict=True)
  predictor = None
  for recordings in [*found] if alone else found:
    if predictor is None:
      predictor = predict.Predictor(values.run, step=values.step, dtype=values.dtype)
      if values.dtype == "auto":
        progress.say(f"note: computes in {predictor.dtype}")
    _predict(predictor, values, *zip(*recordings, strict=True))


def _predict(predictor, values, names, clips) -> None:
  """Of recordings of the same frames."""
  where = " and ".join(values.input)
  number = _number(predictor.class_names, values["class"].value)
  try:
    names, clips = _with_faces(predictor.recipe, values, names, _sized(clips))
    given = predict.by_track(clips)
    first = 0
    if values.frames:
      first, last = part(clips[0].num_frames, values.frames)
      clips = [one.part(first, last) for one in clips]
      given = predict.by_track(clips)
    where += f": {'; '.join(str(one.guess) for one in clips)}"
    clock = timeline.clock(values, clips, first)
    windows = None if values.window is None else timeline.frames(values, clock.fps)
    notes = [doubt for one in clips for doubt in one.doubts()]
    notes += [
      f"no {one.track}: the run goes on without {name}"
      for name, one in predictor.recipe.inputs.items()
      if one.track not in given and predictor.recipe.may_lack
    ]
    if windows and windows[0] > clips[0].num_frames:
      frames = f"{clips[0].num_frames} frames, fewer than the {windows[0]} of a window"
      notes.append(f"the recording has {frames}: it is one window")
    shown = None
    if timeline.draws(values):
      overlay.check(clips, clock, pathlib.Path(values.save).suffix.lower())
      shown = input_pictures.InputPictures(predictor.recipe, given)
    elif given.keys() - (tracks := {*predictor.recipe.tracks}) and given.keys() & tracks:
      expected, hint = " and ".join(sorted(tracks)), "to draw the other: --save=FILE.mp4"
      raise errors.DataError("inputs", expected=expected, got=" and ".join(given), hint=hint)
    if windows:
      pieces = predictor.windows(given, length=windows[0], hop=windows[1])
    else:
      probabilities = predictor(given)
    for name, one in zip(names, clips, strict=True):
      print(f"{name}: {one.guess}", flush=True)
    for note in notes:
      progress.say(f"note: {note}")
    save = {"clips": clips, "save": values.save, "top": values.top, "seen": shown}
    if windows:
      rate = f"{clock.fps:.4g} a second" if clock.fps else "the file has no rate (--fps)"
      print(f"  windows of {windows[0]} frames, every {windows[1]}; frames: {rate}")
      # Windows that the network weighs have no plain mean: without --window it is told.
      save |= {"mean": predictor.recipe.model.get("pool") != "attention"}
      pieces = shown.watched(pieces) if shown else pieces
      timeline.tell(timeline.averaged(pieces), predictor.class_names, clock, **save)
    else:
      _tell(predictor, given, probabilities, values.top)
      if values.save:
        whole = shown.watched([(0, clips[0].num_frames - 1, probabilities)])
        for _ in timeline.saved(whole, predictor.class_names, clock, **save):
          pass
        print(f"  saved: {values.save}")
    if values.attribution:
      found, folder = predictor.attribution(given, number), pathlib.Path(values.attribution)
      attribution.save(folder, found, predictor.recipe, given, first=first)
  except errors.DataError as error:
    raise errors.DataError(f"{where}: {error}") from error
  for one in clips:
    for note in one.notes:  # of a video, known when it is decoded
      progress.say(f"note: {note}")


def _sized(clips) -> list:
  """The recordings; a pose that leaves open of what pictures it is, is of the video beside it.

  So is one for which the size of the run's data stands, where the video has another shape.
  """
  size = next((one.source_size for one in clips if hasattr(one, "source_size")), None)
  return [one.sized(size) if one.track == "pose" else one for one in clips]


def _with_faces(recipe, values, names, clips) -> tuple[list, list]:
  """The recordings, and beside them the faces in the video, where the run sees faces.

  Key points that are there to find them, and that no input reads, are then left out.
  """
  given = predict.by_track(clips)
  if "faces" not in recipe.tracks:
    if values.detector:
      expected = "a run that sees faces"
      raise errors.ConfigError("--detector", expected=expected, got=f"one of {recipe}")
    return [*names], [*clips]
  if "video" not in given:
    if recipe.may_lack:
      return [*names], [*clips]
    raise errors.DataError("inputs", expected="a video, to find faces in", got=" and ".join(given))
  name = {one.track: name for name, one in zip(names, clips, strict=True)}
  keep = {*recipe.tracks} | ({"pose", "video"} if timeline.draws(values) else set())
  if values.detector:
    if given.keys() - keep:
      expected = "--detector or key points to find faces by"
      raise errors.ConfigError("faces", expected=expected, got="both")
    by = {"detector": detection.Detector(mtcnn.read(pathlib.Path(values.detector)))}
  elif "pose" in given:
    by = {"keypoints": given["pose"]}
    if "pose" not in keep:  # of what is kept, it is said later
      print(f"{name['pose']}: {given['pose'].guess}", flush=True)
      for doubt in given["pose"].doubts():
        progress.say(f"note: {doubt}")
  elif recipe.may_lack:
    return [*names], [*clips]
  else:
    hint = "--detector=FOLDER, or key points by another --input"
    raise errors.ConfigError("faces", expected="what finds them", got="a video alone", hint=hint)
  try:
    found = {"faces": face_crops.recording(given["video"], **by)}
  except face_crops.NoFace as error:
    if not recipe.may_lack:
      raise
    progress.say(f"note: {error}")
    found = {}
  kept = {track: one for track, one in given.items() if track in keep}
  names = [name[track] for track in kept] + [f"{name['video']}, faces"] * len(found)
  return names, [*kept.values(), *found.values()]


def _tell(predictor, clip, probabilities, top) -> None:
  for k in np.argsort(-probabilities, kind="stable")[:top]:
    print(f"  {probabilities[k]:6.1%}  {predictor.class_names[k]}")
  if predictor.label_embeddings is not None:
    near = (f"{name} ({cosine:.2f})" for name, cosine in predictor.nearest(clip)[:top])
    print(f"  nearest labels by embedding (cosine): {', '.join(near)}")


def _number(names: tuple[str, ...], name: str | None) -> int | None:
  if name is not None and name not in names:
    raise errors.ConfigError(errors.unknown("--class", names, name))
  return None if name is None else names.index(name)


def part(num_frames: int, frames: str) -> tuple[int, int]:
  """The numbers of the first frame and of the last one."""
  try:
    first, last = map(int, frames.split(":"))
  except ValueError:
    raise errors.ConfigError("--frames", expected="FIRST:LAST", got=frames) from None
  if not 0 <= first <= last < num_frames:
    expected = f"0 <= FIRST <= LAST < {num_frames}"
    raise errors.ConfigError("--frames", expected=expected, got=frames)
  return first, last


if __name__ == "__main__":
  launch.command(run, define)
