"""The cascade around MTCNN's networks, of which stand-ins take bright squares for faces."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmg import detection, faces
from jaxmg.models import mtcnn


def likeness(windows):
  """Of windows [..., n, n] with values in [0, 1] to a square in the middle two thirds."""
  side = windows.shape[-1]
  target = np.zeros((side, side))
  target[side // 6 : side - side // 6, side // 6 : side - side // 6] = 1
  return 1 - np.abs(windows - target).mean((-2, -1))


@pytest.fixture
def detector(monkeypatch):
  """Finds bright squares; `detector.asked` are the numbers of candidates that it was shown."""
  asked = []

  def scanned(variables, pictures, sizes):
    found = []
    for rows, columns in sizes:
      down = detection._means(pictures.shape[1], rows)
      across = detection._means(pictures.shape[2], columns)
      small = down @ pictures.mean(-1) / 255 @ across.T
      windows = np.lib.stride_tricks.sliding_window_view(small, (12, 12), (1, 2))[:, ::2, ::2]
      score = likeness(windows)
      found.append((score, np.zeros((*score.shape, 4))))
    return found

  def looked(variables, crops, name):
    asked.append(len(crops))
    marks = (faces.TEMPLATE / faces.SIZE).T.ravel()
    score = likeness(crops.mean(-1) / 255)
    count = len(crops)
    return score, np.zeros((count, 4)), np.tile(marks, (count, 1))

  monkeypatch.setattr(detection, "_scanned", scanned)
  monkeypatch.setattr(detection, "_looked", looked)
  found = detection.Detector(dict.fromkeys(("pnet", "rnet", "onet"), 0))
  found.asked = asked
  return found


def picture(*squares, shape=(120, 160)):
  image = np.zeros((*shape, 3), np.uint8)
  for left, top, side in squares:
    image[top : top + side, left : left + side] = 255
  return image


def test_squares_are_found_with_their_places(detector):
  squares = [(40, 30, 40), (110, 60, 28)]
  one, none, two = detector(np.stack([picture(squares[0]), picture(), picture(*squares)]))
  assert [len(x.scores) for x in (one, none, two)] == [1, 0, 2]
  for box, (left, top, side) in zip(two.boxes[np.argsort(two.boxes[:, 0])], squares, strict=True):
    expected = np.array([left, top, left + side, top + side]) + side / 4 * np.array([-1, -1, 1, 1])
    np.testing.assert_allclose(box, expected, atol=0.4 * side)  # of the next size
  sides = one.boxes[0, 2] - one.boxes[0, 0]
  np.testing.assert_allclose(
    one.landmarks[0], one.boxes[0, :2] - 1 + faces.TEMPLATE / faces.SIZE * (sides + 1), rtol=1e-4
  )
  np.testing.assert_array_equal(one.boxes[0], two.boxes[np.argmin(two.boxes[:, 0])])


def test_candidates_come_in_few_numbers(detector):
  found = detector(np.stack([picture((20, 20, 60), (90, 50, 60)), picture()]))
  assert len(found) == 2
  assert set(detector.asked) <= {16, 64, 256}


def test_a_picture_smaller_than_any_face_has_none(detector):
  (found,) = detector(np.zeros((1, 10, 30, 3), np.uint8))
  assert found.boxes.shape == (0, 4)
  assert found.landmarks.shape == (0, 5, 2)


def test_crops_are_means_of_the_parts_of_boxes():
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (37, 53, 3), np.uint8)
  boxes = np.array([[3.7, 5, 30, 28.9], [-4, -9, 10, 12], [45, 30, 70, 60], [60, 3, 70, 9]])
  crops, kept = detection._crops(detection._sums(image), boxes, 8)
  assert kept.tolist() == [0, 1, 2]
  inside = [(2, 4, 30, 28), (0, 0, 10, 12), (44, 29, 53, 37)]
  for crop, (x0, y0, x1, y1) in zip(crops, inside, strict=True):
    part = image[y0:y1, x0:x1].astype(float)
    down, across = detection._means(y1 - y0, 8), detection._means(x1 - x0, 8)
    np.testing.assert_allclose(crop, np.einsum("rh,hwc,sw->rsc", down, part, across), rtol=1e-5)


@pytest.mark.parametrize(("length", "size"), [(10, 5), (10, 4), (3, 7)])
def test_means_are_of_the_pixels_that_a_part_touches(length, size):
  found = detection._means(length, size)
  for k, row in enumerate(found):
    first, last = int(k * length / size), int(np.ceil((k + 1) * length / size))
    assert np.flatnonzero(row).tolist() == [*range(first, last)]
    assert row.sum() == pytest.approx(1)


def test_the_surest_of_boxes_that_share_much_is_left():
  boxes = np.array([[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [4, 4, 6, 6.0]])
  scores = np.array([0.7, 0.9, 0.8, 0.6])
  assert detection.suppress(boxes, scores, 0.5).tolist() == [1, 2, 3]
  assert detection.suppress(boxes, scores, 0.5, of_smaller=True).tolist() == [1, 2]
  assert detection.suppress(boxes[:0], scores[:0], 0.5).tolist() == []


def test_networks_are_compiled_for_sizes_and_not_for_numbers_of_pictures():
  """The networks themselves, of zeros: nothing is a face."""
  zeros = {name: mtcnn.abstract(name) for name in mtcnn.NETS}
  zeros = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), zeros)
  zeros["pnet"]["params"]["head"]["bias"] = jnp.array([1.0, 0.0])
  detector = detection.Detector(zeros, least_size=30.0)
  before = detection._scanned._cache_size()
  for count in (1, 2, 4):
    assert [len(x.scores) for x in detector(np.zeros((count, 40, 50, 3), np.uint8))] == [0] * count
  assert detection._scanned._cache_size() == before + 1
