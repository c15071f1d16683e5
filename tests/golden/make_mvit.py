"""Makes mvit_gradients.npz and mvit_gradients.json: torchvision's gradients of a tiny MViTv2.

Run in this folder with torch, torchvision and numpy alone. In float64, with dropout and stochastic
depth off; the network has the sizes of our variant "tiny", for clips of 4 x 48 x 32 and 2 channels.
The JSON lists its parameters and their shapes; the weights are those of `seeded.py`.
"""

import json

import numpy as np
import seeded
import torch
from torch import nn
from torchvision.models.video import mvit

WIDTH, DEPTHS, KV_STRIDE, CLASSES = 8, (1, 1, 2), 4, 5
SHAPE = (2, 2, 4, 48, 32)  # B C T H W


def blocks():
  inputs = WIDTH
  for stage, depth in enumerate(DEPTHS):
    for i in range(depth):
      stride, kv_stride = 2 if stage and i == 0 else 1, max(KV_STRIDE >> stage, 1)
      width = WIDTH * 2**stage
      yield mvit.MSBlockConfig(
        num_heads=2**stage,
        input_channels=inputs,
        output_channels=width,
        kernel_q=[3, 3, 3],
        kernel_kv=[3, 3, 3],
        stride_q=[1, stride, stride],
        stride_kv=[1, kv_stride, kv_stride],
      )
      inputs = width


def main():
  model = mvit.MViT(
    spatial_size=SHAPE[3:],
    temporal_size=SHAPE[2],
    block_setting=list(blocks()),
    residual_pool=True,
    residual_with_cls_embed=False,
    rel_pos_embed=True,
    proj_after_attn=True,
    dropout=0.0,
    stochastic_depth_prob=0.0,
    num_classes=CLASSES,
  )
  model.conv_proj = nn.Conv3d(SHAPE[1], WIDTH, (3, 7, 7), (2, 4, 4), (1, 3, 3))
  model = model.double().train()
  for name, tensor in model.state_dict().items():
    tensor.copy_(torch.as_tensor(seeded.seeded_array(name, tuple(tensor.shape))))
  rng = np.random.default_rng(0)
  x = rng.standard_normal(SHAPE).astype(np.float32)
  labels = np.array([3, 1], np.int32)
  logits = model(torch.as_tensor(x, dtype=torch.float64))
  loss = nn.functional.cross_entropy(logits, torch.as_tensor(labels).long())
  loss.backward()
  arrays = {"x": x, "label": labels, "logits": logits.detach().numpy(), "loss": loss.item()}
  arrays |= {f"gradient.{name}": p.grad.numpy() for name, p in model.named_parameters()}
  arrays = {k: np.asarray(v, None if k == "label" else np.float32) for k, v in arrays.items()}
  np.savez_compressed("mvit_gradients.npz", **arrays)
  shapes = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
  with open("mvit_gradients.json", "w") as file:
    json.dump({"state_dict": shapes}, file, indent=1)
    file.write("\n")
  print(f"loss {loss.item():.4f}, {sum(p.numel() for p in model.parameters())} parameters")


if __name__ == "__main__":
  main()
