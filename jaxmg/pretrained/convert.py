"""The engine: from named arrays to a parameter tree, by a table of renames, strict both ways.

model = models.MODELS["posec3d"](num_classes=60, variant="slowonly-r50")
abstract = jax.eval_shape(model.init, key, heatmaps)
variables = convert.convert(state_dict, abstract, posec3d.RULES, ignore=posec3d.IGNORE)
"""

import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from jaxmg import errors

Shape = tuple[int, ...]
_SHOWN = 10


def same(array: np.ndarray, shape: Shape) -> np.ndarray:
  return array


def linear(array: np.ndarray, shape: Shape) -> np.ndarray:
  return np.einsum("oi->io", array)


def conv3d(array: np.ndarray, shape: Shape) -> np.ndarray:
  return np.einsum("oithw->thwio", array)


@dataclasses.dataclass(frozen=True)
class Rule:
  r"""Where a source tensor goes: `pattern` matches its whole name.

  `target` is a path such as "params/stem/conv/kernel" and may use the pattern's groups (`\1`);
  `layout(array, shape)` brings the tensor's axes into our order, and may make the shape of our leaf
  of it: a table of positions is resized so. It raises ValueError for a tensor of another rank.
  """

  pattern: str
  target: str
  layout: Callable[[np.ndarray, Shape], np.ndarray] = same


def convert(
  tensors: Mapping[str, np.ndarray],
  abstract: Mapping[str, Any],
  rules: Sequence[Rule],
  *,
  ignore: Sequence[str] = (),
) -> dict[str, Any]:
  """Fills a model's variables from another framework's tensors.

  `abstract` is the tree to fill, with shapes and dtypes: `jax.eval_shape(model.init, ...)`. Every
  tensor must match exactly one rule or pattern of `ignore`, every leaf must be filled exactly once,
  and shapes must agree after the layout. Numbers must be floating point, and finite in the leaf's
  dtype, to which they are cast; a kernel is not all zero, and no variance ("var") is negative.

  Raises: `errors.CheckpointError` (a ValueError) with the first ten problems and their number.
  """
  wanted = traverse_util.flatten_dict(abstract, sep="/")
  rules = (*rules, *(Rule(pattern, "") for pattern in ignore))
  filled: dict[str, np.ndarray | None] = {}
  problems = []
  for name, tensor in tensors.items():
    matches = [(rule, match) for rule in rules if (match := re.fullmatch(rule.pattern, name))]
    if len(matches) != 1:
      problems.append(f"{name} matches {len(matches)} rules")
      continue
    rule, match = matches[0]
    if not rule.target:
      continue
    path = match.expand(rule.target)
    if path not in wanted:
      problems.append(f"{name}: the model has no {path}")
    elif path in filled:
      problems.append(f"{name}: {path} is filled already")
    else:
      filled[path] = None  # whatever is wrong with the tensor is said once
      try:
        filled[path] = _fit(tensor, wanted[path], rule.layout)
        if path.endswith("/var") and (filled[path] < 0).any():
          raise ValueError("expected variances, got negative numbers")
      except ValueError as error:
        problems.append(f"{name}: {path}: {error}")
  problems += [f"{path} is not filled" for path in wanted if path not in filled]
  if problems:
    more = [f"and {len(problems) - _SHOWN} more"] if len(problems) > _SHOWN else []
    lines = [f"checkpoint does not fit the model; problems: {len(problems)}"]
    raise errors.CheckpointError("\n  ".join(lines + problems[:_SHOWN] + more))
  return traverse_util.unflatten_dict({path: filled[path] for path in wanted}, sep="/")


def _fit(tensor, leaf, layout):
  if not jnp.issubdtype(tensor.dtype, jnp.floating):  # unlike NumPy, jnp counts bfloat16 in
    raise ValueError(f"expected floating-point numbers, got {tensor.dtype}")
  value = layout(tensor, leaf.shape)
  if value.shape != leaf.shape:
    raise ValueError(f"expected {leaf.shape}, got {value.shape} from {tensor.shape}")
  with np.errstate(over="ignore"):  # what is then infinite is refused
    value = value.astype(leaf.dtype)
  if not np.isfinite(value).all():
    raise ValueError(f"expected finite numbers in {leaf.dtype}, got NaN or infinity")
  if value.ndim > 1 and not value.any():
    raise ValueError("expected trained weights, got zeros alone")
  return value
