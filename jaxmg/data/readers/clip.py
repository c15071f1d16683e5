"""A recording's key points, and how numbers from a file become them.

What a file leaves open is told by the caller, follows from what else is there, or is refused with a
question: a number's range alone decides nothing. What was taken for granted is in `Clip.guess`.
"""

import copy
import dataclasses
import json
import pathlib
import re
from collections.abc import Iterable
from typing import Any, ClassVar, Literal

import numpy as np
from jaxtyping import Bool, Float, Shaped

from jaxmg import ranges
from jaxmg.errors import ConfigError, DataError
from jaxmg.skeletons import plausible, topology

Layout = str | topology.Skeleton  # the name of one of ours, or one of the user's own

# The layout of points whose file does not name it. Of 22 points, the corrected one.
LAYOUTS = {
  17: "coco17",
  18: "openpose18",
  22: "imigue22",
  25: "openpose25",
  33: "mediapipe33",
  35: "imigue35",
  41: "imigue41",
  133: "wholebody133",
  137: "openpose137",
}
LAYOUTS_3D = {20: "kinect20", 25: "kinect25"}

MAX_FRAMES = 1_000_000  # 11 hours at 25 fps; a wrong frame number must not ask for more memory
MAX_PERSONS = 100
MAX_JOINTS = 100_000_000  # in all frames: 1.2 GB
_MAX_COORDINATE = 1e9  # pixels; beyond it the squares and differences of float32 overflow
_MAX_METRES = 100
SCORES = (-0.5, 2.0)  # OpenPose gives 1.4 at times; beyond this it is something else
MIN_DEPTH = 1e-3  # metres; `depth_view` sees nothing nearer
_FEW = 0.01  # of all joints: what is wrong with so many refuses no recording
_SMALLEST_BODY = 20  # pixels; between this and metres nothing is decided
_CENTRE = 1e-6  # metres: how far a joint that is the origin is moved, to be told from an absent one


@dataclasses.dataclass(frozen=True)
class Told:
  """What the caller knows of a file; None: see what the file says.

  Attributes:
    layout: of the joints.
    frame_size: (height, width) of the pictures, in pixels.
    axes: of an array, each a letter: T frames, M persons, V joints, C values of a joint.
    points: "keypoints", x and y in pixels and a score; or "joints3d", x, y, z in metres.
    expects: as `points`: what is taken where the file leaves it open and nothing speaks against it.
    expects_size: as `frame_size`: what is taken where the file leaves it open.
    fps: frames a second, of an array of frames.
  """

  layout: Layout | None = None
  frame_size: tuple[int, int] | None = None
  axes: str | None = None
  points: Literal["keypoints", "joints3d"] | None = None
  expects: Literal["keypoints", "joints3d"] | None = None
  expects_size: tuple[int, int] | None = None
  fps: float | None = None

  def __post_init__(self):
    ranges.settle(self)
    kinds = (None, "keypoints", "joints3d")
    for field, right, expected in (
      ("points", self.points in kinds, "keypoints or joints3d"),
      ("fps", self.fps is None or ranges.is_rate(self.fps), "frames a second"),
      (
        "frame_size",
        self.frame_size is None or ranges.frame_size(self.frame_size),
        ranges.FRAME_SIZE,
      ),
    ):
      if not right:
        raise ConfigError(field, expected=expected, got=repr(getattr(self, field)))


