"""Patterns of parameters, and the weights of one model in the place of a part of another."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxmg import errors
from jaxmg.training import parameters

TREE = {"stem": {"kernel": 1, "bias": 2}, "head": {"kernel": 3, "bias": 4}, "header": {"bias": 5}}


class Encoder(nn.Module):
  num_classes: int = 4

  @nn.compact
  def __call__(self, x, *, train=False):
    x = nn.BatchNorm(use_running_average=not train, name="bn")(nn.Dense(5, name="dense")(x))
    return nn.Dense(self.num_classes, name="head")(x) if self.num_classes else x


class Fusion(nn.Module):
  @nn.compact
  def __call__(self, x, *, train=False):
    parts = [Encoder(0, name=f"encoders_{name}")(x[name], train=train) for name in sorted(x)]
    return nn.Dense(2, name="head")(jnp.concatenate(parts, -1))


def init(model, seed, sizes):
  x = jax.tree.map(lambda size: jnp.zeros((1, size)), sizes)
  variables = model.init(jax.random.key(seed), x)
  rng = np.random.default_rng(seed)
  return jax.tree.map(lambda leaf: rng.normal(size=leaf.shape).astype(np.float32), variables)


@pytest.fixture
def ours():
  return init(Fusion(), 0, {"pose": 3, "video": 6})


def test_a_pattern_matches_whole_paths():
  assert parameters.select(TREE, ["head/.*"]) == {"head": {"kernel": 3, "bias": 4}}
  assert parameters.select(TREE, [".*/kernel", "header/.*"]) == {
    "stem": {"kernel": 1},
    "head": {"kernel": 3},
    "header": {"bias": 5},
  }
  assert parameters.select(TREE, parameters.ALL) == TREE


@pytest.mark.parametrize("pattern", ["head", "kernel", "/head/.*", "Head/.*"])
def test_a_pattern_that_matches_nothing_is_an_error(pattern):
  with pytest.raises(errors.ConfigError, match=f"got {pattern}, which matches none of 5") as caught:
    parameters.select(TREE, ["stem/.*", pattern])
  assert "such as head/bias" in str(caught.value)


def test_what_is_selected_goes_back_to_its_place():
  changed = jax.tree.map(lambda x: -x, parameters.select(TREE, ["head/bias"]))
  assert parameters.merge(TREE, changed) == TREE | {"head": {"kernel": 3, "bias": -4}}


def test_runs_become_the_parts_of_a_nested_model(ours):
  pose, video = (init(Encoder(), seed, size) for seed, size in ((1, 3), (2, 6)))
  found = ours
  for part, theirs in (("encoders_pose", pose), ("encoders_video", video)):
    found = parameters.take_over(found, theirs, part=part, new=(f"{part}/head/.*",))
  assert jax.tree.structure(found) == jax.tree.structure(ours)
  for kind, name in (("params", "dense"), ("params", "bn"), ("batch_stats", "bn")):
    assert found[kind]["encoders_pose"][name] is not ours[kind]["encoders_pose"][name]
    for part, theirs in (("encoders_pose", pose), ("encoders_video", video)):
      jax.tree.map(np.testing.assert_array_equal, found[kind][part][name], theirs[kind][name])
  jax.tree.map(np.testing.assert_array_equal, found["params"]["head"], ours["params"]["head"])


def test_a_new_part_keeps_its_parameters_and_statistics(ours):
  theirs = init(Fusion(), 1, {"pose": 3, "video": 9})
  found = parameters.take_over(ours, theirs, new=("encoders_video/.*", "head/bias"))
  for kind, tree in found.items():
    for part, leaves in tree.items():
      for path in parameters.paths(leaves):
        *names, name = path.split("/")
        new = part == "encoders_video" or f"{part}/{path}" == "head/bias"
        expected, value = (ours if new else theirs)[kind][part], leaves
        for step in (*names, name):
          expected, value = expected[step], value[step]
        np.testing.assert_array_equal(value, expected)


@pytest.mark.parametrize(
  ("sizes", "options", "message"),
  [
    (4, {"part": "encoders_pose"}, r"dense/kernel: expected \(3, 5\), got \(4, 5\)"),
    (3, {"part": "encoders_pose"}, r"pose/head/bias: expected nothing, got \(4,\)"),
    (3, {}, r"batch_stats/bn/mean: expected nothing, got \(5,\)"),
    (3, {"part": "encoders_poses"}, r"poses/bn/mean: expected nothing, got \(5,\)"),
    (3, {"part": "encoders_pose", "new": ("heads/.*",)}, "got heads/.*, which matches none"),
  ],
)
def test_what_does_not_fit_is_one_line(ours, sizes, options, message):
  options = {"new": ("encoders_pose/head/.*",), **options} if sizes == 4 else options
  with pytest.raises(errors.Error, match=message) as caught:
    parameters.take_over(ours, init(Encoder(), 1, sizes), **options)
  assert str(caught.value).count("\n") == 0


def test_what_theirs_lacks_is_named(ours):
  theirs = init(Encoder(0), 1, 3)
  del theirs["params"]["dense"]["bias"]
  with pytest.raises(errors.CheckpointError, match=r"dense/bias: expected \(5,\), got nothing"):
    parameters.take_over(ours, theirs, part="encoders_pose")


def test_a_model_without_statistics_keeps_none():
  ours = {"params": {"head": {"bias": np.zeros(2)}}, "batch_stats": {}}
  theirs = {"params": {"head": {"bias": np.ones(2)}}, "batch_stats": {}}
  found = parameters.take_over(ours, theirs)
  assert found["batch_stats"] == {}
  np.testing.assert_array_equal(found["params"]["head"]["bias"], 1)
