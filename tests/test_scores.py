import dataclasses
import hashlib
import io
import json
import os
import zipfile

import numpy as np
import pytest

from jaxmg import errors, scores


def some_scores(ids=("S001_clip_3", "用户 07/片段", "été-🙂")):
  return scores.Scores(
    ids=ids,
    probabilities=np.float32([[0.5, 0.5], [1, 0], [0.25, 0.75]]),
    labels=np.int32([1, 0, -1]),
    class_names=("touching the nose", "鼻を触る"),
    split="test",
    run="joint",
  )


def test_what_is_saved_is_loaded(tmp_path):
  saved = some_scores()
  scores.save(tmp_path / "test.npz", saved)
  loaded = scores.load(tmp_path / "test.npz")
  assert loaded.ids == saved.ids
  assert loaded.class_names == saved.class_names
  assert (loaded.split, loaded.run) == ("test", "joint")
  np.testing.assert_array_equal(loaded.probabilities, saved.probabilities)
  np.testing.assert_array_equal(loaded.labels, saved.labels)
  assert (loaded.probabilities.dtype, loaded.labels.dtype) == (np.float32, np.int32)


def test_saving_replaces_the_file_and_leaves_no_other(tmp_path):
  for ids in (("a", "b", "c"), ("d", "e", "f")):
    scores.save(tmp_path / "test.npz", some_scores(ids))
  assert [path.name for path in tmp_path.iterdir()] == ["test.npz"]
  assert scores.load(tmp_path / "test.npz").ids == ("d", "e", "f")


def assert_refused(path, match):
  with pytest.raises(errors.DataError, match=match) as caught:
    scores.load(path)
  message = str(caught.value)
  assert message.startswith(str(path))
  assert "\n" not in message


def test_missing_file_is_one_line(tmp_path):
  assert_refused(tmp_path / "none.npz", "expected a score file, got no such file")


@pytest.mark.parametrize("content", [b"", b"id,score\na,1\n", b"PK\x03\x04 no archive"])
def test_file_of_another_kind_is_one_line(tmp_path, content):
  path = tmp_path / "test.npz"
  path.write_bytes(content)
  assert_refused(path, "expected a score file")


@pytest.mark.parametrize("share", [0.2, 0.5, 0.95])
def test_truncated_file_is_one_line(tmp_path, share):
  path = tmp_path / "test.npz"
  scores.save(path, some_scores())
  content = path.read_bytes()
  path.write_bytes(content[: int(share * len(content))])
  assert_refused(path, "expected a score file")


def whole(ids=("a", "b", "c")):
  """The arrays of a score file."""
  checksum = hashlib.sha256(json.dumps(ids).encode()).hexdigest()
  return vars(some_scores(("a", "b", "c"))) | {"ids": ids, "checksum": checksum}


def write(path, **changes):
  """A score file like `save`'s, with arrays changed or, if None, left out."""
  arrays = whole() | changes
  np.savez(path, **{name: array for name, array in arrays.items() if array is not None})
  return path


def test_a_file_written_by_hand_is_like_a_saved_one(tmp_path):
  assert scores.load(write(tmp_path / "test.npz")).ids == ("a", "b", "c")


@pytest.mark.parametrize(
  "name", ["ids", "probabilities", "labels", "class_names", "split", "run", "checksum"]
)
def test_missing_array_is_named(tmp_path, name):
  assert_refused(write(tmp_path / "test.npz", **{name: None}), name)


def test_array_of_objects_is_refused_without_unpickling_it(tmp_path):
  ids = np.array(["a", "b", "c"], object)
  assert_refused(write(tmp_path / "test.npz", ids=ids), "allow_pickle=False")


@pytest.mark.parametrize(
  ("changes", "expected"),
  [
    ({"ids": ("a", "b")}, r"probabilities: expected \[2, 2\], got \[3, 2\]"),
    ({"class_names": ("one",)}, r"probabilities: expected \[3, 1\], got \[3, 2\]"),
    ({"labels": np.int32([0, 1])}, r"labels: expected \[3\], got \[2\]"),
  ],
)
def test_arrays_that_do_not_fit_together_are_refused(tmp_path, changes, expected):
  assert_refused(write(tmp_path / "test.npz", **changes), expected)


