"""MViTv2 against torchvision's: training step and inference, by the size of the batch.

python -m benchmarks.mvit --out=mvit.json                     # a GPU: bfloat16, 16 x 224 x 224
python -m benchmarks.mvit --only jaxmg --batch_sizes 32    # alone: what does not fit beside others
python -m benchmarks.mvit --only jaxmg "jaxmg, cudnn" "jaxmg, bias" --batch_sizes 8    # our forms
python -m benchmarks.mvit --variant=tiny --frames=4 --size=32 --batch_sizes 1    # a CPU, to try it

The training step is forward, backward and SGD with momentum, with dropout and stochastic depth; in
torchvision's under autocast. Each implementation runs in a process of its own, and all of them in
turn: `ratio` is the time over that of jaxmg in the same round, above 1 where jaxmg is faster; the
median over the rounds. "GB" is the peak of the program: of jaxmg by XLA's account of it, of PyTorch
by its allocator's. On a CPU scratch memory is kept, as in `benchmarks.peers`. What does not fit is
named and left out. Every row is printed and written as it comes. PyTorch is compiled for the first
size alone.

By default our form of pooling and attention is compared with torchvision's network; `--only` names
others of ours (IMPLEMENTATIONS).

The two have the same logits: `tests/pretrained/test_mvit.py`.
"""

import argparse
import concurrent.futures
import contextlib
import functools
import os
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import peers, timing
from jaxmg import models
from jaxmg.training import sharding, step

JOBS = ("train step", "inference")
# Of ours: name -> POOLING, ATTENTION and other options of the model.
FORMS = {
  "jaxmg": ("shifts", "folded", {}),
  "jaxmg, cudnn": ("shifts", "cudnn", {}),
  "jaxmg, bias": ("shifts", "bias", {}),
  "jaxmg, 2d": ("2d", "folded", {}),
  "jaxmg, remat": ("shifts", "folded", {"remat": True}),
}
DEFAULT = ("jaxmg", "torchvision", "torchvision, compiled")
IMPLEMENTATIONS = (*FORMS, *DEFAULT[1:])


def main(argv: list[str] | None = None) -> None:
  parser = timing.parser(__doc__)
  parser.add_argument("--variant", default="mvitv2-s", choices=models.mvit.VARIANTS)
  parser.add_argument("--batch_sizes", type=int, nargs="+", default=[8, 16, 32])
  parser.add_argument("--frames", type=int, default=16)
  parser.add_argument("--size", type=int, default=224)
  parser.add_argument("--classes", type=int, default=400)
  parser.add_argument("--dtype", default="bfloat16", choices=("float32", "bfloat16"))
  parser.add_argument("--rounds", type=int, default=7)
  parser.add_argument("--only", nargs="+", choices=IMPLEMENTATIONS, default=DEFAULT)
  parser.add_argument("--jobs", nargs="+", choices=JOBS, default=JOBS)
  arguments = parser.parse_args(argv)
  os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # the others need memory too
  processes = {}
  with contextlib.ExitStack() as stack:
    begin = time.perf_counter()
    with concurrent.futures.ThreadPoolExecutor() as pool:  # side by side: they compile for long
      started = {name: pool.submit(start, name, arguments) for name in arguments.only}
    for name, future in started.items():
      try:
        processes[name] = future.result()
        stack.callback(processes[name].close)
      except Exception as error:
        print(f"{name}: {_first_line(error)}", flush=True)
    print(f"{', '.join(processes)}: ready after {time.perf_counter() - begin:.0f} s", flush=True)
    if rows := measure(arguments, processes):
      timing.report(arguments, rows)


def start(name: str, arguments: argparse.Namespace) -> timing.Process:
  """A process that holds the calls of an implementation."""
  build = functools.partial(torch_calls, name.endswith("compiled"))
  if name in FORMS:
    build = functools.partial(jaxmg_calls, FORMS[name])
  keep_memory = sharding.platform(peers.one_device()) == "cpu"
  return timing.Process(peers.start, keep_memory, build, arguments)


