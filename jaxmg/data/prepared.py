"""The writer's side of a prepared directory: clips -> an index, and ArrayRecord shards of a track.

A data set is a subclass of `Builder`, which is TFDS's; `write` prepares it, and
`jaxmg.data.source.Source` reads the outcome:

  class Desk(prepared.Builder):
    track = tracks.Pose("openpose25", frame_size=(720, 1280))
    class_names = ("idle", "scratching", "typing")
    protocols = {"xsub": prepared.by_subject(train=("ann", "bob"))}

    def recordings(self):
      for line in csv.DictReader(open(self.raw / "labels.csv")):
        yield self.raw / line["file"], line

    def clips(self, recording, line):
      yield prepared.Example(line["file"], line["class"], line["subject"], recording)

  prepared.write(Desk, raw="recordings", data_dir="data")     # data/desk/1.0.0/

A builder whose `track` is of another kind (`jaxmg.data.tracks`), and which yields clips of the same
ids, adds it to the set that is there. Nothing else of the set is touched.

Records are written as they come: memory does not grow with the set. Until it is whole, a set is
called `1.0.0.part`, a track that is added `video.part`; a `write` that was killed goes on there
after its last whole shard.
"""

import collections
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import re
import shutil
import sys
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from jaxmg import fields, files, progress
from jaxmg.data import builders, readers, recordings, records, shards, source, tracks
from jaxmg.data.builders import COLUMNS
from jaxmg.data.builders import Builder as Builder
from jaxmg.data.builders import Example as Example
from jaxmg.data.builders import by_subject as by_subject
from jaxmg.errors import ConfigError, DataError

INDEX, TRACK = source.INDEX, records.TRACK
_OF_TRACK = ("num_frames", "digests", "content")  # the digests of a clip's records

_MOVE = "move it away, or prepare elsewhere"


def directory(builder: type[Builder], data_dir: str | pathlib.Path) -> pathlib.Path:
  return pathlib.Path(data_dir, builder.name, str(builder.VERSION))


def write(
  builder: type[Builder],
  *,
  raw: str | pathlib.Path,
  data_dir: str | pathlib.Path,
  layout: str | None = None,
  jobs: int = 1,
) -> pathlib.Path:
  """Prepares a data set, or adds a track to it; returns its directory, `data_dir/<name>/<version>`.

  What is there and whole is left as it is. `layout` says which of the layouts that a data set
  comes in; `jobs` is the number of processes that read raw files, on which nothing else depends (a
  script that asks for several calls this under `if __name__ == "__main__":`).

  Raises:
    DataError: missing or faulty raw files, repeated ids, a clip or subject on both sides of a
      protocol; a clip of an added track that the set does not have, or has otherwise.
    ConfigError: a layout that the data set does not come in, or was not prepared in.
    LockedError: another process is preparing it.
  """
  path, raw, name = directory(builder, data_dir), pathlib.Path(raw), builder.track_name
  if source.is_whole(path, name):
    _check_whole(builder, path, raw, layout)
    _clean(path, path / name)
    return path
  if not (raw.is_dir() or (builder.is_format and raw.is_file())):
    got = "a file" if raw.exists() else "no such folder"
    hint = f"made up: mkdir {raw}, and it is filled" if builder.synthetic else None
    raise DataError(raw, expected="the folder of the raw files", got=got, hint=hint)
  adds = (path / INDEX).exists()
  final, whole = (path / name, TRACK) if adds else (path, INDEX)
  part = final.with_name(f"{final.name}.part")
  folder = part if adds else part / name  # of the records
  _check_place(final, whole, part)
  with files.locked(part):
    if (final / whole).exists():  # made by another process meanwhile
      shutil.rmtree(part)
      return write(builder, raw=raw, data_dir=data_dir, layout=layout, jobs=jobs)
    _check_part(builder, part, folder)
    for left in part.iterdir() if folder != part else ():  # of a version without tracks
      if left.is_file() and left.name != files.LOCK:
        left.unlink()
    there = source.Source(path) if adds else None
    try:
      made = builder(raw=raw, data_dir=data_dir, layout=layout)
      if there is not None:
        _check_same(made, there)
        made.ids_there = frozenset(there.ids)
      columns = _fill(made, folder, jobs, there)
    except BaseException as error:
      if shards.read_journal(folder):
        progress.say(f"{part} holds what is whole: the same command goes on from there")
      else:
        _remove(part)
        if isinstance(error, KeyboardInterrupt):
          progress.say(f"{builder.name}: nothing is kept, as no shard was whole")
      raise
    try:
      if there is None:
        _write(part / INDEX, _index(made, columns))
      data = source.Source(part) if there is None else there
      for protocol in data.protocols:
        data.rows("train", protocol=protocol)  # checks it
      row_of = {id: row for row, id in enumerate(data.ids)}
      content = _track(made, columns, [row_of[id] for id in columns["id"]])
      _write(folder / TRACK, content | {"index": data.digest})
      data.check_copies(data.read_track(folder))
    except DataError:
      _remove(part)
      raise
    part.rename(final)
    files.sync(final.parent)
    # Not before: whoever comes in between finds the lock, and its folder gone.
    _clean(path, path / name)
  return path


