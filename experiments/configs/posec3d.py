r"""PoseC3D, SlowOnly-R50 on pose heatmaps (Duan et al., CVPR 2022, arXiv 2104.13586).

  jaxmg train posec3d:DATASET,STREAM[,small][,fold=I[/N]] --workdir=DIR

DATASET: imigue, smg, utd_mhad, synthetic_imigue; ntu60, ntu120, gym, diving48, k400, ucf101,
hmdb51, as published (docs/migration.md); or the name of any other prepared set, which is then seen
in its own layout. STREAM: joint or limb, or recipe_a or recipe_a_limb, the same streams with what
Xu et al. (MiGA 2025, arXiv 2506.12848) add to PoseC3D: interpolation in time, label embeddings and,
for imigue, the skeleton with the face; how, is our reading (docs/recipe_a.md). "small" is a network
and an input for a laptop's CPU, without claim to anybody's figures.

What to expect, on the test subjects (README.md says of which commits, and what it does not show):
  utd_mhad,joint,small          top-1 88.4 to 90.0 %, 5 to 6 minutes on one core of an AMD EPYC
  utd_mhad,limb,small           87.4 to 89.3 %, 5 to 9 minutes there
  synthetic_imigue,joint,small  mean-class accuracy 75.9 to 85.9 %, on made-up motions; `make demo`
                                takes 4 to 9 minutes on two cores
Without "small" (no figure yet): 19.2 GB of a GPU beside the weights, bfloat16 9.3 GB, as compiled
for an H200 (docs/accelerators.md).
"""

import ml_collections
from ml_collections.config_dict import placeholder

from jaxmg.inputs import heatmaps

from . import grammar

# The 2023 winner's recipe (VUT-HFUT/MiGA2023_Track1): 100 epochs at 0.4 / 6 for a batch of 32.
IMIGUE = dict(
  skeleton="imigue22",
  recipe_a_skeleton="imigue41",  # takes the 137 points of the xlsx files
  num_persons=1,
  learning_rate=0.4 / 6,
  reference_batch=32,
  clip_norm=None,
  small={"schedule.epochs": 20},
)
DATASETS = {
  "imigue": IMIGUE,
  # Its csv files hold no face.
  "synthetic_imigue": IMIGUE
  | dict(recipe_a_skeleton="imigue22", small={"schedule.epochs": 12, "train.ema": 0.98}),
  "smg": IMIGUE | dict(skeleton="kinect25", recipe_a_skeleton="kinect25"),
  # PYSKL's recipe for NTU-60, longer. Left and right are classes: its index forbids mirroring.
  "utd_mhad": dict(
    skeleton="kinect20",
    recipe_a_skeleton="kinect20",
    num_persons=1,
    learning_rate=0.4,
    reference_batch=256,
    clip_norm=40.0,
    small={  # few subjects, in 3-D: docs/recipe_a.md
      "schedule.epochs": 70,
      "model.variant": "small-strided",
      "sampling.test_size": 32,
      "inputs.size": 32,
      "inputs.sigma": 1.0,
      "augment.bone_scale": (0.8, 1.25),
      "augment.turn": 30.0,
      "augment.tilt": 15.0,
    },
  ),
}
# The data set's own layout, and as many persons as it has.
OTHER = IMIGUE | dict(skeleton=None, recipe_a_skeleton=None, num_persons=None)
# As published: PYSKL's configs/posec3d/slowonly_r50_*, whose repeated sets make 240 epochs. 8 GPUs
# saw 32 clips each; so does each part of ours, in which its batch norms are computed.
PUBLISHED = OTHER | dict(
  learning_rate=0.4,
  reference_batch=256,
  clip_norm=40.0,
  full={"schedule.epochs": 240, "train.batch_size": 256, "train.accumulate": 8},
)
LESS_DECAY = PUBLISHED["full"] | {"optimizer.weight_decay": 1e-4}
# From Kinetics' weights of the other network, on 8 x 16 smaller clips.
FROM_KINETICS = {
  "model.variant": "slowonly-r50-346",
  "inputs.size": 48,
  "sampling.test_size": 56,
  "schedule.name": "step",
  "schedule.epochs": 120,
  "schedule.milestones": (90, 110),
  "train.batch_size": 128,
  "train.accumulate": 8,
}
FINE_TUNED = PUBLISHED | dict(learning_rate=0.01, reference_batch=128, full=FROM_KINETICS)
for name, row in {
  "ntu60": PUBLISHED,  # slowonly_r50_ntu60_xsub, _xview
  "ntu120": PUBLISHED,  # _ntu120_xset; _xsub also shows classes 60 to 119 twice as often
  "gym": PUBLISHED,  # _gym
  "diving48": PUBLISHED | dict(full=LESS_DECAY),  # _diving48, joint alone
  "k400": PUBLISHED | dict(full=LESS_DECAY | {"model.variant": "slowonly-r50-346"}),  # _346_k400
  "ucf101": FINE_TUNED,  # _ucf101_k400p, joint alone
  "hmdb51": FINE_TUNED | dict(full=FROM_KINETICS | {"optimizer.weight_decay": 1e-4}),  # as that
}.items():
  # The files of PYSKL and of mmaction2 give their names.
  DATASETS |= dict.fromkeys((name, f"{name}_hrnet", f"{name}_2d"), row)
