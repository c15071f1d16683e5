import importlib.util
import pathlib

import pytest


@pytest.fixture(scope="session")
def prepare():
  """datasets/prepare.py, which is a script and no part of a package."""
  path = pathlib.Path(__file__).parents[2] / "datasets" / "prepare.py"
  spec = importlib.util.spec_from_file_location("prepare", path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module
