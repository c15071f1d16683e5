"""What a data set declares, and how it cuts its recordings into clips.

Used as `prepared.Builder`, `Example` and `by_subject`: see `jaxmg.data.prepared`, which writes it.
"""

import abc
import dataclasses
import functools
import json
import pathlib
import unicodedata
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from tensorflow_datasets.core import dataset_builder

from jaxmg import fields
from jaxmg.data import readers, records, source
from jaxmg.errors import ConfigError, DataError

COLUMNS = ("id", "subject", "recording", "label")  # of the index

# A clip's columns of the index (id, subject, recording, label) -> "train", "test" or None.
Protocol = Callable[[Mapping[str, Any]], str | None]


@dataclasses.dataclass(frozen=True, eq=False)
class Example:
  """One clip; its label is a class's name or number, or -1 where it is hidden.

  `clip` is what its track writes: of poses, a `readers.Clip`. `recording` names what it was cut
  from (default: its id). `id`, `subject` and `recording` are text of 1 to 200 bytes without control
  characters, and no paths.
  """

  id: str
  label: str | int
  subject: str
  clip: Any
  recording: str = ""


class Builder(dataset_builder.FileReaderBuilder, skip_registration=True):
  """A data set: a subclass declares what stands below, and cuts its recordings into clips.

  The directory is named by the class (`DeskWork` -> desk_work) or, for a class called `Builder`, by
  its module (`desk_work_dataset_builder`).
  """

  VERSION = tfds.core.Version("1.0.0")

  track: Any  # what is written of the clips: `tracks.Pose(...)`
  track_name = "pose"  # its folder
  class_names: tuple[str, ...]  # may be none where all labels are hidden
  class_short_names: tuple[str, ...] | None = None  # for word embeddings
  class_groups: tuple[str, ...] | None = None  # of each class: the part of the body, say
  mirror: bool = True  # whether a mirrored clip keeps its label
  told = readers.Told()  # what raw files leave open: axes, points, frame_size
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
      fields.make(type(self.track), json.loads(json.dumps(fields.to_json(self.track))))
    except ValueError as error:
      raise ConfigError(f"{self.name}: {error}") from error
    self._check_declared()
    if layout not in (None, str(self.track)):
      raise ConfigError("layout", expected=self.track, got=layout)
    if self.told != readers.Told() and "layout" not in self.track.about:
      raise ConfigError("--points, --axes, --frame_size", expected="none", got=str(self.track))
    self.notes: list[str] = []  # what was left out or cut
    self.ids_there: frozenset[str] | None = None  # of the set that the track is added to
    if self.mirror and (sides := source.left_and_right(self.class_names)):
      self.notes.append(f"{sides}: prepare --no_mirror, or mirror = False in the builder")
    super().__init__(data_dir=data_dir, file_format="array_record")

  def _check_declared(self) -> None:
    """Raises DataError for what would only be noticed when all is written."""
    names = self.class_names
    texts = isinstance(names, list | tuple) and all(isinstance(name, str) for name in names)
    distinct = "a tuple of different texts"
    for field, right, expected in (
      ("class_names", texts and len(names) == len(set(names)), distinct),
      ("class_short_names", _fits(self.class_short_names, names), "a text for each class"),
      ("class_groups", _fits(self.class_groups, names), "a text for each class"),
    ):
      if not right:
        raise DataError(f"{self.name}: {field}", expected=expected, got=getattr(self, field))

  def recordings(self) -> Iterable[tuple[Any, Any]]:
    """Yields what is read by itself, in the order of the rows.

    Each is a pair: the `pathlib.Path` of a file or folder that the track reads (`read_file`), or
    any other thing; and what `clips` has to know of it. Both are given to `clips`, the file as what
    it holds, of poses a `readers.Clip`. Files may be read in other processes, and those in whole
    shards of a killed `write` are not read again: nothing but this pair may decide what comes of a
    recording, and its second part must show all that it holds in its `repr`, by which a change is
    noticed.

    By default it is one pair of Nones, for a builder whose `clips` reads `self.raw` itself.
    """
    yield None, None

  @abc.abstractmethod
  def clips(self, recording: Any, known: Any) -> Iterator[Example]:
    """Yields the clips of one recording, in the order of their rows."""

  def takes(self, id: str) -> bool:
    """Whether a clip may be written; one that the set does not have is noted, and left out.

    For `clips` of a track that may have more clips than the first one of the set. Any other such
    clip is an error.
    """
    if self.ids_there is None or id in self.ids_there:
      return True
    self.notes.append(f"clip {id} is not in the set and is left out")
    return False

  def _info(self) -> tfds.core.DatasetInfo:
    info = functools.partial(tfds.core.DatasetInfo, builder=self, description=self.__doc__)
    if self.pkg_dir_path is not None:  # there are README.md and CITATIONS.bib beside the builder
      info = self.dataset_info_from_configs
    found = info(
      features=records.features(self.track),
      disable_shuffling=True,  # rows in the order of `clips`; the pipeline shuffles
    )
    # TFDS would ask a bucket of Google's for what it knows of every set that is not there yet, and
    # would leave an empty folder among the temporary files each time.
    found.initialize_from_bucket = lambda: None
    return found

  def _download_and_prepare(self, dl_manager, download_config=None):
    # TFDS wants one, and calls it in a folder that has a new name each time: no place to go on in.
    raise NotImplementedError("jaxmg.data.prepared.write does it")

  def records(self, example: Example) -> Iterator[dict[str, np.ndarray]]:
    """Yields what is written of a clip; DataError for one that does not fit the track."""
    try:
      for record in self.track.records(example.clip):
        for name, value in record.items():
          if not isinstance(value, np.ndarray):
            raise ValueError(f"{name}: expected an array, got {type(value).__name__}")
        yield record
    except ValueError as error:
      raise DataError(f"{self.name}: clip {example.id!r}: {error}") from error