@pytest.mark.parametrize(
  ("name", "array"),
  [
    ("probabilities", np.zeros((3, 2), "i4")),
    ("probabilities", np.zeros((3, 2), "f4,f4")),
    ("labels", np.zeros(3)),
    ("labels", np.zeros(3, "M8[s]")),
    ("ids", np.zeros(3, "S2")),
    ("run", ("a", "b")),
  ],
)
def test_other_kinds_of_numbers_are_refused(tmp_path, name, array):
  path = write(tmp_path / "test.npz", **{name: array})
  assert_refused(path, f"{name}: expected what `save` writes, got")


def test_array_that_grows_when_it_is_read_is_refused(tmp_path):
  arrays = whole() | {"labels": np.zeros(1 << 24, np.int32)}
  np.savez_compressed(tmp_path / "test.npz", **arrays)
  assert (tmp_path / "test.npz").stat().st_size < 1 << 20
  assert_refused(tmp_path / "test.npz", "got a compressed one")


def test_array_of_text_without_width_is_refused_whatever_its_length(tmp_path):
  header = io.BytesIO()
  fields = {"descr": "<U0", "fortran_order": False, "shape": (1 << 40,)}
  np.lib.format.write_array_header_1_0(header, fields)
  path = write(tmp_path / "test.npz", ids=None)
  with zipfile.ZipFile(path, "a") as archive:
    archive.writestr("ids.npy", header.getvalue())
  assert_refused(path, "ids: expected what `save` writes, got <U0")


def test_array_that_is_there_twice_is_refused(tmp_path):
  path = write(tmp_path / "test.npz")
  with (
    zipfile.ZipFile(path, "a") as archive,
    pytest.warns(UserWarning, match="Duplicate name"),
    archive.open("labels.npy", "w") as file,
  ):
    np.save(file, np.int32([0, 0, 0]))
  assert_refused(path, r"labels\.npy', 'labels\.npy'")


def test_repeated_ids_are_refused(tmp_path):
  path = write(tmp_path / "test.npz", **whole(("a", "b", "a")))
  assert_refused(path, r"ids: expected each once, got repeated ones: 1 \('a'\)")


def test_ids_in_another_order_than_they_were_saved_are_refused(tmp_path):
  assert_refused(
    write(tmp_path / "test.npz", ids=("b", "a", "c")),
    "ids: expected those that were saved, got others",
  )


def test_what_a_killed_save_left_is_gone_after_the_next(tmp_path):
  (tmp_path / ".part.test.npz").write_bytes(b"half")
  scores.save(tmp_path / "test.npz", some_scores())
  assert os.listdir(tmp_path) == ["test.npz"]


def test_a_failing_save_leaves_no_file(tmp_path, monkeypatch):
  def full(file, **arrays):
    file.write(b"half")
    raise OSError(28, "No space left on device")

  monkeypatch.setattr(np, "savez", full)
  with pytest.raises(OSError, match="No space"):
    scores.save(tmp_path / "test.npz", some_scores())
  assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
  ("row", "wrong"),
  [
    (0, [0.5, np.nan]),
    (1, [np.inf, -np.inf]),
    (1, [np.inf, 0]),
    (2, [0.5, 0.6]),
    (2, [1.5, -0.5]),
    (0, [0, 0]),
  ],
)
def test_rows_that_are_no_probabilities_are_no_scores(tmp_path, row, wrong):
  probabilities = np.array([[0.5, 0.5], [1, 0], [0.25, 0.75]], np.float32)
  probabilities[row] = wrong
  path = write(tmp_path / "test.npz", probabilities=probabilities)
  expected = rf"probabilities: expected none negative, .* got others of 1 \('{'abc'[row]}'\)"
  assert_refused(path, expected)
  with pytest.raises(errors.DataError, match=r"^probabilities: "):
    dataclasses.replace(some_scores(), probabilities=probabilities)


@pytest.mark.parametrize("label", [-2, 2])
def test_label_of_no_class_is_refused(tmp_path, label):
  path = write(tmp_path / "test.npz", labels=np.int32([0, label, 1]))
  assert_refused(path, r"labels: expected -1 \(hidden\) to 1, got others of 1 \('b'\)")


def test_scores_of_no_clip_are_refused(tmp_path):
  nothing = {"probabilities": np.zeros((0, 2), "f4"), "labels": np.zeros(0, "i4")}
  # An empty list would be written as floats.
  path = write(tmp_path / "test.npz", **whole(()) | nothing | {"ids": np.zeros(0, "U1")})
  assert_refused(path, r"expected clips and classes, got \[0, 2\]")


# --- several


