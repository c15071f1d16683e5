"""The range of a dataclass's field, written beside its type: `Annotated[float, "(0, 100]"]`.

Or its choices: `Literal["joint", "limb"]`. The range of a pair of numbers holds for both; the first
is the least.
"""

import dataclasses
import functools
import operator
import typing
from typing import Any


def check(one: Any) -> None:
  """Raises ValueError, which begins with the field, where one of a dataclass is out of range.

  Lists become tuples, so that a frozen dataclass can be hashed.
  """
  for field in dataclasses.fields(one):
    if isinstance(value := getattr(one, field.name), list):
      object.__setattr__(one, field.name, tuple(value))
  for name, choices in _choices(type(one)).items():
    if (value := getattr(one, name)) not in choices:
      raise ValueError(f"{name}: expected {' or '.join(map(str, choices))}, got {value!r}")
  for name, (interval, count) in _ranges(type(one)).items():
    value = getattr(one, name)
    if name in _whole(type(one)) and not isinstance(value, int):
      raise ValueError(f"{name}: expected a whole number, got {value!r}")
    if expected := wanted(value, interval, count=count):
      raise ValueError(f"{name}: expected {expected}, got {value}")


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
  pair = isinstance(value, tuple | list) and len(value) == 2
  if not pair or not all(isinstance(side, int) and side > 0 for side in value):
    raise ValueError(f"frame_size: expected height and width above 0, got {value!r}")


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
  return isinstance(value, int | float) and above(value, low) and below(value, high)
