"""Videos are decoded by PyAV, which is FFmpeg; a damaged one can crash it: for `guarded`.

A frame is known by its presentation time, in whose order frames are counted from 0. What a decoder
gives is compared with what the file promises: it stops at many kinds of damage without a word.
"""

import contextlib
import io
import math
import os
from collections.abc import Iterator
from typing import Any

import numpy as np

# To FFmpeg, a list of other files and a picture are formats too.
FORMATS = "mov,mp4,matroska,webm,avi,mpegts,mpeg,asf,flv,ogg"
MAX_PIXELS = 1 << 26  # of a frame: two of 8K
MAX_FRAMES = 1_000_000  # 11 hours at 25 fps
QUALITY = 90  # of JPEG
_CHUNK = 32  # frames that are handed over at a time
_FEW = 0.01  # of all frames: more may not be missing
_BENT = 0.02  # by how much the sides' ratio may change
_SECONDS = 0.5  # that a file may end before its time


def describe(path: str) -> dict[str, np.ndarray]:
  """What a file says of its video; nothing is decoded but the first frame.

  times      float64[T]  when each frame is shown, in seconds from the first; NaN: it is not said
  size       int64[2]    height and width of the upright picture
  turned     int64       quarters, counter-clockwise, by which a picture is turned to be upright,
  mirrored   bool        and whether its mirror image is then taken
  ratio      float64     of a pixel's width to its height, as it lies in the file
  interlaced bool        whether a frame is two fields
  alpha      bool        whether there is transparency, which is left out
  streams    int64       of video in the file, of which the first is taken
  lost       int64       frames that the file's header promises, and that are not in it: a few
  short      float64     seconds by which it ends before the time that its header promises: a few

  Raises ValueError for what is no whole video.
  """
  with _opened(path) as (container, stream):
    stamps, lost, short = _stamps(container, stream)
    base, rate = stream.time_base, stream.average_rate
  with _opened(path) as (container, stream):
    first = next(_decoded(container, stream), None)
    if first is None:
      raise ValueError("expected frames, got none that can be decoded")
    turned, mirrored = _turned(first)
    found = {
      "size": (first.width, first.height) if turned % 2 else (first.height, first.width),
      "turned": turned,
      "mirrored": mirrored,
      "ratio": float(stream.sample_aspect_ratio or 1),
      "interlaced": first.interlaced_frame,
      "alpha": any(part.is_alpha for part in first.format.components),
      "streams": len(_streams(container)),
      "lost": lost,
      "short": short,
    }
  if None not in stamps:
    times = (np.sort(stamps) - min(stamps)) * float(base)
  elif rate:
    times = np.arange(len(stamps)) / float(rate)
  else:
    times = np.full(len(stamps), np.nan)
  return {name: np.array(value) for name, value in found.items()} | {"times": times}


