"""The peer: 2s-AGCN in PyTorch, with the names of the original's checkpoints (extra `peers`).

Axis letters: B batch, M persons, V joints, T frames, C channels; N the persons of all clips.
"""

import copy

import torch
from torch import nn
from torch.nn.utils import fusion


class ConvNorm(nn.Module):
  def __init__(self, inputs, features, size, stride):
    super().__init__()
    self.conv = nn.Conv2d(inputs, features, (size, 1), (stride, 1), (size // 2, 0))
    self.bn = nn.BatchNorm2d(features)

  def forward(self, x):
    return self.bn(self.conv(x))


class GraphConv(nn.Module):
  def __init__(self, inputs, features, edges):
    super().__init__()
    self.register_buffer("edges", edges, persistent=False)
    self.PA = nn.Parameter(torch.full_like(edges, 1e-6))
    self.conv_a, self.conv_b, self.conv_d = (
      nn.ModuleList(nn.Conv2d(inputs, size, 1) for _ in edges)
      for size in (features // 4, features // 4, features)
    )
    self.bn = nn.BatchNorm2d(features)
    self.down = nn.Identity()
    if inputs != features:
      self.down = nn.Sequential(nn.Conv2d(inputs, features, 1), nn.BatchNorm2d(features))

  def forward(self, x):  # N C T V
    y = 0
    rows = x.flatten(1, 2)
    for edges, theta, phi, value in zip(
      self.edges + self.PA, self.conv_a, self.conv_b, self.conv_d, strict=True
    ):
      a, b = theta(x).flatten(1, 2), phi(x).flatten(1, 2)
      graph = edges + torch.softmax(a.mT @ b / a.shape[1], 1)
      y = y + value((rows @ graph).view(x.shape))
    return torch.relu(self.bn(y) + self.down(x))


class Block(nn.Module):
  def __init__(self, inputs, features, stride, edges, *, residual):
    super().__init__()
    self.gcn1 = GraphConv(inputs, features, edges)
    self.tcn1 = ConvNorm(features, features, 9, stride)
    self.residual = nn.Identity() if residual else None
    if residual and inputs != features:
      self.residual = ConvNorm(inputs, features, 1, stride)

  def forward(self, x):
    y = self.tcn1(self.gcn1(x))
    return torch.relu(y if self.residual is None else y + self.residual(x))


class AGCN(nn.Module):
  """float[B, C, T, V, M] -> logits float[B, K]; its options are those of our model."""

  def __init__(self, edges, num_persons, num_classes, *, width, depths, channels=3):
    super().__init__()
    edges = torch.as_tensor(edges)
    self.data_bn = nn.BatchNorm1d(num_persons * edges.shape[-1] * channels)
    self.blocks = []
    inputs = channels
    for i, depth in enumerate(depths):
      for j in range(depth):
        stride = 2 if i > 0 and j == 0 else 1
        name = f"l{len(self.blocks) + 1}"
        block = Block(inputs, width * 2**i, stride, edges, residual=len(self.blocks) > 0)
        self.add_module(name, block)
        self.blocks.append(name)
        inputs = width * 2**i
    self.fc = nn.Linear(inputs, num_classes)
    self.layout = torch.contiguous_format

  def forward(self, x):
    b, c, t, v, m = x.shape
    x = self.data_bn(x.permute(0, 4, 3, 1, 2).reshape(b, m * v * c, t))
    x = x.view(b * m, v, c, t).permute(0, 2, 3, 1).contiguous(memory_format=self.layout)
    for name in self.blocks:
      x = getattr(self, name)(x)
    return self.fc(x.mean((2, 3)).view(b, m, -1).mean(1))


def make(edges, num_persons: int, num_classes: int, *, seed: int = 0, **options) -> AGCN:
  """A network whose norms and graphs are those of a trained one: anything but the identity."""
  torch.manual_seed(seed)
  model = AGCN(edges, num_persons, num_classes, **options)
  for module in model.modules():
    if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
      for tensor in (module.weight.data, module.running_var):
        tensor.uniform_(0.5, 1.5)
      for tensor in (module.bias.data, module.running_mean):
        tensor.normal_(std=0.1)
    elif isinstance(module, GraphConv):
      module.PA.data.normal_(std=0.1)
  return model


def fold(model: AGCN) -> AGCN:
  """A copy for inference with the norms folded into the convolutions, where there is just one."""
  model = copy.deepcopy(model).eval()
  for module in model.modules():
    if isinstance(module, ConvNorm):
      module.conv = fusion.fuse_conv_bn_eval(module.conv, module.bn)
      module.bn = nn.Identity()
    elif isinstance(module, GraphConv) and isinstance(module.down, nn.Sequential):
      module.down = fusion.fuse_conv_bn_eval(*module.down)
  return model
