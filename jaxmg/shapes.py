"""The check of an array argument at the door of a public function: on what is static under jit."""

from typing import Any

_KINDS = {"float": ("float", "bfloat"), "int": ("int", "uint")}


def check(name: str, array: Any, kind: str, *sizes: str | int) -> None:
  """Raises ValueError unless `array` holds "float" or "int" numbers of any width in this shape.

  A size is a number, or an axis letter for any number from 1 up; "..." in front is any axes.
  """
  shape = getattr(array, "shape", None)
  if shape is None:
    right, got = False, f"{type(array).__name__}, which is no array"
  else:
    right, got = array.dtype.name.startswith(_KINDS[kind]), f"{array.dtype}{list(shape)}"
    anywhere = sizes[:1] == ("...",)
    last = sizes[1:] if anywhere else sizes
    shape = shape[len(shape) - len(last) :] if anywhere and len(shape) >= len(last) else shape
    right = right and len(shape) == len(last)
    right = right and all(
      size >= 1 if isinstance(wanted, str) else size == wanted
      for size, wanted in zip(shape, last, strict=True)
    )
  if not right:
    # An array of PyTorch's order has its channels before space and time.
    moved = len(sizes) > 2 and isinstance(sizes[-1], int) and shape and sizes[-1] in shape[:-1]
    hint = " (channels come last)" if moved and shape[-1] != sizes[-1] else ""
    raise ValueError(f"{name}: expected {kind}[{', '.join(map(str, sizes))}], got {got}{hint}")
