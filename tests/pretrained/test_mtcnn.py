"""MTCNN's networks give what PyTorch gives, from the three files of its weights."""

import functools
import importlib.util
import json
import pathlib
import struct

import jax
import numpy as np
import pytest

from jaxmg import errors
from jaxmg.models import mtcnn
from jaxmg.pretrained import convert
from jaxmg.pretrained import mtcnn as table

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
SHAPES = json.loads((GOLDEN / "mtcnn.json").read_text())
PARAMETERS = {"pnet": 6_632, "rnet": 100_178, "onet": 389_040}


@functools.cache
def seeded():
  spec = importlib.util.spec_from_file_location("seeded", GOLDEN / "seeded.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


def state_dict(net):
  shapes = SHAPES["state_dicts"][net].items()
  return {name: seeded().seeded_array(name, tuple(shape), net) for name, shape in shapes}


def save(path, tensors):
  """As .safetensors, which is read whatever a file is called."""
  header, at = {}, 0
  for name, tensor in tensors.items():
    end = at + tensor.nbytes
    header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [at, end]}
    at = end
  text = json.dumps(header).encode()
  content = b"".join(tensor.tobytes() for tensor in tensors.values())
  path.write_bytes(struct.pack("<Q", len(text)) + text + content)


@pytest.mark.parametrize("net", mtcnn.NETS)
def test_outputs_are_those_of_pytorch(net):
  variables = convert.convert(state_dict(net), mtcnn.abstract(net), table.RULES)
  assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == PARAMETERS[net]
  x = seeded().rng(net).uniform(-1, 1, SHAPES["inputs"][net]).astype(np.float32)
  logits, out = jax.jit(mtcnn.nets()[net].apply)(variables, np.einsum("bchw->bhwc", x))
  golden = np.load(GOLDEN / "mtcnn.npz")
  for name, output in {"logits": logits, **out}.items():
    expected = golden[f"{net}.{name}"]
    expected = np.moveaxis(expected, 1, -1)
    np.testing.assert_allclose(output, expected, atol=1e-4 * np.abs(expected).max())


def test_three_files_of_a_folder_are_read(tmp_path):
  for net in mtcnn.NETS:
    save(tmp_path / f"{net}.pt", state_dict(net))
  found = table.read(tmp_path)
  assert found.keys() == {"pnet", "rnet", "onet"}
  (tmp_path / "rnet.pt").write_bytes((tmp_path / "pnet.pt").read_bytes())
  with pytest.raises(errors.CheckpointError, match=r"rnet\.pt: checkpoint does not fit the model"):
    table.read(tmp_path)
  (tmp_path / "onet.pt").unlink()
  (tmp_path / "rnet.pt").unlink()
  expected = r"expected pnet\.pt, rnet\.pt and onet\.pt, got no rnet\.pt \(they are in the wheel"
  with pytest.raises(errors.CheckpointError, match=expected):
    table.read(tmp_path)
