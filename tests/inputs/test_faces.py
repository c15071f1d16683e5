"""Which faces a clip shows, how they are kept and decoded, and what the device makes of them."""

import dataclasses
import io

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxmg import inputs
from jaxmg.data import prepared, readers, source, tracks

PLAIN = inputs.INPUTS["faces"](num_frames=4, seconds=0.4, size=16)
SIZE = 24
TIMES = np.arange(200) / 25


def jpeg(image):
  into = io.BytesIO()
  Image.fromarray(image).save(into, "JPEG", quality=95)
  return into.getvalue()


def crops(times, size=SIZE, span=None):
  """Faces of which the k-th is of the grey k."""
  pictures = tuple(jpeg(np.full((size, size, 3), k % 256, np.uint8)) for k in range(len(times)))
  span = np.array([times[0], times[-1] + 0.04]) if span is None else np.array(span)
  landmarks = np.zeros((len(times), 5, 2), np.float32) + np.arange(len(times))[:, None, None]
  scores = np.linspace(0.5, 1, len(times), dtype=np.float32)
  return readers.FaceCrops(pictures, np.array(times), span, landmarks, scores, size=size)


def numbers(part):
  return part["frames"][..., 8, 8, 0].astype(int)


def read(record, seed, one=PLAIN):
  return numbers(one.read(record, np.random.default_rng(seed)))


def moments(record, seed):
  """The window of a draw: its begin, and the moments in it."""
  first, last = record["span"]
  begin = first + np.random.default_rng(seed).random() * (last - first - 0.4)
  return begin, begin + np.arange(4) * 0.1


@pytest.mark.parametrize("clips", [1, 3])
def test_a_window_is_that_of_a_video_for_the_same_draw(clips):
  faces = crops(TIMES).record()
  seen = inputs.Video((SIZE, SIZE), num_frames=4, seconds=0.4)
  video = {"frames": faces["frames"], "times": TIMES, "frame_size": (SIZE, SIZE)}
  for seed in range(30):
    theirs = seen.read(video, np.random.default_rng(seed))["frames"][:, 8, 8, 0]
    np.testing.assert_array_equal(read(faces, seed), theirs)
  np.testing.assert_array_equal(PLAIN.sampled(faces, clips), seen.sampled(video, clips))


def test_a_window_is_of_the_recording_where_most_of_it_has_no_face():
  there = (TIMES > 3) & (TIMES < 4) | (TIMES > 4.6) & (TIMES < 5)
  record = crops(TIMES[there], span=(0, 8)).record()
  some = 0
  for seed in range(60):
    begin, at = moments(record, seed)
    chosen = record["times"][read(record, seed)]
    inside = record["times"][(record["times"] >= begin - 0.05) & (record["times"] < begin + 0.4)]
    candidates = inside if inside.size else record["times"]
    some += 0 < inside.size < 9
    nearest = [np.abs(candidates - moment).min() for moment in at]
    np.testing.assert_allclose(np.abs(chosen - at), nearest, atol=1e-9)
  assert some > 3


def test_a_window_without_a_face_shows_the_nearest_one():
  record = crops([2.0, 6.5], span=(0, 8)).record()
  test = PLAIN.sampled(record, 5)
  np.testing.assert_array_equal(test, np.repeat([[0], [0], [0], [1], [1]], 4, 1))
  alone = crops([2.0], span=(0, 8)).record()
  np.testing.assert_array_equal(read(alone, 0), [0, 0, 0, 0])


@pytest.mark.parametrize("sampling", ["seconds", "uniform"])
def test_a_recording_that_is_not_longer_has_a_moment_in_each_of_equal_parts(sampling):
  one = dataclasses.replace(PLAIN, sampling=sampling)
  record = crops(np.arange(10) / 25).record()  # 0.4 s
  for seed in range(10):
    chosen = read(record, seed, one)
    assert all(low <= k <= low + 3 for k, low in zip(chosen, (0, 2, 5, 7), strict=True)), chosen
  np.testing.assert_array_equal(one.sampled(record, 1), [[1, 4, 6, 9]])
  part = dataclasses.replace(one, sampling="uniform", crop=(0.5, 0.5))
  assert all(np.ptp(read(record, seed, part)) <= 5 for seed in range(10))


def test_pictures_come_as_they_were_kept_and_smaller_where_less_is_asked_for():
  image = np.random.default_rng(0).integers(0, 256, (SIZE, SIZE, 3), np.uint8)
  pictures = (jpeg(image),)
  record = dataclasses.replace(crops([0.0]), pictures=pictures).record()
  whole = dataclasses.replace(PLAIN, size=SIZE).read_test(record, 2)["frames"]
  assert whole.shape == (2, 4, SIZE, SIZE, 3)
  np.testing.assert_array_equal(whole[1, 3], np.asarray(Image.open(io.BytesIO(pictures[0]))))
  assert PLAIN.read_test(record, 2)["frames"].shape == (2, 4, 16, 16, 3)
  with pytest.raises(ValueError, match="size: expected at most 24, got 112"):
    inputs.Faces().check(tracks.Faces(SIZE).about)
  broken = record | {"frames": (pictures[0][:200],)}
  with pytest.raises(ValueError, match="frames: expected a whole picture, got"):
    PLAIN.read_test(broken, 1)


