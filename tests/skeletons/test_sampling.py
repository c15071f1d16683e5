import pathlib

import numpy as np
import pytest

from jaxmg.skeletons import sampling

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


def moving_points(length):
  """float32[length, 1, 2, 3]: two present points, each on a line at constant speed."""
  time = np.linspace(0, 1, length, dtype=np.float32)[:, None, None]
  score = np.ones_like(time)
  first = np.stack([100 + 50 * time, 20 - 10 * time, score], -1)
  second = np.stack([7 + 3 * time, 400 * time, 0.5 * score], -1)
  return np.concatenate([first, second], axis=2)


@pytest.mark.parametrize("case", ["short", "middle", "long"])
def test_test_clips_are_the_frames_of_the_reference(case):
  with np.load(GOLDEN / "test_pipeline.npz") as golden:
    expected, length = golden[f"{case}.frame_inds"], golden[f"{case}.keypoint"].shape[1]
  np.testing.assert_array_equal(sampling.test_clips(length, 48, 10), expected)


@pytest.mark.parametrize(
  ("length", "expected"),
  [
    (6, [[1, 2, 3, 5], [0, 1, 2, 4], [1, 2, 3, 4]]),
    (20, [[1, 5, 11, 17], [0, 9, 12, 16], [1, 5, 12, 15]]),
  ],
)
def test_pyskl_style_gives_the_frames_of_pyskl(length, expected):
  # From a transcription of PYSKL's UniformSampleFrames (commit 07eeb4a), 4 frames, 3 clips.
  assert sampling.test_clips(length, 4, 3, style="pyskl").tolist() == expected
  assert sampling.test_clips(length, 4, 3).tolist() != expected


def test_both_styles_agree_on_a_short_clip():
  pyskl = sampling.test_clips(30, 48, 10, style="pyskl")
  np.testing.assert_array_equal(pyskl, sampling.test_clips(30, 48, 10))


def test_more_clips_than_frames_start_one_frame_apart_and_wrap():
  clips = sampling.test_clips(3, 4, 5)
  assert clips.tolist() == [[0, 1, 2, 0], [1, 2, 0, 1], [2, 0, 1, 2], [0, 1, 2, 0], [1, 2, 0, 1]]


@pytest.mark.parametrize("length", [96, 97, 150, 1000])
def test_uniform_takes_one_frame_of_each_segment(length):
  bounds = np.arange(49) * length // 48
  for seed in range(20):
    frames = sampling.uniform(length, 48, np.random.default_rng(seed))
    assert (bounds[:-1] <= frames).all()
    assert (frames < bounds[1:]).all()


@pytest.mark.parametrize("length", [48, 49, 60, 95])
def test_uniform_skips_single_frames_of_a_middle_clip(length):
  for seed in range(20):
    frames = sampling.uniform(length, 48, np.random.default_rng(seed))
    assert set(np.diff(frames)) <= {1, 2}
    assert 0 <= frames[0] <= 1
    assert frames[-1] in (length - 1, length - 2)


def test_uniform_reads_a_short_clip_round_and_round_from_any_start():
  starts = set()
  for seed in range(50):
    frames = sampling.uniform(5, 12, np.random.default_rng(seed))
    np.testing.assert_array_equal(frames, (frames[0] + np.arange(12)) % 5)
    starts.add(int(frames[0]))
  assert starts == set(range(5))


@pytest.mark.parametrize("kind", sampling.KINDS)
@pytest.mark.parametrize("length", [10, 60, 200])
def test_sample_depends_on_its_generator_alone(kind, length):
  keypoints = moving_points(length)
  np.random.seed(0)
  once = sampling.sample(keypoints, kind=kind, num_frames=48, rng=np.random.default_rng((1, 2, 3)))
  np.random.seed(1)
  again = sampling.sample(keypoints, kind=kind, num_frames=48, rng=np.random.default_rng((1, 2, 3)))
  np.testing.assert_array_equal(once, again)
  other = sampling.sample(keypoints, kind=kind, num_frames=48, rng=np.random.default_rng((1, 2, 4)))
  # Bringing a short clip to T frames leaves nothing to chance, nor do "linear" and "repeat".
  by_segments = kind in ("interpolate", "linspace") and length >= 48
  by_start = kind == "window" and length > 48
  assert (once != other).any() == (kind == "uniform" or by_segments or by_start)


