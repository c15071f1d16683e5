"""Faces: which one is followed, and how five landmarks bring it to one place.

The landmarks, in this order: the eye that is on the left in the picture, the one on the right, the
tip of the nose, the corner of the mouth on the left, the one on the right. They are x, y in pixels;
pixel (row, col) is at y = row, x = col. A face that is not there has a score of 0.
"""

import bisect
import dataclasses
import itertools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Shaped

from jaxmg import shapes
from jaxmg.skeletons import topology

SIZE = 112  # of an aligned face, in pixels
# Where ArcFace has the landmarks in it (Deng et al., CVPR 2019).
TEMPLATE = np.array(
  [
    [38.2946, 51.6963],
    [73.5318, 51.5014],
    [56.0252, 71.7366],
    [41.5493, 92.3655],
    [70.7299, 92.2041],
  ],
  np.float32,
)
# A landmark is left out that is so far from where the other four have it, as a share of the crop's
# side (a fifth of the distance of the eyes), and so many times as far as these are from theirs.
# With less, the shapes of real faces were taken for mistakes, and crops would jump.
FAR, TIMES = 0.06, 4.0
_FITS = np.concatenate([np.ones((1, 5)), 1 - np.eye(5)]).astype(np.float32)  # all, or one left out

# Of each landmark the points that may stand for it, the first that are there: they are averaged.
_POINTS = (
  (tuple(f"face_{i}" for i in range(36, 42)), ("face_68",), ("right_eye",)),
  (tuple(f"face_{i}" for i in range(42, 48)), ("face_69",), ("left_eye",)),
  (("face_30",), ("nose",)),
  (("face_48",), ("right_mouth",)),
  (("face_54",), ("left_mouth",)),
)
_NEAR = 2.0  # sizes of a face, about its width: it is not farther from itself in the next frame
_BACK = 5.0  # the same for a face that was lost, and is found again
_RATIO = 2.0  # by which its size may change
_BRIEF = 3  # frames: what is seen in fewer is not another person


@dataclasses.dataclass(frozen=True, eq=False)
class Followed:
  """One person's face over time.

  Attributes:
    landmarks: float32[T, 5, 2]; all zero where the face is lost.
    scores: float32[T]; 0 where it is lost. Between two frames it is the smaller of theirs.
    others: bool[T], where another face is seen.
  """

  landmarks: np.ndarray
  scores: np.ndarray
  others: np.ndarray


def similarity(landmarks: Float[Array, "*b 5 2"], *, size: int = SIZE) -> Float[Array, "*b 2 3"]:
  """The turn, scale and shift that bring landmarks to the template, with the least squares.

  That is Umeyama's fit without reflection (PAMI 1991). One bad landmark does no harm: of the five
  fits of four landmarks the best is taken, if the landmark that it leaves out is farther than `FAR`
  sides of the crop from its place, and farther than `TIMES` the root mean square of the other four.
  """
  shapes.check("landmarks", landmarks, "float", "...", 5, 2)
  template = jnp.asarray((TEMPLATE + 0.5) * (size / SIZE) - 0.5)
  points = landmarks[..., None, :, :]  # *b 1 5 2
  fits = _fit(points, template)  # *b 6 2 3
  placed = jnp.einsum("...ij,...vj->...vi", fits[..., :2], points, precision="highest")
  apart = jnp.square(placed + fits[..., None, :, 2] - template).sum(-1)  # *b 6 5
  near = jnp.sqrt((apart * _FITS).sum(-1) / _FITS.sum(-1))[..., 1:]  # *b 5
  far = jnp.sqrt(jnp.diagonal(apart[..., 1:, :], axis1=-2, axis2=-1))
  best = near.argmin(-1)[..., None]
  near, far = (jnp.take_along_axis(one, best, -1) for one in (near, far))
  bad = (far > FAR * size) & (far > TIMES * near)
  chosen = jnp.where(bad, best + 1, 0)[..., None, None]
  return jnp.take_along_axis(fits, chosen, -3)[..., 0, :, :]


