"""What the recipe adds to training, through the command that a user types."""

import json
import shutil

import jax
import numpy as np
import pytest

from experiments import evaluate, launch, posec3d, predict, trainer
from jaxmg import predict as library
from jaxmg import recipe
from jaxmg.data import embeddings, source
from jaxmg.training import checkpoints

CLASSIFIER = ("stage=classifier", "train.logit_adjustment=0.0")
RECIPE = ("semantic.loss=mse", "sampling.kind=interpolate", "sampling.num_frames=16")


@pytest.fixture
def train(training):
  return lambda *arguments: launch.main(posec3d.run, training(*arguments))


@pytest.fixture(scope="module")
def labelled(training, tmp_path_factory):
  """A run with label embeddings, and an average of its weights."""
  workdir = tmp_path_factory.mktemp("labelled") / "run"
  assert launch.main(posec3d.run, training(workdir, *RECIPE, "train.ema=0.5")) == 0
  return workdir


@pytest.fixture(scope="module")
def tabled(training, tmp_path_factory):
  """A run with a table of label embeddings of its own, of 5 numbers; the table lies beside it."""
  folder = tmp_path_factory.mktemp("tabled")
  table = folder / "labels.npy"
  np.save(table, np.eye(2, 5, dtype=np.float32))
  settings = ("semantic.loss=contrastive", "semantic.weight=1.0", f"semantic.table={table}")
  assert launch.main(posec3d.run, training(folder / "run", *settings)) == 0
  return folder / "run", table, settings


@pytest.fixture
def first_state(train, tmp_path, monkeypatch):
  """The state that a training of these settings begins with; no step is compiled."""
  caught = []
  monkeypatch.setattr(trainer.loop, "train", lambda state, *args, **options: caught.append(state))

  def begin(*settings):
    assert train(tmp_path / f"begun{len(caught)}", *settings) == 0
    return caught[-1]

  return begin


def variables(workdir, step="latest"):
  return checkpoints.restore_variables(workdir / "checkpoints", step)


def lines(workdir):
  found = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
  return [{k: x for k, x in line.items() if k != "clips_per_second"} for line in found]


def assert_same_bits(a, b):
  jax.tree.map(np.testing.assert_array_equal, a, b)


def test_label_embeddings_are_learnt_and_kept_with_the_run(labelled, nods):
  data = source.Source(nods / "nods")
  table = np.load(labelled / recipe.LABELS)
  np.testing.assert_array_equal(table, embeddings.built_in(data.class_short_names))
  assert recipe.load(labelled).model["embedding_size"] == 300
  assert all(0 < line["semantic_loss"] < line["loss"] for line in lines(labelled))
  kernel = variables(labelled)["params"]["embedding"]["kernel"]
  assert kernel.shape == (32, 300)


def test_prediction_names_the_nearest_labels(labelled, nods, tmp_path, capsys):
  data = source.Source(nods / "nods")
  np.save(tmp_path / "clip.npy", data.track("pose")[20]["keypoints"])
  arguments = [f"--run={labelled}", f"--input={tmp_path / 'clip.npy'}", "--layout=openpose25"]
  assert launch.command(predict.run, predict.define, arguments) == 0
  last = capsys.readouterr().out.splitlines()[-1]
  clip = library.readers.read(tmp_path / "clip.npy", layout="openpose25")
  (first, high), (second, low) = library.Predictor(labelled).nearest(clip)
  assert high >= low
  assert {first, second} == {"nod", "shake"}
  assert (
    last == f"  nearest labels by embedding (cosine): {first} ({high:.2f}), {second} ({low:.2f})"
  )


def test_run_without_label_embeddings_has_no_nearest_ones(run, nods):
  clip = library.readers.Clip(
    source.Source(nods / "nods").track("pose")[20]["keypoints"], "openpose25"
  )
  with pytest.raises(library.errors.CheckpointError, match="expected a head for them, got none"):
    library.Predictor(run).nearest(clip)


def test_evaluation_takes_the_average(labelled, train, tmp_path):
  assert train(tmp_path / "plain", *RECIPE) == 0
  plain, average = variables(tmp_path / "plain"), variables(labelled)
  assert jax.tree.structure(plain) == jax.tree.structure(average)
  head = plain["params"]["head"]["kernel"], average["params"]["head"]["kernel"]
  assert (head[0] != head[1]).any()
  # The steps themselves are the same: an average changes what is evaluated, not what is trained.
  # Of two programs, not to the bit.
  losses = ([line["loss"] for line in lines(one)] for one in (labelled, tmp_path / "plain"))
  assert next(losses) == pytest.approx(next(losses), rel=1e-6)