@pytest.mark.parametrize("kind", sampling.KINDS)
def test_crop_takes_a_random_part_of_the_clip(kind):
  frames = np.arange(1, 101, dtype=np.float32).reshape(-1, 1, 1, 1) * np.ones((1, 1, 3))
  spans, starts = [], []
  for seed in range(50):
    rng = np.random.default_rng(seed)
    sampled = sampling.sample(frames, kind=kind, num_frames=48, rng=rng, crop=(0.5, 0.6))
    spans.append(np.ptp(sampled))
    starts.append(sampled.min())
  assert max(spans) < 60
  assert min(starts) < 5
  assert max(starts) > 40


def test_a_window_is_of_frames_in_a_row_from_anywhere_in_the_clip():
  frames = np.arange(1, 101, dtype=np.float32).reshape(-1, 1, 1, 1) * np.ones((1, 1, 3), np.float32)
  starts = []
  for seed in range(200):
    rng = np.random.default_rng(seed)
    window = sampling.sample(frames, kind="window", num_frames=20, rng=rng)[..., 0, 0, 0]
    np.testing.assert_array_equal(np.diff(window), 1)
    starts.append(window[0])
  assert min(starts) < 4
  assert max(starts) > 78
  clips = sampling.sample_test(frames, kind="window", num_frames=20, num_clips=3)[..., 0, 0, 0]
  np.testing.assert_array_equal(clips[:, 0], [1, 41, 81])
  short = sampling.sample_test(frames[:3], kind="window", num_frames=5, num_clips=1)
  np.testing.assert_array_equal(short[0, :, 0, 0, 0], [1, 1.5, 2, 2.5, 3])


def test_linear_keeps_a_uniform_motion_uniform():
  motion = np.arange(1, 8, dtype=np.float32).reshape(-1, 1, 1) * np.array(
    [1.0, 2.0, 3.0], np.float32
  )
  for num_frames in (4, 7, 19):
    expected = np.linspace(1, 7, num_frames)
    np.testing.assert_allclose(
      sampling.linear(motion, num_frames)[:, 0, 1], 2 * expected, rtol=1e-6
    )


@pytest.mark.parametrize("num_frames", [4, 9, 20])
def test_linear_is_its_definition_to_the_bit(num_frames):
  rng = np.random.default_rng(0)
  pose = rng.normal(size=(9, 2, 5, 3)).astype(np.float32) * (rng.random((9, 2, 5, 1)) < 0.7)
  pose[..., 0] *= rng.random((9, 2, 5)) < 0.7  # a coordinate may be 0 of a joint that is there
  for clip, what in ((pose, "absent"), (np.abs(pose) + 1, "all there")):
    place = np.linspace(0, 8, num_frames)
    a, b = clip[place.astype(int)], clip[np.minimum(place.astype(int) + 1, 8)]
    weight = np.float32(place - place.astype(int)).reshape(-1, 1, 1, 1)
    both = a.any(-1, keepdims=True) & b.any(-1, keepdims=True)
    expected = np.where(both, a + weight * (b - a), np.where(weight <= 0.5, a, b))
    np.testing.assert_array_equal(sampling.linear(clip, num_frames), expected, what)


def test_linear_never_blends_with_an_absent_joint():
  pose = np.full((3, 1, 3), 8, np.float32)
  pose[1] = 0
  assert sampling.linear(pose, 9)[:, 0, 0].tolist() == [8, 8, 8, 0, 0, 0, 0, 8, 8]
  assert sampling.linear(pose[:1], 4)[:, 0, 0].tolist() == [8, 8, 8, 8]


def test_repeat_starts_again_after_the_last_frame():
  pose = np.arange(1, 4, dtype=np.float32).reshape(-1, 1, 1, 1)
  (clip,) = sampling.sample_test(pose, kind="repeat", num_frames=7, num_clips=1)
  assert clip.ravel().tolist() == [1, 2, 3, 1, 2, 3, 1]


