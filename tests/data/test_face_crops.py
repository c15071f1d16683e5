"""A face is found and cut out of a video, by key points or by a detector, as far as it goes."""

import io

import numpy as np
import pytest
from PIL import Image

from jaxmg import detection, faces
from jaxmg.data import face_crops, readers
from jaxmg.errors import ConfigError, DataError

SIZE, COUNT = (90, 120), 30  # height, width; frames at 25 a second


def places(scale=0.5, start=(20, 15)):
  """A face that moves to the right by a pixel a frame: [T, 5, 2]."""
  steps = np.arange(COUNT)[:, None] * np.array([1, 0]) + np.array(start)
  return (scale * faces.TEMPLATE + steps[:, None]).astype(np.float32)


def frames(landmarks):
  """Grey pictures with a dot in a colour of its own at each landmark."""
  pictures = []
  for marks in landmarks:
    image = np.full((*SIZE, 3), 90, np.uint8)
    for k, (x, y) in enumerate(marks.round().astype(int)):
      image[y - 2 : y + 3, x - 2 : x + 3] = np.array([250, 20 * k, 250 - 50 * k])
    into = io.BytesIO()
    Image.fromarray(image).save(into, "PNG")
    pictures.append(into.getvalue())
  return readers.Frames(tuple(pictures), np.arange(len(landmarks)) / 25, SIZE)


def clip(landmarks, frame_size=None):
  keypoints = np.zeros((len(landmarks), 1, 137, 3), np.float32)
  for k, points in enumerate((range(36, 42), range(42, 48), (30,), (48,), (54,))):
    keypoints[:, 0, [25 + point for point in points], :2] = landmarks[:, None, k]
    keypoints[:, 0, [25 + point for point in points], 2] = 0.9
  return readers.Clip(keypoints, "openpose137", frame_size)


def detector(*faces_of, gone=()):
  """Finds the faces [T, 5, 2] that it is given, in frame after frame; in some it finds none."""
  at = iter(range(0, COUNT, 5))

  def find(pictures):
    found = []
    for _ in pictures:
      t = next(at)
      marks = np.stack([one[t] for one in faces_of])[: 0 if t in gone else None]
      found.append(detection.Found(np.zeros((len(marks), 4)), np.ones(len(marks)), marks))
    return found

  return find


class Broken(readers.Frames):
  """Cannot be decoded from a frame on."""

  end = 12

  def __getitem__(self, k):
    if k >= self.end:
      raise DataError(f"frame {self.end}: expected a whole one, got damage")
    return super().__getitem__(k)


def check(crop):
  for k, (x, y) in enumerate(faces.TEMPLATE.round().astype(int)):
    np.testing.assert_allclose(crop[y, x], [250, 20 * k, 250 - 50 * k], atol=12)


@pytest.mark.parametrize("frame_size", [None, (180, 240)])
def test_key_points_cut_out_the_face_five_times_a_second(frame_size):
  marks = places()
  shown = marks if frame_size is None else 2 * marks + 0.5
  found = face_crops.find(frames(marks), keypoints=clip(shown, frame_size))
  assert found.frames.tolist() == [0, 5, 10, 15, 20, 25]
  np.testing.assert_allclose(found.landmarks, marks[::5], atol=1e-4)
  np.testing.assert_allclose(found.times, found.frames / 25)
  np.testing.assert_allclose(found.span, [0, 30 / 25])
  crops = dict(found.crops())
  assert [*crops] == [*range(6)]
  for crop in crops.values():
    check(crop)
  assert found.notes == []


def test_a_detector_finds_it_and_lost_frames_have_no_crop():
  marks = places()
  found = face_crops.find(frames(marks), detector=detector(marks, gone=(10, 15, 20)))
  assert [k for k, crop in found.crops() if crop is None] == [2, 3, 4]
  gathered = found.gathered()
  assert (len(gathered), gathered.size) == (3, 112)
  np.testing.assert_allclose(gathered.times, [0, 0.2, 1.0])
  assert gathered.landmarks.shape == (3, 5, 2)
  check(np.asarray(Image.open(io.BytesIO(gathered.pictures[2]))))


def test_of_two_faces_it_is_said_which_is_followed():
  large, small = places(0.5), places(0.25, (70, 50))
  found = face_crops.find(frames(large), detector=detector(small, large))
  np.testing.assert_allclose(found.landmarks, large[::5], atol=1e-4)
  (note,) = found.notes
  assert note.startswith("another face in 6 of 6 frames; the one that is followed")
  assert note.endswith("in frame 0 with its nose at 48, 51")


@pytest.mark.parametrize("by", ["keypoints", "detector"])
def test_a_video_that_breaks_off_is_used_as_far_as_it_goes(by):
  marks = places()
  whole = frames(marks)
  video = Broken(whole.pictures, whole.times, SIZE)
  found = face_crops.find(video, **{by: {"keypoints": clip, "detector": detector}[by](marks)})
  assert len([*found.crops()]) == 3
  note = "breaks off, 3 of 6 pictures are used (frame 12: expected a whole one, got damage)"
  assert found.notes == [note]
  assert found.gathered().notes == (note,)


def test_what_cannot_be_is_said_in_one_line():
  marks = places()
  video = frames(marks)
  nobody = clip(np.zeros_like(marks))
  nobody.keypoints[:] = 0
  for options, error, message in (
    ({}, ConfigError, "faces: expected key points or a detector, got neither"),
    ({"keypoints": nobody, "detector": detector(marks)}, ConfigError, "faces: .* got both"),
    ({"keypoints": nobody}, DataError, "key points: expected a person, got none in any frame"),
    ({"keypoints": clip(marks[:20])}, DataError, "expected 30 frames, as of the video, got 20"),
    ({"keypoints": clip(marks / 9)}, DataError, "expected a face, got none in 6 frames"),
    (
      {"keypoints": readers.Clip(np.ones((COUNT, 1, 17, 3)), "coco17")},
      ConfigError,
      "key points: layout: expected eyes, a nose .* got coco17 without",
    ),
    ({"detector": detector(marks), "rate": 0.0}, ConfigError, "rate: expected pictures a second"),
  ):
    with pytest.raises(error, match=message):
      face_crops.find(video, **options)
  late = readers.Frames(video.pictures, np.full(COUNT, np.nan), SIZE)
  with pytest.raises(DataError, match="when each frame is shown, got no times"):
    face_crops.find(late, keypoints=clip(marks))


@pytest.mark.parametrize(
  ("times", "rate", "expected"),
  [
    (np.arange(10) / 30, 5.0, [0, 6]),
    (np.arange(4) / 2, 5.0, [0, 1, 2, 3]),
    (np.array([0.0, 0.1, 0.9, 1.0]), 2.0, [0, 1, 3]),
    (np.array([3.0]), 5.0, [0]),
  ],
)
def test_frames_nearest_to_the_moments_are_taken(times, rate, expected):
  assert face_crops.sampled(times, rate).tolist() == expected
