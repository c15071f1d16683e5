"""Videos -> batches of 16 x 224 x 224 on one core: from a prepared set, and decoded once a sample.

  python -m benchmarks.video_loader --out=video_loader.json

"jaxmg" reads random clips of a prepared track, and crops, mirrors and normalises them in a jitted
function on the CPU; "jaxmg, host" is the first half alone, which is all where an accelerator does
the second. "PyAV" opens, for each sample, the same video as H.264 with a short side of 256 pixels,
decodes it in one thread from the keyframe before the clip to the clip's last frame, and crops with
swscale. The videos are those of $JAXMG_REAL_DATA/asl_clips, or else rendered. Files are in the page
cache; all run on the same core in turn.
"""

import functools
import os
import pathlib
import tempfile

import jax
import numpy as np

from benchmarks import timing
from jaxmg import inputs
from jaxmg.data import pipeline, prepared, readers, tracks
from jaxmg.data.source import Source

FRAME_SIZE = (256, 341)
SECONDS = 64 / 30  # of a clip that a sample spans


class Videos(prepared.Builder):
  """Every video of a folder, whole."""

  track, track_name = tracks.Video(FRAME_SIZE), "video"
  class_names = ("any",)
  protocols = {"all": lambda clip: "train"}  # noqa: RUF012
  synthetic = True

  def clips(self, recording, known):
    for path in files(self.raw):
      video = readers.read(path)
      yield prepared.Example(path.name, 0, path.name, video.cut(0, video.num_frames - 1))


def main(argv: list[str] | None = None) -> None:
  parser = timing.parser(__doc__)
  parser.add_argument("--videos", type=int, default=8, help="that are rendered")
  parser.add_argument("--video_frames", type=int, default=75, help="of a rendered one")
  parser.add_argument("--batch_size", type=int, default=8)
  parser.add_argument("--batches", type=int, default=4, help="of each measurement")
  parser.add_argument("--frames", type=int, default=16)
  parser.add_argument("--size", type=int, default=224)
  parser.add_argument("--rounds", type=int, default=5)
  arguments = parser.parse_args(argv)

  core = min(os.sched_getaffinity(0))
  real = pathlib.Path(os.environ.get("JAXMG_REAL_DATA", ""), "asl_clips")
  with tempfile.TemporaryDirectory() as name:
    folder = pathlib.Path(name)
    raw = real if real.is_dir() else render(folder / "raw", arguments)
    encoded = encode(raw, folder / "encoded")
    directory = prepared.write(Videos, raw=raw, data_dir=folder)
    processes = [
      timing.Process(build, where, core, vars(arguments))
      for build, where in ((ours, directory), (theirs, encoded))
    ]
    timers = {name: timer for process in processes for name, timer in process.timers().items()}
    found = timing.alternate(timers, rounds=arguments.rounds)
    for process in processes:
      process.close()
  clips = arguments.batches * arguments.batch_size
  rows = [
    {
      "loader": name,
      "videos": "real" if raw == real else "rendered",
      "clips per second": float(np.median(clips / seconds)),
      "from": float(clips / seconds.max()),
      "to": float(clips / seconds.min()),
      "ratio": float(np.median(found["PyAV"] / seconds)),
    }
    for name, seconds in found.items()
  ]
  timing.report(arguments, rows)


def ours(directory: pathlib.Path, core: int, arguments: dict) -> dict:
  """Whole batches on the device, as training has them."""
  os.sched_setaffinity(0, [core])
  source = Source(directory)
  kind = source.track("video").kind
  one = inputs.INPUTS["video"](
    kind.frame_size, seconds=SECONDS, num_frames=arguments["frames"], size=arguments["size"]
  )
  train = jax.jit(functools.partial(one.train, mirror=True))
  count = arguments["batch_size"]
  rows = np.resize(source.rows("train"), 1024)  # Grain shuffles sets of a few clips slowly
  # Threads of its own would go on reading while the other has its turn.
  batches = pipeline.train_batches(
    source, rows, {"video": one}, batch_size=count, seed=0, num_threads=0
  )
  keys = jax.random.split(jax.random.key(0), count)

  def epoch():
    for _ in range(arguments["batches"]):
      jax.block_until_ready(train(keys, next(batches)["video"]))

  def host():
    for _ in range(arguments["batches"]):
      next(batches)

  return {"jaxmg": epoch, "jaxmg, host": host}


