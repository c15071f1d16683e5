"""Adds tokens of its clips to a prepared set: those of a run's encoder, or of a folder of arrays.

  jaxmg extract_tokens --run=RUN --data=DATA/NAME

runs the encoder of RUN over all clips, adds the track `tokens-RUN`, and touches nothing else. Of
each clip it keeps the views that RUN is tested by (--test_clips: another number), and --views more,
cut and changed as in its training: view k of one run is of the same moment, and mirrored or not, as
view k of another. With --class_token it keeps of MViTv2's tokens that of the class alone. The same
command goes on after the last whole shard where it was stopped.

Tokens of clips that an encoder was trained on are better than any that it will see. With --folds=4,
those of a quarter of the training subjects come from an encoder that was trained on the others, as
RUN was, in RUN/folds/0-of-4; and so on. They are mapped onto those of RUN by ridge regression over
the clips that both were trained on. All other clips have the tokens of RUN. The track is then
`tokens-RUN-folds4`.

  jaxmg extract_tokens --from=FOLDER --data=DATA/NAME --name=videomae

takes what any other network has made of the clips: a .npy for each, named by the clip's id,
[L, D], or [N, L, D] of N views; and adds the track `tokens-videomae`. Its tokens are taken as
evenly spaced in time, with no class token before them; --times=8 says of how many moments they are,
in the order of time, and --class_token that the first one is of no time. A fusion of such tokens
cannot predict from raw files.
"""

import functools
import hashlib
import pathlib
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import numpy as np
from absl import flags

from jaxmg import encoders, errors, models
from jaxmg import recipe as recipes
from jaxmg.data import pipeline, prepared, tracks
from jaxmg.data.source import Source
from jaxmg.recipe import Recipe
from jaxmg.training import checkpoints, sharding, step

from . import launch, lineage, settings, signals, train, trainer, workdir


def define(values: flags.FlagValues) -> None:
  options = {"flag_values": values}
  flags.DEFINE_string("run", None, "The work directory of an encoder's training.", **options)
  flags.DEFINE_string("from", None, "Or a folder of .npy files, named by clip id.", **options)
  flags.DEFINE_string("data", None, "The prepared set.", required=True, **options)
  flags.DEFINE_string("name", None, "Of the track, after tokens-; of a run: its own.", **options)
  flags.DEFINE_string("step", "best", "Of a run: best, latest or a number.", **options)
  flags.DEFINE_integer(
    "views", 8, "Of a run: views as in training, beside those of tests.", lower_bound=0, **options
  )
  flags.DEFINE_integer(
    "test_clips", None, "Of a run: views of tests; those of the run.", lower_bound=1, **options
  )
  flags.DEFINE_integer(
    "folds", None, "Of a run: groups of training subjects.", lower_bound=2, **options
  )
  flags.DEFINE_integer("batch_size", 16, "Of a run: clips at a time.", lower_bound=1, **options)
  flags.DEFINE_integer("times", None, "Of a folder: moments in a view.", lower_bound=1, **options)
  flags.DEFINE_boolean(
    "class_token", False, "Of a run: it alone; of a folder: the first one is it.", **options
  )


def run(values: flags.FlagValues) -> None:
  folder = values["from"].value
  if (values.run is None) == (folder is None):
    got = "none" if folder is None else "both"
    raise errors.ConfigError("--run or --from", expected="one of them", got=got)
  if jax.process_count() > 1:
    raise errors.ConfigError("--distributed", expected="one process", got=jax.process_count())
  name = values.name
  if folder is None and name is None:
    name = pathlib.Path(values.run).resolve().name
    name += f"-folds{values.folds}" if values.folds else ""
  if name is None:
    raise errors.ConfigError("--name", expected="what the network is called", got="none")
  if not re.fullmatch("[A-Za-z0-9_-]{1,80}", name):
    expected = "letters, digits, _ and - alone"
    raise errors.ConfigError("--name", expected=expected, got=repr(name))
  data = Source(values.data)
  if folder is None:
    track, *rest = _of_run(values, data)
    add(data, name, track, *rest, views=track.test_views + values.views)
    place = Source(data.directory).track(f"tokens-{name}").folder
    encoders.save(
      place / encoders.ENCODER,
      pathlib.Path(values.run),
      track.step,
      encoder=track.encoder,
      num_clips=values.test_clips,
      class_token=values.class_token,
    )
  else:
    for flag in ("folds", "test_clips"):
      if values[flag].value is not None:
        raise errors.ConfigError(f"--{flag}", expected="--run beside it", got="--from")
    add(data, name, *_of_folder(values, data))


