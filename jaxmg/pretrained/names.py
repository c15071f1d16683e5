"""What training tools put before the names of tensors, and whose tensors are known but not covered.

Wrappers of a model put their own name before those of its weights, each once more. An average of
the weights (EMA) has the same names behind one that tells it.
"""

import re
from collections.abc import Mapping

import numpy as np

from jaxmg import errors
from jaxmg.pretrained.torch_files import COPIES

_WRAPPERS = ("module", "model", "_orig_mod")  # of parallel training, Lightning, torch.compile
_PREFIX = re.compile(rf"(?:(?:{'|'.join((*_WRAPPERS, *COPIES))})\.)*")
# What averages count beside the weights.
_COUNTERS = ("n_averaged", "num_updates", "decay", "initted", "step", "steps")

_NOT_COVERED = {
  r"(?:backbone\.)?gcn\.\d+\.gcn\..*": "AAGCN, or another graph network, of PYSKL or mmaction2",
  r"l\d+\.gcn1\.(?:alpha|conv_[ts]a\..*|fc[12]c\..*)": "AAGCN, 2s-AGCN's successor",
  r"(?:backbone\.)?conv1a\..*": "C3D, as PYSKL's C3D-light",
}


def unwrap(
  tensors: Mapping[str, np.ndarray], copy: str | None = None
) -> tuple[dict[str, np.ndarray], str, list[str]]:
  """The tensors by the names of the model's own code; which copy they are; what others there are.

  Of several copies, that named `copy` is taken ("ema", ...); without it the weights themselves, ""
  here, or their only copy. Raises CheckpointError (ValueError) for a copy that is not there, more
  than one to choose from, two tensors of one name, and weights of a model that is known but not
  covered.
  """
  copies: dict[str, dict[str, str]] = {}
  for name in tensors:
    prefix = _PREFIX.match(name)[0]
    own = name[len(prefix) :]
    if own in _COUNTERS and tensors[name].size == 1:
      continue
    key = ".".join(part for part in prefix.split(".") if part in COPIES)
    if (other := copies.setdefault(key, {}).setdefault(own, name)) != name:
      raise errors.CheckpointError("weights", expected=f"{own!r} once", got=f"{other} and {name}")
  if copy is None:
    copy = "" if "" in copies or len(copies) != 1 else next(iter(copies))
  if copy not in copies:
    expected = " or ".join(map(repr, filter(None, copies))) or "none"
    raise errors.CheckpointError("copy of the weights", expected=expected, got=copy or "none")
  found = {own: tensors[name] for own, name in copies[copy].items()}
  for pattern, whose in _NOT_COVERED.items():
    if any(re.fullmatch(pattern, name) for name in found):
      got = f"those of {whose}, which is not covered"
      raise errors.CheckpointError("weights", expected="PoseC3D's or 2s-AGCN's", got=got)
  return found, copy, sorted(copies.keys() - {copy, ""})