def _check_same(made: Builder, there: source.Source) -> None:
  """Raises ConfigError where a builder of one more track says other things of the set."""
  for name, found, ours in (
    ("class_names", there.class_names, tuple(made.class_names)),
    ("mirror", there.mirror, made.mirror),
    ("synthetic", there.synthetic, made.synthetic),
  ):
    if found != ours:
      raise ConfigError(f"{there.directory}: {name}", expected=found, got=ours)


def _clean(*folders: pathlib.Path) -> None:
  """Removes what only a set that is not whole needs."""
  for folder in folders:
    for name in (shards.JOURNAL, files.LOCK):
      (folder / name).unlink(missing_ok=True)


def _check_whole(
  builder: type[Builder], path: pathlib.Path, raw: pathlib.Path, layout: str | None
) -> None:
  """Raises ConfigError if a track that is there is not that of these files and this layout."""
  name = builder.track_name
  there = source.Source(path).track(name)
  declared = getattr(builder, "track", None)  # None: it depends on the files
  if dataclasses.is_dataclass(declared) and type(declared) is not type(there.kind):
    kinds = (type(kind).__name__ for kind in (there.kind, declared))
    raise ConfigError(f"{path}: {name}", expected=next(kinds), got=next(kinds))
  hint = "remove it, or prepare elsewhere"
  if layout is not None and str(readers.find_layout(layout)) != str(there.kind):
    raise ConfigError(path, expected=layout, got=there.kind, hint=hint)
  wanted = builder.told.points
  if wanted and (wanted == "joints3d") != ("joints3d" in there.about):
    got = "joints3d" if "joints3d" in there.about else str(there.kind)
    raise ConfigError(f"{path}: points", expected=wanted, got=got, hint=hint)
  if source.Source(path).mirror and not builder.mirror:
    raise ConfigError(f"{path}: mirror", expected=False, got=True, hint=hint)
  then = there.made_of
  if then and raw.exists() and then != (now := _made_of(raw)):
    raise ConfigError(path, expected=now, got=then, hint="remove it, or take another --name")


def _check_place(final: pathlib.Path, whole: str, part: pathlib.Path) -> None:
  """Raises ConfigError where something lies in the way that was not made here."""
  try:
    os.fspath(final).encode()
  except UnicodeEncodeError:
    raise ConfigError(repr(os.fspath(final)), expected="a path in UTF-8", got="another") from None
  for folder in (final.parent.parent, final.parent):
    if folder.exists() and not folder.is_dir():
      raise ConfigError(folder, expected="a folder", got="a file")
  if os.path.lexists(final) and not (final / whole).exists():
    expected = f"{'a prepared set' if whole == INDEX else 'a track'}, or nothing"
    raise ConfigError(final, expected=expected, got=f"no {whole} in it", hint=_MOVE)
  if part.is_symlink() or (part.exists() and not part.is_dir()):
    raise ConfigError(part, expected="a folder", got="a link or a file", hint=_MOVE)


def _check_part(builder: type[Builder], part: pathlib.Path, folder: pathlib.Path) -> None:
  """Raises ConfigError for a file in an unfinished set that was not made here."""
  ours = "|".join(map(re.escape, (INDEX, TRACK, shards.JOURNAL, files.LOCK, *shards.INFO)))
  ours = re.compile(rf"(\.part\.)?({ours})|{builder.name}-{shards.SPLIT}\.array_record-\d+")
  found = [*part.iterdir(), *(folder.iterdir() if folder.is_dir() and folder != part else ())]
  for other in sorted(found):
    is_ours = ours.fullmatch(other.name) and other.is_file()
    if (not is_ours and other != folder) or other.is_symlink():
      got = os.fspath(other.relative_to(part))
      raise ConfigError(part, expected="parts of the set alone", got=got, hint=_MOVE)


def _remove(part: pathlib.Path) -> None:
  shutil.rmtree(part)
  with contextlib.suppress(OSError):
    part.parent.rmdir()  # unless it holds another version


