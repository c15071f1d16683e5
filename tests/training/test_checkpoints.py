import json
import pathlib
import shutil

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


def names(directory):
  return sorted(path.name for path in directory.iterdir())


def assert_same_bits(a, b):
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype
    np.testing.assert_array_equal(x, y)


def test_what_is_restored_is_what_was_saved(tmp_path, state):
  iterator_state = {"next_index": 12345678901234}
  with checkpoints.Checkpoints(tmp_path) as saved:
    assert saved.latest_step() is None
    saved.save(3, state, iterator_state)
  with checkpoints.Checkpoints(tmp_path) as again:
    assert again.latest_step() == again.best_step() == 3
    restored, restored_iterator = again.restore(shapes(state))
  assert_same_bits(restored, state)
  assert restored_iterator == iterator_state


@pytest.mark.usefixtures("all_devices")
def test_a_save_on_eight_devices_compiles_nothing(tmp_path, state):
  state = sharding.replicate(sharding.data_mesh(), state)
  compiled = []

  def listen(event, seconds, **options):
    if "compile" in event:
      compiled.append(event)

  jax.monitoring.register_event_duration_secs_listener(listen)
  try:
    with checkpoints.Checkpoints(tmp_path) as saved:
      saved.save(1, state, {})
    found = list(compiled)
    jax.jit(lambda x: x + 41.5)(1.0)  # and this is heard
  finally:
    jax.monitoring.unregister_event_duration_listener(listen)
  assert not found
  assert compiled


@pytest.mark.parametrize(("before", "after"), [(8, 1), (1, 8)])
def test_checkpoint_moves_between_one_device_and_eight(tmp_path, state, before, after):
  before, after = (sharding.data_mesh(jax.devices()[:n]) for n in (before, after))
  with checkpoints.Checkpoints(tmp_path) as saved:
    saved.save(1, sharding.replicate(before, state), {})
    restored, _ = saved.restore(sharding.replicate(after, state))
  assert_same_bits(restored, state)
  devices = set(after.devices.flat)
  assert all(leaf.sharding.device_set == devices for leaf in jax.tree.leaves(restored))


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
      saved.save(step, state, {})
      if score is not None:
        saved.set_score(step, score)
      assert (saved.latest_step(), saved.best_step()) == (step, best[step])
      assert saved.score(step) == score
  assert names(tmp_path) == ["5", "6", "7"]


def test_score_that_is_not_finite_is_refused(tmp_path):
  with checkpoints.Checkpoints(tmp_path) as saved:
    saved.save(1, {"params": jnp.zeros(2)}, {})
    with pytest.raises(ValueError, match="finite"):
      saved.set_score(1, float("nan"))
    assert saved.score(1) is None


def test_state_that_is_not_finite_is_refused_and_the_last_one_kept(tmp_path):
  state = {"params": {"a": jnp.zeros(2), "b": jnp.zeros((2, 3), jnp.bfloat16)}}
  with checkpoints.Checkpoints(tmp_path) as saved:
    saved.save(1, state, {})
    for bad in (jnp.nan, jnp.inf):
      state["params"]["b"] = state["params"]["b"].at[1, 2].set(bad)
      with pytest.raises(errors.DivergedError, match=r"step 2: params/b: .*is that of step 1"):
        saved.save(2, state, {})
  assert names(tmp_path) == ["1"]


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
  with checkpoints.Checkpoints(tmp_path, fingerprint={"batch_size": 16, "seed": 0}) as saved:
    saved.save(1, state, {})
  fingerprint = {"batch_size": 32, "seed": 0, "sampling": "uniform"}
  with (
    checkpoints.Checkpoints(tmp_path, fingerprint=fingerprint) as saved,
    pytest.raises(errors.CheckpointError) as caught,
  ):
    saved.restore(wanted.replace(params=params))
  assert str(caught.value).split("\n  ") == [
    f"{tmp_path}/1: the checkpoint does not fit this model, optimizer and data:",
    "params/head/bias: expected nothing, got float32[3]",
    "params/head/kernel: expected float32[8, 5], got float32[8, 3]",
    "params/hidden/bias: expected bfloat16[8], got float32[8]",
    "params/neck/scale: expected float32[8], got nothing",
    "batch_size: expected 32, got 16",
    "sampling: expected uniform, got nothing",
  ]


