"""Writes scores in the format of a challenge or of another tool.

  jaxmg submit --scores=RUN/test/scores.npz --format=miga --out=Submission.zip
  jaxmg submit --scores=F --format=pyskl --data=DATA/NAME --out=result.pkl

F is any scores.npz of `jaxmg evaluate`, such as that of a later test set.

miga: a zip of Submission.csv, with a line `id,class` per clip (`0054_3,17`: video and clip; class
from 0), without a header, by video and clip, as in published submissions to the MiGA challenge.

miga_emotion: the same of whole videos, `0054,1`: 0 lost, 1 won. That this is what the challenge's
emotion track takes is our reading: no such submission is public.

pyskl: a pickle of a list of float32 arrays [classes], for the tools of PYSKL and mmaction2. It has
no ids: its order is that of the rows of the prepared data set --data, which is that of the
annotation file. The scores must be of all the clips of one split; clips that were left out when the
set was prepared are not in the list. With --data, miga checks that no clip is missing, too.
"""

import io
import pathlib
import pickle
import re
import zipfile

import numpy as np
from absl import flags

from jaxmg import errors, files, scores
from jaxmg.data.source import Source

from . import launch

MIGA_CLASSES, EMOTIONS = 32, ("lose", "win")


def define(values: flags.FlagValues) -> None:
  options = {"flag_values": values}
  flags.DEFINE_string("scores", None, "A score file.", required=True, **options)
  flags.DEFINE_enum("format", None, FORMATS, "Which format.", required=True, **options)
  flags.DEFINE_string("data", None, "The prepared data set of these clips.", **options)
  flags.DEFINE_string("out", None, "The file to write.", required=True, **options)


def run(values: flags.FlagValues) -> None:
  found = scores.load(values.scores)
  order = None if values.data is None else dataset_order(found, values.data)
  content = FORMATS[values.format](found, order)
  out = pathlib.Path(values.out)
  with files.replace(out) as part:
    part.write_bytes(content)
  print(f"{len(found.ids)} clips in {out}")


def dataset_order(found: scores.Scores, data: str) -> list[int]:
  """The rows of the scores in the order of the one split of a prepared set that has their clips."""
  source = Source(data)
  if source.class_names != found.class_names[: len(source.class_names)]:
    raise errors.DataError(source.directory, expected="the classes of the scores", got="others")
  rows = {id: row for row, id in enumerate(found.ids)}
  for splits in source.protocols.values():
    for split in splits.values():
      ids = [source.ids[row] for row in np.sort(split)]
      if rows.keys() == {*ids}:
        return [rows[id] for id in ids]
  unknown = sorted(rows.keys() - source.ids)
  got = f"{len(rows)} clips"
  if unknown:
    got += f", {len(unknown)} of them in none: {', '.join(map(repr, unknown[:5]))}"
  raise errors.DataError(source.directory, expected="the clips of one split", got=got)


def miga(found: scores.Scores, order: list[int] | None) -> bytes:
  if len(found.class_names) != MIGA_CLASSES:
    raise errors.DataError("miga", expected=f"{MIGA_CLASSES} classes", got=len(found.class_names))
  return _zipped(found, "miga", r"[0-9]{4}_(0|[1-9][0-9]*)", "'0054_3', video and clip")


def miga_emotion(found: scores.Scores, order: list[int] | None) -> bytes:
  if found.class_names != EMOTIONS:
    expected, got = " and ".join(EMOTIONS), f"{len(found.class_names)} classes"
    raise errors.DataError("miga_emotion", expected=expected, got=got)
  return _zipped(found, "miga_emotion", "[0-9]{4}", "'0054', of videos")


def _zipped(found, name, pattern, example):
  wrong = [id for id in found.ids if not re.fullmatch(pattern, id)]
  if wrong:
    got = f"{len(wrong)} others: {', '.join(map(repr, wrong[:5]))}"
    raise errors.DataError(name, expected=f"ids such as {example}", got=got)
  labels = found.probabilities.argmax(axis=1)
  pairs = zip(found.ids, labels, strict=True)
  lines = sorted(pairs, key=lambda pair: tuple(map(int, pair[0].split("_"))))
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, "w") as archive:
    member = zipfile.ZipInfo("Submission.csv")  # dated 1980: the same scores give the same bytes
    archive.writestr(member, "".join(f"{id},{label}\n" for id, label in lines))
  return stream.getvalue()


def pyskl(found: scores.Scores, order: list[int] | None) -> bytes:
  if order is None:
    hint = "its rows are the order of the list"
    raise errors.ConfigError("--data is required for --format=pyskl", hint=hint)
  content = pickle.dumps([*np.float32(found.probabilities[order])], protocol=2)
  # Where the name of a module is plain text, that of NumPy 1, which NumPy 2 knows as well.
  return content.replace(b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n")


FORMATS = {"miga": miga, "miga_emotion": miga_emotion, "pyskl": pyskl}

if __name__ == "__main__":
  launch.command(run, define, devices=False)
