"""The errors that a command reports in one line, each with a stable exit code."""


class Error(Exception):
  """A fault outside jaxmg: `<where>: expected <expected>, got <got> (<hint>)`, or one sentence."""

  exit_code = 1

  def __init__(
    self,
    where: object,
    *,
    expected: object = None,
    got: object = None,
    hint: str | None = None,
  ):
    message = str(where)
    if expected is not None:
      message += f": expected {expected}, got {got}"
    if hint is not None:
      message += f" ({hint})"
    super().__init__(message)


class ConfigError(Error, ValueError):
  exit_code = 2


class DataError(Error, ValueError):
  exit_code = 3


class CheckpointError(Error, ValueError):
  exit_code = 4


class StorageError(Error):
  exit_code = 5


class DivergedError(Error, ArithmeticError):
  exit_code = 6


class LockedError(Error):
  exit_code = 7


class Preempted(Error):
  """Training was asked to stop (SIGTERM) and has saved: start the same command again."""

  exit_code = 75


class Interrupted(Error):
  """Ctrl-C: training has saved."""

  exit_code = 130
