"""The writer's side of a prepared directory: pose clips -> ArrayRecord shards and `index.json`.

A data set is a subclass of `Builder`, which is TFDS's; `write` prepares it, and
`jaxmg.data.source.Source` reads the outcome:

  class Desk(prepared.Builder):
    skeleton = "openpose25"
    class_names = ("idle", "scratching", "typing")
    frame_size = (720, 1280)
    protocols = {"xsub": prepared.by_subject(train=("ann", "bob"))}

    def recordings(self):
      for line in csv.DictReader(open(self.raw / "labels.csv")):
        yield self.raw / line["file"], line

    def clips(self, recording, line):
      yield prepared.Example(line["file"], line["class"], line["subject"], recording)

  prepared.write(Desk, raw="recordings", data_dir="data")     # data/desk/1.0.0/

Records are written as they come: memory does not grow with the set. Until it is whole, a set is
called `1.0.0.part`; a `write` that was killed goes on there after its last whole shard.
"""

import abc
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
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_builder

from jaxmg import files, progress
from jaxmg.data import readers, recordings, shards, source
from jaxmg.errors import ConfigError, DataError
from jaxmg.skeletons import topology

INDEX = "index.json"
COLUMNS = ("id", "subject", "video", "label", "num_frames", "digest")  # of the index

_MOVE = "move it away, or prepare elsewhere"

# A clip's columns of the index (id, label, subject, video, num_frames) -> "train", "test" or None.
Protocol = Callable[[Mapping[str, Any]], str | None]


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
  """One clip; its label is a class's name or number, or -1 where it is hidden.

  `video` is the recording that it was cut from (default: its id). `id`, `subject` and
  `video` are text of 1 to 200 bytes without control characters, and no paths.
  """

  id: str
  label: str | int
  subject: str
  clip: readers.Clip
  video: str = ""