@dataclasses.dataclass(frozen=True)
class Guess:
  """What a recording was read as. `assumed` names the fields that neither file nor caller told."""

  num_frames: int
  num_persons: int
  num_joints: int
  layout: str
  units: Literal["pixels", "metres"]
  axes: str | None = None
  frame_size: tuple[int, int] | None = None
  assumed: frozenset[str] = frozenset()
  notes: tuple[str, ...] = ()

  def __str__(self) -> str:
    return f"read as {self.counts}, {self.kind}"

  @property
  def counts(self) -> str:
    return f"{_count(self.num_frames, 'frame')} of {_count(self.num_persons, 'person')}"

  @property
  def kind(self) -> str:
    """All but the numbers of frames and persons."""
    told = {name: " assumed" * (name in self.assumed) for name in ("layout", "units", "axes")}
    parts = [f"{_count(self.num_joints, 'joint')} ({self.layout}{told['layout']})"]
    parts.append(f"{self.units}{told['units']}")
    if self.axes:
      parts.append(f"axes {self.axes}{told['axes']}")
    if self.frame_size and self.units == "pixels":
      height, width = self.frame_size
      parts.append(f"{height} x {width}{' assumed' * ('frame_size' in self.assumed)}")
    return ", ".join([*parts, *self.notes])


@dataclasses.dataclass(frozen=True, eq=False)
class Clip:
  """Key points of one recording, checked and cleaned when made.

  A joint whose score is 0, or which lies at (0, 0), is absent: all its values become 0. Scores a
  little outside [0, 1] are clipped, as are those of a few joints that are further off. Coordinates
  outside the frame are kept, up to 1e9 pixels.

  A joint of a person in 3-D that is the origin in every frame, around which the others are, is the
  centre of the coordinates and not absent: it is moved by a micrometre, since all zero means
  absent. Of several such joints that is the root alone.

  Attributes:
    keypoints: float32[T, M, V, 3], x, y in pixels (x right, y down) and score in [0, 1]; T, M >= 1.
    layout: the joints' layout: a name in `jaxmg.skeletons.topology.SKELETONS`, or a Skeleton of
      the user's own.
    frame_size: (height, width) of the source frame, where the file or the caller knows it.
    joints3d: float32[T, M, V, 3], metres in the camera's frame (x right, y up, z forward), of 3D
      files.
    guess: what the file was taken for, of one that was read.
    num_clipped: how many scores were outside [0, 1].

  Raises DataError for any other shape, a million frames, a value that is not finite, or scores that
  are something else.
  """

  track: ClassVar[str] = "pose"
  times: ClassVar[None] = None  # no file of poses says when its frames are shown
  fps: ClassVar[None] = None
  notes: ClassVar[tuple[str, ...]] = ()

  keypoints: np.ndarray
  layout: Layout
  frame_size: tuple[int, int] | None = None
  joints3d: np.ndarray | None = None
  guess: Guess | None = None
  num_clipped: int = dataclasses.field(default=0, init=False)

  def __post_init__(self):
    num_joints = topology.get(self.layout).num_joints
    keypoints = _finite("keypoints", self.keypoints, num_joints)
    xy = keypoints[..., :2]
    if max(-xy.min(), xy.max()) > _MAX_COORDINATE:  # a mask of a long recording takes memory
      wrong = _first(np.abs(xy) > _MAX_COORDINATE)
      place = _place("keypoints", wrong)
      raise DataError(place, expected="at most 1e9 pixels", got=f"{keypoints[wrong]:g}")
    object.__setattr__(self, "num_clipped", _clip_scores(keypoints))
    x, y, score = (keypoints[..., i] for i in range(3))
    keypoints[(score == 0) | ((x == 0) & (y == 0))] = 0
    object.__setattr__(self, "keypoints", keypoints)
    if self.joints3d is not None:
      joints3d = _finite("joints3d", self.joints3d, num_joints)
      if joints3d.shape != keypoints.shape:
        raise DataError("joints3d", expected=list(keypoints.shape), got=list(joints3d.shape))
      _keep_centre(joints3d, topology.get(self.layout).root)
      object.__setattr__(self, "joints3d", joints3d)
    if self.frame_size is not None:
      if not (size := ranges.frame_size(self.frame_size)):
        raise DataError("frame_size", expected=ranges.FRAME_SIZE, got=self.frame_size)
      object.__setattr__(self, "frame_size", size)

  @property
  def num_frames(self) -> int:
    return len(self.keypoints)

  def record(self) -> dict[str, Any]:
    """The clip as an input of poses reads it (`jaxmg.inputs`)."""
    found = {"layout": topology.get(self.layout), "frame_size": self.frame_size}
    arrays = {"keypoints": self.keypoints, "joints3d": self.joints3d}
    return found | {name: array for name, array in arrays.items() if array is not None}

  def cut(self, first: int, last: int) -> "Clip":
    """The frames from `first` to `last`, both counted from 0, and both in the part; not a copy.

    Raises DataError where the clip does not have them.
    """
    check_part(first, last, self.num_frames)
    frames = slice(first, last + 1)
    return self._with(
      keypoints=self.keypoints[frames],
      joints3d=None if self.joints3d is None else self.joints3d[frames],
      guess=self.guess and dataclasses.replace(self.guess, num_frames=last + 1 - first),
      num_clipped=0,
    )

  part = cut  # of a video something else

  def sized(self, frame_size: tuple[int, int] | None) -> "Clip":
    """The clip, whose frame size, where it is not known, is taken to be this one.

    One that was assumed is replaced by one of another shape.
    """
    if not frame_size or (self.frame_size and not self._assumes_other(frame_size)):
      return self
    guess = self.guess and dataclasses.replace(
      self.guess, frame_size=frame_size, assumed=self.guess.assumed | {"frame_size"}
    )
    return self._with(frame_size=frame_size, guess=guess)

  def _assumes_other(self, frame_size):
    assumed = self.guess is not None and "frame_size" in self.guess.assumed
    return assumed and not same_shape([self.frame_size, frame_size])

  def doubts(self) -> list[str]:
    """What is odd about the joints or the frame; DataError if of a layout that was assumed."""
    in_3d = self.guess.units == "metres"
    points = self.joints3d if in_3d else self.keypoints
    found = plausible.doubts(points, topology.get(self.layout), in_3d=in_3d)
    for doubt in found:
      if "layout" in self.guess.assumed and not doubt.startswith("the head"):
        expected, hint = f"joints of {self.layout}, by their number", "name it: --layout"
        raise DataError("layout", expected=expected, got=doubt, hint=hint)
    named = not in_3d and "frame_size" not in self.guess.assumed
    share, hint = plausible.outside(self.keypoints, self.frame_size if named else None)
    if hint:
      height, width = self.frame_size
      got = f"{share:.0%} of the joints outside of it: {hint}"
      found.append(f"frame size {height} x {width} (height x width): {got}")
    return found

  def _with(self, **changes: Any) -> "Clip":
    # Not checked and cleaned again: a joint that is absent in a part is not the centre.
    clip = copy.copy(self)
    for name, value in changes.items():
      object.__setattr__(clip, name, value)
    return clip


