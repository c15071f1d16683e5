"""Which frames PoseC3D sees of a clip: wrapped round, repeated, or interpolated; joint and limb.

  jaxmg ablate ablations/sampling:DATASET[,small]

DATASET: imigue (default), utd_mhad, or any other prepared set.

What to expect of utd_mhad,small: 18 runs of 5 to 8 minutes on one core of an AMD EPYC; top-1 of the
joints 71.5 % wrapped, 73.7 repeated, 74.2 interpolated (docs/recipe_a.md).
"""

import ml_collections

from . import grammar

KINDS = {"wrap": "uniform", "linspace": "linspace", "interpolate": "interpolate"}


def get_config(argument: str = "imigue") -> ml_collections.ConfigDict:
  _, small, config = grammar.ablation(argument)
  if small:  # 64 frames, of which many clips have fewer, and a network that a CPU has time for
    network = ("model.variant=small-strided", "inputs.size=24", "sampling.test_size=24")
    # Without utd_mhad's augmentation, which takes more epochs than there is time for.
    network += ("inputs.sigma=0.6", "augment.bone_scale=(1.0,1.0)")
    network += ("augment.turn=0.0", "augment.tilt=0.0")
    config.settings = ("sampling.num_frames=64", "schedule.epochs=25", *network)
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