class Builder(dataset_builder.FileReaderBuilder, skip_registration=True):
  """A data set of pose clips: a subclass declares what stands below, and cuts its recordings.

  The directory is named by the class (`DeskWork` -> desk_work) or, for a class called `Builder`, by
  its module (`desk_work_dataset_builder`).
  """

  VERSION = tfds.core.Version("1.0.0")

  skeleton: readers.Layout  # of all clips: the name of one of ours, or a Skeleton of one's own
  class_names: tuple[str, ...]
  class_short_names: tuple[str, ...] | None = None  # for word embeddings
  class_groups: tuple[str, ...] | None = None  # of each class: the part of the body, say
  frame_size: tuple[int, int]  # height, width, where a clip has none of its own
  fps: float | None = None
  num_persons: int = 1  # the most in any clip
  joints3d: bool = False  # whether the clips have them
  mirror: bool = True  # whether a mirrored clip keeps its label
  synthetic: bool = False
  protocols: Mapping[str, Protocol]  # the first is the default
  shared_subjects: Collection[str] = ()  # protocols across cameras: the same people on both sides
  is_format = False  # of files, not one data set: each set is named by its file, or `--name`

  def __init_subclass__(cls, **kwargs):
    super().__init_subclass__(skip_registration=True)  # builders are found by their folder

  def __init__(
    self, *, raw: str | pathlib.Path, data_dir: str | pathlib.Path, layout: str | None = None
  ):
    self.raw = pathlib.Path(raw)
    try:
      self._skeleton = topology.get(self.skeleton)
      ours = self._skeleton in topology.SKELETONS.values()
      self.skeleton_definition = None if ours else topology.to_json(self._skeleton)
    except ValueError as error:
      raise ConfigError(f"{self.name}: {error}") from error
    self._check_declared()
    if layout not in (None, str(self.skeleton)):
      raise ConfigError("layout", expected=self.skeleton, got=layout)
    self.notes: list[str] = []  # what was left out or cut, for the index
    super().__init__(data_dir=data_dir, file_format="array_record")

  def _check_declared(self) -> None:
    """Raises DataError for what would only be noticed when all is written."""
    names, size = self.class_names, self.frame_size
    texts = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    distinct = "a tuple of one and more different texts"
    for field, right, expected in (
      ("class_names", texts and 0 < len(names) == len(set(names)), distinct),
      ("num_persons", isinstance(self.num_persons, int) and self.num_persons > 0, "1 or more"),
      ("frame_size", len(size) == 2 and min(size) > 0, "height and width above 0"),
      ("class_short_names", _fits(self.class_short_names, names), "a text for each class"),
      ("class_groups", _fits(self.class_groups, names), "a text for each class"),
    ):
      if not right:
        raise DataError(f"{self.name}: {field}", expected=expected, got=getattr(self, field))

  def recordings(self) -> Iterable[tuple[Any, Any]]:
    """Yields what is read by itself, in the order of the rows.

    Each is a pair: the `pathlib.Path` of a file or folder for `readers.read`, or any other thing;
    and what `clips` has to know of it. Both are given to `clips`, the file as the `readers.Clip`
    that it holds. Files may be read in other processes, and those in whole shards of a killed
    `write` are not read again: nothing but this pair may decide what comes of a recording, and its
    second part must show all that it holds in its `repr`, by which a change is noticed.

    By default it is one pair of Nones, for a builder whose `clips` reads `self.raw` itself.
    """
    yield None, None

  @abc.abstractmethod
  def clips(self, recording: Any, known: Any) -> Iterator[Example]:
    """Yields the clips of one recording, in the order of their rows."""

  def _info(self) -> tfds.core.DatasetInfo:
    pose = {"num_persons": self.num_persons, "num_joints": self._skeleton.num_joints}
    info = functools.partial(tfds.core.DatasetInfo, builder=self, description=self.__doc__)
    if self.pkg_dir_path is not None:  # there are README.md and CITATIONS.bib beside the builder
      info = self.dataset_info_from_configs
    found = info(
      features=source.features(**pose, joints3d=self.joints3d),
      disable_shuffling=True,  # rows in the order of `clips`; the pipeline shuffles
    )
    # TFDS would ask a bucket of Google's for what it knows of every set that is not there yet, and
    # would leave an empty folder among the temporary files each time.
    found.initialize_from_bucket = lambda: None
    return found

  def _download_and_prepare(self, dl_manager, download_config=None):
    # TFDS wants one, and calls it in a folder that has a new name each time: no place to go on in.
    raise NotImplementedError("jaxmg.data.prepared.write does it")

  def record(self, example: Example) -> dict[str, Any]:
    """What is written of a clip; DataError for one that does not fit the data set."""
    clip, label = example.clip, example.label
    if label in self.class_names:
      label = self.class_names.index(label)
    video = example.video or example.id
    frame_size = clip.frame_size or self.frame_size
    num_persons, last = clip.keypoints.shape[1], len(self.class_names) - 1
    whole = isinstance(label, (int, np.integer)) and not isinstance(label, bool)
    name = "1 to 200 printable bytes that are no path"
    plain = "no blanks around it, and NFC (two that look alike are two)"
    for field, right, expected, got in (
      ("id", _is_name(example.id), name, "another"),
      ("id", _is_plain(example.id), plain, "another"),
      ("subject", _is_name(example.subject), name, repr(example.subject)),
      ("subject", _is_plain(example.subject), plain, repr(example.subject)),
      ("video", _is_name(video), name, repr(video)),
      (
        "label",
        whole and -1 <= label <= last,
        f"a class name, or an integer from -1 to {last}",
        repr(label),
      ),
      ("layout", topology.get(clip.layout) == self._skeleton, self.skeleton, clip.layout),
      ("persons", num_persons <= self.num_persons, f"at most {self.num_persons}", num_persons),
      ("frame_size", min(frame_size) > 0, "height and width above 0", frame_size),
      ("joints3d", self.joints3d == (clip.joints3d is not None), self.joints3d, not self.joints3d),
    ):
      if not right:
        raise DataError(f"{self.name}: clip {example.id!r}: {field}", expected=expected, got=got)
    if not (clip.joints3d if self.joints3d else clip.keypoints).any():
      self.notes.append(f"clip {example.id} shows nobody")
    record = {
      "id": example.id,
      "label": int(label),
      "subject": example.subject,
      "video": video,
      "num_frames": len(clip.keypoints),
      "frame_size": np.array(frame_size, np.int32),
    }
    absent = self.num_persons - num_persons
    for name in ("keypoints", "joints3d") if self.joints3d else ("keypoints",):
      points = getattr(clip, name)
      record[name] = np.pad(points, [(0, 0), (0, absent), (0, 0), (0, 0)]) if absent else points
    return record


def _fits(texts: Any, names: Collection[str]) -> bool:
  return texts is None or (len(texts) == len(names) and all(isinstance(x, str) for x in texts))


