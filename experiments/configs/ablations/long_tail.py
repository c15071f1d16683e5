"""What helps classes of few clips: label embeddings, weights, prior, a classifier trained anew.

  jaxmg ablate ablations/long_tail:DATASET[,small]

DATASET: imigue (default), or any other prepared set. Of utd_mhad it takes the protocol "long_tail"
(datasets/utd_mhad/README.md).

What to expect of utd_mhad,small: 21 runs of 2.5 minutes on one core of an AMD EPYC; mean-class
accuracy 51 % plain, 60 and 61 % by logit adjustment and a classifier trained anew
(docs/recipe_a.md, of an earlier network).
"""

import ml_collections

from . import grammar


def get_config(argument: str = "imigue") -> ml_collections.ConfigDict:
  dataset, _, config = grammar.ablation(argument)
  # Of all rows.
  config.settings = ("data.protocol=long_tail",) if dataset == "utd_mhad" else ()
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
  return config
