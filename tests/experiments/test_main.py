"""The command `jaxmg`: which command it runs, of the process's arguments or a caller's."""

import sys

import pytest

from experiments import __main__


@pytest.mark.parametrize(("argv", "got"), [(None, "trian"), (["evaluat", "--run=a"], "evaluat")])
def test_arguments_are_the_callers_or_those_of_the_process(argv, got, monkeypatch, capsys):
  monkeypatch.setattr(sys, "argv", ["jaxmg", "trian"])
  assert __main__.main(argv) == 2
  error = capsys.readouterr().err
  assert error.startswith("jaxmg: error: jaxmg: expected prepare or doctor or ")
  assert error.endswith(f", got {got}\n")


@pytest.mark.parametrize("argv", [[], ["--help"]])
def test_without_a_command_all_are_listed(argv, capsys):
  assert __main__.main(argv) == 0
  listed = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line[:2] == "  "]
  assert listed == list(__main__.COMMANDS)
