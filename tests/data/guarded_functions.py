"""What test_guarded.py runs in the guarded process: this file may import nothing of jaxmg."""

import ctypes
import os
import pathlib
import warnings

import numpy as np


def pid():
  return {"pid": np.array(os.getpid())}


def add(path, number):
  return {"sum": np.array([len(path) + number, 0.5]), "none": np.zeros((0, 3), np.int16)}


def kinds():
  return {name: np.ones(2, name) for name in ("?", "u1", "i2", ">f4", ">i8", "f8")}


def large():
  return {"large": np.arange(1 << 20)}


def count(last, end):
  try:
    for number in range(last):
      yield {"number": np.array(number)}
  finally:
    pathlib.Path(end).touch()


def crash():
  ctypes.string_at(0)


def leave():
  os._exit(7)


def hang(fifo):
  with open(fifo, "w"):
    pass
  while True:
    pass


def fill():
  arrays = []
  while True:
    arrays.append(np.ones(1 << 20))


def noise():
  print("noise")
  os.write(1, b"noise")
  os.write(2, b"noise")
  warnings.warn("noise", stacklevel=1)
  return pid()


def fail(kind):
  if kind == "system":
    pathlib.Path("/nowhere").read_bytes()
  if kind == "module":
    import nowhere  # noqa: F401
  if kind == "objects":
    return {"objects": np.array([{}])}
  raise {"value": ValueError("first\nsecond"), "library": OSError("could not read")}[kind]


def lie(text):
  for number in range(3, 64):
    try:
      os.write(number, text.encode() + b"\n")
    except OSError:
      continue
  return pid()
