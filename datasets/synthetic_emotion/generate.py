"""Synthetic interviews after a match that was won or lost, in iMiGUE's raw files.

No real person and no real emotion: a seated figure makes gestures and faces, of which some are
more frequent where the video is called "Lose", others where it is called "Win". README.md says how.

  python datasets/synthetic_emotion/generate.py --out=RAW --seed=0

The truth is drawn first, for all videos in a second: outcome, gestures, and the expression of each
frame. From it alone `accuracies` says what gestures and faces can tell of the outcome. Motion, key
points and pictures follow from it, one video at a time.

Units are those of `synthetic_imigue`; those of expressions are standard deviations, about.
"""

import argparse
import dataclasses
import fractions
import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from jaxmg import errors, files, progress

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1]))  # for who starts this file
from synthetic_imigue import generate as figures

WIDTH, HEIGHT = 208, 160
FPS = figures.FPS
SECONDS = (20, 40)
TRAIN = dict.fromkeys(range(1, 26), 4)  # how many videos a subject has
TEST = dict.fromkeys(range(26, 46), 5)
LABELS = "Label/labels_20200831.csv"  # written last: where it is, the set is whole
LISTS = {"train": "emotion_train.txt", "test": "emotion_test.txt"}
TRUTH = "truth.json"
WRITTEN = {"mg_skeleton_only", "Label", "video", TRUTH, *LISTS.values()}

CHANNELS = ("face", "gestures")  # what tells the outcome of a video; the other one is neutral
UNTOLD = 4  # of each 50 videos, in which both are neutral
GESTURES = {"Lose": (14, 16), "Win": (31, 24), "neither": (19, 30)}  # classes of iMiGUE
# Of the gestures of a video: those of its outcome, of the other outcome, of neither.
TELLING, NEUTRAL = (0.60, 0.08, 0.32), (0.16, 0.16, 0.68)
LARGER = 2.0  # than in `synthetic_imigue` are the motions of elbows, hands and fingers

EXPRESSION = ("smile", "brow", "eyes")  # each higher where a face tells of a win
TOLD = 0.75  # by how much the mean of each goes up or down where the face tells the outcome
OF_SUBJECT, OF_VIDEO, OF_TIME = 0.40, 0.30, 0.60  # standard deviations around it
_LASTS = 1.0  # seconds in which an expression changes


@dataclasses.dataclass(frozen=True, eq=False)
class Video:
  """The truth of a video, from which its files follow."""

  number: int
  subject: int
  split: str
  outcome: str  # "Win" or "Lose"
  channel: str  # of CHANNELS, or "neither"
  clips: tuple[figures.Clip, ...]  # its gestures, by classes of iMiGUE
  expression: np.ndarray  # float64[T, 3], EXPRESSION

  @property
  def counts(self) -> list[int]:
    """How often each of the gestures is made."""
    labels = [clip.label for clip in self.clips]
    return [labels.count(label) for group in GESTURES.values() for label in group]


class Look(NamedTuple):
  """The colours of a video."""

  skin: np.ndarray
  hair: np.ndarray
  clothes: np.ndarray
  background: np.ndarray


def truth(
  seed: int,
  *,
  train: Mapping[int, int] = TRAIN,
  test: Mapping[int, int] = TEST,
  seconds: tuple[int, int] = SECONDS,
) -> list[Video]:
  """All videos: each subject has won and lost, and each channel tells as much of both."""
  videos = []
  for split, subjects in (("train", train), ("test", test)):
    rng = np.random.default_rng((seed, 0, len(videos)))
    sides = []
    for order, (subject, count) in enumerate(subjects.items()):
      wins = (count + order % 2) // 2
      sides += [(subject, name) for name in ["Win"] * wins + ["Lose"] * (count - wins)]
    channel_of = {}
    for outcome in ("Win", "Lose"):
      rows = [row for row, (_, name) in enumerate(sides) if name == outcome]
      rows = rng.permutation(rows).tolist()
      untold = round(UNTOLD * len(rows) / 50)
      channel_of |= dict.fromkeys(rows[:untold], "neither")
      channel_of |= {row: CHANNELS[i % 2] for i, row in enumerate(rows[untold:])}
    for row in rng.permutation(len(sides)).tolist():
      subject, outcome = sides[row]
      number = len(videos) + 1
      truth = (number, subject, split, outcome, channel_of[row])
      videos.append(_video(seed, seconds, *truth))
  return videos


