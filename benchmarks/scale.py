"""Data sets of real sizes, made from a seed: what each command takes of time and memory.

  python -m benchmarks.scale --set=ntu60 --folder=SCALE --out=scale.json

makes SCALE/ntu60.pkl where it is not there, and runs the commands that a user would, each in a
process of its own: prepare, open, the first step of a training, the loader, an evaluation of a
tenth of the test clips, the doctor. The values are random: nothing can be learnt from them.

  ntu60     56,880 clips as an annotation pickle of NTU RGB+D's shape: 17 joints, 1 or 2 persons
  ntu120    114,480 clips of the same kind
  imigue    359 recordings of 8,775 frames, 18,499 clips: an xlsx of 137 points and a csv of 35 for
            each; 12 of either are made, and stand under all 359 names
  bytes     20 GB of records, 2,000 recordings that are made in memory: prepare alone
  video     2 GB of pictures in 1,000 clips, and 50,000 clips of one tiny picture: prepare and open

Seconds are wall clock; memory is the most that a command and its children hold (Linux's Pss),
sampled 20 times a second, in MB. The first step counts from the start of the process to
its line in metrics.jsonl, with all compiled functions in the cache.
"""

import argparse
import json
import os
import pathlib
import pickle
import shutil
import signal
import string
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks import timing
from jaxmg import inputs
from jaxmg.data import pipeline, prepared, readers, source, tracks
from jaxmg.skeletons import topology

ROOT = pathlib.Path(__file__).parents[1]
CLIPS = {"ntu60": 56_880, "ntu120": 114_480}
FILES, FRAMES, IMIGUE_CLIPS, CLIP_FRAMES = 12, 8_775, 18_499, 62
SUBJECTS = ROOT / "datasets" / "imigue" / "imigue_video_to_subject.json"


def main(argv: list[str] | None = None) -> None:
  parser = timing.parser(__doc__)
  parser.add_argument("--set", choices=[*CLIPS, "imigue", "bytes", "video"], required=True)
  parser.add_argument("--folder", type=pathlib.Path, required=True, help="for 1 to 30 GB")
  parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)))
  parser.add_argument("--clips", type=int, help="another number, to try it out in its own folder")
  arguments = parser.parse_args(argv)
  arguments.folder.mkdir(parents=True, exist_ok=True)
  measured = {"bytes": prepare_bytes, "video": prepare_video}.get(arguments.set, commands)
  timing.report(arguments, list(measured(arguments)))


