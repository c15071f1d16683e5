"""The numbers that a network computes in: float32, or bfloat16 where a processor is made for it."""

import pathlib
from collections.abc import Collection

import jax

from jaxmg import errors

CHOICES = ("float32", "bfloat16", "auto")
_CPUINFO = pathlib.Path("/proc/cpuinfo")
_CPU_FLAGS = {"avx512_bf16", "amx_bf16"}
_CPU_JAX = (0, 12)  # earlier ones compute bfloat16 on CPUs by way of float32


def resolve(name: str, device: jax.Device) -> str:
  """The name of a dtype; of "auto", of that in which the device is faster: "float32", "bfloat16".

  Raises ConfigError for any other name.
  """
  if not isinstance(name, str) or name not in CHOICES:
    raise errors.ConfigError(errors.unknown("dtype", CHOICES, name))
  if name != "auto":
    return name
  capability = str(getattr(device, "compute_capability", ""))
  return fastest(device.platform, capability=capability, flags=_flags())


def fastest(
  platform: str,
  *,
  capability: str = "",
  flags: Collection[str] = (),
  jax_version: tuple[int, ...] = jax.__version_info__,
) -> str:
  """The dtype for a platform, of a CPU with these flags and of a GPU with this capability.

  NVIDIA's GPUs have bfloat16 from 8.0 on; "gfx90a" and such are AMD's, which have it.
  """
  if platform == "cpu":
    fast = jax_version >= _CPU_JAX and not _CPU_FLAGS.isdisjoint(flags)
  elif platform == "tpu":
    fast = True
  else:
    major = capability.partition(".")[0]
    fast = platform in ("gpu", "cuda", "rocm") and not (major.isdecimal() and int(major) < 8)
  return "bfloat16" if fast else "float32"


def _flags() -> set[str]:
  """What this CPU has, by the names of Linux; nothing elsewhere."""
  try:
    lines = _CPUINFO.read_text().splitlines()
  except OSError:
    return set()
  return {flag for line in lines if line.startswith("flags") for flag in line.split()}
