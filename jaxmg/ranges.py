"""The range of a dataclass's field, written beside its type: `Annotated[float, "(0, 100]"]`.

The range of a pair of numbers holds for both; the first is the least.
"""

import dataclasses
import functools
import operator
import typing
from typing import Any


def check(one: Any) -> None:
  """Raises ValueError, which begins with the field, where one of a dataclass is out of range."""
  for name, (interval, count) in _ranges(type(one)).items():
    value = getattr(one, name)
    if expected := wanted(value, interval, count=count):
      raise ValueError(f"{name}: expected {expected}, got {value}")


def wanted(value: Any, interval: str, *, count: int = 1) -> str | None:
  """What is wanted in place of a number, or of `count` of them; None if it is in the interval."""
  values = [value] if count == 1 else list(value)
  inside = len(values) == count and all(_inside(x, interval) for x in values)
  if inside and values == sorted(values):
    return None
  return f"in {interval}" if count == 1 else f"two numbers in {interval}, the least first"


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


def _inside(value: Any, interval: str) -> bool:
  low, high = map(float, interval[1:-1].split(","))
  above = operator.ge if interval[0] == "[" else operator.gt
  below = operator.le if interval[-1] == "]" else operator.lt
  return isinstance(value, int | float) and above(value, low) and below(value, high)
