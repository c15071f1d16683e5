"""Data parallelism: one mesh axis, "data", over all devices of all processes."""

import contextlib
import ctypes
import functools
import mmap
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from jaxmg import errors, progress

_OPTIONS = {  # for XLA, by platform
  "cpu": {
    # Convolutions and products go to oneDNN, from JAX 0.12 on, with the bias and the ReLU of
    # inference in the same call (docs/results.md has what it brings).
    "xla_cpu_experimental_onednn_custom_call": True,
    # By default XLA gives YNNPACK convolutions with small kernels, which it runs on one thread, and
    # products, which then have no ReLU. This leaves it the sums, and convolutions to Eigen if
    # there is no oneDNN.
    "xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_REDUCE",
  },
  # Fusing what makes the operand of a product into it can abort the process while it compiles, as
  # with every other pixel or frame. Without, our steps are faster, and compile sooner.
  "gpu": {"xla_gpu_enable_triton_gemm": False},
}


def data_mesh(devices: Sequence[jax.Device] | None = None) -> Mesh:
  """Returns the mesh over `devices` (all, if None)."""
  devices = jax.devices() if devices is None else devices
  if not isinstance(devices, Sequence | np.ndarray):
    hint = f"jax.devices()[:{devices}]" if isinstance(devices, int) else None
    raise errors.ConfigError("devices", expected="several of JAX", got=repr(devices), hint=hint)
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
  if not isinstance(mesh, Mesh):
    expected = "a mesh, and then the batch: shard_batch(data_mesh(), batch)"
    raise errors.ConfigError("mesh", expected=expected, got=type(mesh).__name__)
  sharding, count = by_row(mesh), mesh.local_mesh.size
  for path, leaf in jax.tree_util.tree_leaves_with_path(batch):
    shape = np.shape(leaf)
    if not shape or shape[0] % count:
      where = f"batch: {jax.tree_util.keystr(path, simple=True, separator='/')}"
      expected = f"rows, a multiple of {count} devices"
      raise errors.ConfigError(where, expected=expected, got=shape[0] if shape else "a number")
  return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, x), batch)


def check_batch_size(mesh: Mesh, batch_size: int, *, where: str = "batch size") -> None:
  """Raises ConfigError unless the global `batch_size` can be split over the devices of `mesh`."""
  below = batch_size // mesh.size * mesh.size
  if batch_size < 1 or below != batch_size:
    nearest = f"{below} or {below + mesh.size}" if below > 0 else f"{mesh.size}"
    expected = f"a multiple of {mesh.size} devices"
    raise errors.ConfigError(where, expected=expected, got=batch_size, hint=f"nearest: {nearest}")


def on_host(function: Callable, *arguments: Any) -> Any:
  """Calls what runs once, such as an initialisation, on a CPU; returns its arrays as NumPy's.

  Never on the mesh: a random generator for each parameter makes a program that compiles for long
  there (2s-AGCN: 43 s on an H200), and other numbers on every platform. On the CPU it is not
  optimised either.

  Raises:
    ConfigError: JAX was started without its CPU backend.
  """
  try:
    cpu = jax.local_devices(backend="cpu")[0]
  except RuntimeError as error:
    asked = jax.config.jax_platforms
    expected = f"a CPU beside the devices (JAX_PLATFORMS={asked},cpu)"
    raise errors.ConfigError("JAX_PLATFORMS", expected=expected, got=asked) from error
  options = {"xla_backend_optimization_level": 0}
  with jax.default_device(cpu):
    return jax.device_get(jax.jit(function, compiler_options=options)(*arguments))


@contextlib.contextmanager
def compiling(what: str, mesh: Mesh, *, patience: float = 2.0) -> Iterator[None]:
  """Says on the first process's stderr what is waited for, if it takes longer than `patience` s.

  And then, for how long.
  """
  kind = f"{mesh.size} x {mesh.devices.flat[0].device_kind}"
  text = f"compiling {what} for {kind}: once, for seconds to minutes ..."
  timer = threading.Timer(patience, progress.say, [text])
  first, start = jax.process_index() == 0, time.perf_counter()
  if first:
    timer.start()
  try:
    yield
    seconds = time.perf_counter() - start
    if first and seconds > patience:
      progress.say(f"compiled {what} in {seconds:.1f} s")
  finally:
    timer.cancel()


def platform(mesh: Mesh) -> str:
  """Returns what the devices of a mesh are: "cpu", "gpu" or "tpu"."""
  return mesh.devices.flat[0].platform


@functools.cache
def compiler_options(mesh: Mesh) -> dict[str, Any]:
  """Returns the options for `jax.jit` that our models need, or run faster with, on these devices.

  Without those that this XLA does not have: they are experimental, and may go.
  """
  found = {
    name: value
    for name, value in _OPTIONS.get(platform(mesh), {}).items()
    if _has_option(mesh, name, value)
  }
  name = "xla_cpu_experimental_ynn_fusion_type"
  if name in found and not _has_onednn(mesh, found):
    found[name] += ",LIBRARY_FUSION_TYPE_INDIVIDUAL_DOT"  # faster at products than Eigen
  return found


def _has_option(mesh, name, value):
  constant = jax.jit(lambda: 0, out_shardings=replicated(mesh), compiler_options={name: value})
  try:
    constant.lower().compile()
  except (jax.errors.JaxRuntimeError, ValueError) as error:
    if name in str(error):
      return False
    raise
  return True


def _has_onednn(mesh, options):
  """Whether this jaxlib gives products to oneDNN: earlier ones know the option, and ignore it."""
  x = jax.ShapeDtypeStruct((256, 256), jnp.float32, sharding=replicated(mesh))
  product = jax.jit(jnp.dot, compiler_options=options).lower(x, x).compile()
  return "__onednn$matmul" in product.as_text()


def reuse_memory() -> None:
  """Makes the C library keep what is freed, in huge pages, where it can; before JAX starts.

  On a CPU every call of a jitted function takes its scratch memory anew, in training more than a
  gigabyte. glibc would map it from the system and give it back each time, and clearing and mapping
  its pages is up to a third of a step.

  It keeps large blocks for a process's first thread alone (of other threads, 64 MB and less), so
  that JAX is told to run a CPU's programs on the thread that calls them, and not behind it.
  """
  libc = ctypes.CDLL(None) if sys.platform == "linux" else None
  if not hasattr(libc, "mallopt"):
    return
  jax.config.update("jax_cpu_enable_async_dispatch", False)
  libc.mallopt(-4, 0)  # M_MMAP_MAX
  libc.mallopt(-1, -1)  # M_TRIM_THRESHOLD: never
  _use_huge_pages(libc)


def _use_huge_pages(libc) -> None:
  """Asks for huge pages in what the heap may grow to, of which it takes nothing yet."""
  import resource  # not on Windows

  if resource.getrlimit(resource.RLIMIT_AS)[0] != resource.RLIM_INFINITY:
    return  # of which what is asked for would be a part
  libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, (ctypes.c_size_t,)
  libc.free.argtypes = (ctypes.c_void_p,)
  libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
  size = min(16 << 30, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2)
  if start := libc.malloc(size):
    page = 2 << 20
    first = -(-start // page) * page
    libc.madvise(first, (start + size - first) // page * page, mmap.MADV_HUGEPAGE)
    libc.free(start)


def _same(tree: Any) -> Any:
  return tree
