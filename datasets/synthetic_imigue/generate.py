"""Synthetic upper bodies that sit, sway and make 32 micro-gestures, in iMiGUE's raw files.

No real person and no real gesture: a stand-in with the formats, the faults and the class names of
iMiGUE, for whoever does not hold its licence. A class is a motion (which parts move, along which
axis, there and back or swinging, which parts together) around a rest posture that is drawn without
looking at the class. README.md has the list.

  python datasets/synthetic_imigue/generate.py --out=RAW --seed=0

Units: the body is built in units of a 110th of the distance between its shoulders, and in degrees;
`Subject.scale` makes pixels of them. x points right and y down, but in the degrees of freedom that
a side has of its own x points outward, away from the middle of the body.
Sides: 0 is the person's right, which is left in the picture, 1 the left.
"""

import argparse
import dataclasses
import pathlib
import sys
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import xlsxwriter

from jaxmg import errors, files
from jaxmg.skeletons import topology

WIDTH, HEIGHT = 1280, 720
FPS = 25
TRAIN_CLIPS, TEST_CLIPS = 1600, 320
TAIL, MEDIAN_FRAMES, LOST_HANDS = 0.3, 45, 1.0  # how hard the set is: `videos`
TRAIN_SUBJECTS = tuple(range(1, 13))
TEST_SUBJECTS = tuple(range(13, 19))
LABELS = "Label/labels_20200831.csv"  # written last: where it is, the set is whole
WRITTEN = {"mg_skeleton_only", "Label", "example_clip.csv"}

# Degrees of freedom, and the root mean square of what everybody does with them all the time.
SIDED = {
  "shoulder_x": 0.5,
  "shoulder_y": 0.9,
  "elbow_x": 1.0,
  "elbow_y": 0.8,
  "hand_x": 1.6,
  "hand_y": 1.6,
  "swing": 2.5,  # degrees about the wrist
  "curl": 0.04,  # share of the fingers' length
  "spread": 0.05,  # share of the angles between fingers
}
MIDDLE = {
  "torso_x": 2.6,
  "torso_y": 0.9,
  "head_y": 0.5,
  "pitch": 2.0,  # degrees; positive is down
  "yaw": 2.8,
  "roll": 1.5,
  "mouth": 0.05,  # share by which the lips are closed
  "brow": 0.4,
}
TOWARD_A_SIDE = ("torso_x", "yaw", "roll")  # in a gesture: positive toward the acting side


class Part(NamedTuple):
  """What one degree of freedom does in a gesture, on the acting side and on the other."""

  dof: str
  wave: str  # hold: there, and slowly back; sin, cos: swings
  amplitude: float
  other: float = 0.0


class Gesture(NamedTuple):
  name: str
  imigue_clips: int  # of this class in the MiGA challenge's training set
  hertz: float  # of the swings
  parts: tuple[Part, ...]


DIP = Part("pitch", "hold", 26)
CHIN_UP = Part("pitch", "hold", -26)
TURN = Part("yaw", "hold", 34)
TILT = Part("roll", "hold", 20)
NOD = Part("pitch", "sin", 26)
SHAKE = Part("yaw", "sin", 34)

