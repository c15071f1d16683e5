# ruff: noqa: E501 (a row is a line)
"""Arrays as a set: the same clips, splits and batches as a prepared one."""

import dataclasses
import re

import flax.linen
import jax
import numpy as np
import pytest

import jaxmg
from jaxmg import errors, inputs, models, recipe
from jaxmg.data import memory, pipeline, prepared, readers, tracks

TOLD = {"layout": "coco17", "frame_size": (48, 64)}
PEOPLE = ("ann", "ann", "bob", "cy", "cy", "dan")
XSUB = {"xsub": memory.by_subject(train=("ann", "bob"))}
LABELS = [0, 1, 0, "wave", 0, -1]


def poses(count=6):
  rng = np.random.default_rng(0)
  return [
    rng.uniform((9, 9, 0.5), (60, 44, 1), (10 + i, 2, 17, 3)).astype(np.float32)
    for i in range(count)
  ]


def held(clips, labels=LABELS, **options):
  options = {"class_names": ("still", "wave"), "subjects": PEOPLE, "protocols": XSUB} | options
  return memory.from_arrays(clips, labels, **options)


def test_it_is_as_prepared(tmp_path):
  class Arrays(prepared.Builder):
    track = tracks.Pose("coco17", frame_size=(48, 64), num_persons=2)
    class_names = ("still", "wave")
    protocols = XSUB

    def clips(self, recording, known):
      for i, (array, label, who) in enumerate(zip(poses(), LABELS, PEOPLE, strict=True)):
        yield prepared.Example(str(i), label, who, readers.Clip(array, "coco17"))

  (tmp_path / "raw").mkdir()
  prepared.write(Arrays, raw=tmp_path / "raw", data_dir=tmp_path)
  there = memory.source.Source(tmp_path / "arrays")
  data = held(poses(), **TOLD)
  assert (len(data), data.track_names) == (6, ("pose",))
  assert data.labels.tolist() == [0, 1, 0, 1, 0, -1]
  for split in ("train", "test"):
    np.testing.assert_array_equal(data.rows(split), there.rows(split))
  assert data.clips_fingerprint() == there.clips_fingerprint()
  pose = {"pose": inputs.Heatmaps("coco17", (48, 64), num_frames=4, size=8)}
  ours, theirs = (
    pipeline.train_batches(one, one.rows("train"), pose, batch_size=3, seed=1)
    for one in (data, there)
  )
  for _ in range(3):  # of the first epoch, and of those whose clips are kept
    jax.tree.map(np.testing.assert_array_equal, next(ours), next(theirs))


