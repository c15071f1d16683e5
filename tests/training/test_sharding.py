import resource
import subprocess
import sys

import jax
import numpy as np
import pytest
from jax.sharding import PartitionSpec

from jaxmg import errors
from jaxmg.training import sharding


def test_rows_are_split_over_the_devices_in_order():
  mesh = sharding.data_mesh()
  batch = sharding.shard_batch(mesh, {"clip": np.arange(16), "mask": np.ones(16, bool)})
  assert batch["clip"].sharding.spec == PartitionSpec("data")
  shards = sorted(batch["clip"].addressable_shards, key=lambda shard: shard.device.id)
  assert [shard.data.tolist() for shard in shards] == [[i, i + 1] for i in range(0, 16, 2)]


def test_replicated_values_are_whole_on_every_device():
  mesh = sharding.data_mesh(jax.devices()[:4])
  tree = sharding.replicate(mesh, {"a": np.arange(3), "key": jax.random.key(0)})
  assert [shard.data.tolist() for shard in tree["a"].addressable_shards] == [[0, 1, 2]] * 4


@pytest.mark.parametrize(
  ("batch_size", "hint"),
  [(12, "8 or 16"), (3, "nearest: 8"), (0, "nearest: 8"), (-8, "nearest: 8")],
)
def test_batch_size_that_does_not_divide_names_the_nearest(batch_size, hint):
  message = f"train.batch_size: expected a multiple of 8 devices, got {batch_size} .*{hint}"
  with pytest.raises(errors.ConfigError, match=message):
    sharding.check_batch_size(sharding.data_mesh(), batch_size, where="train.batch_size")


def test_batch_size_that_divides_is_taken():
  sharding.check_batch_size(sharding.data_mesh(), 24)


def test_compiler_options_are_known_to_this_compiler():
  options = sharding.compiler_options()
  assert bool(options) == (jax.default_backend() == "cpu")
  assert jax.jit(lambda x: x + 1, compiler_options=options)(1) == 2


def test_option_that_this_compiler_lacks_is_left_out(monkeypatch):
  monkeypatch.setattr(sharding, "_CPU_OPTIONS", {"xla_cpu_no_such_option": "1"})
  assert sharding.compiler_options.__wrapped__() == {}


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc's malloc")
def test_memory_is_mapped_a_few_times_and_then_reused():
  code = """
import resource
from jaxmg.training import sharding
sharding.reuse_memory()
import jax, jax.numpy as jnp
ones = jax.jit(lambda: jnp.ones(2**24))
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(64):
  ones().block_until_ready()  # the one before is freed by another thread, at times later than this
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
  run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
  pages = 2**24 * 4 // resource.getpagesize()
  assert int(run.stdout) < 64 * pages / 2  # without reuse, all of them
