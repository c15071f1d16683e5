"""The tensors of .pth, .pt and .safetensors files as numpy arrays, without PyTorch.

Nothing in a file is run (see `jaxmg.pickles`), and what it says about itself is checked against its
size before anything is read: storages against the entries of the archive, tensors against their
storages. Read are PyTorch's zip archives (since 1.6), its stacked pickles before them, and
safetensors.
"""

import dataclasses
import io
import json
import math
import mmap
import os
import re
import struct
import zipfile
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from jaxmg import errors, pickles

# Where training tools put the state dict, and a copy of it, which is an average of the weights, or
# the last weights where the average is the state dict proper (mmengine).
_NESTED = ("state_dict", "model_state", "model_state_dict", "model")
# Where SwinFace's authors put those of its parts.
_PARTS = ("backbone", "fam", "tss", "om")
COPIES = ("ema", "ema_model", "model_ema", "ema_state_dict", "state_dict_ema")
_MAX_DIRECTORY = 1 << 22
_MAX_HEADER = 10_000_000
_MAGIC = 0x1950A86A20F9469CFC6C
_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
  """Reads the state dict of a checkpoint: name -> array, as PyTorch laid it out.

  It is the file's outermost dictionary, or the one under "state_dict", "model_state",
  "model_state_dict" or "model"; of SwinFace it is those under "state_dict_backbone" and so on, the
  names behind "backbone" and a dot. A copy of the weights beside it, of tensors alone under one of
  `COPIES`, is read too, its names behind that key and a dot; all else (optimizer, configs) is left
  unread. Arrays are read-only and may share memory; bfloat16 is that of `ml_dtypes`.

  Raises:
    CheckpointError: any other file; tensors that are quantised, complex or sparse; whole modules
      (TorchScript, `torch.save(model)`); and files that contradict themselves.
  """
  try:
    with open(path, "rb") as file:
      head = file.read(512)
      if not head:
        raise ValueError("an empty file")
      tensors = _reader(head)(file)
      if not all(name.isprintable() and len(name) < 300 for name in tensors):
        raise ValueError("a tensor without a printable name")
      return tensors
  except FileNotFoundError:
    raise errors.CheckpointError(path, expected="a checkpoint", got="no such file") from None
  except IsADirectoryError:
    raise errors.CheckpointError(path, expected="a checkpoint", got="a folder") from None
  except OSError:
    raise
  except Exception as error:  # zipfile, json, pickletools and numpy raise many types
    raise errors.CheckpointError(
      path,
      expected="a state dict of PyTorch or safetensors",
      got=pickles.describe(error),
      hint=_HINT if "global" in str(error) else None,
    ) from error


_HINT = "where the file is trusted, PyTorch can save its state dict alone"


def _reader(head: bytes) -> Callable[[io.BufferedReader], dict[str, np.ndarray]]:
  if head.startswith(b"PK\x03\x04"):
    return _read_zip
  if head[8:9] == b"{":
    return _read_safetensors
  if head[257:262] == b"ustar":
    raise ValueError("a tar archive, as PyTorch wrote before 0.2")
  if head.startswith(b"\x80"):
    return _read_legacy
  raise ValueError(pickles.recognize(head) or "neither a zip archive nor a pickle")


# --- what the pickles of PyTorch say


@dataclasses.dataclass(frozen=True)
class _Storage:
  key: str
  dtype: np.dtype
  size: int  # numbers

  @property
  def nbytes(self) -> int:
    return self.size * self.dtype.itemsize


@dataclasses.dataclass(frozen=True)
class _Tensor:
  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def _tensor(storage, offset, shape, strides, requires_grad=False, hooks=None, metadata=None):
  if not isinstance(storage, _Storage) or not isinstance(shape, tuple):
    raise ValueError("a tensor without storage or shape")
  if metadata:
    raise ValueError("a tensor with pending conjugation or negation")
  if not isinstance(strides, tuple) or len(shape) != len(strides) or len(shape) > 32:
    raise ValueError("a tensor without one stride for each axis")
  if not all(type(n) is int and 0 <= n < 1 << 63 for n in (offset, *shape, *strides)):
    raise ValueError("a tensor of negative shape or stride")
  count = math.prod(shape)
  last = offset + sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
  if count and not (last < storage.size and count <= storage.size):
    raise ValueError(f"a tensor {list(shape)} that its storage of {storage.size} does not hold")
  return _Tensor(storage, offset, shape, strides)


