"""What is decoded is the k-th frame by presentation time, or an error says why it is not."""

import io
import struct

import av
import numpy as np
import pytest
from PIL import Image

from jaxmg.data import decoding

B_FRAMES = {"bf": "2", "b_strategy": "0"}
VARIABLE = np.cumsum(np.random.default_rng(0).integers(20, 50, 30)).tolist()  # ms, 29 a second


def decode(path, first=0, step=1):
  """What `describe` says, the pictures, and how many are copies."""
  found = decoding.describe(str(path))
  chunks = [*decoding.pictures(str(path), *map(int, found["size"]), first, step)]
  images = []
  for chunk in chunks:
    ends = np.cumsum(chunk["lengths"])
    data = chunk["data"].tobytes()
    parts = zip(ends - chunk["lengths"], ends, strict=True)
    images += [Image.open(io.BytesIO(data[start:end])) for start, end in parts]
  return found, images, int(chunks[-1]["missing"])


@pytest.mark.parametrize(
  ("name", "options"),
  [
    ("25.mp4", {}),
    ("b.mp4", {"options": B_FRAMES}),
    ("b.ts", {"options": B_FRAMES}),
    ("b.avi", {"options": B_FRAMES}),  # has no times: FFmpeg's are another order than its frames'
    ("packed.avi", {"codec": "mpeg4", "options": {"bf": "2"}}),
    ("ntsc.mp4", {"rate": 29.97, "options": B_FRAMES}),
    ("variable.mkv", {"times": VARIABLE, "rate": 29.97, "options": B_FRAMES}),
    ("variable.mp4", {"times": VARIABLE, "rate": 29.97}),
    ("odd.webm", {"codec": "libvpx-vp9", "size": (47, 63)}),
    ("ten.mp4", {"pixels": "yuv420p10le"}),
    ("full_range.mp4", {"pixels": "yuvj420p"}),
    ("alpha.mov", {"codec": "qtrle", "pixels": "argb"}),
    ("interlaced.mp4", {"options": {"flags": "+ildct+ilme", "x264-params": "tff=1"}}),
    ("sound.mkv", {"sound": True}),
  ],
)
def test_every_frame_comes_by_its_time(name, options, videos, tmp_path):
  found, images, missing = decode(videos.write(tmp_path / name, 30, **options))
  assert [videos.number(image) for image in images] == [*range(30)]
  assert missing == 0
  height, width = options.get("size", (videos.HEIGHT, videos.WIDTH))
  assert found["size"].tolist() == [height, width]
  assert images[0].size == (width, height)
  times = np.arange(30) / (25 if name != "ntsc.mp4" else 29.97)
  if "times" in options:
    times = (np.array(VARIABLE) - VARIABLE[0]) / 1000
  np.testing.assert_allclose(found["times"], times, atol=1e-9)
  assert bool(found["alpha"]) == ("alpha" in name)
  assert bool(found["interlaced"]) == ("interlaced" in name)


def test_one_frame(videos, tmp_path):
  found, images, _ = decode(videos.write(tmp_path / "one.mp4", 1))
  assert found["times"].tolist() == [0]
  assert [videos.number(image) for image in images] == [0]