def columns(name: str, example: Example, class_names: Sequence[str]) -> dict[str, Any]:
  """What the index of a set of this name says of a clip; DataError for what cannot be."""
  label = example.label
  if label in class_names:
    label = class_names.index(label)
  recording = example.recording or example.id
  last = len(class_names) - 1
  whole = isinstance(label, (int, np.integer)) and not isinstance(label, bool)
  words = "1 to 200 printable bytes that are no path"
  plain = "no blanks around it, and NFC (two that look alike are two)"
  for field, right, expected, got in (
    ("id", _is_name(example.id), words, "another"),
    ("id", _is_plain(example.id), plain, "another"),
    ("subject", _is_name(example.subject), words, repr(example.subject)),
    ("subject", _is_plain(example.subject), plain, repr(example.subject)),
    ("recording", _is_name(recording), words, repr(recording)),
    (
      "label",
      whole and -1 <= label <= last,
      f"a class name, or an integer from -1 to {last}",
      repr(label),
    ),
  ):
    if not right:
      where = f"{name}: clip {example.id!r}: {field}"
      hint = "do labels begin at 1? the first is 0" if label == last + 1 else None
      raise DataError(where, expected=expected, got=got, hint=hint)
  values = (example.id, example.subject, recording, int(label))
  return dict(zip(COLUMNS, values, strict=True))


def rows(name: str, protocol: Protocol, clips: Mapping[str, list]) -> dict[str, list[int]]:
  """Which rows of an index's columns a protocol trains and tests on."""
  found = {"train": [], "test": []}
  for row, values in enumerate(zip(*clips.values(), strict=True)):
    split = protocol(dict(zip(clips, values, strict=True)))
    if split is None:
      continue
    if split not in ("train", "test"):
      expected = "train, test or None for each clip"
      raise DataError(f"protocol {name!r}", expected=expected, got=repr(split))
    found[split].append(row)
  return found


def _fits(texts: Any, names: Collection[str]) -> bool:
  return texts is None or (len(texts) == len(names) and all(isinstance(x, str) for x in texts))


def by_subject(*, train: Iterable[Any]) -> Protocol:
  """The protocol that trains on these subjects, named by texts, and tests on all others."""
  names = frozenset([train] if isinstance(train, str) else train)
  if wrong := [name for name in names if not isinstance(name, str)]:
    raise ConfigError("by_subject: train", expected="texts, as subjects are", got=wrong[0])
  return BySubject(names)


@dataclasses.dataclass(frozen=True)
class BySubject:
  names: frozenset[str]

  def __call__(self, clip: Mapping[str, Any]) -> str:
    return "train" if clip["subject"] in self.names else "test"


def without_clips(protocol: Protocol, subjects: Iterable[str]) -> list[str]:
  """Whom of the subjects that a protocol trains on by name no clip shows."""
  names = protocol.names if isinstance(protocol, BySubject) else frozenset()
  return sorted(names.difference(subjects))


def few(texts: Sequence[str]) -> str:
  """The first of them."""
  return ", ".join(map(repr, texts[:5])) + ", ..." * (len(texts) > 5)


def _is_name(text: Any) -> bool:
  """Whether a text is safe on a terminal, in a file and as the name of one."""
  if not (isinstance(text, str) and text.isprintable() and 0 < len(text.encode()) <= 200):
    return False
  return text[0] not in ".~" and not set(text) & set("/\\")


def _is_plain(text: Any) -> bool:
  """Whether no other text looks the same."""
  return not isinstance(text, str) or text == text.strip() == unicodedata.normalize("NFC", text)
