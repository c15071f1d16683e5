import fractions
import io

import numpy as np
import pytest


@pytest.fixture(scope="session")
def make_video():
  """Writes a video of 48 x 64 whose k-th frame is grey, 4 levels lighter than the one before."""
  import av

  def make(path, num_frames, *, fps=25, first=0, size=(48, 64)):
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(path, "w") as container:
      stream = container.add_stream("mpeg4", rate=fps)
      stream.height, stream.width = size
      stream.bit_rate, stream.time_base = 4_000_000, fractions.Fraction(1, fps)
      for k in range(first, first + num_frames):
        picture = np.full((*size, 3), 20 + 4 * k, np.uint8)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
      container.mux(stream.encode())
    return path

  return make


@pytest.fixture(scope="session")
def numbers_of():
  """The numbers that the frames of a clip carry."""
  from PIL import Image

  def numbers(record):
    levels = [np.asarray(Image.open(io.BytesIO(picture))).mean() for picture in record["frames"]]
    return [round((level - 20) / 4) for level in levels]

  return numbers