def test_a_track_keeps_the_faces_of_clips_that_have_any(tmp_path):
  long = crops(np.arange(300) / 25, span=(-1, 20))

  class Looks(prepared.Builder):
    """Faces of grey."""

    track, track_name = tracks.Faces(SIZE), "faces"
    class_names = ("any",)
    protocols = {}  # noqa: RUF012

    def clips(self, recording, known):
      yield prepared.Example("a", 0, "x", crops(np.arange(3) / 25 + 100))
      yield prepared.Example("b", 0, "x", long)

  data = source.Source(prepared.write(Looks, raw=tmp_path, data_dir=tmp_path))
  track = data.track("faces")
  assert (track.kind, track.num_frames.tolist()) == (tracks.Faces(SIZE), [3, 300])
  found = track[1]
  assert len(found["frames"]) == 300
  for k in (0, 299, 256, 255):
    assert found["frames"][k] == long.pictures[k]
  for name in ("times", "span", "landmarks", "scores"):
    np.testing.assert_array_equal(found[name], getattr(long, name))
  PLAIN.check(track.kind.about)
  np.testing.assert_array_equal(read(found, 1), read(long.record(), 1))
  np.testing.assert_array_equal(track[0]["span"], [100, 100.12])


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"pictures": ()}, "faces: expected at least 1, got 0"),
    ({"size": 16}, "size: expected 24, got 16"),
    ({"times": np.arange(4.0)}, r"times: expected \[3\], got \[4\]"),
    ({"times": np.array([0, np.nan, 1])}, "times: expected seconds, got NaN or infinity"),
    ({"times": np.array([0.0, 0.2, 0.1])}, "times: expected one after the other, got another"),
    ({"span": np.array([0.01, 5])}, "times: expected from 0.01 to 5 s, got 0 to 0.08"),
    ({"landmarks": np.zeros((3, 6, 2))}, r"landmarks: expected \[3, 5, 2\], got another shape"),
    ({"scores": np.zeros(2)}, r"scores: expected \[3\], got \[2\]"),
  ],
)
def test_a_clip_that_does_not_fit_is_refused(change, message):
  clip = dataclasses.replace(crops(np.arange(3) / 25), **change)
  with pytest.raises(ValueError, match=f"^{message}"):
    tracks.Faces(SIZE).records(clip)


def batch(clips=3):
  rng = np.random.default_rng(2)
  return {"frames": jnp.asarray(rng.integers(0, 256, (clips, 4, 16, 16, 3), np.uint8))}


def test_training_clips_are_mirrored_where_they_are_told():
  one = dataclasses.replace(PLAIN, brightness=0.3, contrast=0.3)
  keys, part = jax.random.split(jax.random.key(0), 16), batch(16)
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
  train, order = jax.jit(one.train, static_argnums=2), np.array([2, 0, 1])
  moved = train(keys[order], {"frames": part["frames"][order]}, True)
  np.testing.assert_array_equal(moved, train(keys, part, True)[order])


def test_views_are_the_clips_and_then_their_mirror_images_as_the_network_was_trained():
  rng = np.random.default_rng(3)
  part = {"frames": jnp.asarray(rng.integers(0, 256, (2, 3, 4, 16, 16, 3), np.uint8))}
  views = PLAIN.views(part, True)
  shown = np.stack([PLAIN.view({name: x[k] for name, x in views.items()}) for k in range(6)])
  expected = (np.moveaxis(np.asarray(part["frames"]), 1, 0) / 255 - 0.5) / 0.5
  np.testing.assert_allclose(shown[:3], expected, atol=1e-5)
  np.testing.assert_array_equal(shown[3:], shown[:3, ..., ::-1, :])
  assert PLAIN.views(part, False)["frames"].shape[0] == 3
  view = {name: x[5] for name, x in views.items()}
  assert not PLAIN.view(view, 0 * PLAIN.ones(view)).any()
  grey = (shown[0] * 0.5 + 0.5) @ [0.299, 0.587, 0.114]
  np.testing.assert_allclose(PLAIN.picture(jnp.asarray(shown[0])), grey, atol=1e-5)


def test_shapes_are_those_of_the_example():
  record = crops(TIMES[:20]).record()
  parts = PLAIN.read(record, np.random.default_rng(0)), PLAIN.read_test(record, 2)
  for part, clips in zip(parts, (None, 2), strict=True):
    found = {k: (v[None].shape, v.dtype) for k, v in part.items()}
    assert found == {k: (v.shape, v.dtype) for k, v in PLAIN.example(clips).items()}