def measure(arguments, processes) -> list[dict]:
  """The rows of these processes, printed and written as they come."""
  rows = []
  for batch in arguments.batch_sizes:
    for job in arguments.jobs:
      timers, outcomes = {}, {}
      for name, process in processes.items():
        timer = process.timers().get((job, batch))
        if timer is None:
          continue
        try:
          timer()
          timers[name], outcomes[name] = timer, "ran"
        except Exception as error:
          outcomes[name] = _first_line(error)
      seconds = timing.alternate(timers, rounds=arguments.rounds) if timers else {}
      for name in outcomes:
        row = {"job": job, "batch": batch, "implementation": name}
        row |= dict.fromkeys(("ms", "clips per second", "GB", "ratio"))
        if name in seconds:
          median = float(np.median(seconds[name]))
          row |= {"ms": 1e3 * median, "clips per second": batch / median}
          row["GB"] = processes[name].value(("GB", job, batch))
          if "jaxmg" in seconds:
            row["ratio"] = float(np.median(seconds[name] / seconds["jaxmg"]))
        row["outcome"] = outcomes[name]
        rows.append(row)
        cells = (
          f"{value:.4g}" if isinstance(value, float) else str(value) for value in row.values()
        )
        print("  ".join(cells), flush=True)
      timing.write(arguments, rows)
  return rows


def _first_line(error: Exception) -> str:
  return f"{type(error).__name__}: {str(error)[:300].splitlines()[0] if str(error) else ''}"


def example(arguments: argparse.Namespace, batch: int) -> tuple[np.ndarray, np.ndarray]:
  """Random clips float32[B, T, H, W, 3] and labels int32[B]."""
  rng = np.random.default_rng(0)
  x = rng.random((batch, arguments.frames, arguments.size, arguments.size, 3), np.float32)
  return x, rng.integers(arguments.classes, size=batch, dtype=np.int32)


def jaxmg_calls(form: tuple, arguments: argparse.Namespace) -> dict[tuple, Callable]:
  models.mvit.POOLING, models.mvit.ATTENTION, others = form
  dtype = jnp.dtype(arguments.dtype)
  model = models.mvit.MViT(arguments.classes, variant=arguments.variant, dtype=dtype, **others)
  x, _ = example(arguments, 1)
  variables = jax.tree.map(jnp.asarray, sharding.on_host(model.init, jax.random.key(0), x))
  options = sharding.compiler_options(peers.one_device())
  optimizer, train_step = peers.bare_step(model)
  train_step = jax.jit(train_step, donate_argnums=0, compiler_options=options)
  infer = jax.jit(lambda variables, x: model.apply(variables, x)[0], compiler_options=options)

  def make_state():
    params = jax.tree.map(jnp.copy, variables["params"])  # which the first step may overwrite
    zero = jnp.int32(0)
    return step.TrainState(zero, params, {}, optimizer.init(params), zero + 0, {})

  @functools.cache
  def batch_of(size):
    x, label = map(jnp.asarray, example(arguments, size))
    return {"x": x, "label": label, "clip": jnp.arange(size)}

  key, states = jax.random.key(0), {}

  def compiled(job, size):
    batch = batch_of(size)
    if job == "inference":
      return infer.lower(variables, batch["x"]).compile()
    return train_step.lower(jax.eval_shape(make_state), batch, key).compile()

  def run(program, job, size):
    program, batch = program.result(), batch_of(size)
    if job == "inference":
      jax.block_until_ready(program(variables, batch["x"]))
      return
    if size not in states:
      states.clear()  # of the batch before
      states[size] = make_state()
    states[size], _ = jax.block_until_ready(program(states[size], batch, key))

  def gigabytes(program):
    found = program.result().memory_analysis()
    total = found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes
    return (total - found.alias_size_in_bytes) / 1e9

  with concurrent.futures.ThreadPoolExecutor() as pool:
    programs = {
      (job, size): pool.submit(compiled, job, size)
      for size in arguments.batch_sizes
      for job in arguments.jobs
    }
  calls = {}
  for name, program in programs.items():
    calls[name] = functools.partial(run, program, *name)
    calls["GB", *name] = functools.partial(gigabytes, program)
  return calls


