"""PoseC3D against an equal PyTorch network, in one run: forward, inference and training step.

  python -m benchmarks.posec3d --out=posec3d.json                        # a CPU
  python -m benchmarks.posec3d --dtype=bfloat16 --batch_size=32          # a GPU

Both have the same weights, and their logits must agree in float32 before anything is timed.
"forward" is that of training (batch statistics); "inference" has its norms folded into the
convolutions, in both; "train step" is forward, backward and SGD with momentum. `ratio` is the time
over that of jaxmg in the same round, above 1 where jaxmg is faster; the median over the rounds.

Without PyTorch (`pip install '.[peers]'`) jaxmg is timed alone.
"""

import importlib.util
import os

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from jaxmg import models
from jaxmg.pretrained import convert
from jaxmg.pretrained import posec3d as table
from jaxmg.training import losses, optimizers, sharding, step


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
  sharding.reuse_memory()  # of which the peer has as much
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave the peer some GPU memory

  rng = np.random.default_rng(0)
  shape = (arguments.batch_size, arguments.frames, arguments.size, arguments.size, arguments.joints)
  x = rng.random(shape, np.float32)
  label = rng.integers(arguments.classes, size=arguments.batch_size, dtype=np.int32)
  variant = models.posec3d.VARIANTS[arguments.variant]
  model = models.posec3d.PoseC3D(arguments.classes, **variant, dtype=jnp.dtype(arguments.dtype))
  if importlib.util.find_spec("torch"):
    from benchmarks import torch_posec3d

    peer = torch_posec3d.make(arguments.joints, arguments.classes, **variant)
    variables = same_weights(peer, model, x)
    peers = torch_posec3d.calls(peer, np.moveaxis(x, -1, 1), label, dtype=arguments.dtype)
  else:
    variables = jax.jit(model.init)(jax.random.key(0), x[:1])
    peers = {}

  rows = []
  for job, ours in calls(model, variables, x, label).items():
    seconds = timing.alternate(ours | peers.get(job, {}), rounds=arguments.rounds)
    for name, times in seconds.items():
      rows.append(
        {
          "job": job,
          "implementation": name,
          "ms": 1e3 * float(np.median(times)),
          "ms per clip": 1e3 * float(np.median(times)) / len(x),
          "ratio": float(np.median(times / seconds["jaxmg"])),
        }
      )
  timing.report(arguments, rows)


def calls(model, variables, x, label):
  """Job -> implementation -> a call that returns when its work is done."""
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
    "forward": {"jaxmg": lambda: forward(variables, x).block_until_ready()},
    "inference": {
      "jaxmg": lambda: infer(folded, x).block_until_ready(),
      "jaxmg, norms not folded": lambda: infer(variables, x).block_until_ready(),
    },
    "train step": {"jaxmg": train},
  }


def same_weights(peer, model, x):
  """The peer's weights as our variables; raises AssertionError if the logits then differ."""
  import torch

  x = x[:1]
  state_dict = {name: tensor.numpy() for name, tensor in peer.state_dict().items()}
  abstract = jax.eval_shape(model.init, jax.random.key(0), x)
  variables = convert.convert(state_dict, abstract, table.RULES, ignore=table.IGNORE)
  with jax.default_matmul_precision("highest"):
    ours, _ = jax.jit(model.clone(dtype=jnp.float32).apply)(variables, x)
  with torch.no_grad():
    theirs = peer.eval()(torch.from_numpy(np.moveaxis(x, -1, 1).copy())).numpy()
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())
  return jax.tree.map(jnp.asarray, variables)


if __name__ == "__main__":
  main()