def table(ids, probabilities, labels, run="joint"):
  return scores.Scores(
    ids=tuple(ids),
    probabilities=np.float32(probabilities),
    labels=np.int32(labels),
    class_names=("nod", "shake"),
    split="test",
    run=run,
  )


JOINT = table("abc", [[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 1, 1])
BONE = table("cab", [[0.2, 0.8], [0.7, 0.3], [0.5, 0.5]], [1, 0, 1], "bone")


def test_fused_by_hand_by_id():
  fused = scores.fuse([JOINT, BONE], [3, 1])
  assert fused.ids == ("a", "b", "c")
  assert fused.labels.tolist() == [0, 1, 1]
  np.testing.assert_allclose(fused.probabilities, [[0.85, 0.15], [0.275, 0.725], [0.5, 0.5]])
  assert (fused.split, fused.run) == ("test", "0.75 joint + 0.25 bone")
  assert fused.probabilities.dtype == np.float32


def test_what_is_fused_can_be_saved_and_fused_again(tmp_path):
  fused = scores.fuse([JOINT, BONE], [1, 1])
  scores.save(tmp_path / "fused.npz", fused)
  again = scores.fuse([scores.load(tmp_path / "fused.npz"), BONE], [1, 0])
  np.testing.assert_allclose(again.probabilities, fused.probabilities, rtol=1e-6)


def test_the_order_of_the_rows_of_any_file_changes_nothing():
  rng = np.random.default_rng(0)
  ids = [f"clip{i}" for i in range(40)]
  labels = rng.integers(2, size=40)
  parts = [table(ids, rng.dirichlet((1, 1), 40), labels) for _ in range(3)]
  expected = scores.fuse(parts, (0.2, 0.3, 0.5))
  shuffled = []
  for part in parts:
    order = rng.permutation(40)
    ids = [part.ids[row] for row in order]
    shuffled.append(table(ids, part.probabilities[order], part.labels[order]))
  fused = scores.fuse(shuffled, (0.2, 0.3, 0.5))
  order = [fused.ids.index(id) for id in expected.ids]
  np.testing.assert_array_equal(fused.probabilities[order], expected.probabilities)
  np.testing.assert_array_equal(fused.labels[order], expected.labels)


def test_hidden_labels_are_fused():
  hidden = [dataclasses.replace(part, labels=np.int32([-1] * 3)) for part in (JOINT, BONE)]
  assert scores.fuse(hidden, [1, 1]).labels.tolist() == [-1] * 3


@pytest.mark.parametrize(
  ("other", "message"),
  [
    (
      table("abd", BONE.probabilities, [0, 1, 1], "bone"),
      r"scores 2 of 2 \('bone'\): expected the clips of the first, "
      r"got others: without 1 \('c'\) and with 1 \('d'\)",
    ),
    (table("ab", [[1, 0]] * 2, [0, 1], ""), r"scores 2 of 2: .* got others: without 1 \('c'\)$"),
    (
      table("abcdefghi", [[1, 0]] * 9, [0, 1, 1] * 3),
      r"with 6 \('d', 'e', 'f', 'g', 'h', \.\.\.\)$",
    ),
    (table("cab", BONE.probabilities, [0, 0, 1]), r"labels: .* others of 1 \('c'\)"),
    (table("cab", BONE.probabilities, [-1, 0, 1]), r"labels: .* others of 1 \('c'\)"),
    (
      dataclasses.replace(BONE, class_names=("nod", "wave")),
      r"class 1: expected 'shake', got 'wave'",
    ),
    (
      scores.Scores(("a",), np.ones((1, 1)), np.int32([0]), ("nod",)),
      r"class 1: expected 'shake', got None",
    ),
  ],
)
def test_scores_of_other_clips_or_classes_are_refused_by_name(other, message):
  for function in (lambda parts: scores.fuse(parts, [1, 1]), scores.search):
    with pytest.raises(errors.DataError, match=message):
      function([JOINT, other])


@pytest.mark.parametrize(
  "weights", [[1], [1, 1, 1], [], [1, -0.5], [0, 0], [1, np.nan], [np.inf, 1], [1e308, 1e308]]
)
def test_weights_that_make_no_mean_are_refused(weights):
  with pytest.raises(errors.ConfigError, match="weights: expected 2 numbers, none negative"):
    scores.fuse([JOINT, BONE], weights)


def test_joined_scores_hold_the_clips_of_all():
  joined = scores.join([JOINT, table("de", [[1, 0], [0.3, 0.7]], [0, -1], "bone")])
  assert joined.ids == tuple("abcde")
  assert joined.labels.tolist() == [0, 1, 1, 0, -1]
  np.testing.assert_array_equal(joined.probabilities[:3], JOINT.probabilities)
  np.testing.assert_array_equal(joined.probabilities[3:], np.float32([[1, 0], [0.3, 0.7]]))
  assert (joined.split, joined.run) == ("test", "joint, bone")


@pytest.mark.parametrize(
  ("other", "message"),
  [
    (BONE, r"ids: expected each once, got repeated ones: 3 \('a', 'b', 'c'\)"),
    (
      dataclasses.replace(BONE, ids=tuple("def"), class_names=("nod", "wave")),
      r"scores 2 of 2 \('bone'\): class 1: expected 'shake', got 'wave'",
    ),
  ],
)
def test_scores_of_the_same_clip_or_of_other_classes_are_not_joined(other, message):
  with pytest.raises(errors.DataError, match=message):
    scores.join([JOINT, other])


# --- temperatures


def drawn(factor=1.0, *, seed=0, count=3000, spread=2.0):
  """Labels drawn from softmax(z), beside the probabilities softmax(factor * z)."""
  rng = np.random.default_rng(seed)
  logits = spread * rng.normal(size=(count, 5))
  # The largest of logits with Gumbel noise is drawn by their softmax.
  labels = (logits + rng.gumbel(size=logits.shape)).argmax(1)
  odds = np.exp(factor * logits)
  return scores.Scores(
    ids=tuple(map(str, range(count))),
    probabilities=np.float32(odds / odds.sum(1, keepdims=True)),
    labels=np.int32(labels),
    class_names=tuple("abcde"),
  )


def loss(part):
  """The negative log-likelihood of the labels."""
  chosen = part.probabilities[np.arange(len(part.ids)), part.labels]
  return -np.log(np.maximum(np.float64(chosen), np.finfo(np.float32).tiny)).mean()


@pytest.mark.parametrize("factor", [0.5, 1, 3, 10])
def test_the_fitted_temperature_undoes_a_factor_of_the_logits(factor):
  part = drawn(factor)
  temperature = scores.fit_temperature(part)
  assert temperature == pytest.approx(factor, rel=0.05)
  np.testing.assert_allclose(
    scores.calibrate(part, factor).probabilities, drawn().probabilities, rtol=1e-3, atol=2e-4
  )
  fitted = loss(scores.calibrate(part, temperature))
  assert fitted <= loss(part)
  for other in (0.97, 1.03):
    assert fitted < loss(scores.calibrate(part, other * temperature))


@pytest.mark.parametrize("seed", range(5))
def test_the_fitted_temperature_never_makes_the_labels_less_likely(seed):
  rng = np.random.default_rng(seed)
  ids = [str(i) for i in range(20)]
  part = table(ids, rng.dirichlet((0.1, 0.1), 20), rng.integers(2, size=20))
  assert loss(scores.calibrate(part, scores.fit_temperature(part))) <= loss(part)


def test_the_fitted_temperature_is_the_same_for_any_order_of_clips():
  part = drawn(3, count=500)
  order = np.random.default_rng(1).permutation(500)
  shuffled = dataclasses.replace(
    part,
    ids=tuple(part.ids[row] for row in order),
    probabilities=part.probabilities[order],
    labels=part.labels[order],
  )
  assert scores.fit_temperature(shuffled) == pytest.approx(scores.fit_temperature(part), rel=1e-9)


@pytest.mark.parametrize(
  ("probabilities", "labels", "expected"),
  [
    ([[1, 0], [0, 1], [0.4, 0.6]], [0, 1, 1], 0.1),  # always right
    ([[1, 0], [0, 1], [0.4, 0.6]], [1, 0, 0], 100),  # always wrong
    ([[0.5, 0.5]] * 3, [1, 0, 0], 1),  # all temperatures are as good
  ],
)
def test_the_fitted_temperature_is_at_most_an_end_of_the_range(probabilities, labels, expected):
  part = table("abc", probabilities, labels)
  temperature = scores.fit_temperature(part)
  assert temperature == pytest.approx(expected)
  assert loss(scores.calibrate(part, temperature)) <= loss(part)


def test_a_probability_of_zero_is_calibrated_as_one_of_the_smallest_number():
  part = table("abc", [[1, 0], [0, 1], [1, 0]], [0, 1, 1])
  for temperature in (0.1, 1.5, 100):
    probabilities = scores.calibrate(part, temperature).probabilities
    odds = np.finfo(np.float32).tiny.astype(float) ** (1 / temperature)
    np.testing.assert_allclose(probabilities[0], [1 / (1 + odds), odds / (1 + odds)], rtol=1e-6)
  # Right in two of three: as sure as that.
  fitted = scores.calibrate(part, scores.fit_temperature(part))
  assert fitted.probabilities.tolist()[0] == pytest.approx([0.7, 0.3], abs=0.01)


def test_calibration_keeps_the_order_of_classes_and_at_1_every_bit():
  part = drawn(3, count=100)
  assert scores.calibrate(part, 1) is part
  for temperature in (0.5, 7.0):
    calibrated = scores.calibrate(part, temperature)
    np.testing.assert_array_equal(
      calibrated.probabilities.argsort(1), part.probabilities.argsort(1)
    )
    assert calibrated.probabilities.dtype == np.float32


@pytest.mark.parametrize("temperature", [0, -1, 0.09, 101, np.nan, np.inf])
def test_temperatures_out_of_their_range_are_refused(temperature):
  message = f"temperature: expected a number from 0.1 to 100, got {temperature:g}"
  with pytest.raises(errors.ConfigError, match=message):
    scores.calibrate(JOINT, temperature)


def test_temperatures_are_not_fitted_by_hidden_labels():
  hidden = dataclasses.replace(JOINT, labels=np.int32([0, -1, 1]))
  with pytest.raises(errors.DataError, match="labels to search by: expected all known"):
    scores.fit_temperature(hidden)


def test_an_over_sure_part_no_longer_dominates_the_fused_scores():
  """Two equally good views of the label, one of them with five times its logits."""
  rng = np.random.default_rng(0)
  labels = rng.integers(5, size=1000)
  parts = []
  for factor in (1, 5):
    odds = np.exp(factor * (2 * np.eye(5)[labels] + 1.4 * rng.normal(size=(1000, 5))))
    part = dataclasses.replace(drawn(count=1000), labels=np.int32(labels))
    probabilities = np.float32(odds / odds.sum(1, keepdims=True))
    parts.append(dataclasses.replace(part, probabilities=probabilities))

  def agreement(parts):
    """The share of clips that the fused scores name as the second part does, where they differ."""
    fused = scores.fuse(parts, [1, 1])
    one, two, both = (part.probabilities.argmax(1) for part in (*parts, fused))
    right = (both == labels).mean()
    return (both == two)[one != two].mean(), right

  calibrated = [scores.calibrate(part, scores.fit_temperature(part)) for part in parts]
  before, after = agreement(parts), agreement(calibrated)
  assert before[0] > 0.8
  assert 0.4 < after[0] < 0.6
  assert after[1] > before[1] + 0.02


# --- weights


def test_search_finds_the_likeliest_weights():
  one = table("abc", [[0.6, 0.4], [0.7, 0.3], [0.9, 0.1]], [0, 1, 0])
  two = table("bca", [[0.1, 0.9], [0.5, 0.5], [0.4, 0.6]], [1, 0, 0])
  weights = scores.search([one, two])
  assert sum(weights) == pytest.approx(1)

  def loss(weight):
    fused = scores.fuse([one, two], [weight, 1 - weight])
    return -np.log(fused.probabilities[np.arange(3), fused.labels]).mean()

  grid = np.linspace(0, 1, 1001)
  assert weights[0] == pytest.approx(grid[np.argmin([loss(weight) for weight in grid])], abs=2e-3)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_equals_get_equal_weights(count):
  weights = scores.search([JOINT] * count)
  assert weights == pytest.approx([1 / count] * count)


def test_a_part_that_knows_nothing_gets_no_weight():
  rng = np.random.default_rng(0)
  labels = rng.integers(2, size=200)
  ids = [str(i) for i in range(200)]
  parts = []
  for strength in (1.5, 1.5, 0.0):
    odds = np.exp(rng.normal(size=(200, 2)) + strength * np.eye(2)[labels])
    parts.append(table(ids, odds / odds.sum(1, keepdims=True), labels))
  weights = scores.search(parts)
  assert weights == scores.search(parts)
  assert weights[2] < 1e-3
  assert min(weights[:2]) > 0.3


def test_weights_are_not_searched_by_hidden_labels():
  hidden = dataclasses.replace(JOINT, labels=np.int32([0, -1, 1]))
  with pytest.raises(errors.DataError, match="labels to search by: expected all known"):
    scores.search([hidden, hidden])
