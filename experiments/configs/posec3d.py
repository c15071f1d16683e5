r"""PoseC3D, SlowOnly-R50 on pose heatmaps (Duan et al., CVPR 2022, arXiv 2104.13586).

  python -m experiments.posec3d \
    --config=experiments/configs/posec3d.py:DATASET,STREAM[,small][,fold=I[/N]] --workdir=DIR

DATASET: imigue, smg, utd_mhad, synthetic_imigue, or the name of any other prepared set, which is
then seen in its own layout. STREAM: joint or limb, or recipe_a or recipe_a_limb, the same streams
with what Xu et al. (MiGA 2025, arXiv 2506.12848) add to PoseC3D: interpolation in time, label
embeddings and, for imigue, the skeleton with the face; how, is our reading (docs/recipe_a.md).
"small" is a network and an input for a laptop's CPU, without claim to anybody's figures. "fold=2"
holds out the third quarter of the training subjects, "fold=2/8" the third eighth. These two may
come in any order.
"""

import re

import ml_collections

# The 2023 winner's recipe (VUT-HFUT/MiGA2023_Track1): 100 epochs at 0.4 / 6 for a batch of 32.
IMIGUE = dict(
  skeleton="imigue22",
  recipe_a_skeleton="imigue41",  # takes the 137 points of the xlsx files
  num_persons=1,
  epochs=100,
  learning_rate=0.4 / 6,
  reference_batch=32,
  clip_norm=ml_collections.config_dict.placeholder(float),  # none
  small_epochs=20,
  small_ema=0.0,
)
DATASETS = {
  "imigue": IMIGUE,
  # Its csv files hold no face.
  "synthetic_imigue": IMIGUE | dict(recipe_a_skeleton="imigue22", small_epochs=12, small_ema=0.98),
  "smg": IMIGUE | dict(skeleton="kinect25", recipe_a_skeleton="kinect25"),
  # PYSKL's recipe for NTU-60, longer. Left and right are classes: its index forbids mirroring.
  "utd_mhad": dict(
    skeleton="kinect20",
    recipe_a_skeleton="kinect20",
    num_persons=1,
    epochs=100,
    learning_rate=0.4,
    reference_batch=256,
    small_epochs=70,
    small_ema=0.0,
    clip_norm=40.0,
  ),
}

OTHER = IMIGUE | dict(
  skeleton=ml_collections.config_dict.placeholder(str),  # the data set's own layout
  recipe_a_skeleton=ml_collections.config_dict.placeholder(str),
  num_persons=ml_collections.config_dict.placeholder(int),  # as many as it has
)
STREAMS = ("joint", "limb", "recipe_a", "recipe_a_limb")


def get_config(argument: str = "") -> ml_collections.ConfigDict:
  name, stream, *options = argument.split(",") if "," in argument else ("", "")
  fold = [re.fullmatch(r"fold=(\d+(/\d+)?)", option) for option in options if option != "small"]
  if not name or stream not in STREAMS or not all(fold) or len(fold) > 1:
    expected = f"DATASET,{' or '.join(STREAMS)}[,small][,fold=I]"
    raise ValueError(f"expected {expected}, got {argument!r}")
  small = "small" in options
  recipe_a = stream.startswith("recipe_a")
  dataset = DATASETS.get(name, OTHER)
  config = ml_collections.ConfigDict()
  config.data = dict(
    name=name,
    dir="data",  # of the prepared sets
    protocol=ml_collections.config_dict.placeholder(str),  # the first of the data set
    fold=ml_collections.config_dict.placeholder(str),  # "0/4": validate on a 4th of the subjects
  )
  if fold:
    config.data.fold = fold[0][1] if fold[0][2] else f"{fold[0][1]}/4"
  config.stage = "all"  # or "classifier": of `init_from`, the head alone, on class-balanced batches
  config.init_from = ml_collections.config_dict.placeholder(str)  # a run, for its weights
  config.skeleton = dataset["skeleton"]
  config.sampling = dict(
    kind="uniform",  # wraps round where a clip is short; or linspace, interpolate
    num_frames=48,
    num_persons=dataset["num_persons"],
    points="keypoints",
    crop=(1.0, 1.0),  # least and most of a clip that a training sample spans
    test_clips=10,
    test_size=64,
    mirror=True,
    style="mmaction2",
  )
  config.inputs = dict(
    stream="limb" if stream in ("limb", "recipe_a_limb") else "joint", size=56, sigma=0.6
  )
  config.augment = dict(
    crop_area=(0.56, 1.0),
    rotation=0.0,  # degrees, in the image
    jitter=0.0,  # pixels
    joint_dropout=0.0,
    bone_scale=(1.0, 1.0),  # least and most of a bone's length
    turn=0.0,  # degrees, in space, before 3-D joints are projected: the data must have them
    tilt=0.0,
  )
  config.model = dict(name="posec3d", variant="slowonly-r50", dropout=0.5)
  config.semantic = dict(
    loss="off",  # or mse, contrastive: a second head learns the labels' embeddings
    weight=ml_collections.config_dict.placeholder(float),  # 20 for mse, 1 for contrastive
    temperature=0.1,  # of the contrastive loss
    table=ml_collections.config_dict.placeholder(str),  # a GloVe text file or a .npy; else built in
  )
  config.optimizer = dict(
    name="sgd",
    learning_rate=dataset["learning_rate"],
    reference_batch=dataset["reference_batch"],
    momentum=0.9,
    nesterov=False,
    weight_decay=3e-4,
    decay="all",
    clip_norm=dataset["clip_norm"],
  )
  config.schedule = dict(name="cosine", epochs=dataset["epochs"], warmup_epochs=0.0, milestones=())
  config.train = dict(
    batch_size=32,
    dtype="float32",
    accumulate=1,  # parts that a batch is cut into, for memory
    ema=0.0,  # decay of an average of the weights, which is then evaluated
    label_smoothing=0.0,
    logit_adjustment=0.0,
    class_weights="none",  # or inverse, square_root; not beside logit_adjustment
    seed=0,
    evaluate_every=5,
    log_every=20,
  )
  if recipe_a:
    config.skeleton = dataset["recipe_a_skeleton"]
    config.sampling.kind = "interpolate"
    config.semantic.loss = "mse"
  if small:
    config.model.update(variant="small", dropout=0.2)
    config.sampling.update(num_frames=16, test_clips=2, test_size=24)
    config.inputs.size = 24
    config.augment.crop_area = (0.8, 1.0)
    config.optimizer.update(
      name="adamw", learning_rate=3e-3, reference_batch=16, weight_decay=0.05, decay="kernels"
    )
    config.schedule.update(epochs=dataset["small_epochs"], warmup_epochs=1.0)
    # The training clips have a long tail, and the figure is the mean over classes.
    config.train.update(
      batch_size=16, label_smoothing=0.1, logit_adjustment=1.0, ema=dataset["small_ema"]
    )
    if name == "utd_mhad":  # few subjects, in 3-D: docs/recipe_a.md
      config.model.variant = "small-strided"
      config.sampling.test_size = 32
      config.inputs.update(size=32, sigma=1.0)
      config.augment.update(bone_scale=(0.8, 1.25), turn=30.0, tilt=15.0)
  return config
