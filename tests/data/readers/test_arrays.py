"""NumPy's files -> key points."""

import tracemalloc
import zipfile

import numpy as np
import pytest

from jaxmg.data import readers
from jaxmg.errors import DataError


def pose(num_frames=4, num_joints=25, seed=0):
  """float64[T, V, 3], every joint present; a few digits, so that text keeps it."""
  shape = (num_frames, num_joints)
  rng = np.random.default_rng(seed)
  return rng.uniform((1, 1, 0.1), (1280, 720, 1), (*shape, 3)).round(3)


def save(path, array):
  np.save(path, array)
  return path


def test_npy_may_leave_out_the_persons_axis(tmp_path):
  keypoints = pose(num_frames=12, num_joints=17)
  one = readers.read(save(tmp_path / "one.npy", keypoints))
  many = readers.read(save(tmp_path / "many.npy", np.stack([keypoints] * 2, 1)))
  np.testing.assert_array_equal(one.keypoints, np.float32(keypoints[:, None]))
  assert (many.keypoints.shape, many.layout) == ((12, 2, 17, 3), "coco17")


@pytest.mark.parametrize(
  "convert",
  [
    lambda array: array.astype(">f4"),
    lambda array: array.astype(np.float64),
    np.asfortranarray,
  ],
  ids=["big-endian", "float64", "column-major"],
)
def test_numbers_may_lie_in_a_file_in_any_way(tmp_path, convert):
  keypoints = np.float32(pose())
  clip = readers.read(save(tmp_path / "a.npy", convert(keypoints)))
  np.testing.assert_array_equal(clip.keypoints[:, 0], keypoints)
  assert clip.keypoints.dtype == np.float32


def test_whole_numbers_and_half_precision_are_taken(tmp_path):
  keypoints = pose().round()
  keypoints[..., 2] = 1
  for dtype in (np.int16, np.uint16, np.float16):
    clip = readers.read(save(tmp_path / "a.npy", keypoints.astype(dtype)))
    np.testing.assert_array_equal(clip.keypoints[:, 0, 0], keypoints.astype(dtype)[:, 0])


def test_organisers_npy_is_channels_first_and_loses_its_padding(tmp_path):
  keypoints = np.zeros((90, 22, 3))
  keypoints[:5] = pose(5, 22)
  clip = readers.read(save(tmp_path / "a.npy", keypoints.transpose(2, 0, 1)[..., None]))
  assert clip.layout == "imigue22"
  np.testing.assert_array_equal(clip.keypoints, np.float32(keypoints[:5, None]))


def metres(num_frames=6, num_joints=25):
  shape = (num_frames, num_joints, 3)
  return np.random.default_rng(0).uniform((-1, -1, 2), (1, 1, 3), shape).round(3)


# --- axes


POSES = pose(60, 22).reshape(30, 2, 22, 3)  # T M V C


@pytest.mark.parametrize(
  ("stored", "axes", "expected"),
  [
    (POSES[:, 0], "TVC", POSES[:, :1]),
    (POSES[:, :1], "TMVC assumed", POSES[:, :1]),
    (POSES, "TMVC assumed", POSES),
    (POSES[:, :1].swapaxes(0, 1), "MTVC assumed", POSES[:, :1]),  # as PYSKL has it
    (POSES[:, :1].transpose(3, 0, 2, 1), "CTVM assumed", POSES[:, :1]),
    (POSES[:, :, :, :2].swapaxes(0, 1), "MTVC assumed", POSES),
  ],
  ids=["one", "one of many", "two", "persons first", "channels first", "no scores"],
)
def test_sizes_tell_axes(tmp_path, stored, axes, expected):
  clip = readers.read(save(tmp_path / "a.npy", stored))
  size = min(len(stored), 3)
  np.testing.assert_array_equal(clip.keypoints[..., :size], np.float32(expected[..., :size]))
  persons = "1 person" if expected.shape[1] == 1 else "2 persons"
  guess = f"read as 30 frames of {persons}, 22 joints (imigue22 assumed), pixels, axes {axes}"
  assert str(clip.guess) == guess


