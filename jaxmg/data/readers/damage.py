"""What a library says of a damaged file, in our words."""

import contextlib
from collections.abc import Iterator

from jaxmg.errors import DataError


@contextlib.contextmanager
def damage(kind: str) -> Iterator[None]:
  """A library raises whatever the damage of a file leads to: here it becomes a sentence."""
  try:
    yield
  except (DataError, ImportError, OSError):
    raise
  except Exception as error:
    raise DataError(
      f"expected a whole {kind} file ({str(error) or type(error).__name__})"
    ) from error
