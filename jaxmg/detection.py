"""Faces found in pictures by MTCNN's cascade (Zhang et al., 2016): boxes, scores and landmarks.

P-Net goes over the picture in several sizes, and what it finds is looked at again by R-Net and
O-Net. Sizes, steps and thresholds are those of facenet-pytorch (2.6.0), whose weights these are.

Networks are compiled once for a size of pictures, and for three numbers of candidates: batches are
filled up. What lies between them is numpy: what is kept of a picture has another number each time.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float, Int, UInt8

from jaxmg.models import mtcnn

# Of a face's box, in pixels, or as a share of the short side of the picture where that is more.
LEAST_SIZE, LEAST_SHARE = 20.0, 1 / 12
_STEP = 0.709  # from size to size
_THRESHOLDS = {"pnet": 0.6, "rnet": 0.7, "onet": 0.7}
_WITHIN, _AMONG = 0.5, 0.7  # shared parts of boxes of one size of the picture, and of all
_PICTURES = 4  # at a time
_CANDIDATES = (16, 64, 256)


class Found(NamedTuple):
  """The faces of a picture, the surest first.

  boxes      float32[n, 4]     left, top, right, bottom, in pixels
  scores     float32[n]
  landmarks  float32[n, 5, 2]  as in `jaxmg.faces`
  """

  boxes: np.ndarray
  scores: np.ndarray
  landmarks: np.ndarray


class Detector:
  """Called on uint8[N, H, W, 3], returns `Found` of each picture.

  `variables` are those of the networks by their names (`jaxmg.pretrained.mtcnn.read`). Faces are
  found whose box has `least_size` pixels; by default 20, or a twelfth of a larger picture's side.
  """

  def __init__(self, variables: Mapping[str, Any], *, least_size: float | None = None):
    self._variables = {name: jax.device_put(one) for name, one in variables.items()}
    self._least_size = least_size

  def __call__(self, pictures: UInt8[np.ndarray, "n h w 3"]) -> list[Found]:
    found = []
    for k in range(0, len(pictures), _PICTURES):
      some = pictures[k : k + _PICTURES]
      found += self._detect(some)
    return found

  def _detect(self, pictures):
    boxes = self._scan(pictures)
    sums = [len(own) and _sums(x) for x, own in zip(pictures, boxes, strict=True)]
    boxes, (scores, moves, _) = self._look("rnet", sums, boxes)
    for k, own in enumerate(boxes):
      kept = suppress(own, scores[k], _AMONG)
      boxes[k] = _square(_moved(own[kept], moves[k][kept]))
    boxes, (scores, moves, points) = self._look("onet", sums, boxes)
    found = []
    for own, score, move, point in zip(boxes, scores, moves, points, strict=True):
      sides = own[:, None, 2:] - own[:, None, :2] + 1
      # Boxes count pixels from 1, landmarks from 0.
      landmarks = point.reshape(-1, 2, 5).swapaxes(1, 2) * sides + own[:, None, :2] - 1
      own = _moved(own, move)
      kept = suppress(own, score, _AMONG, of_smaller=True)
      found.append(Found(*(one[kept].astype(np.float32) for one in (own, score, landmarks))))
    return found

  def _scan(self, pictures) -> list[np.ndarray]:
    """The squares of each picture in which P-Net sees a face."""
    count, height, width = pictures.shape[:3]
    least = self._least_size or max(LEAST_SIZE, LEAST_SHARE * min(height, width))
    scales, scale = [], mtcnn.SIZES["pnet"] / least
    while min(height, width) * scale >= mtcnn.SIZES["pnet"]:
      scales.append(scale)
      scale *= _STEP
    if not scales:
      return [np.zeros((0, 4))] * count
    sizes = tuple((int(height * scale + 1), int(width * scale + 1)) for scale in scales)
    padded = np.concatenate([pictures, np.repeat(pictures[-1:], _PICTURES - count, 0)])
    maps = jax.device_get(_scanned(self._variables["pnet"], padded, sizes))
    found = []
    for k in range(count):
      boxes, scores, moves = [], [], []
      for scale, (score, move) in zip(scales, maps, strict=True):
        rows, columns = np.nonzero(score[k] >= _THRESHOLDS["pnet"])
        corners = np.stack([columns, rows], -1)
        own = np.concatenate([2 * corners + 1, 2 * corners + mtcnn.SIZES["pnet"]], -1)
        own = np.floor(own / scale)
        kept = suppress(own, score[k, rows, columns], _WITHIN)
        boxes.append(own[kept])
        scores.append(score[k, rows, columns][kept])
        moves.append(move[k, rows, columns][kept])
      boxes, scores, moves = map(np.concatenate, (boxes, scores, moves))
      kept = suppress(boxes, scores, _AMONG)
      found.append(_square(_moved(boxes[kept], moves[kept], one=0)))
    return found

  def _look(self, name: str, sums: Sequence[Any], boxes: Sequence[np.ndarray]):
    """What a network says of all candidates, those of each picture that it takes for faces."""
    size = mtcnn.SIZES[name]
    crops = []
    for k, own in enumerate(boxes):
      if len(own):
        cut, kept = _crops(sums[k], own, size)
        crops.append(cut)
        boxes[k] = own[kept]
    ends = np.cumsum([len(own) for own in boxes])[:-1]
    crops = np.concatenate([np.zeros((0, size, size, 3), np.float32), *crops])
    starts = range(0, max(1, len(crops)), _CANDIDATES[-1])
    parts = [self._batch(name, crops[k : k + _CANDIDATES[-1]]) for k in starts]
    outputs = [np.split(np.concatenate(one), ends) for one in zip(*parts, strict=True)]
    faces = [score > _THRESHOLDS[name] for score in outputs[0]]
    boxes = [own[face] for own, face in zip(boxes, faces, strict=True)]
    return boxes, [[x[face] for x, face in zip(one, faces, strict=True)] for one in outputs]

  def _batch(self, name: str, crops: np.ndarray) -> list[np.ndarray]:
    room = next(size for size in _CANDIDATES if size >= len(crops))
    padded = np.concatenate([crops, np.zeros((room - len(crops), *crops.shape[1:]), np.float32)])
    outputs = jax.device_get(_looked(self._variables[name], padded, name))
    return [one[: len(crops)] for one in outputs]


@functools.partial(jax.jit, static_argnames="sizes")
def _scanned(variables, pictures, sizes):
  """Of each size of the pictures, [N, H', W'] scores and [N, H', W', 4] moves."""
  pictures = (pictures.astype(jnp.float32) - 127.5) / 128
  found = []
  for rows, columns in sizes:
    down, across = _means(pictures.shape[1], rows), _means(pictures.shape[2], columns)
    x = jnp.einsum("rh,nhwc->nrwc", down, pictures)
    x = jnp.einsum("sw,nrwc->nrsc", across, x)
    logits, out = mtcnn.nets()["pnet"].apply(variables, x)
    found.append((jax.nn.softmax(logits)[..., 1], out["box"]))
  return found


@functools.partial(jax.jit, static_argnames="name")
def _looked(variables, crops, name):
  logits, out = mtcnn.nets()[name].apply(variables, (crops - 127.5) / 128)
  return jax.nn.softmax(logits)[..., 1], out["box"], out.get("landmarks", crops[:, 0, 0, :0])


def _means(length: int, size: int) -> Float[np.ndarray, "size length"]:
  """The matrix of the means over `size` parts of a line, which overlap where they do not divide."""
  starts, ends = _parts(np.array([0]), np.array([length]), size)
  k = np.arange(length)
  inside = (k >= starts[0, :, None]) & (k < ends[0, :, None])
  return (inside / inside.sum(-1, keepdims=True)).astype(np.float32)


def _parts(first: np.ndarray, end: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
  """Where each of `size` parts of each line begins and ends."""
  k, length = np.arange(size), (end - first)[:, None]
  return first[:, None] + k * length // size, first[:, None] - (-(k + 1) * length // size)


def _sums(picture: UInt8[np.ndarray, "h w c"]) -> Int[np.ndarray, "h1 w1 c"]:
  """The sum of what is above and to the left of each corner: any box's mean is of four of them."""
  return np.pad(picture.astype(np.int64).cumsum(0).cumsum(1), ((1, 0), (1, 0), (0, 0)))


