import numpy as np
import pytest

from experiments import plots
from jaxmg import skeletons


def test_the_pose_in_the_picture_is_a_body():
  skeleton = skeletons.get("imigue22")
  pose = np.array(plots._POSE)
  assert pose.shape == (22, 2)
  # It faces us: each right joint is left of its counterpart, and each tip is nearest to its wrist.
  for a, b in skeleton.mirror_pairs:
    left, right = (a, b) if skeleton.joints[a].startswith("left") else (b, a)
    assert pose[right, 0] < pose[left, 0]
  wrists = pose[[skeleton.joints.index(f"{side}_wrist") for side in ("left", "right")]]
  distances = np.linalg.norm(pose[12:, None] - wrists, axis=-1)
  assert distances.argmin(1).tolist() == [0] * 5 + [1] * 5


def test_the_picture_of_the_layouts_counts_what_is_right_in_them(tmp_path, monkeypatch):
  from matplotlib import axes

  titles = []
  set_title = axes.Axes.set_title

  def heard(self, label, *arguments, **settings):
    titles.append(label)
    return set_title(self, label, *arguments, **settings)

  monkeypatch.setattr(axes.Axes, "set_title", heard)
  plots.layouts(tmp_path / "topology.png")
  assert titles == [
    "imigue22_legacy: 6 of 22 limbs are limbs",
    "its mirror image: 1 of 22 joints are in place",
    "imigue22: 21 of 21 limbs are limbs",
    "its mirror image: 22 of 22 joints are in place",
  ]
  picture = (tmp_path / "topology.png").read_bytes()
  assert picture.startswith(b"\x89PNG")
  assert 20_000 < len(picture) < 150_000


@pytest.mark.parametrize("metrics", [("top-1",), ("top-1", "mean-class")])
def test_the_picture_of_differences_has_a_panel_for_each_metric(metrics, tmp_path, monkeypatch):
  from matplotlib import figure

  drawn = []
  save = figure.Figure.savefig

  def heard(self, *arguments, **options):
    drawn.extend(self.axes)
    return save(self, *arguments, **options)

  monkeypatch.setattr(figure.Figure, "savefig", heard)
  rows = {"flip": (1.0, -0.5, 2.5), "limb": (-2.0, -3.0, -1.0)}
  plots.differences(tmp_path / "differences.png", dict.fromkeys(metrics, rows), title="nods")
  assert [axes.get_title() for axes in drawn] == list(metrics)
  for axes in drawn:
    assert [list(line.get_xdata()) for line in axes.lines[::2]] == [[-0.5, 2.5], [-3, -1], [0, 0]]
  assert [text.get_text() for text in drawn[0].get_yticklabels()] == ["flip", "limb"]
  assert (tmp_path / "differences.png").read_bytes().startswith(b"\x89PNG")
