"""Annotation files -> clips and splits."""

import pathlib
import pickle

import numpy as np
import pytest

from jaxmg.data import readers
from jaxmg.data.readers import annotations
from jaxmg.errors import DataError


def annotation(id="a", *, shape=(1, 3, 17, 2), **fields):
  low, high = (1, 70) if shape[-1] == 2 else ((-0.8, -0.8, 2), (0.8, 0.8, 3))
  points = np.random.default_rng(len(id)).uniform(low, high, shape).astype(np.float32)
  size = {"img_shape": (72, 128)} if shape[-1] == 2 else {}
  return {"frame_dir": id, "label": 0, "keypoint": points, "total_frames": shape[1]} | size | fields


def save(path, content):
  path.write_bytes(pickle.dumps(content))
  return path


def read(folder, content):
  return annotations.read(save(folder / "file.pkl", content))


def read_one(folder, **fields):
  (clip,) = read(folder, [annotation(**fields)]).clips
  return clip


@pytest.mark.parametrize("key", ["annotations", "annos"])
def test_a_dict_holds_annotations_and_splits(tmp_path, key):
  split = {"train": ["a"], "val": ("b",), "all": {"a", "b"}, "none": np.array([], "U1")}
  file = read(tmp_path, {key: [annotation("a"), annotation("b", label=2)], "split": split})
  assert [(clip.id, clip.label) for clip in file.clips] == [("a", 0), ("b", 2)]
  assert {name: sorted(ids) for name, ids in file.splits.items()} == {
    "train": ["a"],
    "val": ["b"],
    "all": ["a", "b"],
    "none": [],
  }


def test_a_list_is_the_split_that_its_file_is_called_by(tmp_path):
  save(tmp_path / "x_train.pkl", [annotation("a"), annotation("b")])
  save(tmp_path / "x_val.pkl", {"annotations": [annotation("c")]})
  (tmp_path / "readme.txt").touch()
  file = annotations.read(tmp_path)
  assert [clip.id for clip in file.clips] == ["a", "b", "c"]
  assert file.splits == {"x_train": ("a", "b"), "x_val": ("c",)}
  assert file.protocols() == {"x_val": ({"a", "b"}, {"c"})}


def test_the_file_name_of_a_video_may_be_the_id(tmp_path):
  file = read(tmp_path, {"annos": [annotation(filename="wave/a.mp4")], "split": {}})
  assert file.clips[0].id == "wave__a.mp4"


def test_the_persons_axis_moves_behind_the_frames(tmp_path):
  fields = annotation(shape=(2, 5, 17, 2), keypoint_score=np.full((2, 5, 17), 0.25, np.float16))
  clip = read(tmp_path, [fields]).clips[0].clip("coco17")
  assert clip.keypoints.shape == (5, 2, 17, 3)
  np.testing.assert_array_equal(clip.keypoints[..., :2].swapaxes(0, 1), fields["keypoint"])
  assert (clip.keypoints[..., 2] == 0.25).all()
  assert clip.frame_size == (72, 128)


def test_without_scores_they_are_1_where_a_joint_is(tmp_path):
  points = annotation()["keypoint"]
  points[0, 1, 4] = 0
  keypoints = read_one(tmp_path, keypoint=points).clip("coco17").keypoints
  assert keypoints[0, 0, :, 2].tolist() == [1] * 17
  assert not keypoints[1, 0, 4].any()


def test_nan_is_absent_in_points_and_in_scores(tmp_path):
  points, score = annotation()["keypoint"], np.full((1, 3, 17), 0.5)
  points[0, 0, 3, 1] = score[0, 2, 5] = np.nan
  one = read_one(tmp_path, keypoint=points, keypoint_score=score)
  assert np.argwhere(one.nan()).tolist() == [[0, 0, 3], [2, 0, 5]]
  absent = ~one.clip("coco17").keypoints.any(-1)
  assert np.argwhere(absent).tolist() == [[0, 0, 3], [2, 0, 5]]