@pytest.mark.parametrize(
  ("shape", "orders"),
  [
    ((3, 30, 17, 3), ["MTVC", "CTVM"]),  # PYSKL's three persons; or x, y, score of three
    ((2, 3, 22, 3), ["TMVC", "MTVC"]),
    ((9, 12, 17, 3), ["TMVC", "MTVC"]),
    ((100, 8, 17, 3), ["TMVC"]),  # or 100 clips of 8 frames
    ((8, 100, 17, 3), ["MTVC"]),
  ],
)
def test_axes_that_sizes_do_not_tell_are_asked_for(tmp_path, shape, orders):
  array = np.random.default_rng(0).uniform((1, 1, 0), (1280, 720, 1), shape)
  path = save(tmp_path / "a.npy", array)
  asked = " or ".join(f"--axes={axes}" for axes in orders)
  with pytest.raises(
    DataError,
    match=rf"that tell frames \(T\) from persons \(M\), .*\({asked}; several clips: a file each\)$",
  ):
    readers.read(path)
  clip = readers.read(path, axes="MTVC")
  np.testing.assert_array_equal(clip.keypoints, np.float32(array.swapaxes(0, 1)))
  first = readers.read(path, axes="TMVC")
  np.testing.assert_array_equal(first.keypoints, np.float32(array))
  assert "pixels, axes TMVC" in str(first.guess)
  assert "axes TMVC assumed" not in str(first.guess)


@pytest.mark.parametrize(
  ("shape", "dtype", "message"),
  [
    ((100, 8, 17, 3), float, r"shape: .* persons \(M\), at most 2, .*\(axes=TMVC; "),
    ((200, 10, 17, 3), float, r"shape: .*\(axes=TMVC; "),
    ((1000, 5, 17, 3), float, r"shape: .*\(axes=TMVC; "),
    ((5, 200, 17, 3), float, r"shape: .*\(axes=MTVC; "),
    ((2, 50, 17, 3), float, r"axes: expected frames first, .*\(axes=MTVC; "),
    ((200, 150, 17, 3), float, r"shape: .* 150, 17, 3\] \("),
    ((6, 1, 9, 17, 3), float, r"shape: .* got \[6, 1, 9, 17, 3\] \("),
    ((6, 3, 9, 17, 1), float, r"shape: .* got \[6, 3, 9, 17, 1\] \("),
    ((6, 9, 48, 64, 3), np.uint8, r"frames: .* got uint8\[6, 9, 48, 64, 3\] \("),
    ((9, 3, 48, 64), np.uint8, r"frames: .* got uint8\[9, 3, 48, 64\] \("),
    ((9, 48, 64, 3), np.float32, r"shape: .* got \[9, 48, 64, 3\] \("),
  ],
)
def test_several_clips_in_one_array_are_never_one(shape, dtype, message):
  array = np.ones(shape, dtype)
  if shape[-2:] == (17, 3):
    array *= np.arange(1, 18)[:, None] * [30, 20, 0.05]
  hint = r"several clips: in a list; frames of a video are uint8\[T, H, W, 3\]"
  if shape[-2:] == (17, 3):  # no pictures
    hint = r"several clips: in a list(; name the layout: layout=)?\)$"
  with pytest.raises(DataError, match=message + hint), readers.hints_as_arguments():
    readers.from_array(array)


def test_other_shapes_and_axes_are_refused(tmp_path):
  for shape in ((30, 17), (4, 51, 3), (4, 17, 4), (101, 101, 17, 3)):
    with pytest.raises(DataError, match=r"shape: expected \[T, V, C\], .*, got \["):
      readers.read(save(tmp_path / "a.npy", np.ones(shape)))
  path = save(tmp_path / "a.npy", np.ones((4, 17, 3)))
  with pytest.raises(DataError, match=r"5, 9, 1, 17, 3\] \(several clips: a file each\)$"):
    readers.read(save(tmp_path / "b.npy", np.ones((5, 9, 1, 17, 3))))
  with pytest.raises(ValueError, match="axes: expected TVC or CTV or TMVC or MTVC or CTVM, got TV"):
    readers.read(path, axes="TV")
  with pytest.raises(DataError, match=r"axes TMVC: expected C of 2 or 3, got the shape \[4, 17, 3"):
    readers.read(path, axes="TMVC")


