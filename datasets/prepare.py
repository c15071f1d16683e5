"""Raw files -> a prepared directory that training reads: ArrayRecord shards and their index.

  jaxmg prepare utd_mhad --manual_dir=RAW --data_dir=DATA
  jaxmg prepare imigue --manual_dir=RAW --data_dir=DATA --layout=imigue35
  jaxmg prepare pyskl_pickle --manual_dir=ntu60.pkl --data_dir=DATA
  jaxmg prepare video_folder --manual_dir=VIDEOS --data_dir=DATA --name=desk

writes DATA/<name>/<version>/, here of utd_mhad, imigue, ntu60 and desk; --name gives another name.
What RAW holds, says datasets/<name>/README.md. --track=video adds the video to the set that is
there, or makes it, where a data set has some. The same command again leaves a whole directory as it
is; one that was killed goes on where it was, in DATA/<name>/<version>.part/.
"""

import argparse
import importlib
import os
import pathlib
import re
import sys
import time

from etils import epath

from jaxmg import errors
from jaxmg.data import prepared, readers, records, source

FOLDER = pathlib.Path(__file__).resolve().parent


def load(name: str, track: str | None = None) -> type[prepared.Builder]:
  """The builder in datasets/<name>/<name>_dataset_builder.py, here or where jaxmg is.

  A module may have others beside its `Builder`, each of another track.
  """
  suffix = "_dataset_builder"
  folders = (FOLDER, pathlib.Path("datasets").resolve())  # of two of one name, ours
  paths = [path for folder in reversed(folders) for path in sorted(folder.glob(f"*/*{suffix}.py"))]
  found = {path.stem.removesuffix(suffix): path.parent for path in paths}
  if name not in found:
    hint = errors.meant(name, found) or f"your own: datasets/{name}/{name}{suffix}.py"
    raise errors.ConfigError("data set", expected=" or ".join(found), got=name, hint=hint)
  for folder in folders:
    if str(folder) not in sys.path:  # ours is there when this file is the script
      sys.path.append(str(folder))
  module = importlib.import_module(f"{name}.{name}{suffix}")
  builder = module.Builder
  if track is not None:
    builders = {
      one.track_name: one
      for one in vars(module).values()
      if isinstance(one, type) and issubclass(one, builder)
    }
    if track not in builders:
      raise errors.ConfigError(errors.unknown("--track", builders, track))
    builder = builders[track]
  # TFDS takes README.md and CITATIONS.bib from there.
  builder.pkg_dir_path = epath.Path(found[name])
  return builder


def changed(
  builder: type[prepared.Builder], name: str | None, raw: str, *, mirror: bool, told: readers.Told
) -> type[prepared.Builder]:
  """The builder under the name that its data set gets, perhaps without the mirror, with `told`."""
  if name is None and builder.is_format:
    name = re.sub(r"\W", "_", pathlib.Path(raw).stem, flags=re.ASCII).lower()
  if name is not None and not re.fullmatch("[a-z][a-z0-9_]{0,99}", name):
    raise errors.ConfigError("--name", expected="a letter, then a-z, 0-9 or _", got=repr(name))
  changes = {"__module__": builder.__module__, "name": name or builder.name}
  changes |= {} if mirror else {"mirror": False}
  changes |= {} if told == readers.Told() else {"told": told}
  return type(builder.__name__, (builder,), changes)


def summary(data: source.Source, track: records.Track) -> str:
  """What was prepared, for the eye: sizes, protocols, notes, classes that no protocol can learn."""
  lines = [
    f"{len(track.rows)} clips, {len(data.class_names)} classes, "
    f"{len(set(data.subjects))} subjects, "
    f"{track.kind}" + (", synthetic" if data.synthetic else "")
  ]
  for name, rows in data.protocols.items():
    learned = set(data.labels[rows["train"]])
    missing = [name for k, name in enumerate(data.class_names) if k not in learned]
    train, test = len(rows["train"]), len(rows["test"])
    lines.append(f"{name}: {train} to train, {test} to test")
    if train + test < len(data):
      lines[-1] += f", {len(data) - train - test} left out"
    if missing and train:
      lines.append(f"{name}: no training clip of {', '.join(missing)}")
  notes, where = track.notes, track.folder / prepared.TRACK
  lines += [*notes[:5], *[f"and {len(notes) - 5} more notes in {where}"] * (len(notes) > 5)]
  return "\n".join(f"  {line}" for line in lines)


class _Parser(argparse.ArgumentParser):
  def error(self, message):
    raise errors.ConfigError(message)


def main(argv: list[str] | None = None) -> int:
  parser = _Parser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
  parser.add_argument("data_set", help="a folder of datasets/")
  parser.add_argument("--manual_dir", required=True, help="the raw files: a folder, or one file")
  parser.add_argument("--data_dir", required=True, help="where prepared data sets are kept")
  parser.add_argument(
    "--track", help="which data of the clips, where there are several: pose, video, faces"
  )
  parser.add_argument("--layout", help="of the joints: one of ours, or a JSON file of your own")
  parser.add_argument("--name", help="of the prepared set, where the usual one will not do")
  parser.add_argument(
    "--no_mirror", action="store_true", help="left and right are classes: do not mirror"
  )
  parser.add_argument(
    "--points", choices=("keypoints", "joints3d"), help="x, y in pixels and a score, or metres"
  )
  parser.add_argument("--frame_size", help="HEIGHTxWIDTH of the pictures, in pixels")
  parser.add_argument("--axes", help="of arrays, like MTVC")
  parser.add_argument(
    "--jobs",
    type=int,
    default=len(os.sched_getaffinity(0)),
    help="processes that read raw files, where these are 64 MB or more",
  )

  def body():
    args = parser.parse_args(argv)
    if args.jobs < 1:
      raise errors.ConfigError("--jobs", expected="at least 1", got=args.jobs)
    told = readers.Told(
      frame_size=args.frame_size and readers.frame_size(args.frame_size),
      axes=args.axes,
      points=args.points,
    )
    options = {"mirror": not args.no_mirror, "told": told}
    builder = changed(load(args.data_set, args.track), args.name, args.manual_dir, **options)
    path = prepared.directory(builder, args.data_dir)
    whole = source.is_whole(path, builder.track_name)
    start = time.perf_counter()
    prepared.write(
      builder, raw=args.manual_dir, data_dir=args.data_dir, layout=args.layout, jobs=args.jobs
    )
    seconds = time.perf_counter() - start
    print(
      f"{path} is whole, and left as it is; after a change in raw files or builder, remove it first"
      if whole
      else f"{path} made in {seconds:.0f} s"
    )
    data = source.Source(path)
    print(summary(data, data.track(builder.track_name)))

  return errors.exit_code(body)


if __name__ == "__main__":
  sys.exit(main())
