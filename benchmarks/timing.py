"""What the benchmarks share: calls in alternation, and a table with its circumstances as JSON."""

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

PACKAGES = ("jaxmg", "jax", "jaxlib", "flax", "numpy", "grain", "tensorflow-datasets", "torch")
SETTINGS = ("XLA_FLAGS", "GLIBC_TUNABLES", "OMP_NUM_THREADS", "LD_PRELOAD")


def alternate(calls: Mapping[str, Callable[[], Any]], *, rounds: int) -> dict[str, np.ndarray]:
  """The seconds of each call in each round; a call returns when its work is done.

  Machines drift by more than implementations differ: calls are compared within a round, in which
  each is made once. Before the first round each is made twice, to compile and to warm up.
  """
  for call in [*calls.values()] * 2:
    call()
  seconds = {name: np.empty(rounds) for name in calls}
  for i in range(rounds):
    for name, call in calls.items():
      start = time.perf_counter()
      call()
      seconds[name][i] = time.perf_counter() - start
  return seconds


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
  circumstances = {
    "arguments": {k: v for k, v in vars(arguments).items() if k != "out"},
    "versions": {"python": platform.python_version(), **_versions()},
    "hardware": _hardware(),
    "settings": {name: os.environ[name] for name in SETTINGS if name in os.environ},
  }
  print(json.dumps(circumstances))
  cells = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
  widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
  for line in cells:
    print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
  if arguments.out:
    arguments.out.write_text(json.dumps(circumstances | {"results": rows}, indent=2) + "\n")


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
