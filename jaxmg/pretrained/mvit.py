"""MViTv2: torchvision's names and those of SlowFast -> ours.

Tables of relative positions are interpolated where the model is made for clips of another size.
"""

import numpy as np

from jaxmg.models.mvit import interpolation
from jaxmg.pretrained.convert import Rule, Shape, conv3d, linear


def depthwise(array: np.ndarray, shape: Shape) -> np.ndarray:
  return np.einsum("dithw->thwd", array[:, :1]) if array.shape[1:2] == (1,) else array


def token(array: np.ndarray, shape: Shape) -> np.ndarray:
  return array.reshape(-1) if array.shape[:-1] in ((), (1, 1)) else array


def positions(array: np.ndarray, shape: Shape) -> np.ndarray:
  rows, _ = array.shape
  return interpolation(rows, shape[0]) @ array.astype(np.float32)


_MODULE = r"(?:module\.)?"
_BLOCK, _OURS = rf"{_MODULE}blocks\.(\d+)\.", r"params/block\1"
# In a block: names there, of torchvision or SlowFast, and ours.
_DENSE = (
  (r"attn\.qkv", "attention/qkv"),
  (r"attn\.(?:project\.0|proj)", "attention/project"),
  (r"mlp\.(?:0|fc1)", "expand"),
  (r"mlp\.(?:3|fc2)", "contract"),
  (r"(?:project|proj)", "project"),
)
_NORMS = (
  (r"norm(1|2)", r"norm\2"),
  (r"attn\.(?:pool_(?=.\.norm_act)|norm_)(q|k|v)(?:\.norm_act\.0)?", r"attention/pool_\2/norm"),
)
_TABLES = (("t", "time"), ("h", "rows"), ("w", "columns"))


def _with_bias(theirs, ours, name, *layout):
  yield Rule(rf"{theirs}\.weight", f"{ours}/{name}", *layout)
  yield Rule(rf"{theirs}\.bias", f"{ours}/bias")


def _rules():
  yield from _with_bias(
    rf"{_MODULE}(?:conv_proj|patch_embed\.proj)", "params/patches", "kernel", conv3d
  )
  yield Rule(rf"{_MODULE}(?:pos_encoding\.class_token|cls_token)", "params/class_token", token)
  for theirs, ours in _DENSE:
    yield from _with_bias(_BLOCK + theirs, f"{_OURS}/{ours}", "kernel", linear)
  for theirs, ours in _NORMS:
    yield from _with_bias(_BLOCK + theirs, f"{_OURS}/{ours}", "scale")
  pool = rf"{_BLOCK}attn\.pool_(q|k|v)(?:\.pool)?\.weight"
  yield Rule(pool, rf"{_OURS}/attention/pool_\2/kernel", depthwise)
  for letter, ours in _TABLES:
    yield Rule(rf"{_BLOCK}attn\.rel_pos_{letter}", f"{_OURS}/attention/{ours}", positions)
  yield from _with_bias(rf"{_MODULE}norm", "params/norm", "scale")
  yield from _with_bias(rf"{_MODULE}head\.(?:1|projection)", "params/head", "kernel", linear)


RULES = (*_rules(),)
IGNORE = ()
