"""The argument of a config, and the settings that all trainings and all ablations begin with.

  DATASET,STREAM[,small|paper][,fold=I[/N]]

DATASET is the name of a prepared set. "fold=2" holds out the third quarter of the training
subjects, "fold=2/8" the third eighth. The options come in any order.
"""

import re
from collections.abc import Sequence
from typing import NamedTuple

import ml_collections
from ml_collections.config_dict import placeholder

from jaxmg import errors


class Argument(NamedTuple):
  dataset: str
  stream: str
  variant: str | None  # "small", "paper"
  fold: str | None  # "2/4"


def parse(text: str, streams: Sequence[str], variants: Sequence[str]) -> Argument:
  """Raises ValueError for what is none."""
  dataset, stream, *options = text.split(",") if "," in text else ("", "")
  chosen = [option for option in options if option in variants]
  folds = [re.fullmatch(r"fold=(\d+)(/\d+)?", x) for x in options if x not in variants]
  if not dataset or stream not in streams or not all(folds) or max(len(chosen), len(folds)) > 1:
    expected = f"DATASET,{' or '.join(streams)}[,{' or '.join(variants)}][,fold=I[/N]]"
    near = [errors.meant(x, known) for x, known in _unknown(stream, options, streams, variants)]
    hint = f" ({next(filter(None, near))})" if any(near) else ""
    raise ValueError(f"expected {expected}, got {text!r}{hint}")
  fold = f"{folds[0][1]}{folds[0][2] or '/4'}" if folds else None
  return Argument(dataset, stream, chosen[0] if chosen else None, fold)


def _unknown(stream, options, streams, variants):
  """What of an argument is none of its choices, and these."""
  known = (*variants, "fold=0/4")
  wrong = [option for option in options if option not in variants and "fold=" not in option]
  return [(stream, streams)] * (stream not in streams) + [(option, known) for option in wrong]


def training(argument: Argument) -> ml_collections.ConfigDict:
  """What does not depend on the model. A setting of None has its owner's default."""
  config = ml_collections.ConfigDict()
  config.data = dict(
    name=argument.dataset,
    dir="data",  # of the prepared sets
    protocol=placeholder(str),  # the first of the data set
    fold=placeholder(str),  # "0/4": validate on a 4th of the subjects
  )
  config.data.fold = argument.fold
  config.stage = "all"  # or "classifier": of `init_from`, the head alone, on class-balanced batches
  config.init_from = placeholder(str)  # a run, for its weights
  config.semantic = dict(
    loss="off",  # or mse, contrastive: a second head learns the labels' embeddings
    weight=placeholder(float),  # 20 for mse, 1 for contrastive
    temperature=placeholder(float),  # of contrastive: 0.1
    table=placeholder(str),  # a GloVe text file or a .npy; else built in
  )
  config.optimizer = dict(
    momentum=placeholder(float),  # of sgd: 0.9
    nesterov=placeholder(bool),  # of sgd: no
    clip_norm=placeholder(float),  # none
  )
  config.schedule = dict(name="cosine", warmup_epochs=0.0, milestones=())
  config.train = dict(
    dtype="float32",  # or bfloat16, or auto: what the device is faster with, which the run keeps
    accumulate=1,  # parts that a batch is cut into, for memory
    trainable=(),  # patterns of parameters' paths, of a run of `init_from`; none: all are trained
    ema=0.0,  # decay of an average of the weights, which is then evaluated
    label_smoothing=0.0,
    logit_adjustment=0.0,
    class_weights="none",  # or inverse, square_root; not beside logit_adjustment
    seed=0,
    evaluate_every=placeholder(int),  # epochs, of a fold: 5
    log_every=20,
    save_every=60.0,  # seconds: an epoch that ends sooner after the last save is not saved
  )
  return config


def ablation(text: str) -> tuple[str, bool, ml_collections.ConfigDict]:
  """Of DATASET[,small] the data set, whether it is small, and an ablation still without rows.

  Raises ValueError for another text: the folds of an ablation are its `config.folds`.
  """
  dataset, *small = text.split(",")
  if not dataset or small not in ([], ["small"]):
    raise ValueError(f"expected DATASET[,small], got {text!r}")
  config = ml_collections.ConfigDict()
  config.base = ",".join([f"posec3d:{dataset}", "joint", *small])
  config.settings = ()  # of all rows
  config.also = ()  # more of them, from the command line
  config.data = dict(dir="data")
  config.seeds = (0, 1, 2)
  config.folds = 0  # of the training subjects; 0: train on all of them, evaluate on the test set
  config.jobs = 1  # runs at a time, each on its share of the cores; on a GPU one
  config.fused = ()
  config.compare = ()
  return dataset, bool(small), config
