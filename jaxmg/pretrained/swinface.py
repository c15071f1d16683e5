"""SwinFace: the names of its authors' file -> ours.

The file holds four state dicts: the Swin transformer ("backbone"), and of the branches what makes
features of the maps ("fam"), the products behind these ("tss") and the output layers ("om").
"""

import numpy as np

from jaxmg.models.swinface import BRANCHES, WINDOW
from jaxmg.pretrained.convert import Rule, Shape, linear


def patches(array: np.ndarray, shape: Shape) -> np.ndarray:
  return np.einsum("oihw->hwio", array)


def conv(array: np.ndarray, shape: Shape) -> np.ndarray:
  return np.einsum("oihw->hwio", array)[None]


def positions(array: np.ndarray, shape: Shape) -> np.ndarray:
  rows, _ = array.shape
  side = 2 * WINDOW - 1
  return array.reshape(side, side, -1) if rows == side**2 else array


_STAGES = 4  # at most: a network of fewer has fewer names
# In a block: names there and ours.
_DENSE = (
  (r"attn\.qkv", "attention/qkv"),
  (r"attn\.proj", "attention/project"),
  (r"mlp\.fc1", "expand"),
  (r"mlp\.fc2", "contract"),
)


def _with_bias(theirs, ours, name, *layout):
  yield Rule(rf"{theirs}\.weight", f"params/{ours}/{name}", *layout)
  yield Rule(rf"{theirs}\.bias", f"params/{ours}/bias")


def _batch_norm(theirs, ours):
  yield from _with_bias(theirs, ours, "scale")
  yield Rule(rf"{theirs}\.running_(mean|var)", rf"batch_stats/{ours}/\1")


def _backbone():
  yield from _with_bias(r"backbone\.patch_embed\.proj", "patches", "kernel", patches)
  yield from _with_bias(r"backbone\.patch_embed\.norm", "patches/norm", "scale")
  for i in range(_STAGES):
    layer, block = rf"backbone\.layers\.{i}\.", rf"stage{i + 1}_block\1"
    of_block = rf"{layer}blocks\.(\d+)\."
    for theirs, ours in _DENSE:
      yield from _with_bias(of_block + theirs, f"{block}/{ours}", "kernel", linear)
    table = rf"{of_block}attn\.relative_position_bias_table"
    yield Rule(table, f"params/{block}/attention/positions", positions)
    yield from _with_bias(rf"{of_block}norm(1|2)", rf"{block}/norm\2", "scale")
    yield from _with_bias(rf"{layer}downsample\.norm", f"merge{i + 1}/norm", "scale")
    reduce = f"params/merge{i + 1}/reduce/kernel"
    yield Rule(rf"{layer}downsample\.reduction\.weight", reduce, linear)
  yield from _with_bias(r"backbone\.norm", "norm", "scale")
  for i, (dense, norm) in enumerate(((0, 1), (2, 3)), 1):
    yield Rule(rf"backbone\.feature\.{dense}\.weight", f"params/token/dense{i}/kernel", linear)
    yield from _batch_norm(rf"backbone\.feature\.{norm}", f"token/norm{i}")


def _branches():
  number = 0  # of the output layer
  for i, (name, outputs) in enumerate(BRANCHES.items()):
    branch, net = f"branch_{name}", rf"fam\.nets\.{i}\."
    yield Rule(rf"{net}conv\.convs\.(\d)\.weight", rf"params/{branch}/conv\1/kernel", conv)
    for theirs, ours in ((1, "gate1"), (3, "gate2")):
      gate = rf"{net}channel_attention\.mlp\.{theirs}"
      yield from _with_bias(gate, f"{branch}/{ours}", "kernel", linear)
    yield from _batch_norm(rf"{net}norm", f"{branch}/norm")
    for theirs, ours in ((0, "dense1"), (3, "dense2")):
      dense = rf"tss\.nets\.{i}\.feature\.{theirs}"
      yield from _with_bias(dense, f"{branch}/{ours}", "kernel", linear)
    for output in outputs:
      layer = rf"om\.output_fcs\.{number}"
      yield from _with_bias(layer, f"{branch}/{output}", "kernel", linear)
      number += 1


RULES = (*_backbone(), *_branches())
# The last product of a classifier of pictures, which nothing reads.
IGNORE = (r".*\.num_batches_tracked", r"backbone\.head\.(?:weight|bias)")
