"""Which frames a clip of video shows, how they are decoded, and what the device makes of them."""

import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxmg import inputs
from jaxmg.data import readers, tracks
from jaxmg.inputs import video

SIZE = (24, 32)
RNG = np.random.default_rng(0)
PLAIN = inputs.INPUTS["video"](SIZE, num_frames=4, seconds=0.4, size=16)
NUMBERED = dataclasses.replace(PLAIN, channels=1)


def numbered(count, times=None):
  """A record of one channel whose k-th frame is of the value k, in two digits."""
  values = np.arange(count)
  images = np.zeros((count, *SIZE), np.uint8)
  images[:, :, :16], images[:, :, 16:] = (digit[:, None, None] for digit in divmod(values, 250))
  kind = tracks.Video(SIZE, channels=1, timed=times is not None)
  return tracks.Video(SIZE, channels=1).read([*kind.records(readers.without_loss(images, times))])


def drawn(part):
  frames = part["frames"].astype(int)
  return 250 * frames[..., 0, 0, 0] + frames[..., 0, -1, 0]


def picture(image, kind="PNG"):
  into = io.BytesIO()
  Image.fromarray(image).save(into, kind, quality=95)
  return into.getvalue()


def record(images, kind="PNG"):
  pictures = tuple(picture(image, kind) for image in images)
  return {
    "frames": pictures,
    "times": np.arange(len(images)) / 25,
    "frame_size": np.int32(images[0].shape[:2]),
  }


VARIABLE = np.cumsum(np.random.default_rng(1).uniform(0.02, 0.06, 200))


@pytest.mark.parametrize("times", [np.arange(200) / 25, np.arange(200) / 30, VARIABLE])
def test_frames_are_evenly_spaced_in_seconds_whatever_the_rate(times):
  data, starts = numbered(200, times), []
  step = np.median(np.diff(times))
  for seed in range(40):
    chosen = drawn(NUMBERED.read(data, np.random.default_rng(seed)))
    start = np.random.default_rng(seed).random()
    spare = times[-1] - times[0] + step - 0.4
    wanted = times[0] + start * spare + np.arange(4) * 0.1
    expected = [np.abs(times - at).argmin() for at in wanted]
    np.testing.assert_array_equal(chosen, expected)
    starts.append(times[chosen[0]] / times[-1])
  assert min(starts) < 0.1
  assert max(starts) > 0.85


def test_test_clips_are_spread_over_the_whole_and_one_is_in_the_middle():
  data = numbered(101, np.arange(101) / 25)
  chosen = drawn(NUMBERED.read_test(data, 3))
  assert chosen.shape == (3, 4)
  assert set(np.diff(chosen).ravel()) <= {2, 3}  # 0.1 s
  assert chosen[0, 0] == 0
  assert 97 <= chosen[2, -1] <= 100
  assert abs(chosen[1].mean() - 50) <= 2
  assert abs(drawn(NUMBERED.read_test(data, 1)).mean() - 50) <= 2


@pytest.mark.parametrize("sampling", ["seconds", "uniform"])
def test_a_clip_that_is_not_longer_is_sampled_uniformly(sampling):
  one = dataclasses.replace(NUMBERED, sampling=sampling)
  data = numbered(9, np.arange(9) / 25)  # 0.36 s
  for seed in range(10):
    chosen = drawn(one.read(data, np.random.default_rng(seed)))
    assert all(low <= k < low + 3 for k, low in zip(chosen, (0, 2, 4, 6), strict=True)), chosen
  np.testing.assert_array_equal(drawn(one.read_test(data, 1)), [[1, 3, 5, 7]])
  short = numbered(2, np.arange(2) / 25)
  np.testing.assert_array_equal(drawn(one.read_test(short, 2)), 2 * [[0, 0, 1, 1]])
  alone = numbered(1, np.zeros(1))
  np.testing.assert_array_equal(drawn(one.read(alone, np.random.default_rng(0))), 4 * [0])


