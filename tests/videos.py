"""Small videos whose frames carry their number, and files that are nearly videos."""

import fractions
import struct

import av
import numpy as np

HEIGHT, WIDTH = 48, 64
_MARK = np.arange(8) < 4  # the first row: what is turned or mirrored has another


def picture(number, height=HEIGHT, width=WIDTH):
  """uint8[H, W, 3]: 6 x 8 black and white blocks, the number in the second and third row."""
  blocks = np.zeros((6, 8), bool)
  blocks[0] = _MARK
  blocks[1:3] = (number >> np.arange(16) & 1).reshape(2, 8)
  y, x = (np.arange(n) * m // n for n, m in ((height, 6), (width, 8)))
  return np.uint8(255 * blocks[y][:, x])[..., None].repeat(3, -1)


def number(image):
  """The number of a picture of any size; AssertionError for one that is not upright."""
  image = np.asarray(image, np.float32)
  image = image if image.ndim == 2 else image.mean(-1)
  y, x = ((np.arange(m) + 0.5) * n / m for n, m in zip(image.shape, (6, 8), strict=True))
  values = image[np.ix_(y.astype(int), x.astype(int))]
  assert ((values < 90) | (values > 165)).all(), values
  blocks = values > 127
  np.testing.assert_array_equal(blocks[0], _MARK)
  assert not blocks[3:].any()
  return int((blocks[1:3].ravel() << np.arange(16)).sum())


def write(
  path,
  count=20,
  *,
  codec="libx264",
  rate=25,
  times=None,
  size=(HEIGHT, WIDTH),
  pixels="yuv420p",
  options=None,
  container_options=None,
  change=lambda image: image,
  sound=False,
  interlaced=False,
):
  """Frames 0 to `count` - 1; `times` are their presentation times in ms, in place of a rate."""
  height, width = size
  with av.open(str(path), "w", options=container_options or {}) as container:
    rate = fractions.Fraction(rate).limit_denominator(1001)
    stream = container.add_stream(codec, rate=rate)
    shape = change(picture(0, height, width)).shape
    stream.height, stream.width, stream.pix_fmt = *shape[:2], pixels
    stream.options = {} if options is None else options
    unit = 1 / rate if times is None else fractions.Fraction(1, 1000)
    stream.codec_context.time_base = unit
    if sound:
      speech = container.add_stream("aac", rate=8000, layout="mono")
    for k in range(count):
      image = change(picture(k, height, width))
      frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), "rgb24")
      if pixels != "rgb24":
        frame = frame.reformat(format=pixels)
      frame.pts, frame.time_base = k if times is None else times[k], unit
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
    if sound:
      wave = np.zeros((1, 8000 * count // int(rate)), np.float32)
      frame = av.AudioFrame.from_ndarray(wave, "fltp", "mono")
      frame.rate, frame.pts = 8000, 0
      container.mux(speech.encode(frame))
      container.mux(speech.encode())
  return path


# What a phone writes, by the degrees by which pictures are turned clockwise to be shown:
# (x, y) -> (a x + c y, b x + d y), moved to where both are positive.
MATRICES = {
  90: (0, 1, -1, 0),
  180: (-1, 0, 0, -1),
  270: (0, -1, 1, 0),
  "mirrored": (-1, 0, 0, 1),
}


def turn(path, turned):
  """Writes one of `MATRICES` into an mp4."""
  data = bytearray(path.read_bytes())
  at = data.index(b"tkhd") + 44
  assert struct.unpack_from(">9i", data, at)[0] == 1 << 16
  a, b, c, d = (value << 16 for value in MATRICES[turned])
  struct.pack_into(">9i", data, at, a, b, 0, c, d, 0, 0, 0, 1 << 30)
  path.write_bytes(data)
