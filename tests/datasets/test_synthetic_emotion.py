"""Synthetic interviews: what their truth tells of the outcome, and their raw files."""

import importlib
import json

import numpy as np
import pytest

from jaxmg.data import readers
from jaxmg.errors import ConfigError

SMALL = dict(train={1: 2}, test={2: 2}, seconds=(3, 3))


@pytest.fixture(scope="module")
def generate(prepare):
  prepare.load("synthetic_imigue")  # with it, datasets/ can be imported from
  return importlib.import_module("synthetic_emotion.generate")


@pytest.fixture(scope="module")
def videos(generate):
  return generate.truth(0)


@pytest.fixture(scope="module")
def raw(generate, tmp_path_factory):
  out = tmp_path_factory.mktemp("raw")
  generate.write(out, seed=0, **SMALL)
  return out


def test_gestures_and_faces_each_tell_some_outcomes_and_both_most(generate, videos):
  told = generate.accuracies(videos)
  assert 0.65 <= told["gestures"] <= 0.75
  assert 0.65 <= told["face"] <= 0.75
  assert told["both"] >= 0.88


def test_the_bands_hold_for_other_seeds_on_average(generate):
  found = [generate.accuracies(generate.truth(seed)) for seed in range(1, 6)]
  told = {name: np.mean([one[name] for one in found]) for name in found[0]}
  assert 0.65 <= told["gestures"] <= 0.75
  assert 0.65 <= told["face"] <= 0.75
  assert told["both"] >= 0.88


def test_sides_are_balanced_and_share_no_subject(videos):
  for split in ("train", "test"):
    outcomes = [video.outcome for video in videos if video.split == split]
    assert (outcomes.count("Win"), outcomes.count("Lose")) == (50, 50)
  subjects = {split: {v.subject for v in videos if v.split == split} for split in ("train", "test")}
  assert not subjects["train"] & subjects["test"]
  assert (len(subjects["train"]), len(subjects["test"])) == (25, 20)


def test_each_subject_has_won_and_lost(videos):
  outcomes = {(video.subject, video.outcome) for video in videos}
  assert len(outcomes) == 2 * 45


def test_neither_length_nor_how_many_gestures_tells_the_outcome(videos):
  won = np.array([video.outcome == "Win" for video in videos])
  for values in (
    [len(video.expression) for video in videos],
    [len(video.clips) / len(video.expression) for video in videos],
    [video.number for video in videos],
  ):
    values = np.array(values, float)
    gap = values[won].mean() - values[~won].mean()
    assert abs(gap) < 3 * values.std() * np.sqrt(2 / 100)


def test_a_seed_draws_the_same_truth_and_another_seed_another(generate, videos):
  for seed, same in ((0, True), (1, False)):
    again = generate.truth(seed)
    assert ([v.outcome for v in again] == [v.outcome for v in videos]) == same
    assert np.array_equal(again[3].expression, videos[3].expression) == same


def test_a_seed_writes_the_same_files_and_goes_on_after_a_kill(generate, raw, tmp_path):
  generate.write(tmp_path, seed=0, **SMALL)
  names = [path.relative_to(raw) for path in sorted(raw.rglob("*.*"))]
  assert len(names) == 2 + 4 * 2 + 2
  last = tmp_path / "video" / "0004.mp4"
  for kept in (True, False):
    for name in names:
      assert (tmp_path / name).read_bytes() == (raw / name).read_bytes(), name
    if kept:
      (tmp_path / generate.LABELS).unlink()
      last.unlink()
      generate.write(tmp_path, seed=0, **SMALL)


def test_a_whole_set_is_not_written_over(generate, raw):
  with pytest.raises(ConfigError, match="expected no data set yet"):
    generate.write(raw, seed=1)


def test_key_points_lie_in_the_video_and_faces_are_large(generate, raw):
  video = readers.read(raw / "video" / "0001.mp4")
  clip = readers.read(raw / "mg_skeleton_only" / "0001" / "0001_openpose.csv")
  assert video.source_size == (generate.HEIGHT, generate.WIDTH)
  assert (video.num_frames, video.fps) == (75, 25)
  assert (clip.layout, clip.num_frames) == ("openpose137", 75)
  assert clip.keypoints[..., :2].max(axis=(0, 1, 2)) == pytest.approx((150, 150), abs=60)
  jaw = clip.keypoints[:, 0, 25:42]
  jaw = jaw[(jaw[..., 2] > 0).all(1)]
  assert 25 <= np.median(np.ptp(jaw[..., 0], 1)) <= 34


def test_the_faces_key_points_show_the_expression(generate):
  rng = np.random.default_rng(0)
  expression = rng.normal(0, 1, (200, 3))
  y = generate.face(expression, rng)[..., 1]
  corners = y[:, 51] - (y[:, 48] + y[:, 54]) / 2
  for shown, column in ((corners, 0), (-y[:, [21, 22]].mean(1), 1), (y[:, 41] - y[:, 37], 2)):
    assert np.corrcoef(shown, expression[:, column])[0, 1] > 0.8


def test_the_truth_lies_beside_the_data(generate, raw):
  told = json.loads((raw / generate.TRUTH).read_text())
  assert told["accuracies"].keys() == {"gestures", "face", "both"}
  assert [video["outcome"] for video in told["videos"]].count("Win") == 2