def same_shape(sizes: Iterable[tuple[int, int]]) -> bool:
  """Whether frames of these sizes (height, width) are as wide for their height, to 3 %."""
  shapes = [width / height for height, width in sizes]
  return max(shapes) <= 1.03 * min(shapes)


def check_part(first: int, last: int, num_frames: int) -> None:
  """Raises DataError where a recording of so many frames does not have these."""
  if not 0 <= first <= last < num_frames:
    expected = f"a first and a last one from 0 to {num_frames - 1}"
    raise DataError("frames", expected=expected, got=f"{first} to {last}")


def frame_size(text: str) -> tuple[int, int]:
  """(height, width) of "720x1280"; ConfigError for any other text."""
  if not (match := re.fullmatch(r"([1-9]\d{0,5})x([1-9]\d{0,5})", text)):
    raise ConfigError("frame_size", expected="HEIGHTxWIDTH, like 720x1280", got=text)
  return int(match[1]), int(match[2])


def find_layout(layout: Layout) -> Layout:
  """The layout of a name, or of a user's JSON file (`jaxmg.skeletons.topology.from_json`).

  Raises:
    ConfigError: a name that is none of ours.
    DataError: a file that is missing or holds no sound layout.
  """
  if isinstance(layout, str) and layout.endswith(".json"):
    try:
      text = pathlib.Path(layout).read_text(encoding="utf-8-sig")
      return topology.from_json(json.loads(text, object_pairs_hook=unique_keys))
    except FileNotFoundError:
      raise DataError(layout, expected="a layout's JSON file", got="nothing") from None
    except (ValueError, RecursionError) as error:
      raise DataError(f"{layout}: {'; '.join(map(str.strip, str(error).splitlines()))}") from error
  try:
    topology.get(layout)
  except ValueError as error:
    raise ConfigError(f"layout: {error}") from error
  return layout


