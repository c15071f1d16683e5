"""Frames of a video: decoded on the host, cropped and changed on the device."""

import dataclasses
import functools
import io
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int64, Key, UInt8

from jaxmg import ranges, video
from jaxmg.inputs import whole
from jaxmg.skeletons import sampling as frames

STREAMS = ("frames", "motion", "both")
SAMPLING = ("seconds", "uniform")


@dataclasses.dataclass(frozen=True)
class Video:
  """Pictures -> float32[B, T, H, W, C], normalised.

  A record is a mapping: `frames` pictures as bytes (JPEG or PNG), `times` float64[T] in seconds or
  NaN, and `frame_size` (height, width). The host decodes the frames that are drawn, and makes them
  fit into our `frame_size`; they go to the device as uint8.

  By `sampling="seconds"`, T frames are evenly spaced over so many `seconds` of the clip, which
  begin at random in training and evenly spread in test clips. A clip that is not longer, and any by
  "uniform", gives a frame of each of T equal parts, in training of a random part of the clip, whose
  share is between the two of `crop`. The `stream` "motion" is what the next frame differs by, three
  times, and 0 for the last; "both" has it as more channels, after those of the frames. `crop_area`
  is what training shows of a frame's area, `test_crop` the side of the square in the middle that
  tests show, of the short one. `brightness`, `contrast`, `saturation` and `erase` are those of
  `jaxmg.video`.
  """

  track: ClassVar[str] = "video"
  # What a network that is not trained any more must go on being shown.
  SEEN: ClassVar[tuple[str, ...]] = (
    "channels", "stream", "sampling", "num_frames", "seconds", "size", "mean", "std",
  )  # fmt: skip

  frame_size: tuple[int, int]
  channels: int = 3
  stream: Literal[STREAMS] = "frames"
  sampling: Literal[SAMPLING] = "seconds"
  num_frames: Annotated[int, "[1, 1024]"] = 16
  seconds: Annotated[float, "(0, 3600]"] = 64 / 30  # of weights of Kinetics
  crop: Annotated[tuple[float, float], "(0, 1]"] = (1.0, 1.0)
  size: Annotated[int, "[8, 1024]"] = 224
  crop_area: Annotated[tuple[float, float], "(0, 1]"] = (0.08, 1.0)
  test_crop: Annotated[float, "(0, 1]"] = 0.875
  brightness: Annotated[float, "[0, 1]"] = 0.0
  contrast: Annotated[float, "[0, 1]"] = 0.0
  saturation: Annotated[float, "[0, 1]"] = 0.0
  erase: Annotated[float, "[0, 1]"] = 0.0
  mean: Annotated[float, "[0, 1]"] = 0.45
  std: Annotated[float, "(0, 1]"] = 0.225

  def __post_init__(self):
    ranges.check(self)
    ranges.check_frame_size(self.frame_size)
    if self.channels not in (1, 3):
      raise ValueError(f"channels: expected 1 or 3, got {self.channels}")

  @property
  def told(self) -> dict[str, Any]:
    """A video leaves nothing open."""
    return {}

  def __str__(self) -> str:
    span = f"{self.seconds:.3g} s" if self.sampling == "seconds" else "a clip"
    what = {"frames": "", "motion": "motion of ", "both": "motion and "}[self.stream]
    return f"{what}{self.num_frames} frames over {span}, {self.size} x {self.size}"

  def check(self, about: Mapping[str, Any]) -> None:
    """Raises ValueError where records of this kind lack what we take."""
    if about["channels"] != self.channels:
      raise ValueError(f"channels: expected {self.channels}, got {about['channels']}")
    if self.sampling == "seconds" and not about["timed"]:
      expected = "when each frame is shown (of an array: fps=)"
      raise ValueError(f'times: expected {expected}, which sampling="seconds" needs, got none')

  def check_shown(self, record: Mapping[str, Any]) -> None:
    """Every video shows something."""

  def shows(self, record: Mapping[str, Any]) -> bool:
    """Whether it shows anything."""
    return True

  def read(self, record: Mapping[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A training clip: frames drawn at random."""
    start, share = rng.random(), rng.uniform(*self.crop)  # the start first: see `jaxmg.recipe`
    phases = rng.random(self.num_frames)
    return self._part(record, self._drawn(record["times"], start, phases, share))

  def read_test(self, record: Mapping[str, Any], num_clips: int) -> dict[str, np.ndarray]:
    """A test clip: `num_clips` choices of frames, on an axis before all others."""
    chosen = self.sampled(record, num_clips)
    part = self._part(record, chosen.ravel())
    pictures = part["frames"]
    return part | {"frames": pictures.reshape(*chosen.shape, *pictures.shape[1:])}

  def sampled(self, record: Mapping[str, Any], num_clips: int) -> Int64[np.ndarray, "n t"]:
    """Which frames of the recording `read_test` takes."""
    return np.stack([self._drawn(record["times"], *one) for one in starts_of_tests(num_clips)])

  def _drawn(self, times, start: float, phase, share: float = 1.0) -> Int64[np.ndarray, " t"]:
    """The frames of a clip.

    `start` in [0, 1] places the seconds, or a `share` of the clip, and `phase` a frame in its part.
    """
    length, step = len(times), np.median(np.diff(times)) if len(times) > 1 else np.nan
    spare = times[-1] - times[0] + step - self.seconds
    if self.sampling == "uniform" or not spare > 0:
      part = max(1, round(share * length))
      return round(start * (length - part)) + frames.evenly(part, self.num_frames, phase)
    at = times[0] + start * spare + np.arange(self.num_frames) * self.seconds / self.num_frames
    later = np.clip(np.searchsorted(times, at), 1, length - 1)
    nearer = at - times[later - 1] <= times[later] - at
    return later - nearer

  @property
  def whole_options(self) -> tuple[str, ...]:
    """What `whole` has to be told of recordings, where it is known."""
    return ("frame_size", "fps") if self.sampling == "seconds" else ("frame_size",)

  def whole(
    self,
    num_frames: int,
    num_clips: int,
    *,
    frame_size: tuple[int, int] | None = None,
    fps: float | None = None,
  ) -> whole.Whole:
    """What it takes of whole recordings of so many frames (`whole.Whole`), and how it reads them.

    The frames have a size (height, width; else ours), and come at a rate; without one, all of
    them last as long as what is seen, `seconds`.
    """
    size = frame_size or self.frame_size
    chosen = self.sampled({"times": evenly_timed(num_frames, self.seconds, fps)}, num_clips)
    shown = self._shown(size)
    rows, columns = (most - side for most, side in zip(self.frame_size, shown, strict=True))
    numbers, places = np.unique(chosen, return_inverse=True)

    def read(part):
      pictures = whole.shrunk(part["frames"][:, numbers], shown)[:, places.reshape(chosen.shape)]
      pad = (*[(0, 0)] * 3, (0, rows), (0, columns), (0, 0))
      sizes = jnp.broadcast_to(jnp.int32(shown), (pictures.shape[0], 2))
      return {"frames": jnp.pad(pictures, pad, "edge"), "frame_size": sizes}

    shape = (num_frames, *size, self.channels)
    colors = "red, green, blue" if self.channels == 3 else "brightness"
    about = {"frames": f"batch, frames, rows, columns, values; {colors} from 0 to 255"}
    return whole.Whole({"frames": jax.ShapeDtypeStruct(shape, jnp.uint8)}, about, read, chosen)

  def _shown(self, size):
    height, width = self.frame_size
    scale = min(1, height / size[0], width / size[1])
    return tuple(max(1, round(side * scale)) for side in size)

  def _part(self, record, chosen):
    size = tuple(map(int, record["frame_size"]))
    height, width = self.frame_size
    shown = self._shown(size)
    pictures = np.empty((len(chosen), height, width, self.channels), np.uint8)
    rows, columns = shown
    fill(pictures[:, :rows, :columns], record["frames"], chosen, size)
    pictures[:, rows:, :columns] = pictures[:, rows - 1 : rows, :columns]
    pictures[:, :, columns:] = pictures[:, :, columns - 1 : columns]
    return {"frames": pictures, "frame_size": np.int32(shown)}

  def example(self, num_clips: int | None = None) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of one: of training, or of `num_clips` test clips."""
    views = () if num_clips is None else (num_clips,)
    shape = (1, *views, self.num_frames, *self.frame_size, self.channels)
    return {
      "frames": jax.ShapeDtypeStruct(shape, jnp.uint8),
      "frame_size": jax.ShapeDtypeStruct((1, 2), jnp.int32),
    }

  def train(
    self, keys: Key[Array, " b"], part: dict[str, Array], mirror: bool | Bool[Array, " b"]
  ) -> Float[Array, "b t h w c"]:
    """A batch of training clips, changed by one key each."""

    def change(key, pictures, frame_size, mirrored):
      crop_key, mirror_key, color_key, erase_key = jax.random.split(key, 4)
      box = video.random_box(crop_key, frame_size, area=self.crop_area)
      x = video.crop(unit(pictures), box, size=self.size)
      if mirrored is True:
        mirrored = jax.random.bernoulli(mirror_key)
      if mirrored is not False:
        x = jnp.where(mirrored, video.flip(x), x)
      names = ("brightness", "contrast", "saturation")
      x = video.change_colors(color_key, x, **{name: getattr(self, name) for name in names})
      x = self._streamed(x)
      return video.erase(erase_key, x, probability=self.erase) if self.erase else x

    if isinstance(mirror, bool):
      change = functools.partial(change, mirrored=mirror)
      return jax.vmap(change)(keys, part["frames"], part["frame_size"])
    return jax.vmap(change)(keys, part["frames"], part["frame_size"], mirror)

  def views(self, part: dict[str, Array], mirror: bool) -> dict[str, Array]:
    """All views of test clips, still as pictures: N clips, and their mirror images after them."""
    views = clips_and_mirrored(part["frames"], mirror)
    number = len(views["frames"])
    sizes = jnp.broadcast_to(part["frame_size"], (number, *part["frame_size"].shape))
    return views | {"frame_size": sizes}

  def ones(self, view: dict[str, Array]) -> Float[Array, "b t h w"]:
    """A mask of the pixels that are shown, not mirrored; what it hides is grey, or still."""
    return jnp.ones((*view["frames"].shape[:2], self.size, self.size))

  def view(
    self, view: dict[str, Array], mask: Float[Array, "b t h w"] | None = None
  ) -> Float[Array, "b t h w c"]:
    """One view of test clips: the square in the middle."""

    def middle(pictures, frame_size):
      box = video.centred_box(frame_size, self.test_crop)
      return self._streamed(video.crop(unit(pictures), box, size=self.size))

    x = jax.vmap(middle)(view["frames"], view["frame_size"])
    x = x if mask is None else x * mask[..., None]
    return jnp.where(view["mirrored"], video.flip(x), x)

  def _streamed(self, x: Float[Array, "t h w c"]) -> Float[Array, "t h w d"]:
    x = video.normalize(x, mean=self.mean, std=self.std)
    if self.stream == "frames":
      return x
    motion = 3 * video.motion(x)  # from frame to frame little changes
    return motion if self.stream == "motion" else jnp.concatenate([x, motion], -1)

  def draw(self, axes: Any, part: Mapping[str, np.ndarray], clip: int, frame: int) -> None:
    """Draws a frame of the first view of a test clip with Matplotlib."""
    height, width = part["frame_size"][clip]
    picture = part["frames"][clip, 0, frame, :height, :width]
    axes.imshow(picture.squeeze(-1) if self.channels == 1 else picture, cmap="gray")

  def picture(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t h w"]:
    """What a person should see of it: its brightness; of motion alone, from -1 to 1."""
    mean = 0.0 if self.stream == "motion" else self.mean
    return video.grey(x[..., : self.channels] * self.std + mean)[..., 0]


def starts_of_tests(num_clips: int) -> Iterator[tuple[float, float]]:
  """Where each test clip starts in what there is to spare, in [0, 1], and its phase in a part."""
  starts = np.linspace(0, 1, num_clips) if num_clips > 1 else (0.5,)
  return zip(starts, (np.arange(num_clips) + 0.5) / num_clips, strict=True)


def evenly_timed(
  num_frames: int, seconds: float, fps: float | None
) -> Float[np.ndarray, " {num_frames}"]:
  """When each frame is shown; without a rate, all of them last so many seconds."""
  return np.arange(num_frames) / (fps or num_frames / seconds)


def clips_and_mirrored(pictures: UInt8[Array, "b n *c"], mirror: bool) -> dict[str, Array]:
  """N clips as views, and after them, to be mirrored, the same once more."""
  pictures = jnp.moveaxis(pictures, 1, 0)
  mirrored = np.repeat([False, True][: 1 + mirror], len(pictures))
  pictures = jnp.concatenate([pictures] * (1 + mirror))
  return {"frames": pictures, "mirrored": jnp.asarray(mirrored)}


def unit(pictures: UInt8[Array, "*b"]) -> Float[Array, "*b"]:
  """Bytes -> values in [0, 1]."""
  return pictures.astype(jnp.float32) / 255


def fill(
  pictures: UInt8[np.ndarray, "n h w c"],
  frames: Sequence[bytes],
  chosen: Int64[np.ndarray, " n"],
  size: tuple[int, int],
) -> None:
  """Decodes the frames that are chosen into `pictures`, each once; they have this size."""
  before = None
  for place in np.argsort(chosen, kind="stable").tolist():  # a file is decoded forwards
    if before is not None and chosen[before] == chosen[place]:
      pictures[place] = pictures[before]
      continue
    shape = pictures.shape
    pictures[place] = decode(frames[int(chosen[place])], size, shape[1:3], shape[3])
    before = place


def decode(
  picture: bytes, size: tuple[int, int], shown: tuple[int, int], channels: int
) -> UInt8[np.ndarray, "h w c"]:
  """A JPEG or PNG of `size` (height, width), made smaller where less is `shown`.

  Raises ValueError for a picture that is damaged, or of another size or number of channels.
  """
  import simplejpeg
  from PIL import Image

  mode = {1: "L", 3: "RGB"}[channels]
  try:
    if picture[:2] == b"\xff\xd8":  # a JPEG: in a third of Pillow's time, to the same values
      *found, colors, _ = simplejpeg.decode_jpeg_header(picture)
      found, theirs = tuple(found), "L" if colors == "Gray" else "RGB"
      if (found, theirs) == (size, mode):
        image = simplejpeg.decode_jpeg(picture, "RGB" if channels == 3 else "GRAY")
        if shown == size:
          return image
        image = Image.fromarray(image.squeeze(-1) if channels == 1 else image)
    else:
      image = Image.open(io.BytesIO(picture), formats=("PNG",))
      found, theirs = image.size[::-1], image.mode
      image.load()
    if (found, theirs) == (size, mode):
      if shown != size:
        image = image.resize(shown[::-1], Image.Resampling.BILINEAR)
      return np.asarray(image).reshape(*shown, channels)
  except (OSError, SyntaxError, ValueError) as error:  # of damage
    raise ValueError(f"frames: expected a whole picture, got {error}") from error
  raise ValueError(f"frames: expected {mode} of {size}, got {theirs} of {found}")
