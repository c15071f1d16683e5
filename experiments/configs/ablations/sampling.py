"""Which frames PoseC3D sees of a clip: wrapped round, repeated, or interpolated; joint and limb.

python -m experiments.ablate --config=experiments/configs/ablations/sampling.py:utd_mhad,small ...
"""

import ml_collections

KINDS = {"wrap": "uniform", "linspace": "linspace", "interpolate": "interpolate"}


def get_config(argument: str = "imigue") -> ml_collections.ConfigDict:
  dataset, *small = argument.split(",")
  if small not in ([], ["small"]):
    raise ValueError(f"expected DATASET[,small], got {argument!r}")
  config = ml_collections.ConfigDict()
  config.experiment = "posec3d"
  config.base = f"experiments/configs/posec3d.py:{','.join([dataset, 'joint', *small])}"
  config.settings = ()  # of all rows, such as "data.dir=DATA"
  config.seeds = (0, 1, 2)
  config.folds = 0  # of the training subjects; 0: train on all of them, evaluate on the test set
  config.jobs = 1  # runs at a time, each on its share of the cores
  config.rows = tuple(
    (f"{name}, {stream}", (f"sampling.kind={kind}", f"inputs.kind={stream}"))
    for stream in ("joint", "limb")
    for name, kind in KINDS.items()
  )
  config.fused = tuple(
    (f"{name}, joint + limb", (f"{name}, joint", f"{name}, limb")) for name in KINDS
  )
  return config
