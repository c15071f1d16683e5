"""The original's preparation of 2s-AGCN's input, against its own output and loops."""

import functools
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmg import inputs
from jaxmg.inputs import published
from jaxmg.skeletons import topology

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
SIZE = np.int32([256, 340])
LAYOUTS = {"ntu": ("kinect25", "joints3d"), "kinetics": ("openpose18", "keypoints")}
WINDOW = {"ntu": 300, "kinetics": 150}


def make(preparation, **options):
  skeleton, points = (topology.get(LAYOUTS[preparation][0]), LAYOUTS[preparation][1])
  fields = dict(skeleton=skeleton, points=points, num_frames=WINDOW[preparation])
  fields |= dict(frame_size=(1, 1), sampling="repeat", num_persons=2)
  return inputs.Graph(**fields | dict(preparation=preparation) | options)


def record(one, pose):
  return {"layout": one.skeleton, "frame_size": SIZE, one.points: np.float32(pose)}


def seen(one, pose, num_clips=1):
  """What a network is given of the last test view of a recording: T M V C."""
  part = one.read_test(record(one, pose), num_clips)
  part = {name: array[None] for name, array in part.items()}
  views, last = views_and_last(part, one)
  assert len(views["pose"]) == num_clips
  return np.asarray(last[0])


@functools.partial(jax.jit, static_argnums=1)
def views_and_last(part, one):
  views = one.views(part, False)
  return views, one.view(jax.tree.map(lambda x: x[-1], views))


def golden(preparation, name):
  """A recording [T, M, V, 3] and both streams [300, 2, V, 3]."""
  with np.load(GOLDEN / f"agcn_{preparation}_prepared.npz") as arrays:
    streams = {"joint": arrays[f"{name}.input"], "bone": arrays[f"{name}.bone"]}
    raw = arrays[f"{name}.raw"].swapaxes(0, 1)
  return raw, {stream: x.transpose(1, 3, 2, 0) for stream, x in streams.items()}


@functools.partial(jax.jit, static_argnames="stream")
def ntu_inputs(pose, frame_size, *, stream):
  options = dict(skeleton=topology.get("kinect25"), points="joints3d", preparation="ntu")
  return inputs.graph_inputs(pose, frame_size, stream=stream, **options)


@pytest.mark.parametrize("stream", ["joint", "bone"])
@pytest.mark.parametrize("name", ["one", "two", "late", "late_gap"])
def test_input_of_ntu_is_the_originals(name, stream):
  raw, expected = golden("ntu", name)  # whose persons are chosen: they stay in their order
  got = np.asarray(ntu_inputs(published.ntu_frames(raw)[None], SIZE[None], stream=stream)[0])
  np.testing.assert_allclose(got, expected[stream], rtol=0, atol=1e-5)
  if stream == "joint":
    np.testing.assert_array_equal(got[:, 0, 1], 0)  # the spine, from which the neck's bone goes
    assert got[:, 0, 0].any(-1).all()


