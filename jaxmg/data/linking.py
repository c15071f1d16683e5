"""Persons of single frames, in any order and now and then missed, linked to persons over time."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

# Distances are relative to the diagonal of a body's box: 1.8 m of a standing person.
_GATE = 0.4  # farther than this from where it is expected, in the next frame, nobody is the same
_GATE_PER_FRAME, _WIDEST_GATE = 0.02, 1.0  # and after some frames in which it was missed
_SAME_BODY = 0.08  # nearer than this to a better one in the same frame, one is its double
_COASTING = 8  # frames for which a missed person is thought to walk on
# Who is new, or is missed most of the time, may be a ghost or part of another, and stands back by
# up to this much; so do bodies of less score than another in the frame.
_STAND_BACK = 0.1
_YOUNG = 5  # frames
_MOST_OPEN = 256  # tracks that may go on at a time


def link(
  frames: Sequence[np.ndarray], *, most: int = 20, gap: int = 30
) -> tuple[Float[np.ndarray, "t m v 3"], int]:
  """Persons [P_t, V, 3] of each frame -> the same in slots, a slot a person; and how many are left.

  Each frame's persons go to those of the frames before by the smallest total distance of the
  joints that both have shown, moved on as they walked, and relative to the body's size. Slots
  follow their summed score over all frames, and doubles (a body found twice in a frame) come last.
  The order of persons in `frames` plays no part. If no frame has two, all are one person, and
  nothing is moved.

  It knows bodies by their places alone: two who come so near that their joints mix, or of whom one
  turns back while the other hides him, may leave with changed slots; who is missed for longer than
  `gap`, or comes back elsewhere, is somebody new; and who takes another's place within `gap` is
  taken for him.

  Args:
    frames: float[P_t, V, 3] each, x, y in pixels and score; an absent joint is all zero, and a
      person without joints is nobody. The caller bounds P_t.
    most: slots at most: those of the largest summed score.
    gap: frames for which a person may be missed.

  Returns:
    float32[T, M, V, 3], 1 <= M <= most; and the number of persons and ghosts that found no slot.
  """
  shape = (len(frames), *frames[0].shape[1:])
  present = [np.flatnonzero(frame.any((1, 2))) for frame in frames]
  if all(len(persons) <= 1 for persons in present):
    linked = np.zeros((shape[0], 1, *shape[1:]), np.float32)
    for frame, persons, slot in zip(frames, present, linked, strict=True):
      slot[: len(persons)] = frame[persons]
    return linked, 0
  # By what they are, not by where they stand in their frame.
  ordered = []
  for frame, persons in zip(frames, present, strict=True):
    keys = frame[persons].reshape(len(persons), frame[0:1].size or 1)
    score = frame[persons, :, 2].astype(np.float64).sum(-1)
    ordered.append(frame[persons[np.lexsort((*keys.T[::-1], -score))]].astype(np.float32))
  tracks, doubles = _tracks(ordered, gap, doubles_apart=True)
  kept = _by_score(ordered, tracks)
  if any(map(len, doubles)):
    second, _ = _tracks(
      [frame[persons] for frame, persons in zip(ordered, doubles, strict=True)], gap
    )
    second = [[(t, doubles[t][person]) for t, person in track] for track in second]
    kept += _by_score(ordered, second)
  linked = np.zeros((shape[0], min(len(kept), most), *shape[1:]), np.float32)
  for slot, track in enumerate(kept[:most]):
    for t, person in track:
      linked[t, slot] = ordered[t][person]
  return linked, max(0, len(kept) - most)


_Track = list[tuple[int, int]]  # frames and indices of a person in them


def _by_score(frames: list[np.ndarray], tracks: list[_Track]) -> list[_Track]:
  def order(track):
    first = frames[track[0][0]][track[0][1]]
    score = sum(float(frames[t][person][:, 2].sum(dtype=np.float64)) for t, person in track)
    return (-score, track[0][0], *_middle(first))

  return sorted(tracks, key=order)


def _middle(person: np.ndarray) -> tuple[float, float]:
  return tuple(person[person.any(-1), :2].mean(0).tolist())


def _tracks(
  frames: list[np.ndarray], gap: int, *, doubles_apart: bool = False
) -> tuple[list[_Track], list[list[int]]]:
  """The tracks, in the order of their beginnings; and of each frame the doubles."""
  from scipy.optimize import linear_sum_assignment

  num_joints = frames[0].shape[1]
  tracks, doubles = [], []
  # Of each track that may go on: where its joints were and when, its speed, size and frames.
  place = np.zeros((0, num_joints, 2))
  seen_at = np.zeros((0, num_joints), int)
  speed, size = np.zeros((0, 2)), np.zeros(0)
  length, first, last, number = (np.zeros(0, int) for _ in range(4))
  for t, frame in enumerate(frames):
    open_ = np.flatnonzero(t - last <= gap)
    if len(open_) > _MOST_OPEN:
      open_ = np.sort(open_[np.lexsort((-length[open_], -last[open_]))[:_MOST_OPEN]])
    if len(open_) < len(last):
      state = (place, seen_at, speed, size, length, first, last, number)
      place, seen_at, speed, size, length, first, last, number = (one[open_] for one in state)
    xy, seen = frame[..., :2].astype(np.float64), frame.any(-1)
    sizes = _sizes(xy, seen)
    rows = columns = np.zeros(0, int)
    if len(last) and len(frame):
      missed = t - last
      expected = place + (speed * np.minimum(missed, _COASTING)[:, None])[:, None]
      known = t - seen_at <= gap
      distance, _ = _distances(expected, known, size, xy, seen, sizes)
      rare = 1 - length / (t - first + _YOUNG)
      score = frame[..., 2].sum(-1, dtype=np.float64)
      faint = 1 - score / max(score.max(), 1e-9)
      cost = distance + _STAND_BACK * (rare[:, None] + faint)
      gate = np.minimum(_GATE + _GATE_PER_FRAME * (missed - 1), _WIDEST_GATE)[:, None]
      # A pair that cannot be costs as much as to be missed: else two bad pairs are made where one
      # good one and a missed person were.
      rows, columns = linear_sum_assignment(np.minimum(cost, gate))
      real = cost[rows, columns] < gate[rows, 0]
      rows, columns = rows[real], columns[real]
      moved = seen[columns] & known[rows]
      step = _mean(xy[columns] - place[rows], moved) / missed[rows, None]
      speed[rows] = np.where(moved.sum(-1)[:, None] > 2, (speed[rows] + step) / 2, speed[rows])
      place[rows] = np.where(seen[columns][..., None], xy[columns], expected[rows])
      seen_at[rows] = np.where(seen[columns], t, seen_at[rows])
      size[rows] = np.maximum(0.9 * size[rows], sizes[columns])
      last[rows] = t
      length[rows] += 1
      for track, person in zip(number[rows].tolist(), columns.tolist(), strict=True):
        tracks[track].append((t, person))
    accepted, second = columns.tolist(), []
    new = sorted(set(range(len(frame))) - set(accepted))
    if doubles_apart and new and len(frame) > 1:
      distance, common = _distances(xy, seen, sizes, xy, seen, sizes)
      # Of a part of a body that part must be there, of a body most of it.
      same = (distance < _SAME_BODY) & (2 * common >= np.minimum.outer(*[seen.sum(-1)] * 2))
      for person in new:
        (second if same[person, accepted].any() else accepted).append(person)
      new = [person for person in new if person not in second]
    doubles.append(second)
    if new:
      added = np.full(len(new), t)
      place, size = np.concatenate([place, xy[new]]), np.concatenate([size, sizes[new]])
      seen_at = np.concatenate([seen_at, np.where(seen[new], t, -gap - 1)])
      speed = np.concatenate([speed, np.zeros((len(new), 2))])
      length = np.concatenate([length, np.ones_like(added)])
      first, last = np.concatenate([first, added]), np.concatenate([last, added])
      number = np.concatenate([number, len(tracks) + np.arange(len(new))])
      tracks += [[(t, person)] for person in new]
  return tracks, doubles


def _sizes(xy: np.ndarray, seen: np.ndarray) -> np.ndarray:
  """The diagonals of the boxes around the joints that are seen, at least one pixel."""
  low = np.where(seen[..., None], xy, np.inf).min(-2, initial=np.inf)
  high = np.where(seen[..., None], xy, -np.inf).max(-2, initial=-np.inf)
  return np.maximum(np.hypot(*(high - low).T), 1)


def _distances(xy_a, seen_a, size_a, xy_b, seen_b, size_b) -> tuple[np.ndarray, np.ndarray]:
  """Of each a and b: the mean distance of the joints that both have, by their size; how many."""
  both = seen_a[:, None] & seen_b[None]  # a b v
  x, y = np.moveaxis(xy_a[:, None] - xy_b[None], -1, 0)
  common = both.sum(-1)
  mean = (np.hypot(x, y) * both).sum(-1) / np.maximum(common, 1)
  size = np.maximum(size_a[:, None], size_b[None])
  return np.where(common > 0, mean / size, np.inf), common


def _mean(values: np.ndarray, mask: np.ndarray) -> np.ndarray:
  """The mean of values [..., V, 2] over the joints of a mask, 0 where there are none."""
  count = np.maximum(mask.sum(-1), 1)[..., None]
  return (values * mask[..., None]).sum(-2) / count
