"""Moving pictures: frames with their times -> a file in .mp4 or .gif. Needs `jaxmg[video]`."""

import contextlib
import fractions
import pathlib
from collections.abc import Callable, Iterator

import numpy as np

from jaxmg import errors, files

CODECS = ("libx264", "mpeg4")  # the first that is there
_TICK = fractions.Fraction(1, 60_000)  # of a second: 25 and 30000/1001 frames are whole numbers
GIF_RATE = 12.5  # frames a second at most
GIF_FRAMES = 750  # at most: a minute, as all are held until the last is there
_COLORS = 64
_AWAY = 6.0  # of 255, in the mean: further, a picture has colours of its own

# Of a picture, its time in seconds: frames come in the order of time, and in one size.
Add = Callable[..., None]


@contextlib.contextmanager
def mp4(path: pathlib.Path, fps: float) -> Iterator[Add]:
  """Gives `add(picture, seconds)`."""
  import av

  codec = next(name for name in CODECS if name in av.codecs_available)
  with files.naming(path), av.open(path, "w", format="mp4") as container:
    stream = container.add_stream(codec, rate=fractions.Fraction(fps).limit_denominator(1001))
    stream.codec_context.time_base, stream.pix_fmt = _TICK, "yuv420p"
    last = -1

    def add(image, seconds):
      nonlocal last
      width, height = (side + side % 2 for side in image.size)  # of colours every second pixel
      if last < 0:
        stream.width, stream.height = width, height
      frame = av.VideoFrame.from_image(image.crop((0, 0, width, height)))
      last = frame.pts = max(round(seconds / _TICK), last + 1)
      frame.time_base = _TICK
      container.mux(stream.encode(frame))

    yield add
    container.mux(stream.encode())


@contextlib.contextmanager
def gif(path: pathlib.Path, fps: float) -> Iterator[Add]:
  """Gives `add(picture, seconds)`; frames that come too fast are left out.

  Raises ConfigError for more frames than GIF_FRAMES.
  """
  pictures, times, last = [], [], 0.0

  def add(image, seconds):
    nonlocal last
    last = seconds
    if times and seconds - times[-1] < 1 / GIF_RATE - 1e-3:
      return
    if len(times) == GIF_FRAMES:
      got = f"a longer one than {seconds:.0f} s"
      expected = f"a recording of at most {GIF_FRAMES} pictures in a .gif"
      raise errors.ConfigError(
        "--save", expected=expected, got=got, hint="a .mp4 may have any number"
      )
    times.append(seconds)
    pictures.append(_flat(image, pictures[-1] if pictures else None))

  yield add
  ends = [*times[1:], last + 1 / fps]
  durations = [round(100 * (end - start)) * 10 for start, end in zip(times, ends, strict=True)]
  options = {"duration": durations, "loop": 0, "append_images": pictures[1:]}
  with files.naming(path):
    pictures[0].save(path, "GIF", save_all=True, **options)


def _flat(image, before):
  """A picture in few colours: where they fit, those of the one before, for a smaller file."""
  from PIL import Image

  if before is not None:
    found = image.quantize(palette=before, dither=Image.Dither.NONE)
    away = np.asarray(found.convert("RGB"), np.int16) - np.asarray(image, np.int16)
    if np.abs(away).mean() < _AWAY:
      return found
  return image.quantize(_COLORS, dither=Image.Dither.NONE)


MOVIES = {".mp4": mp4, ".gif": gif}