# --- pixels or metres


@pytest.mark.parametrize("told", [{}, {"points": "keypoints"}, {"layout": "coco17"}])
def test_normalised_coordinates_are_refused(tmp_path, told):
  keypoints = pose(30, 17) / (1280, 720, 1)
  keypoints[5, 15, 1] = 1.2  # below the picture
  with pytest.raises(
    DataError, match=r"\(normalised\? multiply x by the width and y by the height"
  ):
    readers.read(save(tmp_path / "a.npy", keypoints), **told)


def test_the_range_of_scores_makes_no_metres(tmp_path):
  keypoints = pose(30, 25)
  keypoints[3, 3, 2], keypoints[4, 4, 2] = 1.4, -0.1
  clip = readers.read(save(tmp_path / "a.npy", keypoints))
  assert clip.joints3d is None
  assert clip.keypoints[3, 0, 3, 2] == 1
  assert not clip.keypoints[4, 0, 4].any()
  end = "(openpose25 assumed), pixels, axes TVC, 2 scores outside [0, 1] clipped"
  assert str(clip.guess).endswith(end)
  normalised = save(tmp_path / "b.npy", keypoints / (1280, 720, 1))
  with pytest.raises(
    DataError, match=r"got a body of 0\.\d+ and third values from -0\.1 to 1\.4 \("
  ):
    readers.read(normalised)
  with pytest.raises(DataError, match="x, y, z in metres\\? --points=joints3d"):
    readers.read(normalised)


def test_a_small_crop_is_asked_for_and_may_be_told(tmp_path):
  keypoints = pose(30, 25) * (10 / 1280, 15 / 720, 1)
  path = save(tmp_path / "a.npy", keypoints)
  with pytest.raises(DataError, match="expected pixels or metres, got a body of 1"):
    readers.read(path)
  clip = readers.read(path, points="keypoints")
  np.testing.assert_array_equal(clip.keypoints[:, 0], np.float32(keypoints))
  assert str(clip.guess).endswith("(openpose25 assumed), pixels, axes TVC")


def test_metres_are_told_by_depth_and_seen_by_the_camera(tmp_path):
  joints = metres()
  path = save(tmp_path / "a.npy", joints)
  clip = readers.read(path)
  np.testing.assert_array_equal(clip.joints3d[:, 0], np.float32(joints))
  np.testing.assert_array_equal(clip.keypoints, readers.depth_view(clip.joints3d))
  guess = "read as 6 frames of 1 person, 25 joints (kinect25 assumed), metres assumed, axes TVC"
  assert (str(clip.guess), clip.frame_size) == (guess, (240, 320))
  assert "metres," in str(readers.read(path, points="joints3d").guess)
  with pytest.raises(DataError, match=r"got a body of 1\.\d+ and third values from 2 to 3 \("):
    readers.read(path, expects="keypoints")


def test_a_joint_that_is_always_the_origin_is_the_centre_and_there(tmp_path):
  joints = np.zeros((60, 2, 25, 3))
  joints[:, 0], joints[:20, 1] = metres(60), metres(20) + 0.5
  joints -= joints[:, :, 1:2]
  joints[5, 0, 7] = 0  # away for one frame
  clip = readers.read(save(tmp_path / "a.npy", joints))
  assert (clip.joints3d[:, 0, 1] == np.float32([0, 0, 1e-6])).all()
  assert (clip.joints3d[:20, 1, 1] == np.float32([0, 0, 1e-6])).all()
  assert not clip.joints3d[20:, 1].any()  # a person is absent as a whole
  assert np.argwhere(~clip.joints3d[:20].any(-1)).tolist() == [[5, 0, 7]]
  others = np.delete(np.arange(25), 1)
  np.testing.assert_array_equal(clip.joints3d[:, :, others], np.float32(joints[:, :, others]))
  assert not clip.keypoints.any()  # not before a camera