def _parameter(data, requires_grad=True, hooks=None):
  if not isinstance(data, _Tensor):
    raise ValueError("a parameter without tensor")
  return data


def _ordered_dict(*pairs):
  return pickles.Attributed(pickles.ADMITTED["collections OrderedDict"].function(*pairs))


# What training tools save beside the weights.
_STUBS = (
  "addict.addict Dict",
  "argparse Namespace",
  "collections Counter",
  "collections defaultdict",
  "datetime datetime",
  "datetime timedelta",
  "mmcv.utils.config Config",
  "mmcv.utils.config ConfigDict",
  "mmengine.config.config Config",
  "mmengine.config.config ConfigDict",
  "mmengine.logging.history_buffer HistoryBuffer",
  "numpy.random._mt19937 MT19937",
  "numpy.random._pickle __bit_generator_ctor",
  "numpy.random._pickle __generator_ctor",
  "numpy.random._pickle __randomstate_ctor",
  "pathlib PosixPath",
  "pathlib WindowsPath",
  "torch Size",
  "torch device",
  "torch float16",
  "torch bfloat16",
  "torch float32",
  "torch float64",
  "yacs.config CfgNode",
  *(f"{builtins} {kind}" for builtins in ("builtins", "__builtin__") for kind in ("int", "list")),
)
_ADMITTED: Mapping[str, Any] = {
  **pickles.ADMITTED,
  **{name: pickles.Stub(name) for name in _STUBS},
  "collections OrderedDict": pickles.Call(_ordered_dict),
  "torch._utils _rebuild_parameter": pickles.Call(_parameter),
  "torch._utils _rebuild_tensor": pickles.Call(_tensor),
  "torch._utils _rebuild_tensor_v2": pickles.Call(_tensor),
  "torch BFloat16Storage": _BFLOAT16,
  "torch BoolStorage": np.dtype("?"),
  "torch ByteStorage": np.dtype("u1"),
  "torch CharStorage": np.dtype("i1"),
  "torch DoubleStorage": np.dtype("<f8"),
  "torch FloatStorage": np.dtype("<f4"),
  "torch HalfStorage": np.dtype("<f2"),
  "torch IntStorage": np.dtype("<i4"),
  "torch LongStorage": np.dtype("<i8"),
  "torch ShortStorage": np.dtype("<i2"),
}


class _Storages(dict[str, _Storage]):
  """The storages that a pickle refers to, by key."""

  def __init__(self, *, legacy: bool):
    self._view = (None,) if legacy else ()

  def refer(self, reference: tuple) -> _Storage:
    kind, dtype, key, _, size, *view = reference
    storage = _Storage(key, dtype, size)
    if (
      kind != "storage"
      or tuple(view) != self._view
      or not isinstance(dtype, np.dtype)
      or not isinstance(key, str)
      or type(size) is not int
      or not 0 <= size < 1 << 60
      or self.setdefault(key, storage) != storage
    ):
      raise ValueError("a reference to what is no storage")
    return storage


def _state_dict(tree: Any, read_storage: Callable[[_Storage], bytes]) -> dict[str, np.ndarray]:
  """Finds the state dict, and reads what its tensors are in."""
  if isinstance(tree, dict):
    nested = [name for name in _NESTED if isinstance(tree.get(name), dict)]
    if len(nested) > 1:
      raise ValueError(f"more than one state dict: {', '.join(nested)}")
    copies = {
      f"{key}.{name}": tensor
      for key in COPIES
      if isinstance(tree.get(key), dict)
      and all(isinstance(tensor, _Tensor) for tensor in tree[key].values())
      for name, tensor in tree[key].items()
    }
    parts = {
      f"{part}.{name}": tensor
      for part in _PARTS
      if isinstance(tree.get(f"state_dict_{part}"), dict)
      for name, tensor in tree[f"state_dict_{part}"].items()
    }
    if nested or copies or parts:
      tree = (tree[nested[0]] if nested else {}) | parts | copies
  if not isinstance(tree, dict) or not tree:
    raise ValueError("no dictionary of tensors")
  storages: dict[str, np.ndarray] = {}
  arrays = {}
  for name, tensor in tree.items():
    if not isinstance(name, str) or not isinstance(tensor, _Tensor):
      kind = tensor.name if isinstance(tensor, pickles.Stub) else type(tensor).__name__
      raise ValueError(f"{str(name)[:100]!r}, which is no tensor but {kind}")
    storage = tensor.storage
    if storage.key not in storages:
      storages[storage.key] = _numbers(read_storage(storage), storage.dtype)
    arrays[name] = _array(storages[storage.key], tensor)
  return arrays