GESTURES = (
  Gesture("Turtle neck", 10, 0, (Part("head_y", "hold", 17), Part("shoulder_y", "hold", -17, -17))),
  Gesture("Bulging face, deep breath", 418, 0.6, (
    Part("torso_y", "sin", -14), Part("shoulder_x", "sin", 12, 12), Part("elbow_x", "sin", 16, 16),
  )),
  Gesture("Touching hat", 39, 0, (Part("hand_y", "hold", -23), DIP)),
  Gesture("Touching or scratching head", 207, 1.6, (Part("hand_y", "sin", 20), TILT)),
  Gesture("Touching or scratching forehead", 80, 1.2, (Part("hand_x", "sin", 21), DIP)),
  Gesture("Covering face", 23, 0, (Part("hand_y", "hold", -23, -23), DIP)),
  Gesture("Rubbing eyes", 64, 1.3, (Part("hand_x", "sin", 18), Part("hand_y", "cos", 18), SHAKE)),
  Gesture("Touching or scratching facial parts", 858, 0, (Part("hand_x", "hold", -23), TURN)),
  Gesture("Touching ears", 87, 0, (Part("hand_x", "hold", 17), Part("hand_y", "hold", -17), TILT)),
  Gesture("Biting nails", 3, 1.3, (Part("curl", "sin", 0.45), TURN)),
  Gesture("Touching jaw", 302, 1.2, (
    Part("hand_x", "sin", 16), Part("hand_y", "sin", -16), CHIN_UP,
  )),
  Gesture("Touching or scratching neck", 154, 0, (
    Part("hand_y", "hold", -23), Part("shoulder_y", "hold", -18), CHIN_UP,
  )),
  Gesture("Playing or adjusting hair", 97, 1.2, (
    Part("swing", "sin", 24), Part("curl", "cos", 0.33), TILT,
  )),
  Gesture("Buckle button, pulling shirt collar, adjusting tie", 41, 1.3, (
    Part("hand_x", "sin", 21, -21),
  )),
  Gesture("Touching or covering suprasternal notch", 28, 0, (
    Part("hand_x", "hold", -17), Part("hand_y", "hold", -17), Part("torso_y", "hold", -16),
  )),
  Gesture("Scratching back", 27, 1.3, (
    Part("elbow_x", "sin", 22, -22), Part("elbow_y", "cos", 12, 12),
  )),
  Gesture("Folding arms", 322, 0, (
    Part("hand_x", "hold", -16, -16), Part("hand_y", "hold", -16, -16),
    Part("elbow_x", "hold", -10, -10),
  )),
  Gesture("Dusting off clothes", 83, 1.6, (Part("hand_x", "sin", 22),)),
  Gesture("Putting arms behind body", 2, 0, (
    Part("hand_x", "hold", 22, 22), Part("elbow_x", "hold", 16, 16), CHIN_UP,
  )),
  Gesture("Moving torso", 942, 0.7, (Part("torso_x", "sin", 20),)),
  Gesture("Sitting straightly", 170, 0, (Part("torso_y", "hold", -21),)),
  Gesture("Scratching or touching arms", 373, 1.3, (
    Part("hand_x", "sin", 20), Part("hand_y", "cos", 20),
  )),
  Gesture("Rubbing or holding hands", 657, 1.5, (Part("hand_y", "sin", 18, -18),)),
  Gesture("Crossing fingers", 700, 1.2, (
    Part("curl", "sin", -0.4, -0.4), Part("spread", "sin", 0.3, 0.3),
  )),
  Gesture("Minaret gesture", 11, 1.0, (Part("hand_x", "sin", 21, 21), CHIN_UP)),
  Gesture("Playing or manipulating objects", 287, 1.5, (Part("swing", "sin", 31, -31),)),
  Gesture("Hold back arms", 87, 0, (
    Part("hand_y", "hold", 22, 22), Part("shoulder_y", "hold", 10, 10),
  )),
  Gesture("Head up", 60, 0, (Part("head_y", "hold", -9), CHIN_UP, Part("brow", "hold", 3))),
  Gesture("Pressing lips", 1237, 1.2, (Part("mouth", "hold", 0.6), NOD)),
  Gesture("Arms akimbo", 6, 0, (Part("elbow_x", "hold", 18, 18), Part("torso_x", "hold", 14))),
  Gesture("Shaking shoulders", 2272, 1.5, (Part("shoulder_y", "sin", 19, -19),)),
  Gesture("Illustrative body language", 4023, 1.1, (Part("hand_y", "sin", 21, 21), NOD)),
)  # fmt: skip

# Where a hand may rest, from its shoulder (outward, down), and where its fingers point (degrees
# from outward, over down).
HAND_RESTS = (
  (-25, 122, 140),  # on the desk
  (14, 132, 110),  # on the desk, wide
  (-12, 158, 130),  # in the lap
  (-43, 134, 150),  # clasped
  (-30, 78, 190),  # on the chest
  (-42, -2, 255),  # at the chin
)


