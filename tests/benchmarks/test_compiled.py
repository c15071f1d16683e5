import concurrent.futures.process
import json
import os

import jax
import pytest

from benchmarks import compiled, timing
from jaxmg.training import sharding

FIGURES = {"seconds": 1.0, "temporary GB": 2.0, "GB a clip": 3.0, "kernels": 4}


@pytest.fixture
def main(tmp_path, monkeypatch):
  def call(*arguments):
    compiled.main([*arguments, f"--out={tmp_path / 'out.json'}"])

  monkeypatch.chdir(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))
  for name in ("JAX_PLATFORMS", *compiled.TPU_SETTINGS):
    monkeypatch.setenv(name, os.environ.get(name, ""))  # and back, when this is done
  platforms = jax.config.jax_platforms
  yield call, lambda: json.loads((tmp_path / "out.json").read_text())["results"]
  jax.config.update("jax_platforms", platforms)


def test_programs_have_different_names_and_every_value_comes():
  names = [str(program) for program in compiled.PROGRAMS]
  assert len(set(names)) == len(names) >= 24
  for value in (
    *(" train", " evaluate", " predict", "joint", "limb", "recipe_a", "small", "bfloat16"),
    *("synthetic_imigue,recipe_a", "openpose137", "utd_mhad,joint,small", "agcn.py:imigue"),
    *("agcn.py:utd_mhad", "num_persons=2", "paper", "accumulate", "train.ema", "stage=classifier"),
    *("mvit.py:videos,frames train", "remat", "tokens=", "encoders=", "modality_dropout"),
    *("swinface.py:clips,faces train", "faces,small evaluate"),
  ):
    assert any(value in name for name in names), value


def test_a_program_that_does_not_compile_is_named_and_the_exit_code_is_1(main, monkeypatch, capsys):
  def measure(function, platform, size, program):
    assert (function, platform, size) == (compiled.measure, "cuda", "tiny")
    if program.job == "predict":
      raise concurrent.futures.process.BrokenProcessPool  # as an abort makes
    if program.job == "evaluate":
      raise ValueError("no such layer")
    return FIGURES

  monkeypatch.setattr(timing, "in_new_process", measure)
  monkeypatch.setattr(compiled, "COMPILERS", {"cuda": "json"})
  main, results = main
  main("--platform=cuda", "--only=agcn.py:imigue,joint train")
  assert [row["outcome"] for row in results()] == ["compiled"]
  assert results()[0].items() >= FIGURES.items()
  with pytest.raises(SystemExit, match="1"):
    main("--platform=cuda")
  outcomes = {row["program"].split()[1]: row["outcome"] for row in results()}
  assert outcomes["predict"] == "aborted"
  assert outcomes["evaluate"] == "ValueError: 'no such layer'"
  assert outcomes["train"] == "compiled"
  assert "aborted: posec3d.py:imigue,joint predict" in capsys.readouterr().out
  with pytest.raises(SystemExit, match="2"):
    main("--platform=cuda", "--only=no such program")
  assert "There are:\n  slowonly-r50 bare\n" in capsys.readouterr().err
  monkeypatch.setattr(compiled, "COMPILERS", {"cuda": "no_such_compiler"})
  with pytest.raises(SystemExit, match="2"):
    main("--platform=cuda")
  assert "no_such_compiler is missing (make accelerators)" in capsys.readouterr().err


@pytest.mark.parametrize(
  ("job", "config"),
  [
    ("train", "recipe_a"),
    ("train", "kinetics"),
    ("nearest", "recipe_a"),
    ("predict", "utd_mhad,joint"),
    ("train", "mvit"),
    ("train", "swinface"),
    ("predict", "fusion"),
    ("bare", "slowonly"),
  ],
)
def test_a_program_is_that_of_the_command(job, config, monkeypatch):
  monkeypatch.chdir(os.path.dirname(os.path.dirname(os.path.dirname(__file__))))
  (program, *_) = (p for p in compiled.PROGRAMS if p.job == job and config in p.config)
  mesh = sharding.data_mesh(jax.devices()[:1])
  jitted, inputs, clips = compiled.build(program, "tiny", mesh)
  found = jax.eval_shape(jitted, *inputs)
  if job in ("train", "bare"):
    state, metrics = found
    assert jax.tree.map(jax.numpy.shape, state) == jax.tree.map(jax.numpy.shape, inputs[0])
    assert clips == (32 if job == "bare" else 4)
    assert metrics["loss"].shape == ()
  else:
    values = 300 if job == "nearest" else 32  # of the built-in table; classes
    assert (found.shape, clips) == ((1, values), 1)


@pytest.mark.parametrize(
  ("platform", "package"), [("cuda", "jax_cuda13_plugin"), ("tpu", "libtpu")]
)
def test_a_step_compiles_where_the_compiler_is_installed(platform, package, main, monkeypatch):
  pytest.importorskip(package)
  monkeypatch.delenv("XLA_FLAGS")  # of the suite, for CPUs
  main, results = main
  main(f"--platform={platform}", "--only=agcn.py:utd_mhad,joint,small predict")
  (row,) = results()
  assert row["outcome"] == "compiled"
  assert row["GB a clip"] > 0
