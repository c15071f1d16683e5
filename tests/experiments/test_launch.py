import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import types

import jax
import ml_collections
import pytest
from absl import flags

from experiments import backend, launch, settings, signals
from jaxmg import errors, recipe

ROOT = pathlib.Path(__file__).parents[2]
CONFIG = """
import ml_collections

def get_config(argument="joint"):
  if argument not in ("joint", "limb"):
    raise ValueError(f"expected joint or limb, got {argument}")
  config = ml_collections.ConfigDict()
  config.data = dict(name="utd_mhad", fold=ml_collections.config_dict.placeholder(str))
  config.inputs = dict(stream=argument)
  config.model = dict(depth=3, dropout=0.5)
  config.optimizer = dict(learning_rate=0.4)
  config.sampling = dict(num_frames=48, mirror=True)
  config.schedule = dict(epochs=24)
  config.train = dict(batch_size=32)
  return config
"""


@pytest.fixture(autouse=True)
def _in_a_folder_with_a_config(tmp_path, monkeypatch):
  (tmp_path / "c.py").write_text(CONFIG)
  (tmp_path / "broken.py").write_text("def get_config(")
  (tmp_path / "file").touch()
  monkeypatch.chdir(tmp_path)
  monkeypatch.setenv("HOME", str(tmp_path / "home"))
  names = ("jax_compilation_cache_dir", "jax_enable_compilation_cache")
  before = {name: getattr(jax.config, name) for name in names}
  yield
  for name, value in before.items():
    jax.config.update(name, value)


def _main(*argv, run=lambda config, workdir: None):
  return launch.main(run, ["--config=c.py", "--workdir=run", *argv])


def _raise(error):
  raise error


def test_a_run_that_comes_to_nothing_leaves_nothing(tmp_path):
  def refuse(config, workdir):
    raise errors.DataError("no data")

  assert _main(run=refuse) == 3
  assert not (tmp_path / "run").exists()
  (tmp_path / "run").mkdir()
  assert _main(run=refuse) == 3
  assert (tmp_path / "run").exists()


def test_a_prepared_set_is_no_work_directory(tmp_path, capsys):
  (tmp_path / "run" / "1.0.0").mkdir(parents=True)
  (tmp_path / "run" / "1.0.0" / "index.json").touch()
  assert _main() == 2
  assert "--workdir: expected a run's own, got" in capsys.readouterr().err
  assert [path.name for path in (tmp_path / "run").iterdir()] == ["1.0.0"]


def test_run_gets_the_changed_config_and_an_absolute_work_directory(capsys, tmp_path):
  got = []
  argv = ["--config=c.py:limb", "--workdir=a/b", "--config.model.depth=5", "--config.data.fold=0/4"]
  argv += ["--config.sampling.mirror=false"]
  assert launch.main(lambda *args: got.extend(args), argv) == 0
  config, workdir = got
  assert (config.model.depth, config.inputs.stream, config.data.fold) == (5, "limb", "0/4")
  assert config.sampling.mirror is False
  assert config.is_locked
  assert workdir == tmp_path / "a" / "b"
  assert str(workdir) in capsys.readouterr().out
  assert json.loads((workdir / "config.json").read_text()) == config.to_dict()


def _check_one_line(capsys, message):
  err = capsys.readouterr().err
  assert err.startswith("jaxmg: error: ")
  assert err.count("\n") == 1
  assert re.search(message, err)


@pytest.mark.parametrize(
  ("error", "code", "message"),
  [
    (errors.ConfigError("batch", expected="2", got="3"), 2, r"batch: expected 2, got 3$"),
    (errors.DataError("x.csv"), 3, r"x\.csv$"),
    (
      errors.CheckpointError("does not fit:\n  a matches 0 rules\n  b is not filled"),
      4,
      "does not fit: a matches 0 rules; b is not filled$",
    ),
    (OSError(28, "No space left on device", "/run/x"), 5, r"/run/x: No space left on device$"),
    (errors.StorageError("full"), 5, "full$"),
    (errors.DivergedError("loss"), 6, "loss$"),
    (errors.Preempted("saved"), 75, "saved$"),
    (errors.Interrupted("saved"), 130, "saved$"),
    (KeyboardInterrupt(), 130, "interrupted$"),
  ],
)
def test_an_error_in_the_run_is_one_line_and_its_exit_code(error, code, message, capsys):
  assert _main(run=lambda *_: _raise(error)) == code
  _check_one_line(capsys, message)


def test_a_fault_of_our_own_is_a_traceback_and_code_1(capsys):
  assert _main(run=lambda *_: _raise(IndexError("bug"))) == 1
  assert "Traceback" in capsys.readouterr().err


