"""2s-AGCN against an equal PyTorch network, in one run: forward, inference and training step.

  python -m benchmarks.agcn --out=agcn.json
  python -m benchmarks.agcn --frames=300 --skeleton=kinect25 --persons=2 --batch_size=4

Both have the same weights, and their logits must agree in float32 before anything is timed.
"forward" is that of training (batch statistics); "inference" takes the running ones; "train step"
is forward, backward and SGD with momentum. `ratio` is the time over that of jaxmg in the same
round, above 1 where jaxmg is faster; the median over the rounds.

Without PyTorch (`pip install '.[peers]'`) jaxmg is timed alone.
"""

import importlib.util
import os

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import timing
from jaxmg import models, skeletons
from jaxmg.pretrained import agcn as table
from jaxmg.pretrained import convert
from jaxmg.training import losses, optimizers, sharding, step


def main(argv: list[str] | None = None) -> None:
  parser = timing.parser(__doc__)
  parser.add_argument("--variant", default="agcn", choices=models.agcn.VARIANTS)
  parser.add_argument("--batch_size", type=int, default=8)
  parser.add_argument("--frames", type=int, default=64)
  parser.add_argument("--skeleton", default="imigue22", choices=skeletons.SKELETONS)
  parser.add_argument("--persons", type=int, default=1)
  parser.add_argument("--classes", type=int, default=60)
  parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
  parser.add_argument("--rounds", type=int, default=9)
  arguments = parser.parse_args(argv)
  sharding.reuse_memory()  # of which the peer has as much
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave the peer some GPU memory

  rng = np.random.default_rng(0)
  parents = skeletons.get(arguments.skeleton).parents
  shape = (arguments.batch_size, arguments.frames, arguments.persons, len(parents), 3)
  x = rng.normal(size=shape).astype(np.float32)
  label = rng.integers(arguments.classes, size=arguments.batch_size, dtype=np.int32)
  variant = models.agcn.VARIANTS[arguments.variant]
  model = models.agcn.AGCN(arguments.classes, parents, **variant, dtype=jnp.dtype(arguments.dtype))
  if importlib.util.find_spec("torch"):
    from benchmarks import torch_agcn

    edges = models.agcn.adjacency(parents)
    peer = torch_agcn.make(edges, arguments.persons, arguments.classes, **variant)
    variables = same_weights(peer, model, x)
    peers = torch_agcn.calls(peer, as_theirs(x), label, dtype=arguments.dtype)
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
  optimizer = optimizers.optimizer("sgd", lambda count: 1e-3, weight_decay=1e-4)
  train_step = step.make_train_step(
    model, lambda keys, batch: batch["x"], losses.classification(), optimizer
  )
  options = sharding.compiler_options()
  train_step = jax.jit(train_step, donate_argnums=0, compiler_options=options)
  key = jax.random.key(0)
  state = step.TrainState(
    step=jnp.int32(0),
    skipped=jnp.int32(0),
    opt_state=optimizer.init(variables["params"]),
    **jax.tree.map(jnp.array, variables),  # copies, which the first step may overwrite
  )
  x = jnp.asarray(x)
  batch = {"x": x, "label": jnp.asarray(label), "clip": jnp.arange(len(x))}

  def train():
    nonlocal state
    state, _ = jax.block_until_ready(train_step(state, batch, key))

  @jax.jit(compiler_options=options)
  def forward(variables, x):
    return model.apply(variables, x, train=True, mutable=["batch_stats"])[0][0]

  @jax.jit(compiler_options=options)
  def infer(variables, x):
    return model.apply(variables, x)[0]

  return {
    "forward": {"jaxmg": lambda: forward(variables, x).block_until_ready()},
    "inference": {"jaxmg": lambda: infer(variables, x).block_until_ready()},
    "train step": {"jaxmg": train},
  }


def as_theirs(x):
  """B T M V C -> B C T V M."""
  return np.ascontiguousarray(x.transpose(0, 4, 1, 3, 2))


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
    theirs = peer.eval()(torch.from_numpy(as_theirs(x))).numpy()
  np.testing.assert_allclose(ours, theirs, rtol=0, atol=1e-4 * np.abs(theirs).max())
  return jax.tree.map(jnp.asarray, variables)


if __name__ == "__main__":
  main()
