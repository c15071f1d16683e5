"""Prediction from a run directory, beside the command (see experiments/test_posec3d.py)."""

import jax
import numpy as np
import pytest

from jaxmg import errors, predict, recipe
from jaxmg.data import pipeline, readers, source


@pytest.fixture(scope="module")
def predictor(run):
  return predict.Predictor(run)


def clip(data, row):
  return readers.Clip(data.track("pose")[row]["keypoints"], "openpose25")


@pytest.fixture(scope="module")
def data(nods):
  return source.Source(nods / "nods")


def test_prediction_twice_is_the_same_to_the_bit(run, predictor, data):
  first = predictor(clip(data, 3))
  np.testing.assert_array_equal(predictor(clip(data, 3)), first)
  np.testing.assert_array_equal(predict.Predictor(run)(clip(data, 3)), first)


def test_clip_alone_is_predicted_as_among_64_others(run, predictor, data):
  found = recipe.load(run)
  rows = np.arange(64) % len(data)
  (batch,) = pipeline.test_batches(
    data, rows, found.inputs, num_clips=found.num_clips, batch_size=64
  )
  predict_step = jax.jit(found.predict_step(found.build_model()))
  together = predict_step(**predictor._variables, batch=batch)
  for row in (0, 7, 23):
    np.testing.assert_allclose(predictor(clip(data, row)), together[row], rtol=0, atol=1e-5)
    np.testing.assert_allclose(together[row], together[row + 24], rtol=0, atol=1e-5)


def nobody(keypoints):
  keypoints[:] = 0


def one_frame_of_a_body(keypoints):
  keypoints[1:] = 0


def one_joint_far_out(keypoints):
  keypoints[:, :, 3, 0] = 1e9


def all_joints_far_out(keypoints):
  keypoints[..., :2] = 1e9, -1e9


def no_extent(keypoints):
  keypoints[..., :2] = 30


@pytest.mark.parametrize("edit", [one_frame_of_a_body, one_joint_far_out])
def test_odd_clips_have_finite_probabilities(predictor, data, edit):
  keypoints = data.track("pose")[3]["keypoints"].copy()
  edit(keypoints)
  probabilities = predictor(readers.Clip(keypoints, "openpose25"))
  assert np.isfinite(probabilities).all()
  assert probabilities.sum() == pytest.approx(1)


def normalised(keypoints):
  keypoints[..., :2] /= 128, 72
  keypoints[2, 0, 3, 1] = 1.2  # one joint lies below the picture


def of_a_larger_picture(keypoints):
  keypoints[..., :2] *= 10


@pytest.mark.parametrize(
  ("edit", "message"),
  [
    (nobody, r"the clip: keypoints: expected somebody, got nobody in 12 frames$"),
    (no_extent, r"the clip: coordinates: expected pixels, got a body of 0 \(normalised\?"),
    (normalised, r"the clip: coordinates: expected pixels, got a body of 0\.\d+ \(normalised\?"),
    (all_joints_far_out, "the clip: "),
    (of_a_larger_picture, r"frame_size: expected 72 x 128, got \d+% of the joints outside of it"),
  ],
)
def test_clips_that_show_nothing_have_no_class(predictor, data, edit, message):
  keypoints = data.track("pose")[3]["keypoints"].copy()
  edit(keypoints)
  with pytest.raises(errors.DataError, match=message):
    predictor(readers.Clip(keypoints, "openpose25"))


def test_a_frame_size_of_its_own_makes_a_clip_of_another_size_the_same(predictor, data):
  keypoints = data.track("pose")[3]["keypoints"]
  large = keypoints * np.float32([10, 10, 1])
  with pytest.raises(errors.DataError, match="expected 72 x 128, got"):
    predictor(readers.Clip(large, "openpose25"))
  expected = predictor(readers.Clip(keypoints, "openpose25"))
  found = predictor(readers.Clip(large, "openpose25", (720, 1280)))
  np.testing.assert_allclose(found, expected, atol=1e-3)
