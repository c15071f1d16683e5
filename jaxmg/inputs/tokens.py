"""Tokens that a network has made of the clips before: read, and handed to a fusion."""

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmg import ranges


@dataclasses.dataclass(frozen=True)
class Tokens:
  """Views of tokens -> {"tokens" float32[B, L, D], "times" float32[B, L]}, for `models.fusion`.

  A record is a mapping: `views`, each of `tokens` float16[L, D] and `times` float32[L], and
  `test_views`, how many of them, the first ones, are for tests (`jaxmg.data.tracks.Tokens`). A set
  may have tokens of several networks: `track` names ours, and `encoder` is the fingerprint of the
  network that made them; those of another one are refused. In training, a view is drawn at random;
  with `windows`, so many of them, spread over all, on an axis of their own: "tokens"
  float32[B, W, L, D]. Tokens have no mirror image.
  """

  # What a network that is not trained any more must go on being shown.
  SEEN: ClassVar[tuple[str, ...]] = ("num_tokens", "width", "encoder")
  num_frames: ClassVar[int] = 1  # of what is drawn: the tokens of a view
  whole_options: ClassVar[tuple[str, ...]] = ()

  track: str
  num_tokens: Annotated[int, "[1, 65536]"]
  width: Annotated[int, "[1, 65536]"]
  encoder: str
  windows: Annotated[int, "[0, 4096]"] = 0

  def __post_init__(self):
    ranges.check(self)

  @property
  def told(self) -> dict[str, Any]:
    """No raw file holds tokens."""
    return {}

  def __str__(self) -> str:
    return f"{self.num_tokens} tokens of {self.track}"

  def check(self, about: Mapping[str, Any]) -> None:
    """Raises ValueError where the tokens are of another network, or of another shape."""
    for name in ("encoder", "num_tokens", "width"):
      if about[name] != (ours := getattr(self, name)):
        raise ValueError(f"{self.track}: {name}: expected {ours}, got {about[name]}")

  def check_shown(self, record: Mapping[str, Any]) -> None:
    """Whatever the network has made of a clip is something."""

  def shows(self, record: Mapping[str, Any]) -> bool:
    """Whether it shows anything."""
    return True

  def read(self, record: Mapping[str, Any], rng: np.random.Generator) -> dict[str, np.ndarray]:
    """A training clip: of its views, drawn first, so that several networks show the same."""
    if not self.windows:
      view = record["views"][int(rng.random() * len(record["views"]))]
      return {"tokens": view["tokens"], "times": view["times"]}
    places = (np.arange(self.windows) + rng.random(self.windows)) / self.windows
    chosen = (places * len(record["views"])).astype(int).tolist()
    views = [record["views"][k] for k in chosen]
    return {"tokens": np.stack([view["tokens"] for view in views]), "times": views[0]["times"]}

  def read_test(self, record: Mapping[str, Any], num_clips: int) -> dict[str, np.ndarray]:
    """A test clip: `num_clips` of its test views, evenly spread; of fewer, some several times."""
    chosen = (np.arange(num_clips) + 0.5) * record["test_views"] / num_clips
    views = [record["views"][k] for k in chosen.astype(int).tolist()]
    return {"tokens": np.stack([view["tokens"] for view in views]), "times": views[0]["times"]}

  def sampled(self, record: Mapping[str, Any], num_clips: int) -> Int[np.ndarray, "n t"]:
    """The numbers of the tokens, in the place of frames."""
    return np.tile(np.arange(self.num_tokens), (num_clips, 1))

  def whole(self, num_frames: int, num_clips: int) -> None:
    """Raises ValueError: no recording holds tokens."""
    raise ValueError(f"{self.track}: expected what a recording holds, got tokens of a network")

  def example(self, num_clips: int | None = None) -> dict[str, jax.ShapeDtypeStruct]:
    """The shapes of a batch of one: of training, or of `num_clips` test clips."""
    views = (num_clips,) if num_clips else (self.windows,) if self.windows else ()
    return {
      "tokens": jax.ShapeDtypeStruct((1, *views, self.num_tokens, self.width), jnp.float16),
      "times": jax.ShapeDtypeStruct((1, self.num_tokens), jnp.float32),
    }

  def train(
    self, keys: Key[Array, " b"], part: dict[str, Array], mirror: bool | Bool[Array, " b"]
  ) -> dict[str, Array]:
    """A batch of training clips, as they are; ValueError where some are to be mirrored."""
    return self.view(self._unmirrored(part, mirror))

  def views(self, part: dict[str, Array], mirror: bool) -> dict[str, Array]:
    """All views of test clips, on a leading axis."""
    views = jnp.moveaxis(self._unmirrored(part, mirror)["tokens"], 1, 0)
    times = jnp.broadcast_to(part["times"], (len(views), *part["times"].shape))
    return {"tokens": views, "times": times}

  def ones(self, view: dict[str, Array]) -> Float[Array, "b l"]:
    """A mask of the tokens."""
    return jnp.ones(view["times"].shape)

  def view(
    self, view: dict[str, Array], mask: Float[Array, "b l"] | None = None
  ) -> dict[str, Array]:
    """One view of test clips."""
    tokens = view["tokens"].astype(jnp.float32)
    return {
      "tokens": tokens if mask is None else tokens * mask[..., None],
      "times": view["times"],
    }

  def _unmirrored(self, part, mirror):
    if mirror is not False:
      raise ValueError(f"views: mirror: expected false, as {self.track} has no mirror images")
    return part

  def draw(self, axes: Any, part: Mapping[str, np.ndarray], clip: int, frame: int) -> None:
    """Draws the tokens of the first view of a test clip with Matplotlib: a row for each."""
    axes.imshow(part["tokens"][clip, 0].astype(np.float32), aspect="auto", cmap="viridis")

  def picture(self, x: Any) -> None:
    """What a person should see of what the model is given: nothing more than `draw` shows."""
