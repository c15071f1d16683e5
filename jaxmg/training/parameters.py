"""Parameters by their paths, such as "stem/conv/kernel", and by patterns of these.

A pattern is a regular expression of a whole path, as in big_vision: `head/.*` are all parameters of
the head, and `(?!encoder/).*` all but those of the encoder.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flax import traverse_util

from jaxmg import errors

ALL = (".*",)


def paths(params: Mapping[str, Any]) -> list[str]:
  """The paths of all leaves."""
  return list(_flatten(params))


def matching(paths: Iterable[str], patterns: Sequence[str]) -> set[str]:
  """The paths that one of the patterns matches; ConfigError for a pattern that matches none."""
  found = set()
  paths = set(paths)
  patterns = (patterns,) if isinstance(patterns, str) else patterns
  for pattern in patterns:
    matched = {path for path in paths if re.fullmatch(pattern, path)}
    if not matched:
      expected = f"one of paths such as {min(paths, default='none')}"
      got = f"{pattern}, which matches none of {len(paths)}"
      raise errors.ConfigError("pattern of parameters", expected=expected, got=got)
    found |= matched
  return found


def select(params: Mapping[str, Any], patterns: Sequence[str]) -> dict[str, Any]:
  """The tree of those leaves alone that one of the patterns matches."""
  flat = _flatten(params)
  found = matching(flat, patterns)
  return _unflatten({path: leaf for path, leaf in flat.items() if path in found})


def merge(params: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
  """The tree of both; where both have a leaf, that of `others`."""
  return _unflatten(_flatten(params) | _flatten(others))


def take_over(
  ours: Mapping[str, Any], theirs: Mapping[str, Any], *, part: str = "", new: Sequence[str] = ()
) -> dict[str, Any]:
  """Our variables ({"params": ..., "batch_stats": ...}) with the leaves of another model's.

  The other model is the whole of ours, or the `part` of it with this path: the rest stays. What has
  a path, in ours, that a pattern of `new` matches stays as well, and theirs may lack it or have it
  otherwise. All else must be in both, with equal shapes.

  Raises CheckpointError with the first leaf of which this is not so.
  """
  prefix = part and f"{part}/"
  before = _flatten(ours)
  given = {
    f"{kind}/{prefix}{path}": leaf
    for kind, tree in theirs.items()
    for path, leaf in _flatten(tree).items()
  }
  inside = {place: place.partition("/")[2] for place in before | given}  # without the collection
  stays = matching(inside.values(), new)
  taken, wanted = (
    {
      place: leaf
      for place, leaf in leaves.items()
      if inside[place].startswith(prefix) and inside[place] not in stays
    }
    for leaves in (given, before)
  )
  shapes = [{place: x.shape for place, x in leaves.items()} for leaves in (wanted, taken)]
  if wrong := sorted({place for place, _ in shapes[0].items() ^ shapes[1].items()}):
    expected, got = (shape.get(wrong[0], "nothing") for shape in shapes)
    raise errors.CheckpointError(wrong[0], expected=expected, got=got)
  return dict(ours) | _unflatten(before | taken)


def _flatten(tree):
  return traverse_util.flatten_dict(tree, sep="/")


def _unflatten(leaves):
  return traverse_util.unflatten_dict(leaves, sep="/")
