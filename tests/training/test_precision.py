"""Which numbers to compute in, by what a processor has."""

import jax
import numpy as np
import pytest

from jaxmg import errors
from jaxmg.training import precision


@pytest.mark.parametrize(
  ("expected", "platform", "options"),
  [
    ("bfloat16", "tpu", {}),
    ("bfloat16", "gpu", {}),
    ("bfloat16", "gpu", {"capability": "8.0"}),
    ("bfloat16", "gpu", {"capability": "10.0"}),
    ("bfloat16", "rocm", {"capability": "gfx90a"}),
    ("float32", "gpu", {"capability": "7.5"}),
    ("bfloat16", "cpu", {"flags": {"sse2", "avx512_bf16"}, "jax_version": (0, 12, 0)}),
    ("bfloat16", "cpu", {"flags": {"amx_bf16"}, "jax_version": (1, 0)}),
    ("float32", "cpu", {"flags": {"sse2", "avx2"}, "jax_version": (0, 12, 0)}),
    ("float32", "cpu", {"flags": {"amx_bf16", "avx512_bf16"}, "jax_version": (0, 11, 2)}),
    ("float32", "cpu", {}),
    ("float32", "metal", {}),
  ],
)
def test_bfloat16_is_chosen_where_it_is_fast(expected, platform, options):
  assert precision.fastest(platform, **options) == expected


def test_flags_are_read_from_what_linux_says(tmp_path, monkeypatch):
  path = tmp_path / "cpuinfo"
  path.write_text("processor\t: 0\nflags\t\t: fpu amx_bf16\nbugs\t\t: none\n")
  monkeypatch.setattr(precision, "_CPUINFO", path)
  assert precision._flags() >= {"fpu", "amx_bf16"}
  path.unlink()
  assert precision._flags() == set()


def test_names_are_kept_and_auto_is_one_of_them():
  device = jax.devices()[0]
  assert precision.resolve("bfloat16", device) == "bfloat16"
  assert precision.resolve("auto", device) in ("float32", "bfloat16")
  with pytest.raises(
    errors.ConfigError, match=r"^dtype: expected .*, got bfloat \(did you mean bf"
  ):
    precision.resolve("bfloat", device)


@pytest.mark.parametrize("name", [None, 16, np.dtype("float32"), np.float32])
def test_other_names_of_a_dtype_are_one_line(name):
  wrong = getattr(precision.resolve, "__wrapped__", precision.resolve)
  with pytest.raises(errors.ConfigError, match="dtype: expected float32 or bfloat16 or auto, got"):
    wrong(name, jax.devices()[0])
