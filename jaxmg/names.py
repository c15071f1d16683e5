"""Things that are known by their names, such as models; a wrong name is told which there are."""

import difflib
from typing import Any


class ByName(dict):
  """A dictionary whose missing names raise a KeyError that lists those that are there."""

  def __init__(self, kind: str, content: dict[str, Any]):
    super().__init__(content)
    self._kind = kind

  def __missing__(self, name: Any) -> Any:
    near = difflib.get_close_matches(str(name), self, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise _UnknownName(f"{self._kind}: expected {' or '.join(self)}, got {name!r}{hint}")


class _UnknownName(KeyError):
  def __str__(self) -> str:  # a KeyError shows its text in quotes
    return self.args[0]