def test_debug_adds_the_traceback(capsys):
  assert _main("--debug", run=lambda *_: _raise(errors.DataError("x"))) == 3
  err = capsys.readouterr().err
  assert "Traceback" in err
  assert err.endswith("jaxmg: error: x\n")


def test_late_writes_of_a_failed_save_are_not_printed(monkeypatch):
  printed = []
  monkeypatch.setattr(sys, "unraisablehook", printed.append)
  for _ in range(2):
    assert _main() == 0
  closed = "Event loop is closed"
  for error, of in (
    (RuntimeError(closed), None),
    (RuntimeError("something else"), None),
    (ValueError(closed), None),
    (RuntimeError(closed), printed.append),
  ):
    sys.unraisablehook(types.SimpleNamespace(exc_value=error, object=of))
  assert [str(one.exc_value) for one in printed] == ["something else", closed, closed]


def test_help_lists_the_flags(capsys):
  with pytest.raises(SystemExit) as caught:
    launch.main(lambda *_: None, ["--help"])
  assert caught.value.code == 0
  assert "--workdir" in capsys.readouterr().out


def test_help_with_a_config_lists_its_settings(capsys):
  with pytest.raises(SystemExit) as stop:
    launch.main(lambda *_: None, ["--config=c.py:limb", "--help"])
  assert stop.value.code == 0
  lines = capsys.readouterr().out.splitlines()
  assert lines[lines.index("c.py:limb:") + 1 :].count("  --config.inputs.stream=limb") == 1


def test_help_takes_a_config_by_position(capsys):
  with pytest.raises(SystemExit):
    launch.main(lambda *_: None, ["c.py:limb", "--help"])
  assert capsys.readouterr().out.count("  --config.inputs.stream=limb\n") == 1


@pytest.mark.parametrize("config", ["c.py:limb", "--config=c.py:limb"])
def test_a_run_lives_by_the_name_of_its_config(config, tmp_path, capsys):
  got = []
  assert launch.main(lambda *args: got.extend(args), [config, "--config.model.depth=5"]) == 0
  assert got[0].inputs.stream == "limb"
  assert got[1] == tmp_path / "runs" / "c-limb"
  assert f"work directory: {got[1]}\n" in capsys.readouterr().out
  (got[1] / "checkpoints" / "10").mkdir(parents=True)
  assert launch.main(lambda *args: None, [config]) == 2
  _check_one_line(capsys, "holds a run with another config: model.depth 5 -> 3")


@pytest.mark.parametrize("more", ["--config=c.py", "c.py:limb"])
def test_a_config_is_given_once(more, capsys):
  assert launch.main(lambda *_: None, ["c.py", "--workdir=run", more]) == 2
  _check_one_line(capsys, r"CONFIG: expected one, got c\.py")


def test_a_number_with_a_unit_is_refused_with_the_number(capsys):
  def define(values):
    flags.DEFINE_float("window", None, "Seconds.", flag_values=values)

  assert launch.command(lambda values: None, define, ["--window=2.5s"]) == 2
  _check_one_line(capsys, r"--window: expected a number, got 2.5s \(without .*: --window=2.5\)$")


def test_a_run_that_is_not_there_is_answered_with_one_beside_it(run, tmp_path):
  shutil.copytree(run, tmp_path / "runs" / "first")
  for name in ("first", "frst", "runs/frist", "runs/first2"):
    with pytest.raises(errors.CheckpointError) as caught:
      recipe.load(name)
    assert "(did you mean runs/first?)" in str(caught.value)


def test_the_same_command_in_the_same_work_directory_goes_on():
  assert [_main("--config.model.depth=5") for _ in range(2)] == [0, 0]


def test_before_the_first_checkpoint_a_setting_may_be_corrected():
  assert _main() == 0
  assert _main("--config.model.depth=5") == 0
  assert json.loads(pathlib.Path("run/config.json").read_text())["model"]["depth"] == 5


def test_another_config_in_the_same_work_directory_is_refused_by_its_keys(capsys):
  assert _main() == 0
  os.makedirs("run/checkpoints/10")
  before = pathlib.Path("run/config.json").read_text()
  capsys.readouterr()
  assert _main("--config.model.depth=5", "--config.data.fold=0/4") == 2
  _check_one_line(capsys, r"data\.fold None -> '0/4', model\.depth 3 -> 5 \(")
  assert pathlib.Path("run/config.json").read_text() == before


def test_more_epochs_in_the_same_work_directory_go_on():
  assert _main() == 0
  assert _main("--config.schedule.epochs=30") == 0
  assert json.loads(pathlib.Path("run/config.json").read_text())["schedule"]["epochs"] == 30


