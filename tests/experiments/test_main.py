"""The command `jaxmg`: which command it runs, of the process's arguments or a caller's."""

import importlib.metadata
import sys

import pytest

from experiments import __main__


@pytest.mark.parametrize(
  ("argv", "got", "meant"),
  [
    (None, "trian", "train"),
    (["evaluat", "--run=a"], "evaluat", "evaluate"),
    (["fuse_scores"], "fuse_scores", "fuse"),
    (["import_weights"], "import_weights", "import"),
  ],
)
def test_arguments_are_the_callers_or_those_of_the_process(argv, got, meant, monkeypatch, capsys):
  monkeypatch.setattr(sys, "argv", ["jaxmg", "trian"])
  assert __main__.main(argv) == 2
  error = capsys.readouterr().err
  assert error.startswith("jaxmg: error: jaxmg: expected prepare or doctor or ")
  assert error.endswith(f", got {got} (did you mean {meant}?)\n")


def test_the_version_is_told(capsys):
  assert __main__.main(["--version"]) == 0
  assert capsys.readouterr().out == f"jaxmg {importlib.metadata.version('jaxmg')}\n"


@pytest.mark.parametrize("argv", [[], ["--help"]])
def test_without_a_command_all_are_listed(argv, capsys):
  assert __main__.main(argv) == 0
  _, _, commands, *_ = capsys.readouterr().out.split("\n\n")
  assert [line.split()[0] for line in commands.splitlines()] == list(__main__.COMMANDS)