@dataclasses.dataclass(frozen=True)
class Subject:
  """What stays the same in all videos of one subject."""

  scale: float  # pixels per unit
  neck: tuple[float, float]  # x, y in pixels
  shoulders: float  # proportions, about 1
  head: float
  arms: float
  torso: float
  amplitude: float
  speed: float
  restlessness: float
  sharpness: float  # of the swings: from a sine toward a square wave
  right_handed: float  # probability
  hand_rests: np.ndarray  # probabilities
  desk: bool  # hides the legs
  jitter: float  # of the detector
  confidence: float

  @classmethod
  def draw(cls, rng: np.random.Generator):
    return cls(
      scale=rng.uniform(0.66, 0.82),
      neck=(rng.uniform(450, 830), rng.uniform(190, 280)),
      shoulders=rng.uniform(0.92, 1.08),
      head=rng.uniform(0.93, 1.07),
      arms=rng.uniform(0.92, 1.08),
      torso=rng.uniform(0.94, 1.06),
      amplitude=rng.uniform(0.88, 1.12),
      speed=rng.uniform(0.8, 1.2),
      restlessness=rng.uniform(0.7, 1.4),
      sharpness=rng.uniform(0.3, 1.5),
      right_handed=rng.uniform(0.25, 0.75),
      hand_rests=rng.dirichlet([3, 3, 2, 3, 1, 1]),
      desk=rng.random() < 0.7,
      jitter=rng.uniform(0.7, 1.3),
      confidence=rng.uniform(-0.06, 0.06),
    )


Motion = dict[str, np.ndarray]  # degree of freedom -> float64[T, 2] where sided, else float64[T]


def still(num_frames: int) -> Motion:
  sided = {dof: np.zeros((num_frames, 2)) for dof in SIDED}
  return sided | {dof: np.zeros(num_frames) for dof in MIDDLE}


def rest_posture(subject: Subject, rng: np.random.Generator) -> Motion:
  """A posture to rest in, one frame long."""
  motion = still(1)
  for side in range(2):
    x, y, angle = HAND_RESTS[rng.choice(len(HAND_RESTS), p=subject.hand_rests)]
    motion["hand_x"][0, side] = x * subject.arms + rng.normal(0, 9)
    motion["hand_y"][0, side] = y * subject.arms + rng.normal(0, 9)
    motion["swing"][0, side] = angle + rng.normal(0, 12)
  for dof, std in dict(elbow_x=12, elbow_y=8, shoulder_y=7, curl=0.1, spread=0.15).items():
    motion[dof][0] = rng.normal(0, std, 2)
  for dof, std in dict(torso_x=10, torso_y=8, head_y=5, pitch=11, yaw=16, roll=8).items():
    motion[dof][0] = rng.normal(0, std)
  return motion


def idle(subject: Subject, num_frames: int, rng: np.random.Generator) -> Motion:
  """A slow sway of everything: in each degree of freedom four sines of 0.08 to 0.7 Hz."""
  time = np.arange(num_frames)[:, None] / FPS
  motion = still(num_frames)
  for dof, rms in (SIDED | MIDDLE).items():
    for column in motion[dof].reshape(num_frames, -1).T:
      hertz = np.exp(rng.uniform(np.log(0.08), np.log(0.7), 4))
      sway = np.sin(2 * np.pi * (hertz * time + rng.random(4))) @ hertz**-0.5
      column[:] = rms * subject.restlessness * sway / np.sqrt(np.sum(1 / hertz) / 2)
  return motion


def gesture(label: int, subject: Subject, num_frames: int, rng: np.random.Generator) -> Motion:
  """The gesture alone: zero at first and at last, begun and ended somewhere in its clip."""
  lasts = num_frames * rng.uniform(0.7, 0.95)
  phase = (np.arange(num_frames) - rng.uniform(0, num_frames - lasts)) / lasts
  # Going there faster than back, so that there is a direction in every short stretch of time.
  rise, fall = rng.uniform(0.1, 0.2), rng.uniform(0.5, 0.7)
  waves = {"hold": _smooth_step(phase / rise) * _smooth_step((1 - phase) / fall)}
  taper = _smooth_step(phase / 0.15) * _smooth_step((1 - phase) / 0.15)
  hertz = GESTURES[label].hertz * subject.speed * rng.uniform(0.85, 1.15)
  cycles = max(hertz * lasts / FPS, 1.5)
  angle = 2 * np.pi * (rng.random() + rng.choice([-1, 1]) * cycles * phase)
  for name, swing in (("sin", np.sin(angle)), ("cos", np.cos(angle))):
    waves[name] = taper * np.tanh(subject.sharpness * swing) / np.tanh(subject.sharpness)

  side = int(rng.random() >= subject.right_handed)
  amplitude = subject.amplitude * rng.uniform(0.85, 1.1)
  motion = still(num_frames)
  for part in GESTURES[label].parts:
    wave = amplitude * waves[part.wave]
    if part.dof in SIDED:
      motion[part.dof][:, side] += part.amplitude * wave
      motion[part.dof][:, 1 - side] += part.other * wave
    else:
      sign = _OUTWARD[side] if part.dof in TOWARD_A_SIDE else 1
      motion[part.dof] += sign * part.amplitude * wave
  return motion


