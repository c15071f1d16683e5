"""The figures of an ablation's table, of scores made by hand."""

import dataclasses

import numpy as np

from experiments import tables
from jaxmg import inputs, recipe, scores
from jaxmg.data import source


def test_interval_of_few_seeds_holds_the_truth_as_often_as_it_says():
  rng = np.random.default_rng(0)
  for clip_noise, seed_noise in ((1.0, 0.0), (1.0, 1.0), (0.0, 1.0)):
    held = 0
    for _ in range(1000):
      clips = clip_noise * rng.normal()  # the same clips for all seeds
      values = 5 + clips + seed_noise * rng.normal(size=3)
      samples = values[:, None] + clip_noise * rng.normal(size=400)
      mean, low, high = tables.interval(values, samples)
      assert low < mean < high
      held += low <= 5 <= high
    assert 930 <= held <= 990


def test_columns_count_their_clips_over_all_seeds(tmp_path, make_nods):
  """Of hand-made scores: eight classes' worth of probabilities, two seeds, a tail, short clips."""
  data = source.Source(make_nods(9 * "a" + 6 * "d") / "nods")
  rows, pose = data.rows("test"), data.track("pose").kind
  found = recipe.Recipe(
    model={"num_classes": 2},
    inputs={"pose": inputs.Heatmaps(pose.layout, pose.frame_size, num_frames=13)},
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
  subsets = tables._subsets(found, seeds[0])
  # 5 clips of nods and 4 of shakes train: the tail is "shake".
  assert [title for title, _, _ in subsets.values()] == [
    "top-1", "mean-class", "macro-F1", "short (< 13 frames, 6 clips)",
    "tail (<= 4 training clips, 3 clips)",
  ]  # fmt: skip
  for num_frames in (11, 12):  # no clip is shorter
    pose_input = dataclasses.replace(found.inputs["pose"], num_frames=num_frames)
    other = dataclasses.replace(found, inputs={"pose": pose_input})
    assert "short" not in tables._subsets(other, seeds[0])
  figures = tables._figures(subsets, seeds)
  assert figures["tail"][0].tolist() == [1, 0]
  assert figures["top1"][0].tolist() == figures["short"][0].tolist() == [1, 0.5]
  assert figures["mean_class"][1].shape == (2, 2000)
