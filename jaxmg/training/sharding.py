"""Data parallelism: one mesh axis, "data", over all devices of all processes."""

import ctypes
import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxmg import errors

# By default XLA gives convolutions with small kernels to YNNPACK, which runs them on one thread.
# This leaves it the products and the sums, and sends all convolutions to Eigen, on all threads.
_CPU_OPTIONS = {
  "xla_cpu_experimental_ynn_fusion_type": (
    "LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT,LIBRARY_FUSION_TYPE_REDUCE"
  )
}


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Returns the mesh over `devices` (all, if None)."""
  devices = jax.devices() if devices is None else devices
  # Explicit axes, the default, make Flax's dropout raise.
  return jax.make_mesh((len(devices),), ("data",), axis_types=(AxisType.Auto,), devices=devices)


def replicated(mesh: Mesh) -> NamedSharding:
  """Returns the sharding of what every device holds whole."""
  return NamedSharding(mesh, PartitionSpec())


def by_row(mesh: Mesh) -> NamedSharding:
  """Returns the sharding that splits the first axis."""
  return NamedSharding(mesh, PartitionSpec("data"))


def replicate(mesh: Mesh, tree: Any) -> Any:
  """Puts equal values of all processes on every device, perhaps sharing memory with `tree`."""
  # device_put refuses arrays of one process for a mesh over several; jit takes them as equal.
  return jax.jit(_same, out_shardings=replicated(mesh))(tree)


def shard_batch(mesh: Mesh, batch: Any) -> Any:
  """Splits a batch over the devices; each process gives its own rows, in the order of processes."""
  sharding = by_row(mesh)
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def check_batch_size(mesh: Mesh, batch_size: int, *, where: str = "batch size") -> None:
  """Raises ConfigError unless the global `batch_size` can be split over the devices of `mesh`."""
  below = batch_size // mesh.size * mesh.size
  if batch_size < 1 or below != batch_size:
    nearest = f"{below} or {below + mesh.size}" if below > 0 else f"{mesh.size}"
    expected = f"a multiple of {mesh.size} devices"
    raise errors.ConfigError(where, expected=expected, got=batch_size, hint=f"nearest: {nearest}")


def jit_once(function: Callable) -> Callable:
  """Jits what runs once, such as an initialisation: not worth the compiler's time on a CPU."""
  options = {"xla_backend_optimization_level": 0} if jax.default_backend() == "cpu" else {}
  return jax.jit(function, compiler_options=options)


@functools.cache
def compiler_options() -> dict[str, str]:
  """Returns the options for `jax.jit` that make our models faster, where this XLA has them."""
  if jax.default_backend() != "cpu":
    return {}
  try:
    jax.jit(lambda: 0, compiler_options=_CPU_OPTIONS).lower().compile()
  except (jax.errors.JaxRuntimeError, ValueError):  # the option is experimental: it may go
    return {}
  return _CPU_OPTIONS


def reuse_memory() -> None:
  """Makes the C library keep what is freed, where it can; to be called before JAX starts.

  On a CPU every call of a jitted function takes its scratch memory anew, in training more than a
  gigabyte. glibc would map it from the system and give it back each time, and clearing and mapping
  its pages is up to a third of a step.
  """
  libc = ctypes.CDLL(None) if sys.platform == "linux" else None
  for option, value in (
    (-8, 1),  # M_ARENA_MAX: the arenas of threads cannot hold large blocks
    (-4, 0),  # M_MMAP_MAX
    (-1, -1),  # M_TRIM_THRESHOLD: never
  ):
    if hasattr(libc, "mallopt"):
      libc.mallopt(option, value)


def _same(tree: Any) -> Any:
  return tree
