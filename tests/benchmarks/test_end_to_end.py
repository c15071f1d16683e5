"""Training end to end is timed, and the peer's loader draws what ours draws."""

import argparse
import json

import jax.numpy as jnp
import numpy as np

from benchmarks import end_to_end, timing
from jaxmg.skeletons import heatmaps


class SameProcess:
  def __init__(self, start, keep, build, *arguments):
    self.calls = build(*arguments)

  def timers(self):
    return {name: timing.timer(call) for name, call in self.calls.items()}

  def close(self):
    pass


def test_ours_is_timed(tmp_path, monkeypatch):
  monkeypatch.setattr(timing, "Process", SameProcess)
  monkeypatch.setattr(end_to_end.importlib.util, "find_spec", lambda name: None)
  out = tmp_path / "out.json"
  sizes = ["--variant=tiny", "--frames=4", "--size=8", "--clips=6", "--batch_size=2"]
  end_to_end.main([*sizes, "--steps=2", "--rounds=1", f"--out={out}"])
  (row,) = json.loads(out.read_text())["results"]
  assert (row["implementation"], row["ratio"]) == ("jaxmg", 1)
  assert row["clips per second"] > 0


def test_their_joints_are_drawn_as_ours():
  rng = np.random.default_rng(0)
  points = rng.uniform((0, 0, 0.3), (20, 20, 1), (3, 5, 3)).astype(np.float32)
  ours = heatmaps.render_joints(jnp.asarray(points[:, None]), size=(20, 20), sigma=end_to_end.SIGMA)
  theirs = end_to_end.draw_joints(points, 20)  # V T H W
  np.testing.assert_allclose(np.moveaxis(theirs, 0, -1), ours, atol=1e-5)


def test_their_clips_lie_in_the_heatmap():
  arguments = argparse.Namespace(frames=6, size=16, skeleton="imigue22")
  rng = np.random.default_rng(0)
  pose = rng.uniform((100, 100, 0.5), (300, 500, 1), (9, 1, 22, 3)).astype(np.float32)
  clips = end_to_end.Clips([pose], np.array([3]), arguments)
  drawn, label = clips[0]
  assert (drawn.shape, drawn.dtype, label) == ((22, 6, 16, 16), np.float32, 3)
  assert (drawn.max((2, 3)) > 0).mean() > 0.6  # of the joints, in all frames
  assert drawn.max() <= 1
