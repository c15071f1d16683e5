"""Prediction of videos, and of a video and the poses of one clip, through the command."""

import fractions
import functools
import io
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from PIL import Image

from experiments import launch, movies, overlay, predict
from jaxmg import gaussians, inputs, models, recipe
from jaxmg import predict as library
from jaxmg.data import guarded, readers
from jaxmg.skeletons import topology
from jaxmg.training import checkpoints

COCO17 = topology.get("coco17")
NUM_FRAMES, SIZE = 90, (48, 64)
# 10 frames a second, and after frame 40 half as many.
TIMES = np.cumsum([0] + [0.1] * 40 + [0.2] * (NUM_FRAMES - 41))


class Watches(nn.Module):
  """Sees where what is where, and how it moves: of a video, of a pose, or of both."""

  num_classes: int
  dtype: jnp.dtype = jnp.float32

  @nn.compact
  def __call__(self, x, *, train=False, rows=None):
    parts = [gaussians.drawn(one) for one in (x.values() if isinstance(x, dict) else [x])]
    seen = jnp.concatenate([one.reshape(len(one), -1) for one in parts], -1)
    return nn.Dense(self.num_classes, name="head")(seen), {}


@pytest.fixture(scope="module", autouse=True)
def watches():
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(models.MODELS, "watches", Watches)
    yield


VIDEO = inputs.Video(SIZE, num_frames=4, seconds=1.0, size=16)
POSE = inputs.Graph(COCO17, (480, 640), num_frames=4)
HEATMAPS = inputs.Heatmaps(COCO17, (480, 640), num_frames=4, size=16, test_size=16)


@pytest.fixture(scope="module")
def make_run(watches, tmp_path_factory):
  """The directory of a run that was not trained, its weights drawn at random."""

  def make(**seen):
    folder = tmp_path_factory.mktemp("run")
    model = {"name": "watches", "num_classes": 3}
    made = recipe.Recipe(model, seen, ("nod", "shake", "shrug"), num_clips=2, mirror=True)
    recipe.save(folder, made)
    rng, build = np.random.default_rng(0), made.build_model()
    shapes = jax.eval_shape(build.init, jax.random.key(0), made.example())
    draw = functools.partial(rng.normal, scale=0.05)
    params = jax.tree.map(lambda leaf: np.float32(draw(size=leaf.shape)), shapes["params"])
    with checkpoints.Checkpoints(folder / "checkpoints") as into:
      into.save(1, {"params": params, "batch_stats": {}}, {})
    return folder

  kinds = {"video": VIDEO, "pose": POSE, "heatmaps": HEATMAPS}
  return functools.cache(lambda *names: make(**{name: kinds[name] for name in names}))