def test_another_table_of_label_embeddings_is_no_continuation(tabled, train, capsys):
  workdir, table, settings = tabled
  before = table.read_bytes()
  np.save(table, np.ones((2, 5), np.float32))
  assert train(workdir, *settings, "schedule.epochs=3") == 3
  assert "label embeddings: expected" in capsys.readouterr().err
  table.write_bytes(before)


def test_classifier_alone_is_trained_anew_and_goes_on_exactly(run, train, tmp_path):
  stage = (*CLASSIFIER, f"init_from={run}", "schedule.epochs=3")
  assert train(tmp_path / "whole", *stage) == 0
  before, after = variables(run, "best"), variables(tmp_path / "whole")
  assert_same_bits(before["batch_stats"], after["batch_stats"])
  before["params"].pop("head"), after["params"].pop("head")
  assert_same_bits(before["params"], after["params"])

  assert train(tmp_path / "parts", *stage[:-1], "schedule.epochs=1") == 0
  assert train(tmp_path / "parts", *stage) == 0
  assert_same_bits(variables(tmp_path / "parts"), variables(tmp_path / "whole"))
  assert lines(tmp_path / "parts") == lines(tmp_path / "whole")


def test_the_new_classifier_begins_as_a_fresh_one(run, first_state):
  head, fresh = first_state(*CLASSIFIER, f"init_from={run}"), first_state()
  assert_same_bits(head.params["head"], fresh.params["head"])
  assert_same_bits(head.params["stem"], variables(run, "best")["params"]["stem"])


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (["inputs.stream=limb"], "pose.stream: expected limb, got joint"),
    (["sampling.kind=linspace"], "pose.sampling: expected linspace, got uniform"),
    (["skeleton=openpose18"], "pose.skeleton: expected openpose18, got coco17"),
    (["data.fold=0/3"], "expected weights that have not seen the clips held out here, got 6"),
  ],
)
def test_frozen_backbone_sees_what_it_was_trained_on(
  run, train, tmp_path, capsys, settings, message
):
  assert train(tmp_path / "run", *CLASSIFIER, f"init_from={run}", *settings) == 4
  assert message in capsys.readouterr().err


def test_weights_come_with_and_without_a_head_for_labels(run, labelled, first_state):
  more = first_state(f"init_from={run}", "semantic.loss=mse", "train.ema=0.5")
  less = first_state(f"init_from={labelled}").variables
  expected = variables(run, "best")
  for params, batch_stats in ((more.params, more.batch_stats), more.ema.values()):
    params = dict(params)
    assert params.pop("embedding")["bias"].shape == (300,)
    assert_same_bits({"params": params, "batch_stats": batch_stats}, expected)
  expected = variables(labelled, "best")
  expected["params"].pop("embedding")
  assert_same_bits(less, expected)


def test_classifier_stage_keeps_the_table_that_its_head_has_learnt(tabled, first_state, tmp_path):
  first_state(*CLASSIFIER, f"init_from={tabled[0]}", "semantic.loss=mse")
  table = np.load(tmp_path / "begun0" / recipe.LABELS)
  np.testing.assert_array_equal(table, np.eye(2, 5))


def test_classifier_stage_takes_no_untrained_head_for_labels(run, train, tmp_path, capsys):
  stage = (*CLASSIFIER, f"init_from={run}", "semantic.loss=mse")
  assert train(tmp_path / "second", *stage) == 4
  assert "expected a head for label embeddings, got none" in capsys.readouterr().err


def test_a_batch_in_parts_trains(train, tmp_path):
  weights = ("train.class_weights=square_root", "train.logit_adjustment=0.0")
  settings = ("train.batch_size=16", "train.accumulate=2", *weights)
  assert train(tmp_path / "run", *settings) == 0
  assert lines(tmp_path / "run")[-1]["step"] == 2


