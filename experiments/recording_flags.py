"""What a recording's file may leave open, as flags: `jaxmg.data.readers.Told`."""

from collections.abc import Iterable
from typing import Any

from absl import flags

from jaxmg.data import readers


def define(values: flags.FlagValues) -> None:
  options = {"flag_values": values}
  flags.DEFINE_string("layout", None, "Of the joints: a name or a JSON file.", **options)
  flags.DEFINE_string("frame_size", None, "HEIGHTxWIDTH of the pictures, in pixels.", **options)
  flags.DEFINE_string("axes", None, "Of an array, like MTVC.", **options)
  flags.DEFINE_enum(
    "points", None, ["keypoints", "joints3d"], "x, y in pixels and a score, or metres.", **options
  )


def get(values: flags.FlagValues, inputs: Iterable[Any] = ()) -> readers.Told:
  """What the flags say; what they leave open is as the inputs of a run have it."""
  size, layout = values.frame_size, values.layout
  known = {
    "layout": layout and readers.find_layout(layout),
    "frame_size": size and readers.frame_size(size),
    "axes": values.axes,
    "points": values.points,
  }
  for one in inputs:
    known = one.told | {name: value for name, value in known.items() if value is not None}
  return readers.Told(**known)
