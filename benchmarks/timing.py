"""What the benchmarks share: calls in turn, and a table with its circumstances as JSON."""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import pathlib
import platform
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from typing import Any

import jax
import numpy as np

PACKAGES = (
  "jaxmg",
  "jax",
  "jaxlib",
  "flax",
  "numpy",
  "grain",
  "tensorflow-datasets",
  "torch",
  "torchvision",
)
SETTINGS = ("XLA_FLAGS", "GLIBC_TUNABLES", "OMP_NUM_THREADS", "LD_PRELOAD")


def alternate(timers: Mapping[str, Callable[[], float]], *, rounds: int) -> dict[str, np.ndarray]:
  """What each timer says in each round: the seconds of a call.

  Machines drift by more than implementations differ: they are compared within a round, in which
  each is called once. Before the first round each is called twice, to compile and to warm up.
  """
  for timer in [*timers.values()] * 2:
    timer()
  rows = [[timer() for timer in timers.values()] for _ in range(rounds)]
  return dict(zip(timers, np.array(rows).T, strict=True))


def timer(call: Callable[[], Any]) -> Callable[[], float]:
  """Returns what makes the call, which returns when its work is done, and says how long it took."""

  def seconds():
    start = time.perf_counter()
    call()
    return time.perf_counter() - start

  return seconds


class Process:
  """A new process that holds the calls of `build(*arguments)`, a dict of them by name.

  Implementations in one process would share its allocator and its thread pools.
  """

  def __init__(self, build: Callable, *arguments: Any):
    spawn = multiprocessing.get_context("spawn")
    self._pool = concurrent.futures.ProcessPoolExecutor(1, spawn)
    self._names = self._pool.submit(_build, build, arguments).result()

  def timers(self) -> dict[str, Callable[[], float]]:
    """`timer` of each call, which runs there."""
    return {name: lambda name=name: self._pool.submit(_time, name).result() for name in self._names}

  def value(self, name: Any) -> Any:
    """What the call returns."""
    return self._pool.submit(_value, name).result()

  def close(self) -> None:
    self._pool.shutdown()


_calls: dict[str, Callable] = {}  # of this process, if it is a `Process`


def _build(build, arguments):
  _calls.update(build(*arguments))
  return list(_calls)


def _time(name):
  return timer(_calls[name])()


def _value(name):
  return _calls[name]()


def in_new_process(function: Callable, *arguments: Any) -> Any:
  """What a function of a module returns where nothing has been imported, compiled or started."""
  spawn = multiprocessing.get_context("spawn")
  with concurrent.futures.ProcessPoolExecutor(1, spawn) as pool:
    return pool.submit(function, *arguments).result()


def parser(description: str) -> argparse.ArgumentParser:
  """An argument parser with the option that `report` needs."""
  found = argparse.ArgumentParser(
    description=description, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  found.add_argument("--out", type=pathlib.Path, help="a JSON file to write")
  return found


def report(arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> None:
  """Prints the rows, all of the same keys, as a table, and writes them to `arguments.out`."""
  print(json.dumps(write(arguments, rows), default=str))
  cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  for line in cells:
    print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def write(arguments: argparse.Namespace, rows: list[dict[str, Any]]) -> dict[str, Any]:
  """Writes the rows that there are to `arguments.out`; returns the circumstances beside them."""
  circumstances = {
    "arguments": {k: v for k, v in vars(arguments).items() if k != "out"},
    "versions": {"python": platform.python_version(), **_versions()},
    "hardware": _hardware(),
    "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
  }
  if arguments.out:
    arguments.out.write_text(
      json.dumps(circumstances | {"results": rows}, indent=2, default=str) + "\n"
    )
  return circumstances


def _cell(value: Any) -> str:
  return f"{value:.4g}" if isinstance(value, float) else str(value)


def _versions() -> dict[str, str]:
  found = {}
  for name in PACKAGES:
    try:
      found[name] = metadata.version(name)
    except metadata.PackageNotFoundError:
      continue
  return found


def _hardware() -> dict[str, Any]:
  cpu = platform.processor() or platform.machine()
  info = pathlib.Path("/proc/cpuinfo")
  if info.exists():
    lines = (line.partition(":") for line in info.read_text().splitlines())
    cpu = next((value.strip() for key, _, value in lines if key.strip() == "model name"), cpu)
  return {
    "cpu": cpu,
    "cores": os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count(),
    "load": os.getloadavg()[0],  # 1 minute, with our own in it
    "devices": [device.device_kind for device in jax.devices()],
  }