STREAMS = (*heatmaps.STREAMS, "recipe_a", "recipe_a_limb")
VARIANTS = ("small",)


def get_config(argument: str = "") -> ml_collections.ConfigDict:
  argument = grammar.parse(argument, STREAMS, VARIANTS)
  recipe_a = argument.stream.startswith("recipe_a")
  dataset = DATASETS.get(argument.dataset, OTHER)
  config = grammar.training(argument)
  config.skeleton = placeholder(str)
  config.skeleton = dataset["recipe_a_skeleton" if recipe_a else "skeleton"]
  config.sampling = dict(
    kind="interpolate" if recipe_a else "uniform",  # wraps round where a clip is short; or linspace
    num_frames=48,
    num_persons=placeholder(int),
    crop=(1.0, 1.0),  # least and most of a clip that a training sample spans
    test_clips=10,
    test_size=64,
    mirror=True,
  )
  config.sampling.num_persons = dataset["num_persons"]
  config.inputs = dict(
    stream="limb" if argument.stream.endswith("limb") else "joint", size=56, sigma=0.6
  )
  config.augment = dict(
    crop_area=(0.56, 1.0),
    rotation=0.0,  # degrees, in the image
    jitter=0.0,  # pixels
    joint_dropout=0.0,
    bone_scale=(1.0, 1.0),  # least and most of a bone's length
    turn=0.0,  # degrees, in space, before 3-D joints are projected: the data must have them
    tilt=0.0,
  )
  config.model = dict(name="posec3d", variant="slowonly-r50", dropout=0.5)
  config.semantic.loss = "mse" if recipe_a else "off"
  config.optimizer.update(
    name="sgd",
    learning_rate=dataset["learning_rate"],
    reference_batch=dataset["reference_batch"],
    weight_decay=3e-4,
    decay="all",
  )
  config.optimizer.clip_norm = dataset["clip_norm"]
  config.schedule.epochs = 100
  config.train.batch_size = 32
  if argument.variant is None:
    config.update_from_flattened_dict(dataset.get("full", {}))
  if argument.variant == "small":
    config.model.update(variant="small", dropout=0.2)
    config.sampling.update(num_frames=16, test_clips=2, test_size=24)
    config.inputs.size = 24
    config.augment.crop_area = (0.8, 1.0)
    config.optimizer.update(
      name="adamw", learning_rate=3e-3, reference_batch=16, weight_decay=0.05, decay="kernels"
    )
    config.schedule.warmup_epochs = 1.0
    # The training clips have a long tail, and the figure is the mean over classes.
    config.train.update(batch_size=16, label_smoothing=0.1, logit_adjustment=1.0)
    config.update_from_flattened_dict(dataset["small"])
  return config
