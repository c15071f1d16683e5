import functools
import gc
import importlib.util
import os
import pathlib

import jax
import pytest

ROOT = pathlib.Path(__file__).parents[1]

# Read when the backend starts, which importing jax does not do. Compiling is most of the suite's
# time. It takes half of it without optimisation, and a quarter less still with the emitters that
# XLA had before those of MLIR (a JAX that has them no more ignores the option). Threads within an
# operation cost more than they bring at the sizes of tests.
# `XLA_FLAGS= make test` tests the programs as users run them.
os.environ.setdefault(
  "XLA_FLAGS",
  "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
  "--xla_backend_extra_options=xla_cpu_disable_new_fusion_emitters "
  "--xla_cpu_multi_thread_eigen=false",
)
jax.config.update("jax_num_cpu_devices", 8)  # but one for the processes that tests start
jax.config.update("jax_default_matmul_precision", "highest")
# For the processes that tests start as well: what one of them has compiled, the others find.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
jax.config.update("jax_compilation_cache_dir", os.environ["JAX_COMPILATION_CACHE_DIR"])
seconds = float(os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", seconds)

# The processes that tests start, several dozens of them, need not compile our modules each.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
# Tracing makes many objects that stay, and garbage is looked for among them again and again.
gc.set_threshold(50_000, 20, 50)

# These files come first, in this order: at the end one process would wait for another with them.
LONGEST = (
  *("test_devices.py", "test_soak.py", "test_fusion.py", "test_ablate.py", "test_wiring.py"),
  *("test_trainer.py", "test_wheel.py", "test_benchmarks.py", "test_agcn.py", "test_mvit.py"),
  *("test_import_weights.py", "test_bad_inputs.py", "test_smg.py", "test_step.py"),
)


def load(path):
  """The module of a file that is no part of a package."""
  spec = importlib.util.spec_from_file_location(path.stem, path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def pytest_collection_modifyitems(items):
  place = {name: i for i, name in enumerate(LONGEST)}
  items.sort(key=lambda item: place.get(item.path.name, len(place)))


@pytest.fixture(scope="session", autouse=True)
def one_device():
  """Commands run on the first device, for which they compile sooner than for all eight."""
  from jaxmg.training import sharding

  original = sharding.data_mesh
  with pytest.MonkeyPatch.context() as patch:
    first = functools.wraps(original)(lambda devices=None: original(devices or jax.devices()[:1]))
    patch.setattr(sharding, "data_mesh", first)
    yield original


@pytest.fixture
def all_devices(one_device, monkeypatch):
  from jaxmg.training import sharding

  monkeypatch.setattr(sharding, "data_mesh", one_device)


@pytest.fixture(scope="session")
def edit_json():
  """Changes a file of a prepared set, and its digest: `edit_json(path, edit)`."""
  import json

  from jaxmg import fields

  def change(path, edit):
    content = json.loads(path.read_text(encoding="utf-8"))
    edit(content)
    content["sha256"] = fields.digest(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    if path.name == "index.json":
      for track in path.parent.glob("*/track.json"):
        change(track, lambda track: track.update(index=content["sha256"]))

  return change


@pytest.fixture(scope="session")
def prepare():
  """datasets/prepare.py, which is a script and no part of a package."""
  return load(ROOT / "datasets" / "prepare.py")


@pytest.fixture(scope="session")
def make_nods(tmp_path_factory):
  """Prepares a data set `nods` of synthetic clips, one by each of these subjects: a, b, c train."""
  import numpy as np

  from jaxmg.data import prepared, readers, tracks

  class Nods(prepared.Builder):
    """Subjects who nod or shake their heads."""

    track = tracks.Pose("openpose25", frame_size=(72, 128))
    class_names = ("nod", "shake")
    protocols = {"xsub": prepared.by_subject(train=("a", "b", "c"))}  # noqa: RUF012
    synthetic = True

    def clips(self, recording, known):
      rng = np.random.default_rng(0)
      for i, subject in enumerate(self.subjects):
        body = rng.uniform((20, 10), (60, 60), (25, 2))
        keypoints = np.ones((12, 1, 25, 3), np.float32)
        keypoints[..., :2] = body
        swing = 6 * np.sin(np.arange(12) + rng.uniform(0, 6))
        keypoints[:, 0, [0, 15, 16, 17, 18], 1 - i % 2] += swing[:, None]
        clip = readers.Clip(keypoints, "openpose25")
        yield prepared.Example(f"clip{i}", i % 2, subject, clip)

  def make(subjects):
    folder = tmp_path_factory.mktemp("nods")
    builder = type("Nods", (Nods,), {"subjects": subjects})
    prepared.write(builder, raw=folder, data_dir=folder / "data")
    return folder / "data"

  return make


@pytest.fixture(scope="session")
def nods(make_nods):
  """A folder with a data set of 18 training and 6 test clips; do not write into it."""
  return make_nods(6 * "a" + 6 * "b" + 6 * "c" + 6 * "d")


@pytest.fixture(scope="session")
def waves(prepare, tmp_path_factory):
  """A folder in UTD-MHAD's format: two actions of two training and two test subjects."""
  import numpy as np
  import scipy.io

  folder = tmp_path_factory.mktemp("waves")
  rng = np.random.default_rng(0)
  for subject in (1, 2, 3, 4):
    for action in (1, 3):
      for trial in (1, 2):
        joints = np.tile(rng.uniform((-0.5, -1, 2.5), (0.5, 1, 3), (20, 3))[..., None], 12)
        joints[4:8, action // 3] += 0.3 * np.sin(np.arange(12))
        path = folder / f"a{action}_s{subject}_t{trial}_skeleton.mat"
        scipy.io.savemat(path, {"d_skel": joints})
  assert prepare.main(["utd_mhad", f"--manual_dir={folder}", f"--data_dir={folder}"]) == 0
  return folder


@pytest.fixture(scope="session")
def spots(tmp_path_factory):
  """A folder with a data set of videos, 18 of training and 6 of test; do not write into it."""
  import io

  import numpy as np
  from PIL import Image

  from jaxmg.data import prepared, readers, tracks

  class Spots(prepared.Builder):
    """Bright squares that move to the left or to the right."""

    track = tracks.Video((20, 24))
    track_name = "video"
    class_names = ("left", "right")
    mirror = False
    protocols = {"xsub": prepared.by_subject(train=("a", "b", "c"))}  # noqa: RUF012
    synthetic = True

    def clips(self, recording, known):
      for i, subject in enumerate(6 * "a" + 6 * "b" + 6 * "c" + 6 * "d"):
        pictures = []
        for k in range(8):
          image = np.full((20, 24, 3), 40 + 5 * (i // 2), np.uint8)
          x = 2 * (k if i % 2 else 7 - k)
          image[6 + i % 3 : 12 + i % 3, x : x + 6] = 230
          into = io.BytesIO()
          Image.fromarray(image).save(into, "JPEG")
          pictures.append(into.getvalue())
        clip = readers.Frames(tuple(pictures), np.arange(8) / 10, (20, 24))
        yield prepared.Example(f"clip{i}", i % 2, subject, clip)

  folder = tmp_path_factory.mktemp("spots")
  prepared.write(Spots, raw=folder, data_dir=folder / "data")
  return folder / "data"


@pytest.fixture(scope="session")
def looks(tmp_path_factory):
  """A folder with a data set of faces, 18 clips of training and 6 of test; do not write into it."""
  import io

  import numpy as np
  from PIL import Image

  from jaxmg.data import prepared, readers, tracks

  class Looks(prepared.Builder):
    """Faces that are bright above or below, seen in a part of the recording alone."""

    track, track_name = tracks.Faces(28), "faces"
    class_names = ("above", "below")
    protocols = {"xsub": prepared.by_subject(train=("a", "b", "c"))}  # noqa: RUF012
    synthetic = True

    def clips(self, recording, known):
      rng = np.random.default_rng(0)
      for i, subject in enumerate(6 * "a" + 6 * "b" + 6 * "c" + 6 * "d"):
        pictures = []
        for _ in range(6):
          image = rng.integers(60, 120, (28, 28, 3), np.uint8)
          image[14 * (i % 2) : 14 + 14 * (i % 2)] += 90
          into = io.BytesIO()
          Image.fromarray(image).save(into, "JPEG", quality=95)
          pictures.append(into.getvalue())
        rest = np.zeros((6, 5, 2), np.float32), np.ones(6, np.float32)
        times = np.arange(6) / 10 + 0.2
        clip = readers.FaceCrops(tuple(pictures), times, np.array([0.0, 1.0]), *rest, size=28)
        yield prepared.Example(f"clip{i}", i % 2, subject, clip)

  folder = tmp_path_factory.mktemp("looks")
  prepared.write(Looks, raw=folder, data_dir=folder / "data")
  return folder / "data"


@pytest.fixture(scope="session")
def video_training(spots):
  """The command line that trains an MViTv2 of one block on `spots`: as `training`."""
  from jaxmg.models import mvit

  def arguments(workdir, *settings):
    values = {
      "data.dir": spots,
      "sampling.num_frames": 4,
      "sampling.seconds": 0.4,
      "inputs.size": 16,
      "model.variant": "one_block",
      "train.batch_size": 2,
      "schedule.epochs": 8,
    } | dict(setting.split("=", 1) for setting in settings)
    return [
      f"--config={ROOT}/experiments/configs/mvit.py:spots,frames,small",
      f"--workdir={workdir}",
      *(f"--config.{key}={value}" for key, value in values.items()),
    ]

  one_block = dict(width=8, depths=(1,), kv_stride=2, stochastic_depth=0.1)
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(mvit.VARIANTS, "one_block", one_block)  # "tiny" compiles for three times as long
    yield arguments


@pytest.fixture(scope="session")
def training(nods):
  """The command line that trains a tiny PoseC3D on `nods`: `training(workdir, "train.seed=1")`."""

  def arguments(workdir, *settings, data=nods):
    values = {
      "data.name": "nods",
      "data.dir": data,
      "skeleton": "coco17",
      "sampling.num_frames": 8,
      "sampling.test_size": 16,
      "inputs.size": 16,
      "model.variant": "tiny",
      "train.batch_size": 8,
      "schedule.name": "step",  # a rate that does not depend on the epochs: one program for all
      "schedule.epochs": 2,
    } | dict(setting.split("=", 1) for setting in settings)
    return [
      f"--config={ROOT}/experiments/configs/posec3d.py:imigue,joint,small",
      f"--workdir={workdir}",
      *(f"--config.{key}={value}" for key, value in values.items()),
    ]

  return arguments


@pytest.fixture(scope="session")
def run(training, tmp_path_factory):
  """The work directory of a run of 4 steps; write nothing but evaluations into it."""
  from experiments import launch, posec3d

  workdir = tmp_path_factory.mktemp("runs") / "nods"
  assert launch.main(posec3d.run, training(workdir)) == 0
  return workdir


@pytest.fixture(scope="session")
def videos():
  """The module beside this file that writes small videos."""
  return load(ROOT / "tests" / "videos.py")
