"""Aligned faces of a recording: decoded on the host, changed on the device."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int64, Key

from jaxmg import ranges, video
from jaxmg.inputs import video as frames
from jaxmg.inputs import whole


@dataclasses.dataclass(frozen=True)
class Faces:
  """Aligned faces -> float32[B, T, H, W, 3], normalised.

  A record is a mapping: `frames` pictures as bytes, `times` float64[n], when each is seen, `span`
  float64[2], when the recording begins and ends, all in seconds, and `size`, the pixels of a side.
  The host decodes the faces that are drawn, smaller where our `size` is; they go to the device as
  uint8.

  T moments are those of `inputs.Video` for the same draw: by `sampling="seconds"`, evenly spaced
  over so many `seconds` of the recording, which begin at random in training and evenly spread in
  test clips. In a recording that is not longer, and by "uniform", there is a moment in each of T
  equal parts of it, in training of a random share of it, between the two of `crop`. Of each moment
  the nearest face in time is taken, of those in the window; where a window has none, the nearest of
  all stand in: every clip has T faces, of which many may be the same. `brightness`, `contrast` and
  `erase` are those of `jaxmg.video`.
  """

  track: ClassVar[str] = "faces"
  # What a network that is not trained any more must go on being shown.
  SEEN: ClassVar[tuple[str, ...]] = ("sampling", "num_frames", "seconds", "size", "mean", "std")

  sampling: Literal[frames.SAMPLING] = "seconds"
  num_frames: Annotated[int, "[1, 1024]"] = 8
  seconds: Annotated[float, "(0, 3600]"] = 64 / 30  # as of `inputs.Video`
  crop: Annotated[tuple[float, float], "(0, 1]"] = (1.0, 1.0)
  size: Annotated[int, "[8, 1024]"] = 112
  brightness: Annotated[float, "[0, 1]"] = 0.0
  contrast: Annotated[float, "[0, 1]"] = 0.0
  erase: Annotated[float, "[0, 1]"] = 0.0
  mean: Annotated[float, "[0, 1]"] = 0.5
  std: Annotated[float, "(0, 1]"] = 0.5

  def __post_init__(self):
    ranges.check(self)

  @property
  def told(self) -> dict[str, Any]:
    """Faces leave nothing open."""
    return {}

  def __str__(self) -> str:
    span = f"{self.seconds:.3g} s" if self.sampling == "seconds" else "a clip"
    return f"{self.num_frames} faces over {span}, {self.size} x {self.size}"

  def check(self, about: Mapping[str, Any]) -> None:
    """Raises ValueError where records of this kind lack what we take."""
    if about["size"] < self.size:
      raise ValueError(f"size: expected at most {about['size']}, got {self.size}")

  def check_shown(self, record: Mapping[str, Any]) -> None:
    """Raises ValueError where there is no face."""
    if not self.shows(record):
      raise ValueError("faces: expected at least one, got none")

  def shows(self, record: Mapping[str, Any]) -> bool:
    """Whether there is a face."""
    return len(record["frames"]) > 0

  def read(self, record: Mapping[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A training clip: faces of moments drawn at random."""
    # As `inputs.Video` draws them, so that both see the same moment.
    start, share = rng.random(), rng.uniform(*self.crop)
    phases = rng.random(self.num_frames)
    return self._part(record, self._drawn(record, start, phases, share))

  def read_test(self, record: Mapping[str, Any], num_clips: int) -> dict[str, np.ndarray]:
    """A test clip: `num_clips` choices of faces, on an axis before all others."""
    chosen = self.sampled(record, num_clips)
    pictures = self._part(record, chosen.ravel())["frames"]
    return {"frames": pictures.reshape(*chosen.shape, *pictures.shape[1:])}

  def sampled(self, record: Mapping[str, Any], num_clips: int) -> Int64[np.ndarray, "n t"]:
    """Which faces of the record `read_test` takes."""
    return np.stack([self._drawn(record, *one) for one in frames.starts_of_tests(num_clips)])

  def _drawn(self, record, start: float, phase, share: float = 1.0) -> Int64[np.ndarray, " t"]:
    """The faces of a clip: `start`, `phase` and `share` as of `inputs.Video`."""
    first, last = record["span"]
    spare = last - first - self.seconds
    if self.sampling == "uniform" or not spare > 0:
      seconds = share * (last - first)
      first += start * (last - first - seconds)
    else:
      seconds, phase = self.seconds, 0.0
      first += start * spare
    step = seconds / self.num_frames
    at = first + (np.arange(self.num_frames) + phase) * step
    # The window, and half a step before it, which is as near to the first moment.
    times = record["times"]
    low, high = np.searchsorted(times, (first - step / 2, first + seconds))
    if low == high:
      low, high = 0, len(times)
    later = np.searchsorted(times[low:high], at)
    later = low + np.clip(later, min(1, high - low - 1), high - low - 1)
    earlier = np.maximum(later - 1, low)
    nearer = at - times[earlier] <= times[later] - at
    return np.where(nearer, earlier, later)

  @property
  def whole_options(self) -> tuple[str, ...]:
    """What `whole` has to be told of recordings, where it is known."""
    return ("fps",) if self.sampling == "seconds" else ()

  def whole(self, num_frames: int, num_clips: int, *, fps: float | None = None) -> whole.Whole:
    """What it takes of whole recordings of so many frames (`whole.Whole`), with a face in each.

    Their rate is as in `inputs.Video`; faces have our `size`.
    """
    times = frames.evenly_timed(num_frames, self.seconds, fps)
    span = np.array([0.0, num_frames * (times[1] if num_frames > 1 else self.seconds)])
    chosen = self.sampled({"times": times, "span": span}, num_clips)
    shape = (num_frames, self.size, self.size, 3)
    about = "batch, faces, rows, columns, values; an aligned face of each frame, red, green, blue"
    return whole.Whole(
      {"frames": jax.ShapeDtypeStruct(shape, jnp.uint8)},
      {"frames": f"{about} from 0 to 255"},
      lambda part: {"frames": part["frames"][:, chosen]},
      chosen,
    )

  def _part(self, record, chosen):
    pictures = np.empty((len(chosen), self.size, self.size, 3), np.uint8)
    frames.fill(pictures, record["frames"], chosen, (record["size"],) * 2)
    return {"frames": pictures}

  def example(self, num_clips: int | None = None) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of one: of training, or of `num_clips` test clips."""
    views = () if num_clips is None else (num_clips,)
    shape = (1, *views, self.num_frames, self.size, self.size, 3)
    return {"frames": jax.ShapeDtypeStruct(shape, jnp.uint8)}

  def train(
    self, keys: Key[Array, " b"], part: dict[str, Array], mirror: bool | Bool[Array, " b"]
  ) -> Float[Array, "b t h w c"]:
    """A batch of training clips, changed by one key each."""

    def change(key, pictures, mirrored):
      mirror_key, color_key, erase_key = jax.random.split(key, 3)
      x = frames.unit(pictures)
      if mirrored is True:
        mirrored = jax.random.bernoulli(mirror_key)
      if mirrored is not False:
        x = jnp.where(mirrored, video.flip(x), x)
      changes = {"brightness": self.brightness, "contrast": self.contrast}
      x = video.change_colors(color_key, x, **changes)
      x = video.normalize(x, mean=self.mean, std=self.std)
      return video.erase(erase_key, x, probability=self.erase) if self.erase else x

    if isinstance(mirror, bool):
      return jax.vmap(functools.partial(change, mirrored=mirror))(keys, part["frames"])
    return jax.vmap(change)(keys, part["frames"], mirror)

  def views(self, part: dict[str, Array], mirror: bool) -> dict[str, Array]:
    """All views of test clips, still as pictures: N clips, and their mirror images after them."""
    return frames.clips_and_mirrored(part["frames"], mirror)

  def ones(self, view: dict[str, Array]) -> Float[Array, "b t h w"]:
    """A mask of the pixels that are shown, not mirrored; what it hides is grey."""
    return jnp.ones(view["frames"].shape[:-1])

  def view(
    self, view: dict[str, Array], mask: Float[Array, "b t h w"] | None = None
  ) -> Float[Array, "b t h w c"]:
    """One view of test clips."""
    x = video.normalize(frames.unit(view["frames"]), mean=self.mean, std=self.std)
    x = x if mask is None else x * mask[..., None]
    return jnp.where(view["mirrored"], video.flip(x), x)

  def draw(self, axes: Any, part: Mapping[str, np.ndarray], clip: int, frame: int) -> None:
    """Draws a face of the first view of a test clip with Matplotlib."""
    axes.imshow(part["frames"][clip, 0, frame])

  def picture(self, x: Float[Array, "b t h w c"]) -> Float[Array, "b t h w"]:
    """What a person should see of it: its brightness."""
    return video.grey(x * self.std + self.mean)[..., 0]
