"""The range of a dataclass's field, written beside its type: `Annotated[float, "(0, 100]"]`.

Or its choices: `Literal["joint", "limb"]`. The range of a pair of numbers holds for both; the first
is the least.
"""

import dataclasses
import functools
import math
import numbers
import operator
import typing
from typing import Any

import numpy as np

FRAME_SIZE = "height and width, whole numbers above 0"  # what `frame_size` takes, in words


def is_whole(value: Any) -> bool:
  """Whether it is a whole number, Python's or NumPy's; a truth value is none."""
  return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
  """Whether it is a real number of any kind; a truth value is none."""
  return isinstance(value, numbers.Real) and not isinstance(value, bool)


def frame_size(value: Any) -> tuple[int, int] | None:
  """(height, width), whole numbers of any kind, as Python's own; None where it is nothing such."""
  value = _unpacked(value)
  sides = [*map(_unpacked, value)] if isinstance(value, tuple | list) else []
  whole = all(is_number(side) and 0 < side < 1 << 31 and side == int(side) for side in sides)
  return (int(sides[0]), int(sides[1])) if whole and len(sides) == 2 else None


def _unpacked(value: Any) -> Any:
  """What an array of NumPy or JAX holds, as Python's own."""
  return value.tolist() if hasattr(value, "tolist") else value


def is_rate(value: Any) -> bool:
  """Whether it can be frames a second: above 0, and finite."""
  return is_number(value) and 0 < value < math.inf


def plain(value: Any) -> Any:
  """Numbers, truth values and texts as Python's own, which JSON can hold; of a list, in a tuple."""
  if isinstance(value, list | tuple):
    return tuple(map(plain, value))
  for kind, of in ((int, is_whole), (float, is_number)):
    if of(value):
      return value if type(value) in (int, float) else kind(value)
  if isinstance(value, np.bool_):
    return bool(value)
  return str(value) if isinstance(value, np.str_) else value


def settle(one: Any) -> None:
  """Makes what the fields of a frozen dataclass hold `plain`, so that it can be hashed and kept."""
  for field in dataclasses.fields(one):
    value = getattr(one, field.name)
    size = frame_size(value) if field.name == "frame_size" else None
    object.__setattr__(one, field.name, size or plain(value))


def check(one: Any) -> None:
  """Settles a dataclass; raises ValueError, which begins with the field that is out of range."""
  settle(one)
  for name, choices in _choices(type(one)).items():
    if (value := getattr(one, name)) not in choices:
      raise ValueError(f"{name}: expected {' or '.join(map(str, choices))}, got {value!r}")
  for name, (interval, count) in _ranges(type(one)).items():
    value = getattr(one, name)
    if name in _whole(type(one)) and not is_whole(value):
      raise ValueError(f"{name}: expected a whole number, got {value!r}")
    if expected := wanted(value, interval, count=count):
      raise ValueError(f"{name}: expected {expected}, got {value!r}")


def wanted(value: Any, interval: str, *, count: int = 1) -> str | None:
  """What is wanted in place of a number, or of `count` of them; None if it is in the interval."""
  values = [value] if count == 1 else list(value) if isinstance(value, list | tuple) else []
  inside = len(values) == count and all(_inside(x, interval) for x in values)
  if inside and values == sorted(values):
    return None
  return f"in {interval}" if count == 1 else f"two numbers in {interval}, the least first"


def check_these(cls: type, **values: Any) -> None:
  """Raises ValueError where a value is out of the range of the field of this name in `cls`."""
  for name, (interval, count) in _ranges(cls).items():
    if name in values and (expected := wanted(values[name], interval, count=count)):
      raise ValueError(f"{name}: expected {expected}, got {values[name]!r}")


def check_frame_size(value: Any) -> None:
  """Raises ValueError unless it is (height, width), whole numbers above 0."""
  if not frame_size(value):
    raise ValueError(f"frame_size: expected {FRAME_SIZE}, got {value!r}")


@functools.cache
def _ranges(cls: type) -> dict[str, tuple[str, int]]:
  """The fields that have one, and of how many numbers they are."""
  hints = typing.get_type_hints(cls, include_extras=True)
  found = {field.name: hints[field.name] for field in dataclasses.fields(cls)}
  return {
    name: (hint.__metadata__[0], len(typing.get_args(hint.__origin__)) or 1)
    for name, hint in found.items()
    if typing.get_origin(hint) is typing.Annotated
  }


@functools.cache
def _whole(cls: type) -> set[str]:
  """The fields with a range that are whole numbers."""
  hints = typing.get_type_hints(cls)
  return {name for name in _ranges(cls) if hints[name] is int}


@functools.cache
def _choices(cls: type) -> dict[str, tuple]:
  """The fields that are one of several values, and these."""
  hints = typing.get_type_hints(cls)
  return {
    field.name: typing.get_args(hints[field.name])
    for field in dataclasses.fields(cls)
    if typing.get_origin(hints[field.name]) is typing.Literal
  }


def _inside(value: Any, interval: str) -> bool:
  low, high = map(float, interval[1:-1].split(","))
  above = operator.ge if interval[0] == "[" else operator.gt
  below = operator.le if interval[-1] == "]" else operator.lt
  return is_number(value) and above(value, low) and below(value, high)