def test_auto_is_settled_when_a_run_begins_and_kept_elsewhere(monkeypatch, capsys):
  path = pathlib.Path("c.py")
  path.write_text(path.read_text().replace("batch_size=32", 'batch_size=32, dtype="auto"'))
  seen = []

  def run(config, workdir):
    seen.append((config.train.dtype, json.loads((workdir / "config.json").read_text())["train"]))

  def here(dtype):
    monkeypatch.setattr(backend.precision, "fastest", lambda *_, **__: dtype)

  here("bfloat16")
  assert _main(run=run) == 0
  assert "train.dtype: bfloat16, chosen for this machine\n" in capsys.readouterr().out
  here("float32")
  assert _main(run=run) == 0  # before the first checkpoint nothing is lost by a change
  os.makedirs("run/checkpoints/10")
  here("bfloat16")
  assert _main(run=run) == 0
  assert "train.dtype: float32, as the run began\n" in capsys.readouterr().out
  assert _main("--config.train.dtype=bfloat16") == 2
  _check_one_line(capsys, r"train\.dtype 'float32' -> 'bfloat16'")
  dtypes = ["bfloat16", "float32", "float32"]
  assert seen == [(name, {"batch_size": 32, "dtype": name}) for name in dtypes]


def test_a_damaged_config_in_the_work_directory_is_refused(capsys):
  os.makedirs("run/checkpoints/10")
  pathlib.Path("run/config.json").write_text("{")
  assert _main() == 2
  _check_one_line(capsys, r"run/config\.json: .*take another --workdir\)")


def test_a_second_run_in_the_work_directory_is_refused_and_names_the_holder(capsys):
  assert _main(run=lambda *_: _main() == 7 or pytest.fail("ran")) == 0
  _check_one_line(capsys, rf"is in use by pid {os.getpid()} on \S+ since \d{{4}}-")
  assert _main() == 0


def test_the_lock_of_a_killed_process_is_free():
  os.mkdir("run")
  code = (
    "import fcntl, time; lock = open('run/lock', 'w'); fcntl.flock(lock, fcntl.LOCK_EX);"
    "print('locked', flush=True); time.sleep(60)"
  )
  child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
  with child:
    assert child.stdout.readline() == b"locked\n"
    assert _main() == 7
    child.kill()
  assert _main() == 0


def _child(code, *argv, **pipes):
  environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"}
  return subprocess.Popen([sys.executable, "-c", code, *argv], env=environment, **pipes)


def test_of_two_processes_that_race_for_a_work_directory_one_is_refused():
  code = (
    "import os, sys; from experiments import launch\n"
    "answers, sys.stdout = sys.stdout, open(os.devnull, 'w')\n"
    "def answer(text):\n"
    "  print(text, file=answers, flush=True)\n"
    "def run(config, workdir):\n"
    "  answer('in')\n"
    "  sys.stdin.readline()\n"
    "for line in iter(sys.stdin.readline, ''):\n"
    "  answer(launch.main(run, sys.argv[1:]))"
  )
  pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
  argv = [code, "--config=c.py", "--workdir=run"]
  with _child(*argv, **pipes) as a, _child(*argv, **pipes) as b:
    for _ in range(20):
      for child in (a, b):
        print("go", file=child.stdin, flush=True)
      answers = {child.stdout.readline(): child for child in (a, b)}
      assert sorted(answers) == ["7\n", "in\n"]
      print("out", file=answers["in\n"].stdin, flush=True)
      assert answers["in\n"].stdout.readline() == "0\n"
    for child in (a, b):
      child.stdin.close()


def test_a_reader_that_has_seen_enough_ends_the_process_in_silence():
  code = (
    "from experiments import launch\n"
    "launch.main(lambda config, workdir: [print(i) for i in range(10**6)])"
  )
  pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
  with _child(code, "--config=c.py", "--workdir=run", **pipes) as child:
    child.stdout.readline()
    child.stdout.close()
    assert child.stderr.read() == b""
    assert child.wait(60) == 128 + signal.SIGPIPE


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_sets_the_stop_reason_for_this_run_only(name):
  reasons = []

  def run(config, workdir):
    reasons.append(signals.stop_reason())
    os.kill(os.getpid(), getattr(signal, name))
    reasons.append(signals.stop_reason())

  handler = signal.getsignal(signal.SIGINT)
  assert _main(run=run) == 0
  assert _main(run=run) == 0
  assert reasons == [None, name] * 2
  assert signal.getsignal(signal.SIGINT) is handler