def pictures():
  """Grey frames in which a white square moves to the right."""
  frames = np.full((NUM_FRAMES, *SIZE, 3), 90, np.uint8)
  for k, frame in enumerate(frames):
    frame[20:28, k // 2 : k // 2 + 8] = 255
  return frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A video, its rate varying; the pose of the same frames, of pixels ten times as small."""
  import av

  folder = tmp_path_factory.mktemp("recordings")
  with av.open(folder / "clip.mkv", "w") as container:
    stream = container.add_stream("mpeg4", rate=10, options={"qscale": "2"})
    stream.height, stream.width = SIZE
    stream.codec_context.time_base = fractions.Fraction(1, 1000)
    for picture, time in zip(pictures(), TIMES, strict=True):
      frame = av.VideoFrame.from_ndarray(picture)
      frame.pts, frame.time_base = round(1000 * time), stream.codec_context.time_base
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  pose = np.ones((NUM_FRAMES, 17, 3), np.float32)
  pose[..., :2] = np.random.default_rng(1).uniform((200, 100), (440, 400), (17, 2))
  pose[:, 9, :2] = 60, 400  # a wrist, far from all else
  np.save(folder / "pose.npy", pose)
  np.save(folder / "short.npy", pose[:-1])
  return folder


@pytest.fixture
def command(make_run, folder, tmp_path, capsys, monkeypatch):
  """`predict` with a run of these inputs: the exit code, and what it prints."""
  monkeypatch.chdir(tmp_path)

  def call(names, *flags):
    found = [f"--input={folder / flag}" if flag[:2] != "--" else flag for flag in flags]
    argv = [f"--run={make_run(*names)}", "--layout=coco17", *found]
    return launch.command(predict.run, predict.define, argv), *capsys.readouterr()

  return call


def rows_of(path):
  return [line.split(",") for line in pathlib.Path(path).read_text().splitlines()]


def shown(path):
  video = readers.read(path)
  images = [Image.open(io.BytesIO(picture)) for picture in video.cut(0, video.num_frames - 1)]
  return video, [np.asarray(image).astype(int) for image in images]


def test_a_video_is_predicted_as_its_frames_in_memory(command, make_run, folder):
  code, printed, _ = command(["video"], "clip.mkv", "--frames=10:69")
  assert code == 0
  heading, *lines = printed.splitlines()
  assert heading.startswith("clip.mkv: read as 90 frames of 48 x 64 pixels, 6.")
  assert heading.endswith(" a second on average, varying, of which 10 to 69")
  frames = readers.read(folder / "clip.mkv").cut(10, 69)
  expected = library.Predictor(make_run("video"))(frames)
  order = np.argsort(-expected)
  names = np.array(["nod", "shake", "shrug"])[order]
  assert lines == [f"  {p:6.1%}  {name}" for p, name in zip(expected[order], names, strict=True)]


def test_windows_of_a_video_are_decoded_once(make_run, folder, monkeypatch):
  calls, original = [], guarded.stream

  def stream(*given, **limits):
    calls.append(given)
    return original(*given, **limits)

  predictor = library.Predictor(make_run("video"))
  whole = readers.read(folder / "clip.mkv").cut(0, NUM_FRAMES - 1)
  video, held = readers.read(folder / "clip.mkv"), []
  monkeypatch.setattr(guarded, "stream", stream)
  for first, last, found in predictor.windows(video, length=8, hop=4):
    held.append(len(video._held))
    np.testing.assert_allclose(found, predictor(whole.cut(first, last)), atol=1e-6)
  assert len(held) == 22
  assert len(calls) == 1
  assert max(held) < 8 + 32  # it comes by 32 frames


def test_windows_are_of_the_mean_rate_and_their_times_those_of_the_file(command):
  code, printed, _ = command(["video"], "clip.mkv", "--window=1.2", "--save=out.csv")
  assert code == 0
  fps = (NUM_FRAMES - 1) / TIMES[-1]
  windows = f"  windows of {round(1.2 * fps)} frames, every {round(1.2 * fps) // 2}; "
  assert f"{windows}frames: {fps:.4g} a second" in printed
  rows = rows_of("out.csv")
  assert rows[0] == ["frame", "second", "class", "nod", "shake", "shrug"]
  assert [float(row[1]) for row in rows[1:]] == pytest.approx(TIMES, abs=1e-3)


def test_both_are_cut_to_the_same_frames(command, make_run, folder):
  flags = ("clip.mkv", "pose.npy", "--frames=30:69", "--window=10", "--fps=1", "--save=out.csv")
  code, _, error = command(["video", "pose"], *flags)
  assert (code, error.count("\n")) == (2, 1)
  assert "--fps: expected none, as the video has" in error
  code, _, _ = command(["video", "pose"], *flags[:3], "--window=1.5", "--hop=1.5", "--save=out.csv")
  assert code == 0
  rows = rows_of("out.csv")[1:]
  assert [int(row[0]) for row in rows] == [*range(30, 70)]
  assert [float(row[1]) for row in rows] == pytest.approx(TIMES[30:70], abs=1e-3)
  clips = [readers.read(folder / name) for name in ("clip.mkv", "pose.npy")]
  last = 30 + round(1.5 * 39 / (TIMES[69] - TIMES[30])) - 1
  first = library.by_track(one.cut(30, last) for one in clips)
  expected = library.Predictor(make_run("video", "pose"))(first)
  assert [float(cell) for cell in rows[0][3:]] == pytest.approx(expected, abs=2e-6)


def test_a_saved_video_has_the_times_of_the_file_and_the_joints_at_their_place(command):
  """The model takes poses alone: the video is only drawn on."""
  flags = ("pose.npy", "clip.mkv", "--frames=20:59", "--window=1", "--save=out.mp4")
  code, printed, _ = command(["pose"], *flags)
  assert code == 0
  assert printed.endswith("  saved: out.mp4\n")
  video, images = shown("out.mp4")
  assert video.times == pytest.approx(TIMES[20:60] - TIMES[20], abs=1e-4)
  for k, (image, frame) in enumerate(zip(images, pictures()[20:60], strict=True)):
    assert image.shape == (SIZE[0] + 20, SIZE[1], 3)  # the classes so far are below
    image = image[: SIZE[0]]
    red = image[..., 0] - image[..., 2]
    y, x = np.unravel_index(red[30:, :12].argmax(), (18, 12))
    assert (y + 30, x) == pytest.approx((40, 6), abs=1.5)  # the wrist, ten times as small
    assert image[:8].min() < 30  # the label's ground
    white = (frame == 255).all(-1) & (np.abs(red) < 30)
    assert image[white].mean() > frame.mean() + 50, k


def test_a_pose_without_a_size_of_frames_is_of_the_video_beside_it(command, folder, make_run):
  pose = np.load(folder / "pose.npy")
  pose[..., :2] /= 10
  np.save("small.npy", pose)
  here = pathlib.Path("small.npy").absolute()
  code, printed, error = command(["video"], "clip.mkv", f"--input={here}", "--save=out.mp4")
  assert code == 0, error
  assert (
    "read as 90 frames of 1 person, 17 joints (coco17), pixels, axes TVC, 48 x 64 as" in printed
  )
  wrist = shown("out.mp4")[1][20][30:, :12]
  y, x = np.unravel_index((wrist[..., 0] - wrist[..., 2]).argmax(), (18, 12))
  assert (y + 30, x) == pytest.approx((40, 6), abs=1.5)


def gif(path):
  """Frames and durations in seconds."""
  frames, durations = [], []
  with Image.open(path) as image:
    for k in range(image.n_frames):
      image.seek(k)
      frames.append(np.asarray(image.convert("RGB")).astype(int))
      durations.append(image.info["duration"] / 1000)
  return frames, durations


def test_a_gif_has_the_heatmaps_beside_the_skeleton(command, make_run, folder):
  assert command(["heatmaps"], "pose.npy", "--save=out.gif", "--fps=25")[0] == 0
  frames, durations = gif("out.gif")
  assert sum(durations) == pytest.approx(NUM_FRAMES / 25, abs=0.02)
  height, width, _ = frames[0].shape
  skeleton, heat = np.split(frames[0], [width - (height - height // 8)], axis=1)
  # The skeleton is blue and red. What the network sees is on a ramp: nothing in it is mostly blue.
  assert (skeleton[..., 2] - skeleton[..., 0]).max() > 80
  below = heat[height // 4 :]
  assert (below[..., 2] - below[..., 0]).max() < 60
  seen = library.recipe.load(make_run("heatmaps")).inputs["heatmaps"]
  clip = readers.read(folder / "pose.npy", layout="coco17")
  part = {name: jnp.asarray(x[None]) for name, x in seen.read_test(clip.record(), 2).items()}
  view = jax.tree.map(lambda x: x[0], seen.views(part, False))
  expected = np.asarray(seen.picture(seen.view(view)))[0, 0]
  cells = heat[height // 8 :].sum(-1)
  middle = np.int64((np.arange(len(expected)) + 0.5) * len(cells) / len(expected))
  bright = cells[middle][:, middle]
  assert np.corrcoef(bright.ravel(), expected.ravel())[0, 1] > 0.95


def test_a_gif_is_as_long_as_its_frames(tmp_path):
  with movies.gif(tmp_path / "out.gif", 11) as add:
    for k in range(60):
      add(Image.new("RGB", (8, 8), (4 * k, 0, 0)), k / 11)
  assert sum(gif(tmp_path / "out.gif")[1]) == pytest.approx(60 / 11, abs=0.006)


def test_a_gif_has_an_end(command, tmp_path, monkeypatch):
  def drawn(*arguments):
    raise AssertionError("nothing is drawn of what is too long")

  monkeypatch.setattr(movies, "GIF_FRAMES", 10)
  monkeypatch.setattr(overlay, "draw", drawn)
  code, _, error = command(["pose"], "pose.npy", "--save=out.gif", "--fps=25")
  assert code == 2
  assert "--save: expected a recording of at most 10 pictures in a .gif, got" in error
  assert [*tmp_path.iterdir()] == []


def test_windows_have_a_strip_below_that_grows(command):
  flags = ("pose.npy", "--save=out.gif", "--fps=25", "--window=0.8", "--hop=0.4")
  assert command(["heatmaps"], *flags)[0] == 0
  frames, _ = gif("out.gif")
  strips = [frame[-frame.shape[1] // 16 + 2 :] for frame in frames]
  filled = [(strip[-3].max(-1) > 150).mean() for strip in strips]
  assert filled == sorted(filled)
  assert filled[0] < 0.1
  assert filled[-1] > 0.95


def test_a_window_that_is_longer_than_the_recording_is_said(command):
  code, _, error = command(["pose"], "pose.npy", "--window=100")
  assert code == 0
  assert "note: the recording has 90 frames, fewer than the 100 of a window: it is one win" in error


def test_poses_alone_are_drawn_on_black_at_the_rate_that_is_told(command):
  code, _, error = command(["pose"], "pose.npy", "--save=out.mp4")
  assert code == 2
  assert "--save: expected frames a second, got none (the file has no rate: --fps=25)" in error
  assert command(["pose"], "pose.npy", "--save=out.mp4", "--fps=25")[0] == 0
  video, images = shown("out.mp4")
  assert video.fps == pytest.approx(25)
  assert video.num_frames == NUM_FRAMES
  assert np.median(images[-1]) < 10
  assert images[-1][..., 0].max() > 200


def test_a_video_that_cannot_be_finished_is_not_there(command, tmp_path, monkeypatch):
  from experiments import overlay

  def fail(*_):
    raise OSError("gone")

  monkeypatch.setattr(overlay, "label", fail)
  assert command(["video"], "clip.mkv", "--save=out.mp4")[0] == 5
  assert [*tmp_path.iterdir()] == []


def test_attribution_is_drawn_and_written(command, make_run, folder, tmp_path):
  flags = ("clip.mkv", "pose.npy", "--frames=30:69", "--attribution=why", "--class=shrug")
  code, printed, error = command(["video", "pose"], *flags)
  assert code == 0, error
  assert "  what speaks for shrug (logit " in printed
  clips = [readers.read(folder / name).cut(30, 69) for name in ("clip.mkv", "pose.npy")]
  expected = library.Predictor(make_run("video", "pose")).attribution(library.by_track(clips), 2)
  with np.load("why/attribution.npz") as found:
    assert (str(found["class"]), float(found["logit"])) == ("shrug", expected.logit)
    for name in ("video", "pose"):
      np.testing.assert_array_equal(found[f"{name}_frames"], 30 + expected.frames[name])
      np.testing.assert_array_equal(found[name], expected.values[name])
    assert tuple(found["pose_joints"]) == COCO17.joints
  names = [f"video_{30 + k:06d}.png" for k in expected.frames["video"]]
  assert sorted(path.name for path in (tmp_path / "why").iterdir()) == [
    "attribution.npz", "pose.png", *names,
  ]  # fmt: skip
  # What is outside the square in the middle is dark, and the square itself is not.
  image = np.asarray(Image.open(f"why/{names[0]}")).astype(int)
  assert image.shape == (*SIZE, 3)
  assert image[20:, :10].mean() < 0.6 * image[20:, 15:50].mean()


@pytest.mark.parametrize(
  ("names", "flags", "code", "message"),
  [
    (["pose"], ["clip.mkv"], 3, "the clip: expected a pose, got video"),
    (["video"], ["pose.npy"], 3, "the clip: expected a video, got pose"),
    (["video"], ["clip.mkv", "pose.npy"], 3, "inputs: expected video, got video and pose"),
    (["video"], ["clip.mkv", "clip.mkv"], 3, "expected one of each kind, got two: video and video"),
    (["video", "pose"], ["clip.mkv", "short.npy"], 3, "got 90 of the video and 89 of the pose"),
    (["video"], ["clip.mkv", "--window=0.01"], 2, "--window: expected seconds, a frame"),
    (["video"], ["clip.mkv", "--window=1", "--attribution=x"], 2, "--attribution is of one clip"),
    (["video"], ["clip.mkv", "--class=nod"], 2, "--class needs --attribution"),
    (["video"], ["clip.mkv", "--attribution=x", "--class=nid"], 2, "--class: expected nod or "),
    (["pose"], ["pose.npy", "clip.mkv", "--frame_size=480x480", "--save=a.mp4"], 3, "one shape of"),
  ],
)  # fmt: skip
def test_what_does_not_fit_is_one_line(command, tmp_path, names, flags, code, message):
  found, _, error = command(names, *flags)
  assert found == code
  assert error.startswith("jaxmg: error: ")
  assert error.count("\n") == 1
  assert message in error
  assert [*tmp_path.iterdir()] == []