def test_a_run_on_it_is_saved_and_known(tmp_path):
  data = held(poses(), **TOLD)
  pose = inputs.Heatmaps("coco17", (48, 64), num_frames=4, size=8, test_size=8)
  model = models.MODELS["posec3d"](num_classes=2, variant="tiny")
  run = recipe.Recipe(model, {"pose": pose}, data.class_names, data=data.describe(["pose"]))
  variables = jax.jit(model.init)(jax.random.key(0), np.zeros((1, 4, 8, 8, 17), np.float32))
  recipe.save(tmp_path / "run", run, variables)
  assert recipe.to_json(recipe.load(tmp_path / "run")) == recipe.to_json(run)
  with pytest.raises(errors.CheckpointError, match="run: expected a new folder, got a run"):
    recipe.save(tmp_path / "run", run, variables)
  other = models.MODELS["posec3d"](num_classes=2, variant="tiny", width=8)
  other = recipe.Recipe(other, {"pose": pose}, data.class_names)
  with pytest.raises(errors.CheckpointError, match=r"variables: batch_stats.*expected \(8,\), got"):
    recipe.save(tmp_path / "other", other, variables)
  whole = jax.tree.map(lambda x: x.astype(np.int32), variables)
  with pytest.raises(errors.CheckpointError, match=r"expected \(4,\), got int32\[4\]"):
    recipe.save(tmp_path / "other", run, whole)
  table = np.eye(2, dtype=np.float32)
  other = dataclasses.replace(run, label_embeddings=recipe.table_digest(table))
  for kept, given, message in (
    (run, table, "label_table: expected none, got another"),
    (other, None, "label_table: expected the table of recipe.label_embeddings, got none"),
    (other, 2 * table, "label_table: expected the table of recipe.label_embeddings, got another"),
  ):
    with pytest.raises(errors.CheckpointError, match=message):
      recipe.save(tmp_path / "other", kept, variables, label_table=given)
  assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]
  recipe.save(tmp_path / "other", other, variables, label_table=table)
  np.testing.assert_array_equal(recipe.label_table(tmp_path / "other", other), table)
  with pytest.raises(ValueError, match=r"model: expected one of models\.MODELS: agcn or"):
    recipe.describe_model(flax.linen.Dense(2))

  predictor = jaxmg.load(tmp_path / "run", batch_size=4)
  expected = [predictor(readers.Clip(one, "coco17")) for one in poses()]
  together = predictor(poses(), layout="coco17")
  np.testing.assert_allclose(together, expected, atol=1e-6)
  records = ({"pose": data.track("pose")[row]} for row in range(6))
  np.testing.assert_allclose(predictor(records), expected, atol=1e-6)
  np.save(tmp_path / "clip.npy", poses()[2])
  np.testing.assert_allclose(predictor(tmp_path / "clip.npy", **TOLD), expected[2], atol=1e-6)
  in_jax = predictor({"pose": jax.numpy.asarray(poses()[2])}, **TOLD)
  np.testing.assert_allclose(in_jax, expected[2], atol=1e-6)
  assert predictor.features(poses(), **TOLD).shape == (6, 32)
  assert predictor.tokens(poses()[0], **TOLD).shape == (1, 2, 32)  # R L D
  windows = [*predictor.windows(poses()[5], length=9, hop=4, **TOLD)]
  assert [window[:2] for window in windows] == [(0, 8), (4, 12), (6, 14)]

  for wrong, kind, message in (
    (3, TypeError, "a clip: expected an array of key points or of frames, .*, got int"),
    ([poses()[0], None], TypeError, "a clip: .*got NoneType"),
    ([], ValueError, "clips: expected at least one, got none"),
    ([poses()[0], 0 * poses()[1]], errors.DataError, r"^clips\[1\]: the clip: .*somebody, got nobody"),
    (poses()[0][..., :9, :], errors.DataError, r"shape: expected .*name the layout: layout=\)"),
    ("none.csv", errors.DataError, "none.csv: expected a file or a folder, got nothing"),
    (np.zeros((3, 8, 8, 3), np.uint8), errors.DataError, "the clip: expected a pose, got video"),
    ({"video": poses()[0]}, errors.DataError, "the clip: 'video': expected a video, got a pose"),
    ({}, errors.DataError, "the clip: expected a dictionary by track: pose"),
    ({"pose": {"keypoints": poses()[0]}}, errors.DataError, "'pose': expected the record of a set"),
    (np.stack([poses()[0][:, :1]] * 5)[:, :, 0], errors.DataError, r"shape: expected .* or to be told, got \[5, \d+, 17, 3\] \(axes=MTVC; several clips: in a list\)"),
  ):  # fmt: skip
    with pytest.raises(kind, match=message):
      predictor(wrong)
  with pytest.raises(TypeError, match=r"expected layout=, frame_size=, .*, got size="):
    predictor(poses()[0], size=3)


def test_3d_joints_that_no_camera_sees_are_no_key_points():
  centred = np.random.default_rng(0).normal(0, 0.3, (20, 1, 17, 3)).astype(np.float32)
  data = held(
    [centred] * 2, [0, 1], points="joints3d", layout="h36m17", subjects=None, protocols=None
  )
  seen = inputs.Graph("h36m17", (48, 64), num_frames=4)
  with pytest.raises(ValueError, match=r"points: expected key points, got 3-D joints alone"):
    seen.read(data.track("pose")[0], np.random.default_rng(0))


def test_what_is_assumed_is_said_once(tmp_path, capsys):
  pose = inputs.Graph("coco17", (48, 64), num_frames=4)
  model = models.MODELS["agcn"](num_classes=2, parents=pose.skeleton.parents, variant="tiny")
  run = recipe.Recipe(model, {"pose": pose}, ("still", "wave"))
  x = jax.numpy.zeros((1, 4, 1, 17, 3))
  recipe.save(tmp_path / "run", run, jax.jit(model.init)(jax.random.key(0), x))
  predictor = jaxmg.load(tmp_path / "run")
  for _ in range(2):
    predictor._by_track(poses()[1], predictor._told({}))
  said = capsys.readouterr().err
  assert said.count("note: clips are read as 17 joints (coco17 assumed), pixels, axes TMVC") == 1
  assert "48 x 64 assumed" in said
  assert "; this one: 11 frames of 2 persons\n" in said


def test_videos_are_held_as_they_are():
  rng = np.random.default_rng(0)
  frames = [rng.integers(256, size=(6, 16, 20 + i, 3), dtype=np.uint8) for i in range(2)]
  data = held({"video": frames}, [0, 1], subjects=None, protocols=None, fps=10.0)
  record = data.track("video")[1]
  assert record["times"].tolist() == pytest.approx([0, 0.1, 0.2, 0.3, 0.4, 0.5])
  one = inputs.Video((16, 21), size=16, num_frames=6, sampling="uniform", seconds=1.0)
  read = one.read_test(record, 1)["frames"]
  np.testing.assert_array_equal(read[0], frames[1])
  assert data.rows("train").tolist() == [0, 1]


