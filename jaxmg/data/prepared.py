"""The writer's side of a prepared directory: pose clips -> ArrayRecord shards and `index.json`.

A data set is a subclass of `Builder`, which is TFDS's; `write` prepares it, and
`jaxmg.data.source.Source` reads the outcome:

  class Desk(prepared.Builder):
    skeleton = "openpose25"
    class_names = ("idle", "scratching", "typing")
    frame_size = (720, 1280)
    protocols = {"xsub": prepared.by_subject(train=("ann", "bob"))}

    def clips(self):
      for line in csv.DictReader(open(self.raw / "labels.csv")):
        clip = readers.read(self.raw / line["file"])
        yield prepared.Example(line["file"], line["class"], line["subject"], clip)

  prepared.write(Desk, raw="recordings", data_dir="data")     # data/desk/1.0.0/
"""

import abc
import collections
import contextlib
import dataclasses
import functools
import io
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
import tqdm

from jaxmg.data import readers, source
from jaxmg.errors import ConfigError, DataError
from jaxmg.skeletons import topology

INDEX = "index.json"  # written last: a directory without it is half made

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


class Builder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A data set of pose clips: a subclass declares what stands below, and `clips` reads `self.raw`.

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
    if layout not in (None, str(self.skeleton)):
      raise ConfigError("layout", expected=self.skeleton, got=layout)
    self.notes: list[str] = []  # what `clips` left out or cut, for the index
    super().__init__(data_dir=data_dir, file_format="array_record")

  @abc.abstractmethod
  def clips(self) -> Iterator[Example]:
    """Yields all clips, in the order of their rows."""

  def _info(self) -> tfds.core.DatasetInfo:
    pose = (None, self.num_persons, self._skeleton.num_joints, 3)
    features = {
      "id": tfds.features.Text(),
      "label": np.int64,
      "subject": tfds.features.Text(),
      "video": tfds.features.Text(),
      "num_frames": np.int64,
      "frame_size": tfds.features.Tensor(shape=(2,), dtype=np.int32),
      "keypoints": _array(pose),
    }
    if self.joints3d:
      features["joints3d"] = _array(pose)
    info = functools.partial(tfds.core.DatasetInfo, builder=self, description=self.__doc__)
    if self.pkg_dir_path is not None:  # there are README.md and CITATIONS.bib beside the builder
      info = self.dataset_info_from_configs
    return info(
      features=tfds.features.FeaturesDict(features),
      disable_shuffling=True,  # rows in the order of `clips`; the pipeline shuffles
    )

  def _split_generators(self, dl_manager):
    return {"clips": self._generate_examples()}  # `all` is TFDS's name for the union of splits

  def _generate_examples(self):
    ids = set()
    for example in tqdm.tqdm(self.clips(), desc=self.name, unit=" clips", disable=None):
      record = self._record(example)
      if example.id in ids:
        raise DataError(f"{self.name}: clip {example.id!r}", expected="an id of its own", got="two")
      ids.add(example.id)
      yield example.id, record
    if not ids:
      raise DataError(self.raw, expected="at least one clip", got="none")

  def _record(self, example: Example) -> dict[str, Any]:
    clip, label = example.clip, example.label
    if label in self.class_names:
      label = self.class_names.index(label)
    video = example.video or example.id
    frame_size = clip.frame_size or self.frame_size
    num_persons, last = clip.keypoints.shape[1], len(self.class_names) - 1
    whole = isinstance(label, (int, np.integer)) and not isinstance(label, bool)
    name = "1 to 200 printable bytes that are no path"
    for field, right, expected, got in (
      ("id", _is_name(example.id), name, "another"),
      ("subject", _is_name(example.subject), name, repr(example.subject)),
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
      "label": label,
      "subject": example.subject,
      "video": video,
      "num_frames": len(clip.keypoints),
      "frame_size": np.array(frame_size, np.int32),
    }
    absent = [(0, 0), (0, self.num_persons - num_persons), (0, 0), (0, 0)]
    for name in ("keypoints", "joints3d") if self.joints3d else ("keypoints",):
      record[name] = np.pad(getattr(clip, name), absent)
    return record


def by_subject(*, train: Collection[str]) -> Protocol:
  """The protocol that trains on these subjects and tests on all others."""
  return lambda clip: "train" if clip["subject"] in train else "test"


