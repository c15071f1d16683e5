"""NTU RGB+D's text -> 3-D joints."""

import tracemalloc

import numpy as np
import pytest

from jaxmg.data import readers
from jaxmg.errors import DataError

A, B = "72057594037931101", "72057594037931368"  # ids as Kinect gives them


def joints(num_frames=4, seed=0):
  """float64[T, 25, 3], metres; a few digits, so that text keeps it."""
  rng = np.random.default_rng(seed)
  return rng.uniform((-1, -1, 2), (1, 1, 3), (num_frames, 25, 3)).round(4)


def text(*frames):
  """`frames`: of each the bodies, an id and [V, 3]."""
  lines = [len(frames)]
  for bodies in frames:
    lines.append(len(bodies))
    for id, points in bodies:
      lines += [f"{id} 0 1 1 1 1 0 0.02 -0.05 2", len(points)]
      for x, y, z in points:
        lines.append(f"{x:g} {y:g} {z:g} 280.1 215.9 1000.3 555.2 -0.2 0 0.9 0.1 2")
  return "\n".join(map(str, lines)) + "\n"


def read(folder, content, **told):
  (folder / "a.skeleton").write_bytes(content.encode())
  return readers.read(folder / "a.skeleton", **told)


def test_joints_are_metres_and_seen_by_the_camera(tmp_path):
  points = joints()
  content = text(*([(A, frame)] for frame in points))
  clip = read(tmp_path, content)
  np.testing.assert_array_equal(clip.joints3d, np.float32(points[:, None]))
  np.testing.assert_array_equal(clip.keypoints, readers.depth_view(clip.joints3d))
  assert str(clip.guess) == "read as 4 frames of 1 person, 25 joints (kinect25), metres"
  again = read(tmp_path, content.replace("\n", "\r\n") + "\n\n")
  np.testing.assert_array_equal(again.joints3d, clip.joints3d)


def test_bodies_keep_their_places_by_their_ids(tmp_path):
  a, b = joints(seed=1), joints(seed=2)
  frames = [(A, a[0])], [(B, b[1]), (A, a[1])], [], [(B, b[3])]
  found = read(tmp_path, text(*frames)).joints3d
  assert found.any((2, 3)).tolist() == [[1, 0], [1, 1], [0, 0], [0, 1]]
  np.testing.assert_array_equal(found[:2, 0], np.float32(a[:2]))
  np.testing.assert_array_equal(found[[1, 3], 1], np.float32(b[[1, 3]]))


WHOLE = text(*([(A, frame)] for frame in joints(2)))  # 57 lines


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (WHOLE[: len(WHOLE) // 3], r"line \d+: expected 12 values, got \d"),
    ("\n".join(WHOLE.split("\n")[:40]), "expected more lines, got its end"),
    ("", "expected more lines, got its end"),
    (WHOLE + "1\n", "line 58: expected the end after all frames, got more"),
    ("3" + WHOLE[1:], "expected more lines, got its end"),
    ("1" + WHOLE[1:], "line 30: expected the end after all frames, got more"),
    ("<html>\n", "line 1: expected a number of frames up to 1000000, got <html>"),
    ("0\n", "line 1: expected at least one frame, got 0"),
    ("-1\n", "line 1: expected a number of frames up to 1000000, got -1"),
    (text([(A, joints()[0, :20])]), "line 4: expected 25 joints, got 20"),
    (text([(A, joints()[0])] * 2), "line 30: expected a body once in a frame, got 720575940379311"),
    (WHOLE.replace("280.1", "", 1), "line 5: expected 12 values, got 11"),
    ("1\n1\n1 2 3\n", "line 3: expected 10 values, got 3"),
    ("1\n101\n", "line 2: expected a number of bodies up to 100, got 101"),
    (
      text([(A, 1000 * joints()[0])]),
      r"metres up to 100, got [\d.]+ \(millimetres\? divide them by",
    ),
    (text([(A, joints()[0] / 100)]), r"expected metres, got a body of 0\.01\d \(another unit\?"),
  ],
)
def test_other_texts_are_refused(tmp_path, content, message):
  with pytest.raises(DataError, match=rf"a\.skeleton: .*{message}") as caught:
    read(tmp_path, content)
  assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
  ("number", "message"),
  [
    ("nan", "expected finite numbers, got nan "),
    ("-inf", "expected finite numbers, got -inf "),
    ("1e99", "expected finite numbers, got 1e99 "),
    ("x", "expected finite numbers, got x "),
  ],
)
def test_what_is_no_number_is_named_by_its_body(tmp_path, number, message):
  first = WHOLE.split("\n")[4].split()[0]
  with pytest.raises(DataError, match=rf"a\.skeleton: line 3: .*{message}"):
    read(tmp_path, WHOLE.replace(f"\n{first} ", f"\n{number} ", 1))


def test_a_number_of_frames_takes_no_memory_before_they_are_there(tmp_path):
  tracemalloc.start()
  for content in ("1000000\n", "999999999\n", "1000000\n" + "0\n" * 1000):
    with pytest.raises(DataError):
      read(tmp_path, content)
  _, peak = tracemalloc.get_traced_memory()
  tracemalloc.stop()
  assert peak < 2 << 20
