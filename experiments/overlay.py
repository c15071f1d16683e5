"""A video of a recording on which is drawn what was found: the class, and the skeleton.

It is drawn over the frames of a video, or on black where there are poses alone. Needs
`jaxmg[video]`.
"""

import contextlib
import fractions
import io
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from jaxmg import errors, files
from jaxmg.skeletons import topology

CODECS = ("libx264", "mpeg4")  # the first that is there
_TICK = fractions.Fraction(1, 60_000)  # of a second: 25 and 30000/1001 frames are whole numbers
_SIDE = 480  # the short side of a picture of poses alone, in pixels
_LIMB, _JOINT = (80, 180, 255), (255, 80, 60)


def check(clips: Sequence[Any], fps: float | None) -> None:
  """Raises an error where the recordings lack what a video of them needs."""
  if fps is None:
    hint = "the file has no rate: --fps=25"
    raise errors.ConfigError("--save", expected="frames a second", got="none", hint=hint)
  clips = [one for one in clips if one.track != "faces"]  # which are drawn in the corner
  sizes = {one.track: one.frame_size for one in _ordered(clips)}
  for one in clips:
    if one.frame_size is None:
      hint = "of the frames that it was taken from: --frame_size=HxW"
      raise errors.DataError(f"the {one.track}", expected="a frame size", got="none", hint=hint)
  shapes = [width / height for height, width in sizes.values()]
  if max(shapes) > 1.03 * min(shapes):
    got = " and ".join(f"{h} x {w} of the {track}" for track, (h, w) in sizes.items())
    raise errors.DataError(
      "frame_size", expected="one shape of frames", got=got, hint="of the pose: --frame_size=HxW"
    )


def write(pieces, path, names, clock, *, clips, top) -> Iterator[Any]:
  """The same pieces; each frame is drawn on the way with the best class of its piece."""
  # With decoders of their own: windows are ahead of what is drawn.
  clips = [one.part(0, one.num_frames - 1) for one in _ordered(clips)]
  with files.replace(path) as part, _written(part, clock.fps) as add:
    for first, last, probabilities in pieces:
      text = "nobody"
      if probabilities is not None:
        k = probabilities.argmax()
        text = f"{names[k]} {probabilities[k]:.1%}"
      for frame in range(first, last + 1):
        image = draw(clips, frame)
        label(image, text)
        add(image, clock.of(frame) - clock.of(0))
      yield first, last, probabilities


def draw(clips: Sequence[Any], frame: int) -> Any:
  """A frame as a picture of Pillow: that of the video, and the joints at their place."""
  image = None
  for one in _ordered(clips):
    image = _DRAW[one.track](one, frame, image)
  return image


def label(image: Any, text: str) -> None:
  """Writes a line on a picture, at the upper left; as small as it must be to fit."""
  from PIL import ImageDraw, ImageFont

  size = max(10, image.height // 14)
  size = min(size, size * 0.96 * image.width / ImageFont.load_default(size).getlength(text))
  font, canvas = ImageFont.load_default(max(6, size)), ImageDraw.Draw(image)
  place = (size / 4, size / 8)
  left, top, right, bottom = canvas.textbbox(place, text, font)
  margin = size / 4
  canvas.rectangle((left - margin, top - margin, right + margin, bottom + margin), "black")
  canvas.text(place, text, "white", font)


def _ordered(clips: Sequence[Any]) -> list[Any]:
  """What is drawn on comes first."""
  return sorted(clips, key=lambda one: [*_DRAW].index(one.track))


def _frame(clip, frame, image):
  from PIL import Image

  return Image.open(io.BytesIO(clip.cut(frame, frame)[0])).convert("RGB")


def _skeleton(clip, frame, image):
  from PIL import Image, ImageDraw

  height, width = clip.frame_size
  if image is None:
    scale = min(_SIDE / min(height, width), 4 * _SIDE / max(height, width))
    image = Image.new("RGB", (max(1, round(width * scale)), max(1, round(height * scale))))
  canvas, size = ImageDraw.Draw(image), np.array(image.size)
  radius = max(1, round(min(image.size) / 120))
  for person in clip.keypoints[frame]:
    points = person[:, :2] * (size / (width, height))
    # What lies far outside cannot be seen, and lines to it take long.
    there = (person[:, 2] > 0) & (np.abs(points - size / 2) < 2 * size).all(-1)
    for limb in topology.get(clip.layout).limbs:
      if there[[*limb]].all():
        canvas.line([tuple(point) for point in points[[*limb]].tolist()], _LIMB, radius)
    for x, y in points[there].tolist():
      canvas.ellipse((x - radius, y - radius, x + radius, y + radius), _JOINT)
  return image


def _face(clip, frame, image):
  """The face that is nearest in time, in the corner; none that is half a second away."""
  from PIL import Image

  away = np.abs(clip.crops.times - clip.times[frame])
  if image is None or away.min() > 0.5:
    return image
  found = Image.open(io.BytesIO(clip.crops.pictures[int(away.argmin())])).convert("RGB")
  side = max(8, min(image.size) // 4)
  image.paste(found.resize((side, side)), (image.width - side, image.height - side))
  return image


_DRAW = {"video": _frame, "pose": _skeleton, "faces": _face}


@contextlib.contextmanager
def _written(path: pathlib.Path, fps: float) -> Iterator[Callable]:
  """Gives `add(picture, seconds)`, for frames in the order of time, of one size."""
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
