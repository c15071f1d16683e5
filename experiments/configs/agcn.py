"""One stream of 2s-AGCN (Shi et al., CVPR 2019, arXiv 1805.07694).

  python -m experiments.agcn --config=experiments/configs/agcn.py:DATASET,STREAM[,VARIANT] ...

DATASET: utd_mhad (3-D joints), imigue, synthetic_imigue (key points), or the name of any other
prepared set, which is then seen in its own layout, in 3-D if it has that; STREAM: joint, bone,
joint_motion or bone_motion; VARIANT: "small", a network for a laptop's CPU, or "paper", the
published recipe for NTU RGB+D; all else is ours.
"""

import ml_collections

IMIGUE = dict(
  skeleton="imigue22",
  points="keypoints",
  num_persons=1,
  mirror=True,
  rotation=10.0,  # in the image
  logit_adjustment=1.0,  # for the long tail
)
DATASETS = {
  "imigue": IMIGUE,
  "synthetic_imigue": IMIGUE,
  # Left and right are classes: its index forbids mirroring.
  "utd_mhad": dict(
    skeleton="kinect20",
    points="joints3d",
    num_persons=1,
    mirror=False,
    rotation=15.0,  # about the vertical
    logit_adjustment=0.0,
  ),
}
OTHER = dict(
  skeleton=ml_collections.config_dict.placeholder(str),  # the data set's own layout
  points=ml_collections.config_dict.placeholder(str),  # joints3d, if it has them
  num_persons=ml_collections.config_dict.placeholder(int),  # as many as it has
  mirror=True,
  rotation=15.0,
  logit_adjustment=0.0,
)
STREAMS = ("joint", "bone", "joint_motion", "bone_motion")
VARIANTS = ("small", "paper")


def get_config(argument: str = "") -> ml_collections.ConfigDict:
  name, stream, variant = (*argument.split(","), "", "")[:3]
  if argument.count(",") > 2 or stream not in STREAMS or variant not in ("", *VARIANTS):
    expected = f"DATASET,{' or '.join(STREAMS)}[,{' or '.join(VARIANTS)}]"
    raise ValueError(f"expected {expected}, got {argument!r}")
  dataset = DATASETS.get(name, OTHER)
  config = ml_collections.ConfigDict()
  config.data = dict(
    name=name,
    dir="data",  # of the prepared sets
    protocol=ml_collections.config_dict.placeholder(str),  # the first of the data set
    fold=ml_collections.config_dict.placeholder(str),  # "0/4": validate on a 4th of the subjects
  )
  config.stage = "all"  # or "classifier": of `init_from`, the head alone, on class-balanced batches
  config.init_from = ml_collections.config_dict.placeholder(str)  # a run, for its weights
  config.skeleton = dataset["skeleton"]
  config.sampling = dict(
    kind="linear",
    num_frames=64,
    num_persons=dataset["num_persons"],
    points=dataset["points"],
    crop=(0.75, 1.0),  # least and most of a clip that a training sample spans
    test_clips=1,
    mirror=dataset["mirror"],
    style="mmaction2",
  )
  config.inputs = dict(stream=stream)
  config.augment = dict(rotation=dataset["rotation"], tilt=10.0, scale=(0.9, 1.1))
  config.model = dict(name="agcn", variant="agcn", dropout=0.0)
  config.semantic = dict(
    loss="off",  # or mse, contrastive: a second head learns the labels' embeddings
    weight=ml_collections.config_dict.placeholder(float),  # 20 for mse, 1 for contrastive
    temperature=0.1,
    table=ml_collections.config_dict.placeholder(str),  # a GloVe text file or a .npy; else built in
  )
  config.optimizer = dict(
    name="adamw",
    learning_rate=2e-3,
    reference_batch=16,
    momentum=0.9,
    nesterov=True,
    weight_decay=0.05,
    decay="kernels",
    clip_norm=ml_collections.config_dict.placeholder(float),  # none
  )
  config.schedule = dict(name="cosine", epochs=35, warmup_epochs=5.0, milestones=())
  config.train = dict(
    batch_size=16,
    dtype="float32",
    accumulate=1,  # parts that a batch is cut into, for memory
    ema=0.0,  # decay of an average of the weights, which is then evaluated
    label_smoothing=0.1,
    logit_adjustment=dataset["logit_adjustment"],
    class_weights="none",  # or inverse, square_root; not beside logit_adjustment
    seed=0,
    evaluate_every=5,
    log_every=20,
  )
  if variant == "small":
    config.model.variant = "small"
  if variant == "paper":
    config.sampling.update(kind="repeat", num_frames=300, crop=(1.0, 1.0), mirror=False)
    config.augment.update(rotation=0.0, tilt=0.0, scale=(1.0, 1.0))
    config.optimizer.update(
      name="sgd", learning_rate=0.1, reference_batch=64, weight_decay=1e-4, decay="all"
    )
    config.schedule.update(name="step", epochs=50, warmup_epochs=0.0, milestones=(30, 40))
    config.train.update(batch_size=64, label_smoothing=0.0, logit_adjustment=0.0)
  return config