def _smooth_step(x: np.ndarray) -> np.ndarray:
  """From 0 at 0 to 1 at 1 with the least jerk, as hands move."""
  x = np.clip(x, 0, 1)
  return x**3 * (10 - 15 * x + 6 * x**2)


def _face() -> np.ndarray:
  """OpenPose's 70 face points, then nose, eyes and ears: float64[75, 3].

  From the pivot of the head, z toward the camera, the person's right first.
  """

  def arc(x, y, z, half_width, half_height, degrees):
    turn = np.radians(degrees)
    x, y = x + half_width * np.sin(turn), y - half_height * np.cos(turn)
    return np.stack([x, y, np.full_like(x, z)], -1)

  jaw = arc(0, -40, 16, 25, 36, np.linspace(-95, -265, 17))
  brows = [arc(x, -50, 24, 8, 4, np.linspace(-80, 80, 5)) for x in (-12, 12)]
  bridge = np.linspace((0, -46, 26), (0, -34, 31), 4)
  nostrils = np.linspace((-6, -30, 26), (6, -30, 26), 5)
  eyes = [arc(x, -46, 23, 6, 2.5, np.arange(-90, 270, 60)) for x in (-12, 12)]
  lips = [
    arc(0, _MOUTH, 25, 11, 4.5, np.arange(-90, 270, 30)),
    arc(0, _MOUTH, 25, 8, 2, np.arange(-90, 270, 45)),
  ]
  pupils = [(-12, -46, 24), (12, -46, 24)]
  body = [(0, -34, 31), (-12, -46, 23), (12, -46, 23), (-25, -39, 0), (25, -39, 0)]
  return np.concatenate([jaw, *brows, bridge, nostrils, *eyes, *lips, pupils, body])


_OUTWARD = np.array([-1, 1])  # of the two sides, in the picture
_MOUTH = -18
FACE = _face()
# From thumb to little finger: the angle from the hand's direction, the joints' distances from the
# wrist.
_FINGER_ANGLES = np.radians([-58, -20, -3, 14, 32])
_FINGER_JOINTS = np.array([[8, 15, 22, 28]] + [[20, 29, 35, 40]] * 4)
# BODY_25 from the middle of the hips, which is point 8: points 8 to 14, then 19 to 24.
_HIPS_AND_LEGS = np.array([(0, 0), (-32, 0), (-48, 45), (-44, 150), (32, 0), (48, 45), (44, 150)])
_FEET = np.array([(52, 164), (58, 160), (41, 156), (-52, 164), (-58, 160), (-41, 156)])


