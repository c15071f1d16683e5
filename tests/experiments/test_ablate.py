"""The ablation: its table against figures computed here, and what a kill leaves of it."""

import csv
import json
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments import ablate, grid, launch, settings
from jaxmg import errors, scores
from jaxmg.data import embeddings, source
from jaxmg.training import metrics

CLASSIFIER = ("stage=classifier", "train.logit_adjustment=0.0")
RATE = "optimizer.learning_rate=1.0"  # another outcome is wanted, not a good one
ROOT = pathlib.Path(__file__).parents[2]
SETTINGS = (
  "skeleton=coco17",
  "sampling.num_frames=16",
  "sampling.test_size=16",
  "sampling.test_clips=1",
  "inputs.size=16",
  "model.variant=tiny",
  "train.batch_size=4",
  # A rate that does not depend on the number of steps: folds have the program of the whole.
  "schedule.name=step",
  "schedule.warmup_epochs=0",
)


@pytest.fixture(scope="module", autouse=True)
def _environment():
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
    yield


@pytest.fixture(scope="module")
def config_file(nods, tmp_path_factory):
  """Writes the config of an ablation on `nods`."""

  def make(rows, **options):
    defaults = {
      "base": "posec3d:imigue,joint,small",
      "settings": ("data.name=nods", "schedule.epochs=2", *SETTINGS),
      "also": (),
      "data": {"dir": str(nods)},
      "seeds": (0,),
      "folds": 0,
      "jobs": 2,
      "rows": rows,
      "fused": (),
      "compare": (),
    }
    options = defaults | options
    path = tmp_path_factory.mktemp("config") / "ablation.py"
    path.write_text(
      "import ml_collections\n\n"
      f"def get_config(argument=''):\n  return ml_collections.ConfigDict({options!r})\n"
    )
    return path

  return make


def run(config, workdir, *arguments):
  return launch.main(
    ablate.run, [f"--config={config}", f"--workdir={workdir}", *arguments], devices=False
  )


@pytest.fixture(scope="module")
def done(config_file, tmp_path_factory):
  """An ablation that is done: its config and its work directory."""
  rows = (
    ("plain", ()),
    ("re-trained, longer", (*CLASSIFIER, "init_from=@plain", "schedule.epochs=8", RATE)),
  )
  config = config_file(rows, fused=(("both", ("plain", "re-trained, longer")),))
  workdir = tmp_path_factory.mktemp("ablation") / "done"
  assert run(config, workdir) == 0
  return config, workdir


def table(workdir):
  return {
    (row["row"], row["column"]): row
    for row in csv.DictReader((workdir / "table.csv").read_text().splitlines())
  }


def test_table_holds_the_figures_of_the_runs_and_their_paired_differences(done):
  _, workdir = done
  names = ("plain-seed0", "re_trained_longer-seed0")
  plain, longer = (scores.load(workdir / "runs" / name / "test" / "scores.npz") for name in names)
  assert (plain.probabilities.argmax(1) != longer.probabilities.argmax(1)).any()
  both = scores.fuse([plain, longer], [1, 1])
  found = table(workdir)
  for row, part in (("plain", plain), ("re-trained, longer", longer), ("both", both)):
    for column in ("top1", "mean_class", "macro_f1"):
      value = metrics.summary(part.probabilities, part.labels, 2)[column]
      assert float(found[row, column]["mean"]) == pytest.approx(100 * value, abs=0.006)
  # All clips of `nods` are shorter than 16 frames.
  assert found["plain", "short"]["mean"] == found["plain", "top1"]["mean"]
  assert ("plain", "tail") not in found  # its classes have equally many clips
  assert found["plain", "top1"]["difference"] == ""
  one, two = (metrics.bootstrap(x.probabilities, x.labels)["top1"] for x in (plain, both))
  half = 196 * (two - one).std()
  ends = [float(found["both", "top1"][end]) for end in ("low", "difference", "high")]
  assert ends == pytest.approx([ends[1] - half, ends[1], ends[1] + half], abs=0.01)


def test_table_is_markdown_for_people_and_there_is_a_picture(done):
  _, workdir = done
  lines = (workdir / "table.md").read_text().splitlines()
  assert lines[0] == "nods (SYNTHETIC), test subjects, 6 clips, seeds 0; in %"
  assert [line.split(" | ")[0] for line in lines[4:-2]] == [
    "| plain", "| re-trained, longer", "| both",
  ]  # fmt: skip
  assert (workdir / "differences.png").stat().st_size > 5000