def add(
  data: Source,
  name: str,
  track: tracks.Tokens,
  recordings: Iterable[tuple[Any, Any]],
  tokens_of: Callable[[Any, Any], Iterable[tuple[str, tuple[np.ndarray, np.ndarray]]]],
  *,
  views: int | None = None,
) -> None:
  """Adds the track `tokens-<name>`; a whole one of the same network and `views` is left as it is.

  `tokens_of` gives ids, and tokens and times of these clips, for one of the `recordings` (see
  `prepared.Builder.recordings`).
  """
  directory = data.directory.resolve()
  row_of = {id: row for row, id in enumerate(data.ids)}

  class Added(prepared.Builder):
    """Tokens of the clips of a set that is there."""

    VERSION = type(prepared.Builder.VERSION)(directory.name)
    protocols = {}  # noqa: RUF012 (the set's own hold)

    def recordings(self):
      return recordings

    def clips(self, recording, known):
      for id, tokens in tokens_of(recording, known):
        row = row_of[id]
        subject, cut_from = str(data.subjects[row]), str(data.recordings[row])
        yield prepared.Example(id, int(data.labels[row]), subject, tokens, cut_from)

  Added.name, Added.track, Added.track_name = directory.parent.name, track, f"tokens-{name}"
  Added.class_names, Added.mirror = data.class_names, data.mirror
  Added.synthetic = data.synthetic
  place = data.directory / Added.track_name
  if whole := Added.track_name in data.track_names:
    there = data.track(Added.track_name).kind
    hint = "remove it, or take another --name"
    if there != track:
      raise errors.ConfigError(place, expected=track, got=there, hint=hint)
    if views and {*(found := data.track(Added.track_name).num_frames.tolist())} != {views}:
      raise errors.ConfigError(place, expected=f"{views} views", got=min(found), hint=hint)
  prepared.write(Added, raw=directory, data_dir=directory.parent.parent)
  made = Source(directory).track(Added.track_name)
  print(f"{place} {'is whole, and left as it is' if whole else 'made'}: {made.kind}")
  print(
    f"  {len(made.rows)} clips, {made.num_frames.min()} to {made.num_frames.max()} views of each"
  )
  for note in made.notes[:5]:
    print(f"  {note}")


def _of_folder(values: flags.FlagValues, data: Source):
  folder = pathlib.Path(values["from"].value)
  found = {path.stem: path for path in sorted(folder.glob("*.npy"))}
  if not found:
    raise errors.DataError(folder, expected="a folder of .npy files", got="none")
  if unknown := sorted(found.keys() - {*data.ids}):
    hint, got = f"{len(unknown)} such files of {len(found)}", found[unknown[0]].name
    raise errors.DataError(folder, expected="files named by clips' ids", got=got, hint=hint)
  if missing := [id for id in data.ids if id not in found]:
    hint, got = f"{len(missing)} such clips of {len(data)}", f"none of {missing[0]}"
    raise errors.DataError(folder, expected="a file for every clip", got=got, hint=hint)
  _, length, width = tracks.Tokens.read_file(found[data.ids[0]]).shape
  if length <= values.class_token:
    raise errors.ConfigError("--class_token", expected="more tokens than it", got=length)
  spread = length - values.class_token
  moments = values.times or spread
  if spread % moments:
    raise errors.ConfigError("--times", expected=f"a divisor of {spread} tokens", got=moments)
  places, first = spread // moments, ", after a class token" if values.class_token else ""
  print(f"{folder}: read as {length} tokens of width {width} a view: {moments} moments, evenly")
  print(f"  spaced in time, of {places} tokens each{first} (--times, --class_token)", flush=True)
  options = {"places": places, "class_token": values.class_token}
  times = np.asarray(models.layers.token_times(1, moments, **options))[0]
  # How its tokens are taken is part of what they are.
  encoder = f"{values.name} ({moments} moments{first})"

  def tokens_of(tokens, id):
    yield id, (tokens, times)

  digest = hashlib.sha256()
  for id in data.ids:
    digest.update(found[id].read_bytes())
  track = tracks.Tokens(length, width, encoder, files=digest.hexdigest()[:16])
  return track, [(found[id], id) for id in data.ids], tokens_of


