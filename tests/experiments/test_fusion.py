"""A fusion of a run on poses and one on videos: of their tokens, and end to end."""

import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import evaluate, extract_tokens, fusion, launch, mvit, settings
from jaxmg import errors, inputs, predict, recipe, scores
from jaxmg.data import pipeline, prepared, readers, source, tracks
from jaxmg.training import checkpoints


def command(module, *arguments):
  return launch.command(module.run, module.define, arguments)


def variables(run):
  return checkpoints.restore_variables(run / "checkpoints", "latest")


@pytest.fixture(scope="module")
def home(nods, spots, run, video_training, tmp_path_factory):
  """A set of poses and videos with tokens of both, and the runs `pose` and `video`."""
  home = tmp_path_factory.mktemp("fusion")
  data = shutil.copytree(nods, home / "data")
  track = source.Source(spots / "spots").track("video")

  class Seen(prepared.Builder):
    """The videos of `spots`, as those of the clips of `nods`, but for the last, which has none."""

    name, track_name = "nods", "video"
    track = tracks.Video((20, 24))
    class_names = ("nod", "shake")
    synthetic = True
    protocols = {}  # noqa: RUF012 (the set's own hold)

    def clips(self, recording, known):
      for row in range(23):
        frames = tuple(track[row]["frames"][k] for k in range(8))
        clip = readers.Frames(frames, np.arange(8) / 10, (20, 24))
        yield prepared.Example(f"clip{row}", row % 2, "abcd"[row // 6], clip)

  prepared.write(Seen, raw=data, data_dir=data)
  shutil.copytree(run, home / "pose")
  clips = recipe.load(run).num_clips
  settings = ["data.name=nods", f"data.dir={data}", f"sampling.test_clips={clips}"]
  settings += ["schedule.epochs=2", "schedule.name=step"]
  assert launch.main(mvit.run, video_training(home / "video", *settings)) == 0
  of = f"--data={data}/nods"
  assert command(extract_tokens, f"--run={home}/pose", of, "--views=2") == 0
  assert command(extract_tokens, f"--run={home}/video", of, "--views=2", "--folds=2") == 0
  return home


def options(home, workdir, *settings):
  values = {
    "data.dir": home / "data",
    "model.variant": "tiny",
    "train.batch_size": 6,
    "schedule.name": "step",
    "schedule.epochs": 2,
  } | dict(setting.split("=", 1) for setting in settings)
  return [
    "--config=fusion:nods,joint,small",
    f"--workdir={workdir}",
    *(f"--config.{key}={value}" for key, value in values.items()),
  ]


@pytest.fixture(scope="module")
def cached(home):
  """A run on tokens, with modality dropout."""
  settings = ["tokens=pose,video-folds2", "model.modality_dropout=0.5"]
  assert launch.main(fusion.run, options(home, home / "cached", *settings)) == 0
  return home / "cached"


def tokens(home, name):
  track = source.Source(home / "data" / "nods").track(f"tokens-{name}")
  first = np.stack([track[row]["views"][0]["tokens"] for row in range(23)])
  return np.float32(first), track.kind


def encoded(run, data, rows):
  """The tokens of all test views, [N, L, D] of each clip."""
  found = recipe.load(run)
  (one,) = found.inputs.values()
  parts = [one.read_test(data.track("video")[row], found.num_clips) for row in rows.tolist()]
  batch = {"video": jax.tree.map(lambda *x: jnp.stack(x), *parts)}
  step = found.predict_step(found.build_model(), output="tokens", average=False)
  weights = variables(run)
  return np.float64(jax.jit(step)(weights["params"], weights["batch_stats"], batch))


def padded(tokens):
  return np.pad(tokens, [(0, 0)] * (tokens.ndim - 1) + [(0, 1)], constant_values=1)


def test_tokens_out_of_fold_come_from_encoders_that_have_not_seen_the_subject(home, capsys):
  of = f"--data={home}/data/nods"
  assert command(extract_tokens, f"--run={home}/video", of, "--views=2") == 0
  assert "was trained on 18 of the 24 clips" in capsys.readouterr().out
  (plain, _), (folds, kind) = tokens(home, "video"), tokens(home, "video-folds2")
  assert kind.folds == 2
  data = source.Source(home / "data" / "nods")
  test = data.rows("test")[:-1]
  np.testing.assert_array_equal(folds[test], plain[test])
  for i in range(2):
    fold = recipe.load(home / "video" / "folds" / f"{i}-of-2")
    assert fold.data["fold"] == [i, 2]
    val, rest = (data.rows(split, fold=(i, 2)) for split in ("val", "train"))
    assert not {*data.subjects[val]} & {*data.subjects[rest]}
    # Least squares over all tokens of the clips that both have seen.
    x, y = (encoded(run, data, rest) for run in (home / f"video/folds/{i}-of-2", home / "video"))
    matrix = np.linalg.lstsq(*(tokens.reshape(-1, tokens.shape[-1]) for tokens in (padded(x), y)))
    expected = padded(encoded(home / f"video/folds/{i}-of-2", data, val)) @ matrix[0]
    np.testing.assert_allclose(folds[val], expected[:, 0], atol=0.05)
    assert np.abs(folds[val] - plain[val]).max() > 0.1
  assert command(extract_tokens, f"--run={home}/video/folds/0-of-2", of, "--folds=2") == 2
  expected = "--folds=2: expected a run on all training subjects, got fold [0, 2]\n"
  assert capsys.readouterr().err.endswith(expected)


def test_a_run_on_tokens_holds_its_encoders_and_predicts_from_records(home, cached, tmp_path):
  assert command(evaluate, f"--run={cached}") == 0
  found = scores.load(cached / "test" / "scores.npz")
  alone = shutil.copytree(cached, tmp_path / "alone")  # without the runs and the tokens
  predictor = predict.Predictor(alone)
  model = predictor.recipe.model
  assert (model["attention"], model["modality_dropout"], model["width"]) == ("joint", 0.5, 8)
  assert settings.read_config("fusion:nods,cross", []).model.attention == "cross"
  data = source.Source(home / "data" / "nods")
  assert {type(x) for x in predictor.recipe.inputs.values()} == {inputs.Heatmaps, inputs.Video}
  for row in data.rows("test")[:3].tolist():
    frames = tuple(data.track("video")[row]["frames"][k] for k in range(8))
    video = readers.Frames(frames, np.arange(8) / 10, (20, 24)).record()
    records = {"pose": data.track("pose")[row], "video": video}
    expected = found.probabilities[found.ids.index(data.ids[row])]
    np.testing.assert_allclose(predictor(records), expected, atol=2e-3)  # float16
    # It does without one of them.
    of_pose = predictor({"pose": records["pose"]})
    assert np.isfinite(of_pose).all()
    assert np.abs(of_pose - expected).max() > 1e-3
  with pytest.raises(errors.DataError, match="the clip: expected a pose, got sound"):
    predictor({"sound": {}})
  assert command(evaluate, f"--run={cached}", "--without=video-folds2") == 0
  without = scores.load(cached / "test-without-video-folds2" / "scores.npz")
  of = without.ids.index(data.ids[row])
  np.testing.assert_allclose(without.probabilities[of], of_pose, atol=2e-3)
  # And so it does with the clip that has no video.
  records = {"pose": data.track("pose")[23]}
  expected = found.probabilities[found.ids.index("clip23")]
  np.testing.assert_allclose(predictor(records), expected, atol=2e-3)
  content = recipe.load(alone / "encoders" / "pose")
  content.model["dropout"] = 0.25
  recipe.save(alone / "encoders" / "pose", content)
  with pytest.raises(errors.CheckpointError, match=r"encoders/pose: expected encoder \w+, got \w+"):
    predict.Predictor(alone)
  shutil.rmtree(alone / "encoders" / "pose")
  with pytest.raises(errors.CheckpointError, match="encoders/pose: expected the encoder that was"):
    predict.Predictor(alone)


def test_what_a_clip_of_training_lacks_is_zero_and_said_to_be_missing(home):
  data = source.Source(home / "data" / "nods")
  chosen = {}
  for name in ("pose", "video-folds2"):
    kind = data.track(f"tokens-{name}").kind
    chosen[name] = inputs.Tokens(f"tokens-{name}", kind.num_tokens, kind.width, kind.encoder)
  options = {"batch_size": 2, "seed": 0}
  batches = pipeline.train_batches(data, np.array([22, 23]), chosen, may_lack=True, **options)
  batch = next(batches)
  lacks = batch["clip"] == 23
  assert batch["pose"]["present"].tolist() == [True, True]
  np.testing.assert_array_equal(batch["video-folds2"]["present"], ~lacks)
  assert not batch["video-folds2"]["tokens"][lacks].any()
  assert batch["video-folds2"]["tokens"][~lacks].any()
  del chosen["pose"]
  with pytest.raises(
    errors.DataError, match="clip23': expected data of one input at least, got none"
  ):
    next(pipeline.train_batches(data, np.array([23, 23]), chosen, may_lack=True, **options))


def test_end_to_end_it_begins_with_the_encoders_and_goes_on_exactly(home, cached, tmp_path, capsys):
  twin = shutil.copytree(home / "video", tmp_path / "video-folds2")
  settings = [f"encoders={twin},{home}/video", "train.batch_size=9"]
  for name, epochs in (("straight", (2,)), ("stopped", (1, 2))):
    for count in epochs:
      arguments = options(home, tmp_path / name, *settings, f"schedule.epochs={count}")
      assert launch.main(fusion.run, arguments) == 0
  parts = variables(tmp_path / "straight"), variables(tmp_path / "stopped")
  jax.tree.map(np.testing.assert_array_equal, *parts)
  theirs, ours = (x["params"] for x in (variables(home / "video"), parts[0]))
  theirs, ours = (x["block0"]["expand"]["kernel"] for x in (theirs, ours["encoders_video"]))
  assert 0 < np.abs(theirs - ours).max() < 0.1
  frozen = tmp_path / "frozen"
  # From the run on tokens, of the same names; the encoders stay.
  settings = [f"encoders={home}/pose,{twin}", f"init_from={cached}"]
  settings += ['train.trainable=("(?!encoders_).*",)', "model.modality_dropout=0.5"]
  settings += ["train.batch_size=9", "schedule.epochs=1"]
  assert launch.main(fusion.run, options(home, frozen, *settings)) == 0
  for name, run in (("pose", "pose"), ("video-folds2", "video")):
    for kind in ("params", "batch_stats"):
      ours, theirs = variables(frozen)[kind], variables(home / run)[kind]
      jax.tree.map(np.testing.assert_array_equal, ours.get(f"encoders_{name}", {}), theirs)
  # Zeros of a missing video go through its encoder, and out comes a number.
  assert command(evaluate, f"--run={frozen}", "--without=video-folds2") == 0
  found = scores.load(frozen / "test-without-video-folds2" / "scores.npz")
  assert np.isfinite(found.probabilities).all()
  assert command(evaluate, f"--run={tmp_path}/straight") == 3
  message = "video: clip 'clip23': expected its data, got none (1 such clips)\n"
  assert capsys.readouterr().err.endswith(message)
  found = recipe.load(frozen)
  assert found.data["encoders"]["video-folds2"]["fold"] is None
  assert (found.num_clips, found.mirror) == (recipe.load(home / "pose").num_clips, True)


def test_what_does_not_go_together_is_said_in_one_line(home, cached, tmp_path, capsys):
  def refused(code, message, *settings):
    assert launch.main(fusion.run, options(home, tmp_path / "run", *settings)) == code
    assert message in capsys.readouterr().err.splitlines()[-1]

  refused(2, "expected two inputs or more, none called present, got pose", "tokens=pose")
  refused(2, ", got nothing", "tokens=pose,nothing")
  message = "tokens-pose: expected weights that have not seen the clips held out here, got"
  refused(4, message, "tokens=pose,video-folds2", "data.fold=0/3")
  run = f"{home}/pose"
  message = "--config.tokens or --config.encoders: expected one of them, got both"
  refused(2, message, "tokens=pose", f"encoders={run}")
  refused(2, "cached: expected a run of one input, got", f"encoders={cached},{run}")
  refused(2, "--config.encoders: expected different names, got", f"encoders={run},{run}")
  of, name = f"--data={home}/data/nods", "--name=few"
  assert command(extract_tokens, f"--run={home}/video", of, name, "--views=1") == 0
  message = "--config.tokens: expected as many views of each, got pose: 2 clips and their mirror"
  refused(2, message, "tokens=pose,few")
  assert command(extract_tokens, f"--run={home}/video", of, name, "--views=2") == 2
  message = "tokens-few: expected 6 views, got 5 (remove it, or take another --name)\n"
  assert capsys.readouterr().err.endswith(message)
  # Killed between the track and its encoder.
  track = source.Source(home / "data" / "nods").track("tokens-few")
  shutil.rmtree(track.folder / "encoder")
  message = "tokens-few: expected its encoder, got none (the same extract_tokens command goes on)"
  refused(4, message, "tokens=pose,few")
  assert command(extract_tokens, f"--run={home}/video", of, name, "--views=1") == 0
  assert (track.folder / "encoder").is_dir()
  capsys.readouterr()
  assert command(evaluate, f"--run={home}/pose", "--without=pose") == 2
  message = (
    "--without: expected a run trained with --config.model.modality_dropout, got one without"
  )
  assert message in capsys.readouterr().err
  assert command(evaluate, f"--run={cached}", "--without=pose,video-folds2") == 2
  assert "--without: expected some of pose and video-folds2, not all" in capsys.readouterr().err
