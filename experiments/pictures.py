"""Pictures of clips on a page: skeletons that its script moves, and frames of videos and faces."""

import base64
import io
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from jaxmg import errors
from jaxmg.data import records, tracks
from jaxmg.data.source import Source

from .page import Html, tag

FRAMES = 64  # of a clip of poses
POINTS = 12_000  # of a clip of poses: 64 kB of text
PICTURES = 6  # of a clip of pictures
SIDE = 160  # of such a picture, in pixels
FPS = 25.0  # where the set does not say


def tracks_of(data: Source, names: Collection[str]) -> list[records.Track]:
  """The tracks of a set that can be shown: those of these names, or else any."""
  for some in (names, data.track_names):
    found = [data.track(name) for name in some]
    if found := [track for track in found if type(track.kind) in _SHOWN]:
      return found
  return []


def note(shown: Collection[records.Track]) -> str:
  """How fast skeletons move, where there are any."""
  rates = [track.kind.fps for track in shown if type(track.kind) is tracks.Pose]
  if not rates:
    return ""
  rate = (
    f"{rates[0]:g} frames a second" if rates[0] else f"{FPS:g} frames a second, which is a guess"
  )
  return f"At {rate}; of a clip of more than {FRAMES} frames, some are left out. A click stops one."


def picture(track: records.Track, row: int) -> Html:
  """What a track has to be seen of a clip, or why there is nothing."""
  if row not in track:
    return tag("p", "The clip is not there.", class_="note")
  try:
    return _SHOWN[type(track.kind)](track.kind, track[row])
  except errors.DataError as error:
    return tag("p", f"It cannot be read: {error}", class_="note")
  except ModuleNotFoundError as error:
    extra = errors.EXTRAS.get(str(error.name).partition(".")[0], "video")
    return tag("p", f"No picture: it needs pip install 'jaxmg[{extra}]'.", class_="note")


def _skeleton(kind: tracks.Pose, record: Mapping[str, Any]) -> Html:
  """A canvas with the key points as uint16 of a square; the script of the page moves them."""
  pose = record["keypoints"]
  pose = pose[:, (pose[..., 2] > 0).any((0, 2))]  # T M V 3
  if not pose.size:
    return tag("p", "Nobody is seen.", class_="note")
  length, persons, joints = pose.shape[:3]
  most = max(2, min(FRAMES, POINTS // (persons * joints)))
  frames = np.unique(np.linspace(0, length - 1, most).round().astype(int))
  pose = pose[frames]
  there = pose[..., 2] > 0
  xy = pose[..., :2]
  low, high = (
    np.quantile(xy[there], [0.005, 0.995], axis=0) if there.any() else np.array([[0, 0], [1, 1]])
  )
  middle, side = (low + high) / 2, 1.16 * max(1e-6, *(high - low))
  square = (xy - middle) / side + 0.5
  there &= ((square >= 0) & (square <= 1)).all(-1)
  points = np.where(there[..., None], np.rint(square * 65534), 65535).astype("<u2")
  step = (length - 1) / max(1, len(frames) - 1)
  return tag(
    "canvas",
    data_points=base64.b64encode(points.tobytes()).decode(),
    data_shape=f"{len(frames)} {persons} {joints}",
    data_limbs=" ".join(f"{a}-{b}" for a, b in kind.layout.limbs),
    data_seconds=f"{min(0.25, step / (kind.fps or FPS)):.4f}",
    role="img",
    aria_label="the skeleton, moving",
  )


def _frames(kind: tracks.Video | tracks.Faces, record: Mapping[str, Any]) -> Html:
  """Some frames as small JPEGs, in the order of time."""
  from PIL import Image

  frames = record["frames"]
  pictures = []
  for k in np.unique(np.linspace(0, len(frames) - 1, PICTURES).round().astype(int)).tolist():
    image = Image.open(io.BytesIO(frames[k]))
    image = image.convert("RGB" if image.mode in ("RGB", "P", "CMYK") else "L")
    image.thumbnail((SIDE, SIDE))
    into = io.BytesIO()
    image.save(into, "JPEG", quality=75)
    text = base64.b64encode(into.getvalue()).decode()
    pictures.append(tag("img", src=f"data:image/jpeg;base64,{text}", alt=f"frame {k}"))
  return tag("div", *pictures, class_="strip")


_SHOWN = {tracks.Pose: _skeleton, tracks.Video: _frames, tracks.Faces: _frames}