def test_another_row_of_the_same_seed_is_found(done):
  _, workdir = done
  config = json.loads((workdir / "runs" / "re_trained_longer-seed0" / "config.json").read_text())
  assert config["init_from"] == str(workdir / "runs" / "plain-seed0")


def test_what_is_done_is_not_done_again(done, capsys):
  config, workdir = done
  before = (workdir / "table.csv").read_bytes()
  start = time.time()
  assert run(config, workdir) == 0
  assert capsys.readouterr().out.count("is there") == 2
  assert (workdir / "table.csv").read_bytes() == before
  newest = max(path.stat().st_mtime for path in (workdir / "runs").rglob("*"))
  assert newest < start


def test_a_run_is_done_when_its_own_last_step_is_evaluated(done, tmp_path):
  config, workdir = done
  one = grid.plan(settings.read_config(str(config), []))[0]
  directory = shutil.copytree(workdir / "runs" / one.name, tmp_path / one.name)
  wanted = settings.read_config("posec3d:imigue,joint,small", one.overrides(workdir / "runs"))
  metrics = directory / "test" / "metrics.json"
  last = json.loads(metrics.read_text())["step"]
  assert ablate._is_done(wanted, last, directory, "test")
  assert not ablate._is_done(wanted, last, directory, "val")
  wanted.train.dtype = "auto"  # which is one of them in the run
  assert ablate._is_done(wanted, last, directory, "test")
  wanted.train.dtype = "bfloat16"
  assert not ablate._is_done(wanted, last, directory, "test")
  wanted.train.dtype = "float32"
  # Killed before, and evaluated there by hand.
  metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"step": last - 1}))
  assert not ablate._is_done(wanted, last, directory, "test")
  metrics.write_text(json.dumps(json.loads(metrics.read_text()) | {"step": last}))
  (directory / "checkpoints" / str(last)).rename(directory / "checkpoints" / str(last - 1))
  assert not ablate._is_done(wanted, last, directory, "test")


def test_folds_go_on_after_a_kill_and_count_every_training_clip(config_file, tmp_path, nods):
  config, workdir = config_file((("plain", ()),), folds=2), tmp_path / "run"
  command = [sys.executable, "-m", "experiments.ablate", f"--config={config}"]
  killed = subprocess.Popen([*command, f"--workdir={workdir}"], cwd=ROOT, stdout=subprocess.DEVNULL)
  deadline = time.time() + 120
  while not any(workdir.glob("runs/*/checkpoints/[0-9]*")):
    assert time.time() < deadline
    time.sleep(0.05)
  # All that belongs to it, at once.
  for process in (*children(killed.pid), killed.pid):
    os.kill(process, signal.SIGKILL)
  killed.wait()
  assert not (workdir / "table.csv").exists()
  assert run(config, workdir) == 0
  # Every training clip is counted once, by the run that did not see its subject.
  assert "2 folds of the training subjects, 18 clips" in (workdir / "table.md").read_text()
  parts = [scores.load(path) for path in sorted(workdir.glob("runs/*/val/scores.npz"))]
  data = source.Source(nods / "nods")
  assert len(parts) == 2
  assert sorted(id for part in parts for id in part.ids) == sorted(
    data.ids[row] for row in data.rows("train")
  )
  right = np.concatenate([part.probabilities.argmax(1) == part.labels for part in parts])
  assert float(table(workdir)["plain", "top1"]["mean"]) == pytest.approx(
    100 * right.mean(), abs=0.006
  )


def children(pid):
  tasks = pathlib.Path(f"/proc/{pid}/task").glob("*/children")
  return [int(child) for task in tasks for child in task.read_text().split()]