def _fill(
  made: Builder, folder: pathlib.Path, jobs: int, there: source.Source | None
) -> dict[str, list]:
  """Writes the records of a track, from where a killed process stopped.

  Returns the columns of index and track. `there` is the set that the track is added to, if it is.
  """
  folder.mkdir(exist_ok=True)
  plan, last_notes = _plan(made)
  made_of = _identities(made, plan, "" if there is None else there.digest)

  def holds(state):
    return state["made of"] in made_of[state["recordings"] - 1 : state["recordings"]]

  writer = shards.Writer(folder, made.info, holds=holds)
  columns = {name: [] for name in (*COLUMNS, *_OF_TRACK)}
  first = 0  # the recording to go on with
  for state in writer.restored:
    first = state["recordings"]
    made.notes += state["notes"]
    for name, values in state["columns"].items():
      columns[name] += values
  if writer.restored:
    done = f"{len(columns['id']):,} clips of {first:,} of {len(plan):,} recordings are there"
    progress.say(f"{made.name}: goes on where it was stopped: {done}")
  if writer.discarded:
    because = "they are damaged, or the raw files, the layout or the code changed"
    progress.say(f"{made.name}: makes {writer.discarded} shards again: {because}")

  of = dict(zip(columns["id"], columns["recording"], strict=True))
  wanted = None if there is None else _by_id(there)
  new = {name: [] for name in columns}  # of the open shard, as its notes
  noted = len(made.notes)
  read_file = made.track.read_file
  if made.told != readers.Told():
    read_file = functools.partial(read_file, told=made.told)
  readings = recordings.read(plan[first:], read_file, jobs)
  readings = progress.track(readings, made.name, total=len(plan), unit="recordings", done=first)
  for count, (one, recording) in enumerate(readings, first + 1):
    made.notes += one.notes
    for example in _cut(made, one, recording):
      clip = builders.columns(made.name, example, made.class_names)
      where = f"{made.name}: clip {example.id!r}"
      if example.id in of:
        got = f"one of recording {of[example.id]} and one of {clip['recording']}"
        raise DataError(where, expected="an id of its own", got=got)
      if wanted is not None and wanted.get(example.id) != clip:
        got = "none" if example.id not in wanted else repr(wanted[example.id])
        raise DataError(where, expected=f"it in {there.directory}, as {clip}", got=got)
      of[example.id] = clip["recording"]
      clip["digests"] = []
      for record in made.records(example):  # one at a time: a clip may be an hour
        writer.write({"id": example.id, **record})
        clip["digests"].append(records.digest(record))
      if not clip["digests"]:
        raise DataError(where, expected="at least one record", got="none")
      clip["num_frames"] = made.track.num_frames(example.clip)
      content = made.track.content(example.clip)
      clip["content"] = "" if content is None else records.digest({"": content})
      if content is None:
        made.notes.append(f"clip {example.id} shows nobody")
      for remark in made.track.remarks(example.clip):
        if not any(note.startswith(f"{remark};") for note in made.notes):
          made.notes.append(f"{remark}; the first is {example.id}")
      for name, value in clip.items():
        new[name].append(value)
    if writer.full or count == len(plan):
      state = {"recordings": count, "made of": made_of[count - 1]}
      writer.close_shard(state | {"columns": new, "notes": made.notes[noted:]})
      for name in columns:
        columns[name] += new[name]
      new, noted = {name: [] for name in columns}, len(made.notes)
  made.notes += last_notes
  if not of:
    raise DataError(made.raw, expected="at least one clip", got="none")
  writer.finish()
  return columns


def _by_id(there: source.Source) -> dict[str, dict[str, Any]]:
  """What a set says of each of its clips."""
  columns = (there.ids, there.subjects.tolist(), there.recordings.tolist(), there.labels.tolist())
  return {row[0]: dict(zip(COLUMNS, row, strict=True)) for row in zip(*columns, strict=True)}


def _cut(made: Builder, one: recordings.Recording, recording: Any) -> Iterator[Example]:
  """The clips of a recording; an error in them says of which."""
  try:
    yield from made.clips(recording, one.known)
  except DataError as error:
    if one.is_file and os.fspath(one.source) not in str(error):
      raise DataError(f"{one.source}: {error}") from error
    raise
  except Exception as error:
    error.add_note(f"in `clips` of {made.name}, called with {one.source} and {one.known!r}")
    raise


def _plan(made: Builder) -> tuple[list[recordings.Recording], list[str]]:
  """All recordings; and the notes made after the last one."""
  plan, before = [], len(made.notes)
  for recording, known in made.recordings():
    if isinstance(recording, str):
      raise DataError(f"{made.name}: a recording", expected="a pathlib.Path", got="text")
    plan.append(recordings.Recording(recording, known, made.notes[before:]))
    del made.notes[before:]
  last = made.notes[before:]
  del made.notes[before:]
  return plan, last


