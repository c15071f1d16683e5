"""Another framework's weights: what an experiment says of a file, and what flags tell of poses.

An experiment's `describe_weights(values, shapes, data)` gets the flags of `import_weights`, the
`shapes` of our parameters as the file has them, and the prepared set or None, and returns
`Weights`. `WEIGHTS_FLAGS` are the flags that it reads, of those that not all experiments read.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from jaxmg import errors
from jaxmg.data.source import Source
from jaxmg.skeletons import topology
from jaxmg.skeletons.topology import Skeleton

NTU_FRAME_SIZE = (1080, 1920)  # of clips that come without one


class Weights(NamedTuple):
  """What a file of weights is."""

  model: dict[str, Any]  # without the number of classes
  inputs: dict[str, Any]
  num_clips: int  # test views
  mirror: bool
  example: tuple[int, ...]  # the shape of what the network of the file is given
  fit: Callable[[dict], dict] = lambda variables: variables  # to what ours is given
  class_names: tuple[str, ...] = ()  # if the weights are always of the same
  notes: tuple[str, ...] = ()  # lines to print


def check_stream(values, streams: Sequence[str]) -> None:
  """Raises ConfigError where --stream is none of these."""
  if values.stream not in streams:
    expected, got = " or ".join(streams), values.stream or "none"
    raise errors.ConfigError("--stream", expected=expected, got=got, hint="weights do not tell")


def pose_notes(one: Any, data: Source | None) -> list[str]:
  """What is to be said of an input of poses."""
  notes = [f"points: {one.points.replace('3d', ' in 3-D')}"]
  if data is None:
    height, width = one.frame_size
    notes.append(f"frames of {height} x {width} where a clip has no size")
  return notes


def find_skeleton(values, data: Source | None, fits: Callable[[Skeleton], bool]) -> Skeleton:
  """The layout that --skeleton names, or the only one that fits the weights and the data."""
  theirs = data.track("pose").kind.layout if data else None
  if theirs and values.skeleton == theirs.name:
    return theirs  # which may be a user's own
  if values.skeleton:
    return layout("skeleton", values.skeleton)
  found = [
    skeleton
    for skeleton in {*topology.SKELETONS.values(), *([theirs] if theirs else [])}
    if fits(skeleton)
    and (theirs is None or theirs.name in (skeleton.name, *dict(skeleton.sources)))
  ]
  if not found and theirs:
    return theirs  # which then does not fit, and it is said how
  if len(found) != 1 or values.stem_from:
    names = " or ".join(sorted(x.name for x in found or topology.SKELETONS.values()))
    raise errors.ConfigError("--skeleton", expected=names, got="none", hint="weights do not tell")
  return found[0]


def layout(flag: str, name: str) -> Skeleton:
  """The layout that a flag names."""
  try:
    return topology.get(name)
  except ValueError as error:
    raise errors.ConfigError(f"--{flag}: {error}") from error