def test_a_training_sample_is_a_random_part_of_the_clip():
  one = dataclasses.replace(NUMBERED, sampling="uniform", crop=(0.5, 0.5))
  data = numbered(41)
  firsts = []
  for seed in range(40):
    chosen = drawn(one.read(data, np.random.default_rng(seed)))
    assert chosen[-1] - chosen[0] < 20
    assert (np.diff(chosen) > 0).all()
    firsts.append(chosen[0])
  assert min(firsts) < 5
  assert max(firsts) > 18
  np.testing.assert_array_equal(drawn(one.read_test(data, 1)), [[5, 15, 25, 35]])


def test_frames_without_times_are_sampled_uniformly_or_refused():
  data = numbered(40)
  uniform = dataclasses.replace(NUMBERED, sampling="uniform")
  np.testing.assert_array_equal(drawn(uniform.read_test(data, 1)), [[5, 15, 25, 35]])
  kind = tracks.Video(SIZE, channels=1, timed=False)
  uniform.check(kind.about)
  with pytest.raises(
    ValueError, match=r'times: expected when each frame is shown .*sampling="seconds" needs'
  ):
    NUMBERED.check(kind.about)
  with pytest.raises(ValueError, match="channels: expected 3, got 1"):
    PLAIN.check(kind.about)


def test_only_the_records_that_are_needed_are_read():
  kind = tracks.Video((5, 7), channels=1)
  images = RNG.integers(0, 256, (600, 5, 7), np.uint8)
  written = [*kind.records(readers.without_loss(images, np.arange(600) / 25))]
  assert [len(record["ends"]) for record in written] == [256, 256, 88]
  read = []

  class Records(list):
    def __getitem__(self, number):
      read.append(number)
      return super().__getitem__(number)

  found = kind.read(Records(written))
  np.testing.assert_array_equal(found["times"], np.arange(600) / 25)
  assert len(found["frames"]) == 600
  for k in (0, 255, 3):
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(found["frames"][k]))), images[k])
  assert read == [0]
  for k in (512, 599, 511, 256, 255):
    np.testing.assert_array_equal(np.asarray(Image.open(io.BytesIO(found["frames"][k]))), images[k])
  assert read == [0, 2, 1, 0]
  with pytest.raises(IndexError):
    found["frames"][600]


def test_one_channel_comes_without_loss():
  images = RNG.integers(0, 256, (3, *SIZE), np.uint8)
  uniform = dataclasses.replace(NUMBERED, sampling="uniform", num_frames=3)
  part = uniform.read_test(record(images), 1)
  np.testing.assert_array_equal(part["frames"][0, ..., 0], images)


def test_pictures_of_another_size_are_made_to_fit_and_their_edges_go_on():
  large = np.full((48, 96, 3), 200, np.uint8)
  large[:, :48] = 100
  part = PLAIN.read(record([large] * 4, "JPEG"), np.random.default_rng(0))
  assert part["frames"].shape == (4, *SIZE, 3)
  assert part["frame_size"].tolist() == [16, 32]
  assert part["frame_size"].dtype == np.int32
  np.testing.assert_allclose(part["frames"][:, :, :14], 100, atol=3)
  np.testing.assert_allclose(part["frames"][:, :, 18:], 200, atol=3)
  small = RNG.integers(0, 256, (10, 12, 3), np.uint8)
  part = PLAIN.read(record([small] * 4), np.random.default_rng(0))
  assert part["frame_size"].tolist() == [10, 12]
  np.testing.assert_array_equal(part["frames"][0, :10, :12], small)
  np.testing.assert_array_equal(
    part["frames"][0], np.pad(small, [(0, 14), (0, 20), (0, 0)], "edge")
  )


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (lambda data: data[: len(data) // 2], "frames: expected a whole picture, got"),
    (lambda data: b"", "frames: expected a whole picture, got"),
    (lambda data: data[:50] + b"\0" * 40 + data[90:], "frames: expected a whole picture, got"),
    (lambda data: picture(np.zeros((8, 8, 3), np.uint8)), "frames: expected RGB of .24, 32.*, got"),
    (lambda data: picture(np.zeros(SIZE, np.uint8)), "frames: expected RGB of .24, 32.*, got L"),
    (lambda data: picture(np.zeros((*SIZE, 3), np.uint8), "GIF"), "frames: expected a whole pict"),
  ],
)
def test_a_damaged_picture_is_named(change, message):
  image = RNG.integers(0, 256, (*SIZE, 3), np.uint8)
  data = picture(image)
  assert video.decode(data, SIZE, SIZE, 3).shape == (*SIZE, 3)
  with pytest.raises(ValueError, match=message):
    video.decode(change(data), SIZE, SIZE, 3)