def layout_of(num_joints: int, *, in_3d: bool = False) -> str:
  """The layout of so many joints; DataError where their number does not tell it."""
  layouts = LAYOUTS_3D if in_3d else LAYOUTS
  if num_joints not in layouts:
    known = ", ".join(f"{number} ({name})" for number, name in layouts.items())
    hint = f"name the layout: --layout; of {3 if in_3d else 2}-D points"
    raise DataError("points", expected=known, got=num_joints, hint=hint)
  return layouts[num_joints]


def from_points(
  points: Shaped[np.ndarray, "t m v c"],
  told: Told,
  *,
  layout: Layout | None = None,
  in_3d: bool | None = None,
  joints3d: Float[np.ndarray, "t m v 3"] | None = None,
  axes: str | None = None,
  frame_size: tuple[int, int] | None = None,
  view: bool | None = None,
  assumed: frozenset[str] = frozenset(),
  notes: tuple[str, ...] = (),
) -> Clip:
  """A clip of a file's numbers: x, y in pixels, or these and a score, or x, y, z in metres.

  `layout`, `in_3d` and `frame_size` are what the file says, None what it leaves open; `joints3d`
  is what it has beside key points. The key points of metres are their `depth_view` (`view`), none
  (False), or whichever `before_camera` says (None). `axes`, `assumed` and `notes` belong to its
  guess. Raises DataError where it cannot be known what the numbers are.
  """
  if layout and str(told.layout or layout) in {*topology.SKELETONS} - {str(layout)}:
    raise DataError("layout", expected=f"{layout}, as the file says", got=told.layout)
  layout = told.layout or layout
  if in_3d is not None and told.points and (told.points == "joints3d") != in_3d:
    what = "x, y, z in metres" if in_3d else "x, y in pixels"
    raise DataError("--points", expected=f"{what}, as the file says", got=told.points)
  if in_3d is None:
    in_3d, units_assumed = metres(points, layout, told)
    assumed |= {"units"} if units_assumed else set()
  if layout is None:
    layout = layout_of(points.shape[2], in_3d=in_3d)
    assumed |= {"layout"}
  skeleton = topology.get(layout)
  field = "joints3d" if in_3d else "keypoints"
  points = _finite(field, points, skeleton.num_joints, sizes=(3,) if in_3d else (2, 3))
  if in_3d:
    if (farthest := np.abs(points).max()) > _MAX_METRES:
      expected = f"metres up to {_MAX_METRES}"
      raise DataError(field, expected=expected, got=f"{farthest:g}", hint=_NOT_METRES)
    view = before_camera(points) if view is None else view
    keypoints = depth_view(points) if view else np.zeros_like(points)
    clip = Clip(keypoints, layout, (240, 320), points)
  else:
    if points.shape[-1] == 2:
      there = ~(points == -1).all(-1, keepdims=True)  # so some tools say that a joint is absent
      points = np.concatenate([points, there.astype(np.float32)], -1)
    clip = Clip(points, layout, told.frame_size or frame_size, joints3d)
  if clip.num_clipped:
    notes += (f"{_count(clip.num_clipped, 'score')} outside [0, 1] clipped",)
  guess = Guess(
    num_frames=clip.num_frames,
    num_persons=clip.keypoints.shape[1],
    num_joints=skeleton.num_joints,
    layout=skeleton.name,
    units="metres" if in_3d else "pixels",
    axes=axes,
    frame_size=clip.frame_size,
    assumed=assumed,
    notes=notes,
  )
  object.__setattr__(clip, "guess", guess)  # made anew, it would count its clipped scores anew
  check(clip)
  return clip


