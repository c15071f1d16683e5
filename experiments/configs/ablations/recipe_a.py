"""What each part of paper A's recipe adds to PoseC3D, alone and together (docs/recipe_a.md).

  python -m experiments.ablate --config=experiments/configs/ablations/recipe_a.py:DATASET[,small]

DATASET: imigue (default), or another one of which the joints of iMiGUE can be taken. The corrected
skeleton is that with the face for imigue, which must be prepared from the xlsx files, and without
it for others.
"""

import ml_collections


def get_config(argument: str = "imigue") -> ml_collections.ConfigDict:
  dataset, *small = argument.split(",")
  topology = "imigue41" if dataset == "imigue" else "imigue22"
  config = ml_collections.ConfigDict()
  config.experiment = "posec3d"
  config.base = f"experiments/configs/posec3d.py:{','.join([dataset, 'joint', *small])}"
  config.settings = ()  # of all rows
  if small:  # 32 frames, of which many clips have fewer, and a network that a CPU has time for
    network = (
      "model.variant=small-strided",
      "inputs.size=24",
      "sampling.test_size=24",
      "sampling.test_clips=1",
    )
    config.settings = ("sampling.num_frames=32", "schedule.epochs=10", *network)
  config.also = ()  # more of them, from the command line
  config.data = dict(dir="data")
  config.seeds = (0, 1, 2)
  config.folds = 0  # of the training subjects; 0: train on all of them, evaluate on the test set
  config.jobs = 1  # runs at a time, each on its share of the cores; on a GPU one

  baseline = ("skeleton=imigue22_legacy", "sampling.kind=uniform", "semantic.loss=off")
  parts = {
    "topology": f"skeleton={topology}",
    "time": "sampling.kind=interpolate",
    "labels": "semantic.loss=mse",
  }
  everything = tuple(parts.values())
  config.rows = (
    ("baseline", baseline),
    *((f"+ {name}", (*baseline, part)) for name, part in parts.items()),
    ("all", everything),
    ("baseline, limb", (*baseline, "inputs.stream=limb")),
    ("+ topology, limb", (*baseline, parts["topology"], "inputs.stream=limb")),
    ("all, limb", (*everything, "inputs.stream=limb")),
  )
  config.fused = (
    ("baseline: joint + limb", ("baseline", "baseline, limb")),
    ("all: joint + limb", ("all", "all, limb")),
  )
  config.compare = (
    ("+ topology, limb", "baseline, limb"),
    ("all, limb", "baseline, limb"),
    ("all: joint + limb", "baseline: joint + limb"),
  )
  return config