@pytest.mark.parametrize("shape", [SIZE, (*SIZE, 3)])
def test_a_jpeg_is_what_pillow_reads_and_half_of_it_nothing(shape):
  smooth = np.linspace(0, 250, np.prod(shape)).reshape(shape).astype(np.uint8)
  data, channels = picture(smooth, "JPEG"), len(shape) % 2 * 2 + 1
  pillows = np.asarray(Image.open(io.BytesIO(data))).reshape(*SIZE, channels)
  np.testing.assert_array_equal(video.decode(data, SIZE, SIZE, channels), pillows)
  with pytest.raises(ValueError, match="frames: expected a whole picture, got"):
    video.decode(data[: len(data) // 2], SIZE, SIZE, channels)
  with pytest.raises(ValueError, match=r"frames: expected .* of \(24, 32\), got"):
    video.decode(data, SIZE, SIZE, 4 - channels)


def batch(channels=3, clips=3, size=SIZE, frames=4):
  rng = np.random.default_rng(2)
  return {
    "frames": jnp.asarray(rng.integers(0, 256, (clips, frames, *size, channels), np.uint8)),
    "frame_size": jnp.array([[*size]] * clips, jnp.int32),
  }


def test_training_clips_are_mirrored_where_they_are_told():
  # Without erasing, whose box is drawn in what is mirrored already.
  one = dataclasses.replace(PLAIN, brightness=0.3, contrast=0.3, saturation=0.3)
  keys = jax.random.split(jax.random.key(0), 16)
  part = batch(clips=16)
  told = jnp.arange(16) % 2 == 0
  plain, drawn = (
    np.asarray(jax.jit(one.train, static_argnums=2)(keys, part, how)) for how in (False, True)
  )
  chosen = np.asarray(jax.jit(one.train)(keys, part, told))
  assert (plain.shape, plain.dtype) == ((16, 4, 16, 16, 3), np.float32)
  np.testing.assert_allclose(chosen[1::2], plain[1::2], atol=1e-5)
  np.testing.assert_allclose(chosen[::2], plain[::2, :, :, ::-1], atol=1e-5)
  turned = [np.allclose(a, b[:, :, ::-1], atol=1e-5) for a, b in zip(drawn, plain, strict=True)]
  same = [np.allclose(a, b, atol=1e-5) for a, b in zip(drawn, plain, strict=True)]
  assert [a != b for a, b in zip(turned, same, strict=True)] == [True] * 16
  assert 3 < sum(turned) < 13


def test_a_clip_is_the_same_wherever_it_stands_in_a_batch():
  one = dataclasses.replace(PLAIN, brightness=0.3, erase=0.5)
  keys, part = jax.random.split(jax.random.key(1), 3), batch()
  train = jax.jit(one.train, static_argnums=2)
  order = np.array([2, 0, 1])
  moved = train(keys[order], {name: value[order] for name, value in part.items()}, True)
  np.testing.assert_array_equal(moved, train(keys, part, True)[order])


def test_what_is_padded_is_not_shown():
  frames = np.full((1, 4, *SIZE, 3), 255, np.uint8)
  frames[:, :, :12, :14] = 0  # with the pixels next to it, which the host makes go on
  part = {"frames": jnp.asarray(frames), "frame_size": jnp.array([[10, 12]], jnp.int32)}
  shown = jax.jit(PLAIN.train, static_argnums=2)(jax.random.key(0)[None], part, True)
  np.testing.assert_allclose(shown, -0.45 / 0.225, atol=1e-5)


def test_views_are_the_clips_and_then_their_mirror_images():
  rng = np.random.default_rng(3)
  frames = jnp.asarray(rng.integers(0, 256, (2, 3, 4, *SIZE, 3), np.uint8))  # B N T H W C
  part = {"frames": frames, "frame_size": jnp.array([[*SIZE]] * 2, jnp.int32)}
  views = PLAIN.views(part, True)
  assert views["frames"].shape == (6, 2, 4, *SIZE, 3)
  assert views["mirrored"].tolist() == 3 * [False] + 3 * [True]
  shown = np.stack(
    [jax.jit(PLAIN.view)({name: value[k] for name, value in views.items()}) for k in range(6)]
  )
  assert shown.shape == (6, 2, 4, 16, 16, 3)
  np.testing.assert_array_equal(shown[3:], shown[:3, ..., ::-1, :])
  assert PLAIN.views(part, False)["frames"].shape == (3, 2, 4, *SIZE, 3)


def test_uint8_pictures_become_what_published_networks_are_shown():
  one = inputs.INPUTS["video"]((224, 224), test_crop=1.0, num_frames=2)
  frames = batch(clips=1, size=(224, 224), frames=2)["frames"]
  part = {"frames": frames[:, None], "frame_size": jnp.array([[224, 224]], jnp.int32)}
  (view,) = [{k: v[0] for k, v in one.views(part, False).items()}]
  expected = (np.asarray(frames) / 255 - 0.45) / 0.225  # torchvision's and SlowFast's
  np.testing.assert_allclose(jax.jit(one.view)(view), expected, atol=1e-5)


def test_motion_is_what_the_next_frame_differs_by():
  one = inputs.INPUTS["video"](SIZE, test_crop=1.0, num_frames=3, size=24, stream="both", std=0.5)
  part = batch(clips=2, frames=3)
  part["frames"] = part["frames"][:, None]
  (view,) = [{k: v[0] for k, v in one.views(part, False).items()}]
  frames = np.asarray(jax.jit(dataclasses.replace(one, stream="frames").view)(view))
  motion = np.concatenate([3 * np.diff(frames, axis=1), np.zeros_like(frames[:, :1])], axis=1)
  both = jax.jit(one.view)(view)
  np.testing.assert_allclose(both, np.concatenate([frames, motion], -1), atol=1e-5)
  seen = (frames * 0.5 + 0.45) @ [0.299, 0.587, 0.114]
  np.testing.assert_allclose(one.picture(both), seen, atol=1e-5)
  alone = dataclasses.replace(one, stream="motion")
  np.testing.assert_allclose(jax.jit(alone.view)(view), motion, atol=1e-5)
  keys = jax.random.split(jax.random.key(0), 2)
  trained = alone.train(keys, part | {"frames": part["frames"][:, 0]}, False)
  assert not trained[:, -1].any()
  assert trained[:, :-1].any()


def test_shapes_are_those_of_the_example():
  for clips in (None, 2):
    expected = PLAIN.example(clips)
    images = RNG.integers(0, 256, (12, *SIZE, 3), np.uint8)
    data = record(images, "JPEG")
    part = PLAIN.read(data, np.random.default_rng(0)) if clips is None else PLAIN.read_test(data, 2)
    found = {k: (v[None].shape, v.dtype) for k, v in part.items()}
    assert found == {k: (v.shape, v.dtype) for k, v in expected.items()}


@pytest.mark.parametrize(
  "wrong", [{"frame_size": (0, 3)}, {"channels": 2}, {"seconds": 0.0}, {"test_crop": 1.5}]
)
def test_what_cannot_be_is_refused(wrong):
  with pytest.raises(ValueError, match=f"^{next(iter(wrong))}: expected"):
    dataclasses.replace(PLAIN, **wrong)
