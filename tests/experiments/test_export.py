"""A run as one program: the probabilities of prediction, where there is jax alone."""

import fractions
import functools
import importlib.util
import io
import json
import os
import pathlib
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import jaxtyping
import numpy as np
import pytest
from jax import export as jax_export
from PIL import Image

from experiments import export, launch
from jaxmg import errors, inputs, predict, recipe
from jaxmg import export as library
from jaxmg.data import readers
from jaxmg.skeletons import topology
from jaxmg.training import checkpoints

COCO17 = topology.get("coco17")
NAMES = ("nod", "shake", "wave")
MODELS = {
  "posec3d": {"width": 4, "depths": (1,)},
  "agcn": {"width": 4, "depths": (1,), "parents": COCO17.parents},
  "mvit": {"width": 8, "depths": (1,), "kv_stride": 2},
}
INPUTS = {
  "posec3d": inputs.Heatmaps(
    COCO17, (72, 128), num_frames=4, size=16, test_size=16, sampling="interpolate"
  ),
  "agcn": inputs.Graph(COCO17, (72, 128), num_frames=8, num_persons=2, stream="bone"),
  "mvit": inputs.Video((20, 24), num_frames=4, size=16, seconds=0.5),
}
FRAMES = {"posec3d": 3, "agcn": 13, "mvit": 9}
FLAGS = {"posec3d": (), "agcn": (), "mvit": ("--fps=10", "--frame_size=30x24")}


@pytest.fixture(scope="module", autouse=True)
def sizes_may_be_symbols():
  """The annotations of shapes know numbers alone, and not a batch of any size."""
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(jaxtyping.config, "jaxtyping_disable", True)
    yield


# Jax, its own needs, and what jax.export needs.
PACKAGES = ("jax", "jaxlib", "numpy", "ml_dtypes", "opt_einsum", "scipy", "flatbuffers")
ALONE = """
import sys

folder, *paths = sys.argv[1:]
sys.path.append(folder)
import jax
import numpy as np

for path in paths:
  program = jax.export.deserialize(open(path, "rb").read())
  with np.load(f"{path}.npz") as given:
    arrays = [given[f"arr_{i}"] for i in range(len(given.files))]
  found = {f"b{n}": program.call(*(x[:n] for x in arrays)) for n in (1, 3)}
  np.savez(f"{path}.out.npz", **found)
try:
  import flax
except ModuleNotFoundError:
  sys.exit(0)
sys.exit("flax is there")
"""


def variables_of(made):
  """Weights drawn at random, norms too."""
  rng, build = np.random.default_rng(0), made.build_model()
  shapes = jax.eval_shape(build.init, jax.random.key(0), made.example())

  def fill(leaf):
    deviation = 1 / np.sqrt(max(1, np.prod(leaf.shape[:-1])))
    return np.float32(np.abs(rng.normal(1, 0.3, leaf.shape)) * deviation)

  found = jax.tree.map(fill, dict(shapes))
  signs = jax.tree.map(lambda x: x * rng.choice([-1, 1], x.shape).astype(x.dtype), found["params"])
  return {"params": signs, "batch_stats": found.get("batch_stats", {})}


@functools.cache
def recipe_of(name):
  model = {"name": name, "num_classes": 3, **MODELS[name]}
  return recipe.Recipe(model, {"x": INPUTS[name]}, NAMES, num_clips=2, mirror=True)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
  """Run directories of weights that were not trained."""
  folder = tmp_path_factory.mktemp("runs")
  for name in MODELS:
    made = recipe_of(name)
    (folder / name).mkdir()
    recipe.save(folder / name, made)
    with checkpoints.Checkpoints(folder / name / "checkpoints") as into:
      into.save(1, variables_of(made), {})
  return folder


