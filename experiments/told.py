"""What a recording's file may leave open, as flags: `jaxmg.data.readers.Told`."""

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


def get(values: flags.FlagValues) -> readers.Told:
  size, layout = values.frame_size, values.layout
  layout = layout and readers.find_layout(layout)
  return readers.Told(layout, size and readers.frame_size(size), values.axes, values.points)
