"""The peer: PoseC3D in PyTorch, with the names of mmaction2's checkpoints (extra `peers`).

Axis letters: B batch, V joints or limbs, T frames, H rows, W columns.
"""

import copy

import torch
from torch import nn
from torch.nn.utils import fusion


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