def _of_run(values: flags.FlagValues, data: Source):
  directory = pathlib.Path(values.run)
  tested = functools.partial(
    encoders.tested_by, num_clips=values.test_clips, class_token=values.class_token
  )
  recipe = tested(recipes.load(directory))
  at = int(values.step) if values.step.isdecimal() else values.step
  at = checkpoints.number(directory / "checkpoints", at)
  variables = checkpoints.restore_variables(directory / "checkpoints", at)
  model, example = recipe.build_model(), recipe.example()
  _, out = jax.eval_shape(model.apply, variables, example)
  if "tokens" not in out or len(recipe.inputs) > 1:
    expected, got = "a model of one input that has tokens", recipe.model["name"]
    raise errors.ConfigError(f"--run={values.run}", expected=expected, got=got)
  times = _times(model, variables, example)
  rows = np.array([i for i in range(len(data)) if all(i in data.track(x) for x in recipe.tracks)])
  mesh = sharding.data_mesh()
  size = -(-values.batch_size // mesh.size) * mesh.size
  encode = functools.partial(
    encoded, recipe, model, data=data, mesh=mesh, batch_size=size, views=values.views
  )
  of = [data.fingerprint(recipe.tracks), size, values.views]
  # Which clips are encoded by which variables, and what is made of their tokens.
  groups: list[tuple[np.ndarray, Any, Callable]] = []
  if values.folds:
    for held_out, trained_on, theirs in _folds(directory, recipe, data, values.folds):
      of.append(encoders.fingerprint(recipe, theirs))
      seen = np.intersect1d(trained_on, rows)
      both = [functools.partial(encode, one, rows=seen, views=0) for one in (theirs, variables)]
      onto = functools.cache(functools.partial(_onto, *both))  # found when it is needed
      groups.append((np.intersect1d(held_out, rows), theirs, onto))
    rows = np.setdiff1d(rows, np.concatenate([group[0] for group in groups]))
  else:
    _say_what_was_trained_on(directory, recipe, data)
  groups.append((rows, variables, lambda: lambda tokens: tokens))
  parts = [
    (group, number, group_rows[first : first + size].tolist())
    for group, (group_rows, _, _) in enumerate(groups)
    for number, first in enumerate(range(0, len(group_rows), size))
  ]
  coming: dict[int, Iterator[np.ndarray]] = {}

  def tokens_of(part, known):
    group, number, of_part = parts[part]
    group_rows, theirs, change = groups[group]
    if group not in coming:
      coming.clear()  # of the group before
      coming[group] = encode(theirs, rows=group_rows, first_batch=number)
    for row, tokens in zip(of_part, next(coming[group]), strict=True):
      yield data.ids[row], (change()(tokens), times)

  track = tracks.Tokens(
    *out["tokens"].shape[1:],
    encoder=encoders.fingerprint(recipe, variables),
    step=at,
    test_views=recipe.num_views,
    folds=values.folds,
  )
  recordings = [(i, [*of, group, part]) for i, (group, _, part) in enumerate(parts)]
  return track, recordings, tokens_of


def _folds(
  directory: pathlib.Path, recipe: Recipe, data: Source, count: int
) -> Iterator[tuple[np.ndarray, np.ndarray, Any]]:
  """Of each fold the rows that are held out and those trained on, and its encoder's variables.

  An encoder that is not there yet is trained as the run was, in RUN/folds/I-of-N.
  """
  where = f"--folds={count}"
  if recipe.data is None or recipe.data["fold"] is not None:
    got = "imported weights" if recipe.data is None else f"fold {recipe.data['fold']}"
    raise errors.ConfigError(where, expected="a run on all training subjects", got=got)
  if recipe.data["fingerprint"] != data.fingerprint(recipe.tracks):
    raise errors.ConfigError(where, expected="the set that the run was trained on", got="another")
  for i in range(count):
    config = settings.of_run(directory)
    with config.unlocked():
      config.data.dir, config.data.fold = str(data.directory.parents[1]), f"{i}/{count}"
    fold = directory / "folds" / f"{i}-of-{count}"
    with workdir.taken(str(fold), config) as place, signals.watched():
      if checkpoints.number(place / "checkpoints", "latest") != trainer.last_step(config, data):
        train.run(config, place)
    theirs = recipes.load(fold)
    same = theirs.model == recipes.load(directory).model and theirs.inputs == recipe.inputs
    if not same or theirs.data["fingerprint"] != recipe.data["fingerprint"]:
      hint = "remove it, and it is trained again"
      raise errors.CheckpointError(fold, expected="a fold of this run", got="another", hint=hint)
    val, rest = (
      data.rows(split, protocol=recipe.data["protocol"], fold=(i, count))
      for split in ("val", "train")
    )
    # The best one was chosen by the clips that are held out.
    yield val, rest, checkpoints.restore_variables(fold / "checkpoints", "latest")


def _onto(theirs: Callable[[], Iterable], ours: Callable[[], Iterable]) -> Callable:
  """What makes of the tokens of one encoder those of another: a linear map, by ridge regression.

  Two trainings use the directions of a token's space for different things. The tokens, [B, N, L, D]
  in batches, are of clips that both were trained on.
  """
  count = sums = squares = products = 0.0
  for x, y in zip(theirs(), ours(), strict=True):
    x, y = (np.float64(tokens).reshape(-1, tokens.shape[-1]) for tokens in (x, y))
    count, sums = count + len(x), sums + np.stack([x.sum(0), y.sum(0)])
    squares, products = squares + x.T @ x, products + x.T @ y
  mean, target = sums / count
  squares = squares / count - np.outer(mean, mean)
  products = products / count - np.outer(mean, target)
  little = 1e-6 * np.trace(squares) / len(squares)
  matrix = np.linalg.solve(squares + little * np.eye(len(squares)), products)
  return lambda tokens: np.float32((np.float64(tokens) - mean) @ matrix + target)


def _times(model, variables, example) -> np.ndarray:
  zeros = jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), example)
  return np.asarray(jax.jit(lambda v, x: model.apply(v, x)[1]["times"])(variables, zeros))[0]