def commands(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
  """Runs the commands of a set one after the other, and yields a row for each."""
  name, folder = arguments.set, arguments.folder.resolve()
  data, run = folder / "data", folder / "runs" / name
  if name == "imigue":
    raw = folder / "imigue"
    write_imigue(raw, clips=arguments.clips or IMIGUE_CLIPS)
    command = ["imigue"]
    file = next(raw.rglob("*.xlsx"))
    seconds = timing.in_new_process(read_xlsx, file)
    rate, size = f"{FRAMES / seconds:,.0f} frames/s", file.stat().st_size / 1e6
    yield {"what": "an xlsx, CPU seconds", "seconds": seconds, "MB": size, "rate": rate}
  else:
    raw = folder / f"{name}.pkl"
    write_pickle(raw, clips=arguments.clips or CLIPS[name])
    command = ["pyskl_pickle"]
  size = sum(file.stat().st_size for file in ([raw] if raw.is_file() else raw.rglob("*.*")))
  yield {"what": "raw files", "seconds": 0.0, "MB": size / 1e6, "rate": ""}

  def row(what, argv, until=None, per=None):
    seconds, memory = measure([sys.executable, *argv], folder / f"{name}.log", until)
    rate = f"{per[0] / seconds:,.0f} {per[1]}/s" if per else ""
    print(f"{what}: {seconds:.1f} s, {memory:.0f} MB {rate}", file=sys.stderr, flush=True)
    return {"what": what, "seconds": seconds, "MB": memory, "rate": rate}

  path = data / name / "1.0.0"
  remove(path.parent)
  flags = [f"--manual_dir={raw}", f"--data_dir={data}", f"--jobs={arguments.jobs}"]
  count = arguments.clips or CLIPS.get(name, IMIGUE_CLIPS)
  yield row("prepare", ["datasets/prepare.py", *command, *flags], per=(count, "clips"))
  records = sum(file.stat().st_size for file in path.glob("pose/*array_record*"))
  yield {"what": "records on the disk", "seconds": 0.0, "MB": records / 1e6, "rate": ""}
  opened = timing.in_new_process(open_set, path)
  yield {"what": "open", "seconds": opened["open"], "MB": opened["MB"], "rate": ""}
  loaded = f"{opened['clips per second']:,.0f} clips/s"
  yield {"what": "loader", "seconds": opened["loader"], "MB": opened["MB"], "rate": loaded}

  protocol = {} if name == "imigue" else {"data.protocol": "tenth_val"}
  settings = {"data.name": name, "data.dir": data, "train.log_every": 1} | protocol
  config = f"experiments/configs/posec3d.py:{name},joint,small"
  train = ["-m", "experiments.posec3d", f"--config={config}", f"--workdir={run}"]
  train += [f"--config.{key}={value}" for key, value in settings.items()]
  metrics = run / "metrics.jsonl"
  for what in ("first step, compiled in it", "first step"):
    remove(run)
    yield row(what, train, until=lambda: metrics.exists() and metrics.stat().st_size)
  tested = len(source.Source(path).rows("test", protocol=protocol.get("data.protocol")))
  evaluate = ["-m", "experiments.evaluate", f"--run={run}", "--step=latest"]
  if name != "imigue":
    yield row("evaluate a tenth, 4 views", evaluate, per=(tested, "clips"))
    yield row("doctor, pickle", ["-m", "experiments.doctor", str(raw)])
  yield row("doctor, prepared", ["-m", "experiments.doctor", str(path)])


def measure(
  command: list[str], log: pathlib.Path, until: Callable[[], Any] | None = None
) -> tuple[float, float]:
  """Seconds and MB of a command; one that runs `until` something is then asked to stop."""
  most, ended = 0.0, threading.Event()
  with open(log, "a") as out:
    start = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=out)

  def watch():
    nonlocal most
    while not ended.wait(0.05):
      most = max(most, memory_of(process.pid))

  thread = threading.Thread(target=watch)
  thread.start()
  try:
    while until is not None and process.poll() is None and not until():
      time.sleep(0.02)
    stopped = until is not None and process.poll() is None
    seconds = time.perf_counter() - start
    if stopped:
      process.send_signal(signal.SIGTERM)
    code = process.wait()
    if until is None:
      seconds = time.perf_counter() - start
  finally:
    ended.set()
    thread.join()
  if code != (75 if stopped else 0):
    raise RuntimeError(f"{' '.join(command)} ended with {code}:\n{log.read_text()[-2000:]}")
  return seconds, most


def memory_of(pid: int) -> float:
  """MB of a process and its descendants; a page that several of them share counts once."""
  try:
    children = pathlib.Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    lines = pathlib.Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
  except OSError:  # it has just ended
    return 0.0
  own = sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024 / 1e6
  return own + sum(memory_of(int(child)) for child in children)


def read_xlsx(path: pathlib.Path) -> float:
  """CPU seconds to read a recording."""
  start = time.process_time()
  readers.read(path)
  return time.process_time() - start


def open_set(path: pathlib.Path) -> dict[str, float]:
  """Opens a prepared set, and loads from it for ten seconds."""
  start = time.perf_counter()
  data = source.Source(path)
  rows, pose = data.rows("train"), data.track("pose").kind
  opened = time.perf_counter() - start
  batches = pipeline.train_batches(
    data,
    rows,
    {"pose": inputs.Heatmaps(pose.layout, pose.frame_size)},
    batch_size=32,
    seed=0,
  )
  next(batches)
  start, count = time.perf_counter(), 0
  while time.perf_counter() - start < 10:
    next(batches)
    count += 32
  seconds = time.perf_counter() - start
  return {
    "open": opened,
    "MB": memory_of(os.getpid()),
    "loader": seconds,
    "clips per second": count / seconds,
  }