def test_the_second_interrupt_ends_the_process_while_c_code_runs():
  code = (
    "import hashlib; from experiments import launch\n"
    "def run(config, workdir):\n"
    "  print('running', flush=True)\n"
    "  hashlib.pbkdf2_hmac('sha256', b'', b'', 10**8)\n"
    "launch.main(run)"
  )
  pipes = dict(stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
  with _child(code, "--config=c.py", "--workdir=run", **pipes) as child:
    assert any(line == b"running\n" for line in child.stdout)
    child.send_signal(signal.SIGINT)
    assert any(b"SIGINT: saving" in line for line in child.stdout)
    child.send_signal(signal.SIGINT)
    assert child.wait(20) == 130


@pytest.mark.parametrize("platform", ["nonsense", "cuda"])
def test_a_platform_that_is_absent_is_one_line(platform):
  code = "from experiments import launch; launch.main(lambda *_: None)"
  argv = [sys.executable, "-c", code, "--config=c.py", "--workdir=run"]
  environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": platform}
  environment |= {"CUDA_VISIBLE_DEVICES": ""}
  done = subprocess.run(argv, capture_output=True, text=True, env=environment)
  assert done.returncode == 2
  assert re.fullmatch(rf"jaxmg: error: JAX cannot start .*'{platform}'.*\n", done.stderr)
  assert not os.path.exists("run")


def test_a_command_with_plain_flags_shares_the_error_handling(capsys):
  def define(values):
    flags.DEFINE_string("run", None, "Run directory.", required=True, flag_values=values)
    flags.DEFINE_multi_string("input", [], "File.", flag_values=values)

  got = []
  argv = ["--run=r", "--input=a", "--input=b"]
  assert launch.command(lambda values: got.extend([values.run, *values.input]), define, argv) == 0
  assert got == ["r", "a", "b"]
  assert launch.command(lambda values: _raise(errors.DataError("x")), define, argv) == 3
  capsys.readouterr()
  assert launch.command(lambda values: None, define, []) == 2
  _check_one_line(capsys, "--run is required$")
  assert launch.main(lambda *_: None, []) == 2
  _check_one_line(capsys, r"CONFIG\[:ARGUMENT\] is required \(the name of one of ours, ")


def test_a_command_may_take_arguments_that_are_no_flags(capsys):
  def define(values):
    flags.DEFINE_string("out", None, "File.", flag_values=values)

  def command(*argv, **options):
    return launch.command(
      lambda values, *files: got.append((values.out, files)), define, argv, **options
    )

  got = []
  assert command("a", "--out=c", "b", positional="FILE") == 0
  assert got == [("c", ("a", "b"))]
  capsys.readouterr()
  assert command("--out=c", positional="FILE") == 2
  _check_one_line(capsys, "FILE is required")
  assert command("a") == 2
  _check_one_line(capsys, "unexpected argument 'a'")
  assert len(got) == 1


def test_the_compilation_cache_is_on_and_an_own_choice_is_kept(tmp_path):
  jax.config.update("jax_compilation_cache_dir", None)
  assert _main() == 0
  found = pathlib.Path(jax.config.jax_compilation_cache_dir)
  assert found.parent == tmp_path / "home/.cache/jaxmg"
  assert re.fullmatch(rf"jax-{re.escape(jax.__version__)}-[0-9a-f]{{8}}", found.name)
  assert found.is_dir()
  jax.config.update("jax_compilation_cache_dir", str(tmp_path / "own"))
  assert _main() == 0
  assert jax.config.jax_compilation_cache_dir == str(tmp_path / "own")


def test_another_cpu_has_another_compilation_cache(monkeypatch):
  found = set()
  for features in ("avx2", "avx512f"):
    monkeypatch.setattr(backend, "_cpu_features", lambda features=features: features)
    jax.config.update("jax_compilation_cache_dir", None)
    assert _main() == 0
    found.add(jax.config.jax_compilation_cache_dir)
  assert len(found) == 2


def test_the_compilation_cache_can_be_turned_off(monkeypatch):
  monkeypatch.setenv("JAX_ENABLE_COMPILATION_CACHE", "true")  # and back, when this is done
  assert _main("--nocompilation_cache") == 0
  assert not jax.config.jax_enable_compilation_cache
  assert os.environ["JAX_ENABLE_COMPILATION_CACHE"] == "false"


def test_a_compilation_cache_that_cannot_be_written_is_named_in_one_line(tmp_path, capsys):
  jax.config.update("jax_compilation_cache_dir", str(tmp_path / "file" / "cache"))
  assert _main() == 0
  assert not jax.config.jax_enable_compilation_cache
  expected = f"jaxmg: compiled programs are not kept: {tmp_path}/file/cache: Not a directory\n"
  assert capsys.readouterr().err == expected


def test_check_takes_a_config_without_the_ranged_settings():
  settings.check(ml_collections.ConfigDict({"other": {"epochs": -1}}))
