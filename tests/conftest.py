import os
import pathlib

import jax

# Read when the backend starts, which importing jax does not do.
os.environ["XLA_FLAGS"] = (
  os.environ.get("XLA_FLAGS", "") + " --xla_force_host_platform_device_count=8"
)
jax.config.update("jax_default_matmul_precision", "highest")
if not os.environ.get("JAX_COMPILATION_CACHE_DIR"):
  cache = pathlib.Path(__file__).parents[1] / ".pytest_cache" / "jax"
  jax.config.update("jax_compilation_cache_dir", str(cache))
