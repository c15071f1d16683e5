"""Scores on disk, keyed by clip id: never by row, which differs between tools and preparations."""

import dataclasses
import os
import pathlib
import zipfile

import numpy as np

from jaxmg import errors

_KINDS = {"ids": "U", "probabilities": "f", "labels": "i", "class_names": "U"}


@dataclasses.dataclass(frozen=True, eq=False)
class Scores:
  """Class probabilities of the clips of one split.

  Attributes:
    ids: N clip ids.
    probabilities: float32[N, K], rows summing to 1.
    labels: int32[N]; -1 where hidden.
    class_names: K names.
  """

  ids: tuple[str, ...]
  probabilities: np.ndarray
  labels: np.ndarray
  class_names: tuple[str, ...]


def save(path: str | os.PathLike, scores: Scores) -> None:
  """Writes an .npz file (arrays ids, probabilities, labels, class_names) in one move."""
  path = pathlib.Path(path)
  temporary = path.with_suffix(".tmp.npz")
  np.savez(
    temporary,
    ids=np.array(scores.ids, str),
    probabilities=scores.probabilities,
    labels=scores.labels,
    class_names=np.array(scores.class_names, str),
  )
  temporary.replace(path)


def load(path: str | os.PathLike) -> Scores:
  """Reads what `save` wrote; raises DataError for anything else."""
  try:
    # Opened here: numpy leaves its own handle open when the file is broken.
    with open(path, "rb") as stream:
      with zipfile.ZipFile(stream) as archive:
        _check_members(archive)
      stream.seek(0)
      with np.load(stream, allow_pickle=False) as file:
        arrays = {name: file[name] for name in _KINDS}
  except FileNotFoundError:
    raise errors.DataError(path, expected="a score file", got="no such file") from None
  except Exception as error:  # numpy and zipfile raise many types
    raise errors.DataError(path, expected="a score file", got=error) from error
  for name, kind in _KINDS.items():
    if arrays[name].dtype.kind != kind or arrays[name].ndim != 1 + (name == "probabilities"):
      got = f"{arrays[name].dtype}{list(arrays[name].shape)}"
      raise errors.DataError(f"{path}: {name}", expected="what `save` writes", got=got)
  scores = Scores(
    ids=tuple(arrays["ids"].tolist()),
    probabilities=arrays["probabilities"],
    labels=arrays["labels"],
    class_names=tuple(arrays["class_names"].tolist()),
  )
  shape = (len(scores.ids), len(scores.class_names))
  for name, expected in (("probabilities", shape), ("labels", shape[:1])):
    got = getattr(scores, name).shape
    if got != expected:
      raise errors.DataError(f"{path}: {name}", expected=list(expected), got=list(got))
  if len(set(scores.ids)) < len(scores.ids):
    raise errors.DataError(f"{path}: ids", expected="each once", got="repeated ones")
  return scores


def _check_members(archive: zipfile.ZipFile) -> None:
  """Of two members of one name the last would count, and compressed ones can grow without end."""
  names = sorted(member.filename for member in archive.infolist())
  expected = sorted(f"{name}.npy" for name in _KINDS)
  if names != expected:
    raise ValueError(f"arrays {names} for {expected}")
  if any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist()):
    raise ValueError("a compressed one")