def by_subject(*, train: Iterable[Any]) -> Protocol:
  """The protocol that trains on these subjects, named by texts, and tests on all others."""
  names = frozenset([train] if isinstance(train, str) else train)
  if wrong := [name for name in names if not isinstance(name, str)]:
    raise ConfigError("by_subject: train", expected="texts, as subjects are", got=wrong[0])
  return lambda clip: "train" if clip["subject"] in names else "test"


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
  """Prepares a data set and returns its directory, `data_dir/<name>/<version>`.

  One that is there and whole is left as it is. `layout` says which of the layouts that a data set
  comes in; `jobs` is the number of processes that read raw files, on which nothing else depends (a
  script that asks for several calls this under `if __name__ == "__main__":`).

  Raises:
    DataError: missing or faulty raw files, repeated ids, a clip or subject on both sides of a
      protocol.
    ConfigError: a layout that the data set does not come in, or was not prepared in.
    LockedError: another process is preparing it.
  """
  path = directory(builder, data_dir)
  part = path.with_name(f"{path.name}.part")
  raw = pathlib.Path(raw)
  if (path / INDEX).exists():
    _check_whole(path, raw, layout)
    for name in (shards.JOURNAL, files.LOCK):  # of one that was killed a moment before its end
      (path / name).unlink(missing_ok=True)
    return path
  if not (raw.is_dir() or (builder.is_format and raw.is_file())):
    got = "a file" if raw.exists() else "no such folder"
    raise DataError(raw, expected="the folder of the raw files", got=got)
  _check_place(path, part)
  with files.locked(part):
    if (path / INDEX).exists():  # made by another process meanwhile
      shutil.rmtree(part)
      _check_whole(path, raw, layout)
      return path
    _check_part(builder, part)
    try:
      _fill(builder(raw=raw, data_dir=data_dir, layout=layout), part, jobs)
    except BaseException as error:
      if shards.read_journal(part):
        progress.say(f"{part} holds what is whole: the same command goes on from there")
      else:
        _remove(part)
        if isinstance(error, KeyboardInterrupt):
          progress.say(f"{builder.name}: nothing is kept, as no shard was whole")
      raise
    try:
      made = source.Source(part)
      for protocol in made.protocols:
        made.rows("train", protocol=protocol)  # checks it
    except DataError:
      _remove(part)
      raise
    part.rename(path)
    files.sync(path.parent)
    # Not before: whoever comes in between finds the lock, and its folder gone.
    for name in (shards.JOURNAL, files.LOCK):
      (path / name).unlink(missing_ok=True)
  return path


def _check_whole(path: pathlib.Path, raw: pathlib.Path, layout: str | None) -> None:
  """Raises ConfigError if a prepared set is not that of these files and this layout."""
  there = source.Source(path).skeleton
  if layout is not None and str(readers.find_layout(layout)) != there:
    raise ConfigError(path, expected=layout, got=there, hint="remove it, or prepare elsewhere")
  then = json.loads((path / INDEX).read_text(encoding="utf-8")).get("made_of")
  if then and raw.exists() and then != (now := _made_of(raw)):
    raise ConfigError(path, expected=now, got=then, hint="remove it, or take another --name")


def _check_place(path: pathlib.Path, part: pathlib.Path) -> None:
  """Raises ConfigError where something lies in the way that was not made here."""
  try:
    os.fspath(path).encode()
  except UnicodeEncodeError:
    raise ConfigError(repr(os.fspath(path)), expected="a path in UTF-8", got="another") from None
  for folder in (path.parent.parent, path.parent):
    if folder.exists() and not folder.is_dir():
      raise ConfigError(folder, expected="a folder", got="a file")
  if os.path.lexists(path) and not (path / INDEX).exists():
    got = f"no {INDEX} in it"
    raise ConfigError(path, expected="a prepared set, or nothing", got=got, hint=_MOVE)
  if part.is_symlink() or (part.exists() and not part.is_dir()):
    raise ConfigError(part, expected="a folder", got="a link or a file", hint=_MOVE)


def _check_part(builder: type[Builder], part: pathlib.Path) -> None:
  """Raises ConfigError for a file in an unfinished set that was not made here."""
  ours = "|".join(map(re.escape, (INDEX, shards.JOURNAL, files.LOCK, *shards.INFO)))
  ours = re.compile(rf"(\.part\.)?({ours})|{builder.name}-{shards.SPLIT}\.array_record-\d+")
  for other in sorted(part.iterdir()):
    if not ours.fullmatch(other.name) or other.is_symlink() or not other.is_file():
      raise ConfigError(part, expected="parts of the set alone", got=other.name, hint=_MOVE)


def _remove(part: pathlib.Path) -> None:
  shutil.rmtree(part)
  with contextlib.suppress(OSError):
    part.parent.rmdir()  # unless it holds another version


