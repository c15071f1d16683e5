"""The benchmarks run, at sizes that say nothing about speed."""

import json

import numpy as np
import pytest

from benchmarks import agcn, compile, heatmaps, loader, posec3d, timing
from jaxmg import models

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


def test_posec3d_times_three_jobs(tmp_path, capsys, monkeypatch):
  monkeypatch.setattr(timing, "Process", SameProcess)
  monkeypatch.setattr(posec3d.sharding, "reuse_memory", lambda: None)
  rows = run(posec3d, tmp_path, *TINY, "--rounds=1")
  ours = [row for row in rows if (row["implementation"], row["memory"]) == ("jaxmg", "kept")]
  assert [row["job"] for row in ours] == ["forward", "inference", "train step"]
  assert all(row["ms"] > 0 and row["ratio"] == 1 for row in ours)
  assert "implementation" in capsys.readouterr().out.splitlines()[1]


def test_the_peer_is_the_same_network():
  torch_posec3d = pytest.importorskip("benchmarks.torch_posec3d", reason="needs jaxmg[peers]")
  import torch

  variant = models.posec3d.VARIANTS["tiny"]
  heatmaps = np.random.default_rng(0).random((1, 4, 9, 9, 3), np.float32)
  x = torch.from_numpy(np.moveaxis(heatmaps, -1, 1).copy())
  peer = torch_posec3d.make(3, 5, **variant).eval()
  weights = {name: tensor.numpy() for name, tensor in peer.state_dict().items()}
  model = models.posec3d.PoseC3D(5, **variant)
  posec3d.same_weights(weights, peer(x).detach().numpy(), model, heatmaps)
  torch.testing.assert_close(torch_posec3d.fold(peer)(x), peer.eval()(x))


def test_agcn_times_three_jobs(tmp_path):
  rows = run(agcn, tmp_path, "--variant=tiny", "--frames=5", "--batch_size=2", "--rounds=1")
  ours = [row for row in rows if row["implementation"] == "jaxmg"]
  assert [row["job"] for row in ours] == ["forward", "inference", "train step"]
  assert all(row["ms"] > 0 and row["ratio"] == 1 for row in ours)


def test_the_peer_of_agcn_is_the_same_network():
  torch_agcn = pytest.importorskip("benchmarks.torch_agcn", reason="needs jaxmg[peers]")
  parents, variant = (0, 0, 1, 1), models.agcn.VARIANTS["tiny"]
  x = np.random.default_rng(0).random((2, 5, 2, 4, 3), np.float32)
  peer = torch_agcn.make(models.agcn.adjacency(parents), 2, 5, **variant)
  agcn.same_weights(peer, models.agcn.AGCN(5, parents, **variant), x)


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
  assert all(row["clips per second"] > 0 for row in rows)


def test_compile_times_every_job_without_and_with_cache(tmp_path):
  rows = run(compile, tmp_path, *TINY, "--rounds=1")
  assert [(row["job"], row["cache"]) for row in rows] == [
    ("inference", "empty"), ("inference", "full"), ("train step", "empty"), ("train step", "full"),
  ]  # fmt: skip
  assert rows[3]["compile s"] < rows[2]["compile s"]