@pytest.mark.parametrize("turned", [90, 180, 270, "mirrored"])  # 90: a phone's portrait
def test_pictures_are_upright(turned, videos, tmp_path):
  def as_stored(image):
    # Shown, what is stored is turned clockwise by this.
    return image[:, ::-1] if turned == "mirrored" else np.rot90(image, turned // 90)

  path = videos.write(tmp_path / "a.mp4", 3, change=as_stored)
  with pytest.raises(AssertionError):
    videos.number(decode(path)[1][0])
  videos.turn(path, turned)
  with av.open(str(path)) as container:
    frame = next(container.decode(video=0))
  found, images, _ = decode(path)
  assert [videos.number(image) for image in images] == [0, 1, 2]
  assert found["size"].tolist() == [videos.HEIGHT, videos.WIDTH]
  if turned != "mirrored":
    assert (frame.rotation + turned) % 360 == 0  # FFmpeg's is counter-clockwise
    assert 90 * found["turned"] == 360 - turned
  assert bool(found["mirrored"]) == (turned == "mirrored")


def test_pictures_are_made_smaller_and_begin_anywhere(videos, tmp_path):
  path = videos.write(tmp_path / "a.mp4", 40, options=B_FRAMES)
  (chunk,) = decoding.pictures(str(path), 24, 32, 33)
  image = Image.open(io.BytesIO(chunk["data"][: chunk["lengths"][0]].tobytes()))
  assert (image.size, videos.number(image), len(chunk["lengths"])) == ((32, 24), 33, 7)


def fault(path, match):
  with pytest.raises(ValueError, match=match):
    decode(path)


@pytest.mark.parametrize("name", ["a.mp4", "a.mkv", "a.webm"])
def test_a_file_that_is_cut_off_is_refused(name, videos, tmp_path):
  codec = "libvpx-vp9" if name == "a.webm" else "libx264"
  fast = {"movflags": "faststart"} if name == "a.mp4" else {}
  path = videos.write(tmp_path / name, 60, codec=codec, container_options=fast)
  data = path.read_bytes()
  path.write_bytes(data[: len(data) * 3 // 4])
  promised = "60 frames" if fast else "2.40 seconds"
  fault(path, rf"expected {promised}, as its header says, got .* \(cut off\?\)")


def test_frames_that_the_header_promises_are_counted(videos, tmp_path):
  path = videos.write(tmp_path / "a.mp4", 60, container_options={"movflags": "faststart"})
  path.write_bytes(path.read_bytes()[:-30])
  found, images, missing = decode(path)
  assert found["lost"] == 60 - len(images) in (1, 2)
  assert missing == 0


def packets(path):
  with av.open(str(path)) as container:
    return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


@pytest.mark.parametrize(("name", "codec"), [("a.mp4", "libx264"), ("a.avi", "mpeg4")])
def test_damage_is_refused_also_where_the_decoder_conceals_it(name, codec, videos, tmp_path):
  path = videos.write(tmp_path / name, codec=codec)
  data = bytearray(path.read_bytes())
  position, size = packets(path)[10]
  data[position + size // 2 : position + size] = b"\xa5" * (size - size // 2)
  path.write_bytes(data)
  fault(path, "frame [0-9]+: expected a whole one, got damage")


@pytest.mark.parametrize("count", [1, 2, 3])
def test_a_few_frames_that_are_dropped_are_copies_and_counted(count, videos, tmp_path, monkeypatch):
  path = videos.write(tmp_path / "a.mp4", 40)
  dropped = {15, 39, 7} if count == 3 else {15, 39} if count == 2 else {15}
  decoded = decoding._decoded

  def some(container, stream):
    return (frame for k, frame in enumerate(decoded(container, stream)) if k not in dropped)

  monkeypatch.setattr(decoding, "_decoded", some)
  if count == 3:
    fault(path, "frame 39: expected at most 2 damaged frames, got 3 that cannot be decoded")
    return
  _, images, missing = decode(path)
  expected = [k - 1 if k in dropped else k for k in range(40)]
  assert [videos.number(image) for image in images] == expected
  assert missing == count
  for first in (15, 39):
    assert [videos.number(image) for image in decode(path, first)[1]] == expected[first:]


def test_frames_may_change_their_size_but_not_their_shape(videos, tmp_path):
  later = [900 + 40 * k for k in range(20)]
  small = videos.write(tmp_path / "a.ts").read_bytes()
  path = tmp_path / "b.ts"
  for size in ((96, 128), (96, 96)):
    path.write_bytes(small + videos.write(path, size=size, times=later).read_bytes())
    if size == (96, 96):
      fault(path, "frame 20: expected pictures of one shape, got another, 96 x 96")
    else:
      _, images, _ = decode(path)
      assert [videos.number(image) for image in images] == 2 * [*range(20)]
      assert images[-1].size == (64, 48)
  path.write_bytes(small + small)
  fault(path, "expected a time of its own for each frame, got equal ones")


@pytest.mark.parametrize(
  ("content", "message"),
  [
    (b"", "what FFmpeg cannot read"),
    (b"<!DOCTYPE html><title>404</title>", "what FFmpeg cannot read"),
    (b"GIF", "another format"),
    (b"PNG", "another format"),
    (b"JPEG", "another format"),
    (b"ffconcat version 1.0\nfile 'a.mkv'\n", "another format"),
    (b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n#EXT-X-ENDLIST\n", "what FFmpeg cannot read"),
    (b"#EXTM3U\n#EXTINF:10,\na.ts\n#EXT-X-ENDLIST\n", "what FFmpeg cannot read"),
  ],
)
def test_what_is_no_video_is_refused(content, message, videos, tmp_path):
  videos.write(tmp_path / "a.ts", 2)
  videos.write(tmp_path / "a.mkv", 2)
  path = tmp_path / "a.mp4"
  if content in (b"GIF", b"PNG", b"JPEG"):
    images = [Image.fromarray(videos.picture(k)) for k in range(3)]
    more = {"save_all": True, "append_images": images[1:]} if content == b"GIF" else {}
    images[0].save(path, content.decode(), **more)
  else:
    path.write_bytes(content)
  fault(path, f"^expected a video, got {message}")


def test_sound_alone_is_no_video_and_its_cover_is_none(videos, tmp_path):
  path = tmp_path / "a.mp4"
  cover = io.BytesIO()
  Image.fromarray(videos.picture(0)).save(cover, "PNG")
  for with_cover in (False, True):
    with av.open(str(path), "w") as container:
      stream = container.add_stream("aac", rate=8000, layout="mono")
      if with_cover:
        picture = container.add_stream("png", rate=1)
        picture.width, picture.height, picture.pix_fmt = videos.WIDTH, videos.HEIGHT, "rgb24"
        picture.disposition = av.stream.Disposition.attached_pic
      frame = av.AudioFrame.from_ndarray(np.zeros((1, 8000), np.float32), "fltp", "mono")
      frame.rate, frame.pts = 8000, 0
      container.mux(stream.encode(frame))
      container.mux(stream.encode())
      if with_cover:
        packet = av.Packet(cover.getvalue())
        packet.stream, packet.pts, packet.dts = picture, 0, 0
        container.mux(packet)
    fault(path, r"^expected a video, got a file without any \(sound alone\?\)")


def edited(path, box, offset, values, kind=">I"):
  """Writes numbers into each place of a file that is marked so."""
  data, at, found = bytearray(path.read_bytes()), 0, False
  while (at := data.find(box, at)) >= 0:
    for k, value in enumerate(values):
      struct.pack_into(kind, data, at + offset + k * struct.calcsize(kind), value)
    at, found = at + 4, True
  assert found
  path.write_bytes(data)
  return path


@pytest.mark.parametrize(
  ("name", "edit", "message"),
  [
    ("a.mp4", (b"stsz", 12, [10**6]), "expected frames, got none"),
    ("a.mp4", (b"stts", 12, [10**9]), "expected 1000000000 frames, as its header says, got 20"),
    ("a.mov", (b"IHDR", 4, [100_000, 100_000]), "frame 0: expected a whole one, got damage"),
    ("a.mp4", (b"avc1", 0, [0]), "expected a codec that this build of FFmpeg knows, got another"),
  ],
)
def test_a_header_that_lies_is_refused(name, edit, message, videos, tmp_path):
  options = {"codec": "png", "pixels": "rgb24"} if name == "a.mov" else {}
  options |= {"container_options": {"movflags": "faststart"}}
  path = videos.write(tmp_path / name, **options)
  fault(edited(path, *edit), message)


def test_sizes_that_nobody_has_are_refused_before_they_are_decoded(videos, tmp_path, monkeypatch):
  monkeypatch.setattr(decoding, "MAX_PIXELS", 1000)
  fault(videos.write(tmp_path / "a.mp4"), "expected frames of 1 to 1000 pixels, got 48 x 64")
  monkeypatch.undo()
  monkeypatch.setattr(decoding, "MAX_FRAMES", 10)
  fault(tmp_path / "a.mp4", "expected at most 10 frames, got more")


def test_a_video_without_duration_is_read(videos, tmp_path):
  path = videos.write(tmp_path / "a.mp4")
  for box, offset in ((b"mvhd", 20), (b"mdhd", 20), (b"tkhd", 24)):
    edited(path, box, offset, [0])
  found, images, _ = decode(path)
  assert [videos.number(image) for image in images] == [*range(20)]
  np.testing.assert_allclose(found["times"], np.arange(20) / 25)


@pytest.mark.parametrize("first", [0, 4, 29])
def test_of_some_frames_each_comes_at_its_step(videos, tmp_path, first):
  path = videos.write(tmp_path / "a.mp4", 30, options=B_FRAMES)
  _, images, _ = decode(path, first, step=3)
  assert [videos.number(image) for image in images] == [*range(first, 30, 3)]
