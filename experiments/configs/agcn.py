r"""One stream of 2s-AGCN (Shi et al., CVPR 2019, arXiv 1805.07694).

  jaxmg train agcn:DATASET,STREAM[,small|paper][,fold=I[/N]] --workdir=DIR

DATASET: utd_mhad (3-D joints), imigue, synthetic_imigue (key points), or the name of any other
prepared set, which is then seen in its own layout, in 3-D if it has that; STREAM: joint, bone,
joint_motion or bone_motion. "small" is a network for a laptop's CPU, "paper" the published recipe
for NTU RGB+D: of ntu60_3d and ntu120_3d with the original's preparation, of ntu60_2d and ntu120_2d
that of mmaction2 (docs/migration.md); all else is ours.

What to expect, on the test subjects (README.md says of which commits):
  utd_mhad,joint,small  top-1 96.3 to 96.7 %, 4 minutes on one core of an AMD EPYC
  utd_mhad,bone,small   94.4 to 96.3 %, 4 minutes there
Without "small" (no figure yet): 1.3 GB of a GPU beside the weights, as compiled for an H200 for 64
frames and one person; "paper" for 300 frames and two 12.4 GB (docs/accelerators.md).
"""

import ml_collections
from ml_collections.config_dict import placeholder

from jaxmg import inputs

from . import grammar

IMIGUE = dict(
  skeleton="imigue22",
  points="keypoints",
  num_persons=1,
  mirror=True,
  rotation=10.0,  # in the image
  tilt=0.0,
  logit_adjustment=1.0,  # for the long tail
)
DATASETS = {
  "imigue": IMIGUE,
  "synthetic_imigue": IMIGUE,
  # Left and right are classes: its index forbids mirroring.
  "utd_mhad": dict(
    skeleton="kinect20",
    points="joints3d",
    num_persons=1,
    mirror=False,
    rotation=15.0,  # about the vertical
    tilt=10.0,
    logit_adjustment=0.0,
  ),
}
# The data set's own layout, in 3-D if it has that, and as many persons as it has.
OTHER = DATASETS["utd_mhad"] | dict(skeleton=None, points=None, num_persons=None, mirror=True)
# What "paper" is for NTU RGB+D. In 3-D: 2s-AGCN's config/nturgbd-cross-subject.
NTU_3D = OTHER | dict(
  skeleton="kinect25",
  points="joints3d",
  num_persons=2,
  paper={"inputs.preparation": "ntu"},
)
NTU_2D = OTHER | dict(
  num_persons=2,
  paper={  # mmaction2's configs/skeleton/2s-agcn/*-u100-80e_ntu60-xsub-keypoint-2d
    "sampling.kind": "uniform",
    "sampling.num_frames": 100,
    "sampling.test_clips": 10,
    "optimizer.weight_decay": 5e-4,
    "optimizer.reference_batch": 128,
    "schedule.name": "cosine",
    "schedule.milestones": (),
    "schedule.epochs": 80,
    "train.batch_size": 128,
  },
)
for name in ("ntu60", "ntu120"):  # the files of PYSKL and of mmaction2 give their names
  DATASETS |= dict.fromkeys((f"{name}_3d", f"{name}_3danno"), NTU_3D)
  DATASETS |= dict.fromkeys((name, f"{name}_2d", f"{name}_hrnet"), NTU_2D)
STREAMS = inputs.STREAMS
VARIANTS = ("small", "paper")


def get_config(argument: str = "") -> ml_collections.ConfigDict:
  argument = grammar.parse(argument, STREAMS, VARIANTS)
  dataset = DATASETS.get(argument.dataset, OTHER)
  config = grammar.training(argument)
  config.skeleton = placeholder(str)
  config.skeleton = dataset["skeleton"]
  config.sampling = dict(
    kind="linear",  # or "window": frames in a row of a long recording, without `crop`
    num_frames=64,
    num_persons=placeholder(int),
    points=placeholder(str),
    crop=(0.75, 1.0),  # least and most of a clip that a training sample spans
    test_clips=1,
    mirror=dataset["mirror"],
  )
  config.sampling.update(num_persons=dataset["num_persons"], points=dataset["points"])
  # "ntu" or "kinetics" to go on from imported weights that were trained so: with "paper" alone.
  config.inputs = dict(stream=argument.stream, preparation="ours")
  config.augment = dict(rotation=dataset["rotation"], tilt=dataset["tilt"], scale=(0.9, 1.1))
  config.model = dict(name="agcn", variant="agcn", dropout=0.0)
  config.optimizer.update(
    name="adamw", learning_rate=2e-3, reference_batch=16, weight_decay=0.05, decay="kernels"
  )
  config.schedule.update(epochs=35, warmup_epochs=5.0)
  config.train.update(
    batch_size=16, label_smoothing=0.1, logit_adjustment=dataset["logit_adjustment"]
  )
  if argument.variant == "small":
    config.model.variant = "small"
  if argument.variant == "paper":
    config.sampling.update(kind="repeat", num_frames=300, crop=(1.0, 1.0), mirror=False)
    config.augment.update(rotation=0.0, tilt=0.0, scale=(1.0, 1.0))
    config.optimizer.update(
      name="sgd", learning_rate=0.1, reference_batch=64, weight_decay=1e-4, decay="all"
    )
    config.optimizer.nesterov = True
    config.schedule.update(name="step", epochs=50, warmup_epochs=0.0, milestones=(30, 40))
    config.train.update(batch_size=64, label_smoothing=0.0, logit_adjustment=0.0)
    config.update_from_flattened_dict(dataset.get("paper", {}))
  return config
