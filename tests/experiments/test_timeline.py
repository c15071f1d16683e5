"""Classes over time of a long recording, through `predict --window`, and piece by piece."""

import csv
import re

import numpy as np
import pytest

from experiments import launch, predict, timeline
from jaxmg import predict as library
from jaxmg.data import readers

LENGTH, HOP, NUM_FRAMES = 8, 3, 40
GONE = range(10, 28)  # nobody is there: in all of the windows that cover frames 17 to 20
WINDOWS = [*range(0, 32, HOP), 32]  # the last ends at the last frame


@pytest.fixture(scope="module")
def predictor(run):
  return library.Predictor(run)


@pytest.fixture(scope="module")
def keypoints():
  """One who nods, then nobody, then one who shakes the head."""
  rng = np.random.default_rng(1)
  pose = np.ones((NUM_FRAMES, 1, 25, 3), np.float32)
  pose[..., :2] = rng.uniform((20, 10), (60, 60), (25, 2))
  swing = 6 * np.sin(np.arange(NUM_FRAMES))
  pose[:10, 0, [0, 15, 16, 17, 18], 1] += swing[:10, None]
  pose[28:, 0, [0, 15, 16, 17, 18], 0] += swing[28:, None]
  pose[GONE] = 0
  return pose


@pytest.fixture
def command(run, predictor, keypoints, tmp_path, capsys, monkeypatch):
  """`predict` of the recording: the exit code, and what it prints."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(library, "Predictor", lambda run, **_: predictor)  # compiled once
  np.save("long.npy", keypoints)

  def call(*flags):
    argv = [f"--run={run}", "--input=long.npy", "--layout=openpose25", *flags]
    return launch.command(predict.run, predict.define, argv), *capsys.readouterr()

  return call


def rows_of(path):
  with open(path, newline="") as file:
    return [*csv.DictReader(file)]


@pytest.fixture(scope="module")
def expected(predictor, keypoints):
  """The mean of the windows that cover a frame, from a prediction of each cut; NaN: nobody."""
  clip = readers.Clip(keypoints, "openpose25")
  found = np.full((len(WINDOWS), NUM_FRAMES, 2), np.nan)
  for window, first in zip(found, WINDOWS, strict=True):
    if keypoints[first : first + LENGTH].any():
      window[first : first + LENGTH] = predictor(clip.cut(first, first + LENGTH - 1))
  sums, counts = np.nansum(found, 0), (~np.isnan(found)).sum(0)
  return np.where(counts, sums / np.maximum(counts, 1), np.nan)


def test_windows_are_predicted_as_clips_of_their_own(predictor, keypoints):
  clip = readers.Clip(keypoints, "openpose25")
  found = [*predictor.windows(clip, length=LENGTH, hop=HOP)]
  assert [(first, last) for first, last, _ in found] == [(k, k + LENGTH - 1) for k in WINDOWS]
  assert [first for first, _, them in found if them is None] == [12, 15, 18]
  for first, last, them in found:
    if them is not None:
      np.testing.assert_allclose(them, predictor(clip.cut(first, last)), rtol=0, atol=1e-6)


def test_a_recording_shorter_than_a_window_is_one(predictor, keypoints):
  clip = readers.Clip(keypoints[:5], "openpose25")
  ((first, last, found),) = predictor.windows(clip, length=LENGTH, hop=HOP)
  assert (first, last) == (0, 4)
  np.testing.assert_allclose(found, predictor(clip), rtol=0, atol=1e-6)


@pytest.mark.parametrize(("length", "hop"), [(8, 9), (8, 0), (0, 0)])
def test_windows_that_leave_frames_out_are_refused(predictor, keypoints, length, hop):
  clip = readers.Clip(keypoints, "openpose25")
  with pytest.raises(library.errors.ConfigError, match="hop: expected frames from 1 to the length"):
    predictor.windows(clip, length=length, hop=hop)


def test_what_is_wrong_with_all_of_it_is_raised_before_the_first_window(predictor, keypoints):
  with pytest.raises(library.errors.DataError, match="expected somebody, got nobody in 18 frames"):
    predictor.windows(readers.Clip(keypoints[GONE], "openpose25"), length=LENGTH, hop=HOP)
  with pytest.raises(library.errors.DataError, match=r"what readers\.read gives, got records"):
    predictor.windows({"pose": {}}, length=LENGTH, hop=HOP)


def test_one_of_whom_the_network_sees_nothing_is_nobody(predictor, keypoints):
  feet = keypoints.copy()
  feet[20:, :, :19] = 0  # coco17 has no toes and heels
  found = predictor.windows(readers.Clip(feet, "openpose25"), length=LENGTH, hop=LENGTH)
  assert [them is None for _, _, them in found] == [False, False, True, True, True]


def test_a_frame_of_the_csv_has_the_mean_of_the_windows_that_cover_it(command, expected):
  assert command(f"--window={LENGTH}", f"--hop={HOP}", "--save=out.csv")[0] == 0
  rows = rows_of("out.csv")
  assert [*rows[0]] == ["frame", "class", "nod", "shake"]
  assert [int(row["frame"]) for row in rows] == [*range(NUM_FRAMES)]
  found = [[float(row[name] or "nan") for name in ("nod", "shake")] for row in rows]
  np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6)
  assert np.flatnonzero(np.isnan(expected).all(1)).tolist() == [17, 18, 19, 20]
  names = ["" if np.isnan(p).any() else ("nod", "shake")[p.argmax()] for p in expected]
  assert [row["class"] for row in rows] == names


def test_segments_are_printed_with_their_ends(command, expected):
  code, printed, _ = command(f"--window={LENGTH}", f"--hop={HOP}")
  heading, rate, *lines, mean = printed.splitlines()
  assert code == 0
  assert heading.startswith("long.npy: read as 40 frames of 1 person")
  shown = np.nanmean(expected, axis=0)
  share, name = re.fullmatch(r"  in the mean: ([\d.]+)%  (\w+)", mean).groups()
  assert name == ("nod", "shake")[shown.argmax()]
  assert float(share) == pytest.approx(100 * shown.max(), abs=0.06)
  assert rate == "  windows of 8 frames, every 3; frames: the file has no rate (--fps)"
  assert any(line.endswith("nobody") for line in lines)
  at = 0
  for line in lines:
    first, last, share, name = re.fullmatch(
      r" +(\d+) to +(\d+) +(?:([\d.]+)% )? *(\w+)", line
    ).groups()
    first, last = int(first), int(last)
    assert first == at
    part = expected[first : last + 1]
    if name == "nobody":
      assert np.isnan(part).all()
    else:
      k = ("nod", "shake").index(name)
      assert (part.argmax(1) == k).all()
      assert float(share) == pytest.approx(100 * part[:, k].mean(), abs=0.06)
    at = last + 1
  assert at == NUM_FRAMES


def test_with_a_rate_windows_and_times_are_seconds(command):
  assert command("--window=8", "--hop=3", "--save=frames.csv")[0] == 0
  code, printed, _ = command("--window=0.8", "--hop=0.3", "--fps=10", "--save=out.csv")
  assert code == 0
  assert printed.splitlines()[1] == "  windows of 8 frames, every 3; frames: 10 a second"
  assert re.match(r" +0\.00 to .* s ", printed.splitlines()[2])
  assert re.search(r" to +4\.00 s ", printed.splitlines()[-3])
  assert printed.splitlines()[-1] == "  saved: out.csv"
  rows = rows_of("out.csv")
  assert [float(row.pop("second")) for row in rows] == [frame / 10 for frame in range(NUM_FRAMES)]
  assert rows == rows_of("frames.csv")


def test_a_hop_is_half_a_window_if_none_is_given(command):
  assert command("--window=9")[1].splitlines()[1].startswith("  windows of 9 frames, every 4;")


def test_frames_of_a_part_are_called_as_in_the_whole(command, expected):
  flags = "--frames=27:39", f"--window={LENGTH}", f"--hop={HOP}", "--save=out.csv"
  code, printed, _ = command(*flags)
  assert code == 0
  assert re.match(" +27 to ", printed.splitlines()[2])
  rows = rows_of("out.csv")
  assert [int(row["frame"]) for row in rows] == [*range(27, 40)]
  # The windows from 27, 30 and 32 are those of the whole, and no other covers the last frames.
  found = [[float(row[name]) for name in ("nod", "shake")] for row in rows[-4:]]
  np.testing.assert_allclose(found, expected[-4:], rtol=0, atol=2e-6)


def test_a_picture_shows_every_column_and_the_best_classes(command, expected, monkeypatch):
  from experiments import plots

  drawn = []
  draw = plots.timeline

  def seen(path, shares, names, **options):
    drawn.append((shares, names, options))
    draw(path, shares, names, **options)

  monkeypatch.setattr(plots, "timeline", seen)
  flags = f"--window={LENGTH}", f"--hop={HOP}", "--save=out.png"
  assert command(*flags)[0] == 0
  ((shares, names, options),) = drawn
  assert (names, options) == (["nod", "shake"], {"ends": (0, 40), "unit": "frame"})
  np.testing.assert_allclose(shares, expected, rtol=0, atol=1e-6)
  with open("out.png", "rb") as file:
    assert file.read(4) == b"\x89PNG"
  monkeypatch.setattr(timeline, "COLUMNS", 10)
  assert command(*flags, "--fps=20", "--window=.4", "--hop=.15", "--top=1")[0] == 2  # given twice
  assert command("--window=.4", "--hop=.15", "--fps=20", "--save=out.png", "--top=1")[0] == 0
  shares, names, options = drawn[-1]
  assert options == {"ends": (0.0, 2.0), "unit": "second"}
  best = {("nod", "shake")[k] for k in np.nanargmax(expected[~np.isnan(expected).any(1)], 1)}
  assert {*names} <= best
  k = ("nod", "shake").index(names[0])
  binned = [np.nanmean(part) for part in expected[:, k].reshape(10, 4) if not np.isnan(part).all()]
  np.testing.assert_allclose(shares[~np.isnan(shares[:, 0]), 0], binned, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
  ("flags", "code", "message"),
  [
    ("--window=8 --hop=9", 2, "--hop: expected at most the window, 8, got 9"),
    ("--window=2.5", 2, "--window: expected whole frames, got 2.5 (the file has no rate: --fps=25"),
    ("--window=nan", 2, "--window: expected whole frames, got nan"),
    ("--window=8 --hop=0", 2, "--hop: expected whole frames, got 0"),
    ("--window=0.01 --fps=10", 2, "--window: expected seconds, a frame (0.1) at least, got 0.01"),
    ("--window=8 --fps=0", 2, "--fps: expected frames a second, above 0, got 0.0"),
    ("--window=8 --save=out.txt", 2, "expected a name in .csv or .png or .mp4 or .gif, got"),
    ("--window=8 --save=no/out.csv", 2, "--save: expected a file, in a folder that is there"),
    ("--save=out.csv", 2, "--save=.csv needs --window, as .csv and .png are over time"),
    ("--save=out.png", 2, "--save=.png needs --window, as .csv and .png are over time"),
    ("--hop=3", 2, "--hop needs --window"),
    ("--fps=25", 2, "--fps needs --window"),
    ("--window=8 --frames=10:27", 3, "expected somebody, got nobody in 18 frames"),
  ],
)
def test_wrong_flags_are_refused_in_one_line(command, tmp_path, flags, code, message):
  found, _, error = command(*flags.split())
  assert found == code
  assert error.startswith("jaxmg: error: ")
  assert error.count("\n") == 1
  assert message in error
  assert [path.name for path in tmp_path.iterdir()] == ["long.npy"]


def test_a_timeline_that_breaks_off_leaves_no_file(command, predictor, tmp_path, monkeypatch):
  def windows(clip, *, length, hop):
    yield 0, 7, np.float32([0.4, 0.6])
    raise OSError("gone")

  monkeypatch.setattr(predictor, "windows", windows)
  assert command("--window=8", "--save=out.csv")[0] == 5
  assert [path.name for path in tmp_path.iterdir()] == ["long.npy"]


def test_of_windows_only_those_are_held_that_may_cover_a_frame():
  given = []

  def windows():
    for first in range(0, 1000, 2):
      given.append(first)
      yield first, first + 4, np.float32([first, 1])

  for first, last, probabilities in timeline.averaged(windows()):
    assert given[-1] <= last + 2
    covering = [start for start in given if start <= first and last <= start + 4]
    assert probabilities[0] == np.mean(covering)
  assert (last, given[-1]) == (1002, 998)


def test_nobody_is_no_class_and_spoils_no_mean():
  a, b = np.float32([0.8, 0.2]), np.float32([0.4, 0.6])
  found = [*timeline.averaged([(0, 3, a), (2, 5, None), (4, 7, None), (6, 9, b), (7, 10, b)])]
  expected = [(0, 1, a), (2, 3, a), (4, 5, None), (6, 6, b), (7, 7, b), (8, 9, b), (10, 10, b)]
  assert [(first, last) for first, last, _ in found] == [(*piece[:2],) for piece in expected]
  for (*_, them), (*_, other) in zip(found, expected, strict=True):
    assert (them is None) == (other is None)
    assert them is None or (them == other).all()


def test_a_segment_is_a_run_of_one_best_class_and_has_its_mean():
  given = [[0.8, 0.2], [0.6, 0.4], None, [0.3, 0.7], [0.9, 0.1]]
  bounds = [(0, 2), (3, 3), (4, 5), (6, 6), (7, 9)]
  pieces = [(*ends, p and np.array(p)) for ends, p in zip(bounds, given, strict=True)]
  found = [*timeline.segments(pieces)]
  assert [one[:3] for one in found] == [(0, 3, 0), (4, 5, None), (6, 6, 1), (7, 9, 0)]
  assert [one[3] for one in found] == pytest.approx([0.75, 0, 0.7, 0.9])
