"""Synthetic iMiGUE: raw files, their faults, and what tells the classes apart and what does not."""

import functools
import hashlib
import importlib
import json

import numpy as np
import pytest

from jaxmg.data import prepared, readers, source
from jaxmg.errors import ConfigError, DataError
from jaxmg.skeletons import topology

POINTS = topology.get("imigue22").indices_in("openpose137")
MIRROR = topology.get("imigue22").mirror
NUM_CLASSES = 32


@pytest.fixture(scope="module")
def builder(prepare):
  return prepare.load("synthetic_imigue")


@pytest.fixture(scope="module")
def generate(builder):
  return importlib.import_module("synthetic_imigue.generate")


@pytest.fixture(scope="module")
def raw(generate, tmp_path_factory):
  out = tmp_path_factory.mktemp("raw")
  generate.write(out, seed=0, train_clips=64, test_clips=32)
  return out


@pytest.fixture(scope="module")
def data(builder, raw, tmp_path_factory):
  return source.Source(prepared.write(builder, raw=raw, data_dir=tmp_path_factory.mktemp("data")))


def moving(generate, label, seed):
  """The 137 points without any fault, at rest and in the gesture: float64[T, 137, 2]."""
  rng = np.random.default_rng((label, seed))
  subject = generate.Subject.draw(rng)
  rest = generate.rest_posture(subject, rng)
  motion = generate.gesture(label, subject, int(rng.integers(13, 126)), rng)
  both = {dof: rest[dof] + motion[dof] for dof in motion}
  return generate.points(subject, rest), generate.points(subject, both)


def test_class_names_are_those_of_imigue(generate, builder):
  assert tuple(gesture.name for gesture in generate.GESTURES) == builder.class_names


def test_every_gesture_moves_the_22_joints_by_2_to_25_pixels(generate):
  for label in range(NUM_CLASSES):
    for seed in range(20):
      rest, moved = moving(generate, label, seed)
      assert 2 <= np.linalg.norm((moved - rest)[:, POINTS], axis=-1).max() <= 25


def test_every_gesture_starts_and_ends_at_rest(generate):
  for label in range(NUM_CLASSES):
    rest, moved = moving(generate, label, 0)
    np.testing.assert_allclose(moved[[0, -1]] - rest, 0, atol=5)


def test_no_two_gestures_are_the_same_motion(generate):
  motions = {(gesture.hertz, gesture.parts) for gesture in generate.GESTURES}
  assert len(motions) == NUM_CLASSES


def test_the_persons_right_is_left_in_the_picture(generate):
  subject = generate.Subject.draw(np.random.default_rng(0))
  body = generate.points(subject, generate.still(1))[0]
  layout = topology.get("openpose25")
  for a, b in layout.mirror_pairs:
    right, left = sorted((a, b), key=lambda v: not layout.joints[v].startswith("right"))
    assert body[right, 0] < body[left, 0], layout.joints[right]


def test_one_seed_writes_the_same_files_and_another_seed_others(generate, raw, tmp_path):
  for seed, same in ((0, True), (1, False)):
    generate.write(tmp_path / str(seed), seed=seed, train_clips=64, test_clips=32)
    for path in sorted(raw.rglob("*.csv"))[:6]:
      again = tmp_path / str(seed) / path.relative_to(raw)
      assert (path.read_bytes() == again.read_bytes()) == same


def digest(raw):
  """Of the csv files and their names; an xlsx holds the time of its writing."""
  whole = hashlib.sha256()
  for path in sorted(raw.rglob("*.csv")):
    whole.update(path.relative_to(raw).as_posix().encode() + b"\0" + path.read_bytes())
  return whole.hexdigest()


def test_the_set_of_defaults_stays_what_it_was(generate, raw, tmp_path):
  """As written before `tail`, `median_frames` and `lost_hands` were options."""
  assert digest(raw) == "1162649233d3f9784bfec32654cca67b50075646ea7494a0166003f5640e4057"
  hard = dict(tail=0.6, median_frames=40, lost_hands=3)
  for name, value in hard.items():
    out = tmp_path / name
    generate.write(out, seed=0, train_clips=64, test_clips=32, **{name: value})
    assert digest(out) != digest(raw)


def test_a_longer_tail_has_rarer_classes_in_the_same_order(generate):
  flat, hard, own = (generate.train_counts(1600, tail) for tail in (0, 0.6, 1))
  assert set(flat) == {50}
  assert (hard.sum(), hard.min(), hard.max()) == (1600, 3, 266)
  assert (own.min(), own.argmax()) == (1, 31)
  order = np.argsort([gesture.imigue_clips for gesture in generate.GESTURES])
  assert (np.diff(hard[order]) >= 0).all()
  assert (np.diff(own[order]) >= 0).all()