@pytest.mark.parametrize("dtype", [np.float16, np.float64, ">f4", np.int32])
def test_numbers_of_any_kind_become_float32(tmp_path, dtype):
  points = annotation()["keypoint"].astype(dtype)
  keypoints = read_one(tmp_path, keypoint=points).clip("coco17").keypoints
  assert keypoints.dtype == np.float32
  np.testing.assert_array_equal(keypoints[:, 0, :, :2], points[0].astype(np.float32))


def test_a_missing_label_is_hidden_and_the_original_size_stands_in(tmp_path):
  clip = read_one(tmp_path, label=None, img_shape=None, original_shape=(7, 9))
  assert (clip.label, clip.frame_size) == (-1, (7, 9))


def test_metres_are_kept_and_seen_by_the_depth_camera(tmp_path):
  points = np.random.default_rng(0).uniform((-1, -1, 2), (1, 1, 3), (2, 4, 25, 3))
  points = points.astype(np.float16)
  points[0, 0, 0], points[1] = [0.5, 0.25, 2.5], 0
  clip = read_one(tmp_path, shape=(2, 4, 25, 3), keypoint=points).clip("kinect25")
  np.testing.assert_array_equal(clip.joints3d, points.swapaxes(0, 1))
  np.testing.assert_allclose(clip.keypoints[0, 0, 0], [160 + 57.126, 120 - 28.563, 1], rtol=1e-5)
  assert not clip.keypoints[:, 1].any()
  assert clip.frame_size == (240, 320)


def test_points_around_the_origin_are_not_before_a_camera(tmp_path):
  depths = {"before": 3, "centred": 0}
  for name, depth in depths.items():
    points = np.random.default_rng(0).normal((0, 0, depth), 0.3, (1, 50, 25, 3))
    points[0, 0], points[0, 1] = 0, np.nan
    file = read(tmp_path, [annotation(shape=points.shape, keypoint=points)])
    assert file.seen_by_camera() == (name == "before")
    clip = file.clips[0].clip("kinect25", view=name == "before")
    assert clip.keypoints.any() == (name == "before")
    assert clip.joints3d.any()


def test_the_number_of_joints_tells_the_layout_in_its_dimensions(tmp_path):
  for shape, layout in (
    ((1, 3, 17, 2), "coco17"),
    ((1, 3, 25, 2), "openpose25"),
    ((1, 3, 25, 3), "kinect25"),
    ((1, 3, 20, 3), "kinect20"),
  ):
    assert read(tmp_path, [annotation(shape=shape)]).layout() == layout
  for shape in ((1, 3, 17, 3), (1, 3, 20, 2)):
    with pytest.raises(
      DataError, match=rf"file.pkl: points: .* got {shape[2]} \(.*--layout; of {shape[3]}-D points"
    ):
      read(tmp_path, [annotation(shape=shape)]).layout()


# --- arrays


def save_arrays(folder, name, array, content):
  np.save(folder / name, array)
  save(folder / f"{name.split('_data')[0]}_label.pkl", content)


def test_organisers_arrays_are_splits_and_lose_their_padding(tmp_path):
  poses = np.random.default_rng(0).uniform((1, 1, 0.1), (1280, 720, 1), (2, 6, 1, 22, 3))
  poses[0, 4:] = 0
  array = poses.transpose(0, 4, 1, 3, 2).astype(np.float32)
  save_arrays(tmp_path, "train_data.npy", array, (["0001_0", "0001_1"], [3, 31]))
  save_arrays(tmp_path, "val_data_joint.npy", array[:1], (["0002_0"], np.array([3])))
  file = annotations.read(tmp_path)
  assert [(clip.id, clip.label) for clip in file.clips] == [
    ("0001_0", 3),
    ("0001_1", 31),
    ("0002_0", 3),
  ]
  assert file.protocols() == {"val": ({"0001_0", "0001_1"}, {"0002_0"})}
  clip = file.clips[0].clip(file.layout())
  assert (clip.layout, clip.frame_size) == ("imigue22", (720, 1280))
  np.testing.assert_array_equal(clip.keypoints, np.float32(poses[0, :4]))
  assert len(file.clips[1].points) == 6


