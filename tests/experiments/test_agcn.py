"""2s-AGCN through the commands: 3-D joints and key points."""

import json
import pathlib

import jax
import numpy as np
import pytest

from experiments import agcn, evaluate, launch, predict, trainer
from jaxmg import recipe, scores
from jaxmg.data import prepared, readers, tracks
from jaxmg.skeletons import topology
from jaxmg.training import checkpoints

CONFIG = pathlib.Path(__file__).parents[2] / "experiments" / "configs" / "agcn.py"


def command(workdir, data, argument, *settings):
  values = {
    "data.dir": data,
    "sampling.num_frames": 8,
    "model.variant": "tiny",
    "train.batch_size": 8,
    "schedule.epochs": 2,
    "schedule.warmup_epochs": 1,
  } | dict(setting.split("=", 1) for setting in settings)
  return [
    f"--config={CONFIG}:{argument}",
    f"--workdir={workdir}",
    *(f"--config.{key}={value}" for key, value in values.items()),
  ]


@pytest.fixture(scope="module")
def run(waves, tmp_path_factory):
  workdir = tmp_path_factory.mktemp("runs") / "bone"
  assert launch.main(agcn.run, command(workdir, waves, "utd_mhad,bone")) == 0
  return workdir


def test_a_clip_is_predicted_from_its_file_as_in_evaluation(run, waves, capsys):
  assert launch.command(evaluate.run, evaluate.define, [f"--run={run}"]) == 0
  found = scores.load(run / "test" / "scores.npz")
  assert len(found.ids) == 8
  assert (run / "test" / "views.png").exists()
  capsys.readouterr()
  file = waves / "a3_s2_t1_skeleton.mat"
  arguments = [f"--run={run}", f"--input={file}", "--top=27"]
  assert launch.command(predict.run, predict.define, arguments) == 0
  out = capsys.readouterr().out.splitlines()
  assert f"{file.name}: read as 12 frames of 1 person, 20 joints (kinect20), metres" in out
  printed = [line for line in out if line.startswith("  ")]
  probabilities = found.probabilities[found.ids.index("a3_s2_t1")]
  assert sorted(printed) == sorted(
    f"  {p:6.1%}  {name}" for p, name in zip(probabilities, found.class_names, strict=True)
  )


def test_part_of_a_recording_is_predicted_from_its_3d_joints(run, waves, capsys):
  arguments = [f"--run={run}", f"--input={waves / 'a3_s2_t1_skeleton.mat'}", "--top=27"]
  printed = []
  for frames in ([], ["--frames=0:11"], ["--frames=3:8"]):
    assert launch.command(predict.run, predict.define, [*arguments, *frames]) == 0
    out = capsys.readouterr().out
    assert f"read as {6 if frames == ['--frames=3:8'] else 12} frames" in out
    printed.append([line for line in out.splitlines() if line.startswith("  ")])
    assert len(printed[-1]) == 27
  assert printed[0] == printed[1]


def test_a_run_begins_with_the_weights_of_another(run, waves, tmp_path, capsys, monkeypatch):
  caught, begin = [], f"init_from={run}"
  monkeypatch.setattr(trainer.loop, "train", lambda state, *args, **options: caught.append(state))
  monkeypatch.setattr(trainer.sharding, "on_host", jax.eval_shape)  # what it begins with is loaded
  assert launch.main(agcn.run, command(tmp_path / "a", waves, "utd_mhad,bone", begin)) == 0
  there = checkpoints.restore_variables(run / "checkpoints", "latest")
  jax.tree.map(np.testing.assert_array_equal, there, caught[0].variables)
  small = command(tmp_path / "b", waves, "utd_mhad,bone", begin, "model.variant=small")
  assert launch.main(agcn.run, small) == 4
  error = capsys.readouterr().err
  assert error.startswith(f"jaxmg: error: --config.init_from={run}: width: expected 32, got 8")
  assert error.count("\n") == 1


def test_key_points_of_a_layout_of_ones_own_go_with_the_data_and_the_run(tmp_path, capsys):
  arm = {
    "name": "arm3",
    "joints": ["shoulder", "elbow", "wrist"],
    "parents": [0, 0, 1],
    "limbs": [[0, 1], [1, 2]],
    "mirror_pairs": [],
  }

  class Arms(prepared.Builder):
    track = tracks.Pose(topology.from_json(arm), frame_size=(72, 128))
    class_names = ("still", "raised")
    protocols = {"xsub": prepared.by_subject(train=("a", "b"))}  # noqa: RUF012

    def clips(self, recording, known):
      for i in range(12):
        keypoints = np.ones((10, 1, 3, 3), np.float32) * [20 + i, 30, i != 2]  # c2: nobody
        keypoints[..., 0] += 10 * np.arange(3)
        keypoints[:, 0, 2, 1] -= np.arange(10) * (i % 2)
        clip = readers.Clip(keypoints, self.track.layout)
        yield prepared.Example(f"c{i}", i % 2, "abc"[i % 3], clip)

  prepared.write(Arms, raw=tmp_path, data_dir=tmp_path)
  workdir = tmp_path / "run"
  fold = ("data.fold=0/2", "train.batch_size=4")
  assert launch.main(agcn.run, command(workdir, tmp_path, "arms,bone_motion", *fold)) == 0
  lines = (workdir / "metrics.jsonl").read_text().splitlines()
  assert any("eval/top1" in json.loads(line) for line in lines)
  assert recipe.load(workdir).inputs["pose"].skeleton == topology.from_json(arm)
  assert launch.command(evaluate.run, evaluate.define, [f"--run={workdir}"]) == 0
  np.save(tmp_path / "clip.npy", np.tile([(20 + 30 * v, 20, 1) for v in range(3)], (5, 1, 1)))
  (tmp_path / "arm3.json").write_text(json.dumps(arm))
  arguments = [f"--run={workdir}", f"--input={tmp_path / 'clip.npy'}"]
  assert launch.command(predict.run, predict.define, arguments) == 0  # the run knows it
  layout = f"--layout={tmp_path / 'arm3.json'}"
  assert launch.command(predict.run, predict.define, [*arguments, layout]) == 0
  assert "arm3" in capsys.readouterr().out


def test_3d_joints_are_asked_of_sets_and_clips_that_have_them(run, nods, tmp_path, capsys):
  settings = ("data.name=nods", "skeleton=coco17")
  assert launch.main(agcn.run, command(tmp_path / "run", nods, "utd_mhad,joint", *settings)) == 2
  assert "points: expected 3-D joints, got none" in capsys.readouterr().err
  np.save(tmp_path / "clip.npy", np.tile([(20 + 3 * v, 9 + v, 1) for v in range(20)], (5, 1, 1)))
  arguments = [f"--run={run}", f"--input={tmp_path / 'clip.npy'}", "--layout=kinect20"]
  assert launch.command(predict.run, predict.define, arguments) == 3
  assert "expected 3-D joints" in capsys.readouterr().err
