"""A synthetic stand-in for iMiGUE: generated where it is not there, then read as iMiGUE is."""

import pathlib

from imigue import imigue_dataset_builder as imigue
from synthetic_imigue import generate

from jaxmg.data import prepared


class Builder(imigue.Builder):
  """Synthetic seated upper bodies in iMiGUE's raw formats: 32 made-up motions, no real person."""

  synthetic = True
  subject_file = None  # its table of labels names the subjects
  protocols = {  # noqa: RUF012
    "xsub": prepared.by_subject(train=[str(subject) for subject in generate.TRAIN_SUBJECTS])
  }

  def __init__(self, *, raw, **kwargs):
    raw = pathlib.Path(raw)
    # An empty folder, or one left half made: nothing is written among somebody's other files.
    ours = {path.name for path in raw.iterdir()} <= generate.WRITTEN
    if ours and not (raw / generate.LABELS).exists():
      generate.write(raw, seed=0)
    super().__init__(raw=raw, **kwargs)
