"""Pickles from outside, read without running anything that they name.

A pickle is a program: Python's `pickle` imports and calls what the file asks for. Here
`pickletools` decodes its opcodes and they are carried out on lists of our own. A global of the file
is a key into a table of exact names, and nothing can be called but the functions of that table;
what a value costs is checked against the size of the file before it is made.
"""

import dataclasses
import io
import math
import mmap
import os
import pickletools
import re
import sys
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxmg import errors

_MAX_DEPTH = 100

# Opcodes by what they do; all others are refused, such as those for extensions and outside buffers.
# fmt: off
_ARGUMENT = frozenset({
  "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
  "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "SHORT_BINUNICODE", "BINUNICODE",
  "BINUNICODE8", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8",
})
# fmt: on
_NEW = {
  "NONE": lambda: None,
  "NEWTRUE": lambda: True,
  "NEWFALSE": lambda: False,
  "EMPTY_TUPLE": tuple,
  "EMPTY_LIST": list,
  "EMPTY_DICT": dict,
  "EMPTY_SET": set,
}
_STORE = frozenset({"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"})
_FETCH = frozenset({"GET", "BINGET", "LONG_BINGET"})
_TAKE = {  # how many values from the stack; None: all since the last MARK
  "POP": 1,
  "POP_MARK": None,
  "TUPLE": None,
  "TUPLE1": 1,
  "TUPLE2": 2,
  "TUPLE3": 3,
  "LIST": None,
  "APPEND": 1,
  "APPENDS": None,
  "DICT": None,
  "SETITEM": 2,
  "SETITEMS": None,
  "FROZENSET": None,
  "ADDITEMS": None,
  "STACK_GLOBAL": 2,
  "REDUCE": 2,
  "NEWOBJ": 2,
  "BUILD": 1,
  "BINPERSID": 1,
}
_IGNORED = frozenset({"PROTO", "FRAME", "STOP"})

_FORMATS = {
  b"\x1f\x8b": "a gzip archive",
  b"PK\x03\x04": "a zip archive",
  b"BZh": "a bzip2 archive",
  b"\xfd7zXZ": "an xz archive",
  b"\x89HDF": "an HDF5 file",
  b"\x93NUMPY": "an .npy file",
  b"version https://git-lfs": "a Git LFS pointer: the file itself comes with `git lfs pull`",
  b"<!doctype": "an HTML page",
  b"<html": "an HTML page",
}


@dataclasses.dataclass(frozen=True)
class Call:
  """A global that a pickle may call. The function must check its arguments: any may come."""

  function: Callable[..., Any]


@dataclasses.dataclass(frozen=True)
class Stub:
  """A global that is known but not wanted, or what came of calling it: only its name is kept."""

  name: str


class Attributed(dict):
  """A dictionary that may be given attributes, which are dropped."""


class _Dtype:
  """A dtype; its state follows after it."""

  def __init__(self, code, align=False, copy=False):
    if not re.fullmatch(r"b1|[iu][1248]|f[248]|[US][1-9]\d{0,5}", code):
      kind = {"O": "objects", "V": "records", "c": "complex numbers"}.get(code[:1], "other things")
      raise ValueError(f"an array of {kind} ({code[:20]!r})")
    self.value = np.dtype(code)

  def build(self, state):
    _, order, *fields = state
    if order not in ("<", ">", "|", "=") or any(x is not None for x in fields[:3]):
      raise ValueError("an array of records")
    self.value = self.value.newbyteorder(order)


