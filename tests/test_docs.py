"""The code in the documents runs."""

import pathlib
import re

import numpy as np

from jaxmg.data import prepared, source


def blocks(path):
  return re.findall(r"```python\n(.*?)```", pathlib.Path(path).read_text(), re.DOTALL)


def test_example_of_the_readme_runs():
  (example,) = blocks("README.md")
  names = {}
  # The network of the example at full size takes seconds; nothing else is changed.
  exec(example.replace('"slowonly-r50"', '"tiny"'), names)
  assert names["heatmaps"].shape == (2, 48, 56, 56, 22)
  assert names["logits"].shape == (2, 32)


def test_example_of_your_data_prepares_a_folder_of_csv_files(tmp_path):
  (example,) = blocks("docs/your_data.md")
  raw = tmp_path / "recordings"
  raw.mkdir()
  lines = ["file,class,subject"]
  rng = np.random.default_rng(0)
  for subject in ("ann", "bob", "cy"):
    np.savetxt(raw / f"{subject}.csv", rng.uniform(0.1, 1, (30, 75)), delimiter=",")
    lines.append(f"{subject}.csv,typing,{subject}")
  (raw / "labels.csv").write_text("\n".join(lines))
  names = {"__name__": "desk_dataset_builder"}
  exec(example, names)
  directory = prepared.write(names["Builder"], raw=raw, data_dir=tmp_path / "data")
  assert directory == tmp_path / "data" / "desk" / "1.0.0"
  data = source.Source(directory)
  assert [data.ids[row] for row in data.rows("test")] == ["cy.csv"]
