"""PoseC3D against an equal PyTorch network, in one run: forward, inference and training step.

  python -m benchmarks.posec3d --out=posec3d.json                        # a CPU
  python -m benchmarks.posec3d --dtype=bfloat16 --batch_size=32          # a GPU

Both have the same weights, and their logits must agree in float32 before anything is timed.
"forward" is that of training (batch statistics); "inference" has its norms folded into the
convolutions, in both; "train step" is forward, backward and SGD with momentum. Each framework runs
in a process of its own, and on a CPU twice: with the allocator as it comes, and with scratch memory
that stays (`jaxmg.training.sharding.reuse_memory`, which our commands switch on, and which others
can have too). `ratio` is the time over that of jaxmg as its commands run it, in the same round,
above 1 where jaxmg is faster; the median over the rounds.

Without PyTorch (`pip install '.[peers]'`) jaxmg is timed alone.
"""

import argparse
import contextlib
import importlib.util
import os
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from jaxmg import models
from jaxmg.pretrained import convert
from jaxmg.pretrained import posec3d as table
from jaxmg.training import losses, optimizers, sharding, step

JOBS = ("forward", "inference", "train step")


def main(argv: list[str] | None = None) -> None:
  parser = timing.parser(__doc__)
  parser.add_argument("--variant", default="slowonly-r50", choices=models.posec3d.VARIANTS)
  parser.add_argument("--batch_size", type=int, default=2)
  parser.add_argument("--frames", type=int, default=48)
  parser.add_argument("--size", type=int, default=56)
  parser.add_argument("--joints", type=int, default=17)
  parser.add_argument("--classes", type=int, default=60)
  parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
  parser.add_argument("--rounds", type=int, default=7)
  arguments = parser.parse_args(argv)
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave the peer some GPU memory

  builders = {"torch": torch_calls} if importlib.util.find_spec("torch") else {}
  builders["jaxmg"] = jaxmg_calls  # after the peer, whose weights it takes
  memories = ("kept", "as it comes") if jax.default_backend() == "cpu" else ("on the device",)
  timers = {}  # (job, implementation, memory) -> timer
  with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as processes:
    for build in builders.values():
      for memory in memories:
        process = timing.Process(build, arguments, pathlib.Path(folder), memory == "kept")
        processes.callback(process.close)
        timers |= {(*name, memory): timer for name, timer in process.timers().items()}
    rows = []
    for job in JOBS:
      of_job = {name: timer for name, timer in timers.items() if name[0] == job}
      seconds = timing.alternate(of_job, rounds=arguments.rounds)
      reference = seconds[job, "jaxmg", memories[0]]
      for (_, implementation, memory), times in sorted(seconds.items()):
        rows.append(
          {
            "job": job,
            "implementation": implementation,
            "memory": memory,
            "ms": 1e3 * float(np.median(times)),
            "ms per clip": 1e3 * float(np.median(times)) / arguments.batch_size,
            "ratio": float(np.median(times / reference)),
          }
        )
  timing.report(arguments, rows)


def example(arguments: argparse.Namespace) -> tuple[np.ndarray, np.ndarray]:
  """Random heatmaps float32[B, T, H, W, V] and labels int32[B]."""
  rng = np.random.default_rng(0)
  side = arguments.size
  shape = (arguments.batch_size, arguments.frames, side, side, arguments.joints)
  label = rng.integers(arguments.classes, size=arguments.batch_size, dtype=np.int32)
  return rng.random(shape, np.float32), label


def torch_calls(arguments: argparse.Namespace, folder: pathlib.Path, keep_memory: bool) -> dict:
  """(job, implementation) -> call; leaves the weights and the logits of one clip in `folder`."""
  if keep_memory:
    sharding.reuse_memory()
  import torch

  from benchmarks import torch_posec3d

  x, label = example(arguments)
  x = np.moveaxis(x, -1, 1)
  variant = models.posec3d.VARIANTS[arguments.variant]
  peer = torch_posec3d.make(arguments.joints, arguments.classes, **variant).eval()
  with torch.no_grad():
    logits = peer(torch.from_numpy(x[:1].copy())).numpy()
  weights = {name: tensor.numpy() for name, tensor in peer.state_dict().items()}
  np.savez(folder / "weights.npz", **weights)
  np.save(folder / "logits.npy", logits)
  return torch_posec3d.calls(peer, x, label, dtype=arguments.dtype)


def jaxmg_calls(arguments: argparse.Namespace, folder: pathlib.Path, keep_memory: bool) -> dict:
  """(job, implementation) -> call."""
  if keep_memory:
    sharding.reuse_memory()
  x, label = example(arguments)
  variant = models.posec3d.VARIANTS[arguments.variant]
  model = models.posec3d.PoseC3D(arguments.classes, **variant, dtype=jnp.dtype(arguments.dtype))
  if (folder / "weights.npz").exists():
    weights, logits = np.load(folder / "weights.npz"), np.load(folder / "logits.npy")
    variables = same_weights(dict(weights), logits, model, x[:1])
  else:
    variables = jax.jit(model.init)(jax.random.key(0), x[:1])
  return calls(model, variables, x, label)


def calls(model, variables, x, label):
  """(job, implementation) -> a call that returns when its work is done."""
  optimizer = optimizers.optimizer("sgd", lambda count: 1e-3, weight_decay=3e-4)
  train_step = step.make_train_step(
    model, lambda keys, batch: batch["heatmaps"], losses.classification(), optimizer
  )
  train_step = jax.jit(train_step, donate_argnums=0, compiler_options=sharding.compiler_options())
  key = jax.random.key(0)
  state = step.TrainState(
    step=jnp.int32(0),
    skipped=jnp.int32(0),
    opt_state=optimizer.init(variables["params"]),
    **jax.tree.map(jnp.array, variables),  # copies, which the first step may overwrite
  )
  x = jnp.asarray(x)
  batch = {"heatmaps": x, "label": jnp.asarray(label), "clip": jnp.arange(len(x))}

  def train():
    nonlocal state
    state, _ = jax.block_until_ready(train_step(state, batch, key))

  @jax.jit(compiler_options=sharding.compiler_options())
  def forward(variables, x):
    return model.apply(variables, x, train=True, rngs={"dropout": key}, mutable=["batch_stats"])[0][
      0
    ]

  @jax.jit(compiler_options=sharding.compiler_options())
  def infer(variables, x):
    return model.apply(variables, x)[0]

  folded = models.posec3d.fold_batch_norm(variables)
  return {
    ("forward", "jaxmg"): lambda: forward(variables, x).block_until_ready(),
    ("inference", "jaxmg"): lambda: infer(folded, x).block_until_ready(),
    ("train step", "jaxmg"): train,
  }


def same_weights(weights, logits, model, x):
  """The peer's weights as our variables; raises AssertionError if the logits then differ."""
  abstract = jax.eval_shape(model.init, jax.random.key(0), x)
  variables = convert.convert(weights, abstract, table.RULES, ignore=table.IGNORE)
  with jax.default_matmul_precision("highest"):
    ours, _ = jax.jit(model.clone(dtype=jnp.float32).apply)(variables, x)
  np.testing.assert_allclose(ours, logits, rtol=0, atol=1e-4 * np.abs(logits).max())
  return jax.tree.map(jnp.asarray, variables)


if __name__ == "__main__":
  main()
