"""What helps classes of few clips: label embeddings, weights, prior, a classifier trained anew.

  python -m experiments.ablate --config=experiments/configs/ablations/long_tail.py:DATASET[,small]

DATASET: imigue (default), or any other prepared set. Of utd_mhad it takes the protocol "long_tail"
(datasets/utd_mhad/README.md).
"""

import ml_collections


def get_config(argument: str = "imigue") -> ml_collections.ConfigDict:
  dataset, *small = argument.split(",")
  config = ml_collections.ConfigDict()
  config.experiment = "posec3d"
  config.base = f"experiments/configs/posec3d.py:{','.join([dataset, 'joint', *small])}"
  # Of all rows.
  config.settings = ("data.protocol=long_tail",) if dataset == "utd_mhad" else ()
  config.also = ()  # more of them, from the command line
  config.data = dict(dir="data")
  config.seeds = (0, 1, 2)
  config.folds = 0  # of the training subjects; 0: train on all of them, evaluate on the test set
  config.jobs = 1  # runs at a time, each on its share of the cores; on a GPU one
  plain = "train.logit_adjustment=0.0"
  again = ("stage=classifier", "schedule.epochs=10", "schedule.warmup_epochs=0.0")
  config.rows = (
    ("plain", (plain,)),
    ("label embeddings, mse", (plain, "semantic.loss=mse")),
    ("label embeddings, contrastive", (plain, "semantic.loss=contrastive")),
    ("class weights, square root", (plain, "train.class_weights=square_root")),
    ("class weights, inverse", (plain, "train.class_weights=inverse")),
    ("classifier re-training", (plain, *again, "init_from=@plain")),
    ("logit adjustment", ("train.logit_adjustment=1.0",)),
  )
  config.fused = ()
  config.compare = ()
  return config