def pictures(
  path: str, height: int, width: int, first: int, step: int = 1
) -> Iterator[dict[str, np.ndarray]]:
  """Yields each `step`-th frame from number `first` on as upright JPEGs of a size, some at a time.

  data    uint8[bytes]  one behind the other
  lengths int64[n]      the bytes of each
  missing int64         how many frames could not be decoded: those of them are copies of one before

  Raises ValueError where what is decoded is not what the file promises.
  """
  with _opened(path) as (container, stream):
    stamps, *_ = _stamps(container, stream)
  place = None if None in stamps else {stamp: k for k, stamp in enumerate(sorted(stamps))}
  few = max(2, int(_FEW * len(stamps)))
  chunk, held, missing, at = [], None, 0, 0  # `at`: the number that comes next

  def wanted(start, stop):
    """How many of these numbers are asked for."""
    return len(range(first + max(0, -(-(start - first) // step)) * step, stop, step))

  with _opened(path) as (container, stream):
    for frame in _decoded(container, stream):
      number = at if place is None else place.get(frame.pts, -1)
      if not at <= number < len(stamps):
        raise ValueError(f"frame {at}: expected the next one in time, got another")
      missing += _copies(number - at, missing, few, at)
      gap, here = wanted(at, number), wanted(number, number + 1)
      picture = held
      # One of those before the first may be copied.
      if here or (number >= first - few and (held is None or number < first)):
        picture = _jpeg(frame, height, width, number)
      chunk += [held or picture] * gap + [picture] * here
      held, at = picture, number + 1
      if len(chunk) >= _CHUNK:
        yield _joined(chunk, missing)
        chunk = []
  missing += _copies(len(stamps) - at, missing, few, at)
  yield _joined(chunk + [held] * wanted(at, len(stamps)), missing)


def _copies(gap: int, missing: int, few: int, at: int) -> int:
  """The gap before the next frame; ValueError where that makes too many."""
  if missing + gap > few:
    got = f"{missing + gap} that cannot be decoded"
    raise ValueError(f"frame {at}: expected at most {few} damaged frames, got {got} (cut off?)")
  return gap


@contextlib.contextmanager
def _opened(path: str) -> Iterator[tuple[Any, Any]]:
  """The container of a file and its first stream of video; ValueError for what has none."""
  import av

  av.logging.set_level(None)
  with open(path, "rb"):  # the system's own errors, if there are any
    pass
  options = {"protocol_whitelist": "file", "format_whitelist": FORMATS}
  try:
    container = av.open(path, options=options, metadata_errors="ignore")
  except av.error.ArgumentError as error:
    raise ValueError("expected a video, got another format (pictures, a list?)") from error
  except (av.error.FFmpegError, IndexError, UnicodeError) as error:
    raise ValueError(f"expected a video, got what FFmpeg cannot read ({_text(error)})") from error
  with container:
    if not (streams := _streams(container)):
      raise ValueError("expected a video, got a file without any (sound alone?)")
    stream = streams[0]
    codec = stream.codec_context
    if codec is None:
      raise ValueError("expected a codec that this build of FFmpeg knows, got another")
    width, height = codec.width, codec.height
    if not 0 < width * height <= MAX_PIXELS:
      raise ValueError(f"expected frames of 1 to {MAX_PIXELS} pixels, got {height} x {width}")
    codec.options = {"max_pixels": str(MAX_PIXELS)}
    codec.thread_type = "AUTO"
    codec.thread_count = min(4, os.cpu_count() or 1)  # each takes memory
    yield container, stream


def _streams(container) -> list[Any]:
  """Those of video, but the picture on the cover of a song is none."""
  from av.stream import Disposition

  return [one for one in container.streams.video if not one.disposition & Disposition.attached_pic]


def _stamps(container, stream) -> tuple[list[int | None], int, float]:
  """The presentation time of each frame, in the order of the file; `lost` and `short`."""
  import av

  stamps, count, end = [], 0, 0.0
  try:
    for packet in container.demux():
      if packet.size and packet.pts is not None:
        end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base))
      count += packet.stream is stream and packet.dts is not None  # the end is one without
      if packet.size and packet.stream is stream and not packet.is_discard:
        stamps.append(packet.pts)
        if len(stamps) > MAX_FRAMES:
          raise ValueError(f"expected at most {MAX_FRAMES} frames, got more")
  except av.error.FFmpegError as error:
    raise ValueError(f"frame {len(stamps)}: {_text(error)}") from error
  if not stamps:
    raise ValueError("expected frames, got none")
  if container.format.name == "avi":  # has no times, and FFmpeg's guess is not that of its decoder
    stamps = [None] * len(stamps)
  if None not in stamps and len(set(stamps)) < len(stamps):
    raise ValueError("expected a time of its own for each frame, got equal ones")
  lost = max(0, stream.frames - count)
  if lost > max(2, _FEW * stream.frames):
    got = f"{count} (cut off?)"
    raise ValueError(f"expected {stream.frames} frames, as its header says, got {got}")
  promised = (container.duration or 0) / 1e6 + min(container.start_time or 0, 0) / 1e6
  short = max(0.0, promised - end) if end else 0.0
  if short > max(_SECONDS, _FEW * promised):
    got = f"{end:.2f} (cut off?)"
    raise ValueError(f"expected {promised:.2f} seconds, as its header says, got {got}")
  return stamps, lost, short


def _decoded(container, stream) -> Iterator[Any]:
  """The frames in the order in which they are shown; ValueError where one cannot be decoded."""
  import av

  count = 0
  try:
    for frame in container.decode(stream):
      if frame.is_corrupt:  # what is predicted from it is not marked
        raise ValueError(f"frame {count}: expected a whole one, got damage")
      yield frame
      count += 1
  except av.error.FFmpegError as error:
    raise ValueError(f"frame {count}: expected a whole one, got damage ({_text(error)})") from error


def _turned(frame) -> tuple[int, bool]:
  """Quarters by which a frame is to be turned, counter-clockwise, and whether mirrored after it.

  PyAV's own `rotation` takes a mirror image for one upside down.
  """
  data = frame.side_data.get("DISPLAYMATRIX")
  if data is None:
    return 0, False
  a, b, _, c, d = map(int, np.frombuffer(data, np.int32)[:5])  # (x, y) -> (a x + c y, b x + d y)
  mirrored = a * d < b * c
  quarters = math.atan2(-b, -a if mirrored else a) / (math.pi / 2)
  if abs(quarters - round(quarters)) > 0.01:
    raise ValueError(f"rotation: expected quarter turns, got {90 * quarters:g} degrees")
  return round(quarters) % 4, mirrored


def _jpeg(frame, height: int, width: int, number: int) -> bytes:
  from PIL import Image

  turned, mirrored = _turned(frame)
  if turned % 2:
    height, width = width, height
  if abs(frame.width * height - frame.height * width) > _BENT * frame.height * width:
    got = f"{frame.height} x {frame.width}"
    raise ValueError(f"frame {number}: expected pictures of one shape, got another, {got}")
  # By default each frame starts threads of its own, which takes longer, and can fail.
  options = {"width": width, "height": height, "format": "rgb24", "threads": 1}
  pixels = frame.reformat(**options).to_ndarray()
  pixels = np.rot90(pixels, turned)
  pixels = np.ascontiguousarray(pixels[:, ::-1] if mirrored else pixels)
  into = io.BytesIO()
  Image.fromarray(pixels).save(into, "JPEG", quality=QUALITY)
  return into.getvalue()


def _joined(chunk: list[bytes], missing: int) -> dict[str, np.ndarray]:
  data = np.frombuffer(b"".join(chunk), np.uint8)
  lengths = np.array([len(picture) for picture in chunk], np.int64)
  return {"data": data, "lengths": lengths, "missing": np.array(missing)}


def _text(error: Exception) -> str:
  return getattr(error, "strerror", None) or str(error) or type(error).__name__
