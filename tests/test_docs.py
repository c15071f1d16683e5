"""The code in the documents runs."""

import pathlib
import pickle
import pkgutil
import re

import jax
import numpy as np
import pytest
from flax import nnx

from experiments import grid, settings
from jaxmg import errors, models
from jaxmg.data import prepared, readers, source
from jaxmg.data.readers import annotations

ROOT = pathlib.Path(__file__).parents[1]


def blocks(path, language="python"):
  return re.findall(rf"```{language}\n(.*?)```", (ROOT / path).read_text(), re.DOTALL)


def test_example_of_the_readme_runs():
  (example,) = blocks("README.md")
  names = {}
  # The network of the example at full size takes seconds; nothing else is changed.
  exec(example.replace('"slowonly-r50"', '"tiny"'), names)
  assert names["heatmaps"].shape == (2, 48, 56, 56, 22)
  assert names["logits"].shape == (2, 32)


def test_example_of_your_data_prepares_a_folder_of_csv_files(tmp_path):
  example, _ = blocks("docs/your_data.md")
  raw = tmp_path / "recordings"
  raw.mkdir()
  lines = ["file,class,subject"]
  rng = np.random.default_rng(0)
  for subject in ("ann", "bob", "cy"):
    keypoints = rng.uniform((0, 0, 0.1), (1280, 720, 1), (30, 25, 3))
    np.savetxt(raw / f"{subject}.csv", keypoints.reshape(30, 75), delimiter=",")
    lines.append(f"{subject}.csv,typing,{subject}")
  (raw / "labels.csv").write_text("\n".join(lines))
  names = {"__name__": "desk_dataset_builder"}
  exec(example, names)
  directory = prepared.write(names["Builder"], raw=raw, data_dir=tmp_path / "data")
  assert directory == tmp_path / "data" / "desk" / "1.0.0"
  data = source.Source(directory)
  assert [data.ids[row] for row in data.rows("test")] == ["cy.csv"]


def test_example_of_your_data_splits_a_list_of_annotations(tmp_path, monkeypatch):
  _, example = blocks("docs/your_data.md")
  monkeypatch.chdir(tmp_path)
  points = {"keypoint": np.ones((1, 3, 9, 2)), "img_shape": (72, 128)}
  clips = [{"frame_dir": f"{name}_01", "label": 0} | points for name in ("ann", "dan")]
  pathlib.Path("annotations.pkl").write_bytes(pickle.dumps(clips))
  exec(example, {})
  assert annotations.read("desk.pkl").protocols() == {"test": ({"ann_01"}, {"dan_01"})}


def test_example_of_your_data_is_a_sound_layout(tmp_path):
  (example,) = blocks("docs/your_data.md", "json")
  (tmp_path / "desk9.json").write_text(example)
  skeleton = readers.find_layout(str(tmp_path / "desk9.json"))
  row = [value for v in range(9) for value in (5 * v, 90 - v, 0.5)]
  np.savetxt(tmp_path / "a.csv", [row] * 4, delimiter=",")
  assert readers.read(tmp_path / "a.csv", layout=skeleton).keypoints.shape == (4, 1, 9, 3)


def test_example_of_migration_puts_kinetics_skeletons_together(tmp_path, monkeypatch):
  (example,) = blocks("docs/migration.md")
  monkeypatch.chdir(tmp_path)
  pathlib.Path("kpfiles").mkdir()
  rng = np.random.default_rng(0)
  persons = rng.uniform(0.1, 60, (15, 17, 3)).astype(np.float16)
  persons[:12, :, 2] = np.arange(12)[:, None] + 1  # twelve in one frame, of which ten are kept
  there, nobody = {"frame_inds": np.array(12 * [3] + [5, 5, 9])}, {"frame_inds": np.array([], int)}
  common = {"raw_file": "data/k400/kpfiles/part_0.pkl", "img_shape": (72, 128), "total_frames": 20}
  clips = [
    {"frame_dir": "a", "label": 0, **common, **there},
    {"frame_dir": "b", "label": 1, **common, **nobody},
    {"frame_dir": "c", "label": 1, **common, **there},
  ]
  table = {"split": {"train": ["a", "b"], "val": ["c"]}, "annotations": clips}
  pathlib.Path("k400_hrnet.pkl").write_bytes(pickle.dumps(table))
  kpfile = {"a": {"keypoint": persons}, "b": {"keypoint": persons[:0]}}
  kpfile["c"] = {"keypoint": persons[:, ::-1]}
  pathlib.Path("kpfiles/part_0.pkl").write_bytes(pickle.dumps(kpfile))
  with pytest.raises(errors.DataError, match=r"Kinetics-400's: docs/migration\.md"):
    annotations.read("k400_hrnet.pkl")
  exec(example, {})
  found = annotations.read("k400.pkl")
  assert found.protocols() == {"val": ({"a"}, {"c"})}
  points, score = found.clips[0].points, found.clips[0].score
  assert points.shape == (3, 10, 17, 2)
  np.testing.assert_array_equal(score[0, :, 0], np.arange(12, 2, -1))
  np.testing.assert_array_equal(points[2, 0], persons[14, :, :2])
  assert not points[1:, 2:].any()