def _video(seed, seconds, number, subject, split, outcome, channel):
  rng = np.random.default_rng((seed, 1, number))
  num_frames = int(rng.integers(seconds[0] * FPS, seconds[1] * FPS + 1))
  other = "Lose" if outcome == "Win" else "Win"
  shares = TELLING if channel == "gestures" else NEUTRAL
  clips, at = [], int(rng.integers(10, 40))
  # When they are made is drawn without a look at which they are.
  while at + (length := int(np.exp(rng.normal(np.log(40), 0.3)).clip(25, 75))) < num_frames:
    group = rng.choice([outcome, other, "neither"], p=shares)
    clips.append(figures.Clip(int(rng.choice(GESTURES[group])), at, at + length))
    at += length + int(rng.integers(10, 40))
  sign = {"Win": 1, "Lose": -1}[outcome] * (channel == "face")
  usual = np.random.default_rng((seed, 2, subject)).normal(0, OF_SUBJECT, len(EXPRESSION))
  mean = usual + TOLD * sign + rng.normal(0, OF_VIDEO, len(EXPRESSION))
  stays = np.exp(-1 / (_LASTS * FPS))
  noise = rng.normal(0, OF_TIME * np.sqrt(1 - stays**2), (num_frames, len(EXPRESSION)))
  noise[0] = rng.normal(0, OF_TIME, len(EXPRESSION))
  for t in range(1, num_frames):
    noise[t] += stays * noise[t - 1]
  return Video(number, subject, split, outcome, channel, tuple(clips), mean + noise)


def accuracies(videos: list[Video]) -> dict[str, float]:
  """How many of the test videos the truth tells, by logistic regression on the training videos.

  "gestures" are counts, "face" the mean expression of a video; neither knows the channel.
  """
  counts = np.array([video.counts for video in videos], float)
  faces = np.array([video.expression.mean(0) for video in videos])
  won = np.array([video.outcome == "Win" for video in videos])
  train = np.array([video.split == "train" for video in videos])
  found = {}
  for name, x in (
    ("gestures", counts),
    ("face", faces),
    ("both", np.concatenate([counts, faces], 1)),
  ):
    x = (x - x[train].mean(0)) / np.maximum(x[train].std(0), 1e-9)
    scores = x @ _logistic(x[train], won[train])
    found[name] = float(np.mean((scores > 0)[~train] == won[~train]))
  return found


def _logistic(x: np.ndarray, won: np.ndarray) -> np.ndarray:
  """Weights without a constant (inputs are centred, outcomes balanced), with a small penalty."""
  weights = np.zeros(x.shape[1])
  for _ in range(20):  # Newton's steps
    p = 1 / (1 + np.exp(-x @ weights))
    gradient = x.T @ (p - won) + weights
    weights -= np.linalg.solve((x.T * (p * (1 - p))) @ x + np.eye(len(weights)), gradient)
  return weights


def face(expression: np.ndarray, rng: np.random.Generator) -> np.ndarray:
  """The points of a face in each frame, as `synthetic_imigue` has them: float64[T, 75, 3].

  It blinks, and opens its mouth to speak, whatever the outcome.
  """
  num_frames = len(expression)
  smile, brow, eyes = expression.T[..., None]
  found = np.tile(figures.FACE, (num_frames, 1, 1))
  x, y = found[..., 0], found[..., 1]

  lips = slice(48, 68)
  middle = 1 - (figures.FACE[lips, 0] / 11) ** 2  # 1 in the middle of the mouth, 0 at its corners
  lower = figures.FACE[lips, 1] > figures.FACE[48, 1]
  speech = _speech(num_frames, rng)[:, None]
  x[:, lips] *= 1 + 0.10 * smile
  y[:, lips] += 3.5 * smile * (2 * middle - 1) / 1.5 + 5 * speech * middle * lower
  y[:, :17] += 2 * speech * np.cos(np.linspace(-np.pi / 2, np.pi / 2, 17))

  inner = 1 - np.abs(figures.FACE[17:27, 0]) / 20
  y[:, 17:27] -= brow * (1.5 + 4 * inner)

  blinks = np.ones(num_frames)
  for start in np.flatnonzero(rng.random(num_frames) < 0.3 / FPS):
    blinks[start : start + 4] = 0.15
  opened = 1.3 * np.exp(0.45 * eyes) * blinks[:, None]
  y[:, 36:48] = -46 + (y[:, 36:48] + 46) * opened
  return found


def _speech(num_frames: int, rng: np.random.Generator) -> np.ndarray:
  """How wide the mouth is open, in [0, 1]: syllables, in phrases."""
  time = np.arange(num_frames) / FPS
  hertz = rng.uniform(2.5, 4.5)
  phrases = np.sin(2 * np.pi * (rng.uniform(0.12, 0.25) * time + rng.random())) > -0.2
  loud = 0.5 + 0.5 * np.sin(2 * np.pi * (rng.uniform(0.5, 0.9) * time + rng.random()))
  return phrases * loud * np.abs(np.sin(np.pi * (hertz * time + rng.random())))


