"""Variants: the sizes of a model by a name, as tables in the models' files."""

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from typing import Any

from flax import linen as nn

from jaxmg import errors, ranges


def fill(model: nn.Module, variants: Mapping[str, Mapping[str, Any]], variant: str) -> None:
  """Gives the fields of a model that are None the values of a variant.

  For `__post_init__` of a model, before that of Flax. The name is not kept: Flax calls
  `__post_init__` of a model within another once more, without one. Raises ValueError for an unknown
  variant, and for numbers of a field that cannot be.
  """
  if not ranges.is_whole(model.num_classes) or model.num_classes < 1:
    raise ValueError(f"num_classes: expected 1 or more, got {model.num_classes!r}")
  model.num_classes = int(model.num_classes)
  if variant not in variants:
    raise ValueError(errors.unknown("variant", variants, variant))
  for name, value in variants[variant].items():
    if getattr(model, name) is None:
      setattr(model, name, value)
  for name, kind in _numbers(type(model)).items():
    value = getattr(model, name)
    whole = ranges.is_whole if kind is int else lambda x: not ranges.wanted(x, "[0, 1)")
    several = typing.get_origin(kind) is tuple
    if several and not (isinstance(value, tuple | list) and all(map(ranges.is_whole, value))):
      raise ValueError(f"{name}: expected whole numbers, got {value!r:.60}")
    if not several and (not whole(value) or value < 0):
      expected = "a whole number from 0" if kind is int else "in [0, 1)"
      hint = " (sizes by their name: variant=)" if isinstance(value, str) else ""
      raise ValueError(f"{name}: expected {expected}, got {value!r:.60}{hint}")


@functools.cache
def _numbers(cls: type) -> dict[str, Any]:
  """The fields of a model that are whole numbers, several of these, or rates."""
  hints = typing.get_type_hints(cls)
  found = {field.name: hints[field.name] for field in dataclasses.fields(cls)}
  for name, hint in found.items():
    if isinstance(hint, types.UnionType):  # None until it is filled
      found[name] = typing.get_args(hint)[0]
  wanted = lambda kind: kind in (int, float) or typing.get_origin(kind) is tuple  # noqa: E731
  return {name: kind for name, kind in found.items() if wanted(kind) and name != "parents"}
