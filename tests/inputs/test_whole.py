"""What the device makes of whole recordings is what the host makes of them."""

import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxmg import inputs
from jaxmg.data import readers
from jaxmg.inputs import whole
from jaxmg.skeletons import sampling, topology

COCO17 = topology.get("coco17")


def recordings(number, num_frames, num_persons, skeleton, points="keypoints"):
  """Poses, some of their joints absent in some frames, and the persons in no order."""
  rng = np.random.default_rng(num_frames)
  shape = (number, num_frames, num_persons, skeleton.num_joints)
  low, high = ((0, 0, 0.1), (1280, 720, 1)) if points == "keypoints" else ((-1, -1, 2), (1, 1, 3))
  pose = rng.uniform(low, high, (*shape, 3)).astype(np.float32)
  pose[rng.random(shape) < 0.3] = 0
  return pose


def assert_alike(one, pose, num_clips):
  """`whole` against `read_test`, of recordings in the input's own layout."""
  size = np.int32([[720, 1280]] * len(pose))
  record = lambda x: {one.points: x, "frame_size": (720, 1280), "layout": one.skeleton}  # noqa: E731
  read = [one.read_test(record(x), num_clips) for x in pose]
  expected = jax.tree.map(lambda *x: np.stack(x), *read)
  found = one.whole(pose.shape[1], num_clips)
  arrays = dict(zip(found.arrays, map(jnp.asarray, (pose, size)), strict=False))
  assert {name: x.shape[1:] for name, x in arrays.items()} == {
    name: x.shape for name, x in found.arrays.items()
  }
  given = found.read(arrays)
  np.testing.assert_allclose(given[one.points], expected[one.points], rtol=1e-6, atol=1e-4)
  np.testing.assert_array_equal(given[one.points] == 0, expected[one.points] == 0)
  if one.points == "keypoints":
    np.testing.assert_array_equal(given["frame_size"], expected["frame_size"])
  return found


@pytest.mark.parametrize("num_frames", [1, 5, 8, 11, 21])
@pytest.mark.parametrize("kind", sampling.KINDS)
def test_frames_of_every_kind_of_sampling_are_those_of_the_host(kind, num_frames):
  one = inputs.Heatmaps(COCO17, (72, 128), sampling=kind, num_frames=8)
  for num_clips in (1, 3):
    found = assert_alike(one, recordings(2, num_frames, 1, COCO17), num_clips)
    assert found.frames.shape == (num_clips, 8)


def test_frames_of_the_other_style_are_those_of_the_host():
  one = inputs.Heatmaps(COCO17, (72, 128), num_frames=8, style="pyskl")
  assert_alike(one, recordings(2, 21, 1, COCO17), 3)


@pytest.mark.parametrize("points", ["keypoints", "joints3d"])
def test_persons_are_in_the_order_of_the_host(points):
  one = inputs.Graph(COCO17, (72, 128), num_frames=4, num_persons=3, points=points)
  pose = recordings(3, 6, 3, COCO17, points)
  pose[1, :, 0] = 0
  pose[0, 0, 0, 0, 2] = 0  # of a key point, its score: it is absent
  assert_alike(one, pose, 1)


@pytest.mark.parametrize("num_frames", [5, 40, 310])
@pytest.mark.parametrize(
  ("preparation", "skeleton", "points"),
  [("ntu", "kinect25", "joints3d"), ("kinetics", "openpose18", "keypoints")],
)
def test_clips_are_prepared_as_published(preparation, skeleton, points, num_frames):
  skeleton = topology.get(skeleton)
  options = {"sampling": "repeat", "num_persons": 2, "preparation": preparation, "num_frames": 4}
  one = inputs.Graph(skeleton, (72, 128), points=points, **options)
  pose = recordings(4, num_frames, 2, skeleton, points)
  pose[1, :2] = 0  # nobody is there at first
  pose[2, 2:4, 1] = 0  # the second person has a gap
  pose[2, -1:] = 0
  pose[3, :, 0] = 0  # there is one person alone
  assert_alike(one, pose, 2)


def frames_of(pictures, times):
  def png(picture):
    into = io.BytesIO()
    Image.fromarray(picture).save(into, "PNG")
    return into.getvalue()

  return readers.Frames(tuple(map(png, pictures)), times, pictures.shape[1:3])


@pytest.mark.parametrize(
  ("size", "fps", "sampling"),
  [
    ((20, 24), 5.0, "seconds"),
    ((20, 24), 50.0, "seconds"),
    ((20, 24), None, "uniform"),
    ((14, 24), None, "seconds"),
    ((61, 47), 8.0, "seconds"),
    ((40, 24), None, "uniform"),
  ],
)
def test_pictures_of_a_video_are_those_of_the_host(size, fps, sampling):
  one = inputs.Video((20, 24), num_frames=4, seconds=1.0, sampling=sampling)
  pictures = np.random.default_rng(0).integers(0, 256, (2, 13, *size, 3), np.uint8)
  times = np.arange(13) / (fps or 13)
  read = [one.read_test(frames_of(x, times).record(), 2) for x in pictures]
  found = one.whole(13, 2, frame_size=size, fps=fps)
  assert found.arrays["frames"].shape == (13, *size, 3)
  given = found.read({"frames": jnp.asarray(pictures)})
  for i, expected in enumerate(read):
    np.testing.assert_array_equal(given["frame_size"][i], expected["frame_size"])
    np.testing.assert_array_equal(given["frames"][i], expected["frames"])


@functools.lru_cache
def pillow(size):
  picture = np.random.default_rng(1).integers(0, 256, (97, 131, 3), np.uint8)
  small = Image.fromarray(picture).resize(size[::-1], Image.Resampling.BILINEAR)
  return picture, np.asarray(small)


@pytest.mark.parametrize("size", [(41, 55), (97, 60), (1, 1), (96, 130)])
def test_pictures_become_smaller_as_in_pillow(size):
  picture, expected = pillow(size)
  np.testing.assert_array_equal(whole.shrunk(jnp.asarray(picture), size), expected)


def test_faces_are_those_of_a_recording_with_a_face_in_each_frame():
  one = inputs.Faces(num_frames=4, seconds=0.5, size=8)
  pictures = np.random.default_rng(0).integers(0, 256, (2, 20, 8, 8, 3), np.uint8)
  times = np.arange(20) / 25
  found = one.whole(20, 2, fps=25.0)
  given = found.read({"frames": jnp.asarray(pictures)})["frames"]
  rest = np.zeros((20, 5, 2), np.float32), np.ones(20, np.float32)
  for x, faces in zip(pictures, given, strict=True):
    crops = readers.FaceCrops(
      frames_of(x, times).pictures, times, np.array([0.0, 0.8]), *rest, size=8
    )
    record = {name: getattr(crops, name) for name in ("times", "span", "size")}
    expected = one.read_test(record | {"frames": crops.pictures}, 2)["frames"]
    np.testing.assert_array_equal(faces, expected)


def test_tokens_are_in_no_recording():
  one = inputs.Tokens("tokens-a", 4, 8, "0" * 16)
  with pytest.raises(ValueError, match="tokens-a: expected what a recording holds, got tokens"):
    one.whole(8, 1)