def body(seed: int, video: Video) -> tuple[figures.Subject, np.ndarray]:
  """Who is seen, and where the 137 points truly are: float64[T, 137, 2], in pixels."""
  subject = figures.Subject.draw(np.random.default_rng((seed, 3, video.subject)))
  rng = np.random.default_rng((seed, 4, video.number))
  place = (WIDTH / 2 + rng.uniform(-14, 14), 66 + rng.uniform(-2, 4))
  subject = dataclasses.replace(
    subject, scale=0.59 * subject.scale / 0.74 * rng.uniform(0.97, 1.03), neck=place, desk=False
  )
  num_frames = len(video.expression)
  motion = figures.idle(subject, num_frames, rng)
  for side in range(2):
    motion["hand_x"][:, side] += subject.arms * rng.uniform(-35, 15)
    motion["hand_y"][:, side] += subject.arms * rng.uniform(88, 106)
    motion["swing"][:, side] += rng.uniform(110, 150)
  for clip in video.clips:
    act = figures.gesture(clip.label, subject, clip.stop - clip.start, rng)
    for dof, values in act.items():
      larger = LARGER if dof.startswith(("elbow", "hand", "swing")) else 1
      if dof in figures.SIDED or dof.startswith("torso"):  # the head has a part in faces alone
        motion[dof][clip.start : clip.stop] += larger * values
  return subject, figures.points(subject, motion, face(video.expression, rng))


