"""Scores on disk, keyed by clip id: never by row, which differs between tools and preparations."""

import dataclasses
import os
import pathlib

import numpy as np

from jaxmg import errors


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
    with open(path, "rb") as stream, np.load(stream, allow_pickle=False) as file:
      scores = Scores(
        ids=tuple(file["ids"].tolist()),
        probabilities=file["probabilities"],
        labels=file["labels"],
        class_names=tuple(file["class_names"].tolist()),
      )
  except FileNotFoundError:
    raise errors.DataError(path, expected="a score file", got="no such file") from None
  except Exception as error:  # numpy and zipfile raise many types
    raise errors.DataError(path, expected="a score file", got=error) from error
  shape = (len(scores.ids), len(scores.class_names))
  for name, expected in (("probabilities", shape), ("labels", shape[:1])):
    got = getattr(scores, name).shape
    if got != expected:
      raise errors.DataError(f"{path}: {name}", expected=list(expected), got=list(got))
  if len(set(scores.ids)) < len(scores.ids):
    raise errors.DataError(f"{path}: ids", expected="each once", got="repeated ones")
  return scores
