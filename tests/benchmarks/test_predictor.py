"""The benchmark of the predictor compares like with like."""

import json

from benchmarks import predictor


def test_lists_are_compared_with_the_bare_inference(run, nods, tmp_path):
  out = tmp_path / "out.json"
  options = [f"--data={nods / 'nods'}", "--clips=5", "--batch_size=4", "--rounds=1", f"--out={out}"]
  predictor.main([f"--run={run}", *options])
  rows = json.loads(out.read_text())["results"]
  assert [row["prediction"] for row in rows] == [
    "bare inference", "list of clips", "list of arrays",
  ]  # fmt: skip
  assert rows[0]["of the bare inference"] == 1