def test_arrays_whose_third_numbers_are_no_scores_are_metres(tmp_path):
  poses = np.random.default_rng(0).normal((0, 0, 3), 0.5, (1, 6, 2, 25, 3))
  ids = ["S001C001P007R001A001.skeleton"]
  save_arrays(tmp_path, "train_data.npy", poses.transpose(0, 4, 1, 3, 2), [ids, [0]])
  (clip,) = annotations.read(tmp_path).clips
  assert clip.in_3d
  np.testing.assert_array_equal(clip.points, poses[0])
  assert annotations.subject(clip.id) == "P007"


# --- splits


def protocols(*names):
  clips = [annotations.Annotation("", id, 0, np.zeros((1, 1, 1, 2)), None, None) for id in names]
  path = pathlib.Path("file")
  return annotations.Annotations(path, tuple(clips), {name: (name,) for name in names}).protocols()


@pytest.mark.parametrize(
  ("names", "pairs"),
  [
    (["xsub_train", "xsub_val"], ["xsub_val"]),
    (["xsub_train", "xview_train", "xview_val", "xsub_val"], ["xview_val", "xsub_val"]),
    (["train", "val", "test"], ["test", "val"]),
    (["train1", "train2", "test1", "test2", "test3"], ["test1", "test2"]),
    (["ntu60-Training", "ntu60-Testing"], ["ntu60-Testing"]),
    (["trainval", "test"], ["test"]),
    (["a.train", "b.test"], []),
    (["strain", "contest", "interval"], []),
    (["train"], []),
  ],
)
def test_splits_pair_up_by_their_names(names, pairs):
  found = protocols(*names)
  assert list(found) == pairs
  for test in pairs:
    (train,), tested = found[test]
    assert tested == {test}
    assert "train" in train.lower()
    assert train[-1] == test[-1] or not test[-1].isdecimal()


def test_clips_of_no_split_are_in_no_protocol(tmp_path):
  split = {"train": ["a"], "test": ["b"]}
  clips = [annotation(id) for id in "abc"]
  assert read(tmp_path, {"annotations": clips, "split": split}).protocols() == {
    "test": ({"a"}, {"b"})
  }


def test_only_ntu_ids_name_their_subject():
  assert annotations.subject("S017C003P040R002A060_rgb") == "P040"
  assert annotations.subject("v_Archery_g01_c01") is None


def test_faults_of_single_annotations_can_be_gathered(tmp_path):
  path = save(
    tmp_path / "a.pkl", [annotation("a"), {}, annotation("b", label="x"), annotation("c")]
  )
  faults = []
  file = annotations.read(path, faults=faults)
  assert [clip.id for clip in file.clips] == ["a", "c"]
  assert ["annotation 2: frame_dir" in str(faults[0]), "'b': label" in str(faults[1])] == [True] * 2
  with pytest.raises(DataError, match=r"annotation 2"):
    annotations.read(path)


# --- recordings


def read_all(folder, content, **told):
  path = save(folder / "file.pkl", content)
  return dict(readers.read_all(path, readers.Told(**told)))


AS_COCO = "read as 3 frames of 1 person, 17 joints (coco17 assumed), pixels, 72 x 128"


def test_a_pickle_of_one_clip_is_a_recording(tmp_path):
  one = annotation("a")
  points = np.float32(one["keypoint"][0])
  nameless = {name: one[name] for name in ("keypoint", "img_shape")}
  for content, name in (
    (one, "a"),
    (nameless, "file.pkl"),
    ([one], "a"),
    ({"annotations": [one], "split": {"train": ["a"]}}, "a"),
  ):
    ((found, clip),) = read_all(tmp_path, content).items()
    np.testing.assert_array_equal(clip.keypoints[:, 0, :, :2], points)
    assert (found, clip.frame_size, str(clip.guess)) == (name, (72, 128), AS_COCO)
    np.testing.assert_array_equal(readers.read(tmp_path / "file.pkl").keypoints, clip.keypoints)