def _numbers(content: bytes, dtype: np.dtype) -> np.ndarray:
  return np.frombuffer(content, dtype) if content else np.zeros(0, dtype)


def _array(numbers: np.ndarray, tensor: _Tensor) -> np.ndarray:
  if not math.prod(tensor.shape):
    return np.zeros(tensor.shape, numbers.dtype)
  strides = [stride * numbers.itemsize for stride in tensor.strides]
  # Inside of the storage, as `_tensor` has made sure.
  return np.lib.stride_tricks.as_strided(
    numbers[tensor.offset :], tensor.shape, strides, writeable=False
  )


# --- three formats


def _read_zip(file: io.BufferedReader) -> dict[str, np.ndarray]:
  _check_end(file)
  with zipfile.ZipFile(file) as archive:
    members = _members(archive, file)
    if "byteorder" in members and archive.read(members["byteorder"]) != b"little":
      raise ValueError("numbers in another byte order than little")
    if "data.pkl" not in members:
      raise ValueError("a zip archive without data.pkl")
    content = archive.read(members["data.pkl"])
    pickled, storages = io.BytesIO(content), _Storages(legacy=False)
    tree = pickles.interpret(
      pickled, size=len(content), admitted=_ADMITTED, persistent=storages.refer
    )
    if pickled.tell() < len(content):
      raise ValueError("more bytes after the pickle")

    def read_storage(storage: _Storage) -> bytes:
      member = members.get(f"data/{storage.key}")
      if member is None or member.file_size != storage.nbytes:
        found = "missing" if member is None else f"with {member.file_size}"
        raise ValueError(f"storage {storage.key[:20]!r} of {storage.nbytes} bytes {found}")
      return archive.read(member)

    return _state_dict(tree, read_storage)


def _check_end(file: io.BufferedReader) -> None:
  """The archive ends with the file, and its directory is not out of proportion."""
  file.seek(max(0, file.seek(0, os.SEEK_END) - 98))
  tail = file.read()
  if tail[-22:-18] != b"PK\x05\x06":
    raise ValueError("a zip archive that does not end with its directory")
  (size,) = struct.unpack("<I", tail[-10:-6])
  if tail[-42:-38] == b"PK\x06\x07":  # then the record of 64 bits before it counts
    (size,) = struct.unpack("<Q", tail[-58:-50])
  if size > _MAX_DIRECTORY:
    raise ValueError(f"a zip archive with a directory of {size} bytes")


def _members(archive: zipfile.ZipFile, file: io.BufferedReader) -> dict[str, zipfile.ZipInfo]:
  """The entries by name without the archive's own, one behind the other and not compressed."""
  infos = sorted(archive.infolist(), key=lambda info: info.header_offset)
  names = [info.filename.partition("/") for info in infos]
  members = {name: info for (_, _, name), info in zip(names, infos, strict=True)}
  if "constants.pkl" in members or any(name.startswith("code/") for name in members):
    raise ValueError("a TorchScript archive, which is a program")
  if len(members) < len(infos) or len({folder for folder, _, _ in names}) != 1:
    raise ValueError("a zip archive of several folders, or of entries with one name")
  for name in members:
    if not re.fullmatch(r"data\.pkl|byteorder|version|data/\w+|\.\w+|\.data/\w+", name, re.ASCII):
      raise ValueError(f"a zip archive with {name[:100]!r}")
  if infos[0].header_offset != 0:
    raise ValueError("a zip archive behind something else")
  ends = [*(info.header_offset for info in infos[1:]), archive.start_dir]
  for info, end in zip(infos, ends, strict=True):
    if (
      info.compress_type != zipfile.ZIP_STORED
      or info.compress_size != info.file_size
      or info.flag_bits & 1
    ):
      raise ValueError(f"a zip archive with {info.filename[:100]!r} compressed or encrypted")
    file.seek(info.header_offset + 26)
    start = info.header_offset + 30 + sum(struct.unpack("<HH", file.read(4)))
    if start + info.file_size > end:
      raise ValueError("a zip archive with entries that overlap")
  return members


