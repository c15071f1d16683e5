"""MTCNN: the names of facenet-pytorch -> ours, and its three files."""

import pathlib
from typing import Any

import numpy as np

from jaxmg.errors import CheckpointError
from jaxmg.models import mtcnn
from jaxmg.pretrained import torch_files
from jaxmg.pretrained.convert import Rule, Shape, convert, linear


def conv2d(array: np.ndarray, shape: Shape) -> np.ndarray:
  return np.einsum("oihw->hwio", array)


def head(array: np.ndarray, shape: Shape) -> np.ndarray:
  return np.einsum("oihw->io", array) if array.shape[2:] == (1, 1) else linear(array, shape)


def flat(array: np.ndarray, shape: Shape) -> np.ndarray:
  """Of 3 x 3 places, which are flattened there columns first, and channels last."""
  outputs, inputs = array.shape
  places = array.reshape(outputs, 3, 3, inputs // 9)
  return np.einsum("owhc->hwco", places).reshape(inputs, outputs)


def _with_bias(theirs, ours, *layout):
  yield Rule(rf"{theirs}\.weight", f"params/{ours}/kernel", *layout)
  yield Rule(rf"{theirs}\.bias", f"params/{ours}/bias")


RULES = (
  *_with_bias(r"conv(\d)", r"conv\1", conv2d),
  *_with_bias(r"dense(\d)", r"dense\1", flat),
  *_with_bias(r"(?:conv|dense)\d_1", "head", head),
  *_with_bias(r"(?:conv|dense)\d_2", "box", head),
  *_with_bias(r"dense\d_3", "landmarks", head),
  Rule(r"prelu(\d)\.weight", r"params/prelu\1/slope"),
)


def read(folder: pathlib.Path) -> dict[str, Any]:
  """The variables of the networks by name, from pnet.pt, rnet.pt and onet.pt in a folder.

  Raises CheckpointError for what they are not.
  """
  found = {}
  for name in mtcnn.NETS:
    path = folder / f"{name}.pt"
    if not path.is_file():
      hint = "they are in the wheel of facenet-pytorch"
      expected = "pnet.pt, rnet.pt and onet.pt"
      raise CheckpointError(folder, expected=expected, got=f"no {path.name}", hint=hint)
    try:
      found[name] = convert(torch_files.read(path), mtcnn.abstract(name), RULES)
    except CheckpointError as error:
      text = str(error)
      raise CheckpointError(text if str(path) in text else f"{path}: {text}") from error
  return found
