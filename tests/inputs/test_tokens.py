"""Which views of tokens are shown, and which tokens are refused."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmg import errors, fields, inputs
from jaxmg.data import tracks

KIND = tracks.Tokens(num_tokens=3, width=2, encoder="abc", test_views=4)
ONE = inputs.INPUTS["tokens"]("tokens-joint", 3, 2, "abc")


def record(kind=KIND, count=10):
  """Of a clip whose k-th view is all k."""
  tokens = np.broadcast_to(np.arange(count, dtype=np.float32)[:, None, None], (count, 3, 2))
  return kind.read(kind.records((tokens, np.array([-1, 0.25, 0.75]))))


def test_any_view_is_drawn_in_training_and_the_same_of_every_network():
  other = record(dataclasses.replace(KIND, encoder="def"))
  drawn = []
  for row in range(200):
    view = ONE.read(record(), np.random.default_rng((0, row)))
    again = ONE.read(other, np.random.default_rng((0, row)))
    np.testing.assert_array_equal(view["tokens"], again["tokens"])
    assert (view["tokens"] == view["tokens"][0, 0]).all()
    drawn.append(int(view["tokens"][0, 0]))
  assert set(drawn) == set(range(10))


@pytest.mark.parametrize(
  ("test_views", "num_clips", "expected"),
  [
    (4, 4, [0, 1, 2, 3]),
    (4, 1, [2]),
    (4, 2, [1, 3]),
    (4, 8, [0, 0, 1, 1, 2, 2, 3, 3]),
    (None, 5, [1, 3, 5, 7, 9]),
  ],
)
def test_test_views_are_evenly_spread(test_views, num_clips, expected):
  kind = dataclasses.replace(KIND, test_views=test_views)
  part = ONE.read_test(record(kind), num_clips)
  assert part["tokens"][:, 0, 0].tolist() == expected
  assert part["tokens"].dtype == np.float16
  for name, like in ONE.example(num_clips).items():
    assert (part[name].shape, part[name].dtype) == (like.shape[1:], like.dtype)
  views = ONE.views({name: jnp.asarray(x)[None] for name, x in part.items()}, False)
  assert views["tokens"][:, 0, 0, 0].tolist() == expected
  view = ONE.view(jax.tree.map(lambda x: x[0], views), jnp.array([[1.0, 0.0, 2.0]]))
  assert view["tokens"].dtype == jnp.float32
  np.testing.assert_array_equal(view["tokens"][0, :, 0], expected[0] * np.array([1, 0, 2]))
  np.testing.assert_array_equal(view["times"], [[-1, 0.25, 0.75]])


def test_windows_are_spread_over_all_views_and_the_same_of_every_network():
  several = dataclasses.replace(ONE, windows=5)
  other = record(dataclasses.replace(KIND, encoder="def"))
  drawn = set()
  for row in range(50):
    part = several.read(record(), np.random.default_rng((0, row)))
    again = several.read(other, np.random.default_rng((0, row)))
    np.testing.assert_array_equal(part["tokens"], again["tokens"])
    chosen = part["tokens"][:, 0, 0]
    assert (chosen // 2 == np.arange(5)).all()  # of ten views, one of each two
    drawn |= {*chosen.tolist()}
    for name, like in several.example().items():
      assert (part[name].shape, part[name].dtype) == (like.shape[1:], like.dtype)
  assert drawn == set(range(10))
  assert several.example(4)["tokens"].shape == (1, 4, 3, 2)


def test_tokens_are_not_mirrored():
  part = {name: jnp.zeros(x.shape, x.dtype) for name, x in ONE.example().items()}
  keys = jax.random.split(jax.random.key(0), 1)
  assert ONE.train(keys, part, False)["tokens"].shape == (1, 3, 2)
  for mirror in (True, jnp.array([False])):
    with pytest.raises(ValueError, match="mirror: expected false, as tokens-joint has no mirror"):
      ONE.train(keys, part, mirror)


@pytest.mark.parametrize(
  ("change", "message"),
  [
    ({"encoder": "abd"}, "^tokens-joint: encoder: expected abc, got abd$"),
    ({"num_tokens": 4}, "^tokens-joint: num_tokens: expected 3, got 4$"),
    ({"width": 1}, "^tokens-joint: width: expected 2, got 1$"),
  ],
)
def test_other_tokens_are_refused(change, message):
  ONE.check(KIND.about)
  ONE.check(record())
  with pytest.raises(ValueError, match=message):
    ONE.check(dataclasses.replace(KIND, **change).about)


@pytest.mark.parametrize(
  ("tokens", "message"),
  [
    (np.zeros((4, 2, 2)), r"^tokens: expected \[3, 2\] a view, got \[2, 2\]$"),
    (np.zeros((3, 3, 2)), "^views: expected at least 4, got 3$"),
    (np.full((4, 3, 2), 7e4), "^tokens: expected finite numbers up to 65504"),
    (np.full((4, 3, 2), np.nan), "^tokens: expected finite numbers up to 65504"),
  ],
)
def test_tokens_that_cannot_be_written_are_named(tokens, message):
  with pytest.raises(ValueError, match=message):
    KIND.records((tokens, np.zeros(3)))


def test_a_track_is_declared_in_json():
  assert fields.make(tracks.Tokens, fields.to_json(KIND)) == KIND
  with pytest.raises(errors.ConfigError, match="width: expected 1 to 65536, got 0"):
    dataclasses.replace(KIND, width=0)