def _fill(made: Builder, part: pathlib.Path, jobs: int) -> None:
  """Writes the shards of a set and its index, from where a killed process stopped."""
  plan, last_notes = _plan(made)
  made_of = _identities(made, plan)

  def holds(state):
    return state["made of"] in made_of[state["recordings"] - 1 : state["recordings"]]

  writer = shards.Writer(part, made.info, holds=holds)
  columns = {name: [] for name in COLUMNS}
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

  videos = dict(zip(columns["id"], columns["video"], strict=True))
  new = {name: [] for name in COLUMNS}  # of the open shard, as its notes
  noted = len(made.notes)
  readings = recordings.read(plan[first:], made.skeleton, jobs)
  readings = progress.track(readings, made.name, total=len(plan), unit="recordings", done=first)
  for count, (one, recording) in enumerate(readings, first + 1):
    made.notes += one.notes
    for example in _cut(made, one, recording):
      record = made.record(example)
      if example.id in videos:
        got = f"one of video {videos[example.id]} and one of {record['video']}"
        raise DataError(f"{made.name}: clip {example.id!r}", expected="an id of its own", got=got)
      videos[example.id] = record["video"]
      writer.write(record)
      for name in COLUMNS:
        new[name].append(source.digest(record) if name == "digest" else record[name])
    if writer.full or count == len(plan):
      state = {"recordings": count, "made of": made_of[count - 1]}
      writer.close_shard(state | {"columns": new, "notes": made.notes[noted:]})
      for name in COLUMNS:
        columns[name] += new[name]
      new, noted = {name: [] for name in COLUMNS}, len(made.notes)
  made.notes += last_notes
  if not videos:
    raise DataError(made.raw, expected="at least one clip", got="none")
  writer.finish()
  with files.replace(part / INDEX) as index:
    index.write_text(json.dumps(_index(made, columns)), encoding="utf-8")


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


def _identities(made: Builder, plan: list[recordings.Recording]) -> list[str]:
  """For each recording, a hash of what it and those before it are made of: files and code."""
  code = {name: getattr(module, "__file__", None) or "" for name, module in sys.modules.items()}
  builders = {cls.__module__ for cls in type(made).__mro__ if issubclass(cls, Builder)}
  folders = {os.path.dirname(code.get(name, "")) for name in builders}
  parts = ("jaxmg.skeletons.", "jaxmg.pickles")
  # A builder, and what it imports from beside it: for ours, that is jaxmg.data.
  used = {
    file
    for name, file in code.items()
    if os.path.dirname(file) in folders or name.startswith(parts)
  }
  running = hashlib.sha256(_canonical(_declared(made)))
  if not all(os.path.isfile(code.get(name, "")) for name in builders):
    running.update(os.urandom(16))  # a notebook's code cannot be compared: begin again
  for file in sorted(filter(os.path.isfile, used)):
    running.update(pathlib.Path(file).read_bytes())
  if made.is_format:
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


def _index(builder: Builder, clips: Mapping[str, list]) -> dict[str, Any]:
  counts = collections.Counter(filter(None, clips["digest"]))
  if copies := sum(count for count in counts.values() if count > 1):
    builder.notes.append(f"{copies} clips have the key points of another one")
  return {
    **_declared(builder),
    "made_of": _made_of(builder.raw) if builder.is_format else None,
    "notes": builder.notes,
    "clips": clips,
    "shared_subjects": list(builder.shared_subjects),
    "protocols": {
      name: _rows(name, protocol, clips) for name, protocol in builder.protocols.items()
    },
  }


def _declared(builder: Builder) -> dict[str, Any]:
  """What a builder says of its set before any clip is read."""
  return {
    "name": builder.name,
    "version": str(builder.version),
    "skeleton": str(builder.skeleton),
    "skeleton_definition": builder.skeleton_definition,
    "class_names": builder.class_names,
    "class_short_names": builder.class_short_names,
    "class_groups": builder.class_groups,
    "mirror": builder.mirror,
    "joints3d": builder.joints3d,
    "num_persons": builder.num_persons,
    "frame_size": builder.frame_size,
    "fps": builder.fps,
    "synthetic": builder.synthetic,
  }


def _rows(name: str, protocol: Protocol, clips: Mapping[str, list]) -> dict[str, list[int]]:
  rows = {"train": [], "test": []}
  for row, values in enumerate(zip(*clips.values(), strict=True)):
    split = protocol(dict(zip(clips, values, strict=True)))
    if split is None:
      continue
    if split not in ("train", "test"):
      expected = "train, test or None for each clip"
      raise DataError(f"protocol {name!r}", expected=expected, got=repr(split))
    rows[split].append(row)
  return rows


def _is_name(text: Any) -> bool:
  """Whether a text is safe on a terminal, in a file and as the name of one."""
  if not (isinstance(text, str) and text.isprintable() and 0 < len(text.encode()) <= 200):
    return False
  return text[0] not in ".~" and not set(text) & set("/\\")


def _is_plain(text: Any) -> bool:
  """Whether no other text looks the same."""
  return not isinstance(text, str) or text == text.strip() == unicodedata.normalize("NFC", text)
