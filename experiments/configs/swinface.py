r"""SwinFace on aligned faces of a video (Qin et al., 2023, arXiv 2308.11509).

  jaxmg train swinface:DATASET,faces[,small][,fold=I[/N]] --workdir=DIR

DATASET: the name of a prepared set with a track of faces. The network is meant to go on from its
authors' weights (`jaxmg import --model=swinface --drop_head`, then --config.init_from=RUN). Its
branches come along, are not computed and learn nothing, so that what they tell is out of date in
the end; without weights, leave them out by --config.model.branches=False. The recipe is ours:
that of MViTv2 here, without what mixes clips. "small" is a network, an input and a recipe for sets
of some hundred clips and a laptop's CPU, without claim to anybody's figures.
"""

import ml_collections
from ml_collections.config_dict import placeholder

from . import grammar

DATASETS = ()
STREAMS = ("faces",)
VARIANTS = ("small",)


def get_config(argument: str = "") -> ml_collections.ConfigDict:
  argument = grammar.parse(argument, STREAMS, VARIANTS)
  config = grammar.training(argument)
  config.sampling = dict(
    kind="seconds",  # or "uniform" over a clip
    num_frames=8,
    seconds=16 * 4 / 30,  # as of MViTv2, so that both see the same moment
    crop=(1.0, 1.0),  # least and most of a clip that a training sample spans, if "uniform"
    test_clips=5,
    mirror=True,
  )
  config.inputs = dict(size=112, mean=0.5, std=0.5)
  config.augment = dict(brightness=0.2, contrast=0.2, erase=0.25)
  config.model = dict(
    name="swinface",
    variant="swin-t",
    dropout=0.5,
    stochastic_depth=placeholder(float),  # the variant's
    branches=True,
    classify="tokens",  # or "expression": the seven of the authors, by their branch
    remat=False,  # computes the blocks twice, for memory
  )
  config.optimizer.update(
    name="adamw", learning_rate=1e-4, reference_batch=64, weight_decay=0.05, decay="kernels"
  )
  config.optimizer.clip_norm = 1.0
  config.optimizer.layer_decay = 0.75  # of the learning rate, from each block to the one before
  config.schedule.update(epochs=30, warmup_epochs=3.0)
  config.train.update(batch_size=16, label_smoothing=0.1)
  if argument.variant == "small":
    config.model.update(variant="tiny", dropout=0.2, branches=False)
    config.sampling.update(num_frames=4, test_clips=2)
    config.inputs.size = 56
    config.optimizer.update(learning_rate=1e-3, reference_batch=16)
    config.optimizer.layer_decay = 1.0  # nothing is trained before
    config.schedule.epochs = 40
  return config