def _crops(sums: np.ndarray, boxes: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
  """[n, size, size, 3], means of what is in each box and in the picture; and which have any."""
  height, width = sums.shape[0] - 1, sums.shape[1] - 1
  left, top = (np.maximum(boxes[:, k].astype(int), 1) - 1 for k in (0, 1))
  right, bottom = (
    np.minimum(boxes[:, 2].astype(int), width),
    np.minimum(boxes[:, 3].astype(int), height),
  )
  kept = np.flatnonzero((right > left) & (bottom > top))
  (x0, x1), (y0, y1) = (
    [one[:, None] if k else one[:, :, None] for one in _parts(first[kept], end[kept], size)]
    for k, (first, end) in ((1, (left, right)), (0, (top, bottom)))
  )
  total = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
  return (total / ((y1 - y0) * (x1 - x0))[..., None]).astype(np.float32), kept


def _moved(boxes: np.ndarray, moves: np.ndarray, one: int = 1) -> np.ndarray:
  """`one` of a width: of a box whose last pixel is in it."""
  sides = boxes[:, 2:] - boxes[:, :2] + one
  return boxes + moves * np.tile(sides, 2)


def _square(boxes: np.ndarray) -> np.ndarray:
  """The squares around the middles of boxes, as wide as these are wide or high."""
  sides = boxes[:, 2:] - boxes[:, :2]
  side = sides.max(-1, keepdims=True, initial=0)
  corner = boxes[:, :2] + sides / 2 - side / 2
  return np.concatenate([corner, corner + side], -1)


def suppress(
  boxes: Float[np.ndarray, "n 4"],
  scores: Float[np.ndarray, " n"],
  most: float,
  *,
  of_smaller: bool = False,
) -> Int[np.ndarray, " kept"]:
  """Which boxes are left, the surest first, if none shares more than `most` with a surer one.

  What is shared is taken of what both cover together, or of the smaller one.
  """
  areas = np.prod(boxes[:, 2:] - boxes[:, :2], -1)
  order, kept = np.argsort(-scores, kind="stable"), []
  while len(order):
    best, order = order[0], order[1:]
    kept.append(best)
    low = np.maximum(boxes[best, :2], boxes[order, :2])
    high = np.minimum(boxes[best, 2:], boxes[order, 2:])
    common = np.prod(np.maximum(high - low, 0), -1)
    whole = (
      np.minimum(areas[best], areas[order]) if of_smaller else areas[best] + areas[order] - common
    )
    order = order[common <= most * whole]
  return np.array(kept, int)