def check(clip: Clip) -> None:
  """Raises DataError where somebody is there, but no bigger than a few pixels, or than a hand."""
  try:
    plausible.check_size(clip.record())
  except ValueError as error:
    raise DataError(str(error)) from error


def before_camera(joints3d: Float[np.ndarray, "t m v 3"]) -> bool:
  """Whether 99 % of the joints lie before the camera: not so if centred on the person."""
  there = joints3d.any(-1)
  seen = there & (joints3d[..., 2] > MIN_DEPTH)
  return bool(np.count_nonzero(seen) >= 0.99 * np.count_nonzero(there))


def depth_view(joints3d: Float[np.ndarray, "t m v 3"]) -> Float[np.ndarray, "t m v 3"]:
  """Projects metres in the camera's frame onto Kinect v1's 320 x 240 depth image, with score 1.

  u = 160 + 285.63 x / z, v = 120 - 285.63 y / z. A joint that is not before the camera is absent.
  """
  x, y, z = np.moveaxis(np.asarray(joints3d, np.float64), -1, 0)
  seen = z > MIN_DEPTH
  depth = np.where(seen, z, 1)
  view = np.stack([160 + 285.63 * x / depth, 120 - 285.63 * y / depth, np.ones_like(z)], -1)
  return np.where(seen[..., None], view, 0).astype(np.float32)


_NOT_METRES = "millimetres? divide them by 1000; x, y, score? --points=keypoints"
_ASK_POINTS = (
  "normalised? multiply x by the width and y by the height; x, y, z in metres? --points=joints3d"
)


def metres(points: np.ndarray, layout: Layout | None, told: Told) -> tuple[bool, bool]:
  """Whether points [T, M, V, C] are x, y, z in metres, and whether that is an assumption.

  Raises DataError where it cannot be known: then `Told.points` is asked for.
  """
  if told.points is not None:
    return told.points == "joints3d", False
  flat = layout is not None and str(layout) in {*topology.SKELETONS} - {*topology.IN_SPACE}
  if points.shape[-1] == 2 or flat:
    return False, False
  there = points.any(-1) & np.isfinite(points).all(-1)
  size = plausible.body_size(points[..., :2], there)
  third = points[..., 2][there]
  others = np.count_nonzero((third < SCORES[0]) | (third > SCORES[1])) > _FEW * third.size
  if size is None or (size >= _SMALLEST_BODY and not others):
    return told.expects == "joints3d" and size is None, size is None
  got = f"a body of {size:.3g} and third values from {third.min():.3g} to {third.max():.3g}"
  if size >= _SMALLEST_BODY:
    hint = "millimetres? divide them by 1000; logits? give their sigmoid; per cent? divide by 100"
    raise DataError("the points", expected="x, y in pixels and a score", got=got, hint=hint)
  negative = np.count_nonzero(third < 0) > _FEW * third.size
  # No picture has places left of it or above it; metres have both signs.
  signed = (points[..., :2][there] < 0).any()
  if (others or negative) and signed and told.expects != "keypoints":
    return True, True
  raise DataError("the points", expected="pixels or metres", got=got, hint=_ASK_POINTS)


def _clip_scores(keypoints: np.ndarray) -> int:
  """Clips the scores to [0, 1] and returns how many were outside; DataError for other things."""
  score = keypoints[..., 2]
  outside = (score < 0) | (score > 1)
  if not (count := np.count_nonzero(outside)):
    return 0
  far = (score < SCORES[0]) | (score > SCORES[1])
  there = np.count_nonzero(keypoints.any(-1))
  if np.count_nonzero(far) > _FEW * there or count > there / 2:
    wrong = _first(far if far.any() else outside)
    hint = "logits? give their sigmoid; per cent? divide by 100; metres? --points=joints3d"
    raise DataError(
      _place("keypoints", wrong), expected="a score in [0, 1]", got=f"{score[wrong]:g}", hint=hint
    )
  np.clip(score, 0, 1, out=score)
  return int(count)


