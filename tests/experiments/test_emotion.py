"""Won or lost: InterFusion of faces and video, from raw files to a prediction of raw files."""

import csv
import importlib
import json
import shutil
import zipfile

import numpy as np
import pytest

from experiments import (
  emotion,
  evaluate,
  extract_tokens,
  launch,
  mvit,
  predict,
  settings,
  submit,
  swinface,
)
from jaxmg import errors, models, recipe, scores
from jaxmg.data import prepared, readers, source
from jaxmg.predict import Predictor

ONE_STAGE = dict(width=8, depths=(1,), heads=(1,), token_width=8, stochastic_depth=0.1)
ONE_BLOCK = dict(width=8, depths=(1,), kv_stride=2, stochastic_depth=0.1)


def command(module, *arguments):
  return launch.command(module.run, module.define, arguments)


def configured(config, workdir, **values):
  values = {"schedule.epochs": 1, "schedule.warmup_epochs": 0.0, "schedule.name": "step"} | values
  settings = [f"--config.{name}={value}" for name, value in values.items()]
  return [f"--config={config}", f"--workdir={workdir}", *settings]


@pytest.fixture(scope="module")
def home(prepare, tmp_path_factory):
  """`raw` and `data`, four interviews of 3 s to train with and four to test with; two encoders."""
  home = tmp_path_factory.mktemp("emotion")
  prepare.load("synthetic_imigue")
  generate = importlib.import_module("synthetic_emotion.generate")
  generate.write(home / "raw", seed=0, train={1: 4}, test={2: 4}, seconds=(3, 3))
  for track in ("video", "faces"):
    builder = prepare.load("synthetic_emotion", track)
    prepared.write(builder, raw=home / "raw", data_dir=home / "data")
  encoders = {"data.dir": home / "data", "sampling.seconds": 0.8, "sampling.test_clips": 3}
  encoders |= {"train.batch_size": 2, "model.dropout": 0.0}
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(models.swinface.VARIANTS, "one_stage", ONE_STAGE)
    patch.setitem(models.mvit.VARIANTS, "one_block", ONE_BLOCK)
    faces = {"model.variant": "one_stage", "inputs.size": 14, "sampling.num_frames": 2}
    config = "swinface:synthetic_emotion,faces,small"
    assert launch.main(swinface.run, configured(config, home / "faces", **encoders, **faces)) == 0
    video = {"model.variant": "one_block", "inputs.size": 16, "sampling.num_frames": 4}
    config = "mvit:synthetic_emotion,frames,small"
    assert launch.main(mvit.run, configured(config, home / "video", **encoders, **video)) == 0
  for name in ("faces", "video"):
    of = f"--data={home}/data/synthetic_emotion"
    assert command(extract_tokens, f"--run={home / name}", of, "--views=2") == 0
  return home


def options(home, workdir, pool="attention", **values):
  values = {
    "data.dir": home / "data",
    "model.variant": "tiny",
    "train.batch_size": 2,
    "windows": 3,
    "tokens": "faces,video",
    "model.modality_dropout": 0.5,
  } | values
  return configured(f"emotion:synthetic_emotion,{pool},small", workdir, **values)


@pytest.fixture(scope="module")
def run(home):
  assert launch.main(emotion.run, options(home, home / "run", **{"schedule.epochs": 2})) == 0
  return home / "run"


def test_it_is_evaluated_by_video_with_auc_and_timelines(home, run, capsys):
  assert command(evaluate, f"--run={run}", "--timelines") == 0
  text = capsys.readouterr().out
  assert "SYNTHETIC data: synthetic_emotion, test, 4 clips" in text
  assert "AUC" in text
  found = json.loads((run / "test" / "metrics.json").read_text())
  assert 0 <= found["auc"] <= 1
  assert "interval_over_subjects" not in found  # there is one
  whole = scores.load(run / "test" / "scores.npz")
  assert whole.class_names == ("lose", "win")
  sent = [f"--scores={run}/test/scores.npz", "--format=miga_emotion", f"--out={home}/sent.zip"]
  assert launch.command(submit.run, submit.define, sent, devices=False) == 0
  with zipfile.ZipFile(home / "sent.zip") as archive:
    lines = archive.read("Submission.csv").decode().splitlines()
  best = whole.probabilities.argmax(1)
  assert lines == sorted(f"{id},{k}" for id, k in zip(whole.ids, best, strict=True))
  with open(run / "test" / "timelines.csv", newline="") as file:
    rows = list(csv.DictReader(file))
  views = [(id, str(k)) for id in whole.ids for k in range(3)]
  assert [(row["id"], row["window"]) for row in rows] == views
  wins = np.array([float(row["win"]) for row in rows]).reshape(4, 3)
  # A video's probability is a weighted mean of its windows', of nearly equal weights here.
  np.testing.assert_allclose(wins.mean(1), whole.probabilities[:, 1], atol=0.02)
  assert (run / "test" / "timelines.png").exists()


