"""Makes mtcnn.npz and mtcnn.json: PyTorch's outputs of networks with the layers of MTCNN.

Run in this folder with torch and numpy alone. Names and sizes of the layers are those of
facenet-pytorch's pnet.pt, rnet.pt and onet.pt (2.6.0); the weights are those of `seeded.py`, salted
with the name of the network. The JSON lists the parameters and their shapes.
"""

import json

import numpy as np
import seeded
import torch
from torch.nn import functional

# Inputs of convolutions and of dense layers, outputs, size of the kernel, and of the pool.
NETS = {
  "pnet": [("conv1", 3, 10, 3, 2), ("conv2", 10, 16, 3, 0), ("conv3", 16, 32, 3, 0)],
  "rnet": [("conv1", 3, 28, 3, 3), ("conv2", 28, 48, 3, 3), ("conv3", 48, 64, 2, 0)],
  "onet": [
    *(("conv1", 3, 32, 3, 3), ("conv2", 32, 64, 3, 3), ("conv3", 64, 64, 3, 2)),
    ("conv4", 64, 128, 2, 0),
  ],
}
DENSE = {"rnet": ("dense4", 576, 128), "onet": ("dense5", 1152, 256)}
HEADS = {"pnet": ("conv4", 32, (2, 4)), "rnet": ("dense5", 128, (2, 4))}
HEADS["onet"] = ("dense6", 256, (2, 4, 10))
INPUTS = {"pnet": (2, 3, 31, 40), "rnet": (3, 3, 24, 24), "onet": (3, 3, 48, 48)}


def forward(net, x, shapes):
  """The outputs of a network; what it takes for weights is noted in `shapes`."""

  def weight(name, *shape):
    shapes[name] = list(shape)
    return torch.as_tensor(seeded.seeded_array(name, shape, net))

  for name, inputs, outputs, size, pool in NETS[net]:
    kernel = weight(f"{name}.weight", outputs, inputs, size, size)
    x = functional.conv2d(x, kernel, weight(f"{name}.bias", outputs))
    x = functional.prelu(x, weight(f"prelu{name[-1]}.weight", outputs))
    x = functional.max_pool2d(x, pool, 2, ceil_mode=True) if pool else x
  if net in DENSE:
    name, inputs, outputs = DENSE[net]
    x = x.transpose(1, 3).flatten(1)
    x = functional.linear(
      x, weight(f"{name}.weight", outputs, inputs), weight(f"{name}.bias", outputs)
    )
    x = functional.prelu(x, weight(f"prelu{name[-1]}.weight", outputs))
  name, inputs, sizes = HEADS[net]
  for k, outputs in enumerate(sizes, 1):
    last = (1, 1) * (net == "pnet")
    kernel = weight(f"{name}_{k}.weight", outputs, inputs, *last)
    bias = weight(f"{name}_{k}.bias", outputs)
    yield (functional.conv2d if last else functional.linear)(x, kernel, bias).numpy()


def main():
  arrays, shapes = {}, {}
  for net, shape in INPUTS.items():
    x = seeded.rng(net).uniform(-1, 1, shape).astype(np.float32)
    outputs = forward(net, torch.as_tensor(x), shapes.setdefault(net, {}))
    for name, output in zip(("logits", "box", "landmarks"), outputs, strict=False):
      arrays[f"{net}.{name}"] = output
  np.savez_compressed("mtcnn.npz", **arrays)
  with open("mtcnn.json", "w") as file:
    json.dump({"inputs": INPUTS, "state_dicts": shapes}, file, indent=1)
    file.write("\n")
  print({name: array.shape for name, array in arrays.items()})


if __name__ == "__main__":
  main()
