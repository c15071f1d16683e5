"""One network in two frameworks, timed in turn: what the benchmarks of the models share.

Both have the same weights, and their logits must agree in float32 before anything is timed.
"forward" is that of training (batch statistics); "inference" takes the running ones, folded into
the convolutions where that can be done; "train step" is forward, backward and SGD with momentum.

Each framework runs in a process of its own, and on a CPU twice: with the allocator as it comes, and
with scratch memory that stays (`jaxmg.training.sharding.reuse_memory`, which our commands switch
on, and which others can have too). `ratio` is the time over that of jaxmg as its commands run it,
in the same round, above 1 where jaxmg is faster; the median over the rounds.

Without PyTorch (`pip install '.[peers]'`) jaxmg is timed alone. `--against=CHECKOUT` times the
jaxmg of another checkout in the same rounds.
"""

import argparse
import contextlib
import copy
import functools
import importlib.util
import os
import pathlib
import sys
import tempfile
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen as nn
from jax.sharding import Mesh

from benchmarks import timing
from jaxmg.pretrained import convert
from jaxmg.training import losses, optimizers, sharding, step

JOBS = ("train step", "inference", "forward")


def parser(description: str) -> argparse.ArgumentParser:
  found = timing.parser(f"{description}\n{__doc__}")
  found.add_argument("--classes", type=int, default=60)
  found.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
  found.add_argument("--rounds", type=int, default=7)
  found.add_argument("--against", type=pathlib.Path, help="another checkout, timed in turn as well")
  found.add_argument("--alone", action="store_true", help="without PyTorch, where there is one")
  return found


def compare(arguments: argparse.Namespace, jaxmg: Callable, torch: Callable) -> None:
  """Times both and reports.

  `jaxmg(arguments, folder)` and `torch(arguments, folder)`, functions of a module, return calls by
  (job, implementation), as `calls` below; the second leaves its weights in the folder first.
  """
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leave the peer some GPU memory
  builders = [torch] if importlib.util.find_spec("torch") and not arguments.alone else []
  builders.append(jaxmg)  # after the peer, whose weights it takes
  memories = (
    ("kept", "as it comes") if sharding.platform(one_device()) == "cpu" else ("on the device",)
  )
  timers = {}  # (job, implementation, memory) -> timer
  rows = []
  with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as processes:
    for build in builders:
      for memory in memories:
        process = timing.Process(start, memory == "kept", build, arguments, pathlib.Path(folder))
        processes.callback(process.close)
        timers |= {(*name, memory): timer for name, timer in process.timers().items()}
    if arguments.against:
      with code_of(arguments.against):
        kept = memories[0] == "kept"
        process = timing.Process(start, kept, jaxmg, arguments, pathlib.Path(folder))
      processes.callback(process.close)
      for (job, name), timer in process.timers().items():
        timers[job, f"{name} in {arguments.against.name}", memories[0]] = timer
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
      timing.report(arguments, rows)  # of the jobs so far, should there be no time for all


@contextlib.contextmanager
def code_of(checkout: pathlib.Path) -> Iterator[None]:
  """Processes that are started here import another checkout's `jaxmg` and `benchmarks`."""
  if not (checkout / "benchmarks" / "peers.py").is_file():
    raise FileNotFoundError(f"--against={checkout}: no checkout with these benchmarks")
  sys.path.insert(0, str(checkout.resolve()))
  try:
    yield
  finally:
    sys.path.pop(0)


def one_device() -> Mesh:
  """What everything is timed on."""
  return sharding.data_mesh(jax.devices()[:1])


def start(keep_memory: bool, build: Callable, *arguments) -> dict:
  """What a process begins with."""
  if keep_memory:
    sharding.reuse_memory()
  return build(*arguments)


def variables_of(
  folder: pathlib.Path, model: nn.Module, x: np.ndarray, table: ModuleType
) -> dict[str, dict]:
  """The peer's weights as our variables; raises AssertionError if the logits then differ.

  Our own initial ones where the peer has left none.
  """
  if not (folder / "weights.npz").exists():
    return sharding.on_host(model.init, jax.random.key(0), _first(x))
  with np.load(folder / "weights.npz") as weights, np.load(folder / "logits.npz") as logits:
    return same_weights(dict(weights), logits["logits"], model, _first(x), table)


def _first(x):
  return jax.tree.map(lambda x: x[:1], x)