@pytest.mark.parametrize(
  ("rows", "options", "code", "message"),
  [
    ([("a", ["init_from=@b"]), ("b", [])], {}, 2, "expected an earlier row, got b-seed0"),
    ([("a b", []), ("a-b", [])], {}, 2, "names that differ in letters"),
    ([("a", ["train.sed=1"])], {}, 2, "train.sed: no such setting (did you mean"),
    ([("a", [])], {"fused": [("f", ["a", "c"])]}, 2, "expected rows, got ['c']"),
    ([("a", [])], {"compare": [("a", "c")]}, 2, "expected rows, got ['c']"),
    ([("limb", [])], {"fused": [("f", ["lim"])]}, 2, "got ['lim'] (did you mean limb?)"),
    ([("limb", []), ("b", ["init_from=@lim"])], {}, 2, "got lim-seed0 (did you mean limb?)"),
    ([("a", [])], {"compare": [("b", "a")]}, 2, "expected rows, got ['b']"),
    ([("a", [])], {"jobs": 0}, 2, "--config.jobs: expected in [1, 1000], got 0"),
    ([("a", [])], {"also": ["train.sed=1"]}, 2, "train.sed: no such setting"),
    ([("a", [])], {"fused": [("a", ["a"])]}, 2, "--config.rows: expected different ones"),
    ([("a", [])], {"folds": 1}, 2, "--config.folds: expected 0, or 2 and more, got 1"),
    ([("a", [])], {"seeds": [0, 0]}, 2, "--config.seeds: expected different ones"),
    ([], {}, 2, "--config.rows: expected different ones, got []"),
    ([("a", ["data.name=none"])], {}, 3, "expected a prepared data set"),
    (
      [("a", [])],
      {"base": "ablations/sampling"},
      2,
      "a-seed0: --config.data.name: no such",
    ),
    (
      [("a", ["model.name=agcm"])],
      {},
      2,
      "a-seed0: --config.model.name: expected agcn or fusion or interfusion or mvit or posec3d or "
      "swinface",
    ),
    ([("a", ["inputs.sigma=0.0"])], {}, 2, "a-seed0: --config.inputs.sigma: expected in (0, 100]"),
    ([("a", ["inputs.stream=limb"]), "b"], {}, 2, "--config.rows: expected a name and texts"),
    ([("a", "inputs.stream=limb")], {}, 2, "--config.rows: expected a name and texts"),
    ([("a", [1])], {}, 2, "--config.rows: expected a name and texts"),
    ([1], {}, 2, "--config.rows: expected a name and texts"),
    ([("a", [])], {"compare": ["a"]}, 2, "--config.compare: expected a row and another, got a"),
    ([("a", []), ("b", ["semantic.loss=mse", "semantic.table=no.npy"])], {}, 3, "b-seed0: no.npy"),
  ],
)
def test_wrong_ablation_is_one_line(config_file, tmp_path, capsys, rows, options, code, message):
  assert run(config_file(rows, **options), tmp_path / "run") == code
  error = capsys.readouterr().err
  assert error.startswith("jaxmg: error: ")
  assert message in error
  assert error.count("\n") == 1


def test_config_of_something_else_is_one_line(tmp_path, capsys):
  config = f"{ROOT}/experiments/configs/posec3d.py:imigue,joint"
  assert run(config, tmp_path / "run") == 2
  assert "--config: expected ['also', 'base', " in capsys.readouterr().err


@pytest.mark.parametrize("name", ["labels", "long_tail", "recipe_a", "sampling"])
def test_shipped_ablations_are_complete(name):
  for argument in ("", ":synthetic_imigue,small"):
    config = settings.read_config(f"ablations/{name}{argument}", [])
    for one in grid.plan(config):
      settings.read_config(config.base, one.overrides(pathlib.Path("runs")))


def test_word_vectors_have_rows_of_their_own_beside_those_of_spelling():
  plain, given = (
    settings.read_config(f"ablations/labels:imigue{words}", []) for words in ("", ",words=a/b.txt")
  )
  assert given.rows[:3] == plain.rows
  assert all("semantic.table=a/b.txt" in row for _, row in given.rows[3:])
  with pytest.raises(errors.ConfigError, match="expected a file after words=, got none"):
    settings.read_config("ablations/labels:imigue,words=", [])


@pytest.mark.parametrize("name", ["imigue", "utd_mhad"])
def test_weight_of_glove_is_what_the_ancestor_pays_for_an_empty_prediction(prepare, name):
  labels = settings.load("ablations/labels")
  builder = prepare.load(name)
  names = builder.class_short_names or builder.class_names
  table = embeddings.load(str(ROOT / "docs" / "glove.6B.50d.subset.txt"), names)
  weight = labels["WEIGHTS"].get(name, labels["IMIGUE"])
  expected = 20 * embeddings.MEAN_SQUARE
  np.testing.assert_allclose(weight * np.square(table).mean(), expected, rtol=1e-4)