def test_iterator_of_other_data_is_refused(tmp_path):
  state = {"params": jnp.zeros(2)}
  with checkpoints.Checkpoints(tmp_path, fingerprint={"data": "a0", "rows": 18}) as saved:
    saved.save(1, state, {})
    saved.restore(state)
  with (
    checkpoints.Checkpoints(tmp_path, fingerprint={"data": "b1", "rows": 18}) as other,
    pytest.raises(errors.DataError, match=r"data: expected b1, got a0$"),
  ):
    other.restore(state)


def test_step_that_is_not_there_names_those_that_are(tmp_path):
  with checkpoints.Checkpoints(tmp_path) as saved:
    with pytest.raises(errors.CheckpointError, match="expected step latest, got no checkpoint"):
      saved.restore({})
    saved.save(4, {"params": jnp.zeros(2)}, {})
    with pytest.raises(errors.CheckpointError, match=r"expected step 3, got \[4\]"):
      saved.restore({}, 3)


def test_200_flipped_bits_are_refused_and_the_step_before_is_offered(tmp_path, state):
  with checkpoints.Checkpoints(tmp_path) as saved:
    for step in (4, 8):
      saved.save(step, state, {"next_index": step})
  files = sorted(path for path in (tmp_path / "8").rglob("*") if path.is_file())
  rng = np.random.default_rng(0)
  flips = [*files, *rng.choice(files, 200 - len(files))]  # each file at least once
  with checkpoints.Checkpoints(tmp_path) as saved:
    for file in flips:
      content = file.read_bytes()
      flipped = bytearray(content)
      flipped[rng.integers(len(content))] ^= 1 << rng.integers(8)
      file.write_bytes(flipped)
      with pytest.raises(errors.CheckpointError) as caught:
        saved.restore(state)
      assert str(file.relative_to(tmp_path / "8")) in str(caught.value)
      assert str(tmp_path / "8") in str(caught.value)
      assert "(step 4 is whole: " in str(caught.value)
      with pytest.raises(errors.CheckpointError, match="step 4 is whole"):
        checkpoints.restore_variables(tmp_path)
      file.write_bytes(content)
    assert_same_bits(saved.restore(state)[0], state)


def test_files_that_are_missing_added_or_cut_off_are_refused(tmp_path):
  state = {"params": jnp.zeros(2), "batch_stats": {}}
  with checkpoints.Checkpoints(tmp_path) as saved:
    saved.save(1, state, {})
    saved.wait()
    (tmp_path / "1" / "_METADATA").unlink()
    (tmp_path / "1" / "d" / "more").touch()
    (tmp_path / "1" / "manifest.ocdbt").write_bytes(b"")
    with pytest.raises(errors.CheckpointError) as caught:
      saved.restore(state)
    assert str(caught.value) == (
      f"{tmp_path}/1: expected the files that were saved, "
      "got _METADATA missing, d/more added, manifest.ocdbt changed"
    )
    (tmp_path / "1" / "MANIFEST").unlink()
    with pytest.raises(errors.CheckpointError, match=r"1/MANIFEST: .*No such file") as caught:
      saved.restore(state)
    assert "\n" not in str(caught.value)


def test_run_goes_on_from_the_step_before_when_the_damaged_one_is_removed(tmp_path):
  with checkpoints.Checkpoints(tmp_path) as saved:
    for step in (4, 8):
      saved.save(step, {"params": jnp.full(2, step)}, {"next_index": step})
  shutil.rmtree(tmp_path / "8")
  with checkpoints.Checkpoints(tmp_path) as saved:
    state, iterator_state = saved.restore({"params": jnp.zeros(2, int)})
    assert (state["params"].tolist(), iterator_state) == ([4, 4], {"next_index": 4})
    saved.save(8, state, {})


def test_what_a_kill_left_behind_is_no_step_and_is_removed(tmp_path):
  for name in ("7.orbax-checkpoint-tmp", "7.tmp.orbax-checkpoint-tmp", "8.tmp"):
    (tmp_path / name / "d").mkdir(parents=True)
  (tmp_path / "9.tmp").touch()
  with pytest.raises(errors.CheckpointError, match="no checkpoint"):
    checkpoints.restore_variables(tmp_path)
  with checkpoints.Checkpoints(tmp_path) as saved:
    assert saved.latest_step() is None
    saved.save(1, {"params": jnp.zeros(2)}, {})
  assert names(tmp_path) == ["1"]


