import numpy as np
import pytest

from jaxmg.data import linking

BODY = np.random.default_rng(0).uniform((-40, -90), (40, 90), (25, 2))  # pixels around the middle


def person(middle, score=0.9, *, seed=None, joints=slice(None)):
  """float32[25, 3] of a body, some pixels off if there is a seed, and of it only some joints."""
  xy = BODY + np.asarray(middle, float)
  if seed is not None:
    xy = xy + np.random.default_rng(seed).normal(0, 2, xy.shape)
  pose = np.zeros((25, 3), np.float32)
  pose[joints] = np.concatenate([xy, np.full((25, 1), score)], -1)[joints]
  return pose


def walk(start, step, length, **options):
  return [person(np.add(start, np.multiply(step, t)), seed=t, **options) for t in range(length)]


def frames_of(*tracks):
  """Frames that hold of each track what is there at that time."""
  return [
    np.array([one for one in people if one is not None], np.float32).reshape(-1, 25, 3)
    for people in zip(*tracks, strict=True)
  ]


def slots(tracks):
  """What `link` should give of whole tracks."""
  nobody = np.zeros((25, 3), np.float32)
  return np.array(
    [[nobody if one is None else one for one in people] for people in zip(*tracks, strict=True)]
  )


def without(track, *missing):
  return [None if t in missing else one for t, one in enumerate(track)]


def check(*tracks, gap=30):
  """The tracks, given by falling score, come out as they are, whatever the order in the files."""
  frames = frames_of(*tracks)
  rng = np.random.default_rng(1)
  for _ in range(3):
    linked, left = linking.link([rng.permutation(frame) for frame in frames], gap=gap)
    np.testing.assert_array_equal(linked, slots(tracks))
    assert left == 0


def test_one_person_alone_stays_as_it_is_however_it_jumps():
  track = without([person((500 * (t % 2), 300), seed=t) for t in range(9)], 3, 4)
  check(track)
  frames = frames_of(track)
  linked, _ = linking.link([np.concatenate([np.zeros((2, 25, 3), "f4"), f]) for f in frames])
  np.testing.assert_array_equal(linked, slots([track]))


def test_nobody_at_all_is_one_empty_slot():
  linked, left = linking.link([np.zeros((2, 25, 3)), np.zeros((0, 25, 3))])
  assert (linked.shape, linked.any(), left) == ((2, 1, 25, 3), False, 0)


def test_scores_that_change_places_do_not_change_persons():
  actor, bystander = [], []
  for t in range(40):
    actor.append(person((300, 200), 0.7 if t % 3 else 0.95, seed=t))
    bystander.append(person((700, 210), 0.75 if t % 2 else 0.6, seed=t))
  check(actor, bystander)


def test_walkers_who_cross_keep_their_slots():
  right = walk((100, 200), (9, 0), 80, score=0.9)
  left = walk((800, 215), (-8, 0), 80, score=0.8)
  check(right, left)


def test_a_walker_who_is_hidden_while_another_crosses_keeps_the_slot():
  right = walk((100, 200), (9, 0), 80, score=0.9)
  left = walk((800, 215), (-8, 0), 80, score=0.8)
  check(right, without(left, *range(38, 45)))


def test_who_walks_on_behind_another_is_expected_where_the_walk_leads():
  right = walk((100, 200), (9, 0), 80, score=0.9)
  left = walk((800, 215), (-8, 0), 80, score=0.8)
  check(right, without(left, *range(32, 52)))


def test_who_is_missed_for_some_frames_is_the_same_and_after_the_gap_another():
  other = walk((600, 200), (0, 0), 60, score=0.9)
  actor = walk((200, 200), (0, 0), 60, score=0.8)
  check(other, without(actor, *range(20, 28)))
  first, then = without(actor, *range(20, 60)), without(actor, *range(35))
  check(other, then, first, gap=10)


def test_who_enters_elsewhere_is_another():
  actor = walk((500, 200), (0, 0), 40, score=0.9)
  leaves = without(walk((100, 200), (-5, 0), 40), *range(21, 40))
  enters = without(walk((900, 200), (1, 0), 40, score=0.8), *range(25))
  check(actor, leaves, enters)


def test_ghosts_come_last():
  actor = walk((300, 200), (1, 0), 30)
  ghost = [person((420, 260), 0.95) if t == 12 else None for t in range(30)]
  half = [person((800, 200), 0.5, joints=slice(5)) if t in (3, 4) else None for t in range(30)]
  check(actor, ghost, half)


def test_a_ghost_where_the_actor_is_missed_does_not_take_the_slot_for_good():
  actor = without(walk((300, 200), (1, 0), 30), 12)
  other = walk((900, 200), (0, 0), 30, score=0.8)
  ghost = [person((380, 230), 0.3, joints=slice(4)) if t == 12 else None for t in range(30)]
  linked, _ = linking.link(frames_of(actor, other, ghost))
  kept = [t for t in range(30) if t != 12]
  np.testing.assert_array_equal(linked[kept, :2], slots([actor, other])[kept])


def test_two_bad_pairs_are_not_made_of_one_good_one_and_a_missed_person():
  actor = walk((300, 200), (0, 0), 30)
  behind = without(walk((360, 200), (0, 0), 30, score=0.8), 12)
  ghost = [person((240, 200), 0.9) if t == 12 else None for t in range(30)]
  check(actor, behind, ghost)


def test_a_body_that_falls_apart_at_times_keeps_its_slot():
  actor, rest = walk((300, 200), (1, 0), 60), [None] * 60
  apart = range(10, 60, 3)
  for t in apart:
    actor[t] = person((300 + t, 200), 0.9, seed=t, joints=slice(13))
    rest[t] = person((300 + t, 200), 0.4, seed=t, joints=slice(13, 25))
  linked, _ = linking.link(frames_of(actor, rest))
  whole = [t for t in range(60) if t not in apart]
  np.testing.assert_array_equal(linked[whole, 0], np.array(actor)[whole])


@pytest.mark.parametrize(("joints", "off"), [(slice(None), 4), (slice(12), 0)])
def test_a_body_that_is_found_twice_is_one_person_and_its_doubles_come_last(joints, off):
  actor = walk((300, 200), (2, 0), 40)
  other = without(walk((800, 200), (0, 0), 40, score=0.2), *range(9, 40))
  twice = [person((300 + 2 * t + off, 200), 0.6, joints=joints) for t in range(40)]
  twice = without(twice, *range(10), *range(25, 40))
  check(actor, other, twice)


def test_a_body_whose_halves_are_seen_in_turn_is_one_person():
  halves = (slice(15), slice(10, 25), slice(12, 25), slice(0, 18))
  actor = [person((300 + t, 200), seed=t, joints=halves[t % 4]) for t in range(30)]
  check(walk((600, 200), (0, 0), 30), actor)


def test_only_the_best_are_kept_and_the_others_counted():
  tracks = [walk((300 * i, 200), (0, 0), 6, score=0.9 - 0.1 * i) for i in range(7)]
  linked, left = linking.link(frames_of(*reversed(tracks)), most=3)
  np.testing.assert_array_equal(linked, slots(tracks[:3]))
  assert left == 4


def test_equal_scores_go_by_place():
  check(walk((100, 200), (0, 0), 5), walk((500, 200), (0, 0), 5), walk((900, 200), (0, 0), 5))


def test_a_crowd_of_noise_ends_in_bounded_slots():
  rng = np.random.default_rng(0)
  linked, left = linking.link([rng.uniform(1, 900, (40, 5, 3)) for _ in range(20)])
  assert linked.shape == (20, 20, 5, 3)
  assert left > 0