def points(subject: Subject, motion: Motion, face: np.ndarray = FACE) -> np.ndarray:
  """Where the 137 points of OpenPose are, in pixels: float64[T, 137, 2].

  `face` are its points as `FACE`, or those of each frame, [T, 75, 3].
  """
  m = motion
  num_frames = len(m["pitch"])
  torso = np.stack([m["torso_x"], m["torso_y"]], -1)
  neck = torso + 0.3 * m["shoulder_y"].mean(1)[:, None] * (0, 1)

  half = 55 * subject.shoulders
  shoulders = _pair(half + m["shoulder_x"], 6 + m["shoulder_y"]) + torso[:, None]
  # Hands rest on something and do not follow the torso; elbows follow it half, and hands a little.
  hands = _pair(half + m["hand_x"], 6 + m["hand_y"])
  elbows = 0.5 * torso[:, None] + _pair(
    half + 5 + 16 * subject.arms + m["elbow_x"] + 0.4 * m["shoulder_x"] + 0.25 * m["hand_x"],
    -12 + 88 * subject.arms + m["elbow_y"] + 0.4 * m["shoulder_y"] + 0.15 * m["hand_y"],
  )
  angles = np.radians(m["swing"])[..., None] + _FINGER_ANGLES * (1 + m["spread"][..., None])
  reach = _FINGER_JOINTS * (1 - m["curl"].clip(-0.6, 0.6))[..., None, None]
  fingers = np.stack([np.cos(angles) * _OUTWARD[:, None], np.sin(angles)], -1)[..., None, :]
  fingers = (fingers * reach[..., None]).reshape(num_frames, 2, 20, 2) + hands[:, :, None]

  face = np.broadcast_to(face, (num_frames, *FACE.shape)).copy()
  face[:, 17:27, 1] -= m["brow"][:, None]
  face[:, 48:68, 1] = _MOUTH + (face[:, 48:68, 1] - _MOUTH) * (1 - m["mouth"][:, None])
  x, y, z = np.moveaxis(face * subject.head, -1, 0)
  z, y = _turn(z, y, m["pitch"])
  z, x = _turn(z, x, m["yaw"])
  x, y = _turn(x, y, m["roll"])
  face = np.stack([x, y + m["head_y"][:, None] - 24], -1) + torso[:, None]

  hips = (0, 155 * subject.torso)
  legs, feet = (np.tile(part + hips, (num_frames, 1, 1)) for part in (_HIPS_AND_LEGS, _FEET))
  arms = np.stack([shoulders, elbows, hands], 2).reshape(num_frames, 6, 2)
  hands = np.concatenate([hands[:, :, None], fingers], 2)
  parts = face[:, 70:71], neck[:, None], arms, legs, face[:, 71:], feet  # BODY_25
  xy = np.concatenate([*parts, face[:, :70], hands[:, 1], hands[:, 0]], 1)
  return np.asarray(subject.neck) + subject.scale * xy


def _pair(outward: np.ndarray, y: np.ndarray) -> np.ndarray:
  return np.stack([_OUTWARD * outward, y], -1)  # T side xy