def test_joints_in_the_order_of_human36m_are_not_coco(tmp_path):
  joints = metres(6, 17)
  path = save(tmp_path / "a.npy", joints - joints[:, :1])
  with pytest.raises(DataError, match=r"expected 20 \(kinect20\), 25 \(kinect25\), got 17 \(name"):
    readers.read(path)
  clip = readers.read(path, layout="h36m17")
  assert str(clip.guess).endswith("17 joints (h36m17), metres assumed, axes TVC")
  assert clip.joints3d.any(-1).all()


@pytest.mark.parametrize(
  ("array", "told", "message"),
  [
    (1000 * metres(), {}, r"millimetres\? divide them by 1000"),
    (
      1000 * metres(),
      {"points": "joints3d"},
      r"up to 100, got 2\d+ \(millimetres\? divide them by",
    ),
    (10 * metres(), {"points": "joints3d"}, r"expected metres, got a body of 1\d \(another unit\?"),
    (
      pose(6, 25) + np.array([0, 0, 5]),
      {},
      r"third values from 5\.\d+ to .*logits\? give their sigmoid",
    ),
    (pose(6, 25) * (1, 1, 100), {}, r"third values from 10.* to .*per cent\? divide by 100"),
  ],
)
def test_other_units_are_named(tmp_path, array, told, message):
  with pytest.raises(DataError, match=message):
    readers.read(save(tmp_path / "a.npy", array), **told)


# --- .npz


def test_npz_holds_points_and_perhaps_their_scores(tmp_path):
  keypoints = pose(5, 17)
  path = tmp_path / "a.npz"
  for compress in (np.savez, np.savez_compressed):
    for scores in (keypoints[..., 2], keypoints[..., 2:]):
      compress(path, keypoints=keypoints[..., :2], keypoint_scores=scores, fps=np.array(30))
      clip = readers.read(path)
      np.testing.assert_array_equal(clip.keypoints[:, 0], np.float32(keypoints))
    compress(path, pose=np.asfortranarray(keypoints))
    np.testing.assert_array_equal(readers.read(path).keypoints[:, 0], np.float32(keypoints))
  guess = "read as 5 frames of 1 person, 17 joints (coco17 assumed), pixels, axes TVC"
  assert str(clip.guess) == guess


@pytest.mark.parametrize(
  ("arrays", "message"),
  [
    ({}, "expected one of points and at most one of scores, got none"),
    ({"a": pose(5, 17), "b": pose(4, 17)}, r"got a \[5, 17, 3\], b \[4, 17, 3\]"),
    ({"fps": np.array(30)}, r"got fps \[\]"),
    ({"a": pose(5, 17), "score": np.ones((5, 17))}, r"got \[5, 17, 3\] and \[5, 17\]"),
    ({"a": pose(5, 17)[..., :2], "score": np.ones((4, 17))}, r"got \[5, 17, 2\] and \[4, 17\]"),
    ({"a": np.array([{}], object)}, "expected numbers, as many as it says, got object"),
    ({"a": pose(5, 17), "b": np.array("text")}, "expected numbers, as many as it says, got <U4"),
  ],
)
def test_other_npz_are_refused(tmp_path, arrays, message):
  np.savez(tmp_path / "a.npz", **arrays)
  with pytest.raises(DataError, match=rf"a\.npz: .*{message}"):
    readers.read(tmp_path / "a.npz")


def header(shape):
  text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
  return np.lib.format.magic(1, 0) + len(text).to_bytes(2, "little") + text.encode()


@pytest.mark.parametrize(
  ("name", "content", "message"),
  [
    ("a.npy", header((10**6, 17, 3)) + bytes(4 * 51 * 10**5), "unpacks to .* bytes: too many"),
    ("a.npy", header((10**9, 17, 3)), "expected numbers, as many as it says"),
    ("a.npy", b"no array", "expected a whole npz file"),
    ("../a.npy", header((1,)), "expected an array, NAME.npy, got another file"),
    ("a.txt", b"text", "'a.txt': expected an array, NAME.npy, got another file"),
  ],
  ids=["bomb", "lie", "damaged", "path", "text"],
)
def test_an_npz_is_not_unpacked_before_it_is_believed(tmp_path, name, content, message):
  with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as file:
    file.writestr(name, content)
  tracemalloc.start()
  with pytest.raises(DataError, match=message):
    readers.read(tmp_path / "a.npz")
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 2 << 20