def _keep_centre(joints3d: np.ndarray, root: int) -> None:
  """Moves a person's joint that is the origin of the coordinates by `_CENTRE`: it is there.

  That is the only joint which is zero in every frame, or of several the root, if the others are
  around the origin in most frames.
  """
  present = joints3d.any(-1)  # T M V
  there = present.any(-1)  # T M
  for m in np.flatnonzero(there.any(0)):
    never = np.flatnonzero(~present[:, m].any(0))
    centre = root if root in never else never[0] if len(never) == 1 else None
    if centre is None:
      continue
    person, seen = joints3d[there[:, m], m], present[there[:, m], m][..., None]
    low = np.where(seen, person, np.inf).min(1)
    high = np.where(seen, person, -np.inf).max(1)
    if ((low <= 0) & (high >= 0)).all(-1).mean() > 0.5:
      joints3d[there[:, m], m, centre, 2] = _CENTRE


def _finite(
  field: str, values: np.ndarray, num_joints: int, *, sizes: tuple[int, ...] = (3,)
) -> np.ndarray:
  """A new float32 array of shape [T, M, V, C], C of `sizes`."""
  shape = np.shape(values)
  if len(shape) != 4 or shape[2] != num_joints or shape[3] not in sizes or 0 in shape:
    last = " or ".join(map(str, sizes))
    expected = f"[T, M, {num_joints}, {last}], T and M at least 1"
    raise DataError(field, expected=expected, got=list(shape))
  check_counts(field, *shape[:3])
  return float32(field, values)


def check_counts(field: str, num_frames: int, num_persons: int, num_joints: int) -> None:
  """Raises DataError for what no recording has, before anything is allocated."""
  for name, most, count in (
    ("frames", MAX_FRAMES, num_frames),
    ("persons", MAX_PERSONS, num_persons),
    ("joints in all frames", MAX_JOINTS, num_frames * num_persons * num_joints),
  ):
    if count > most:
      raise DataError(field, expected=f"at most {most} {name}", got=count)


def float32(field: str, values: object) -> np.ndarray:
  """A new array; DataError for what is not finite."""
  try:
    with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is found below
      array = np.array(values, np.float32)
  except OverflowError:  # an integer of more than 308 digits
    raise DataError(field, expected="finite numbers", got="a larger one") from None
  if wrong := _first(~np.isfinite(array)):
    got = np.asarray(values)[wrong]
    hint = "absent? write 0 for all of it" if np.isnan(got) else None
    raise DataError(_place(field, wrong), expected="a finite number", got=f"{got:g}", hint=hint)
  return array


def numbers(field: str, values: object, *, counts: tuple[int, ...]) -> np.ndarray:
  """float32[n] of a sequence of Python numbers, n in `counts`."""
  plain = isinstance(values, (list, tuple)) and {*map(type, values)} <= {int, float}
  if not plain or len(values) not in counts:
    expected = f"{' or '.join(map(str, counts))} numbers"
    raise DataError(field, expected=expected, got=len(values) if plain else "other things")
  return float32(field, values)


def unique_keys(pairs: list[tuple[str, object]]) -> dict[str, object]:
  """A JSON object, for `object_pairs_hook`; ValueError where a key occurs twice."""
  items = dict(pairs)
  if len(items) < len(pairs):
    raise ValueError("a key occurs twice in one object")
  return items


def _first(mask: Bool[np.ndarray, "..."]) -> tuple[int, ...] | None:
  return tuple(map(int, np.argwhere(mask)[0])) if mask.any() else None


def _place(field: str, index: tuple[int, ...]) -> str:
  names = ("frame", "person", "joint", "axis") if len(index) > 1 else ("number",)
  return f"{field}: " + ", ".join(f"{name} {i}" for name, i in zip(names, index, strict=False))


def _count(number: int, noun: str) -> str:
  return f"{number} {noun}{'s' * (number != 1)}"
