"""Writes the tables of speed into README.md and docs/results.md: no figure in them is typed.

  python -m benchmarks.posec3d --out=docs/benchmarks/posec3d-cpu.json
  python -m benchmarks.report

The tables are made of docs/benchmarks/BENCHMARK[-ANYTHING].json, what `--out` of the benchmarks
writes, and stand between two comments. That of README.md has a row for each job of a model, at the
first batch size of a file, and a column for each processor and dtype; docs/results.md has all.
"""

import json
import pathlib
import shlex
from collections.abc import Iterable, Mapping
from typing import Any

ROOT = pathlib.Path(__file__).parents[1]
FILES = "docs/benchmarks"
BEGIN, END = "<!-- python -m benchmarks.report writes from here -->", "<!-- to here -->"
NAMES = {"posec3d": "PoseC3D", "agcn": "2s-AGCN", "mvit": "MViTv2", "end_to_end": "PoseC3D"}
JOBS = {"train step": "training step", "inference": "inference", None: "training with its loader"}
PEERS = ("torch", "torchvision")  # run eagerly; what begins with these names is them as well
PACKAGES = ("jax", "torch", "torchvision")


def main(root: pathlib.Path = ROOT) -> None:
  for path, text in pages(root).items():
    path.write_text(text, encoding="utf-8")


def pages(root: pathlib.Path) -> dict[pathlib.Path, str]:
  """The documents with the tables of the files that there are."""
  paths = sorted((root / FILES).glob("*.json"), key=lambda path: (path.stem.count("-"), path.stem))
  found = {path.stem: read(path) for path in paths}
  tables = {"README.md": short(found), "docs/results.md": whole(found)}
  return {root / name: put(root / name, table) for name, table in tables.items()}


def read(path: pathlib.Path) -> dict[str, Any]:
  """What a benchmark wrote; raises ValueError for anything else."""
  try:
    found = json.loads(path.read_text(encoding="utf-8"))
    if found["results"] and found["hardware"]["devices"] and found["versions"]["jax"]:
      return found
  except (ValueError, KeyError, TypeError):
    pass
  raise ValueError(f"{path}: expected what --out of a benchmark writes, got something else")


def put(path: pathlib.Path, table: str) -> str:
  """The text of a document with the table between the two comments."""
  text = path.read_text(encoding="utf-8")
  if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
    raise ValueError(f"{path}: expected one {BEGIN} and one {END} after it, got others")
  return f"{text.partition(BEGIN)[0]}{BEGIN}\n{table}\n{END}{text.partition(END)[2]}"


def short(files: Mapping[str, Mapping[str, Any]]) -> str:
  """Our time, and of PyTorch eager and at its best the time over ours, by model and processor."""
  table = {}  # row -> column -> cell
  for name, file in files.items():
    if (model := NAMES.get(name.partition("-")[0])) is None:
      continue  # not of a model
    column, done = processor(file, "float32"), set()
    for (job, _), rows in by_job(file).items():
      if job in done or job not in JOBS:
        continue  # of further batch sizes
      done.add(job)
      cells = table.setdefault(f"{model}, {JOBS[job]}", {})
      if column in cells:
        raise ValueError(f"{FILES}/{name}.json: expected one file of it on {column}, got two")
      cells[column] = compared(rows)
  columns = [*dict.fromkeys(column for cells in table.values() for column in cells)]
  lines = ([row, *(cells.get(column, "") for column in columns)] for row, cells in table.items())
  return markdown(["", *columns], lines)


