"""Which frames PoseC3D sees of a clip: wrapped round, repeated, or interpolated; joint and limb.

  python -m experiments.ablate --config=experiments/configs/ablations/sampling.py:DATASET[,small]

DATASET: imigue (default), utd_mhad, or any other prepared set.
"""

import ml_collections

KINDS = {"wrap": "uniform", "linspace": "linspace", "interpolate": "interpolate"}


def get_config(argument: str = "imigue") -> ml_collections.ConfigDict:
  dataset, *small = argument.split(",")
  config = ml_collections.ConfigDict()
  config.experiment = "posec3d"
  config.base = f"experiments/configs/posec3d.py:{','.join([dataset, 'joint', *small])}"
  config.settings = ()  # of all rows
  if small:  # 64 frames, of which many clips have fewer, and a network that a CPU has time for
    network = ("model.variant=small-strided", "inputs.size=24", "sampling.test_size=24")
    # Without utd_mhad's augmentation, which takes more epochs than there is time for.
    network += ("inputs.sigma=0.6", "augment.bone_scale=(1.0,1.0)")
    network += ("augment.turn=0.0", "augment.tilt=0.0")
    config.settings = ("sampling.num_frames=64", "schedule.epochs=25", *network)
  config.also = ()  # more of them, from the command line
  config.data = dict(dir="data")
  config.seeds = (0, 1, 2)
  config.folds = 0  # of the training subjects; 0: train on all of them, evaluate on the test set
  config.jobs = 1  # runs at a time, each on its share of the cores; on a GPU one
  config.rows = tuple(
    (f"{name}, {stream}", (f"sampling.kind={kind}", f"inputs.stream={stream}"))
    for stream in ("joint", "limb")
    for name, kind in KINDS.items()
  )
  config.fused = tuple(
    (f"{name}, joint + limb", (f"{name}, joint", f"{name}, limb")) for name in KINDS
  )
  config.compare = tuple(
    (f"{name}, {stream}", f"wrap, {stream}")
    for stream in ("limb", "joint + limb")
    for name in ("linspace", "interpolate")
  )
  return config