def recordings(name):
  """Three recordings: the arrays that the program takes, and what prediction takes."""
  rng, frames = np.random.default_rng(1), FRAMES[name]
  if name == "mvit":
    pictures = rng.integers(0, 256, (3, frames, 30, 24, 3), np.uint8)
    return (pictures,), [pngs(x, np.arange(frames) / 10) for x in pictures]
  persons = INPUTS[name].num_persons
  pose = rng.uniform((10, 5, 0.2), (120, 70, 1), (3, frames, persons, 17, 3)).astype(np.float32)
  pose[rng.random(pose.shape[:-1]) < 0.2] = 0
  sizes = np.int32([[72, 128], [80, 128], [72, 140]])
  clips = [readers.Clip(x, COCO17, (*map(int, s),)) for x, s in zip(pose, sizes, strict=True)]
  return (pose, sizes), clips


def pngs(pictures, times):
  found = []
  for picture in pictures:
    into = io.BytesIO()
    Image.fromarray(picture).save(into, "PNG")
    found.append(into.getvalue())
  return readers.Frames(tuple(found), times, pictures.shape[1:3])


def call(*argv):
  return launch.command(export.run, export.define, [*argv])


@pytest.fixture(scope="module")
def exported(runs):
  """The file of each run, written by the command."""
  for name in MODELS:
    flags = f"--run={runs / name}", f"--frames={FRAMES[name]}", f"--out={runs / name}.jaxexport"
    assert call(*flags, *FLAGS[name]) == 0
  return {name: runs / f"{name}.jaxexport" for name in MODELS}


def test_programs_give_the_probabilities_of_prediction_with_jax_alone(runs, exported, tmp_path):
  expected = {}
  for name, path in exported.items():
    arrays, clips = recordings(name)
    np.savez(f"{path}.npz", *arrays)
    predictor = predict.Predictor(runs / name)
    expected[name] = np.stack([predictor(clip) for clip in clips])
    assert np.ptp(expected[name], axis=0).max() > 1e-3  # not the same of all
  environment = {name: x for name, x in os.environ.items() if not name.startswith("PYTHON")}
  environment |= {"JAX_PLATFORMS": "cpu"}
  environment |= {"JAX_DEFAULT_MATMUL_PRECISION": "highest"}
  for name in PACKAGES:
    place = pathlib.Path(importlib.util.find_spec(name).submodule_search_locations[0])
    for folder in (place, place.with_name(f"{name}.libs")):
      (tmp_path / folder.name).symlink_to(folder)
  command = [sys.executable, "-I", "-S", "-c", ALONE, tmp_path, *exported.values()]
  run = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
  assert run.returncode == 0, run.stderr
  for name, path in exported.items():
    with np.load(f"{path}.out.npz") as found:
      for n in (1, 3):
        np.testing.assert_allclose(found[f"b{n}"], expected[name][:n], rtol=0, atol=1e-6)


def test_what_goes_in_and_out_stands_beside_the_program(exported):
  about = json.loads(exported["agcn"].with_name("agcn.jaxexport.json").read_text())
  assert about["class_names"] == [*NAMES]
  assert about["platforms"] == ["cpu", "cuda", "tpu"]
  one = about["inputs"]["x"]
  assert one["joints"] == [*COCO17.joints]
  assert one["arrays"]["keypoints"]["shape"] == ["b", 13, 2, 17, 3]
  assert "pixels" in one["arrays"]["keypoints"]["about"]
  assert np.shape(one["frames"]) == (2, 8)
  about = json.loads(exported["mvit"].with_name("mvit.jaxexport.json").read_text())
  assert about["inputs"]["x"]["arrays"]["frames"]["shape"] == ["b", 9, 30, 24, 3]


def test_what_recordings_have_is_asked_of_inputs_whatever_their_track():
  class Thermal(inputs.Video):
    track = "thermal"

  made = recipe.Recipe(
    {"name": "mvit", "num_classes": 3} | MODELS["mvit"],
    {"x": Thermal((20, 24), num_frames=4, size=16, sampling="uniform")},
    NAMES,
  )
  found = library.recordings(made, num_frames=9, frame_size=(30, 24))
  assert found["x"].arrays["frames"].shape == (9, 30, 24, 3)
  found = library.recordings(made, num_frames=np.int64(9), frame_size=np.array([30.0, 24.0]))
  assert found["x"].arrays["frames"].shape == (9, 30, 24, 3)
  with pytest.raises(errors.ConfigError, match="frame_size: expected height and width, whole num"):
    library.recordings(made, frame_size=(30.5, 24))
  with pytest.raises(errors.ConfigError, match="fps: expected a run that samples frames by second"):
    library.recordings(made, fps=25.0)