def write_pickle(path: pathlib.Path, *, clips: int) -> None:
  """NTU's shape: 17 joints of float16, 30 to 130 frames, in one of five clips two persons."""
  if path.exists():
    return
  rng = np.random.default_rng(0)
  points = rng.uniform(1, 1080, (20_000_000, 3)).astype(np.float16)
  annotations, members = [], {"train": [], "val": []}
  for i in range(clips):
    frames, persons = int(rng.integers(30, 130)), 1 + int(rng.random() < 0.2)
    subject, label = i % 40 + 1, (i + i // 120) % 60
    id = f"S{i % 17 + 1:03d}C{i % 3 + 1:03d}P{subject:03d}R001A{label + 1:03d}_{i}"
    size = persons * frames * 17
    found = points[i * 17 : i * 17 + size].reshape(persons, frames, 17, 3)
    annotations.append(
      {
        "frame_dir": id,
        "label": label,
        "img_shape": (1080, 1920),
        "original_shape": (1080, 1920),
        "total_frames": frames,
        "keypoint": found[..., :2].copy(),
        "keypoint_score": found[..., 2].clip(0, 1),
      }
    )
    members["train" if subject % 2 else "val"].append(id)
  split = {"xsub_train": members["train"], "xsub_val": members["val"]}
  # A second protocol: the same to train with, a tenth of the test clips.
  split |= {"tenth_train": members["train"], "tenth_val": members["val"][::10]}
  part = path.with_suffix(".part")
  with open(part, "wb") as file:
    pickle.dump({"split": split, "annotations": annotations}, file)
  part.rename(path)


def write_imigue(folder: pathlib.Path, *, clips: int) -> None:
  """iMiGUE's raw files, of random poses: `FILES` are written, and linked under all names."""
  table = folder / "Label" / "labels_20200831.csv"
  if table.exists():
    return
  subjects = {int(v): s for v, s in json.loads(SUBJECTS.read_text()).items()}
  small = topology.get("imigue35").indices_in("openpose137")
  lines = ["video_id,class,start_frame,end_frame,win_or_lose,subject_id"]
  originals = {}
  for i, (video, subject) in enumerate(sorted(subjects.items())):
    home = folder / "mg_skeleton_only" / f"{video:04d}"
    home.mkdir(parents=True, exist_ok=True)
    names = (home / f"{video:04d}_2.xlsx", home / f"{video:04d}_light_hand.csv")
    if i < FILES:
      found = np.random.default_rng(i).uniform(0.001, 1, (FRAMES, 137, 3)) * (1280, 720, 1)
      write_xlsx(names[0], found.reshape(FRAMES, -1))
      write_csv(names[1], found[:, small].reshape(FRAMES, -1))
      originals[i] = names
    else:
      for original, name in zip(originals[i % FILES], names, strict=True):
        name.unlink(missing_ok=True)
        os.link(original, name)
    count = clips * (i + 1) // len(subjects) - clips * i // len(subjects)  # at most 52
    for k in range(count):
      # No two clips of one file begin at the same frame: their key points would be the same.
      start = 165 * k + 5 * (i // FILES)
      label = (i + k) % 32 + 1
      label = 99 if label == 32 else label
      end = start + CLIP_FRAMES - 1
      lines.append(f"{video},{label},{start},{end},{'Win' if i % 3 else 'Lose'},{subject}")
  table.parent.mkdir(exist_ok=True)
  table.write_text("\n".join(lines) + "\n")


def write_csv(path: pathlib.Path, table: np.ndarray) -> None:
  header = ",".join(["frame", *map(str, range(1, table.shape[1] + 1))])
  numbered = np.concatenate([np.arange(len(table))[:, None], table], 1)
  form = ["%d"] + ["%.3f"] * table.shape[1]
  np.savetxt(path, numbered, delimiter=",", fmt=form, header=header, comments="")


def write_xlsx(path: pathlib.Path, table: np.ndarray) -> None:
  """The least that is an xlsx file, quickly: a sheet of numbers, each with the name of its cell."""
  letters = string.ascii_uppercase
  columns = [*letters, *(f"{a}{b}" for a in letters for b in letters)][: table.shape[1]]
  main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
  office = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
  package = "http://schemas.openxmlformats.org/package/2006"
  spreadsheet = "application/vnd.openxmlformats-officedocument.spreadsheetml"
  texts = {
    "[Content_Types].xml": f'<Types xmlns="{package}/content-types"><Default Extension="rels" '
    f'ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
    f'<Override PartName="/xl/workbook.xml" ContentType="{spreadsheet}.sheet.main+xml"/>'
    f'<Override PartName="/xl/worksheets/sheet1.xml" ContentType="{spreadsheet}.worksheet+xml"/>'
    "</Types>",
    "_rels/.rels": f'<Relationships xmlns="{package}/relationships"><Relationship Id="rId1" '
    f'Type="{office}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
    "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{office}"><sheets>'
    '<sheet name="Sheet1" sheetId="1" r:id="rId1"/></sheets></workbook>',
    "xl/_rels/workbook.xml.rels": f'<Relationships xmlns="{package}/relationships"><Relationship '
    f'Id="rId1" Type="{office}/worksheet" Target="worksheets/sheet1.xml"/></Relationships>',
  }
  head = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>\n'
  with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as file:
    for name, text in texts.items():
      file.writestr(name, head + text)
    with file.open("xl/worksheets/sheet1.xml", "w") as sheet:
      sheet.write(f'{head}<worksheet xmlns="{main}"><sheetData>'.encode())
      for number, row in enumerate(table, 1):
        cells = "".join(
          f'<c r="{c}{number}"><v>{x:.3f}</v></c>' for c, x in zip(columns, row, strict=True)
        )
        sheet.write(f'<row r="{number}">{cells}</row>'.encode())
      sheet.write(b"</sheetData></worksheet>")


class Bytes(prepared.Builder):
  """Random: records of 1 MB, ten of each of 2,000 recordings."""

  track = tracks.Pose("openpose137", frame_size=(720, 1280))
  class_names = ("any",)
  protocols = {"xsub": prepared.by_subject(train=("0",))}  # noqa: RUF012
  count = 2000
  seen: list[tuple[int, float]] = []  # noqa: RUF012

  def recordings(self) -> Iterator[tuple[None, int]]:
    for i in range(self.count):
      yield None, i

  def clips(self, recording: None, i: int) -> Iterator[prepared.Example]:
    rng = np.random.default_rng(i)
    for k in range(10):
      found = rng.random((608, 1, 137, 3), np.float32) + np.float32(1e-3)
      found[..., :2] *= 1000
      clip = readers.Clip(found.clip(0, None), self.track.layout)
      yield prepared.Example(f"{i}_{k}", 0, str(i % 100), clip)
    self.seen.append((i, memory_of(os.getpid())))


def prepare_bytes(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
  count = (arguments.clips or 20_000) // 10
  yield timing.in_new_process(write_made, Bytes, count, arguments.folder.resolve())
  remove(arguments.folder / "data" / Bytes.name)


class Pictures(Bytes):
  """Random bytes in the place of pictures, which nothing opens: 100 of 20 kB in each clip."""

  track = tracks.Video((256, 455))
  track_name = "video"
  count, frames, size = 1_000, 100, 20_000
  seen: list[tuple[int, float]] = []  # noqa: RUF012

  def clips(self, recording: None, i: int) -> Iterator[prepared.Example]:
    rng = np.random.default_rng(i)
    pictures = tuple(rng.bytes(self.size) for _ in range(self.frames))
    frames = readers.Frames(pictures, np.arange(self.frames) / 25, self.track.frame_size)
    yield prepared.Example(f"clip{i}", 0, str(i % 100), frames)
    if i % 10 == 0:
      self.seen.append((i, memory_of(os.getpid())))


class Tiny(Pictures):
  """Clips of one picture of 100 bytes."""

  count, frames, size = 50_000, 1, 100
  seen: list[tuple[int, float]] = []  # noqa: RUF012


def prepare_video(arguments: argparse.Namespace) -> Iterator[dict[str, Any]]:
  folder = arguments.folder.resolve()
  for builder in (Pictures, Tiny):
    count = arguments.clips or builder.count
    row = timing.in_new_process(write_made, builder, count, folder)
    path = prepared.directory(builder, folder / "data")
    yield row | timing.in_new_process(open_video, path)
    remove(path.parent)


def open_video(path: pathlib.Path) -> dict[str, Any]:
  """Opens a prepared set, and reads the first picture of up to 1,000 of its clips."""
  before = memory_of(os.getpid())
  start = time.perf_counter()
  data = source.Source(path)
  track = data.track("video")
  opened = time.perf_counter()
  memory = memory_of(os.getpid()) - before
  rows = np.random.default_rng(0).permutation(len(data))[:1_000].tolist()
  for row in rows:
    track[row]["frames"][0]
  seconds = time.perf_counter() - opened
  return {"open": opened - start, "open, MB": memory, "a clip, ms": 1000 * seconds / len(rows)}


def write_made(builder: type[prepared.Builder], count: int, folder: pathlib.Path) -> dict[str, Any]:
  """Prepares a set whose recordings are made in memory."""
  builder.count = count
  remove(folder / "data" / builder.name)
  start = time.perf_counter()
  path = prepared.write(builder, raw=folder, data_dir=folder / "data")
  seconds = time.perf_counter() - start
  records = sum(file.stat().st_size for file in path.glob("*/*array_record*"))
  memory = [most for _, most in builder.seen]
  tenth = max(1, len(memory) // 10)
  return {
    "what": f"prepare {count} recordings",
    "seconds": seconds,
    "records, MB": records / 1e6,
    "MB, the first tenth": max(memory[:tenth]),
    "MB, the last tenth": max(memory[-tenth:]),
  }


def remove(path: pathlib.Path) -> None:
  shutil.rmtree(path, ignore_errors=True)


if __name__ == "__main__":
  main()