@pytest.mark.parametrize(
  ("settings", "message"),
  [
    (CLASSIFIER, "--config.init_from: expected a run directory, got None"),
    (
      ["semantic.table=a.npy"],
      "semantic.table: expected none, got a.npy (used with --config.semantic.loss=",
    ),
    (
      ["stage=classifier", "semantic.loss=mse", "semantic.table=a.npy"],
      "semantic.table: expected none, got a.npy (used with --config.stage=all)",
    ),
    (["stage=head"], "--config.stage: expected all or classifier, got head"),
    (["train.accumulate=3"], "--config.train.batch_size: expected a multiple of 3 parts, got 8"),
    (["train.accumulate=0"], "--config.train.accumulate: expected in [1, 4096], got 0"),
    (["train.ema=1.0"], "--config.train.ema: expected in [0, 1), got 1.0"),
    (["train.class_weights=linear"], "--config.train.class_weights: expected none or inverse"),
    (["train.class_weights=inverse"], "--config.train.class_weights: expected none, got inverse"),
    (["semantic.loss=cosine"], "--config.semantic.loss: expected off or mse or contrastive"),
    (
      ["stage=classifier", "train.logit_adjustment=1.0"],
      "--config.train.logit_adjustment: expected none, got 1.0 (used with",
    ),
    (["sampling.kind=wrap"], "--config.sampling.kind: expected uniform or"),
  ],
)
def test_wrong_setting_is_one_line(train, tmp_path, capsys, settings, message):
  assert train(tmp_path / "run", *settings) == 2
  error = capsys.readouterr().err
  assert error.startswith("jaxmg: error: ")
  assert message in error
  assert error.count("\n") == 1


def test_missing_table_is_one_line(train, tmp_path, capsys):
  missing = tmp_path / "glove.txt"
  assert train(tmp_path / "run", "semantic.loss=mse", f"semantic.table={missing}") == 3
  expected = f"jaxmg: error: {missing}: expected a file of word vectors, got nothing\n"
  assert capsys.readouterr().err == expected


def test_moved_data_are_gone_on_with_and_found_by_the_evaluation(
  run, nods, training, tmp_path, monkeypatch, capsys
):
  monkeypatch.setattr(evaluate, "_write", lambda *args: None)
  workdir, data = shutil.copytree(run, tmp_path / "run"), shutil.copytree(nods, tmp_path / "data")
  assert launch.main(posec3d.run, training(workdir, data=data)) == 0
  assert f"changed from here on: data.dir '{nods}' -> '{data}'" in capsys.readouterr().out
  assert recipe.load(workdir).data == recipe.load(run).data | {
    "directory": str((data / "nods" / "1.0.0").resolve())
  }
  assert launch.command(evaluate.run, evaluate.define, [f"--run={workdir}"]) == 0
  assert f"test of {data}/nods/1.0.0" in capsys.readouterr().out


@pytest.fixture
def begin(training, nods, tmp_path, monkeypatch, edit_json):
  """The command up to its first step, on a copy of the set that is edited."""
  monkeypatch.setattr(trainer.loop, "train", lambda *args, **options: None)

  def begin(edit, *settings):
    data = shutil.copytree(nods, tmp_path / "data")
    edit_json(data / "nods" / "1.0.0" / "index.json", edit)
    return launch.main(posec3d.run, training(tmp_path / "run", *settings, data=data))

  return begin


@pytest.mark.parametrize("mirror", [True, False])
def test_classes_of_a_side_that_are_mirrored_are_said_at_the_start(begin, mirror, capsys):
  names = ["raise left hand", "raise right hand"]
  assert begin(lambda index: index.update(class_names=names), f"sampling.mirror={mirror}") == 0
  note = (
    "sides tell these classes apart: 'raise left hand' and 'raise right hand': "
    "--config.sampling.mirror=False, or prepare --no_mirror"
  )
  assert (note in capsys.readouterr().out) == mirror


def test_a_warm_up_that_does_not_end_is_said(begin, capsys):
  assert begin(lambda index: None, "schedule.warmup_epochs=5") == 0
  note = "NOTE: a warm-up of 5 epochs does not end in 2: its rate is not reached"
  assert note in capsys.readouterr().out


def test_a_set_to_test_on_trains_nothing(begin, capsys):
  def empty(index):
    index["protocols"]["xsub"]["train"] = []

  assert begin(empty, "data.fold=0/3") == 3
  message = "protocol 'xsub': expected clips to train on, got none (it is there to be tested on"
  assert message in capsys.readouterr().err


def test_a_run_is_not_shortened_behind_its_last_step(train, tmp_path, capsys):
  workdir = tmp_path / "run"
  assert train(workdir, "schedule.epochs=2") == 0
  before = (workdir / "config.json").read_bytes()
  assert train(workdir, "schedule.epochs=1") == 2
  assert "--config.schedule.epochs: expected 2 or more, as " in capsys.readouterr().err
  assert (workdir / "config.json").read_bytes() == before
