"""The benchmarks run, at sizes that say nothing about speed."""

import functools
import json
import pathlib
import sys
import time

import numpy as np
import pytest

from benchmarks import (
  agcn,
  compile,
  heatmaps,
  loader,
  peers,
  posec3d,
  recipe,
  scale,
  timing,
  video_loader,
)
from jaxmg import models
from jaxmg.data import readers, tracks
from jaxmg.data.readers import annotations
from jaxmg.pretrained import agcn as pretrained_agcn
from jaxmg.pretrained import posec3d as pretrained_posec3d
from jaxmg.skeletons import topology
from jaxmg.training import sharding

TINY = ["--variant=tiny", "--frames=4", "--size=8", "--joints=3"]


def run(benchmark, folder, *arguments):
  out = folder / "out.json"
  benchmark.main([*arguments, f"--out={out}"])
  found = json.loads(out.read_text())
  assert found.keys() == {"arguments", "versions", "hardware", "settings", "results"}
  return found["results"]


class SameProcess:
  def __init__(self, build, *arguments):
    self.calls = build(*arguments)

  def timers(self):
    return {name: timing.timer(call) for name, call in self.calls.items()}

  def close(self):
    pass


@pytest.fixture
def same_process(monkeypatch):
  monkeypatch.setattr(timing, "Process", SameProcess)
  monkeypatch.setattr(peers.sharding, "reuse_memory", lambda: None)


@pytest.mark.parametrize(
  ("benchmark", "arguments"),
  [(posec3d, TINY), (agcn, ["--variant=tiny", "--frames=5", "--batch_size=2"])],
)
def test_models_are_timed_in_three_jobs(benchmark, arguments, tmp_path, capsys, same_process):
  rows = run(benchmark, tmp_path, *arguments, "--rounds=1")
  ours = [row for row in rows if (row["implementation"], row["memory"]) == ("jaxmg", "kept")]
  assert [row["job"] for row in ours] == ["train step", "inference", "forward"]
  assert all(row["ms"] > 0 and row["ratio"] == 1 for row in ours)
  assert "implementation" in capsys.readouterr().out.splitlines()[1]


def test_recipe_a_is_timed(tmp_path, monkeypatch):
  monkeypatch.chdir(pathlib.Path(__file__).parents[1])
  arguments = ["--variant=tiny", "--steps=2", "--batch_size=8", "--dtype=float32"]
  (row,) = run(recipe, tmp_path, *arguments)
  assert (row["steps"], row["batch"]) == (2, "1 x 8")
  assert row["seconds per step, median"] > 0
  assert 0.1 < row["memory of the process, GB"] < 100


def test_a_process_holds_calls():
  process = timing.Process(make_calls, 0.01)
  (timer,) = process.timers().values()
  assert timer() >= 0.01
  process.close()


def make_calls(seconds):
  return {"wait": functools.partial(time.sleep, seconds)}


def test_another_checkout_is_imported_where_it_is_timed(tmp_path):
  for package in ("jaxmg", "benchmarks"):
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").touch()
  (tmp_path / "benchmarks" / "peers.py").touch()
  code = "[__import__(name).__file__ for name in ('jaxmg', 'benchmarks.peers')]"
  with peers.code_of(tmp_path):
    found = timing.in_new_process(eval, code)
  assert found == [str(tmp_path / name / "__init__.py") for name in ("jaxmg", "benchmarks")]
  assert timing.in_new_process(eval, code)[0] != found[0]
  with pytest.raises(FileNotFoundError, match="no checkout"), peers.code_of(tmp_path / "none"):
    pass


def test_the_peers_are_the_same_networks():
  torch = pytest.importorskip("torch", reason="needs jaxmg[peers]")
  from benchmarks import torch_agcn, torch_posec3d

  def check(peer, fold, theirs, model, ours, table):
    theirs = torch.from_numpy(theirs.copy())
    weights = {name: tensor.numpy() for name, tensor in peer.eval().state_dict().items()}
    peers.same_weights(weights, peer(theirs).detach().numpy(), model, ours, table)
    torch.testing.assert_close(fold(peer)(theirs), peer(theirs))

  rng = np.random.default_rng(0)
  ours = models.posec3d.PoseC3D(5, variant="tiny")
  x = rng.random((1, 4, 9, 9, 3), np.float32)
  check(
    torch_posec3d.make(3, 5, width=ours.width, depths=ours.depths),
    torch_posec3d.fold,
    np.moveaxis(x, -1, 1),
    ours,
    x,
    pretrained_posec3d,
  )
  parents = (0, 0, 1, 1)
  x = rng.random((1, 5, 2, 4, 3), np.float32)
  check(
    torch_agcn.make(models.agcn.adjacency(parents), 2, 5, **models.agcn.VARIANTS["tiny"]),
    torch_agcn.fold,
    agcn.as_theirs(x),
    models.agcn.AGCN(5, parents, variant="tiny"),
    x,
    pretrained_agcn,
  )


