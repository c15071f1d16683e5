"""The command `jaxmg` of an installed package; in a checkout, `python -m experiments` is the same.

jaxmg                   this, and what is there: models, configs, layouts, prepared sets, runs
jaxmg COMMAND ...
jaxmg COMMAND --help
jaxmg --version
"""

import ast
import importlib.util
import pathlib
import runpy
import sys
from collections.abc import Sequence

import jaxmg
from jaxmg import errors

from . import overview

# In the order in which they are used.
COMMANDS = {
  "prepare": "datasets.prepare",
  "doctor": "experiments.doctor",
  "train": "experiments.train",
  "evaluate": "experiments.evaluate",
  "predict": "experiments.predict",
  "faces": "experiments.faces",
  "extract_tokens": "experiments.extract_tokens",
  "fuse": "experiments.fuse_scores",
  "report": "experiments.report",
  "submit": "experiments.submit",
  "export": "experiments.export",
  "import": "experiments.import_weights",
  "ablate": "experiments.ablate",
}


def main(argv: Sequence[str] | None = None) -> int:
  """Runs a command as `python -m` would; without one, lists them all."""
  name, *rest = (sys.argv[1:] if argv is None else argv) or ["--help"]

  def body():
    if name in ("-h", "--help", "help"):
      print(__doc__)
      for command in COMMANDS:
        print(f"  {command:<16}{summary(command)}")
      print(*overview.lines(), sep="\n")
      return
    if name == "--version":
      print(f"jaxmg {jaxmg.__version__}")
      return
    if name not in COMMANDS:
      raise errors.ConfigError(errors.unknown("jaxmg", COMMANDS, name))
    sys.argv = [f"jaxmg {name}", *rest]
    runpy.run_module(module(name), run_name="__main__", alter_sys=True)

  return errors.exit_code(body, debug="--debug" in rest)


def module(command: str) -> str:
  """Where a command is: in a wheel, or in an installed checkout, below jaxmg."""
  return __package__.removesuffix("experiments") + COMMANDS[command]


def summary(command: str) -> str:
  """The first line of a command's help, for which nothing that it needs is imported."""
  path = pathlib.Path(importlib.util.find_spec(module(command)).origin)
  return ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))).partition("\n")[0]


if __name__ == "__main__":
  sys.exit(main())
