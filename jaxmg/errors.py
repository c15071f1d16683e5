"""The errors that a command reports in one line, each with a stable exit code."""

import difflib
import io
import os
import signal
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any

# What more of jaxmg than the library needs, and the extra of `pip install` that it comes with.
EXTRAS = {
  **dict.fromkeys(("absl", "array_record", "etils", "google", "grain", "ml_collections"), "train"),
  **dict.fromkeys(("optax", "orbax", "tensorboardX", "tensorflow_datasets", "tqdm"), "train"),
  **dict.fromkeys(("python_calamine", "scipy", "xlsxwriter"), "prepare"),
  "flatbuffers": "export",
  "matplotlib": "plots",
  **dict.fromkeys(("PIL", "av", "simplejpeg"), "video"),
}


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
  """A setting, a flag or an argument that cannot be."""

  exit_code = 2


class DataError(Error, ValueError):
  """A file, an array or a set that is not what it should be."""

  exit_code = 3


class CheckpointError(Error, ValueError):
  """A run, its weights or its recipe that is missing, damaged or another."""

  exit_code = 4


class StorageError(Error):
  """The disk: full, not there, not allowed."""

  exit_code = 5


class DivergedError(Error, ArithmeticError):
  """A training whose losses or gradients are not finite any more."""

  exit_code = 6


class LockedError(Error):
  """A folder that another process is writing."""

  exit_code = 7


class Preempted(Error):
  """Asked to stop (SIGTERM), and saved: start the same command again."""

  exit_code = 75


class Interrupted(Error):
  """Ctrl-C, and what is whole so far is kept."""

  exit_code = 130


def nearest(name: object, known: Iterable[str]) -> str | None:
  """The one of the known names that was meant, perhaps: one spelt alike, or begun alike."""
  known, name = [*known], str(name)
  begun = [one for one in known if min(len(one), len(name)) > 2 and _begin(one, name)]
  alike = [one for one in known if one.lower() == name.lower()]
  return next(iter([*alike, *difflib.get_close_matches(name, known, n=1), *begun]), None)


def _begin(a: str, b: str) -> bool:
  return a.startswith(b) or b.startswith(a)


def meant(name: object, known: Iterable[str]) -> str | None:
  """The hint "did you mean ...?", or None where no known name is near."""
  found = nearest(name, known)
  return found and f"did you mean {found}?"


def unknown(where: object, known: Iterable[str], name: object) -> str:
  """The message for a name that is none of the known ones: `where: expected ..., got name`."""
  known = [*known]
  return str(Error(where, expected=" or ".join(known), got=name, hint=meant(name, known)))


def exit_code(body: Callable[[], Any], *, debug: bool = False) -> int:
  """Calls `body`, says what went wrong in one line on stderr, and returns the process's exit code.

  `debug` prints the traceback of every error; those of our own faults are always printed.
  """
  if isinstance(sys.stdout, io.TextIOWrapper):
    sys.stdout.reconfigure(errors="backslashreplace")  # a file's name need not be text
  try:
    body()
    sys.stdout.flush()
    return 0
  except BrokenPipeError:  # `| head` has seen enough
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 128 + signal.SIGPIPE
  except (Error, OSError, KeyboardInterrupt) as error:
    if debug:
      traceback.print_exc()
    message, code = str(error), getattr(error, "exit_code", None)
    if isinstance(error, OSError):
      code = StorageError.exit_code
      message = f"{error.filename}: {error.strerror or error}" if error.filename else message
    elif isinstance(error, KeyboardInterrupt):
      code, message = Interrupted.exit_code, "interrupted"
    first, *more = message.splitlines() or [type(error).__name__]
    line = f"{first} {'; '.join(map(str.strip, more))}".rstrip()
    print(f"jaxmg: error: {line}", file=sys.stderr)
    return code
  except Exception as error:
    missing = error.name if isinstance(error, ModuleNotFoundError) and error.name else ""
    extra = EXTRAS.get(missing.partition(".")[0])
    if debug or not extra:
      traceback.print_exc()
    if not extra:
      return 1
    print(
      f"jaxmg: error: {missing} is missing: needs pip install 'jaxmg[{extra}]'", file=sys.stderr
    )
    return ConfigError.exit_code
