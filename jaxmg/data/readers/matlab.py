"""UTD-MHAD's .mat: `d_skel` [20, 3, T] in metres; its key points are the depth camera's view."""

import pathlib

from jaxmg.data import guarded, matlab
from jaxmg.data.readers import clip as clips


def read_mat(path: pathlib.Path, told: clips.Told) -> clips.Clip:
  points = guarded.call(matlab.load, path.absolute())["d_skel"].transpose(2, 0, 1)[:, None]
  return clips.from_points(points, told, layout="kinect20", in_3d=True)