def test_heatmaps_of_the_loop_are_ours(tmp_path):
  rows = run(heatmaps, tmp_path, "--batch_size=2", "--frames=3", "--size=12", "--rounds=1")
  assert [(row["heatmaps"], row["implementation"]) for row in rows] == [
    ("joints", "jaxmg"), ("joints", "numpy"), ("limbs", "jaxmg"), ("limbs", "numpy"),
  ]  # fmt: skip


def test_loader_counts_clips(tmp_path, monkeypatch):
  monkeypatch.setattr(loader, "SETS", loader.SETS[:1])
  monkeypatch.setattr(timing, "in_new_process", lambda function, *arguments: function(*arguments))
  monkeypatch.setattr(loader.os, "sched_setaffinity", lambda *_: None)
  rows = run(loader, tmp_path, "--clips=20", "--batch_size=4", "--seconds=0.05", "--rounds=1")
  assert {row["taken"] for row in rows} == {"imigue22"}
  assert {row["clips"] for row in rows} == {"read anew", "in memory"}
  assert all(row["clips per second"] > 0 for row in rows)


def test_video_loaders_count_clips(tmp_path, monkeypatch, same_process):
  monkeypatch.delenv("JAXMG_REAL_DATA", raising=False)
  monkeypatch.setattr(video_loader, "FRAME_SIZE", (48, 64))
  monkeypatch.setattr(video_loader.Videos, "track", tracks.Video((48, 64)))
  monkeypatch.setattr(video_loader.os, "sched_setaffinity", lambda *_: None)
  sizes = ["--videos=2", "--video_frames=20", "--batch_size=2", "--batches=1", "--frames=2"]
  rows = run(video_loader, tmp_path, *sizes, "--size=16", "--rounds=1")
  assert [row["loader"] for row in rows] == ["jaxmg", "jaxmg, host", "PyAV"]
  assert all(row["clips per second"] > 0 for row in rows)


def test_sets_of_video_are_written_and_opened(tmp_path, monkeypatch):
  monkeypatch.setattr(timing, "in_new_process", lambda function, *arguments: function(*arguments))
  rows = run(scale, tmp_path, "--set=video", f"--folder={tmp_path}", "--clips=5")
  assert [round(row["records, MB"]) for row in rows] == [10, 0]
  assert all(row["a clip, ms"] > 0 for row in rows)
  assert [*(tmp_path / "data").iterdir()] == []


def test_sets_of_real_sizes_are_made(tmp_path, monkeypatch):
  monkeypatch.setattr(timing, "in_new_process", lambda function, *arguments: function(*arguments))
  (row,) = run(scale, tmp_path, "--set=bytes", f"--folder={tmp_path}", "--clips=20")
  assert row["records, MB"] > 15
  assert not (tmp_path / "data" / "bytes").exists()

  scale.write_pickle(tmp_path / "ntu60.pkl", clips=120)
  file = annotations.read(tmp_path / "ntu60.pkl")
  assert {name: len(test) for name, (_, test) in file.protocols().items()} == {
    "xsub_val": 60, "tenth_val": 6,
  }  # fmt: skip

  monkeypatch.setattr(scale, "FRAMES", 300)
  monkeypatch.setattr(scale, "FILES", 2)
  scale.write_imigue(tmp_path / "imigue", clips=359)
  home = tmp_path / "imigue" / "mg_skeleton_only" / "0001"
  whole, part = (
    readers.read(path) for path in (home / "0001_2.xlsx", home / "0001_light_hand.csv")
  )
  joints = topology.get("imigue35").indices_in("openpose137")
  np.testing.assert_array_equal(whole.keypoints[:, :, joints], part.keypoints)
  assert whole.keypoints.shape == (300, 1, 137, 3)
  assert len(list((tmp_path / "imigue").rglob("*.xlsx"))) == 359
  labels = (tmp_path / "imigue" / "Label" / "labels_20200831.csv").read_text().splitlines()
  assert len(labels) == 1 + 359


def test_a_command_is_measured_with_its_children(tmp_path):
  hold = "x = b'1' * 50_000_000; import time; time.sleep(0.3)"
  code = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {hold!r}])"
  seconds, memory = scale.measure([sys.executable, "-c", code], tmp_path / "log")
  assert seconds > 0.3
  assert 50 < memory < 200
  with pytest.raises(RuntimeError, match="ended with 3"):
    scale.measure([sys.executable, "-c", "exit(3)"], tmp_path / "log")


def test_compile_times_every_job_without_and_with_cache(tmp_path):
  rows = run(compile, tmp_path, *TINY, "--rounds=1")
  assert [(row["job"], row["cache"]) for row in rows] == [
    ("inference", "empty"), ("inference", "full"), ("train step", "empty"), ("train step", "full"),
  ]  # fmt: skip
  mesh = sharding.data_mesh()
  if not sharding._has_onednn(mesh, sharding.compiler_options(mesh)):  # whose calls none can keep
    assert rows[3]["compile s"] < rows[2]["compile s"]