def test_clips_get_shorter_and_hands_are_lost_more_often(generate):
  def measure(**hardness):
    lengths, lost = [], []
    for video in generate.videos(seed=1, train_clips=320, test_clips=32, **hardness):
      lengths += [clip.stop - clip.start for clip in video.clips]
      lost.append(~video.found[:, 95:116, 2].any(1))
    return np.median(lengths), np.concatenate(lost).mean()

  length, lost = measure()
  assert 42 <= length <= 48
  assert 0.02 < lost < 0.08
  length, lost = measure(median_frames=30, lost_hands=3)
  assert 28 <= length <= 32
  assert 0.1 < lost < 0.2


@pytest.mark.parametrize(
  ("option", "message"),
  [
    (dict(tail=-0.1), "tail: expected 0 to 1, got -0.1"),
    (dict(median_frames=12), "median_frames: expected 13 to 125, got 12"),
    (dict(lost_hands=float("nan")), "lost_hands: expected 0 to 100, got nan"),
  ],
)
def test_options_out_of_range_are_refused(generate, tmp_path, option, message):
  with pytest.raises(ConfigError, match=message):
    generate.write(tmp_path / "raw", seed=0, **option)
  assert not (tmp_path / "raw").exists()


def test_the_command_has_the_options_and_the_set_may_have_a_name(
  generate, prepare, tmp_path, capsys
):
  small = ["--train_clips=64", "--test_clips=32", "--seed=1"]
  hard = ["--tail=0.6", "--median_frames=40", "--lost_hands=3"]
  assert generate.main([f"--out={tmp_path / 'raw'}", *small, *hard]) == 0
  folders = [f"--manual_dir={tmp_path / 'raw'}", f"--data_dir={tmp_path / 'data'}"]
  assert prepare.main(["synthetic_imigue", *folders, "--name=synthetic_hard"]) == 0
  data = source.Source(tmp_path / "data" / "synthetic_hard")
  assert (data.name, data.synthetic, len(data)) == ("synthetic_hard", True, 96)
  assert data.class_groups == prepare.load("imigue").class_groups
  assert generate.main([f"--out={tmp_path / 'other'}", "--tail=2"]) == 2
  assert capsys.readouterr().err == "jaxmg: error: tail: expected 0 to 1, got 2\n"


def test_the_example_is_the_clip_of_the_last_video(raw, data):
  example = readers.read(raw / "example_clip.csv").keypoints
  np.testing.assert_array_equal(example, data.track("pose")[len(data) - 1]["keypoints"])


def test_a_whole_data_set_is_not_written_over(generate, raw):
  with pytest.raises(ConfigError, match="expected no data set yet"):
    generate.write(raw, seed=1)


@pytest.mark.parametrize("counts", [(31, 32), (64, 33), (64, 0)])
def test_clips_that_leave_out_a_class_are_refused(generate, tmp_path, counts):
  with pytest.raises(ConfigError, match="multiple of 32"):
    generate.write(tmp_path, seed=0, train_clips=counts[0], test_clips=counts[1])


def test_the_one_xlsx_holds_the_137_points_of_its_csv(raw):
  (xlsx,) = raw.rglob("*.xlsx")
  (csv,) = xlsx.parent.glob("*_light_hand.csv")
  whole, part = readers.read(xlsx), readers.read(csv)
  assert (whole.layout, part.layout) == ("openpose137", "imigue35")
  points = topology.get("imigue35").indices_in("openpose137")
  np.testing.assert_allclose(whole.keypoints[:, :, points], part.keypoints, atol=6e-3)


def test_an_empty_raw_folder_is_filled_and_no_other(builder, generate, monkeypatch, tmp_path):
  small = functools.partial(generate.write, train_clips=64, test_clips=32)
  monkeypatch.setattr(generate, "write", small)
  (tmp_path / "empty").mkdir()
  builder(raw=tmp_path / "empty", data_dir=tmp_path / "data")
  assert (tmp_path / "empty" / generate.LABELS).exists()

  (tmp_path / "home").mkdir()
  (tmp_path / "home" / "letter.txt").touch()
  with pytest.raises(DataError, match="expected files of every video"):
    builder(raw=tmp_path / "home", data_dir=tmp_path / "data")
  assert len(list((tmp_path / "home").iterdir())) == 1


def test_prepared_set_says_that_it_is_synthetic(data):
  index = json.loads((data.directory / prepared.INDEX).read_text())
  assert index["synthetic"]
  pose = data.track("pose").kind
  assert (str(pose), data.mirror, pose.fps) == ("imigue35", True, 25)
  assert pose.frame_size == (720, 1280)


def test_subjects_are_split_and_the_test_split_is_balanced(data):
  train, test = data.rows("train"), data.rows("test")
  assert (len(train), len(test)) == (64, 32)
  assert np.bincount(data.labels[test]).tolist() == [1] * NUM_CLASSES
  assert len(set(data.subjects[train])) == 12
  assert set(data.subjects[test]) == {str(subject) for subject in range(13, 19)}