@pytest.mark.parametrize("name", ["abc", "-1", "1e3", "007", "٣"])
def test_directory_that_is_no_step_is_ignored(tmp_path, name):
  (tmp_path / name).mkdir()
  with checkpoints.Checkpoints(tmp_path) as saved:
    assert saved.latest_step() is None


def test_foreign_checkpoint_is_refused_and_stays(tmp_path):
  (tmp_path / "3" / "default").mkdir(parents=True)
  (tmp_path / "5").touch()
  with checkpoints.Checkpoints(tmp_path) as saved:
    for step in (3, 5):
      with pytest.raises(errors.CheckpointError, match=f"{step}/MANIFEST"):
        saved.restore({}, step)
  assert names(tmp_path) == ["3", "5"]


def test_save_that_fails_leaves_the_last_checkpoint(tmp_path, monkeypatch):
  def full(path):
    raise OSError(28, "No space left on device")

  state = {"params": jnp.ones(2)}
  with checkpoints.Checkpoints(tmp_path) as saved:
    saved.save(1, state, {})
    saved.wait()
    with monkeypatch.context() as patch:
      patch.setattr(checkpoints, "_digests", full)
      saved.save(2, state, {})
      with pytest.raises(errors.StorageError, match=f"{tmp_path}: .*No space left on device"):
        saved.wait()
    assert saved.latest_step() == 1
    assert_same_bits(saved.restore(state)[0], state)


def test_score_is_changed_in_one_piece(tmp_path, monkeypatch):
  with checkpoints.Checkpoints(tmp_path) as saved:
    saved.save(1, {"params": jnp.ones(2)}, {})
    saved.set_score(1, 0.5)
    monkeypatch.setattr(pathlib.Path, "replace", lambda *_: 1 / 0)
    with pytest.raises(errors.StorageError):
      saved.set_score(1, 0.6)
    assert saved.score(1) == 0.5
  assert json.loads((tmp_path / "1" / "MANIFEST").read_text().splitlines()[0])["score"] == 0.5


def test_variables_are_read_without_the_optimizer(tmp_path, state):
  better = state.replace(params=jax.tree.map(lambda x: x + 1, state.params))
  with checkpoints.Checkpoints(tmp_path) as saved:
    saved.save(1, better, {})
    saved.set_score(1, 0.9)
    saved.save(2, state, {})
    saved.set_score(2, 0.1)
  for step, expected in {"best": better, 1: better, "latest": state, 2: state}.items():
    found = checkpoints.restore_variables(tmp_path, step)
    assert_same_bits(found, {"batch_stats": expected.batch_stats, "params": expected.params})
    assert all(isinstance(leaf, np.ndarray) for leaf in jax.tree.leaves(found))


def test_variables_of_no_checkpoint_make_no_directory(tmp_path):
  with pytest.raises(errors.CheckpointError, match="expected step best, got no checkpoint"):
    checkpoints.restore_variables(tmp_path / "run")
  assert not (tmp_path / "run").exists()


def test_saving_is_due_by_the_clock_since_the_last_save(tmp_path, state, monkeypatch):
  now = [100.0]
  monkeypatch.setattr(checkpoints.time, "monotonic", lambda: now[0])
  with checkpoints.Checkpoints(tmp_path) as saved:
    assert saved.due(0.0)
    assert not saved.due(60.0)
    now[0] += 60
    assert saved.due(60.0)
    saved.save(1, state, {})
    assert not saved.due(60.0)


def test_of_several_processes_the_first_says_what_is_due(tmp_path, monkeypatch):
  with checkpoints.Checkpoints(tmp_path) as saved:
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    first = [1, 0]
    monkeypatch.setattr(
      checkpoints.multihost_utils, "broadcast_one_to_all", lambda mine: np.int32(first.pop(0))
    )
    assert saved.due(1e6)
    assert not saved.due(0.0)
    monkeypatch.undo()
