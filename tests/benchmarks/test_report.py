"""The tables of speed are those of the files that benchmarks wrote."""

import json

import pytest

from benchmarks import report


def benchmark(rows, *, device="cpu", dtype="float32"):
  return {
    "arguments": ({"dtype": dtype} if dtype else {})
    | {"rounds": 5, "sizes": [8, 16], "alone": True, "against": None},
    "versions": {"python": "3.11", "jax": "0.10.2", "numpy": "2", "torch": "2.13"},
    "hardware": {"cpu": "AMD EPYC", "cores": 2, "load": 0.1, "devices": [device]},
    "settings": {},
    "results": rows,
  }


def row(job, implementation, ms, ratio, **more):
  return {"job": job, "implementation": implementation, **more, "ms": ms, "ratio": ratio}


CPU = [
  row("train step", "jaxmg", 1000.0, 1.2, memory="as it comes"),
  row("train step", "jaxmg", 828.4, 1.0, memory="kept"),
  row("train step", "torch", 1651.0, 2.04, memory="as it comes"),
  row("train step", "torch", 1098.0, 1.3, memory="kept"),
  row("train step", "torch.compile channels_last_3d", 671.0, 0.81, memory="kept"),
  row("forward", "jaxmg", 90.0, 1.0, memory="kept"),
]
GPU = [
  row("train step", "jaxmg", 77.25, 1.0, batch=8, outcome="ran"),
  row("train step", "torchvision", 180.0, 2.39, batch=8, outcome="ran"),
  row("train step", "torchvision, compiled", None, None, batch=8, outcome="OOM: much"),
  row("train step", "jaxmg", 150.0, 1.0, batch=16, outcome="ran"),
]
END_TO_END = [
  {"implementation": "jaxmg", "memory": "kept", "clips per second": 80.4, "ratio": 1.0},
  {"implementation": "torch", "memory": "as it comes", "clips per second": 40.2, "ratio": 2.0},
]
LOADER = [{"in the files": "imigue35", "cores": 1, "clips per second": 5981.2, "from": 7.5}]


@pytest.fixture
def root(tmp_path):
  """A checkout with two documents and three files."""
  (tmp_path / report.FILES).mkdir(parents=True)
  for name in ("README.md", "docs/results.md"):
    (tmp_path / name).write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n")
  files = {
    "posec3d-cpu": benchmark(CPU),
    "mvit-gpu": benchmark(GPU, device="NVIDIA H200", dtype="bfloat16"),
    "loader": benchmark(LOADER),
    "end_to_end": benchmark(END_TO_END, dtype=None),
  }
  for name, content in files.items():
    (tmp_path / report.FILES / f"{name}.json").write_text(json.dumps(content))
  return tmp_path


def table(path):
  lines = path.read_text().split("\n")
  assert (lines[0], lines[-2]) == ("before", "after")
  return lines[2:-3]


def test_readme_has_a_row_for_a_job_and_a_column_for_a_processor(root):
  report.main(root)
  assert table(root / "README.md") == [
    "| | AMD EPYC, 2 cores, float32 | NVIDIA H200, bfloat16 |",
    "| --- | --- | --- |",
    "| PoseC3D, training with its loader | 80.4 clips/s (2.0; 2.0) | |",
    "| MViTv2, training step | | 77.2 ms (2.4; 2.4) |",
    "| PoseC3D, training step | 828 ms (2.0; 0.81) | |",
  ]


def test_results_have_all_figures_with_their_circumstances(root):
  report.main(root)
  lines = table(root / "docs/results.md")
  command = "`benchmarks.end_to_end --rounds=5 --sizes 8 16 --alone`"
  assert lines[0] == f"{command}: AMD EPYC, 2 cores; jax 0.10.2, torch 2.13"
  assert "| torch | as it comes | 40.2 | 2 |" in lines
  lines = lines[lines.index("", 2) + 1 :]
  assert lines[0].startswith("`benchmarks.loader --dtype=float32 --rounds=5 --sizes 8 16")
  assert lines[2:5] == [
    "| in the files | cores | clips per second | from |",
    "| --- | --- | --- | --- |",
    "| imigue35 | 1 | 5,981 | 7.5 |",
  ]
  assert "| train step, batch 8 | 77.2 (1.0) | 180 (2.4) | OOM: much |" in lines
  assert "| train step, batch 16 | 150 (1.0) | | |" in lines
  assert (
    "| train step | 1,000 (1.2) | 828 (1.0) | 1,651 (2.0) | 1,098 (1.3) | 671 (0.81) |" in lines
  )
  assert "| forward | | 90 (1.0) | | | |" in lines


def test_writing_twice_is_writing_once(root):
  report.main(root)
  before = {name: (root / name).read_text() for name in ("README.md", "docs/results.md")}
  report.main(root)
  assert before == {name: (root / name).read_text() for name in before}


def test_two_files_of_one_cell_are_refused(root):
  again = root / report.FILES / "posec3d-other.json"
  again.write_text(json.dumps(benchmark(CPU)))
  with pytest.raises(ValueError, match=r"posec3d-other\.json: expected one file of it on AMD"):
    report.main(root)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '{"results": []}'])
def test_what_no_benchmark_wrote_is_refused_and_nothing_written(root, content):
  (root / report.FILES / "odd.json").write_text(content)
  with pytest.raises(ValueError, match=r"odd\.json: expected what --out of a benchmark writes"):
    report.main(root)
  assert table(root / "README.md") == ["old"]


def test_a_document_without_its_place_is_refused(root):
  (root / "docs/results.md").write_text("no place")
  with pytest.raises(ValueError, match=r"results\.md: expected one <!-- python"):
    report.main(root)


def test_documents_are_those_of_the_files():
  """Else: python -m benchmarks.report."""
  for path, text in report.pages(report.ROOT).items():
    assert path.read_text(encoding="utf-8") == text, path
