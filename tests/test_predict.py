"""Prediction from a run directory, beside the command (see experiments/test_posec3d.py)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxmg import errors, inputs, predict, recipe
from jaxmg.data import batch as batches
from jaxmg.data import pipeline, readers, source
from jaxmg.skeletons import topology


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


def test_bfloat16_predicts_nearly_the_same_and_gives_float32(run, predictor, data):
  half = predict.Predictor(run, dtype="bfloat16")
  assert (half.dtype, predictor.dtype) == ("bfloat16", "float32")
  clips = [clip(data, row) for row in (0, 3, 7)]
  for name in ("__call__", "features", "tokens"):
    found, expected = (getattr(one, name)(clips) for one in (half, predictor))
    assert found.dtype == np.float32
    scale = max(1, np.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=0.02 * scale)
    assert (found != expected).any()


def test_a_wrong_dtype_is_one_line(run):
  with pytest.raises(errors.ConfigError, match=r"^dtype: expected .*, got float16 \(did you mean"):
    predict.Predictor(run, dtype="float16")


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
  # The body's box has edges of whole pixels, which are a tenth as large here: not to the bit.
  np.testing.assert_allclose(found, expected, atol=3e-3)


class Smooth(nn.Module):
  """Of any one input."""

  @nn.compact
  def __call__(self, x, *, train=False, rows=None):
    normal = nn.initializers.normal(0.02)
    x = jnp.tanh(nn.Dense(8, kernel_init=normal)(x.reshape(len(x), -1)))
    return nn.Dense(3)(x), {}


def pictures(rng):
  frames = rng.integers(0, 256, (2, 1, 4, 20, 24, 3), np.uint8)
  return {"frames": frames, "frame_size": np.int32([[20, 24], [18, 24]])}


COCO17 = topology.get("coco17")


@pytest.mark.parametrize(
  "one",
  [
    inputs.Heatmaps(COCO17, (72, 128), stream="limb", test_size=16),
    inputs.Graph(COCO17, (72, 128), stream="bone"),
    inputs.Video((20, 24), size=16),
  ],
  ids=["limbs", "graph", "video"],
)
def test_attribution_is_the_slope_of_the_logit_over_what_is_shown(one):
  """Against differences, for the clips and their mirror images, of each clip of the batch."""
  rng = np.random.default_rng(0)
  part = batches.fake(num_views=1)["pose"] if one.track == "pose" else pictures(rng)
  if one.track == "pose":  # no two are equal: a limb is as high as its lower end
    part["keypoints"][..., 2] = np.linspace(0.3, 1, 17)
  batch = jax.tree.map(jnp.asarray, {"x": part, "class": np.int32([0, 2])})
  options = {"class_names": ("a", "b", "c"), "num_clips": 1, "mirror": True}
  found, model = recipe.Recipe({"num_classes": 3}, {"x": one}, **options), Smooth()
  views = found.test_views(batch)
  shape = jax.eval_shape(found.test_view, jax.tree.map(lambda x: x[0], views))
  params = model.init(jax.random.key(0), jnp.zeros(shape.shape))["params"]
  logits, slopes = jax.jit(found.attribution_step(model))(params, {}, batch)
  ways = rng.normal(size=slopes["x"].shape).astype(np.float32)

  @jax.jit
  def logits_at(step):
    def of_view(given):
      view, way = given
      x = found.test_view(view, {"x": 1 + step * way})
      return model.apply({"params": params}, x)[0][jnp.arange(2), batch["class"]]

    return jax.lax.map(of_view, (views, ways.swapaxes(0, 1))).T

  np.testing.assert_allclose(logits_at(0.0), logits, atol=1e-5)
  differences = (logits_at(0.003) - logits_at(-0.003)) / 0.006
  expected = (slopes["x"] * ways).reshape(2, 2, -1).sum(-1)
  assert np.abs(expected).max() > 1e-2
  np.testing.assert_allclose(differences, expected, atol=5e-3 * np.abs(expected).max())


def test_attribution_is_told_by_frames_of_the_recording(predictor, data):
  """What several views show is summed."""
  one = clip(data, 3)
  found = predictor.attribution(one)
  assert found.number == predictor(one).argmax()
  ((one_input,), clips) = predictor.recipe.inputs.values(), predictor.recipe.num_clips
  frames = np.unique(one_input.sampled(one.record(), clips)).tolist()
  assert 8 < len(frames) <= 12
  assert found.frames["pose"].tolist() == frames
  assert found.values["pose"].shape == (len(frames), 1, 17)
  half = one.cut(0, 5)
  shown = predictor.attribution(half, 1 - found.number)
  assert (shown.number, shown.frames["pose"].tolist()) == (1 - found.number, list(range(6)))
  part = predictor._read({"pose": half.record()})
  logits, slopes = predictor._run("attribution", part | {"class": np.int32(shown.number)})
  assert shown.logit == pytest.approx(logits.mean(), abs=1e-5)
  total = slopes["pose"][0].sum(1).mean(0)  # over frames, of the mean view
  np.testing.assert_allclose(shown.values["pose"].sum(0), total, rtol=1e-3, atol=1e-7)
  # Of two classes, what speaks for the one speaks against the other.
  other = predictor.attribution(half, predictor.class_names[found.number])
  assert other.logit == pytest.approx(-shown.logit, abs=1e-5)
  np.testing.assert_allclose(other.values["pose"], -shown.values["pose"], atol=1e-6)
  with pytest.raises(ValueError, match="number: expected 0 to 1, got 2"):
    predictor.attribution(one, 2)