def load(path: str | os.PathLike) -> Any:
  """Reads a pickle of annotations: a tree of plain values and numpy arrays.

  It holds nothing but dict, list, tuple, set, frozenset, str, bytes, bytearray, int, float, bool,
  None, numpy arrays of numbers or text, and their scalars; an OrderedDict comes as a dict. Arrays
  may be read-only. Pickles of Python 2 (text as latin-1) and of numpy 1 and 2 are read.

  Raises:
    DataError: any other file, and pickles that ask for more than that.
  """
  try:
    with open(path, "rb") as file:
      head = file.read(64)
      if not head:
        raise ValueError("an empty file")
      if name := recognize(head):
        raise ValueError(name)
      with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as stream:
        value = interpret(stream, size=len(stream), admitted=ADMITTED)
        if stream.tell() < len(stream):
          raise ValueError(f"{len(stream) - stream.tell()} more bytes after it")
        _check(value, limit=2 * len(stream) + 1000)
        return value
  except FileNotFoundError:
    raise errors.DataError(path, expected="a pickle", got="no such file") from None
  except IsADirectoryError:
    raise errors.DataError(path, expected="a pickle", got="a folder") from None
  except OSError:
    raise
  except Exception as error:  # pickletools and numpy raise many types
    expected = "a pickle of arrays and plain values"
    raise errors.DataError(path, expected=expected, got=describe(error)) from error


def recognize(head: bytes) -> str | None:
  """Names another format by a file's first bytes."""
  head = head.lstrip()
  found = (name for magic, name in _FORMATS.items() if head.lower().startswith(magic.lower()))
  return next(found, None)


def describe(error: Exception) -> str:
  """What is wrong with a file, in one short line: its bytes may be part of the message."""
  name = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
  return "".join(c if c.isprintable() else "?" for c in f"{name}{error}"[:300])


def interpret(
  stream: io.BytesIO | mmap.mmap,
  *,
  size: int,
  admitted: Mapping[str, Any],
  persistent: Callable[[Any], Any] | None = None,
) -> Any:
  """Carries out one pickle, and leaves the stream behind it.

  `size` is that of the whole file: what is made is no larger. `admitted` maps "module name" of the
  globals that may occur to a `Call`, a `Stub` or a value; `persistent` makes a value of what stands
  for one outside of the pickle. `read` of the stream must not allocate more than there is.

  Raises: ValueError, or whatever a broken pickle comes to.
  """
  stack: list[Any] = []
  marks: list[list[Any]] = []
  memo: dict[int, Any] = {}
  allowance = 2 * size  # the old protocols write bytes as text, and then arrays of bytes
  for name, argument in _opcodes(stream):
    if name in _ARGUMENT:
      stack.append(argument)
    elif name in _NEW:
      stack.append(_NEW[name]())
    elif name in _STORE:
      index = len(memo) if name == "MEMOIZE" else argument
      if not 0 <= index <= size:
        raise ValueError(f"memo index {index} in a file of {size} bytes")
      memo[index] = stack[-1]
    elif name in _FETCH:
      stack.append(memo[argument])
    elif name == "MARK":
      marks.append(stack)
      stack = []
    elif name == "GLOBAL":
      stack.append(_global(argument, admitted))
    elif name in _TAKE:
      count = _TAKE[name]
      if count is None:
        taken, stack = stack, marks.pop()
      elif count <= len(stack):
        taken = stack[-count:]
        del stack[-count:]
      else:
        raise ValueError(f"{name} without {count} values before it")
      if name in ("REDUCE", "BUILD"):
        # Values can be shared in the file: what is made of them adds up.
        allowance -= _cost(taken[-1])
        if allowance < 0:
          raise ValueError(f"values larger than the file of {size} bytes")
      if name == "STACK_GLOBAL":
        stack.append(_global(" ".join(taken), admitted))
      elif name == "BINPERSID":
        if persistent is None:
          raise ValueError("a reference to something outside (BINPERSID)")
        stack.append(persistent(*taken))
      elif name in ("REDUCE", "NEWOBJ"):
        stack.append(_call(name, *taken))
      else:
        _collect(name, taken, stack)
    elif name not in _IGNORED:
      raise ValueError(f"the opcode {name}")
  if marks or len(stack) != 1:
    raise ValueError(f"{len(stack)} values and {len(marks)} marks at the end of a pickle")
  return stack[0]


