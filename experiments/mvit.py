r"""Trains MViTv2 on the videos of a prepared data set.

  jaxmg train mvit:utd_mhad,both,small \
    --config.data.dir=DATA --workdir=RUN

The same command in the same work directory goes on where it stopped. Afterwards:

  jaxmg evaluate --run=RUN
  jaxmg predict --run=RUN --input=FILE
"""

import itertools
import pathlib

from jaxmg import errors, inputs
from jaxmg.data.source import Source

from . import launch, trainer, weights


def run(config, workdir: pathlib.Path) -> None:
  trainer.run(config, workdir, describe=describe)


def describe(config, data: Source) -> tuple[dict, dict]:
  """The model and the inputs of a config's recipe."""
  video = data.track("video").kind
  model = trainer.model_options(config, "mvit", num_classes=len(data.class_names))
  sampling = config.sampling
  one = trainer.make_input(
    config,
    inputs.Video,
    {
      "frame_size": video.frame_size,
      "channels": video.channels,
      "sampling": sampling.kind or ("seconds" if video.timed else "uniform"),
      "num_frames": sampling.num_frames,
      "seconds": sampling.seconds,
      "crop": sampling.crop,
    }
    | config.inputs.to_dict()
    | config.augment.to_dict(),
  )
  return model, {"video": one}


WEIGHTS_FLAGS = ("num_frames", "size")
# What the published weights were trained on, and they do not tell: frames a second, and how
# many times fewer keys than queries there are, to a side, in the first stage.
RATE, KV_STRIDE = 30 / 4, 8


def describe_weights(values, shapes: dict, data: Source | None) -> weights.Weights:
  """What a file of torchvision's or SlowFast's weights is, by the `shapes` of our parameters."""
  widths = []
  for block in itertools.count():
    path = f"params/block{block}/contract/kernel"
    if path not in shapes:
      break
    widths.append(shapes[path][-1])
  # Tables of the first block have 2 n - 1 rows, for a grid of one token for 2 frames, 4 pixels.
  theirs = shapes["params/block0/attention/time"][0] + 1
  side = 2 * (shapes["params/block0/attention/rows"][0] + 1)
  num_frames, size = values.num_frames or theirs, values.size or side
  video = data.track("video").kind if data else None
  channels = shapes["params/patches/kernel"][-2]
  try:
    one = inputs.Video(
      frame_size=video.frame_size if video else (456, 456),  # 16 : 9 of short side 256, both ways
      channels=channels,
      sampling="uniform" if video and not video.timed else "seconds",
      num_frames=num_frames,
      seconds=num_frames / RATE,
      size=size,
      test_crop=0.875,
      mean=0.45,
      std=0.225,
    )
    if video:
      one.check(video.about)
  except ValueError as error:
    raise errors.CheckpointError(f"{values.source}: {error}") from error
  notes = [
    f"taken as published, since weights do not tell: {RATE:g} frames a second, values of mean "
    f"{one.mean} and deviation {one.std}, keys pooled by {KV_STRIDE}"
  ]
  if (num_frames, size) != (theirs, side):
    notes.append(f"tables of positions resized: made for {theirs} frames of {side} x {side}")
  return weights.Weights(
    model={
      "name": "mvit",
      "width": shapes["params/class_token"][0],
      "depths": [len(list(blocks)) for _, blocks in itertools.groupby(widths)],
      "kv_stride": KV_STRIDE,
      "stochastic_depth": 0.2,
      "dropout": 0.5,
    },
    inputs={"video": one},
    num_clips=5,
    mirror=False,
    example=(1, num_frames, size, size, channels),
    notes=tuple(notes),
  )


if __name__ == "__main__":
  launch.main(run)