def theirs(folder: pathlib.Path, core: int, arguments: dict) -> dict:
  """The same by PyAV: each sample's video is opened and decoded."""
  os.sched_setaffinity(0, [core])
  rng, paths = np.random.default_rng(0), files(folder)

  def epoch():
    for _ in range(arguments["batches"]):
      chosen = rng.choice(paths, arguments["batch_size"])
      np.stack([sample(path, rng, arguments["frames"], arguments["size"]) for path in chosen])

  return {"PyAV": epoch}


def sample(path: pathlib.Path, rng: np.random.Generator, frames: int, size: int) -> np.ndarray:
  """float32[T, size, size, 3]: frames of SECONDS or less, cropped, mirrored, normalised."""
  import av

  with av.open(str(path)) as container:
    stream = container.streams.video[0]
    stream.thread_type, stream.codec_context.thread_count = "NONE", 1
    length = float(stream.duration * stream.time_base)
    start = rng.uniform(0, max(0, length - SECONDS))
    times = start + np.arange(frames) * min(SECONDS, length) / frames
    container.seek(int(start / stream.time_base), stream=stream)
    decoded, shown = container.decode(stream), []
    frame = next(decoded)
    height, width = frame.height, frame.width
    area, ratio = rng.uniform(0.08, 1) * height * width, np.exp(rng.uniform(-0.144, 0.144))
    h, w = min(height, int((area / ratio) ** 0.5)), min(width, int((area * ratio) ** 0.5))
    y, x = rng.integers(height - h + 1), rng.integers(width - w + 1)
    for time in times:
      while frame.time < time and (later := next(decoded, None)) is not None:
        frame = later
      part = np.ascontiguousarray(frame.to_ndarray(format="rgb24")[y : y + h, x : x + w])
      part = av.VideoFrame.from_ndarray(part, "rgb24").reformat(size, size, "rgb24")
      shown.append(part.to_ndarray())
  clip = np.stack(shown)
  clip = clip[:, :, ::-1] if rng.random() < 0.5 else clip
  return (clip.astype(np.float32) / 255 - 0.45) / 0.225


def files(folder: pathlib.Path) -> list[pathlib.Path]:
  return sorted(path for path in folder.iterdir() if path.suffix in readers.VIDEOS)


def render(folder: pathlib.Path, arguments) -> pathlib.Path:
  """Videos of textures that move before each other, 25 frames a second."""
  folder.mkdir()
  rng = np.random.default_rng(0)
  y, x = np.indices(FRAME_SIZE)
  for number in range(arguments.videos):
    waves = rng.normal(0, 0.15, (6, 2)), rng.uniform(0, 6, (6, 3)), rng.normal(0, 0.2, 6)
    noise = rng.normal(0, 6, (*FRAME_SIZE, 3))

    def picture(k, waves=waves, noise=noise):
      image = 128 + np.roll(noise, k, 1)
      for (a, b), phase, speed in zip(*waves, strict=True):
        image += 20 * np.sin((a * x + b * y + speed * k)[..., None] + phase)
      return np.uint8(image.clip(0, 255))

    write(folder / f"{number}.mp4", map(picture, range(arguments.video_frames)), 25)
  return folder


def encode(raw: pathlib.Path, folder: pathlib.Path) -> pathlib.Path:
  """The videos of a folder once more, with a short side of 256 pixels."""
  import av

  folder.mkdir()
  for path in files(raw):
    with av.open(str(path)) as container:
      stream = container.streams.video[0]
      scale = min(1, min(FRAME_SIZE) / min(stream.height, stream.width))
      height, width = (2 * round(side * scale / 2) for side in (stream.height, stream.width))
      pictures = (
        frame.to_ndarray(format="rgb24", width=width, height=height)
        for frame in container.decode(stream)
      )
      write(folder / f"{path.stem}.mp4", pictures, stream.average_rate)
  return folder


def write(path: pathlib.Path, pictures, rate) -> None:
  import av

  with av.open(str(path), "w") as container:
    stream = container.add_stream("libx264", rate=rate)
    stream.pix_fmt = "yuv420p"
    for number, picture in enumerate(pictures):
      height, width = (side // 2 * 2 for side in picture.shape[:2])
      if number == 0:
        stream.height, stream.width = height, width
      frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture[:height, :width]), "rgb24")
      frame.pts = number
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


if __name__ == "__main__":
  main()