def test_several_linear_test_clips_are_windows_over_the_whole_clip():
  pose = np.arange(101, dtype=np.float32).reshape(-1, 1, 1, 1) + 1
  clips = sampling.sample_test(pose, kind="linear", num_frames=5, num_clips=3)[..., 0, 0, 0]
  assert clips[:, 0].tolist() == [1, 6, 11]
  assert clips[:, -1].tolist() == [91, 96, 101]


@pytest.mark.parametrize("length", [2, 3, 17, 47])
def test_interpolate_keeps_linear_motion_linear(length):
  np.testing.assert_allclose(
    sampling.interpolate(moving_points(length), 48), moving_points(48), atol=1e-4
  )


def test_interpolate_has_no_jump_where_uniform_wraps_round():
  keypoints = moving_points(20)
  wrapped = sampling.sample(keypoints, num_frames=48, rng=np.random.default_rng(0))
  smooth = sampling.interpolate(keypoints, 48, np.random.default_rng(0))
  fastest = np.abs(np.diff(keypoints, axis=0)).max()
  assert np.abs(np.diff(wrapped, axis=0)).max() > 10 * fastest
  assert np.abs(np.diff(smooth, axis=0)).max() <= fastest


@pytest.mark.parametrize("rng", [None, np.random.default_rng(0)])
def test_interpolate_to_the_same_length_is_identity(rng):
  keypoints = moving_points(48)
  np.testing.assert_array_equal(sampling.interpolate(keypoints, 48, rng), keypoints)


def test_interpolate_takes_an_absent_joint_whole_from_the_nearer_frame():
  keypoints = np.array([[[8, 8, 0.5]], [[0, 0, 0]], [[4, 6, 1.0]]], np.float32)
  #                   frame: 0     0.5        1          1.5        2
  expected = [[8, 8, 0.5], [8, 8, 0.5], [0, 0, 0], [0, 0, 0], [4, 6, 1]]
  np.testing.assert_array_equal(sampling.interpolate(keypoints, 5)[:, 0], expected)
  # With ten frames, 0.44 is the last of the first joint, and 1.56 the first of the last.
  assert (sampling.interpolate(keypoints, 10)[:, 0, 2]).tolist() == [*[0.5] * 3, *[0] * 4, *[1] * 3]


def test_interpolate_blends_the_score_of_present_joints():
  keypoints = np.array([[[0, 0, 0.2]], [[3, 9, 0.8]]], np.float32)
  expected = [[0, 0, 0.2], [1, 3, 0.4], [2, 6, 0.6], [3, 9, 0.8]]
  np.testing.assert_allclose(sampling.interpolate(keypoints, 4)[:, 0], expected, rtol=1e-6)


@pytest.mark.parametrize("length", [49, 72, 96, 150, 1001])
def test_interpolate_takes_distinct_frames_evenly_from_a_long_clip(length):
  frames = np.arange(length, dtype=np.float32)[:, None, None] + np.ones(3, np.float32)
  even = sampling.interpolate(frames, 48)[:, 0, 0] - 1
  step = length / 48
  np.testing.assert_allclose(even, (np.arange(48) + 0.5) * step, atol=1.5)
  bounds = np.arange(49) * length // 48
  for seed in range(10):
    jittered = sampling.interpolate(frames, 48, np.random.default_rng(seed))[:, 0, 0] - 1
    assert (bounds[:-1] <= jittered).all()
    assert (jittered < bounds[1:]).all()