def _identities(made: Builder, plan: list[recordings.Recording], index: str) -> list[str]:
  """For each recording, a hash of what it and those before it are made of: files and code."""
  code = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
  modules = {cls.__module__ for cls in type(made).__mro__ if issubclass(cls, Builder)}
  folders = {os.path.dirname(code.get(name, "")) for name in modules}
  parts = ("jaxmg.skeletons.", "jaxmg.pickles")
  # A builder, and what it imports from beside it: for ours, that is jaxmg.data.
  used = {
    file
    for name, file in code.items()
    if os.path.dirname(file) in folders or name.startswith(parts)
  }
  running = hashlib.sha256(_canonical([_declared(made), _declared_track(made), index]))
  if not all(os.path.isfile(code.get(name, "")) for name in modules):
    running.update(os.urandom(16))  # a notebook's code cannot be compared: begin again
  for file in sorted(filter(os.path.isfile, used)):
    running.update(pathlib.Path(file).read_bytes())
  if made.is_format and not all(one.is_file for one in plan):
    running.update(recordings.stamp(made.raw).encode())
  found = []
  for one in plan:
    running.update(_canonical([one.stamp(), one.known, one.notes]))
    found.append(running.hexdigest())
  return found


def _canonical(value: Any) -> bytes:
  """Bytes that are equal for equal values in every process: `repr` shortens arrays, and a set has
  another order each time.
  """
  if isinstance(value, np.ndarray) and not value.dtype.hasobject:
    return f"{value.dtype}{value.shape}".encode() + value.tobytes()
  if isinstance(value, Mapping):
    return b"{%b}" % b",".join(_canonical(key) + b":" + _canonical(x) for key, x in value.items())
  if isinstance(value, set | frozenset):
    return b"{%b}" % b",".join(sorted(map(_canonical, value)))
  if isinstance(value, list | tuple):
    return b"[%b]" % b",".join(map(_canonical, value))
  return repr(value).encode("utf-8", "surrogatepass")


def _made_of(raw: pathlib.Path) -> str:
  """Which file or folder a set named by it was made of."""
  paths = [raw] if raw.is_file() else files.walk(raw)
  return f"{raw.name} of {sum(path.stat().st_size for path in paths if path.is_file())} bytes"


def _index(builder: Builder, columns: Mapping[str, list]) -> dict[str, Any]:
  clips = {name: columns[name] for name in COLUMNS}
  return {
    **_declared(builder),
    "clips": clips,
    "shared_subjects": list(builder.shared_subjects),
    "protocols": {
      name: builders.rows(name, protocol, clips) for name, protocol in builder.protocols.items()
    },
  }


def _track(builder: Builder, columns: Mapping[str, list], rows: list[int]) -> dict[str, Any]:
  counts = collections.Counter(filter(None, columns["content"]))
  if copies := sum(count for count in counts.values() if count > 1):
    builder.notes.append(f"{copies} clips have the {builder.track_name} of another one")
  for name, protocol in builder.protocols.items():
    if absent := builders.without_clips(protocol, columns["subject"]):
      count = f"{len(absent)} of {len(protocol.names)} subjects to train on"
      builder.notes.append(f"{name}: {count} have no clip: {builders.few(absent)}")
  return {
    **_declared_track(builder),
    "made_of": _made_of(builder.raw) if builder.is_format else None,
    "notes": builder.notes,
    "clips": {
      "row": rows,
      "num_frames": columns["num_frames"],
      "records": [len(digests) for digests in columns["digests"]],
      "content": columns["content"],
    },
    "digests": [digest for digests in columns["digests"] for digest in digests],
  }


def _write(path: pathlib.Path, content: Mapping[str, Any]) -> None:
  content = json.loads(json.dumps(content))  # tuples as lists
  with files.replace(path) as part:
    part.write_text(json.dumps(content | {"sha256": fields.digest(content)}), encoding="utf-8")


def _declared(builder: Builder) -> dict[str, Any]:
  """What a builder says of its set before any clip is read."""
  return {
    "name": builder.name,
    "version": str(builder.version),
    "class_names": builder.class_names,
    "class_short_names": builder.class_short_names,
    "class_groups": builder.class_groups,
    "mirror": builder.mirror,
    "synthetic": builder.synthetic,
  }


def _declared_track(builder: Builder) -> dict[str, Any]:
  (kind,) = (name for name, cls in tracks.TRACKS.items() if type(builder.track) is cls)
  return {"kind": kind, "fields": fields.to_json(builder.track)}