def _turn(a: np.ndarray, b: np.ndarray, degrees: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  cos, sin = (f(np.radians(degrees))[:, None] for f in (np.cos, np.sin))
  return a * cos - b * sin, a * sin + b * cos


def detect(
  subject: Subject,
  xy: np.ndarray,
  rng: np.random.Generator,
  *,
  lost_hands: float = LOST_HANDS,
  size: tuple[int, int] = (WIDTH, HEIGHT),
) -> np.ndarray:
  """What a detector finds: float64[T, 137, 3], x, y, score; all zero where it finds nothing."""
  num_frames = len(xy)
  body, face, left, right = slice(25), slice(25, 95), slice(95, 116), slice(116, 137)
  score = rng.normal(subject.confidence, 0.05, (num_frames, 137))
  noise = np.empty((num_frames, 137))
  for part, sure, std in ((body, 0.82, 1.0), (face, 0.85, 0.6), (slice(95, 137), 0.6, 1.5)):
    score[:, part] += sure
    noise[:, part] = std
  score[:, [8, 9, 12]] -= 0.4  # hips are half hidden
  wild = rng.random(score.shape) < 0.0015
  score[wild] *= 0.4
  noise[wild] = 12
  noise *= subject.jitter * subject.scale
  xy = xy + noise[..., None] * rng.normal(size=xy.shape)
  found = np.concatenate([xy, score.clip(0.05, 0.98)[..., None]], -1)

  if subject.desk:
    found[:, [10, 11, 13, 14, *range(19, 25)]] = 0
  found[:, body][rng.random((num_frames, 25)) < 0.002] = 0
  for part, rate, frames in (
    (face, 0.002, 10),
    (left, 0.004 * lost_hands, 12),
    (right, 0.004 * lost_hands, 12),
    (slice(137), 0.002, 2),
  ):
    for start in np.flatnonzero(rng.random(num_frames) < rate):
      found[start : start + rng.geometric(1 / frames), part] = 0
  outside = (xy < 0) | (xy >= size)
  found[outside.any(-1)] = 0
  return found


class Clip(NamedTuple):
  label: int
  start: int  # its first frame, counted from 0
  stop: int  # the frame after its last


class Video(NamedTuple):
  number: int
  subject: int
  found: np.ndarray  # float64[T, 137, 3], all points in all frames
  clips: list[Clip]


def record(
  subject: Subject,
  labels: Sequence[int],
  rng: np.random.Generator,
  *,
  median_frames: float = MEDIAN_FRAMES,
  lost_hands: float = LOST_HANDS,
) -> tuple[np.ndarray, list[Clip]]:
  """A video with a clip for each label and some idle time around: float64[T, 137, 3], the clips."""
  # Half a second to five, 2 on average where the median is 45 frames, whatever the label.
  lengths = np.exp(rng.normal(np.log(median_frames), 0.45, len(labels))).clip(13, 125).astype(int)
  gaps = rng.integers(8, 15, len(labels) + 1)
  starts = np.cumsum(gaps[:-1]) + np.cumsum(lengths) - lengths
  clips = [Clip(*clip) for clip in zip(labels, starts, starts + lengths, strict=True)]

  motion = idle(subject, gaps.sum() + lengths.sum(), rng)
  posture = rest_posture(subject, rng)
  stop = 0
  for i, clip in enumerate(clips):
    before, begin, stop = posture, stop, clip.stop
    if i and rng.random() < 0.6:  # another posture, taken before the clip begins
      posture = rest_posture(subject, rng)
    moved = _smooth_step(np.arange(1, stop - begin + 1) / (clip.start - begin))
    act = gesture(clip.label, subject, clip.stop - clip.start, rng)
    for dof, values in motion.items():
      weight = moved[:, None] if dof in SIDED else moved
      values[begin:stop] += before[dof] + weight * (posture[dof] - before[dof])
      values[clip.start : stop] += act[dof]
  for dof, values in motion.items():
    values[stop:] += posture[dof]
  return detect(subject, points(subject, motion), rng, lost_hands=lost_hands), clips


def train_counts(num_clips: int, tail: float = TAIL) -> np.ndarray:
  """Training clips per class, int64[K]: iMiGUE's order, its long tail flattened to be learnable.

  `tail` is the power of iMiGUE's counts to which they are proportional: 0 is flat, 1 its own tail.
  """
  weights = np.array([gesture.imigue_clips for gesture in GESTURES]) ** tail
  counts = 1 + ((num_clips - len(GESTURES)) * weights / weights.sum()).astype(int)
  counts[counts.argmax()] += num_clips - counts.sum()
  return counts


def videos(
  *,
  seed: int,
  train_clips: int,
  test_clips: int,
  tail: float = TAIL,
  median_frames: float = MEDIAN_FRAMES,
  lost_hands: float = LOST_HANDS,
) -> Iterator[Video]:
  """Three videos of each training subject, two of each test subject, and one of a single clip.

  The test subjects make every gesture equally often. `tail` is that of `train_counts`,
  `median_frames` the median length of a clip, before it is cut to 13 to 125 frames, and
  `lost_hands` a factor on the rate at which hands begin to be lost.
  """
  num_classes = len(GESTURES)
  if train_clips < num_classes or test_clips < num_classes or test_clips % num_classes:
    raise errors.ConfigError(
      "train_clips and test_clips",
      expected=f"at least {num_classes}, and a multiple of {num_classes}",
      got=f"{train_clips} and {test_clips}",
    )
  for name, value, low, high in (
    ("tail", tail, 0, 1),
    ("median_frames", median_frames, 13, 125),
    ("lost_hands", lost_hands, 0, 100),
  ):
    if not low <= value <= high:
      raise errors.ConfigError(name, expected=f"{low} to {high}", got=f"{value:g}")
  rng = np.random.default_rng((seed, 0))
  train = rng.permutation(np.repeat(np.arange(num_classes), train_counts(train_clips, tail)))
  test = rng.permutation(np.repeat(np.arange(num_classes), test_clips // num_classes))
  plan = [
    *zip(TRAIN_SUBJECTS * 3, np.array_split(train, 3 * len(TRAIN_SUBJECTS)), strict=True),
    *zip(TEST_SUBJECTS * 2, np.array_split(test[:-1], 2 * len(TEST_SUBJECTS)), strict=True),
    (TEST_SUBJECTS[-1], test[-1:]),
  ]
  for number, (subject, labels) in enumerate(plan, 1):
    body = Subject.draw(np.random.default_rng((seed, 1, subject)))
    recorded = record(
      body,
      labels.tolist(),
      np.random.default_rng((seed, 2, number)),
      median_frames=median_frames,
      lost_hands=lost_hands,
    )
    yield Video(number, subject, *recorded)


def write(
  out: pathlib.Path,
  *,
  seed: int,
  train_clips: int = TRAIN_CLIPS,
  test_clips: int = TEST_CLIPS,
  **hardness: float,
):
  """Writes the raw files of the whole set below `out`, named as iMiGUE's; options as of `videos`.

  All videos come as csv; the last one, of a single clip, as xlsx too, and that clip by itself as
  `example_clip.csv`. Raises ConfigError where a set is already.
  """
  if (out / LABELS).exists():
    raise errors.ConfigError(out, expected="no data set yet", got=LABELS, hint="remove it first")
  table = ["video_id,class,start_frame,end_frame,win_or_lose,subject_id"]
  for video in videos(seed=seed, train_clips=train_clips, test_clips=test_clips, **hardness):
    name = f"{video.number:04d}"
    folder = out / "mg_skeleton_only" / name
    folder.mkdir(parents=True, exist_ok=True)
    _write_csv(folder / f"{name}_light_hand.csv", video.found)
    # Classes count from 1, but the last one is 99; frames count from 0; ends are inclusive.
    lines = [
      f"{99 if clip.label == len(GESTURES) - 1 else clip.label + 1},{clip.start},{clip.stop - 1}"
      for clip in video.clips
    ]
    (folder / f"{name}_label.csv").write_text("\n".join([*lines, ""]))
    outcome = "Win" if video.number % 3 else "Lose"
    table += [f"{video.number},{line},{outcome},{video.subject}" for line in lines]
  _write_xlsx(folder / f"{name}_2.xlsx", video.found)
  (clip,) = video.clips
  _write_csv(out / "example_clip.csv", video.found[clip.start : clip.stop])
  (out / LABELS).parent.mkdir(exist_ok=True)
  with files.replace(out / LABELS) as part:
    part.write_text("\n".join([*table, ""]))


def _write_csv(path: pathlib.Path, found: np.ndarray):
  layout = topology.get("imigue35")
  keypoints = found[:, layout.indices_in("openpose137")].reshape(len(found), -1)
  header = ["frame", *(f"{joint}_{value}" for joint in layout.joints for value in ("x", "y", "c"))]
  rows = np.column_stack([np.arange(len(found)), keypoints])
  np.savetxt(path, rows, fmt="%.6g", delimiter=",", header=",".join(header), comments="")


def _write_xlsx(path: pathlib.Path, found: np.ndarray):
  with xlsxwriter.Workbook(path, {"constant_memory": True}) as book:
    sheet = book.add_worksheet()
    for number, row in enumerate(found.reshape(len(found), -1).round(3).tolist()):
      sheet.write_row(number, 0, row)


def main(argv: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(description="Writes the raw files of synthetic iMiGUE.")
  parser.add_argument("--out", type=pathlib.Path, required=True, help="a folder")
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--train_clips", type=int, default=TRAIN_CLIPS)
  parser.add_argument("--test_clips", type=int, default=TEST_CLIPS, help="a multiple of 32")
  parser.add_argument("--tail", type=float, default=TAIL, help="0 is none, 1 is iMiGUE's own")
  parser.add_argument("--median_frames", type=float, default=MEDIAN_FRAMES, help="of the clips")
  parser.add_argument("--lost_hands", type=float, default=LOST_HANDS, help="a factor on their rate")
  args = parser.parse_args(argv)
  try:
    write(**vars(args))
  except errors.Error as error:
    print(f"jaxmg: error: {error}", file=sys.stderr)
    return error.exit_code
  return 0


if __name__ == "__main__":
  sys.exit(main())
