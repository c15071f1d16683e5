"""Videos as files and as frames: cut in any order, decoded once where parts follow each other."""

import io
import os

import numpy as np
import pytest
from PIL import Image

from jaxmg.data import decoding, guarded, readers
from jaxmg.errors import DataError


@pytest.fixture(scope="module")
def path(videos, tmp_path_factory):
  """A video of 150 frames, several chunks."""
  return videos.write(tmp_path_factory.mktemp("video") / "a.mp4", 150, options={"bf": "2"})


@pytest.fixture
def streams(monkeypatch):
  """Where each stream began that was decoded, most of it in this process."""
  begun = []

  def stream(function, *arguments, **limits):
    result = function(str(arguments[0]), *arguments[1:])
    if isinstance(result, dict):
      result = (result,)
    else:
      begun.append(arguments[3])  # the first frame
    yield from result

  monkeypatch.setattr(guarded, "stream", stream)
  return begun


def numbers(frames, videos):
  return [videos.number(Image.open(io.BytesIO(picture))) for picture in frames]


def check(video, first, last, videos):
  part = video.cut(first, last)
  assert numbers(part, videos) == [*range(first, last + 1)]
  np.testing.assert_allclose(part.times, np.arange(first, last + 1) / 25)
  assert (len(part), part.num_frames, part.frame_size) == (last + 1 - first, len(part), (48, 64))


def test_windows_that_follow_each_other_are_decoded_once(path, streams, videos):
  video = readers.read(path)
  assert video.guess == "read as 150 frames of 48 x 64 pixels, 25 a second"
  for first in range(10, 121, 15):
    check(video, first, first + 29, videos)
    assert len(video._held) < 30 + 32
  check(video, 149, 149, videos)
  assert streams == [10]


def test_parts_may_be_cut_in_any_order(path, streams, videos):
  video = readers.read(path)
  for first, last in ((100, 149), (120, 149), (0, 5), (3, 40), (41, 60), (90, 99), (61, 61)):
    check(video, first, last, videos)
  # The end of the file is still held; what lies before what is held begins anew.
  assert streams == [100, 0, 61]


def test_two_files_are_cut_in_turn_by_processes_of_their_own(path, videos, tmp_path):
  other = readers.read(videos.write(tmp_path / "b.mkv", 80))
  video = readers.read(path)
  for first in (0, 40):
    check(video, first, first + 39, videos)
    check(other, first, first + 39, videos)
  with pytest.raises(DataError, match="frames: expected a first and a last one from 0 to 79, got"):
    other.cut(70, 80)


def test_a_record_and_its_parts(path, videos):
  record = readers.read(path).record()
  assert record["frames"][7] == record["frames"].cut(0, 10).pictures[7]
  part = record["frames"].cut(140, 149).cut(2, 3)
  assert numbers(part, videos) == [142, 143]
  assert part.times.tolist() == [142 / 25, 143 / 25]
  with pytest.raises(DataError, match="frames: expected a first and a last one from 0 to 1, got"):
    part.cut(1, 2)


def test_every_third_frame_has_its_time_and_may_be_larger(videos, tmp_path):
  path = videos.write(tmp_path / "a.mp4", 20, size=(320, 512))
  video = readers.read(path)
  some = video.every(3, short_side=300)
  assert (some.num_frames, some.frame_size) == (7, (300, 480))
  frames = some.cut(1, 6)
  assert numbers(frames, videos) == [3, 6, 9, 12, 15, 18]
  np.testing.assert_allclose(frames.times, np.arange(3, 20, 3) / 25)
  part = some.part(2, 5).every(2)
  assert numbers(part.cut(0, 1), videos) == [6, 12]
  assert part.frame_size == (256, 410)
  assert numbers(video.cut(0, 1), videos) == [0, 1]


def test_large_pictures_become_smaller_and_odd_ones_are_told(videos, tmp_path):
  path = videos.write(tmp_path / "a.mp4", 2, size=(320, 512), rate=10)
  videos.turn(path, 180)
  video = readers.read(path)
  assert video.frame_size == (256, 410)
  expected = "read as 2 frames of 320 x 512 pixels (kept as 256 x 410), 10 a second"
  assert video.guess == f"{expected}, turned by 180 degrees"
  assert Image.open(io.BytesIO(video.cut(1, 1)[0])).size == (410, 256)
  times = [0, 40, 80, 200]
  variable = readers.read(videos.write(tmp_path / "b.mkv", 4, times=times))
  assert variable.guess == "read as 4 frames of 48 x 64 pixels, 15 a second on average, varying"
  one = readers.read(videos.write(tmp_path / "c.mov", 1, codec="qtrle", pixels="argb"))
  assert one.guess == "read as 1 frame of 48 x 64 pixels, transparency left out"


def test_copies_and_lost_frames_are_noted(videos, tmp_path, monkeypatch, streams):
  path = videos.write(tmp_path / "a.mp4", 60, container_options={"movflags": "faststart"})
  decoded = decoding._decoded

  def some(container, stream):
    return (frame for k, frame in enumerate(decoded(container, stream)) if k != 40)

  monkeypatch.setattr(decoding, "_decoded", some)
  video = readers.read(path)
  assert video.cut(0, 20).notes == ()
  copied = "1 of its frames cannot be decoded, and are copies of those before them"
  assert video.cut(0, 59).notes == (copied,)
  path.write_bytes(path.read_bytes()[:-30])
  video = readers.read(path)
  assert 58 <= video.num_frames < 60
  lost = f"{60 - video.num_frames} of its last frames are not in the file"
  assert video.cut(0, 20).notes == (lost,)
  assert video.cut(0, video.num_frames - 1).cut(1, 2).notes == (lost, copied)


def test_a_decoder_that_crashes_is_an_error_of_the_file(path, tmp_path, monkeypatch):
  file = tmp_path / "crash.py"
  file.write_text("import os\ndef pictures(*_):\n  yield {}\n  os.abort()\ndescribe = pictures\n")
  monkeypatch.setattr(decoding, "__file__", str(file))
  with pytest.raises(DataError, match=r"a.mp4: its reader ended by signal 6 \(SIGABRT\)"):
    readers.read(path)


def test_a_pipe_a_folder_and_nothing_are_no_videos(tmp_path):
  os.mkfifo(tmp_path / "pipe.mp4")
  (tmp_path / "folder.mp4").mkdir()
  for name, got in (("pipe", "a pipe"), ("folder", "none"), ("nothing", "nothing")):
    path = tmp_path / f"{name}.mp4"
    with pytest.raises(DataError, match=f"^{path}: .*expected .*, got {got}"):
      readers.read(path)


def test_one_channel_is_kept_without_loss():
  images = np.random.default_rng(0).integers(0, 256, (3, 5, 7), np.uint8)
  frames = readers.without_loss(images)
  assert (frames.frame_size, frames.channels, np.isnan(frames.times).all()) == ((5, 7), 1, True)
  found = [np.asarray(Image.open(io.BytesIO(picture))) for picture in frames]
  np.testing.assert_array_equal(found, images)
  timed = readers.without_loss(images, np.arange(3) / 5)
  assert timed.cut(1, 2).times.tolist() == [0.2, 0.4]