def look(seed: int, video: Video) -> Look:
  """Skin and hair are the subject's; clothes and background change from video to video."""
  rng = np.random.default_rng((seed, 5, video.subject))
  skin = np.array([225, 180, 150]) * rng.uniform(0.55, 1.05) + rng.normal(0, 6, 3)
  hair = np.array([110, 80, 55]) * rng.uniform(0.2, 1.4)
  rng = np.random.default_rng((seed, 6, video.number))
  clothes, background = rng.uniform(30, 220, 3), rng.uniform(40, 200, 3)
  pictures = np.full((HEIGHT // 16, WIDTH // 16, 3), background) + rng.normal(0, 12, (10, 13, 3))
  return Look(*(np.clip(one, 0, 255) for one in (skin, hair, clothes, pictures)))


def draw(xy: np.ndarray, look: Look, scale: float):
  """A picture of a body, a Pillow image of HEIGHT x WIDTH; `scale` is pixels per unit."""
  from PIL import Image, ImageDraw

  image = Image.fromarray(look.background.astype(np.uint8)).resize((2 * WIDTH, 2 * HEIGHT), 0)
  pen = ImageDraw.Draw(image)
  xy, unit = 2 * xy, 2 * scale  # drawn twice as large, and made smaller: edges are smooth

  def color(rgb, factor=1.0):
    return tuple(np.clip(rgb * factor, 0, 255).astype(int).tolist())

  def line(points, width, fill):
    flat = [*map(tuple, points)]
    pen.line(flat, fill, max(1, round(width * unit)), joint="curve")

  def disc(center, radius, fill):
    (x, y), radius = center, radius * unit
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill)

  def area(points, fill):
    pen.polygon([*map(tuple, points)], fill)

  points = xy.tolist()
  right, left = points[2], points[5]
  hips = [[points[9][0] - 8 * unit, 2 * HEIGHT], [points[12][0] + 8 * unit, 2 * HEIGHT]]
  area([right, points[1], left, hips[1], hips[0]], color(look.clothes))
  for shoulder in (right, left):
    disc(shoulder, 15, color(look.clothes))
  head = xy[25:95]
  chin = head[8]
  line([points[1], (chin + head[30]) / 2], 26, color(look.skin, 0.85))
  ears = (head[0] + head[16]) / 2
  across, up = (head[16] - head[0]) / 2, ears - chin
  turn = np.linspace(0, np.pi, 12)[:, None]
  skull = ears + np.cos(turn) * across + 0.95 * np.sin(turn) * up
  area(ears + 1.12 * (np.concatenate([skull, head[:1]]) - ears), color(look.hair))
  forehead = ears + np.cos(turn) * across * 0.98 + 0.62 * np.sin(turn) * up
  area(np.concatenate([head[:17], forehead]), color(look.skin))
  for brow in (head[17:22], head[22:27]):
    line(brow, 2.6, color(look.hair, 0.6))
  for eye, pupil in ((head[36:42], head[68]), (head[42:48], head[69])):
    area(eye, (250, 250, 250))
    height = np.ptp(eye[:, 1])
    disc(pupil, min(2.6, 0.5 * height / unit), (25, 20, 20))
    line([*eye[:4]], 1.2, color(look.skin, 0.35))
  line([head[28], head[30], head[33]], 1.4, color(look.skin, 0.75))
  area(head[48:60], (165, 60, 65))
  area(head[60:68], (70, 15, 20))

  for shoulder, elbow, hand, fingers in (
    (points[2], points[3], points[4], xy[116:137]),
    (points[5], points[6], points[7], xy[95:116]),
  ):
    line([shoulder, elbow], 24, color(look.clothes, 0.85))
    line([elbow, hand], 19, color(look.clothes, 0.72))
    disc(elbow, 11, color(look.clothes, 0.78))
    disc(hand, 12, color(look.skin, 0.95))
    for k in range(1, 21, 4):
      line([hand, *fingers[k + 1 : k + 4]], 6, color(look.skin, 0.9))
  return image.reduce(2)


def write_video(path: pathlib.Path, seed: int, video: Video, subject, xy: np.ndarray) -> None:
  """An mp4 of all frames (MPEG-4 part 2, which every FFmpeg has)."""
  import av

  colors = look(seed, video)
  with files.replace(path) as part, av.open(part, "w", format="mp4") as container:
    stream = container.add_stream("mpeg4", rate=FPS, options={"qmin": "3", "qmax": "3"})
    stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
    stream.time_base = fractions.Fraction(1, FPS)
    stream.codec_context.thread_count = 1
    for frame in xy:
      picture = av.VideoFrame.from_image(draw(frame, colors, subject.scale))
      container.mux(stream.encode(picture))
    container.mux(stream.encode())


def write(out: pathlib.Path, *, seed: int, **size: Any) -> dict[str, float]:
  """Writes the raw files of all videos of `truth` below `out`; returns the `accuracies`.

  Key points are those of OpenPose, 137, in pixels of the video. A write that was killed goes on
  after its last whole video. Raises ConfigError where a whole set is already.
  """
  if (out / LABELS).exists():
    raise errors.ConfigError(out, expected="no data set yet", got=LABELS, hint="remove it first")
  found = truth(seed, **size)
  told = accuracies(found)
  for folder in ("mg_skeleton_only", "video", "Label"):
    (out / folder).mkdir(parents=True, exist_ok=True)
  table = ["video_id,class,start_frame,end_frame,win_or_lose,subject_id"]
  for video in progress.track(found, "synthetic_emotion", total=len(found), unit="videos"):
    name = f"{video.number:04d}"
    points = out / "mg_skeleton_only" / name / f"{name}_openpose.csv"
    pictures = out / "video" / f"{name}.mp4"
    if not pictures.exists():
      subject, xy = body(seed, video)
      rng = np.random.default_rng((seed, 7, video.number))
      keypoints = figures.detect(subject, xy, rng, size=(WIDTH, HEIGHT))
      points.parent.mkdir(exist_ok=True)
      with files.replace(points) as part:
        np.savetxt(part, keypoints.reshape(len(xy), -1), fmt="%.5g", delimiter=",")
      write_video(pictures, seed, video, subject, xy)
    for clip in video.clips:  # classes count from 1, but the last one is 99; ends are inclusive
      label = 99 if clip.label == len(figures.GESTURES) - 1 else clip.label + 1
      line = f"{label},{clip.start},{clip.stop - 1},{video.outcome},{video.subject}"
      table.append(f"{video.number},{line}")
  for split, name in LISTS.items():
    lines = [f"{video.number:04d}" for video in found if video.split == split]
    (out / name).write_text("\n".join([*lines, ""]))
  rows = [
    {
      "video": video.number,
      "split": video.split,
      "outcome": video.outcome,
      "channel": video.channel,
      "counts": video.counts,
      "expression": video.expression.mean(0).round(4).tolist(),
    }
    for video in found
  ]
  labels = [label for group in GESTURES.values() for label in group]
  about = {"seed": seed, "accuracies": told, "gestures": labels, "expression": EXPRESSION}
  (out / TRUTH).write_text(json.dumps(about | {"videos": rows}))
  with files.replace(out / LABELS) as part:
    part.write_text("\n".join([*table, ""]))
  return told


def main(argv: list[str] | None = None) -> int:
  parser = argparse.ArgumentParser(description="Writes the raw files of synthetic interviews.")
  parser.add_argument("--out", type=pathlib.Path, required=True, help="a folder")
  parser.add_argument("--seed", type=int, default=0)
  args = parser.parse_args(argv)
  try:
    told = write(args.out, seed=args.seed)
  except errors.Error as error:
    print(f"jaxmg: error: {error}", file=sys.stderr)
    return error.exit_code
  print(
    "test videos whose outcome the truth tells: "
    + ", ".join(f"{name} {100 * share:.0f} %" for name, share in told.items())
  )
  return 0


if __name__ == "__main__":
  sys.exit(main())
