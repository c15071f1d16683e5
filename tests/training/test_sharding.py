import pathlib
import platform
import re
import resource
import subprocess
import sys
import time

import jax
import numpy as np
import pytest
from jax.sharding import Mesh, PartitionSpec

from jaxmg import errors
from jaxmg.training import sharding

pytestmark = pytest.mark.usefixtures("all_devices")


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


def test_compiler_options_are_those_of_the_mesh_and_known_to_this_compiler():
  mesh = sharding.data_mesh(jax.devices("cpu")[:1])
  options = sharding.compiler_options(mesh)
  assert options.keys() == sharding._OPTIONS["cpu"].keys()
  assert jax.jit(lambda x: x + 1, compiler_options=options)(1) == 2


def test_option_that_this_compiler_lacks_is_left_out(monkeypatch):
  known = sharding._OPTIONS["cpu"]
  monkeypatch.setitem(sharding._OPTIONS, "cpu", known | {"xla_cpu_no_such_option": "1"})
  mesh = sharding.data_mesh(jax.devices("cpu")[:1])
  assert sharding.compiler_options.__wrapped__(mesh) == sharding.compiler_options(mesh)


@pytest.mark.parametrize("there", [False, True])
def test_products_are_onednns_where_this_compiler_has_it(monkeypatch, there):
  mesh = sharding.data_mesh(jax.devices("cpu")[:1])
  assert sharding._has_onednn(mesh, sharding.compiler_options(mesh)) == (
    jax.__version_info__ >= (0, 12) and platform.machine() == "x86_64"
  )
  monkeypatch.setattr(sharding, "_has_onednn", lambda mesh, options: there)
  options = sharding.compiler_options.__wrapped__(mesh)
  assert ("DOT" in options["xla_cpu_experimental_ynn_fusion_type"]) != there


def test_a_mesh_of_gpus_gets_the_options_of_gpus(monkeypatch):
  class GPU:
    platform = "gpu"

  monkeypatch.setattr(sharding, "_has_option", lambda mesh, name, value: True)
  gpus = Mesh(np.array([GPU(), GPU()]), ("data",))
  found = sharding.compiler_options.__wrapped__(gpus)
  assert list(found) == ["xla_gpu_enable_triton_gemm"]


def test_what_is_called_on_the_host_is_compiled_for_its_cpu_alone():
  def draw(key):
    places.append(jax.config.jax_default_device)
    return {"normal": jax.random.normal(key, (3,))}

  places, key = [], jax.random.key(0)
  with jax.default_device(jax.devices()[3]):
    found = sharding.on_host(draw, key)
  assert places == [jax.local_devices(backend="cpu")[0]]
  assert isinstance(found["normal"], np.ndarray)
  np.testing.assert_array_equal(found["normal"], draw(key)["normal"])


def test_host_without_a_cpu_backend_says_how_to_have_one(monkeypatch):
  def local_devices(backend):
    raise RuntimeError(f"Unknown backend {backend}")

  monkeypatch.setattr(jax, "local_devices", local_devices)
  with pytest.raises(errors.ConfigError, match=r"JAX_PLATFORMS.*,cpu"):
    sharding.on_host(lambda: 0)


@pytest.mark.parametrize(("seconds", "said"), [(0.0, False), (0.3, True)])
def test_compiling_for_long_is_said(seconds, said, capsys):
  mesh = sharding.data_mesh(jax.devices()[:2])
  with sharding.compiling("the training step", mesh, patience=0.1):
    time.sleep(seconds)
  time.sleep(0.2)
  lines = (
    r"compiling the training step for 2 x cpu: once, for seconds to minutes \.\.\.\n"
    r"compiled the training step in 0\.\d s\n"
  )
  out, err = capsys.readouterr()
  assert out == ""
  assert re.fullmatch(lines if said else "", err)


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc's malloc")
def test_memory_is_mapped_a_few_times_and_then_reused():
  code = """
import resource
from jaxmg.training import sharding
sharding.reuse_memory()
import jax, jax.numpy as jnp
wide = jax.jit(lambda x: jnp.tile(x @ x, (1, 32)) + 1)  # 128 MB; JAX runs no product at once
x = jnp.ones((1024, 1024))
wide(x).block_until_ready()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(8):
  wide(x).block_until_ready()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
with open("/proc/self/smaps") as maps:
  print(sum("VmFlags" in line and " hg" in line for line in maps))
"""
  run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
  pages = 2**27 // resource.getpagesize()
  mapped, huge = map(int, run.stdout.split())
  assert mapped < pages  # without reuse, 8 times as many
  assert huge or not pathlib.Path("/sys/kernel/mm/transparent_hugepage").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="needs glibc's malloc")
def test_no_huge_pages_are_asked_for_where_the_address_space_has_a_limit():
  code = """
import resource
resource.setrlimit(resource.RLIMIT_AS, (1 << 40, 1 << 40))
from jaxmg.training import sharding
sharding.reuse_memory()
with open("/proc/self/smaps") as maps:
  print(any("VmFlags" in line and " hg" in line for line in maps))
"""
  run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
  assert run.stdout.strip() == "False"