@pytest.mark.parametrize("i", [0, 1], ids=["time", "labels"])
def test_example_of_recipe_a_prints_what_stands_below_it(capsys, i):
  examples, outputs = (blocks("docs/recipe_a.md", language) for language in ("python", "text"))
  assert len(examples) == len(outputs) == 2
  exec(examples[i], {})
  assert capsys.readouterr().out == outputs[i]


def commands():
  for path in ("README.md", *ROOT.glob("docs/*.md"), *ROOT.glob("datasets/*/*.md")):
    text = (ROOT / path).read_text().replace("\\\n", "")
    called = r"(?:python -m experiments\.|jaxmg )\w+ "
    yield from re.findall(rf"{called}.*--config=.*", text)
    yield from re.findall(rf"{called}(?:[a-z0-9_/]+|\S+\.py):[a-z].*", text)


@pytest.mark.parametrize("command", sorted({*commands()}))
def test_config_of_every_command_is_complete_and_in_range(command, monkeypatch):
  monkeypatch.chdir(ROOT)
  (config,) = re.findall(r"--config=(\S+)", command) or re.findall(r" (\S+:[^\s`]+)", command)[:1]
  config = settings.read_config(config, re.findall(r"--config\.\S+", command))
  if "ablate " in command:
    for one in grid.plan(config):
      settings.read_config(config.base, one.overrides(pathlib.Path("runs")))


def test_the_model_works_under_nnx_as_the_readme_says():
  model = models.MODELS["posec3d"](num_classes=5, width=4, depths=(1,))
  heatmaps = jax.random.uniform(jax.random.key(0), (2, 4, 8, 8, 3))

  nnx_model = nnx.bridge.ToNNX(model, rngs=nnx.Rngs(0))
  nnx.bridge.lazy_init(nnx_model, heatmaps)

  params, batch_stats = (
    nnx.to_pure_dict(nnx.state(nnx_model, kind)) for kind in (nnx.Param, nnx.BatchStat)
  )
  expected, _ = model.apply({"params": params, "batch_stats": batch_stats}, heatmaps)
  logits, out = nnx_model(heatmaps)
  np.testing.assert_allclose(logits, expected, atol=1e-6)
  assert out["features"].shape == (2, 16)
  nnx_model(heatmaps, train=True, mutable=["batch_stats"])  # moves the statistics in place
  moved = np.asarray(nnx_model.stem["bn"]["mean"][...])
  assert (moved != batch_stats["stem"]["bn"]["mean"]).all()


def test_the_own_loop_learns_and_is_saved(tmp_path, monkeypatch):
  example, with_names, _ = blocks("docs/own_loop.md")
  monkeypatch.chdir(tmp_path)
  names = {}
  exec(example, names)
  assert names["probabilities"].shape == (20, 2)
  assert names["accuracy"] > 0.9
  assert len([line for line in example.splitlines() if line.strip()]) < 45
  exec(with_names.replace("range(80)", "range(0)"), names)  # of which a trace is enough
  given = (names["state"], names["batch"], jax.random.key(1))
  _, metrics = jax.eval_shape(names["train_step"], *given)
  assert metrics.keys() >= {"loss", "semantic_loss"}
  assert sorted(name for name, _ in names["nearest"]) == ["still", "wave"]


def test_names_of_the_api_are_there():
  names = re.findall(r"`(jaxmg(?:\.\w+)+)`", (ROOT / "docs/api.md").read_text())
  assert len(names) > 50
  for name in names:
    *modules, last = name.split(".")
    found = pkgutil.resolve_name(":".join([".".join(modules), last]))
    assert found.__doc__, name
