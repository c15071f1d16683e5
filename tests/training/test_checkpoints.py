import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmg import errors
from jaxmg.training import checkpoints, optimizers, sharding
from jaxmg.training import step as steps


@pytest.fixture
def state(toy):
  optimizer = optimizers.optimizer("adamw", lambda count: 0.1, weight_decay=0.1, decay="kernels")
  state = steps.init_train_state(toy.model, optimizer, toy.key, toy.example)
  noise = np.random.default_rng(0)
  return jax.tree.map(lambda x: x + jnp.asarray(noise.integers(1, 9, x.shape), x.dtype), state)


def shapes(state):
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)


def assert_same_bits(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)


def test_what_is_restored_is_what_was_saved(tmp_path, state):
  iterator_state = {"next_index": 12345678901234}
  with checkpoints.Checkpoints(tmp_path) as saved:
    assert saved.latest_step() is None
    saved.save(3, state, iterator_state, 0.5)
  with checkpoints.Checkpoints(tmp_path) as again:
    assert again.latest_step() == again.best_step() == 3
    restored, restored_iterator = again.restore(shapes(state))
  assert_same_bits(restored, state)
  assert restored_iterator == iterator_state


def test_checkpoint_moves_from_eight_devices_to_one(tmp_path, state):
  eight, one = sharding.data_mesh(), sharding.data_mesh(jax.devices()[:1])
  with checkpoints.Checkpoints(tmp_path) as saved:
    saved.save(1, sharding.replicate(eight, state), {})
    restored, _ = saved.restore(sharding.replicate(one, state))
  assert_same_bits(restored, state)
  assert all(leaf.sharding.device_set == {jax.devices()[0]} for leaf in jax.tree.leaves(restored))


def test_state_may_be_donated_while_it_is_being_saved(tmp_path):
  change = jax.jit(lambda state: {"params": state["params"] + 1}, donate_argnums=0)
  state = {"params": jnp.zeros(4_000_000)}
  with checkpoints.Checkpoints(tmp_path) as saved:
    saved.save(1, state, {})
    for _ in range(3):
      state = change(state)
    saved.wait()
    restored, _ = saved.restore(state)
  assert not np.asarray(restored["params"]).any()


def test_newest_and_best_are_kept(tmp_path):
  state = {"params": jnp.zeros(2), "batch_stats": {}}
  scores = {1: None, 2: 0.5, 3: 0.9, 4: 0.7, 5: 0.9, 6: 0.1, 7: None}
  best = {1: 1, 2: 2, 3: 3, 4: 3, 5: 5, 6: 5, 7: 5}
  with checkpoints.Checkpoints(tmp_path) as saved:
    for step, score in scores.items():
      saved.save(step, state, {}, score)
      assert (saved.latest_step(), saved.best_step()) == (step, best[step])
  assert sorted(path.name for path in tmp_path.iterdir()) == ["5", "7"]


def test_score_that_is_not_finite_is_refused(tmp_path):
  with checkpoints.Checkpoints(tmp_path) as saved, pytest.raises(ValueError, match="finite"):
    saved.save(1, {"params": jnp.zeros(2)}, {}, float("nan"))


def test_step_that_is_not_newer_is_refused(tmp_path):
  state = {"params": jnp.zeros(2)}
  with checkpoints.Checkpoints(tmp_path) as saved:
    saved.save(2, state, {})
    with pytest.raises(errors.CheckpointError, match="expected a step after 2, got 1"):
      saved.save(1, state, {})


def test_one_error_lists_all_differences(tmp_path, state):
  wanted = shapes(state)
  params = dict(wanted.params)
  params["head"] = {"kernel": jax.ShapeDtypeStruct((8, 5), jnp.float32)}
  params["hidden"] = params["hidden"] | {"bias": jax.ShapeDtypeStruct((8,), jnp.bfloat16)}
  params["neck"] = {"scale": jax.ShapeDtypeStruct((8,), jnp.float32)}
  with checkpoints.Checkpoints(tmp_path) as saved:
    saved.save(1, state, {})
    with pytest.raises(errors.CheckpointError) as caught:
      saved.restore(wanted.replace(params=params))
  assert str(caught.value).split("\n  ") == [
    f"{tmp_path}/1: the checkpoint does not fit this model and optimizer:",
    "params/head/bias: expected nothing, got float32[3]",
    "params/head/kernel: expected float32[8, 5], got float32[8, 3]",
    "params/hidden/bias: expected bfloat16[8], got float32[8]",
    "params/neck/scale: expected float32[8], got nothing",
  ]


def test_step_that_is_not_there_names_those_that_are(tmp_path):
  with checkpoints.Checkpoints(tmp_path) as saved:
    with pytest.raises(errors.CheckpointError, match="expected step latest, got no checkpoint"):
      saved.restore({})
    saved.save(4, {"params": jnp.zeros(2)}, {})
    with pytest.raises(errors.CheckpointError, match=r"expected step 3, got \[4\]"):
      saved.restore({}, 3)


def test_broken_files_are_one_line(tmp_path):
  state = {"params": jnp.zeros(2)}
  with checkpoints.Checkpoints(tmp_path) as saved:
    saved.save(1, state, {})
    saved.wait()
    (tmp_path / "1" / "state" / "manifest.ocdbt").write_bytes(b"")
    with pytest.raises(errors.CheckpointError) as caught:
      saved.restore(state)
  assert str(caught.value).startswith(f"{tmp_path}/1: ")
  assert "\n" not in str(caught.value)


def test_what_a_killed_save_left_is_removed(tmp_path):
  (tmp_path / "7.orbax-checkpoint-tmp").mkdir()
  with checkpoints.Checkpoints(tmp_path) as saved:
    assert saved.latest_step() is None
    saved.save(1, {"params": jnp.zeros(2)}, {})
  assert [path.name for path in tmp_path.iterdir()] == ["1"]


def test_variables_are_read_without_the_optimizer(tmp_path, state):
  better = state.replace(params=jax.tree.map(lambda x: x + 1, state.params))
  with checkpoints.Checkpoints(tmp_path) as saved:
    saved.save(1, better, {}, 0.9)
    saved.save(2, state, {}, 0.1)
  for step, expected in {"best": better, 1: better, "latest": state, 2: state}.items():
    found = checkpoints.restore_variables(tmp_path, step)
    assert_same_bits(found, {"batch_stats": expected.batch_stats, "params": expected.params})
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(found))


def test_variables_of_no_checkpoint_make_no_directory(tmp_path):
  with pytest.raises(errors.CheckpointError, match="expected step best, got no checkpoint"):
    checkpoints.restore_variables(tmp_path / "run")
  assert not (tmp_path / "run").exists()
