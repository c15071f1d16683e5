"""What label embeddings add: of the spelling of the classes' names, and of word vectors.

  jaxmg ablate ablations/labels:DATASET[,small][,words=FILE] --workdir=DIR

DATASET: imigue (default), utd_mhad, or another one of which the joints of iMiGUE can be taken. Of
utd_mhad it takes the protocol "long_tail" (datasets/utd_mhad/README.md). FILE: the text file of
GloVe 6B with 50 numbers a word, or the part of it in docs/glove.6B.50d.subset.txt; without it the
rows of word vectors are left out. For other vectors, change IMIGUE or WEIGHTS here.

What to expect of utd_mhad,small with words: 15 runs of 2 to 4 minutes on one core of an AMD EPYC;
top-1 66.0 % without labels, 61.8 and 65.3 with mse (spelling, GloVe), 61.6 and 61.0 with
contrastive (docs/recipe_a.md).
"""

import ml_collections

from . import grammar

# Of mse: 20 x 0.0769 / the mean square of the classes' rows in GloVe 6B with 50 numbers. A head
# that says nothing then pays 1.54, as under the built-in table and as the ancestor's did.
IMIGUE = 4.6403  # and of all sets with its names
WEIGHTS = {"utd_mhad": 4.1148}


def get_config(argument: str = "imigue") -> ml_collections.ConfigDict:
  argument, given, words = argument.partition(",words=")
  dataset, small, config = grammar.ablation(argument)
  if given and not words:
    raise ValueError("expected a file after words=, got none")
  if dataset == "utd_mhad":  # as in long_tail.py
    config.settings = ("data.protocol=long_tail", "train.logit_adjustment=0.0")
  else:  # as the baseline in recipe_a.py, but for the epochs of "small"
    config.settings = ("skeleton=imigue22_legacy", "sampling.kind=uniform")
    if small:
      network = (
        "model.variant=small-strided",
        "inputs.size=24",
        "sampling.test_size=24",
        "sampling.test_clips=1",
      )
      config.settings += ("sampling.num_frames=32", "schedule.epochs=6", *network)

  mse, contrastive = "semantic.loss=mse", "semantic.loss=contrastive"
  config.rows = (
    ("no labels", ("semantic.loss=off",)),
    ("spelling, mse", (mse,)),
    ("spelling, contrastive", (contrastive,)),
  )
  if words:
    table = f"semantic.table={words}"
    weight = f"semantic.weight={WEIGHTS.get(dataset, IMIGUE)}"
    config.rows += (
      ("GloVe, mse", (mse, table, weight)),
      ("GloVe, contrastive", (contrastive, table)),
    )
    config.compare = tuple(
      (f"GloVe, {loss}", f"spelling, {loss}") for loss in ("mse", "contrastive")
    )
  return config
