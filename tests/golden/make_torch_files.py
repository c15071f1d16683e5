"""Writes the files of PyTorch that the tests read (torch 2.13.0, numpy 2.4).

  python tests/golden/make_torch_files.py

torch_files.npz holds what `torch.save` made of three state dicts of seeded numbers, as a zip
archive and in the form before it, without the numbers, which are a pure function of their names:
the bytes that are left, the names in their order, where each begins, and the SHA-256 of the whole
file. The others are whole: views, dtypes, and what training tools save beside the weights.
"""

import collections
import datetime
import hashlib
import json
import pathlib
import sys
import types

import numpy as np
import seeded
import torch

HERE = pathlib.Path(__file__).parent
STATE_DICTS = ("posec3d_slowonly_r50", "agcn_ntu25", "agcn_openpose18")


def state_dict(name):
  shapes = json.loads((HERE / f"{name}.json").read_text())["state_dict"].items()
  return collections.OrderedDict(
    (key, torch.from_numpy(np.array(seeded.seeded_array(key, tuple(shape)))))
    for key, shape in shapes
  )


def places(content, tensors, path, *, legacy):
  """Where the numbers of each tensor begin in a file; every tensor has its own storage."""
  if not legacy:
    reader = torch._C.PyTorchFileReader(str(path))
    return {name: reader.get_record_offset(f"data/{i}") for i, name in enumerate(tensors)}
  # At the end, in the order of the storages' keys, each behind its count in 8 bytes.
  order = sorted(tensors, key=lambda name: str(tensors[name].untyped_storage()._cdata))
  position = len(content) - sum(8 + tensor.nbytes for tensor in tensors.values())
  found = {}
  for name in order:
    found[name] = position + 8
    position += 8 + tensors[name].nbytes
  return found


def without_numbers(content, tensors, starts):
  rest, position = [], 0
  for name in sorted(starts, key=starts.get):
    assert content[starts[name] :].startswith(tensors[name].numpy().tobytes()), name
    rest.append(content[position : starts[name]])
    position = starts[name] + tensors[name].nbytes
  return b"".join([*rest, content[position:]])


def seeded_files():
  arrays = {}
  for name in STATE_DICTS:
    tensors = state_dict(name)
    for form in ("zip", "legacy"):
      path = pathlib.Path("weights.pth")
      torch.save(tensors, path, _use_new_zipfile_serialization=form == "zip")
      content = path.read_bytes()
      starts = places(content, tensors, path, legacy=form == "legacy")
      path.unlink()
      order = sorted(starts, key=starts.get)
      arrays |= {
        f"{name}.{form}.rest": np.frombuffer(without_numbers(content, tensors, starts), np.uint8),
        f"{name}.{form}.names": np.array(order),
        f"{name}.{form}.starts": np.array([starts[x] for x in order]),
        f"{name}.{form}.sha256": np.array(hashlib.sha256(content).hexdigest()),
      }
  np.savez_compressed(HERE / "torch_files.npz", **arrays)


def views():
  """Tensors that are no plain blocks; the tests have the same by numpy."""
  numbers = torch.arange(24, dtype=torch.float32).reshape(2, 3, 4)
  return collections.OrderedDict(
    whole=numbers,
    transposed=numbers.permute(2, 0, 1),
    offset=numbers[1, 1:, ::2],
    scalar=numbers[1, 2, 3],
    empty=torch.zeros(0, 5),
    parameter=torch.nn.Parameter(torch.arange(3, dtype=torch.float64)),
    half=torch.arange(4, dtype=torch.float16) / 4,
    bfloat16=torch.arange(4, dtype=torch.bfloat16) * 1.5,
    int64=torch.tensor(-7),
    int32=torch.arange(3, dtype=torch.int32),
    int16=torch.arange(3, dtype=torch.int16),
    int8=torch.arange(-1, 2, dtype=torch.int8),
    uint8=torch.arange(253, 256, dtype=torch.uint8),
    boolean=torch.tensor([True, False]),
  )


def training(module):
  """As mmengine saves in training: a class of its own, numpy scalars, dates, an optimizer."""
  torch.manual_seed(0)
  layer = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
  optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
  layer(torch.ones(4, 3)).sum().backward()
  optimizer.step()
  history = module.HistoryBuffer()
  history.values = np.arange(3.0)
  return {
    "meta": {
      "epoch": 24,
      "time": datetime.datetime(2024, 1, 1),
      "best": np.float64(0.5),
      "cfg": "model = dict(type='Recognizer3D')",
      "random_state": np.random.RandomState(0),
    },
    "state_dict": layer.state_dict(),
    "message_hub": {"log_scalars": {"train/loss": history}},
    "optimizer": optimizer.state_dict(),
    "param_schedulers": [],
  }


def main():
  seeded_files()
  module = types.ModuleType("mmengine.logging.history_buffer")
  module.HistoryBuffer = type("HistoryBuffer", (), {"__module__": module.__name__})
  for name in ("mmengine", "mmengine.logging"):
    sys.modules[name] = types.ModuleType(name)
  sys.modules[module.__name__] = module
  for name, tree in (("views", views()), ("training", training(module))):
    torch.save(tree, HERE / f"torch_{name}.pth")
    torch.save(tree, HERE / f"torch_{name}_legacy.pth", _use_new_zipfile_serialization=False)


if __name__ == "__main__":
  main()