def test_a_pickle_of_several_clips_is_several_recordings(tmp_path):
  content = [annotation(id, shape=(1, 2 + len(id), 17, 2)) for id in ("a", "bb", "ccc")]
  found = read_all(tmp_path, content)
  assert {id: clip.num_frames for id, clip in found.items()} == {"a": 3, "bb": 4, "ccc": 5}
  for one in content:
    points = found[one["frame_dir"]].keypoints[:, 0, :, :2]
    np.testing.assert_array_equal(points, one["keypoint"][0])
  with pytest.raises(DataError, match=r"file\.pkl: recordings: expected 1, got more"):
    readers.read(tmp_path / "file.pkl")


def test_a_pickle_may_hold_a_plain_array(tmp_path):
  array = np.random.default_rng(0).uniform((1, 1, 0.1), (1280, 720, 1), (3, 30, 17, 3))
  with pytest.raises(DataError, match="--axes=MTVC or --axes=CTVM"):
    read_all(tmp_path, array)
  (clip,) = read_all(tmp_path, array, axes="MTVC").values()
  np.testing.assert_array_equal(clip.keypoints, np.float32(array.swapaxes(0, 1)))


def test_third_numbers_are_scores_or_depths_as_the_bodies_tell(tmp_path):
  pixels = np.random.default_rng(0).uniform((1, 1, 0.1), (128, 72, 1), (1, 3, 25, 3))
  one = annotation("a", shape=(1, 3, 25, 3), img_shape=(72, 128))
  (clip,) = read_all(tmp_path, one | {"keypoint": pixels}).values()
  np.testing.assert_array_equal(clip.keypoints[:, 0], np.float32(pixels[0]))
  guess = "read as 3 frames of 1 person, 25 joints (openpose25 assumed), pixels, 72 x 128"
  assert str(clip.guess) == guess
  (clip,) = read_all(tmp_path, one).values()
  np.testing.assert_array_equal(clip.joints3d[:, 0], one["keypoint"][0])
  guess = "read as 3 frames of 1 person, 25 joints (kinect25 assumed), metres"
  assert str(clip.guess).startswith(guess)
  normalised = pixels / (128, 72, 1)
  with pytest.raises(
    DataError, match=r"'a': keypoint: .*expected pixels or metres, got a body of 0"
  ):
    read_all(tmp_path, one | {"keypoint": normalised})


def test_scores_a_little_outside_are_clipped_and_counted(tmp_path):
  score = np.full((1, 3, 17), 0.5)
  score[0, 0, 3], score[0, 1, 5] = 1.4, -0.1
  (clip,) = read_all(tmp_path, annotation(keypoint_score=score)).values()
  assert clip.keypoints[0, 0, 3, 2] == 1
  assert not clip.keypoints[1, 0, 5].any()
  assert str(clip.guess) == f"{AS_COCO}, 2 scores outside [0, 1] clipped"


def test_the_frame_size_that_is_told_goes_before_that_of_the_file(tmp_path):
  (clip,) = read_all(tmp_path, annotation(), frame_size=(144, 256)).values()
  assert clip.frame_size == (144, 256)
  assert str(clip.guess).endswith("144 x 256")


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ([[1, 2]], r"annotation 1: expected a dict, got list"),
    (annotation(keypoint=[[[[1, 2]]]]), r"'a': keypoint: expected numbers .*, got a list"),
    ({"data": 1}, "or a dict with a list `annotations` or `annos`, got the keys 'data'"),
    ([], "expected at least one annotation, got none"),
  ],
)
def test_other_pickles_are_refused(tmp_path, content, message):
  path = save(tmp_path / "file.pkl", content)
  for read_recordings in (readers.read, lambda path: [*readers.read_all(path)]):
    with pytest.raises(DataError, match=rf"file\.pkl: .*{message}"):
      read_recordings(path)
