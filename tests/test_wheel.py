"""What `pip install jaxmg` brings, and that its command goes all the way, outside the checkout."""

import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PLACES = {"jaxmg": "jaxmg", "experiments": "jaxmg/experiments", "datasets": "jaxmg/datasets"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
  folder = tmp_path_factory.mktemp("wheel")
  tree = folder / "tree"  # a copy: building leaves build/ and an egg-info beside the sources
  ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.npz")
  for name in ("jaxmg", "experiments", "datasets", "benchmarks", "tests"):
    shutil.copytree(ROOT / name, tree / name, ignore=ignore)
  for file in ("pyproject.toml", "README.md", "LICENSE"):
    shutil.copy(ROOT / file, tree)
  build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", tree]
  run = subprocess.run(build, cwd=folder, capture_output=True, text=True)
  assert run.returncode == 0, run.stdout + run.stderr
  (wheel,) = folder.glob("dist/*")
  return wheel


def test_wheel_holds_jaxmg_with_its_commands_and_builders_alone(wheel):
  info = wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info/"
  with zipfile.ZipFile(wheel) as archive:
    names = archive.namelist()
  files = {
    f"{place}/{path.relative_to(ROOT / folder).as_posix()}"
    for folder, place in PLACES.items()
    for path in (ROOT / folder).rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
  }
  assert {name for name in names if not name.startswith(info)} == files
  assert info + "licenses/LICENSE" in names


def test_command_of_a_wheel_prepares_trains_evaluates_and_predicts(wheel, tmp_path):
  site, folder = tmp_path / "site", tmp_path / "empty"
  folder.mkdir()
  pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
  subprocess.run([*pip, "--no-deps", "--no-index", f"--target={site}", wheel], check=True)
  environment = os.environ | {"PYTHONPATH": str(site), "JAX_PLATFORMS": "cpu"}

  def python(*command, code=0):
    run = subprocess.run(
      [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert run.returncode == code, run.stdout + run.stderr
    return run.stdout if code == 0 else run.stderr

  def jaxmg(*command, **options):
    return python(site / "bin" / "jaxmg", *command, **options)

  assert "  train           Trains the model of a config, whichever it is." in jaxmg()
  lacking = "import sys; sys.modules['optax'] = None; from jaxmg.experiments import __main__ as m;"
  error = python("-c", f"{lacking} sys.exit(m.main(['train', '--help']))", code=2)
  assert error == "jaxmg: error: optax is missing: needs pip install 'jaxmg[train]'\n"

  generate = site / "jaxmg" / "datasets" / "synthetic_imigue" / "generate.py"
  python(generate, "--out=raw", "--train_clips=64", "--test_clips=32")
  assert "64 to train" in jaxmg(
    "prepare", "synthetic_imigue", "--manual_dir=raw", "--data_dir=data"
  )
  tiny = ("model.variant=tiny", "inputs.size=16", "sampling.num_frames=8", "sampling.test_size=16")
  tiny += ("sampling.test_clips=1",)
  settings = [f"--config.{setting}" for setting in (*tiny, "schedule.epochs=2")]
  jaxmg("train", "posec3d:synthetic_imigue,joint,small", *settings, "--workdir=run")
  assert "32 clips" in jaxmg("evaluate", "--run=run")
  assert "run: run/test/report.html (" in jaxmg("report", "run")
  found = jaxmg("predict", "--run=run", "--input=raw/example_clip.csv", "--top=3")
  assert found.count("%") == 3
  assert "probabilities float32[b, 32]" in jaxmg("export", "--run=run", "--out=run.program")
  files = ["data", "raw", "run", "run.program", "run.program.json"]
  assert sorted(path.name for path in folder.iterdir()) == files
