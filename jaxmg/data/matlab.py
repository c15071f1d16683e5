"""UTD-MHAD's .mat files; scipy can crash on a damaged one, so `load` is for `guarded.call`."""

import pathlib
import zlib

import numpy as np

_COMPRESSED = 15  # an element's type
_PIECE_BYTES = 1 << 20


def load(path: str) -> dict[str, np.ndarray]:
  """`d_skel` of a file: numbers [20, 3, T], metres. Raises ValueError for any other file."""
  import scipy.io

  try:
    _check(pathlib.Path(path).read_bytes())
    joints = scipy.io.loadmat(path, variable_names=["d_skel"]).get("d_skel")
  except (ImportError, MemoryError):
    raise
  except Exception as error:  # whatever its damage leads to
    if isinstance(error, OSError) and error.filename is not None:
      raise
    text = str(error) or type(error).__name__
    raise ValueError(f"expected a whole MATLAB file ({text})") from error
  if joints is None:
    raise ValueError("variable d_skel is missing")
  if joints.ndim != 3 or joints.shape[:2] != (20, 3) or joints.dtype.kind not in "fiu":
    got = f"{joints.dtype} {list(joints.shape)}"
    raise ValueError(f"d_skel: expected numbers [20, 3, T], got {got}")
  return {"d_skel": joints}


def _check(data: bytes) -> None:
  """Raises ValueError or zlib.error where a compressed variable is not whole.

  scipy stops reading at the last number, before the checksum.
  """
  if data[126:128] not in (b"IM", b"MI"):  # what version 5 ends its head with; scipy knows others
    return
  order = "little" if data[126:128] == b"IM" else "big"
  place = 128
  while place < len(data):
    kind, size = (int.from_bytes(data[place + i : place + i + 4], order) for i in (0, 4))
    element = data[place + 8 : place + 8 + size]
    if len(element) != size:
      raise ValueError("it is cut off")
    place += 8 + size
    if kind == _COMPRESSED:
      stream = zlib.decompressobj()
      while element and not stream.eof:
        stream.decompress(element, _PIECE_BYTES)
        element = stream.unconsumed_tail
      if not stream.eof or stream.unused_data:
        raise ValueError("a compressed variable is not whole")