def directory(builder: type[Builder], data_dir: str | pathlib.Path) -> pathlib.Path:
  return pathlib.Path(data_dir, builder.name, str(builder.VERSION))


def write(
  builder: type[Builder],
  *,
  raw: str | pathlib.Path,
  data_dir: str | pathlib.Path,
  layout: str | None = None,
) -> pathlib.Path:
  """Prepares a data set and returns its directory, `data_dir/<name>/<version>`.

  One that is there and whole is left as it is; a half-made one is made again. `layout` says
  which of the layouts that a data set comes in.

  Raises:
    DataError: missing or faulty raw files, repeated ids, a clip or subject on both sides of a
      protocol.
    ConfigError: a layout that the data set does not come in, or was not prepared in.
  """
  path = directory(builder, data_dir)
  if (path / INDEX).exists():
    there = source.Source(path).skeleton
    if layout is not None and str(readers.find_layout(layout)) != there:
      raise ConfigError(path, expected=layout, got=there, hint="remove it, or prepare elsewhere")
    then = json.loads((path / INDEX).read_text(encoding="utf-8")).get("made_of")
    if then and pathlib.Path(raw).exists() and then != (now := _made_of(pathlib.Path(raw))):
      raise ConfigError(path, expected=now, got=then, hint="remove it, or take another --name")
    return path
  if not (pathlib.Path(raw).is_dir() or (builder.is_format and pathlib.Path(raw).is_file())):
    raise DataError(raw, expected="the folder of the raw files", got="no such folder")
  if path.exists():
    shutil.rmtree(path)
  made = builder(raw=raw, data_dir=data_dir, layout=layout)
  tfds.disable_progress_bar()
  try:
    # TFDS prints, and would keep an empty folder for downloads in `data_dir`.
    with tempfile.TemporaryDirectory() as downloads, contextlib.redirect_stdout(io.StringIO()):
      made.download_and_prepare(download_dir=downloads)
    part = path / f"{INDEX}.part"
    part.write_text(json.dumps(_index(made, path)), encoding="utf-8")
    os.replace(part, path / INDEX)
    whole = source.Source(path)
    for protocol in whole.protocols:
      whole.rows("train", protocol=protocol)  # checks it
  except BaseException:
    shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(OSError):
      path.parent.rmdir()  # which TFDS made, unless it holds another version
    raise
  return path


def _array(shape: tuple[int | None, ...]) -> tfds.features.Tensor:
  # BYTES writes several times faster than the default.
  return tfds.features.Tensor(shape=shape, dtype=np.float32, encoding=tfds.features.Encoding.BYTES)


def _made_of(raw: pathlib.Path) -> str:
  """Which file or folder a set named by it was made of."""
  files = [raw] if raw.is_file() else [path for path in raw.rglob("*") if path.is_file()]
  return f"{raw.name} of {sum(path.stat().st_size for path in files)} bytes"


def _index(builder: Builder, path: pathlib.Path) -> dict[str, Any]:
  """Reads the shards back, so that row i of the index is record i."""
  clips = collections.defaultdict(list)
  for record in tfds.builder_from_directory(path).as_data_source("all"):
    for name in ("id", "subject", "video"):
      clips[name].append(record[name].decode())
    for name in ("label", "num_frames"):
      clips[name].append(int(record[name]))
    clips["digest"].append(source.digest(record))
  counts = collections.Counter(filter(None, clips["digest"]))
  if copies := sum(count for count in counts.values() if count > 1):
    builder.notes.append(f"{copies} clips have the key points of another one")
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
    "made_of": _made_of(builder.raw) if builder.is_format else None,
    "notes": builder.notes,
    "clips": clips,
    "shared_subjects": list(builder.shared_subjects),
    "protocols": {name: _rows(protocol, clips) for name, protocol in builder.protocols.items()},
  }


def _rows(protocol: Protocol, clips: Mapping[str, list]) -> dict[str, list[int]]:
  rows = {"train": [], "test": []}
  for row, values in enumerate(zip(*clips.values(), strict=True)):
    split = protocol(dict(zip(clips, values, strict=True)))
    if split is not None:
      rows[split].append(row)
  return rows


def _is_name(text: Any) -> bool:
  """Whether a text is safe on a terminal, in a file and as the name of one."""
  if not (isinstance(text, str) and text.isprintable() and 0 < len(text.encode()) <= 200):
    return False
  return text[0] not in ".~" and not set(text) & set("/\\")
