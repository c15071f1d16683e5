"""A moving picture of a recording on which is drawn what was found: the class, and the skeleton.

It is drawn over the frames of a video, or on black where there are poses alone: then the picture is
where somebody is. Beside it stands what the network is given of poses, and below it, of a recording
with windows, the classes so far. Needs `jaxmg[video]`.
"""

import colorsys
import functools
import io
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxmg import errors, files
from jaxmg.data import readers
from jaxmg.skeletons import topology

from . import movies

_SIDE = 480  # the short side of a picture of poses alone, in pixels
_GIF_SIDE = 320  # the short side of a frame in a .gif, at most
_LIMB, _JOINT = (80, 180, 255), (255, 80, 60)
# From 0 to 1, what the network is given: black, violet, red, yellow.
_HEAT = np.array([(0, 0, 4), (80, 18, 123), (182, 54, 121), (251, 135, 97), (252, 253, 191)])


def check(clips: Sequence[Any], clock: Any, suffix: str) -> None:
  """Raises an error where the recordings lack what a video of them needs, or are too long."""
  if clock.fps is None:
    hint = "the file has no rate: --fps=25"
    raise errors.ConfigError("--save", expected="frames a second", got="none", hint=hint)
  if suffix == ".gif":
    movies.check_gif(clock.of(frame) - clock.of(0) for frame in range(clips[0].num_frames))
  clips = [one for one in clips if one.track != "faces"]  # which are drawn in the corner
  sizes = {one.track: one.frame_size for one in _ordered(clips)}
  for one in clips:
    if one.frame_size is None:
      hint = "of the frames that it was taken from: --frame_size=HxW"
      raise errors.DataError(f"the {one.track}", expected="a frame size", got="none", hint=hint)
  if not readers.same_shape(sizes.values()):
    got = " and ".join(f"{h} x {w} of the {track}" for track, (h, w) in sizes.items())
    raise errors.DataError(
      "frame_size", expected="one shape of frames", got=got, hint="of the pose: --frame_size=HxW"
    )


