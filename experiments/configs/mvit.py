r"""MViTv2-S on frames of a camera (Li et al., CVPR 2022, arXiv 2112.01526).

  jaxmg train mvit:DATASET,STREAM[,small][,fold=I[/N]] --workdir=DIR

DATASET: the name of a prepared set with a track of videos; for k400 and ssv2 the recipe is that of
SlowFast's configs without RandAugment and repeated augmentation (docs/migration.md). STREAM:
frames, motion (what each next frame differs by) or both. For all others the network is meant to go
on from weights of Kinetics (`jaxmg import --model=mvit --drop_head`, then
--config.init_from=RUN): the recipe is that of its training on Kinetics-400, shorter, without
RandAugment, and with a lower rate for blocks nearer to the pixels. "small" is a
network, an input and a recipe of ours for sets of some hundred clips and a laptop's CPU, without
claim to anybody's figures.

What to expect, on the test subjects (docs/video.md says what it does not show):
  utd_mhad,both,small    top-1 77.2 to 78.8 %, 20 minutes on one core of an Intel Xeon
"""

import ml_collections
from ml_collections.config_dict import placeholder

from jaxmg import inputs

from . import grammar

OTHER = dict(mirror=True, small={})
DATASETS = {
  # Left and right are classes: its index forbids mirroring. The person is in the middle of 16
  # depth frames, which are the whole recording.
  "utd_mhad": dict(
    mirror=False,
    small={  # chosen on training subjects 3 and 7, held out
      "sampling.test_clips": 1,
      "sampling.crop": (0.7, 1.0),
      "inputs.size": 32,
      "inputs.test_crop": 0.875,
      "inputs.mean": 0.2,
      "inputs.std": 0.3,
      "augment.crop_area": (0.5, 1.0),
      "augment.brightness": 0.0,
      "augment.contrast": 0.0,
      "augment.erase": 0.0,
      "schedule.epochs": 100,
    },
  ),
  # SlowFast's configs/Kinetics/MVITv2_S_16x4, from scratch. Its 16 clips come twice in a batch;
  # that the rate is therefore of 32 is our reading.
  "k400": OTHER
  | dict(
    full={
      "optimizer.reference_batch": 32,
      "optimizer.layer_decay": 1.0,
      "schedule.epochs": 200,
      "schedule.warmup_epochs": 30.0,
    }
  ),
  # Its configs/SSv2/MVITv2_S_16x4, from Kinetics' weights. Left and right are classes. It tests
  # three crops of one clip; ours is one crop.
  "ssv2": dict(
    mirror=False,
    small={},
    full={
      "sampling.kind": "uniform",
      "sampling.test_clips": 1,
      "model.stochastic_depth": 0.4,
      "optimizer.name": "sgd",
      "optimizer.learning_rate": 2.5e-3,
      "optimizer.reference_batch": 16,
      "optimizer.weight_decay": 1e-4,
      "optimizer.clip_norm": None,
      "optimizer.layer_decay": 1.0,
      "schedule.epochs": 100,
      "schedule.warmup_epochs": 3.0,
    },
  ),
}
STREAMS = inputs.video.STREAMS
VARIANTS = ("small",)


def get_config(argument: str = "") -> ml_collections.ConfigDict:
  argument = grammar.parse(argument, STREAMS, VARIANTS)
  dataset = DATASETS.get(argument.dataset, OTHER)
  config = grammar.training(argument)
  config.sampling = dict(
    kind=placeholder(str),  # "seconds", or "uniform" over a clip: as the track has times, or none
    num_frames=16,
    seconds=16 * 4 / 30,  # of Kinetics' weights: every 4th frame of 30 a second
    crop=(1.0, 1.0),  # least and most of a clip that a training sample spans, if "uniform"
    test_clips=5,
    mirror=dataset["mirror"],
  )
  config.inputs = dict(stream=argument.stream, size=224, test_crop=0.875, mean=0.45, std=0.225)
  config.augment = dict(
    crop_area=(0.08, 1.0), brightness=0.0, contrast=0.0, saturation=0.0, erase=0.25
  )
  config.model = dict(
    name="mvit",
    variant="mvitv2-s",
    dropout=0.5,
    stochastic_depth=placeholder(float),  # the variant's
    remat=False,  # computes the blocks twice, for memory
  )
  config.optimizer.update(
    name="adamw", learning_rate=1e-4, reference_batch=64, weight_decay=0.05, decay="kernels"
  )
  config.optimizer.clip_norm = 1.0
  config.optimizer.layer_decay = 0.75  # of the learning rate, from each block to the one before
  config.schedule.update(epochs=50, warmup_epochs=5.0)
  config.train.update(batch_size=64, label_smoothing=0.1)
  # Each clip mixed with another, by a share drawn from Beta(a, a) of this a; 0: not.
  config.train.update(mixup=0.8, cutmix=1.0)
  if argument.variant is None:
    config.update_from_flattened_dict(dataset.get("full", {}))
  if argument.variant == "small":
    config.model.update(variant="small", dropout=0.2)
    config.sampling.test_clips = 2
    config.inputs.update(size=64, test_crop=1.0)
    config.augment.update(crop_area=(0.5, 1.0), brightness=0.2, contrast=0.2)
    config.optimizer.update(learning_rate=1e-3, reference_batch=16)
    config.optimizer.layer_decay = 1.0  # nothing is trained before
    config.schedule.epochs = 40
    config.train.update(batch_size=16, mixup=0.0, cutmix=0.0)
    config.update_from_flattened_dict(dataset["small"])
  return config