_OPCODES = {
  opcode.code.encode("latin-1"): (opcode.name, opcode.arg and opcode.arg.reader)
  for opcode in pickletools.opcodes
}


def _opcodes(stream):
  """`pickletools.genops`, but text of Python 2's first protocol may hold any byte."""
  name, count = "", 0
  while name != "STOP":
    count += 1
    code = stream.read(1)
    if code not in _OPCODES:
      wrong = f"the opcode {code.decode('latin-1')!r}"
      raise ValueError(wrong if code else "the end of the file in a pickle")
    name, reader = _OPCODES[code]
    if name == "STRING":
      line = stream.readline()
      if not re.fullmatch(rb"(?s)([\"']).*\1\n", line):
        raise ValueError("a text without quotes")
      argument = line[1:-2].decode("unicode_escape")
    else:
      argument = reader and reader(stream)
    if not count & 0xFFFF and isinstance(stream, mmap.mmap):
      # What has been read need not stay in memory: its values are there already.
      stream.madvise(mmap.MADV_DONTNEED, 0, stream.tell())
    yield name, argument


_SIZED = (str, bytes, bytearray, list, tuple, dict, set, frozenset)


def _cost(arguments):
  """How many values a call or a state has to go through: of an argument, no deeper ones."""
  parts = [arguments, *arguments] if isinstance(arguments, list | tuple) else [arguments]
  return sum(len(part) for part in parts if isinstance(part, _SIZED))


def _global(name, admitted):
  if name not in admitted:
    raise ValueError(f"the global {name.replace(' ', '.')[:100]!r}, which is not allowed")
  return admitted[name]


def _call(opcode, function, arguments):
  if isinstance(function, Stub):
    return function
  if opcode != "REDUCE" or not isinstance(function, Call):
    raise ValueError(f"a call ({opcode}) of what is no function")
  return function.function(*arguments)


def _collect(name, taken, stack):
  """Makes a collection of values, or adds them to the last on the stack."""
  match name:
    case "POP" | "POP_MARK":
      pass
    case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
      stack.append(tuple(taken))
    case "LIST":
      stack.append(taken)
    case "DICT":
      stack.append(_put({}, taken[::2], taken[1::2]))
    case "FROZENSET":
      stack.append(frozenset(_set(taken)))
    case _ if isinstance(stack[-1], Stub):
      pass
    case "APPEND" | "APPENDS" if isinstance(stack[-1], list):
      stack[-1].extend(taken)
    case "SETITEM" | "SETITEMS" if isinstance(stack[-1], dict):
      _put(stack[-1], taken[::2], taken[1::2])
    case "ADDITEMS" if isinstance(stack[-1], set):
      stack[-1].update(_set(taken))
    case "BUILD" if isinstance(stack[-1], np.ndarray):
      _set_array(stack[-1], *taken[0])
    case "BUILD" if isinstance(stack[-1], _Dtype):
      stack[-1].build(*taken)
    case "BUILD" if isinstance(stack[-1], Attributed):
      pass
    case _:
      raise ValueError(f"{name} on {type(stack[-1]).__name__}")


def _set(values):
  """A set of plain values: the hash of a tuple goes down into it, without limit."""
  if not isinstance(values, list | tuple):
    raise ValueError(f"a set of what is no list but {type(values).__name__}")
  for value in values:
    if not isinstance(value, str | bytes | int | float | None | np.generic | Stub):
      raise ValueError(f"a key of type {type(value).__name__}")
    if isinstance(value, int) and abs(value) >> 60:
      raise ValueError("a key beyond 60 bits")  # such can be made to share one hash
  return set(values)


def _put(target, keys, values):
  _set(keys)
  target.update(zip(keys, values, strict=True))
  return target


def _ordered_dict(pairs=()):
  if not isinstance(pairs, list | tuple) or not all(
    isinstance(pair, list | tuple) and len(pair) == 2 for pair in pairs
  ):
    raise ValueError("an OrderedDict of what are no pairs")
  return _put({}, [key for key, _ in pairs], [value for _, value in pairs])


