import re

import jax
import numpy as np
import pytest

from jaxmg import errors
from jaxmg.pretrained import convert
from jaxmg.pretrained.convert import Rule

RULES = (
  Rule(r"block(\d+)\.conv\.weight", r"params/block\1/kernel", convert.conv3d),
  Rule(r"block(\d+)\.running_(mean|var)", r"batch_stats/block\1/\2"),
  Rule(r"fc\.weight", "params/head/kernel", convert.linear),
  Rule(r"(fc|classifier)\.bias", "params/head/bias"),
)
IGNORE = (r".*\.num_batches_tracked",)


def _leaf(*shape):
  return jax.ShapeDtypeStruct(shape, np.float32)


def _abstract():
  return {
    "params": {
      "block0": {"kernel": _leaf(1, 3, 5, 4, 6)},
      "head": {"kernel": _leaf(6, 2), "bias": _leaf(2)},
    },
    "batch_stats": {"block0": {"mean": _leaf(6), "var": _leaf(6)}},
  }


def _tensors(**changes):
  rng = np.random.default_rng(0)
  tensors = {
    "block0.conv.weight": rng.random((6, 4, 1, 3, 5), np.float32),
    "block0.running_mean": rng.random(6, np.float32),
    "block0.running_var": rng.random(6, np.float32),
    "block0.num_batches_tracked": np.zeros((), np.int64),
    "fc.weight": rng.random((2, 6), np.float32),
    "fc.bias": rng.random(2, np.float32),
  }
  return tensors | changes


def _convert(tensors, rules=RULES):
  return convert.convert(tensors, _abstract(), rules, ignore=IGNORE)


def test_every_leaf_is_filled_in_our_layout():
  tensors = _tensors()
  variables = _convert(tensors)
  assert jax.tree.structure(variables) == jax.tree.structure(_abstract())
  kernel = variables["params"]["block0"]["kernel"]
  assert kernel[0, 1, 2, 3, 4] == tensors["block0.conv.weight"][4, 3, 0, 1, 2]
  np.testing.assert_array_equal(variables["params"]["head"]["kernel"], tensors["fc.weight"].T)
  np.testing.assert_array_equal(
    variables["batch_stats"]["block0"]["var"], tensors["block0.running_var"]
  )


def test_a_layout_may_resize_to_the_shape_of_our_leaf():
  def resized(array, shape):
    """Linear, at the centres of the new cells, the ends repeated."""
    places = (np.arange(shape[0]) + 0.5) * len(array) / shape[0] - 0.5
    return np.stack([np.interp(places, np.arange(len(array)), x) for x in array.T], -1)

  rules = (Rule("rel_pos", "params/positions", resized),)
  table = np.array([[0, 10], [2, 20], [4, 30]], np.float32)
  for length, expected in ((3, table), (6, [[0, 10], [0.5, 12.5], [1.5, 17.5]])):
    found = convert.convert({"rel_pos": table}, {"params": {"positions": _leaf(length, 2)}}, rules)
    np.testing.assert_allclose(found["params"]["positions"][:3], expected)
    assert found["params"]["positions"].shape == (length, 2)
  with pytest.raises(errors.CheckpointError, match=r"expected \(6, 3\), got \(6, 2\)"):
    convert.convert({"rel_pos": table}, {"params": {"positions": _leaf(6, 3)}}, rules)


def test_half_precision_is_cast_to_the_dtype_of_the_model():
  bias = _convert(_tensors(**{"fc.bias": np.ones(2, np.float16)}))["params"]["head"]["bias"]
  assert bias.dtype == np.float32


@pytest.mark.parametrize(
  ("change", "problem"),
  [
    ({"ema.fc.bias": np.ones(2)}, "ema.fc.bias matches 0 rules"),
    ({"fc.bias2": np.ones(2)}, "fc.bias2 matches 0 rules"),
    ({"classifier.bias": np.ones(2)}, "classifier.bias: params/head/bias is filled already"),
    ({"block1.running_var": np.ones(6)}, "block1.running_var: the model has no batch_stats/block1"),
    ({"fc.bias": np.ones(3)}, "fc.bias: params/head/bias: expected (2,), got (3,)"),
    ({"fc.weight": np.ones((6, 2))}, "expected (6, 2), got (2, 6) from (6, 2)"),
    ({"fc.weight": np.ones(2)}, "fc.weight: params/head/kernel: "),
    ({"fc.bias": np.ones(2, np.int8)}, "expected floating-point numbers, got int8"),
    ({"fc.bias": np.array([1, np.nan])}, "expected finite numbers"),
    ({"fc.bias": np.array([1, 1e300])}, "expected finite numbers in float32"),
    ({"fc.weight": np.zeros((2, 6))}, "expected trained weights, got zeros alone"),
    ({"block0.running_var": -np.ones(6)}, "expected variances, got negative numbers"),
  ],
)
def test_a_tensor_that_does_not_fit_is_named_once(change, problem):
  with pytest.raises(errors.CheckpointError, match=re.escape(problem)) as caught:
    _convert(_tensors(**change))
  assert str(caught.value).count("\n") == 1


def test_a_leaf_that_no_tensor_fills_is_an_error():
  tensors = _tensors()
  del tensors["fc.bias"]
  with pytest.raises(errors.CheckpointError, match="params/head/bias is not filled"):
    _convert(tensors)


@pytest.mark.parametrize("pattern", [r"fc\.bias", r".*"])
def test_a_tensor_that_two_rules_match_is_an_error(pattern):
  with pytest.raises(errors.CheckpointError, match=r"fc\.bias matches 2 rules"):
    _convert(_tensors(), (*RULES, Rule(pattern, "params/head/bias")))


def test_a_tensor_that_is_both_renamed_and_ignored_is_an_error():
  rule = Rule(r"block0\.num_batches_tracked", "params/head/bias")
  with pytest.raises(errors.CheckpointError, match="num_batches_tracked matches 2 rules"):
    _convert(_tensors(), (*RULES, rule))


def test_one_error_lists_ten_problems_and_their_number():
  strangers = {f"stranger{i}": np.ones(1) for i in range(12)}
  with pytest.raises(ValueError, match="problems: 13") as caught:
    _convert(_tensors(**strangers, **{"fc.bias": np.ones(5)}))
  first, *problems, last = str(caught.value).splitlines()
  assert "does not fit" in first
  assert len(problems) == 10
  assert last == "  and 3 more"