def test_raw_files_are_predicted_as_the_prepared_ones(home, run, tmp_path, capsys):
  data = source.Source(home / "data" / "synthetic_emotion")
  row = int(data.rows("test")[0])
  id = data.ids[row]
  if not (run / "test" / "scores.npz").exists():
    assert command(evaluate, f"--run={run}") == 0
  whole = scores.load(run / "test" / "scores.npz")
  expected = whole.probabilities[whole.ids.index(id)]
  alone = shutil.copytree(run, tmp_path / "alone")
  predictor = Predictor(alone)
  tracks = {name: data.track(name) for name in ("faces", "video")}
  records = {name: track[row] | track.kind.about for name, track in tracks.items()}
  np.testing.assert_allclose(predictor(records), expected, atol=3e-3)
  capsys.readouterr()
  video = home / "raw" / "video" / f"{id}.mp4"
  points = home / "raw" / "mg_skeleton_only" / id / f"{id}_openpose.csv"
  given = [f"--run={alone}", f"--input={video}", f"--input={points}"]
  assert command(predict, *given) == 0
  text = capsys.readouterr().out
  assert "a face in 15 of the 15 frames that were looked at" in text
  told = {
    line.split()[1]: float(line.split()[0][:-1]) for line in text.splitlines() if "%  " in line
  }
  # Faces are found as they were prepared, and the frames of the video are twice as many.
  assert abs(told["win"] - 100 * expected[1]) < 10
  assert command(predict, *given, "--window=0.8", "--hop=0.8", f"--save={tmp_path}/a.csv") == 0
  assert "in the mean: " not in capsys.readouterr().out  # windows have weights
  assert len((tmp_path / "a.csv").read_text().splitlines()) == 76
  drawn = [f"--save={tmp_path}/a.mp4", f"--attribution={tmp_path}/why", "--frame_size=160x208"]
  assert command(predict, *given, *drawn) == 0
  assert {path.name[:5] for path in (tmp_path / "why").glob("*.png")} == {"faces", "video"}
  # Without key points nobody finds a face; with modality dropout it is said, and goes on.
  capsys.readouterr()
  assert command(predict, f"--run={alone}", f"--input={video}") == 0
  assert "note: no faces: the run goes on without faces" in capsys.readouterr().err
  for more, code, message in (
    (f"--detector={tmp_path}", 2, "expected --detector or key points to find faces by, got both"),
    ("--frame_size=20x30", 3, "expected faces in the 160 x 208 pixels of the video"),
    ("--window=0", 2, "--window: expected seconds"),
  ):
    assert command(predict, *given, more) == code
    assert message in capsys.readouterr().err
  missing = home / "raw" / "nobody.csv"
  clip = readers.read(points)
  table = np.zeros((clip.num_frames, 411))
  np.savetxt(missing, table, delimiter=",", fmt="%g")
  assert command(predict, f"--run={alone}", f"--input={video}", f"--input={missing}") == 0
  assert "note: " in capsys.readouterr().err


def test_what_cannot_be_trained_is_named(home, tmp_path):
  data = source.Source(home / "data" / "synthetic_emotion")
  for values, message in (
    ({"windows": 1}, "--config.windows: expected 2 or more"),
    ({"tokens": "faces"}, "expected two inputs or more"),
    ({"tokens": "faces,sound"}, "expected faces or video, got sound"),
  ):
    argv = options(home, tmp_path, **values)
    config = settings.read_config(argv[0].partition("=")[2], argv[2:])
    with pytest.raises(errors.ConfigError, match=message):
      emotion.describe(config, data)


def test_encoders_may_be_trained_along_on_one_window_at_a_time(home):
  encoders = f"{home}/faces,{home}/video"
  argv = options(home, home / "x", pool="mean", tokens="", encoders=encoders)
  config = settings.read_config(argv[0].partition("=")[2], argv[2:])
  model, inputs, views = emotion.describe(
    config, source.Source(home / "data" / "synthetic_emotion")
  )
  assert model["name"] == "interfusion"
  assert inputs.keys() == {"faces", "video"}
  assert views.test_clips == 3
  one = recipe.Recipe(model, inputs, ("lose", "win"), num_clips=3)
  assert one.build_model().encoders.keys() == {"faces", "video"}
