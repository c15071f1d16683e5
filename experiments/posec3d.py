r"""Trains PoseC3D on joint or limb heatmaps of a prepared data set.

  jaxmg train posec3d:utd_mhad,joint \
    --config.data.dir=DATA --workdir=RUN

The same command in the same work directory goes on where it stopped. Afterwards:

  jaxmg evaluate --run=RUN
  jaxmg predict --run=RUN --input=FILE
"""

import itertools
import pathlib

import numpy as np

from jaxmg import errors, inputs
from jaxmg.data import readers
from jaxmg.data.records import Track
from jaxmg.data.source import Source
from jaxmg.inputs import heatmaps
from jaxmg.pretrained import posec3d as table
from jaxmg.skeletons import topology
from jaxmg.skeletons.topology import Skeleton

from . import launch, trainer, weights


def run(config, workdir: pathlib.Path) -> None:
  trainer.run(config, workdir, describe=describe)


def shows_its_joints3d(track: Track) -> bool:
  """Whether there are 3-D joints, and the key points are what a camera sees of them."""
  for row in track.rows[:16].tolist() if track.kind.joints3d else ():
    pose, keypoints = (track[row][points] for points in ("joints3d", "keypoints"))
    there = pose.any(-1) & keypoints.any(-1)
    if there.any():
      view = readers.depth_view(pose)[there]
      pairs = zip(view.T[:2], keypoints[there].T[:2], strict=True)
      return all(np.corrcoef(*pair)[0, 1] > 0.5 for pair in pairs)
  return False


def describe(config, data: Source) -> tuple[dict, dict]:
  """The model and the inputs of a config's recipe."""
  if (config.augment.turn or config.augment.tilt) and not shows_its_joints3d(data.track("pose")):
    got = f"{config.augment.turn:g} and {config.augment.tilt:g}"
    hint = f"{data.name} has no 3-D joints of which its key points are a camera's view"
    raise errors.ConfigError("--config.augment.turn and tilt", expected="0", got=got, hint=hint)
  model = trainer.model_options(config, "posec3d", num_classes=len(data.class_names))
  one = trainer.make_input(
    config,
    inputs.Heatmaps,
    trainer.pose_fields(config, data)
    | config.inputs.to_dict()
    | config.augment.to_dict()
    | {"test_size": config.sampling.test_size},
  )
  return model, {"pose": one}


STREAMS = heatmaps.STREAMS
WEIGHTS_FLAGS = ("stream", "skeleton", "stem_from")


def describe_weights(values, shapes: dict, data: Source | None) -> weights.Weights:
  """What a file of PYSKL's or mmaction2's weights is, by the `shapes` of our parameters."""
  weights.check_stream(values, STREAMS)
  channels, width = shapes["params/stem/conv/kernel"][-2:]

  def fits(skeleton):
    # Of joints in space no such weights are published; a flag may name them.
    told = skeleton.name in (values.skeleton, values.stem_from)
    ours = told or skeleton.name not in topology.IN_SPACE
    return ours and len(input_channels(skeleton, values.stream)) == channels

  skeleton = weights.find_skeleton(values, data, fits)
  theirs = weights.layout("stem_from", values.stem_from) if values.stem_from else skeleton
  if not fits(theirs):
    raise errors.CheckpointError(
      f"{values.source}: {values.stream}s",
      expected=f"{len(input_channels(theirs, values.stream))}, of {theirs.name}",
      got=channels,
      hint="weights of another layout: --stem_from says which",
    )
  depths = []
  for stage in itertools.count(1):
    blocks = (f"params/stage{stage}/block{i}/conv2/conv/kernel" for i in itertools.count())
    depth = sum(1 for _ in itertools.takewhile(shapes.__contains__, blocks))
    if not depth:
      break
    depths.append(depth)

  def fit(variables):
    stem = variables["params"]["stem"]["conv"]
    names = input_channels(theirs, values.stream, published=True)
    stem["kernel"] = reorder(stem["kernel"], names, input_channels(skeleton, values.stream))
    return variables

  notes = []
  if values.stream == "limb" and theirs.name in table.LIMBS:
    notes.append("limbs in the order of the configs of PYSKL and mmaction2, not of their code's")
  if values.stem_from:
    notes.append(f"first kernels by name from {theirs}; joints that it has not: their mean")
  pose = data.track("pose").kind if data else None
  one = inputs.Heatmaps(
    skeleton=skeleton,
    frame_size=pose.frame_size if pose else weights.NTU_FRAME_SIZE,
    num_persons=pose.num_persons if pose else 2,
    stream=values.stream,
  )
  return weights.Weights(
    model={"name": "posec3d", "width": width, "depths": depths, "dropout": 0.5},
    inputs={"pose": one},
    num_clips=10,
    mirror=data.mirror if data else True,
    example=(1, 2, 16, 16, len(input_channels(theirs, values.stream, published=True))),
    fit=fit,
    notes=(*notes, *weights.pose_notes(one, data)),
  )


def input_channels(skeleton: Skeleton, stream: str, *, published: bool = False) -> list:
  """What the channels of PoseC3D's input are, by names; in the order of `published` weights."""
  if stream == "joint":
    return list(skeleton.joints)
  limbs = table.LIMBS.get(skeleton.name, skeleton.limbs) if published else skeleton.limbs
  return [frozenset(skeleton.joints[v] for v in limb) for limb in limbs]


def reorder(kernel: np.ndarray, theirs: list, ours: list) -> np.ndarray:
  """Brings a kernel's input channels to our order; one that is not among theirs gets the mean."""
  if not set(ours) & set(theirs):
    raise errors.ConfigError("--stem_from", expected="a layout with joints of ours", got="others")
  mean = kernel.mean(-2)
  channels = [kernel[..., theirs.index(x), :] if x in theirs else mean for x in ours]
  return np.stack(channels, -2)


if __name__ == "__main__":
  launch.main(run)