def _read_legacy(file: io.BufferedReader) -> dict[str, np.ndarray]:
  with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
    size = len(mapped)
    if pickles.interpret(mapped, size=size, admitted={}) != _MAGIC:
      raise ValueError("a pickle that PyTorch did not write")
    version, system = (pickles.interpret(mapped, size=size, admitted={}) for _ in range(2))
    if version != 1001:
      raise ValueError("a pickle of another version of PyTorch")
    if not isinstance(system, dict) or system.get("little_endian") is not True:
      raise ValueError("numbers in another byte order than little")
    storages = _Storages(legacy=True)
    tree = pickles.interpret(mapped, size=size, admitted=_ADMITTED, persistent=storages.refer)
    keys = pickles.interpret(mapped, size=size, admitted={})
    if not isinstance(keys, list) or sorted(keys) != sorted(storages):
      raise ValueError("storages that are not those of its tensors")
    starts = {}
    position = mapped.tell()
    for key in keys:
      (found,) = struct.unpack("<q", mapped[position : position + 8])
      if found != storages[key].size:
        raise ValueError(f"storage {key[:20]!r} of {storages[key].size} numbers with {found}")
      starts[key] = position + 8
      position += 8 + storages[key].nbytes
    if position != size:
      raise ValueError(f"storages up to byte {position} in a file of {size}")

    def read_storage(storage: _Storage) -> bytes:
      return mapped[starts[storage.key] : starts[storage.key] + storage.nbytes]

    return _state_dict(tree, read_storage)


_SAFETENSORS = {
  "F64": np.dtype("<f8"),
  "F32": np.dtype("<f4"),
  "F16": np.dtype("<f2"),
  "BF16": _BFLOAT16,
  "I64": np.dtype("<i8"),
  "I32": np.dtype("<i4"),
  "I16": np.dtype("<i2"),
  "I8": np.dtype("i1"),
  "U8": np.dtype("u1"),
  "BOOL": np.dtype("?"),
}


def _read_safetensors(file: io.BufferedReader) -> dict[str, np.ndarray]:
  size = file.seek(0, os.SEEK_END)
  file.seek(0)
  (length,) = struct.unpack("<Q", file.read(8))
  if length > min(size - 8, _MAX_HEADER):
    raise ValueError(f"a header of {length} bytes in a file of {size}")
  header = json.loads(file.read(length).decode(), object_pairs_hook=_unique)
  header.pop("__metadata__", None)
  if not header:
    raise ValueError("a file without tensors")
  arrays = {}
  position = 0
  for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
    kind, shape, (begin, end) = entry["dtype"], entry["shape"], entry["data_offsets"]
    if not isinstance(kind, str) or kind not in _SAFETENSORS:
      raise ValueError(f"{name[:100]!r} of dtype {str(kind)[:20]!r}")
    if not isinstance(shape, list) or len(shape) > 32:
      raise ValueError(f"{name[:100]!r} without shape")
    if not all(type(n) is int and 0 <= n < 1 << 63 for n in (*shape, begin, end)):
      raise ValueError(f"{name[:100]!r} of negative shape or place")
    dtype = _SAFETENSORS[kind]
    if begin != position or end - begin != math.prod(shape) * dtype.itemsize:
      raise ValueError(f"{name[:100]!r} at bytes {begin} to {end}, after {position}")
    position = end
    if 8 + length + end > size:
      raise ValueError(f"{name[:100]!r} behind the end of the file")
    arrays[name] = _numbers(file.read(end - begin), dtype).reshape(shape)
  if 8 + length + position != size:
    raise ValueError(f"tensors up to byte {8 + length + position} in a file of {size}")
  return arrays


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  found = dict(pairs)
  if len(found) < len(pairs):
    raise ValueError("a header that names something twice")
  return found