def encoded(
  recipe: Recipe,
  model: Any,
  variables: Any,
  *,
  data: Source,
  rows: np.ndarray,
  views: int,
  batch_size: int,
  mesh: jax.sharding.Mesh,
  first_batch: int = 0,
) -> Iterator[np.ndarray]:
  """Yields the tokens [B, N, L, D] of the clips of every batch: test views, and `views` others.

  A clip's mirror image follows it among the test views.
  """
  of_tests = recipe.predict_step(model, output="tokens", average=False)
  of_drawn = step.make_predict_step(
    model,
    lambda batch: jax.tree.map(lambda x: x[None], batch),
    functools.partial(_drawn, recipe),
    output="tokens",
    average=False,
  )
  of_tests, of_drawn = (step.compile_predict_step(one, mesh) for one in (of_tests, of_drawn))
  order = np.arange(recipe.num_views).reshape(-1, recipe.num_clips).T.ravel()
  options = {"batch_size": batch_size, "first_batch": first_batch}
  tests = pipeline.test_batches(data, rows, recipe.inputs, num_clips=recipe.num_clips, **options)
  if views:
    drawn = iter(pipeline.drawn_batches(data, rows, recipe.inputs, views=views, **options))
  variables = sharding.replicate(mesh, dict(variables))
  variables = variables["params"], variables["batch_stats"]
  for batch in tests:
    found = [np.asarray(of_tests(*variables, sharding.shard_batch(mesh, batch)))[:, order]]
    for _ in range(views):
      found.append(np.asarray(of_drawn(*variables, sharding.shard_batch(mesh, next(drawn)))))
    yield np.concatenate(found, 1)[batch["mask"]]


def _drawn(recipe: Recipe, batch: dict[str, Any]) -> Any:
  """What the model is given of a batch of training clips: the same by every run's name and rate."""
  fold_in = jax.vmap(jax.random.fold_in)
  keys = jax.vmap(jax.random.fold_in, (None, 0))(jax.random.key(0), batch["view"])
  keys = fold_in(keys, batch["clip"])
  # Drawn here, and not by the input: that of another run draws otherwise.
  mirror = recipe.mirror and jax.vmap(jax.random.bernoulli)(keys)
  ((name, one),) = recipe.inputs.items()
  return one.train(keys, batch[name], mirror)


def _say_what_was_trained_on(run: pathlib.Path, recipe: Recipe, data: Source) -> None:
  for trained in filter(None, lineage.of(run, recipe)):
    if seen := lineage.seen(trained, data, recipe.tracks):
      print(
        f"NOTE: the encoder was trained on {len(seen)} of the {len(data)} clips: a fusion that is"
      )
      print("  trained on these will trust it more than it should", flush=True)
      return


if __name__ == "__main__":
  launch.command(run, define)
