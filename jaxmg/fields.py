"""Frozen dataclasses from JSON and to JSON: every value is checked by the type of its field.

    fields.make(Pose, {"layout": "coco17", "frame_size": [720, 1280]})

Fields are numbers (a whole one is not negative), truth values, texts, choices (`Literal`), tuples,
layouts of joints, and what may be None. What cannot be is a ValueError that begins with its place.
"""

import dataclasses
import functools
import hashlib
import json
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

from jaxmg import errors, ranges
from jaxmg.skeletons import topology


def to_json(one: Any) -> dict[str, Any]:
  """The fields of a dataclass; a layout is a name or, where it is a user's own, written out."""
  values = {field.name: getattr(one, field.name) for field in dataclasses.fields(one)}
  return {
    name: _layout(value) if isinstance(value, topology.Skeleton) else value
    for name, value in values.items()
  }


def digest(content: Mapping[str, Any]) -> str:
  """A short hash of what a JSON file holds, beside its own digest ("sha256")."""
  held = {name: value for name, value in content.items() if name != "sha256"}
  return hashlib.sha256(json.dumps(held, sort_keys=True).encode()).hexdigest()[:16]


def _layout(skeleton: topology.Skeleton) -> str | dict[str, Any]:
  ours = skeleton in topology.SKELETONS.values()
  return skeleton.name if ours else topology.to_json(skeleton)


def make(cls: type, values: Mapping[str, Any], *, place: str = "") -> Any:
  """A dataclass of these values; ValueError, which begins with the field, where they cannot be."""
  checked = check(cls, values, place=place)
  try:
    return cls(**checked)
  except ValueError as error:
    raise ValueError(f"{place}: {error}" if place else str(error)) from error


def check(
  cls: type, values: Mapping[str, Any], *, place: str = "", ignore: tuple[str, ...] = ()
) -> dict[str, Any]:
  """The values of a dataclass's fields, each as one of the field's type, before any is made."""
  known = _fields(cls, ignore)
  required = {name for name, (_, needed) in known.items() if needed}
  check_keys(place, values, required=required, known=known)
  prefix = f"{place}: " if place else ""
  return {name: _value(f"{prefix}{name}", known[name][0], x) for name, x in values.items()}


@functools.cache
def _fields(cls: type, ignore: tuple[str, ...] = ()) -> dict[str, tuple[Any, bool]]:
  """The type of each field of a dataclass, and whether it must be given."""
  hints = typing.get_type_hints(cls)
  missing = dataclasses.MISSING
  return {
    field.name: (hints[field.name], field.default is missing and field.default_factory is missing)
    for field in dataclasses.fields(cls)
    if field.name not in ignore
  }


def _value(place: str, kind: Any, value: Any) -> Any:
  """A value of JSON as one of a field's type; ValueError where it is none."""
  origin, of = typing.get_origin(kind), typing.get_args(kind)
  if topology.Skeleton in (kind, *of):
    try:
      return topology.from_json(value) if isinstance(value, dict) else topology.get(value)
    except (ValueError, TypeError) as error:
      raise ValueError(f"{place}: {error}") from error
  if origin in (types.UnionType, typing.Union):
    others = [x for x in of if x is not type(None)]
    return None if value is None and len(others) < len(of) else _value(place, others[0], value)
  if origin is Literal:
    return choice(place, value, of)
  if kind == tuple[int, int] and (pair := ranges.frame_size(value)):
    return pair  # JSON of other tools may have 720.0
  if origin is tuple and isinstance(value, list | tuple):
    kinds = of[:1] * len(value) if of[-1] is ... else of
    if len(kinds) == len(value):
      return tuple(_value(place, *pair) for pair in zip(kinds, value, strict=True))
  found = ranges.plain(value)
  if (
    (kind is int and ranges.is_whole(found) and found >= 0)
    or (kind is float and ranges.is_number(found) and math.isfinite(found))
    or (kind in (bool, str) and isinstance(found, kind))
  ):
    return found
  if kind not in (int, float, bool, str) and origin is not tuple:
    return value  # what else a field may be, its class knows
  expected = {int: "a whole number from 0", float: "a number", bool: "true or false", str: "a text"}
  expected = expected.get(kind, "several values" if of[-1:] == (...,) else f"{len(of)} values")
  raise ValueError(f"{place}: expected {expected}, got {value!r:.60}")


def mapping(place: str, value: Any) -> Mapping[str, Any]:
  if not isinstance(value, Mapping):
    raise ValueError(f"{place}: expected names and values, got {value!r:.60}")
  return value


def choice(place: str, value: Any, choices: Any) -> Any:
  if not isinstance(value, str) or value not in choices:
    got = value if isinstance(value, str) else repr(value)
    raise ValueError(errors.unknown(place, choices, f"{got:.60}"))
  return value


def check_keys(place: str, values: Mapping[str, Any], *, required, known=None) -> None:
  known = required if known is None else known
  prefix = f"{place}: " if place else ""
  if missing := sorted(set(required) - values.keys()):
    raise ValueError(f"{prefix}expected {', '.join(missing)}, got none")
  if unknown := sorted(values.keys() - set(known)):
    raise ValueError(f"{prefix}expected {', '.join(sorted(known))}, got {unknown[0]}")