def _encode(text, encoding):
  """How Python 3 writes bytes in the protocols of Python 2."""
  if encoding not in ("latin1", "latin-1"):
    raise ValueError("bytes in an encoding that is not latin-1")
  return text.encode("latin-1")


_NDARRAY = object()


def _empty_array(kind, shape, code):
  if kind is not _NDARRAY or shape != (0,) or code not in ("b", b"b"):
    raise ValueError("an array that does not begin empty")
  return np.empty(0, np.int8)


def _set_array(array, version, shape, dtype, fortran, raw):
  raw = _checked(raw, dtype, shape)
  array.__setstate__((1, shape, dtype.value, bool(fortran), bytes(raw)))


def _array(raw, dtype, shape, order):
  raw = _checked(raw, dtype, shape)
  if not raw:
    return np.zeros(shape, dtype.value)
  return np.frombuffer(raw, dtype.value).reshape(shape, order="F" if order == "F" else "C")


def _scalar(dtype, raw):
  return np.frombuffer(_checked(raw, dtype, ()), dtype.value)[0]


def _checked(raw, dtype, shape):
  """The bytes of an array of this dtype and shape, when there are as many as it needs."""
  if not isinstance(dtype, _Dtype) or not isinstance(shape, tuple):
    raise ValueError("an array without dtype or shape")
  if len(shape) > 32 or not all(type(n) is int and 0 <= n < 1 << 63 for n in shape):
    raise ValueError("an array of a shape that is none")
  if isinstance(raw, str):
    raw = raw.encode("latin-1")  # bytes of Python 2
  if not isinstance(raw, bytes | bytearray):
    raise ValueError("an array of objects")
  if math.prod(shape) * dtype.value.itemsize != len(raw):
    raise ValueError(f"an array {dtype.value}{list(shape[:8])} of {len(raw)} bytes")
  if dtype.value.kind == "U" and raw:
    letters = np.frombuffer(raw, np.dtype("u4").newbyteorder(dtype.value.byteorder))
    if letters.max() > sys.maxunicode:
      raise ValueError("an array of text that is none")
  return raw


# What annotations, and the like in checkpoints, are made of; by the names of all versions.
ADMITTED: Mapping[str, Any] = {
  "_codecs encode": Call(_encode),
  "collections OrderedDict": Call(_ordered_dict),
  "numpy dtype": Call(_Dtype),
  "numpy ndarray": _NDARRAY,
  **{
    f"numpy.{core} {name}": Call(function)
    for name, function, cores in (
      ("_reconstruct", _empty_array, ("core.multiarray", "_core.multiarray")),
      ("scalar", _scalar, ("core.multiarray", "_core.multiarray")),
      ("_frombuffer", _array, ("core.numeric", "_core.numeric")),
    )
    for core in cores
  },
  **{
    f"{builtins} {name}": Call(function)
    for builtins in ("builtins", "__builtin__")
    for name, function in (
      ("bytes", lambda: b""),
      ("set", lambda values=(): _set(values)),
      ("frozenset", lambda values=(): frozenset(_set(values))),
    )
  },
}


def _check(root, *, limit):
  """Refuses what a reader would not expect, and trees that never end by sharing their branches."""
  todo = [(root, 0)]
  while todo:
    value, depth = todo.pop()
    if isinstance(value, dict):
      children = [*value.keys(), *value.values()]
    elif isinstance(value, list | tuple | set | frozenset):
      children = value
    elif value is None or isinstance(
      value, str | bytes | bytearray | int | float | np.ndarray | np.generic
    ):
      continue
    else:
      raise ValueError(f"a bare {type(value).__name__.strip('_').lower()}")
    limit -= len(children)
    if limit < 0:
      raise ValueError("more values than its bytes can hold")
    if depth == _MAX_DEPTH:
      raise ValueError(f"values nested more than {_MAX_DEPTH} deep")
    todo.extend((child, depth + 1) for child in children)
