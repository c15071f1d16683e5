"""Which clips the weights of a run have seen: its own, and those of the runs that it began with.

And those of the encoders of a fusion.
"""

import contextlib
import pathlib
from collections.abc import Collection, Mapping
from typing import Any

from jaxmg.data.source import Source
from jaxmg.errors import DataError
from jaxmg.recipe import Recipe
from jaxmg.training import checkpoints


def of(run: pathlib.Path, recipe: Recipe) -> list[Mapping[str, Any] | None]:
  """What the weights were trained on, as recipes hold it, the last first; None: is not known."""
  # Not by config.json, which a copy may lack: imported weights have no fingerprint of data.
  if not checkpoints.fingerprint(run / "checkpoints"):
    return [None]
  found = [recipe.data]
  for one in found:  # to which the loop adds
    if one is not None and "began_with" in one:
      found.append(one["began_with"])
    found += (one or {}).get("encoders", {}).values()
  return found


def seen(trained: Mapping[str, Any], data: Source, tracks: Collection[str]) -> set[int] | None:
  """The rows of a set with clips that were `trained` on; None if it is not known which these are.

  They are known by their ids or by the content of a track, where the set of the training is there
  or is the same but for its tracks. All rows count if it has the same clips with other protocols.
  """
  sets = [data]
  if trained["directory"]:  # of arrays it is None
    with contextlib.suppress(DataError):
      sets.insert(0, Source(trained["directory"]))
  theirs = next((one for one in sets if one.clips_fingerprint() == trained["clips"]), None)
  if theirs is None:
    return set(range(len(data))) if data.ids_fingerprint() == trained["ids"] else None
  rows = theirs.rows("train", protocol=trained["protocol"], fold=trained["fold"]).tolist()
  ids = {theirs.ids[row] for row in rows}
  found = {row for row, id in enumerate(data.ids) if id in ids}
  for name in {*tracks} & {*theirs.track_names}:
    ours, of = data.track(name), theirs.track(name)
    contents = dict(zip(of.rows.tolist(), of.contents.tolist(), strict=True))
    copies = {contents.get(row) for row in rows} - {None, ""}  # "": there is nothing in it
    pairs = zip(ours.rows.tolist(), ours.contents.tolist(), strict=True)
    found |= {row for row, content in pairs if content in copies}
  return found
