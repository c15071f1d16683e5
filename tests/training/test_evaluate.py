import jax
import numpy as np
import pytest

from jaxmg.training import evaluate, sharding
from jaxmg.training import step as steps

BATCH_SIZE = 8


def padded_batches(num_clips):
  """Batches of 8; the last one is filled with copies of the last clip, in the rows' order."""
  rng = np.random.default_rng(num_clips)
  rows = rng.permutation(num_clips) * 10
  values = np.random.default_rng(0).normal(size=(1000, 12)).astype(np.float32)
  padding = -num_clips % BATCH_SIZE
  mask = np.arange(num_clips + padding) < num_clips
  rows = np.append(rows, np.repeat(rows[-1:], padding)).astype(np.int32)
  for start in range(0, len(rows), BATCH_SIZE):
    here = slice(start, start + BATCH_SIZE)
    yield {
      "values": values[rows[here]],
      "label": rows[here] % 3,
      "clip": rows[here],
      "mask": mask[here],
    }


@pytest.fixture(scope="module", params=[1, 2, 8])
def setup(toy, request):
  mesh = sharding.data_mesh(jax.devices()[: request.param])
  variables = jax.device_get(jax.jit(toy.model.init)(toy.key, toy.example))
  predict = steps.make_predict_step(
    toy.model, lambda batch: batch["values"][None], lambda view: view
  )
  return mesh, variables, steps.compile_predict_step(predict, mesh)


def test_every_clip_counts_once_for_one_to_nine_clips(toy, setup):
  mesh, variables, predict_step = setup
  values = np.random.default_rng(0).normal(size=(1000, 12)).astype(np.float32)
  expected = jax.nn.softmax(jax.jit(toy.model.apply)(variables, values)[0])
  for num_clips in range(1, 10):
    rows, probabilities, labels = evaluate.evaluate(
      predict_step, variables, padded_batches(num_clips), mesh=mesh
    )
    assert rows.tolist() == list(range(0, 10 * num_clips, 10))
    assert labels.tolist() == [row % 3 for row in rows]
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities, expected[rows], rtol=1e-5)


def test_clip_that_comes_twice_is_an_error(setup):
  mesh, variables, predict_step = setup
  batches = [*padded_batches(3), *padded_batches(1)]
  with pytest.raises(ValueError, match=r"each clip once, got rows \[0\] again"):
    evaluate.evaluate(predict_step, variables, batches, mesh=mesh)


def test_no_clips_is_an_error(setup):
  mesh, variables, predict_step = setup
  with pytest.raises(ValueError, match="at least one clip, got none"):
    evaluate.evaluate(predict_step, variables, [], mesh=mesh)


def test_evaluation_that_is_asked_to_stop_gives_nothing(setup):
  mesh, variables, predict_step = setup
  answers = iter([None, "SIGTERM"])
  found = evaluate.evaluate(
    predict_step, variables, padded_batches(20), mesh=mesh, stop=lambda: next(answers)
  )
  assert found is None
  assert list(answers) == []