def whole(files: Mapping[str, Mapping[str, Any]]) -> str:
  """All figures of all files, with their circumstances."""
  parts = []
  for name, file in files.items():
    given = [(key, x) for key, x in file["arguments"].items() if x is not None and x is not False]
    arguments = (f" {typed(key, x)}" for key, x in given)
    versions = (f"{x} {file['versions'][x]}" for x in PACKAGES if x in file["versions"])
    command = f"`benchmarks.{name.partition('-')[0]}{''.join(arguments)}`"
    parts.append(f"{command}: {processor(file)}; {', '.join(versions)}")
    if (jobs := by_job(file)) and "ms" in file["results"][0]:
      kinds = [*dict.fromkeys(kind(row) for rows in jobs.values() for row in rows)]
      lines = []
      for (job, batch), rows in jobs.items():
        cells = {kind(row): timed(row) for row in rows}
        title = job if batch is None else f"{job}, batch {batch}"
        lines.append([title, *(cells.get(one, "") for one in kinds)])
      parts.append(markdown(["ms (time over ours)", *kinds], lines))
    else:
      rows = file["results"]
      parts.append(markdown([*rows[0]], ([figure(x) for x in row.values()] for row in rows)))
  return "\n\n".join(parts)


def by_job(file: Mapping[str, Any]) -> dict[tuple[str, Any], list[Mapping[str, Any]]]:
  """By job and batch the rows of a benchmark of implementations; nothing of another benchmark."""
  found = {}
  for row in file["results"]:
    if "implementation" in row and "ratio" in row:
      found.setdefault((row.get("job"), row.get("batch")), []).append(row)
  return found


def compared(rows: Iterable[Mapping[str, Any]]) -> str:
  """ "828 ms (2.0; 0.81)": ours, and of PyTorch as it comes and at its best the time over it."""
  times, eager, all_of_it = [], [], []
  for row in rows:
    as_it_comes = row.get("memory") != "kept"
    if row["implementation"] == "jaxmg" and row.get("memory") != "as it comes":
      times.append(measured(row))
    elif row["implementation"].startswith(PEERS) and row["ratio"]:
      all_of_it.append(row["ratio"])
      eager += [row["ratio"]] * (row["implementation"] in PEERS and as_it_comes)
  both = f" ({ratio(eager[0])}; {ratio(min(all_of_it))})" if eager else ""
  return f"{', '.join(times)}{both}"


def measured(row: Mapping[str, Any]) -> str:
  if row.get("ms"):
    return f"{figure(row['ms'])} ms"
  return row["outcome"] if "ms" in row else f"{figure(row['clips per second'])} clips/s"


def kind(row: Mapping[str, Any]) -> str:
  """ "torch, kept memory": what is timed."""
  memory = {"kept": ", kept memory", "as it comes": ", memory as it comes"}
  return row["implementation"] + memory.get(row.get("memory"), "")


def timed(row: Mapping[str, Any]) -> str:
  if row["ms"] is None:
    return row["outcome"]
  return figure(row["ms"]) + (f" ({ratio(row['ratio'])})" if row["ratio"] else "")


def processor(file: Mapping[str, Any], dtype: str | None = None) -> str:
  """ "Intel Xeon, 2 cores, float32"."""
  hardware, (device, *_) = file["hardware"], file["hardware"]["devices"]
  if device == "cpu":
    device = f"{hardware['cpu']}, {hardware['cores']} cores"
  return ", ".join([device, *filter(None, [file["arguments"].get("dtype", dtype)])])


def typed(key: str, value: Any) -> str:
  """An argument as it is typed: --alone, --batch_sizes 8 16, --dtype=float32."""
  if isinstance(value, list):
    return shlex.join([f"--{key}", *map(str, value)])
  return f"--{key}" if value is True else f"--{key}={value}"


def figure(value: Any) -> str:
  if not isinstance(value, float):
    return "" if value is None else str(value)
  return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ratio(value: float) -> str:
  return f"{value:.0f}" if value >= 10 else f"{value:#.2g}"


def markdown(titles: list[str], lines: Iterable[list[str]]) -> str:
  rows = [titles, ["---"] * len(titles), *lines]
  return "\n".join("|" + "".join(f" {cell}".rstrip() + " |" for cell in row) for row in rows)


if __name__ == "__main__":
  main()