def torch_model(variant: str, classes: int, frames: int, size: int, channels: int = 3):
  """torchvision's network of the sizes of a variant of ours."""
  import torch
  from torchvision.models.video import mvit

  ours = models.mvit.MViT(classes, variant=variant)
  blocks, width = [], ours.width
  for stage, depth in enumerate(ours.depths):
    for i in range(depth):
      stride, kv_stride = (2 if stage and i == 0 else 1), max(ours.kv_stride >> stage, 1)
      blocks.append(
        mvit.MSBlockConfig(
          num_heads=2**stage,
          input_channels=width,
          output_channels=ours.width * 2**stage,
          kernel_q=[3, 3, 3],
          kernel_kv=[3, 3, 3],
          stride_q=[1, stride, stride],
          stride_kv=[1, kv_stride, kv_stride],
        )
      )
      width = ours.width * 2**stage
  model = mvit.MViT(
    spatial_size=(size, size),
    temporal_size=frames,
    block_setting=blocks,
    residual_pool=True,
    residual_with_cls_embed=False,
    rel_pos_embed=True,
    proj_after_attn=True,
    dropout=ours.dropout,
    stochastic_depth_prob=ours.stochastic_depth,
    num_classes=classes,
  )
  if channels != 3:
    old = model.conv_proj
    model.conv_proj = torch.nn.Conv3d(
      channels, old.out_channels, old.kernel_size, old.stride, old.padding
    )
  return model


def torch_calls(compiled: bool, arguments: argparse.Namespace) -> dict[tuple, Callable]:
  import torch

  torch.manual_seed(0)
  device = "cuda" if torch.cuda.is_available() else "cpu"
  model = torch_model(arguments.variant, arguments.classes, arguments.frames, arguments.size)
  model = model.to(device)
  optimizer = torch.optim.SGD(model.parameters(), lr=1e-3, momentum=0.9, weight_decay=3e-4)
  network = torch.compile(model) if compiled else model
  bfloat16 = arguments.dtype == "bfloat16"
  autocast = functools.partial(torch.autocast, device, torch.bfloat16, enabled=bfloat16)
  peaks = {}

  @functools.cache
  def batch_of(size):
    x, label = example(arguments, size)
    x = np.ascontiguousarray(np.moveaxis(x, -1, 1))
    return torch.from_numpy(x).to(device), torch.from_numpy(label).long().to(device)

  def infer(x, label):
    with torch.no_grad(), autocast():
      network(x)

  def train(x, label):
    optimizer.zero_grad(set_to_none=True)
    with autocast():
      loss = torch.nn.functional.cross_entropy(network(x), label)
    loss.backward()
    optimizer.step()

  def run(job, size):
    model.train(job == "train step")
    inputs = batch_of(size)
    if device == "cuda" and (job, size) not in peaks:
      optimizer.zero_grad(set_to_none=True)
      torch.cuda.empty_cache()
      torch.cuda.reset_peak_memory_stats()
    (train if job == "train step" else infer)(*inputs)
    if device == "cuda":
      torch.cuda.synchronize()
      peaks[job, size] = torch.cuda.max_memory_allocated() / 1e9

  calls = {}
  sizes = arguments.batch_sizes[:1] if compiled else arguments.batch_sizes
  for name in ((job, size) for size in sizes for job in arguments.jobs):
    calls[name] = functools.partial(run, *name)
    calls["GB", *name] = functools.partial(peaks.get, name)
    if compiled:
      run(*name)
  return calls


if __name__ == "__main__":
  main()
