"""The seconds until a network's first step runs, with an empty compilation cache and a full one.

  python -m benchmarks.compile --out=compile.json

Each figure is a process of its own: "trace" is Python and JAX down to StableHLO, "compile" XLA, or
reading its work of last time. Importing and reading data come on top.
"""

import tempfile
import time

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import peers, timing
from jaxmg import models
from jaxmg.training import sharding, step


def main(argv: list[str] | None = None) -> None:
  parser = timing.parser(__doc__)
  parser.add_argument("--variant", default="slowonly-r50", choices=models.posec3d.VARIANTS)
  parser.add_argument("--batch_size", type=int, default=2)
  parser.add_argument("--frames", type=int, default=48)
  parser.add_argument("--size", type=int, default=56)
  parser.add_argument("--joints", type=int, default=17)
  parser.add_argument("--rounds", type=int, default=3)
  arguments = parser.parse_args(argv)

  found = {}
  for _ in range(arguments.rounds):
    with tempfile.TemporaryDirectory() as cache:
      for state in ("empty", "full"):
        for job, times in timing.in_new_process(measure, cache, vars(arguments)).items():
          found.setdefault((job, state), []).append(times)
  rows = []
  for (job, state), times in sorted(found.items()):
    trace, compile = np.median(times, axis=0).tolist()
    rows.append({"job": job, "cache": state, "trace s": trace, "compile s": compile})
  timing.report(arguments, rows)


def measure(cache: str, arguments: dict) -> dict[str, tuple[float, float]]:
  """Job -> seconds of tracing and of compiling, by shapes alone."""
  jax.config.update("jax_compilation_cache_dir", cache)
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
  batch_size, size = arguments["batch_size"], arguments["size"]
  model = models.posec3d.PoseC3D(60, variant=arguments["variant"])
  optimizer, train_step = peers.bare_step(model)
  heatmaps = jax.ShapeDtypeStruct(
    (batch_size, arguments["frames"], size, size, arguments["joints"]), jnp.float32
  )
  key = jax.random.key(0)
  state = jax.eval_shape(
    lambda: step.init_train_state(model, optimizer, key, jnp.zeros(heatmaps.shape))
  )
  integers = jax.ShapeDtypeStruct((batch_size,), jnp.int32)
  batch = {"x": heatmaps, "label": integers, "clip": integers}
  variables = {"params": state.params, "batch_stats": state.batch_stats}
  options = sharding.compiler_options(sharding.data_mesh(jax.devices()[:1]))
  times = {}
  for job, function, inputs in (
    ("inference", model.apply, (variables, heatmaps)),
    ("train step", train_step, (state, batch, key)),
  ):
    start = time.perf_counter()
    lowered = jax.jit(function, compiler_options=options).lower(*inputs)
    traced = time.perf_counter()
    lowered.compile()
    times[job] = (traced - start, time.perf_counter() - traced)
  return times


if __name__ == "__main__":
  main()