@pytest.mark.parametrize(
  ("length", "num_frames", "expected"),
  [
    (5, 8, [0, 1, 1, 2, 2, 3, 3, 4]),
    (2, 5, [0, 0, 0, 1, 1]),  # of two equally near the earlier
    (3, 5, [0, 0, 1, 1, 2]),
    (47, 48, [*range(24), *range(23, 47)]),
  ],
)
def test_linspace_takes_the_nearest_frame_of_a_short_clip(length, num_frames, expected):
  frames = np.arange(1, length + 1, dtype=np.float32)[:, None, None, None] * np.ones(3, np.float32)
  rng = np.random.default_rng(0)
  clip = sampling.sample(frames, kind="linspace", num_frames=num_frames, rng=rng)
  (test_clip,) = sampling.sample_test(frames, kind="linspace", num_frames=num_frames, num_clips=1)
  assert (clip[:, 0, 0, 0] - 1).tolist() == expected
  assert (test_clip[:, 0, 0, 0] - 1).tolist() == expected


@pytest.mark.parametrize("length", [16, 17, 31, 100])
def test_linspace_takes_the_frames_of_interpolate_from_a_clip_that_is_not_short(length):
  keypoints = moving_points(length)
  same = [
    sampling.sample(keypoints, kind=kind, num_frames=16, rng=np.random.default_rng(7))
    for kind in ("linspace", "interpolate")
  ]
  np.testing.assert_array_equal(*same)
  same = [
    sampling.sample_test(keypoints, kind=kind, num_frames=16, num_clips=3)
    for kind in ("linspace", "interpolate")
  ]
  np.testing.assert_array_equal(*same)


def test_linspace_and_interpolate_differ_by_at_most_half_a_step_of_the_clip():
  keypoints = moving_points(20)
  held, blended = (
    sampling.sample(keypoints, kind=kind, num_frames=48, rng=np.random.default_rng(0))
    for kind in ("linspace", "interpolate")
  )
  fastest = np.abs(np.diff(keypoints, axis=0)).max()
  assert 0.25 * fastest < np.abs(held - blended).max() <= 0.51 * fastest


def test_a_single_frame_is_held():
  keypoints = moving_points(1)
  for kind in sampling.KINDS:
    clip = sampling.sample(keypoints, kind=kind, num_frames=4, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(clip, np.repeat(keypoints, 4, axis=0))


@pytest.mark.parametrize("kind", sampling.KINDS)
@pytest.mark.parametrize("length", [1, 7, 16, 20, 100])
def test_samples_have_the_shape_asked_for_and_keep_their_type(kind, length):
  keypoints = moving_points(length)
  clip = sampling.sample(keypoints, kind=kind, num_frames=16, rng=np.random.default_rng(0))
  clips = sampling.sample_test(keypoints, kind=kind, num_frames=16, num_clips=3)
  assert (clip.shape, clips.shape) == ((16, 1, 2, 3), (3, 16, 1, 2, 3))
  assert clip.dtype == clips.dtype == np.float32


def test_test_clips_of_interpolation_are_evenly_phased():
  frames = np.arange(1, 41, dtype=np.float32)[:, None, None, None] * np.ones(3, np.float32)
  clips = sampling.sample_test(frames, kind="interpolate", num_frames=10, num_clips=4)
  first_frames = clips[:, 0, 0, 0, 0] - 1
  assert first_frames.tolist() == [0, 1, 2, 3]
  (only,) = sampling.sample_test(frames, kind="interpolate", num_frames=10, num_clips=1)
  np.testing.assert_array_equal(only, sampling.interpolate(frames, 10))


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda rng: sampling.uniform(0, 48, rng), "length .* at least 1, got 0"),
    (lambda rng: sampling.test_clips(5, 0, 1), "num_frames .* at least 1, got 0"),
    (lambda rng: sampling.test_clips(5, 4, 0), "num_clips .* at least 1, got 0"),
    (lambda rng: sampling.test_clips(5, 4, 1, style="x"), "'mmaction2' or 'pyskl', got 'x'"),
    (lambda rng: sampling.interpolate(moving_points(0), 4), "length .* at least 1, got 0"),
    (
      lambda rng: sampling.sample(moving_points(5), kind="bent", num_frames=4, rng=rng),
      "expected uniform or interpolate or linspace or linear or repeat or window, got 'bent'",
    ),
  ],
)
def test_wrong_arguments_are_named(call, message):
  with pytest.raises(ValueError, match=message):
    call(np.random.default_rng(0))