def test_training_counts_are_long_tailed_in_the_order_of_imigue(generate):
  counts = generate.train_counts(1600)
  imigue = np.array([gesture.imigue_clips for gesture in generate.GESTURES])
  assert counts.sum() == 1600
  assert counts.max() > 7 * counts.min()
  assert (np.diff(counts[np.argsort(imigue)]) >= 0).all()


# What tells the classes apart, and what does not. A clip: label, subject, first frame, key points.


@pytest.fixture(scope="module")
def clips(generate):
  return [
    (clip.label, video.subject, clip.start, video.found[clip.start : clip.stop])
    for video in generate.videos(seed=0, train_clips=1600, test_clips=960)  # 320 would scatter
    for clip in video.clips
  ]


@pytest.fixture(scope="module")
def labels(clips):
  return np.array([label for label, *_ in clips])


@pytest.fixture(scope="module")
def training(clips, generate):
  return np.array([subject in generate.TRAIN_SUBJECTS for _, subject, *_ in clips])


def test_detections_have_the_faults_of_a_detector(clips):
  found = np.concatenate([keypoints for *_, keypoints in clips[::5]])
  there = found[..., 2] > 0
  assert not found[~there].any()
  assert found[..., 2].max() <= 1
  assert ((found[..., :2] >= 0) & (found[..., :2] < (1280, 720))).all()
  left, right, face = (
    ~there[:, part].any(1) for part in (slice(95, 116), slice(116, 137), slice(25, 95))
  )
  assert 0.02 < left.mean() < 0.12
  assert 0.02 < right.mean() < 0.12
  assert 0.005 < face.mean() < 0.08
  assert 0.001 < (~there.any(1)).mean() < 0.02


def mean_class_accuracy(predicted, labels):
  return np.mean([np.mean(predicted[labels == k] == k) for k in range(NUM_CLASSES)])


def test_neither_length_nor_position_tells_the_class(clips, labels, training):
  """The nearest training clip in any of these says no more than twice what guessing says."""
  time, position, box, posture = [], [], [], []
  for _, _, start, keypoints in clips:
    found = keypoints[:, POINTS]
    time.append([len(found), start])
    weight = found[..., 2:] > 0
    mean = (found[..., :2] * weight).sum(0) / np.maximum(weight.sum(0), 1)
    position.append(mean)
    seen = found[found[..., 2] > 0][:, :2]
    box.append([seen.min(0), seen.max(0)])
    posture.append((mean[2:] - mean[1]) / (abs(mean[2, 0] - mean[5, 0]) + 1))  # from the neck
  position_and_box = np.concatenate([position, box], 1)
  for values in (time, position, box, position_and_box, posture):
    x = np.reshape(values, (len(clips), -1)).astype(float)
    x = (x - x[training].mean(0)) / x[training].std(0)
    train, test = x[training], x[~training]
    distance = (test**2).sum(1)[:, None] + (train**2).sum(1) - 2 * test @ train.T
    nearest = labels[training][distance.argmin(1)]
    assert mean_class_accuracy(nearest, labels[~training]) <= 2 / NUM_CLASSES


def motion_features(xy):
  """How far and how fast each coordinate moves, where it is in the middle, what moves together."""
  move = xy - np.median(xy, 0)
  middle = move[6:20].mean(0) - move[[0, 1, -2, -1]].mean(0)
  together = np.cov(move.T)[np.triu_indices(move.shape[1], 1)]
  together = np.sign(together) * np.sqrt(np.abs(together))
  return np.concatenate([move.std(0), np.diff(move, axis=0).std(0), middle, together])


def test_motion_tells_the_class_of_unseen_subjects(clips, labels, training):
  """A linear classifier of features of the motion that know no position, length or size."""
  plain, mirrored = [], []
  for *_, keypoints in clips:
    found = keypoints[:, POINTS]
    xy = np.zeros((32, 22, 2))
    frames = np.linspace(0, len(found) - 1, 32)
    for joint in range(22):
      there = np.flatnonzero(found[:, joint, 2])
      for axis in range(2 if len(there) else 0):
        xy[:, joint, axis] = np.interp(frames, there, found[there, joint, axis])
    xy /= np.median(np.abs(xy[:, 2, 0] - xy[:, 5, 0])) + 1  # between the shoulders
    plain.append(motion_features(xy.reshape(32, -1)))
    mirrored.append(motion_features((xy[:, MIRROR] * (-1, 1)).reshape(32, -1)))
  plain, mirrored = np.array(plain), np.array(mirrored)
  x = np.concatenate([plain[training], mirrored[training]])
  mean, std = x.mean(0), x.std(0)
  x = (x - mean) / std
  y = np.tile(np.eye(NUM_CLASSES)[labels[training]], (2, 1))
  weights = np.linalg.solve(x.T @ x + 1000 * np.eye(x.shape[1]), x.T @ (y - y.mean(0)))
  scores = ((plain + mirrored)[~training] / 2 - mean) / std @ weights
  assert mean_class_accuracy(scores.argmax(1), labels[~training]) > 0.8