def _fit(points: Array, template: Array) -> Array:
  """The fits of all landmarks, and without each: [*b, 1, 5, 2] -> [*b, 6, 2, 3]."""
  weights = _FITS[..., None] / _FITS.sum(-1)[:, None, None]  # 6 5 1
  from_, to = (points * weights).sum(-2), (template * weights).sum(-2)  # *b 6 2
  z, w = points - from_[..., None, :], template - to[..., None, :]
  # A turn with a scale is a product of complex numbers, whose least squares are one division.
  length = jnp.maximum((z * z * weights).sum((-2, -1)), 1e-12)
  a = (z * w * weights).sum((-2, -1)) / length
  b = ((z[..., 0] * w[..., 1] - z[..., 1] * w[..., 0]) * weights[..., 0]).sum(-1) / length
  turn = jnp.stack([jnp.stack([a, -b], -1), jnp.stack([b, a], -1)], -2)
  shift = to - jnp.einsum("...ij,...j->...i", turn, from_, precision="highest")
  return jnp.concatenate([turn, shift[..., None]], -1)


def align(
  pictures: Shaped[Array, "*b h w c"], landmarks: Float[Array, "*b 5 2"], *, size: int = SIZE
) -> Shaped[Array, "*b {size} {size} c"]:
  """Faces cut out of pictures, uint8 or float, with their landmarks where the template has them.

  Bilinear; what is outside a picture is black (0), as in ArcFace's crops. The picture's dtype.
  """
  shapes.check("landmarks", landmarks, "float", *pictures.shape[:-3], 5, 2)
  matrices = similarity(landmarks, size=size)
  found = jax.vmap(lambda picture, matrix: _warp(picture, matrix, size))(
    pictures.reshape(-1, *pictures.shape[-3:]), matrices.reshape(-1, 2, 3)
  )
  return found.reshape(*pictures.shape[:-3], size, size, pictures.shape[-1])


def _warp(picture: Array, matrix: Array, size: int) -> Array:
  height, width, _ = picture.shape
  a, b, shift = matrix[0, 0], matrix[1, 0], matrix[:, 2]
  x, y = jnp.meshgrid(jnp.arange(size) - shift[0], jnp.arange(size) - shift[1])
  length = jnp.maximum(a * a + b * b, 1e-12)
  x, y = (a * x + b * y) / length, (a * y - b * x) / length
  x, y = jnp.clip(x, -2, width + 1), jnp.clip(y, -2, height + 1)
  left, top = jnp.floor(x), jnp.floor(y)
  found = jnp.zeros((size, size, picture.shape[-1]), jnp.promote_types(picture.dtype, jnp.float32))
  for right, down in itertools.product((0, 1), repeat=2):
    column, row = left + right, top + down
    weight = (1 - jnp.abs(x - column)) * (1 - jnp.abs(y - row))
    weight *= (column >= 0) & (column < width) & (row >= 0) & (row < height)
    i = jnp.clip(row, 0, height - 1).astype(int), jnp.clip(column, 0, width - 1).astype(int)
    found += weight[..., None] * picture[i]
  return (jnp.round(found) if picture.dtype == jnp.uint8 else found).astype(picture.dtype)


def from_keypoints(
  keypoints: Float[np.ndarray, "t m v 3"],
  layout: topology.Skeleton,
  times: Float[np.ndarray, " t"],
  *,
  least_score: float = 0.3,
  least_size: float = 8.0,
  gap: float = 0.5,
) -> Followed:
  """The face of one of the persons of a pose, by `follow`.

  Its score is the mean of those of its landmarks (`five`). It is not seen with a score below
  `least_score`, or where the eyes are nearer to each other than `least_size` pixels.
  """
  landmarks, scores = five(keypoints, layout)
  across = np.square(landmarks[..., 1, :] - landmarks[..., 0, :]).sum(-1)
  seen = (scores >= least_score) & (across >= least_size**2)
  return follow(landmarks, np.where(seen, scores, 0), times, gap=gap)


def five(
  keypoints: Float[np.ndarray, "*b v 3"], layout: topology.Skeleton
) -> tuple[Float[np.ndarray, "*b 5 2"], Float[np.ndarray, "*b"]]:
  """The landmarks of poses, and their mean scores: 0 unless all five are there.

  An eye is the mean of the points around it, of which half must be there, or its pupil. Of layouts
  with OpenPose's points of a face, all or some, and of MediaPipe's; ValueError for one without
  corners of the mouth. The left of the picture is the right of a person who faces it.
  """
  landmarks = np.zeros((*keypoints.shape[:-2], 5, 2), np.float32)
  scores = np.zeros((*keypoints.shape[:-2], 5), np.float32)
  place = {name: v for v, name in enumerate(layout.joints)}
  for k, names in enumerate(_POINTS):
    choices = [[place[name] for name in one if name in place] for one in names]
    if not any(choices):
      expected = "eyes, a nose and both corners of a mouth (face points, as of openpose137)"
      got = f"{layout.name} without {names[0][0]} or {names[-1][0]}"
      raise ValueError(f"layout: expected {expected}, got {got}")
    for choice in filter(None, choices[::-1]):
      points = keypoints[..., choice, :]
      there = points[..., 2] > 0
      count = there.sum(-1, keepdims=True)
      mean = (points * there[..., None]).sum(-2) / np.maximum(count, 1)
      enough = 2 * count >= len(choice)
      landmarks[..., k, :] = np.where(enough, mean[..., :2], landmarks[..., k, :])
      scores[..., k] = np.where(enough[..., 0], mean[..., 2], scores[..., k])
  whole = (scores > 0).all(-1)
  return landmarks * whole[..., None, None], scores.mean(-1) * whole


