r"""Trains one stream of 2s-AGCN on a prepared data set, from 3-D joints or key points.

  jaxmg train agcn:utd_mhad,joint \
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
  fields = trainer.pose_fields(config, data)
  joints3d = data.track("pose").kind.joints3d
  parents = tuple(fields["skeleton"].parents)
  model = trainer.model_options(config, "agcn", num_classes=len(data.class_names), parents=parents)
  one = trainer.make_input(
    config,
    inputs.Graph,
    fields
    | config.inputs.to_dict()
    | config.augment.to_dict()
    | {"points": config.sampling.points or ("joints3d" if joints3d else "keypoints")},
  )
  return model, {"pose": one}


STREAMS, PREPARATIONS = inputs.STREAMS, inputs.PREPARATIONS
WEIGHTS_FLAGS = ("stream", "skeleton", "preparation")


def describe_weights(values, shapes: dict, data: Source | None) -> weights.Weights:
  """What a file of 2s-AGCN's weights is, by the `shapes` of our parameters."""
  weights.check_stream(values, STREAMS)
  joints = shapes["params/block1/graph/edges"][-1]
  theirs = inputs.published.PREPARATIONS.get(values.preparation)

  def fits(skeleton):
    return skeleton == theirs.fixed["skeleton"] if theirs else skeleton.num_joints == joints

  skeleton = weights.find_skeleton(values, data, fits)
  if skeleton.num_joints != joints:
    raise errors.CheckpointError(
      f"{values.source}: joints", expected=f"{skeleton.num_joints} of {skeleton.name}", got=joints
    )
  if values.preparation is None:
    published = inputs.published.PREPARATIONS.items()
    names = [name for name, one in published if one.fixed["skeleton"] == skeleton]
    expected = " or ".join((*names, "ours"))
    hint = "weights do not tell: as their authors published them, or as this project trains"
    raise errors.ConfigError("--preparation", expected=expected, got="none", hint=hint)
  pose = data.track("pose").kind if data else None
  in_space = pose.joints3d if pose else skeleton.name.startswith("kinect")
  points = "joints3d" if in_space else "keypoints"
  widths = []
  for block in itertools.count(1):
    path = f"params/block{block}/temporal/conv/kernel"
    if path not in shapes:
      break
    widths.append(shapes[path][-1])
  fields = {
    "skeleton": skeleton,
    "frame_size": pose.frame_size if pose else weights.NTU_FRAME_SIZE,
    "sampling": "repeat",
    "num_frames": theirs.train_frames if theirs else 300,
    "num_persons": max(1, shapes["params/data_bn/scale"][0] // (3 * joints)),
    "points": theirs.fixed["points"] if theirs else points,
    "stream": values.stream,
    "preparation": values.preparation,
  }
  try:
    one = inputs.Graph(**fields)
    if pose:
      one.check(pose.about)
  except ValueError as error:
    raise errors.ConfigError(f"--preparation={values.preparation}: {error}") from error
  return weights.Weights(
    model={
      "name": "agcn",
      "parents": list(skeleton.parents),
      "width": shapes["params/block1/temporal/conv/kernel"][-1],
      "depths": [len(list(blocks)) for _, blocks in itertools.groupby(widths)],
      "dropout": 0.0,
    },
    inputs={"pose": one},
    num_clips=1,
    mirror=False,
    example=(1, 4, one.num_persons, joints, 3),
    notes=tuple(weights.pose_notes(one, data)),
  )


if __name__ == "__main__":
  launch.main(run)
