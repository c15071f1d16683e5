"""Things that are known by their names, such as models; a wrong name is told which there are."""

from typing import Any

from jaxmg import errors


class ByName(dict):
  """A dictionary whose missing names raise a KeyError that lists those that are there."""

  def __init__(self, kind: str, content: dict[str, Any]):
    super().__init__(content)
    self._kind = kind

  def __missing__(self, name: Any) -> Any:
    raise _UnknownName(errors.unknown(self._kind, self, repr(name)))


class _UnknownName(KeyError):
  def __str__(self) -> str:  # a KeyError shows its text in quotes
    return self.args[0]