def follow(
  landmarks: Float[np.ndarray, "t m 5 2"],
  scores: Float[np.ndarray, "t m"],
  times: Float[np.ndarray, " t"],
  *,
  gap: float = 0.5,
) -> Followed:
  """Of the faces of each frame, in any order, those of one person.

  Faces that overlap from frame to frame are one track, also over frames in which it is lost, up to
  `gap` seconds from seen to seen: there, landmarks are interpolated. The person followed has the
  track with the largest sum of score times size. What comes before and after it, after whatever
  time, is the same person's if it is near and of that size, the larger tracks first; who is in
  another place is somebody else.
  """
  num_frames = len(scores)
  sizes = _sizes(landmarks)
  tracks = _tracks(landmarks, scores, sizes, times, gap)
  tracks.sort(key=lambda track: -sum(float(scores[one] * sizes[one]) for one in track))
  chosen, others = [], np.zeros(num_frames, bool)
  for track in tracks:
    k = bisect.bisect(chosen, track)
    before, after = chosen[k - 1 : k] if k else [], chosen[k : k + 1]
    ends = [(one[-1], track[0]) for one in before] + [(track[-1], one[0]) for one in after]
    free = all(earlier[0] < later[0] for earlier, later in ends)
    if free and (not chosen or any(_apart(landmarks, sizes, *one) < _BACK for one in ends)):
      chosen.insert(k, track)
    elif len(track) >= _BRIEF:
      others[[t for t, _ in track]] = True
  found, known = np.zeros((num_frames, 5, 2), np.float32), np.zeros(num_frames, np.float32)
  last = None
  for one in itertools.chain(*chosen):
    t = one[0]
    found[t], known[t] = landmarks[one], scores[one]
    if last is not None and t > last + 1 and times[t] - times[last] <= gap:
      share = (times[last + 1 : t] - times[last]) / (times[t] - times[last])
      found[last + 1 : t] = found[last] + share[:, None, None] * (found[t] - found[last])
      known[last + 1 : t] = min(known[last], known[t])
    last = t
  return Followed(found, known, others)


_Face = tuple[int, int]  # a frame, and the number of a face in it


def _tracks(landmarks, scores, sizes, times, gap) -> list[list[_Face]]:
  tracks, open_ = [], []
  for t in range(len(scores)):
    open_ = [x for x in open_ if x[-1][0] == t - 1 or times[t] - times[x[-1][0]] <= gap]
    faces = [(t, int(m)) for m in np.flatnonzero(scores[t] > 0)]
    pairs = (
      (_apart(landmarks, sizes, x[-1], one), i, one) for i, x in enumerate(open_) for one in faces
    )
    taken = {}
    for apart, i, one in sorted(pairs):
      if apart < _NEAR and i not in taken and one not in taken.values():
        taken[i] = one
    for i, one in taken.items():
      open_[i].append(one)
    new = [[one] for one in faces if one not in taken.values()]
    tracks += new
    open_ += new
  return tracks


def _sizes(landmarks: Float[np.ndarray, "*b 5 2"]) -> Float[np.ndarray, "*b"]:
  """How far the eyes are from each other, or from the mouth: a turned head has the second alone."""
  eyes, mouth = landmarks[..., :2, :], landmarks[..., 3:, :]
  across = eyes[..., 1, :] - eyes[..., 0, :]
  down = mouth.mean(-2) - eyes.mean(-2)
  return np.maximum(*(np.sqrt(np.square(one).sum(-1)) for one in (across, down)))


def _apart(landmarks: np.ndarray, sizes: np.ndarray, a: _Face, b: _Face) -> float:
  """The distance of two faces, in sizes of the larger one; infinite if one is much larger."""
  small, large = sorted((float(sizes[a]), float(sizes[b])))
  if not 0 < large <= _RATIO * small:
    return np.inf
  return float(np.hypot(*(landmarks[a] - landmarks[b]).mean(0))) / large