def test_subjects_may_be_numbers():
  xsub = {"xsub": memory.by_subject(train=("1", "2"))}
  for subjects in (np.array([1, 1, 2, 3, 3, 4]), jax.numpy.array([1, 1, 2, 3, 3, 4])):
    data = held(poses(), subjects=subjects, protocols=xsub, **TOLD)
    assert data.subjects.tolist() == ["1", "1", "2", "3", "3", "4"]
    assert data.rows("train").tolist() == [0, 1, 2]


def test_a_part_of_a_published_set_may_lack_subjects(capsys):
  published = {"xsub": memory.by_subject(train=("s01", "s02", "s03", "s05"))}
  people = ["s01", "s01", "s02", "s04", "s04", "s06"]
  data = held(poses(), subjects=people, protocols=published, **TOLD)
  assert data.rows("train").tolist() == [0, 1, 2]
  said = "note: protocol 'xsub': 2 of 4 subjects to train on have no clip: 's03', 's05'\n"
  assert said in capsys.readouterr().err


def test_tracks_of_a_clip_may_have_other_numbers_of_frames():
  rng = np.random.default_rng(0)
  videos = [rng.integers(256, size=(5, 48, 64), dtype=np.uint8) for _ in range(6)]
  data = held({"pose": poses(), "video": videos}, fps=10.0, **TOLD)
  assert [len(data.track("pose")[0]["keypoints"]), len(data.track("video")[0]["times"])] == [10, 5]
  both = {
    "pose": inputs.Graph("coco17", (48, 64), num_frames=4),
    "video": inputs.Video((48, 64), channels=1, num_frames=4, size=16, sampling="uniform"),
  }
  batch = next(pipeline.train_batches(data, data.rows("train"), both, batch_size=3, seed=1))
  assert batch["pose"]["keypoints"].shape[:2] == batch["video"]["frames"].shape[:2] == (3, 4)


def test_the_rate_of_poses_is_kept():
  data = held(poses(), fps=30.0, **TOLD)
  assert data.track("pose").kind.fps == 30
  # Runs on the same arrays without a rate, and of before there was one, go on.
  assert data.fingerprint(["pose"]) == held(poses(), **TOLD).fingerprint(["pose"])


def test_joints_outside_of_the_frame_are_said_once(capsys):
  held(poses(), layout="coco17", frame_size=(4, 4))
  said = capsys.readouterr().err
  expected = "frame size 4 x 4 (height x width): 100% of the joints outside of it: name its own"
  assert said.count(f"note: {expected}\n") == 1
  held(poses(), **TOLD)
  assert "outside" not in capsys.readouterr().err


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"labels": [0, 1]}, "labels: expected 6, one a clip, got 2"),
    ({"labels": [2] * 6}, "clip '0': label: expected a class name, or an integer from -1 to 1, got 2"),
    ({"subjects": ["ann"] * 5}, "subjects: expected 6"),
    ({"labels": np.eye(2)[[0, 1, 0, 1, 0, 1]]}, r"labels: expected a number a clip, .*labels\.argmax\(1\)"),
    ({"class_names": ("still", "still")}, "class_names: expected different names"),
    ({"clips": {}}, "clips: expected clips by track, got none"),
    ({"ids": ["a"] * 6}, "arrays: expected unique ids"),
    ({"clips": [poses()[0][:5]] * 6}, r"clips\[0\]: shape: .*axes=TMVC or axes=MTVC"),
    ({"layout": "openpose25"}, r"clips\[0\]: shape: expected"),
    ({"frame_size": None}, r"frame_size: expected \(height, width\) of the pictures, got none"),
    ({"clips": []}, "clips: expected at least one, got none"),
    ({"clips": [1] * 6}, r"clips\[0\]: expected an array, .*got int"),
    ({"clips": {"video": poses()}}, "clips: video: expected one kind, got "),
    ({"protocols": {"xsub": memory.by_subject(train=("Ann", "bob"))}},
     r"protocol 'xsub': train: expected subjects of clips: 'ann', 'bob', 'cy', 'dan', got 'Ann' \(did you mean ann\?\)"),
    ({"subjects": ["01", "01", "02", "03", "03", "04"], "protocols": {"xsub": memory.by_subject(train=("1", "9"))}},
     r"protocol 'xsub': train: expected subjects of clips: .*, got '1' \(did you mean 01\?\)"),
    ({"clips": [poses()[0]] * 6}, "expected no copies between train and test"),
    ({"protocols": {"a": lambda clip: "dev"}}, "protocol 'a': expected train, test or None"),
    ({"protocols": {"a": lambda clip: "train" if clip["id"] < "2" or clip["id"] == "5" else "test"}},
     "label of train clip '5'"),
  ],
)  # fmt: skip
def test_what_cannot_be_is_one_line(change, message):
  options = TOLD | {"clips": poses(), "labels": LABELS} | change
  with pytest.raises(errors.DataError, match=message) as raised:
    held(options.pop("clips"), options.pop("labels"), **options)
  assert not re.search("\n", str(raised.value))
