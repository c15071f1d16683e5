import pathlib
import shutil
import subprocess
import sys
import zipfile

ROOT = pathlib.Path(__file__).parents[1]


def test_wheel_holds_jaxmg_alone_and_all_of_it(tmp_path):
  tree = tmp_path / "tree"  # a copy: building leaves build/ and an egg-info beside the sources
  ignore = shutil.ignore_patterns("__pycache__", "*.egg-info", "*.npz")
  for folder in ("jaxmg", "experiments", "datasets", "benchmarks", "tests"):
    shutil.copytree(ROOT / folder, tree / folder, ignore=ignore)
  for file in ("pyproject.toml", "README.md", "LICENSE"):
    shutil.copy(ROOT / file, tree)

  build = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", "dist", tree]
  run = subprocess.run(build, cwd=tmp_path, capture_output=True, text=True)
  assert run.returncode == 0, run.stdout + run.stderr

  (wheel,) = tmp_path.glob("dist/*")
  info = wheel.name.removesuffix("-py3-none-any.whl") + ".dist-info/"
  with zipfile.ZipFile(wheel) as archive:
    names = archive.namelist()
  sources = {path.relative_to(ROOT).as_posix() for path in ROOT.glob("jaxmg/**/*.py")}
  assert {name for name in names if not name.startswith(info)} == sources
  assert info + "licenses/LICENSE" in names