@pytest.mark.parametrize("stream", ["joint", "bone"])
@pytest.mark.parametrize("name", ["one", "crowd"])
def test_input_of_kinetics_is_the_originals(name, stream):
  raw, expected = golden("kinetics", name)
  pixels = raw * np.float32([SIZE[1], SIZE[0], 1])
  got = seen(make("kinetics", stream=stream), pixels)
  np.testing.assert_allclose(got, expected[stream], rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", ["one", "late_gap"])
def test_a_test_clip_of_ntu_is_the_originals_from_the_choice_of_persons_on(name):
  raw, expected = golden("ntu", name)
  crowd = np.zeros((len(raw), 6, 25, 3), np.float32)
  crowd[:, 3], crowd[:, 1] = raw[:, 0], raw[:, 1]
  crowd[:, 0] = 1 + 0.01 * raw[:, 0]  # a body that hardly spreads
  crowd[:, 4] = 100 * raw[:, 0]  # and one that is not looked at
  got = seen(make("ntu"), crowd, num_clips=2)
  if not raw[:, 1].any():  # then the second is the smallest body
    got, expected["joint"] = got[:, :1], expected["joint"][:, :1]
  np.testing.assert_allclose(got, expected["joint"], rtol=0, atol=1e-5)


def test_persons_of_ntu_are_the_two_of_largest_spread_among_four():
  rng = np.random.default_rng(0)
  pose = np.float32(rng.normal(size=(9, 5, 25, 3)) * np.reshape([1, 3, 2, 4, 9], (5, 1, 1)))
  pose[2:, 3] = 0
  pose[:2, 3] /= 10  # where it is there, it spreads little: gaps do not count
  np.testing.assert_array_equal(published.ntu_persons(pose), pose[:, [1, 2]])
  alone = published.ntu_persons(pose[:, :1])
  np.testing.assert_array_equal(alone, np.concatenate([pose[:, :1], 0 * pose[:, :1]], 1))


def test_frames_of_ntu_are_repeated_for_each_person():
  pose = np.zeros((6, 2, 1, 3), np.float32)
  pose[[0, 2, 3], 0] = np.array([1, 3, 4]).reshape(3, 1, 1)  # a gap, and gone at the end
  pose[[1, 3, 4], 1] = np.array([2, 4, 5]).reshape(3, 1, 1)  # late
  clip = published.ntu_frames(pose)[..., 0, 0]
  assert clip[:9].T.tolist() == [[1, 0, 3, 4, 1, 0, 3, 4, 1], [2, 4, 5, 2, 4, 5, 2, 4, 5]]
  assert len(published.ntu_frames(np.ones((400, 1, 1, 3), np.float32))) == 300
  assert not published.ntu_frames(0 * pose).any()


def test_training_of_kinetics_sees_windows_of_the_recording():
  one = make("kinetics", num_frames=20)
  pose = np.ones((50, 1, 18, 3))
  pose[..., 0] = np.arange(50)[:, None, None]
  rng = np.random.default_rng(0)
  starts = set()
  for _ in range(200):
    part = one.read(record(one, pose), rng)["keypoints"]
    assert part.shape == one.example()["keypoints"].shape[1:] == (20, 2, 18, 3)
    first = int(part[0, 0, 0, 0])
    np.testing.assert_array_equal(part[:, 0, 0, 0], np.arange(first, first + 20))
    starts.add(first)
  assert starts == set(range(31))
  short = one.read(record(one, pose[:7]), rng)["keypoints"]
  np.testing.assert_array_equal(short[:7, 0, :, 0], pose[:7, 0, :, 0])
  assert not short[7:].any()
  assert one.example(1)["keypoints"].shape == (1, 1, 300, 2, 18, 3)


@pytest.mark.parametrize("preparation", LAYOUTS)
def test_training_sees_what_tests_see(preparation):
  name = {"ntu": "late_gap", "kinetics": "crowd"}[preparation]
  raw, _ = golden(preparation, name)
  one = make(preparation, stream="bone", num_frames=300)
  rng = np.random.default_rng(0)
  part = {x: y[None] for x, y in one.read(record(one, raw), rng).items()}
  keys = jax.random.split(jax.random.key(0), 1)
  train = jax.jit(one.train, static_argnums=2)
  plain = train(keys, part, False)[0]
  np.testing.assert_allclose(plain, seen(one, raw), rtol=0, atol=1e-6)
  mirrored = jax.jit(one.train)(keys, part, jnp.array([True]))[0]
  joint = seen(make(preparation, num_frames=300), raw)
  image = joint[..., one.skeleton.mirror, :] * np.float32([-1, 1, 1])
  parents = published.PREPARATIONS[preparation].parents
  expected = image - image[..., np.array(parents), :]
  np.testing.assert_allclose(mirrored, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("stream", ["joint", "bone"])
def test_motion_is_the_difference_of_all_channels_and_zero_at_the_end(stream):
  raw, _ = golden("kinetics", "crowd")
  still = seen(make("kinetics", stream=stream), raw)
  moving = seen(make("kinetics", stream=f"{stream}_motion"), raw)
  np.testing.assert_allclose(moving[:-1], np.diff(still, axis=0), rtol=0, atol=1e-6)
  assert not moving[-1].any()


@pytest.mark.parametrize(
  ("end", "turned"),
  [
    ((0, 0, 0), (0, 0, 0)),  # no length
    ((0, 0, -2), (0, 0, -2)),  # as the original: no way round is the shortest
    ((1e-3, 0, -1), (0, 0, np.hypot(1e-3, 1))),
    ((1e-3, 0, 1), (0, 0, np.hypot(1e-3, 1))),
    ((0.3, -0.4, 1.2), (0, 0, 1.3)),
  ],
)
def test_the_first_bone_is_turned_onto_the_vertical(end, turned):
  pose = np.tile(np.array([1.0, 2, 3]), (1, 2, 25, 1))
  pose[:, 0, 0] -= end
  pose[0, 1] = 0
  got = np.asarray(ntu_inputs(np.float32(pose)[None], SIZE[None], stream="joint")[0])
  np.testing.assert_allclose(-got[0, 0, 0], turned, rtol=0, atol=1e-6)
  np.testing.assert_array_equal(got[0, 1], 0)  # who is not there


@pytest.mark.parametrize(
  ("fields", "message"),
  [
    (dict(skeleton=topology.get("openpose25")), "skeleton: expected kinect25 with preparation=ntu"),
    (dict(points="keypoints"), "points: expected joints3d with preparation=ntu, got keypoints"),
    (dict(sampling="linear"), "sampling: expected repeat with"),
    (dict(num_persons=1), "num_persons: expected 2 with"),
    (dict(crop=(0.5, 1.0)), "crop: expected"),
    (dict(rotation=10.0), "rotation: expected 0.0 with preparation=ntu, got 10.0"),
    (dict(tilt=10.0), "tilt: expected"),
    (dict(scale=(0.9, 1.1)), "scale: expected"),
    (dict(num_frames=301), "num_frames: expected at most 300 with preparation=ntu, got 301"),
  ],
)
def test_what_contradicts_a_preparation_is_refused(fields, message):
  with pytest.raises(ValueError, match=f"^{message}"):
    make("ntu", **fields)


def test_another_preparation_is_refused_and_so_is_what_would_do_nothing():
  with pytest.raises(ValueError, match="preparation: expected ours or ntu or kinetics, got 'uav'"):
    published.find("uav", {})
  turned = functools.partial(
    inputs.graph_inputs, preparation="ntu", points="joints3d", rotation=9.0
  )
  with pytest.raises(ValueError, match="rotation: expected"):
    turned(jnp.zeros((1, 4, 2, 25, 3)), jnp.ones((1, 2), int), skeleton=topology.get("kinect25"))