def same_weights(weights, logits, model, x, table):
  abstract = jax.eval_shape(model.init, jax.random.key(0), x)
  variables = convert.convert(weights, abstract, table.RULES, ignore=table.IGNORE)
  with jax.default_matmul_precision("highest"):
    ours, _ = jax.jit(model.clone(dtype=jnp.float32).apply)(variables, x)
  np.testing.assert_allclose(ours, logits, rtol=0, atol=1e-4 * np.abs(logits).max())
  return jax.tree.map(jnp.asarray, variables)


def bare_step(model: nn.Module) -> tuple[optax.GradientTransformation, Callable]:
  """An optimizer and its training step on `batch["x"]` as it is: no augmentation, no rendering."""
  optimizer = optimizers.optimizer("sgd", lambda count: 1e-3, weight_decay=3e-4)
  return optimizer, step.make_train_step(
    model, lambda keys, batch: (batch["x"], batch), losses.classification(), optimizer
  )


def calls(
  model: nn.Module,
  variables: dict,
  x: Any,
  label: np.ndarray,
  *,
  fold: Callable | None = None,
  name: str = "jaxmg",
) -> dict[tuple[str, str], Callable]:
  """(job, implementation) -> a call that returns when its work is done."""
  options = sharding.compiler_options(one_device())
  optimizer, train_step = bare_step(model)
  train_step = jax.jit(train_step, donate_argnums=0, compiler_options=options)
  key = jax.random.key(0)
  state = step.TrainState(
    step=jnp.int32(0),
    skipped=jnp.int32(0),
    ema={},
    opt_state=optimizer.init(variables["params"]),
    **jax.tree.map(jnp.array, variables),  # copies, which the first step may overwrite
  )
  x = jax.tree.map(jnp.asarray, x)
  batch = {"x": x, "label": jnp.asarray(label), "clip": jnp.arange(len(label))}

  def train():
    nonlocal state
    state, _ = jax.block_until_ready(train_step(state, batch, key))

  @jax.jit(compiler_options=options)
  def forward(variables, x):
    (logits, _), _ = model.apply(
      variables, x, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
    )
    return logits

  @jax.jit(compiler_options=options)
  def infer(variables, x):
    return model.apply(variables, x)[0]

  ready = variables if fold is None else fold(variables)
  return {
    ("forward", name): lambda: jax.block_until_ready(forward(variables, x)),
    ("inference", name): lambda: jax.block_until_ready(infer(ready, x)),
    ("train step", name): train,
  }


def torch_calls(
  model,
  fold: Callable,
  x: np.ndarray,
  label: np.ndarray,
  *,
  folder: pathlib.Path,
  dtype: str,
  channels_last: str,
) -> dict[tuple[str, str], Callable]:
  """The same of a PyTorch network: eager in both memory layouts, and compiled in the second.

  Leaves its weights and the logits of the first clip in `folder`. `fold(model)` is a copy for
  inference. `channels_last` is the name of a memory format. On a GPU if PyTorch sees one.
  """
  import torch

  with torch.no_grad():
    logits = model.eval()(torch.from_numpy(x[:1].copy())).numpy()
  np.savez(folder / "logits.npz", logits=logits)
  weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
  np.savez(folder / "weights.npz", **weights)

  device = "cuda" if torch.cuda.is_available() else "cpu"
  wait = torch.cuda.synchronize if device == "cuda" else lambda: None
  autocast = functools.partial(torch.autocast, device, torch.bfloat16, enabled=dtype == "bfloat16")
  label = torch.from_numpy(label).long().to(device)
  found = {}

  def add(name, layout, compiled):
    inputs = torch.from_numpy(x).to(device)
    trained = copy.deepcopy(model).train().to(device, memory_format=layout)
    folded = fold(model).to(device, memory_format=layout)
    if hasattr(model, "layout"):  # it orders the axes itself
      trained.layout = folded.layout = layout
    else:
      inputs = inputs.contiguous(memory_format=layout)
    optimizer = torch.optim.SGD(trained.parameters(), lr=1e-3, momentum=0.9, weight_decay=3e-4)
    train, infer = compiled(trained), compiled(folded)

    def forward(network):
      with torch.no_grad(), autocast():
        network(inputs)
      wait()

    def train_step():
      optimizer.zero_grad(set_to_none=True)
      with autocast():
        loss = torch.nn.functional.cross_entropy(train(inputs), label)
      loss.backward()
      optimizer.step()
      wait()

    found["forward", name] = lambda: forward(train)
    found["inference", name] = lambda: forward(infer)
    found["train step", name] = train_step

  layout = getattr(torch, channels_last)
  add("torch", torch.contiguous_format, lambda network: network)
  add(f"torch {channels_last}", layout, lambda network: network)
  add(f"torch.compile {channels_last}", layout, torch.compile)
  return found