def write(pieces, path, names, clock, *, clips, top, seen) -> Iterator[Any]:
  """The same pieces; each frame is drawn on the way with the best class of its piece."""
  # With decoders of their own: windows are ahead of what is drawn.
  clips = [one.part(0, one.num_frames - 1) for one in _ordered(clips)]
  num_frames, suffix, strip = clips[0].num_frames, path.suffix.lower(), None
  with files.replace(path) as part, movies.MOVIES[suffix](part, clock.fps) as add:
    for first, last, probabilities in pieces:
      k, text, color = None, "nobody", "white"
      if probabilities is not None:
        k = int(probabilities.argmax())
        text = f"{names[k]} {probabilities[k]:.1%}"
      windows = last + 1 - first < num_frames
      if windows and k is not None:
        color = _color(k)
      for frame in range(first, last + 1):
        image = draw(clips, frame)
        if suffix == ".gif" and min(image.size) > _GIF_SIDE:
          image.thumbnail([side * _GIF_SIDE // min(image.size) for side in image.size])
        label(image, text, color)
        for picture in seen.of(frame):
          image = _beside(image, picture)
        if windows:
          strip = strip or Strip(clock, num_frames, image.width)
          image = strip.below(image, frame, None if k is None else (probabilities[k], color))
        add(image, clock.of(frame) - clock.of(0))
      yield first, last, probabilities


class Strip:
  """The best classes over time so far, as a picture: how high a column is, is the probability."""

  def __init__(self, clock: Any, num_frames: int, width: int):
    from PIL import Image

    self._clock, self._start = clock, clock.of(0)
    self._scale = width / (clock.of(num_frames) - self._start)
    self._image = Image.new("RGB", (width, max(20, width // 16)), (40, 40, 40))

  def below(self, image: Any, frame: int, best: tuple[float, Any] | None) -> Any:
    """The picture with the strip below it, on which this frame is drawn: probability and color."""
    from PIL import Image, ImageDraw

    width, height = self._image.size
    left, right = ((self._clock.of(k) - self._start) * self._scale for k in (frame, frame + 1))
    if best:
      top = round(height * (1 - best[0]))
      box = (round(left), top, max(round(left), round(right) - 1), height)
      ImageDraw.Draw(self._image).rectangle(box, best[1])
    both = Image.new("RGB", (image.width, image.height + height))
    both.paste(image)
    both.paste(self._image, (0, image.height))
    now = min(round(right), width - 1)
    ImageDraw.Draw(both).line((now, image.height, now, both.height), "white")
    return both


def draw(clips: Sequence[Any], frame: int) -> Any:
  """A frame as a picture of Pillow: that of the video, and the joints at their place."""
  image = None
  for one in _ordered(clips):
    image = _DRAW[one.track](one, frame, image)
  return image


def label(image: Any, text: str, color: Any = "white") -> None:
  """Writes a line on a picture, at the upper left; as small as it must be to fit."""
  from PIL import ImageDraw, ImageFont

  size = max(10, image.height // 14)
  size = min(size, size * 0.96 * image.width / ImageFont.load_default(size).getlength(text))
  font, canvas = ImageFont.load_default(max(6, size)), ImageDraw.Draw(image)
  place = (size / 4, size / 8)
  left, top, right, bottom = canvas.textbbox(place, text, font)
  margin = size / 4
  canvas.rectangle((left - margin, top - margin, right + margin, bottom + margin), "black")
  canvas.text(place, text, color, font)


def _beside(image, picture):
  """A picture with another one beside it: what the network is given, [H, W] in [0, 1]."""
  from PIL import Image

  values = np.clip(picture, 0, 1)
  heat = np.stack([np.interp(values, np.linspace(0, 1, 5), one) for one in _HEAT.T], -1)
  height, width = values.shape
  top = image.height // 8  # for the label
  below = image.height - top
  size = (max(1, round(width * below / height)), below)
  heat = Image.fromarray(heat.round().astype(np.uint8)).resize(size, Image.Resampling.NEAREST)
  panel = Image.new("RGB", (heat.width, image.height))
  panel.paste(heat, (0, top))
  label(panel, "what the network sees")
  both = Image.new("RGB", (image.width + panel.width, image.height))
  both.paste(image)
  both.paste(panel, (image.width, 0))
  return both


def _color(k):
  """A color of a class by its number: those that follow each other differ."""
  return tuple(round(255 * x) for x in colorsys.hsv_to_rgb(k * 0.618 % 1, 0.55, 1.0))


def _ordered(clips: Sequence[Any]) -> list[Any]:
  """What is drawn on comes first."""
  return sorted(clips, key=lambda one: [*_DRAW].index(one.track))


def _frame(clip, frame, image):
  from PIL import Image

  return Image.open(io.BytesIO(clip.cut(frame, frame)[0])).convert("RGB")


def _skeleton(clip, frame, image):
  from PIL import Image, ImageDraw

  height, width = clip.frame_size
  corner = np.zeros(2)
  if image is None:
    corner, (width, height) = _extent(clip)
    image = Image.new("RGB", (round(width * _SIDE / height), _SIDE))
  canvas, size = ImageDraw.Draw(image), np.array(image.size)
  radius = max(1, round(min(image.size) / 120))
  for person in clip.keypoints[frame]:
    points = (person[:, :2] - corner) * (size / (width, height))
    # What lies far outside cannot be seen, and lines to it take long.
    there = (person[:, 2] > 0) & (np.abs(points - size / 2) < 2 * size).all(-1)
    for limb in topology.get(clip.layout).limbs:
      if there[[*limb]].all():
        canvas.line([tuple(point) for point in points[[*limb]].tolist()], _LIMB, radius)
    for x, y in points[there].tolist():
      canvas.ellipse((x - radius, y - radius, x + radius, y + radius), _JOINT)
  return image


@functools.lru_cache(maxsize=1)
def _extent(clip):
  """Where anybody is in a recording of poses: the upper left corner, and width and height."""
  there = clip.keypoints[..., 2] > 0
  points = clip.keypoints[there][:, :2] if there.any() else np.float32([[0, 0]])
  low, high = np.percentile(points, (0.5, 99.5), axis=0)  # a few joints may be anywhere
  width, height = np.maximum(1.35 * (high - low), 1)
  width = max(width, height)
  sides = np.array([width, max(height, width * 9 / 16)])
  return (low + high) / 2 - sides * (0.5, 0.55), sides  # more room above, for the label


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
