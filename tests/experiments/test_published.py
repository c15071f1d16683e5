"""The recipes of other projects: their settings, and a step on a file of the set's form."""

import pickle

import numpy as np
import pytest

from experiments import agcn, launch, posec3d, settings
from jaxmg.data import source
from jaxmg.training import checkpoints

# What the configs of PYSKL, mmaction2, the original 2s-AGCN and SlowFast say.
POSEC3D = {
  "sampling.kind": "uniform",
  "sampling.num_frames": 48,
  "sampling.test_clips": 10,
  "sampling.test_size": 64,
  "sampling.mirror": True,
  "inputs.size": 56,
  "inputs.sigma": 0.6,
  "augment.crop_area": (0.56, 1.0),
  "model.variant": "slowonly-r50",
  "model.dropout": 0.5,
  "optimizer.name": "sgd",
  "optimizer.learning_rate": 0.4,
  "optimizer.reference_batch": 256,
  "optimizer.weight_decay": 3e-4,
  "optimizer.clip_norm": 40.0,
  "schedule.name": "cosine",
  "schedule.epochs": 240,
  "train.batch_size": 256,
}
LESS_DECAY = POSEC3D | {"optimizer.weight_decay": 1e-4}
KINETICS_SKELETONS = LESS_DECAY | {"model.variant": "slowonly-r50-346"}
UCF101 = POSEC3D | {
  "model.variant": "slowonly-r50-346",
  "inputs.size": 48,
  "sampling.test_size": 56,
  "optimizer.learning_rate": 0.01,
  "optimizer.reference_batch": 128,
  "schedule.name": "step",
  "schedule.epochs": 120,
  "schedule.milestones": (90, 110),
  "train.batch_size": 128,
}
AGCN_3D = {
  "skeleton": "kinect25",
  "sampling.num_frames": 300,
  "sampling.num_persons": 2,
  "sampling.mirror": False,
  "inputs.preparation": "ntu",
  "optimizer.learning_rate": 0.1,
  "optimizer.reference_batch": 64,
  "optimizer.nesterov": True,
  "optimizer.weight_decay": 1e-4,
  "schedule.epochs": 50,
  "schedule.milestones": (30, 40),
  "train.batch_size": 64,
}
AGCN_2D = {
  "sampling.kind": "uniform",
  "sampling.num_frames": 100,
  "sampling.num_persons": 2,
  "sampling.test_clips": 10,
  "sampling.mirror": False,
  "inputs.preparation": "ours",
  "augment.rotation": 0.0,
  "optimizer.learning_rate": 0.1,
  "optimizer.reference_batch": 128,
  "optimizer.nesterov": True,
  "optimizer.weight_decay": 5e-4,
  "schedule.name": "cosine",
  "schedule.epochs": 80,
  "train.batch_size": 128,
}
MVIT = {
  "sampling.num_frames": 16,
  "inputs.size": 224,
  "model.dropout": 0.5,
  "train.label_smoothing": 0.1,
  "train.mixup": 0.8,
  "train.cutmix": 1.0,
  "augment.erase": 0.25,
  "augment.crop_area": (0.08, 1.0),
  "optimizer.layer_decay": 1.0,
}
KINETICS = MVIT | {
  "optimizer.name": "adamw",
  "optimizer.learning_rate": 1e-4,
  "optimizer.weight_decay": 0.05,
  "optimizer.clip_norm": 1.0,
  "schedule.epochs": 200,
  "schedule.warmup_epochs": 30.0,
  "sampling.mirror": True,
}
SSV2 = MVIT | {
  "optimizer.name": "sgd",
  "optimizer.learning_rate": 2.5e-3,
  "optimizer.weight_decay": 1e-4,
  "optimizer.clip_norm": None,
  "model.stochastic_depth": 0.4,
  "schedule.epochs": 100,
  "schedule.warmup_epochs": 3.0,
  "sampling.mirror": False,
}


