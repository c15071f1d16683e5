"""The ablation: its table against figures computed here, and what a kill leaves of it."""

import csv
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from experiments import ablate, launch
from jaxmg import inputs, recipe, scores
from jaxmg.data import source
from jaxmg.training import metrics

ROOT = pathlib.Path(__file__).parents[2]
SETTINGS = (
  "skeleton=coco17",
  "sampling.num_frames=16",
  "sampling.test_size=16",
  "sampling.test_clips=1",
  "inputs.size=16",
  "model.variant=tiny",
  "train.batch_size=8",
)


@pytest.fixture(scope="module")
def config_file(nods, tmp_path_factory):
  """Writes the config of an ablation on `nods`."""

  def make(rows, **options):
    defaults = {
      "experiment": "posec3d",
      "base": f"{ROOT}/experiments/configs/posec3d.py:imigue,joint,small",
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
    ("labels, limb", ("semantic.loss=mse", "inputs.stream=limb")),
    ("re-trained", ("stage=classifier", "init_from=@plain")),
  )
  config = config_file(rows, fused=(("both", ("plain", "labels, limb")),))
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
  names = ("plain-seed0", "labels_limb-seed0")
  plain, labels = (scores.load(workdir / "runs" / name / "test" / "scores.npz") for name in names)
  both = scores.fuse([plain, labels], [1, 1])
  found = table(workdir)
  for row, part in (("plain", plain), ("labels, limb", labels), ("both", both)):
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


def test_interval_of_few_seeds_holds_the_truth_as_often_as_it_says():
  rng = np.random.default_rng(0)
  for clip_noise, seed_noise in ((1.0, 0.0), (1.0, 1.0), (0.0, 1.0)):
    held = 0
    for _ in range(1000):
      clips = clip_noise * rng.normal()  # the same clips for all seeds
      values = 5 + clips + seed_noise * rng.normal(size=3)
      samples = values[:, None] + clip_noise * rng.normal(size=400)
      mean, low, high = ablate.interval(values, samples)
      assert low < mean < high
      held += low <= 5 <= high
    assert 930 <= held <= 990


def test_columns_count_their_clips_over_all_seeds(tmp_path, make_nods):
  """Of hand-made scores: eight classes' worth of probabilities, two seeds, a tail, short clips."""
  data = source.Source(make_nods(9 * "a" + 6 * "d") / "nods")
  rows = data.rows("test")
  found = recipe.Recipe(
    model={"num_classes": 2},
    inputs={"pose": inputs.Heatmaps(data.layout, data.frame_size, num_frames=13)},
    class_names=data.class_names,
    data={"directory": data.directory, "protocol": "xsub"},
  )
  labels = data.labels[rows]
  right = np.eye(2, dtype=np.float32)[labels]
  wrong = right[:, ::-1]
  seeds = [
    scores.Scores(tuple(data.ids[row] for row in rows), part, labels, data.class_names)
    for part in (right, np.where(labels[:, None] == 1, wrong, right))  # of "shake", all and none
  ]
  subsets = ablate._subsets(found, seeds[0])
  # 5 clips of nods and 4 of shakes train: the tail is "shake".
  assert [title for title, _, _ in subsets.values()] == [
    "top-1", "mean-class", "macro-F1", "short (< 13 frames, 6 clips)",
    "tail (<= 4 training clips, 3 clips)",
  ]  # fmt: skip
  figures = ablate._figures(subsets, seeds)
  assert figures["tail"][0].tolist() == [1, 0]
  assert figures["top1"][0].tolist() == figures["short"][0].tolist() == [1, 0.5]
  assert figures["mean_class"][1].shape == (2, 2000)


def test_table_is_markdown_for_people_and_there_is_a_picture(done):
  _, workdir = done
  lines = (workdir / "table.md").read_text().splitlines()
  assert lines[0] == "nods (SYNTHETIC), test subjects, 6 clips, seeds 0; in %"
  assert [line.split(" | ")[0] for line in lines[4:-2]] == [
    "| plain", "| labels, limb", "| re-trained", "| both",
  ]  # fmt: skip
  assert (workdir / "differences.png").stat().st_size > 5000


def test_another_row_of_the_same_seed_is_found(done):
  _, workdir = done
  config = json.loads((workdir / "runs" / "re_trained-seed0" / "config.json").read_text())
  assert config["init_from"] == str(workdir / "runs" / "plain-seed0")


def test_what_is_done_is_not_done_again(done, capsys):
  config, workdir = done
  before = (workdir / "table.csv").read_bytes()
  start = time.time()
  assert run(config, workdir) == 0
  assert capsys.readouterr().out.count("is there") == 3
  assert (workdir / "table.csv").read_bytes() == before
  newest = max(path.stat().st_mtime for path in (workdir / "runs").rglob("*"))
  assert newest < start


def test_folds_go_on_after_a_kill_and_count_every_training_clip(config_file, tmp_path, nods):
  config, workdir = config_file((("plain", ()),), folds=3), tmp_path / "run"
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
  assert "3 folds of the training subjects, 18 clips" in (workdir / "table.md").read_text()
  parts = [scores.load(path) for path in sorted(workdir.glob("runs/*/val/scores.npz"))]
  data = source.Source(nods / "nods")
  assert len(parts) == 3
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
    ([("a", [])], {"compare": [("b", "a")]}, 2, "expected rows, got ['b']"),
    ([("a", [])], {"jobs": 0}, 2, "--config.jobs: expected in [1, 1000], got 0"),
    ([("a", [])], {"also": ["train.sed=1"]}, 2, "train.sed: no such setting"),
    ([("a", [])], {"fused": [("a", ["a"])]}, 2, "--config.rows: expected different ones"),
    ([("a", [])], {"folds": 1}, 2, "--config.folds: expected 0, or 2 and more, got 1"),
    ([("a", [])], {"seeds": [0, 0]}, 2, "--config.seeds: expected different ones"),
    ([], {}, 2, "--config.rows: expected different ones, got []"),
    ([("a", ["data.name=none"])], {}, 3, "expected a prepared data set"),
    ([("a", [])], {"experiment": "pose3d"}, 2, "--config.experiment: expected a module of"),
    ([("a", ["inputs.stream=limb"]), "b"], {}, 2, "--config.rows: expected a name and texts"),
    ([("a", "inputs.stream=limb")], {}, 2, "--config.rows: expected a name and texts"),
    ([("a", [1])], {}, 2, "--config.rows: expected a name and texts"),
    ([1], {}, 2, "--config.rows: expected a name and texts"),
    ([("a", [])], {"experiment": "a.b"}, 2, "--config.experiment: expected a module of"),
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


@pytest.mark.parametrize("name", ["recipe_a", "sampling", "long_tail"])
def test_shipped_ablations_are_complete(name):
  path = ROOT / "experiments" / "configs" / "ablations" / f"{name}.py"
  for argument in ("", ":synthetic_imigue,small"):
    config = launch.read_config(f"{path}{argument}", [])
    config.base = f"{ROOT}/{config.base}"
    for one in ablate.plan(config):
      launch.read_config(config.base, one.overrides(pathlib.Path("runs")))
