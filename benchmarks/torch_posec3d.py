"""The peer: PoseC3D in PyTorch, with the names of mmaction2's checkpoints (extra `peers`).

Axis letters: B batch, V joints or limbs, T frames, H rows, W columns.
"""

import copy
from collections.abc import Callable

import torch
from torch import nn
from torch.nn.utils import fusion

LAYOUTS = {"torch": torch.contiguous_format, "torch channels_last_3d": torch.channels_last_3d}


class ConvNorm(nn.Module):
  def __init__(self, inputs, features, kernel_size=(1, 1, 1), strides=(1, 1, 1), relu=True):
    super().__init__()
    padding = tuple(k // 2 for k in kernel_size)
    self.conv = nn.Conv3d(inputs, features, kernel_size, strides, padding, bias=False)
    self.bn = nn.BatchNorm3d(features)
    self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()

  def forward(self, x):
    return self.relu(self.bn(self.conv(x)))


class Bottleneck(nn.Module):
  def __init__(self, inputs, planes, strides, inflated):
    super().__init__()
    self.conv1 = ConvNorm(inputs, planes, (3, 1, 1) if inflated else (1, 1, 1))
    self.conv2 = ConvNorm(planes, planes, (1, 3, 3), strides)
    self.conv3 = ConvNorm(planes, 4 * planes, relu=False)
    self.downsample = nn.Identity()
    if inputs != 4 * planes or strides != (1, 1, 1):
      self.downsample = ConvNorm(inputs, 4 * planes, strides=strides, relu=False)

  def forward(self, x):
    y = self.conv3(self.conv2(self.conv1(x)))
    return torch.relu(y + self.downsample(x))


class PoseC3D(nn.Module):
  """float[B, V, T, H, W] -> logits float[B, K]; its options are those of our model."""

  def __init__(self, num_joints, num_classes, *, width, depths, dropout=0.5):
    super().__init__()
    self.backbone = nn.ModuleDict({"conv1": ConvNorm(num_joints, width, (1, 7, 7))})
    self.pool = nn.MaxPool3d((1, 3, 3), stride=1, padding=(0, 1, 1))
    inputs = width
    for i, depth in enumerate(depths):
      strides = (2 if i + 1 == len(depths) else 1, 2, 2)
      blocks = []
      for j in range(depth):
        strides = strides if j == 0 else (1, 1, 1)
        blocks.append(Bottleneck(inputs, width * 2**i, strides, inflated=i > 0))
        inputs = 4 * width * 2**i
      self.backbone[f"layer{i + 1}"] = nn.Sequential(*blocks)
    self.dropout = nn.Dropout(dropout)
    self.cls_head = nn.ModuleDict({"fc_cls": nn.Linear(inputs, num_classes)})

  def forward(self, x):
    stem, *layers = self.backbone.values()
    x = self.pool(stem(x))
    for layer in layers:
      x = layer(x)
    return self.cls_head["fc_cls"](self.dropout(x.mean((2, 3, 4))))


def make(num_joints: int, num_classes: int, *, seed: int = 0, **options) -> PoseC3D:
  """A network whose norms are those of a trained one: anything but the identity."""
  torch.manual_seed(seed)
  model = PoseC3D(num_joints, num_classes, **options)
  for module in model.modules():
    if isinstance(module, nn.BatchNorm3d):
      for tensor in (module.weight.data, module.running_var):
        tensor.uniform_(0.5, 1.5)
      for tensor in (module.bias.data, module.running_mean):
        tensor.normal_(std=0.1)
  return model


def fold(model: PoseC3D) -> PoseC3D:
  """A copy for inference with the norms folded into the convolutions."""
  model = copy.deepcopy(model).eval()
  for module in model.modules():
    if isinstance(module, ConvNorm):
      module.conv = fusion.fuse_conv_bn_eval(module.conv, module.bn)
      module.bn = nn.Identity()
  return model


def calls(model: PoseC3D, x, label, *, dtype: str) -> dict[tuple[str, str], Callable]:
  """(job, implementation) -> a call that returns when its work is done.

  `x` [B, V, T, H, W] and `label` [B] are numpy arrays; on a GPU if PyTorch sees one.
  """
  device = "cuda" if torch.cuda.is_available() else "cpu"
  wait = torch.cuda.synchronize if device == "cuda" else lambda: None
  autocast = torch.autocast(device, torch.bfloat16, enabled=dtype == "bfloat16")
  label = torch.from_numpy(label).long().to(device)
  found = {}

  def add(name, layout, compile):
    inputs = torch.from_numpy(x).to(device).contiguous(memory_format=layout)
    trained = copy.deepcopy(model).train().to(device, memory_format=layout)
    optimizer = torch.optim.SGD(trained.parameters(), lr=1e-3, momentum=0.9, weight_decay=3e-4)
    train = compile(trained)
    infer = compile(fold(model).to(device, memory_format=layout))

    def forward(network):
      with torch.no_grad(), autocast:
        network(inputs)
      wait()

    def step():
      optimizer.zero_grad(set_to_none=True)
      with autocast:
        loss = nn.functional.cross_entropy(train(inputs), label)
      loss.backward()
      optimizer.step()
      wait()

    found["forward", name] = lambda: forward(train)
    found["inference", name] = lambda: forward(infer)
    found["train step", name] = step

  for name, layout in LAYOUTS.items():
    add(name, layout, lambda network: network)
  add("torch.compile channels_last_3d", torch.channels_last_3d, torch.compile)
  return found
