"""What each part of paper A's recipe adds to PoseC3D, alone and together (docs/recipe_a.md).

  jaxmg ablate ablations/recipe_a:DATASET[,small]

DATASET: imigue (default), or another one of which the joints of iMiGUE can be taken. The corrected
skeleton is that with the face for imigue, which must be prepared from the xlsx files, and without
it for others.

What to expect of synthetic_hard,small: 24 runs of 3 to 5 minutes on one core of an AMD EPYC; top-1
26.0 % of the baseline, 29.1 with the topology, 27.9 with all (docs/recipe_a.md, with 3.1 % by
chance on made-up motions).
"""

import ml_collections

from . import grammar


def get_config(argument: str = "imigue") -> ml_collections.ConfigDict:
  dataset, small, config = grammar.ablation(argument)
  topology = "imigue41" if dataset == "imigue" else "imigue22"
  if small:  # 32 frames, of which many clips have fewer, and a network that a CPU has time for
    network = (
      "model.variant=small-strided",
      "inputs.size=24",
      "sampling.test_size=24",
      "sampling.test_clips=1",
    )
    config.settings = ("sampling.num_frames=32", "schedule.epochs=10", *network)

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
