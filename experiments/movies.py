"""Moving pictures: frames with their times -> a file in .mp4 or .gif. Needs `jaxmg[video]`."""

import contextlib
import fractions
import math
import pathlib
from collections.abc import Callable, Iterable, Iterator

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
  """Gives `add(picture, seconds)`; frames that come too fast are left out."""
  pictures, times, last = [], [], 0.0

  def add(image, seconds):
    nonlocal last
    last = seconds
    if not times or _is_shown(seconds, times[-1]):
      times.append(seconds)
      pictures.append(_flat(image, pictures[-1] if pictures else None))

  yield add
  # Times are rounded, and not how long each frame is shown: what is rounded off does not add up.
  hundredths = np.rint(100 * np.array([*times, last + 1 / fps])).astype(int)
  durations = (10 * np.diff(hundredths)).tolist()
  options = {"duration": durations, "loop": 0, "append_images": pictures[1:]}
  with files.naming(path):
    pictures[0].save(path, "GIF", save_all=True, **options)


def check_gif(times: Iterable[float]) -> None:
  """Raises ConfigError where frames at these seconds are more than a .gif has room for."""
  count, before = 0, -math.inf
  for seconds in times:
    if not _is_shown(seconds, before):
      continue
    if count == GIF_FRAMES:
      got = f"a longer one than {seconds:.0f} s"
      expected = f"a recording of at most {GIF_FRAMES} pictures in a .gif"
      raise errors.ConfigError(
        "--save", expected=expected, got=got, hint="a .mp4 may have any number"
      )
    count, before = count + 1, seconds


def _is_shown(seconds, before):
  return seconds - before >= 1 / GIF_RATE - 1e-3


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