@pytest.mark.parametrize(
  ("text", "published"),
  [
    ("posec3d:ntu60,joint", POSEC3D),
    ("posec3d:ntu60_hrnet,limb", POSEC3D | {"inputs.stream": "limb"}),
    ("posec3d:ntu120_2d,joint", POSEC3D),
    ("posec3d:gym,limb", POSEC3D),
    ("posec3d:diving48,joint", LESS_DECAY),
    ("posec3d:k400_hrnet,limb", KINETICS_SKELETONS),
    ("posec3d:ucf101,joint", UCF101),
    ("posec3d:hmdb51_2d,joint", UCF101 | {"optimizer.weight_decay": 1e-4}),
    ("agcn:ntu60_3d,joint,paper", AGCN_3D),
    ("agcn:ntu120_3danno,bone,paper", AGCN_3D),
    ("agcn:ntu60,bone,paper", AGCN_2D),
    ("mvit:k400,frames", KINETICS),
    ("mvit:ssv2,frames", SSV2),
  ],
)
def test_a_set_that_has_a_published_recipe_gets_it(text, published):
  values = settings.flatten(settings.read_config(text, []).to_dict())
  assert {key: values[key] for key in published} == published


@pytest.mark.parametrize("name", ["posec3d", "agcn", "mvit"])
def test_small_is_the_same_for_every_set_without_one_of_its_own(name):
  table = settings.load(name)["DATASETS"]
  other = settings.read_config(f"{name}:of_ones_own,{settings.load(name)['STREAMS'][0]},small", [])
  for dataset in {"k400", "ntu60", "diving48"} & table.keys():
    text = f"{name}:{dataset},{settings.load(name)['STREAMS'][0]},small"
    ours = settings.read_config(text, [])
    assert ours.train.to_dict() == other.train.to_dict()
    assert ours.schedule.to_dict() == other.schedule.to_dict()


def clip(person, action, camera, shape):
  rng = np.random.default_rng([person, action, camera])
  fields = {
    "frame_dir": f"S001C{camera:03}P{person:03}R001A{action:03}",
    "label": action - 1,
    "total_frames": shape[1],
  }
  if shape[-1] == 3:
    return fields | {"keypoint": rng.normal((0, 0, 3), 0.3, shape).astype(np.float32)}
  return fields | {
    "img_shape": (1080, 1920),
    "original_shape": (1080, 1920),
    "keypoint": rng.uniform(300, 700, shape).astype(np.float16),
    "keypoint_score": rng.uniform(0.3, 1, shape[:3]).astype(np.float16),
  }


# The settings of the network's size alone; all else is that of the recipe.
TINY = ("model.variant=tiny", "train.batch_size=8", "schedule.epochs=1")


@pytest.mark.parametrize(
  ("file", "experiment", "text", "shape", "more"),
  [
    (
      "ntu60_hrnet",
      posec3d,
      "posec3d:ntu60_hrnet,limb",
      (17, 2),
      ("train.accumulate=2", "sampling.num_frames=8", "inputs.size=16", "sampling.test_size=16"),
    ),
    ("ntu60_3danno", agcn, "agcn:ntu60_3danno,bone,paper", (25, 3), ("schedule.milestones=()",)),
  ],
)
def test_a_file_of_ntu60_is_prepared_and_trained_on(
  file, experiment, text, shape, more, prepare, tmp_path
):
  clips = [
    clip(person, action, camera, (1 + action % 2, 5 + person, *shape))
    for person in (1, 2, 3)
    for action in (1, 2)
    for camera in (1, 2)
  ]
  ids = [one["frame_dir"] for one in clips]
  split = {
    "xsub_train": ids[:8],
    "xsub_val": ids[8:],
    "xview_train": ids[1::2],
    "xview_val": ids[::2],
  }
  path = tmp_path / f"{file}.pkl"
  path.write_bytes(pickle.dumps({"split": split, "annotations": clips}))
  folders = [f"--manual_dir={path}", f"--data_dir={tmp_path}"]
  assert prepare.main(["pyskl_pickle", *folders]) == 0
  assert list(source.Source(tmp_path / file).protocols) == ["xsub_val", "xview_val"]
  values = (f"data.dir={tmp_path}", "data.protocol=xsub_val", *TINY, *more)
  workdir = tmp_path / "run"
  argv = [f"--config={text}", f"--workdir={workdir}", *(f"--config.{value}" for value in values)]
  assert launch.main(experiment.run, argv) == 0
  assert checkpoints.restore_variables(workdir / "checkpoints", "latest")
