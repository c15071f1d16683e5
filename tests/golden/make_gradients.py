"""Makes gradients.npz: PyTorch's gradients of the pooling, the rendering and the training step.

Run in this folder with torch and numpy alone. Everything is computed in float64. Weight decay and
clipping are stronger than a recipe's, so that both show in two steps.
"""

import numpy as np
import seeded
import torch
from torch import nn

LIMBS = ((0, 1), (1, 2), (2, 3))
SIGMA = 0.8


def render(points, size, kind, window):  # T M V 3 -> T H W C
  return torch.stack(
    [
      torch.stack([_person(person, size, kind, window) for person in frame]).amax(0)
      for frame in points
    ]
  )


def _person(joints, size, kind, window):
  pairs = LIMBS if kind == "limb" else [(joint, joint) for joint in range(len(joints))]
  return torch.stack([_segment(joints[a], joints[b], size, window) for a, b in pairs], -1)


def _segment(a, b, size, window):  # pixel by pixel, as slowly and plainly as possible
  short = bool((a[:2] - b[:2]).norm() < 1)
  score = torch.minimum(a[2], b[2])
  if window and score < 1e-4:
    return torch.zeros(size, dtype=a.dtype)
  if short and (window or a is b):
    b, score = a, a[2]
  low = [int(value) for value in torch.minimum(a, b)[:2] - 3 * SIGMA]
  high = [int(value) for value in torch.maximum(a, b)[:2] + 3 * SIGMA]
  rows = []
  for y in range(size[0]):
    row = []
    for x in range(size[1]):
      inside = low[0] <= x <= high[0] and low[1] <= y <= high[1]
      pixel = torch.tensor([x, y], dtype=a.dtype)
      value = torch.exp(-_squared_distance(pixel, a[:2], b[:2]) / (2 * SIGMA**2)) * score
      row.append(value if inside or not window else torch.zeros((), dtype=a.dtype))
    rows.append(torch.stack(row))
  return torch.stack(rows)


def _squared_distance(pixel, a, b):
  if a is b or torch.equal(a, b):
    return ((pixel - a) ** 2).sum()
  share = torch.dot(pixel - a, b - a) / ((b - a) ** 2).sum()
  if share <= 0:
    return ((pixel - a) ** 2).sum()
  if share >= 1:
    return ((pixel - b) ** 2).sum()
  return ((pixel - a - share * (b - a)) ** 2).sum()


class Layer(nn.Module):
  def __init__(self, inputs, outputs, kernel=(1, 1, 1), stride=(1, 1, 1)):
    super().__init__()
    padding = tuple(k // 2 for k in kernel)
    self.conv = nn.Conv3d(inputs, outputs, kernel, stride, padding, bias=False)
    self.bn = nn.BatchNorm3d(outputs)

  def forward(self, x):
    return self.bn(self.conv(x))


class Block(nn.Module):
  def __init__(self, inputs, planes, stride, reach):
    super().__init__()
    self.conv1 = Layer(inputs, planes, (reach, 1, 1))
    self.conv2 = Layer(planes, planes, (1, 3, 3), stride)
    self.conv3 = Layer(planes, 4 * planes)
    self.downsample = Layer(inputs, 4 * planes, stride=stride)

  def forward(self, x):
    y = self.conv2(self.conv1(x).relu()).relu()
    return (self.conv3(y) + self.downsample(x)).relu()


class SlowOnly(nn.Module):
  """SlowOnly with one block in a stage, under mmaction2's names."""

  def __init__(self, joints, width, classes):
    super().__init__()
    self.backbone, self.cls_head = nn.Module(), nn.Module()
    self.backbone.conv1 = Layer(joints, width, (1, 7, 7))
    self.backbone.layer1 = nn.Sequential(Block(width, width, (1, 2, 2), 1))
    self.backbone.layer2 = nn.Sequential(Block(4 * width, 2 * width, (1, 2, 2), 3))
    self.backbone.layer3 = nn.Sequential(Block(8 * width, 4 * width, (2, 2, 2), 3))
    self.cls_head.fc_cls = nn.Linear(16 * width, classes)

  def forward(self, x):
    x = self.backbone.conv1(x).relu()
    x = nn.functional.max_pool3d(x, (1, 3, 3), 1, (0, 1, 1))
    x = self.backbone.layer3(self.backbone.layer2(self.backbone.layer1(x)))
    return self.cls_head.fc_cls(x.mean((2, 3, 4)))


def pool(rng):
  x = rng.integers(0, 3, (2, 1, 9, 10)).astype(np.float64)
  x[1] = 0
  upstream = rng.normal(size=x.shape)
  tensor = torch.tensor(x, requires_grad=True)
  nn.functional.max_pool2d(tensor, 3, 1, 1).backward(torch.tensor(upstream))
  return {"x": x, "upstream": upstream, "gradient": tensor.grad.numpy()}


def some_points(rng, size, shape):
  points = rng.uniform([-1, -1, 0.3], [size[1], size[0], 1], (*shape, 3))
  points[0, :, 1, 2] = 0  # a missing joint
  points[0, -1, 3, :2] = points[0, -1, 2, :2] + 0.3  # a limb shorter than a pixel
  return points.astype(np.float32).astype(np.float64)


def rendering(rng, kind):
  size = (12, 14)
  points = some_points(rng, size, (2, 2, 4))
  upstream = rng.normal(size=(2, *size, len(LIMBS) if kind == "limb" else 4)).astype(np.float32)
  found = {"points": points, "upstream": upstream}
  for window in (True, False):
    tensor = torch.tensor(points, requires_grad=True)
    render(tensor, size, kind, window).backward(torch.tensor(upstream, dtype=torch.float64))
    found["windowed" if window else "smooth"] = tensor.grad.numpy()
  return found


def training(rng):
  points = np.stack([some_points(rng, (12, 12), (4, 1, 4)) for _ in range(3)])
  labels = np.array([4, 0, 2], np.int32)
  volume = torch.stack(
    [render(torch.tensor(clip), (12, 12), "joint", True) for clip in points]
  ).permute(0, 4, 1, 2, 3)
  model = SlowOnly(joints=4, width=4, classes=5).double().train()
  for name, tensor in model.state_dict().items():
    tensor.copy_(torch.as_tensor(seeded.seeded_array(name, tuple(tensor.shape))))
  parameters = dict(model.named_parameters())
  optimizer = torch.optim.SGD(parameters.values(), lr=0.1, momentum=0.9, weight_decay=0.01)
  found = {"keypoints": points, "label": labels, "loss": []}
  for step in range(2):  # momentum is seen from the second on
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(volume), torch.tensor(labels, dtype=torch.long))
    loss.backward()
    found["loss"].append(loss.item())
    if step == 0:
      found |= {f"gradient.{name}": p.grad.numpy().copy() for name, p in parameters.items()}
    norm = nn.utils.clip_grad_norm_(parameters.values(), 0.5)
    print(f"step {step}: loss {loss.item():.4f}, gradient norm {norm:.3f} before clipping")
    optimizer.step()
  return found | {f"after.{name}": p.detach().numpy() for name, p in parameters.items()}


def main():
  rng = np.random.default_rng(0)
  parts = {
    "pool": pool(rng),
    "joint": rendering(rng, "joint"),
    "limb": rendering(rng, "limb"),
    "step": training(rng),
  }
  arrays = {
    f"{part}.{name}": np.asarray(array, None if name == "label" else np.float32)
    for part, found in parts.items()
    for name, array in found.items()
  }
  np.savez_compressed("gradients.npz", **arrays)


if __name__ == "__main__":
  main()
