"""What PyTorch wrote, put together again from what is committed of it."""

import functools
import hashlib
import importlib.util
import json
import pathlib

import numpy as np
import pytest

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="session")
def seeded_state_dict():
  """The numbers of a golden by their names: `seeded_state_dict("posec3d_slowonly_r50")`."""
  spec = importlib.util.spec_from_file_location("seeded", GOLDEN / "seeded.py")
  seeded = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(seeded)

  @functools.cache
  def state_dict(name):
    shapes = json.loads((GOLDEN / f"{name}.json").read_text())["state_dict"].items()
    return {key: seeded.seeded_array(key, tuple(shape)) for key, shape in shapes}

  return state_dict


@pytest.fixture(scope="session")
def torch_file(seeded_state_dict, tmp_path_factory):
  """The path of PyTorch's file of a golden, "zip" or "legacy", equal to it in every byte."""
  folder = tmp_path_factory.mktemp("torch_files")
  parts = np.load(GOLDEN / "torch_files.npz")

  @functools.cache
  def make(name, form):
    rest = parts[f"{name}.{form}.rest"].tobytes()
    content = bytearray()
    for key, start in zip(
      parts[f"{name}.{form}.names"], parts[f"{name}.{form}.starts"], strict=True
    ):
      count = int(start) - len(content)
      content += rest[:count] + np.asarray(seeded_state_dict(name)[str(key)]).tobytes()
      rest = rest[count:]
    content += rest
    assert hashlib.sha256(content).hexdigest() == parts[f"{name}.{form}.sha256"]
    path = folder / f"{name}.{form}.pth"
    path.write_bytes(content)
    return path

  return make