def test_an_input_that_says_no_options_has_none():
  class Given:
    num_frames = 4

    def whole(self, num_frames, num_clips):
      return num_frames, num_clips

  made = types.SimpleNamespace(inputs={"x": Given()}, num_clips=2, may_lack=False)
  assert library.recordings(made) == {"x": (4, 2)}


def test_a_rate_of_any_kind_is_given_as_a_number():
  class Given:
    num_frames, whole_options = 4, ("fps",)

    def whole(self, num_frames, num_clips, fps):
      return fps

  made = types.SimpleNamespace(inputs={"x": Given()}, num_clips=2, may_lack=False)
  assert type(library.recordings(made, fps=fractions.Fraction(25))["x"]) is float


def test_the_file_names_no_folder_of_ours(exported):
  for path in exported.values():
    content = path.read_bytes()
    assert b".py" not in content
    assert os.fsencode(path.parent) not in content


@pytest.mark.parametrize(
  ("flags", "error"),
  [
    (["--frame_size=20x20"], "frame_size: expected a run that sees videos, got one of "),
    (["--fps=20"], "fps: expected a run that samples frames by seconds, got one of "),
    (["--platforms=cpu,gpu"], "--platforms: expected some of cpu, cuda, tpu, got cpu,gpu"),
  ],
)
def test_wrong_calls_are_one_line(runs, tmp_path, capsys, flags, error):
  assert call(f"--run={runs / 'agcn'}", f"--out={tmp_path / 'x'}", *flags) == 2
  assert capsys.readouterr().err.startswith(f"jaxmg: error: {error}")
  assert not [*tmp_path.iterdir()]


def test_tokens_of_others_cannot_be_exported():
  one = inputs.Tokens("tokens-a", 4, 8, "0" * 16)
  found = recipe.Recipe({"name": "fusion", "num_classes": 3}, {"a": one, "b": one}, NAMES)
  with pytest.raises(errors.ConfigError, match="input a: tokens-a: expected what a recording"):
    library.recordings(found)


def test_several_inputs_are_a_dictionary_of_which_some_may_be_absent():
  """A program of a fusion, against the prediction step of the same batch."""
  encoders = {
    name: {"name": name, "num_classes": 3, **MODELS[name]} for name in ("agcn", "posec3d")
  }
  model = {"name": "fusion", "num_classes": 3, "variant": "tiny", "encoders": encoders}
  seen = {name: INPUTS[name] for name in encoders}
  found = recipe.Recipe(model | {"modality_dropout": 0.2}, seen, NAMES, num_clips=1)
  variables = variables_of(found)
  restored = jax_export.deserialize(
    library.exported(found, variables, num_frames=6, platforms="cpu").serialize()
  )
  rng, given, batch = np.random.default_rng(2), {}, {}
  for name, one in seen.items():
    shape = (2, 6, one.num_persons, 17, 3)
    pose = rng.uniform((10, 5, 0.2), (120, 70, 1), shape).astype(np.float32)
    there = np.array([True, name == "agcn"])
    pose[~there] = 0
    sizes = np.int32([[72, 128]] * 2)
    given[name] = {"keypoints": pose, "frame_size": sizes, "present": there}
    records = [{"keypoints": x, "frame_size": (72, 128), "layout": COCO17} for x in pose]
    read = [one.read_test(record, 1) for record in records]
    batch[name] = jax.tree.map(lambda *x: jnp.stack(x), *read) | {"present": jnp.asarray(there)}
  step = jax.jit(found.predict_step(found.build_model()))
  expected = step(variables["params"], variables["batch_stats"], batch)
  np.testing.assert_allclose(restored.call(given), expected, rtol=0, atol=1e-6)
