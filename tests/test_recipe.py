"""recipe.json: what is written is read, and what is read is checked."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmg import errors, fields, inputs, models, recipe, skeletons
from jaxmg.skeletons import topology

SKELETON = skeletons.get("imigue22")
NAMES = ("nod", "shake")


def example(**options):
  one = inputs.Heatmaps(SKELETON, (72, 128), stream="limb", turn=10.0, crop=(0.5, 1.0))
  model = {"name": "posec3d", "num_classes": 2, "width": 4, "depths": (1, 1), "dropout": 0.1}
  options = {"data": {"name": "nods", "fold": [0, 4]}, "num_clips": 3, "mirror": True} | options
  return recipe.Recipe(model, {"pose": one}, NAMES, **options)


def edit(folder, change):
  """Changes the file as somebody would who makes its digest right."""
  path = folder / recipe.FILE
  content = json.loads(path.read_text())
  del content["sha256"]
  change(content)
  content["sha256"] = fields.digest(content)
  path.write_text(json.dumps(content))


def test_a_recipe_is_read_as_it_was_written(tmp_path):
  recipe.save(tmp_path, example())
  found = recipe.load(tmp_path)
  assert recipe.to_json(found) == recipe.to_json(example())
  assert found.inputs == example().inputs
  assert found.class_names == NAMES
  assert found.num_views == 6
  assert found.build_model() == example().build_model()


def test_a_layout_of_ones_own_is_written_out(tmp_path):
  arm = {
    "name": "arm3",
    "joints": ["shoulder", "elbow", "wrist"],
    "parents": [0, 0, 1],
    "limbs": [[0, 1], [1, 2]],
    "mirror_pairs": [],
  }
  one = inputs.Graph(topology.from_json(arm), (72, 128), points="joints3d")
  model = {"name": "agcn", "num_classes": 2, "parents": [0, 0, 1]}
  recipe.save(tmp_path, recipe.Recipe(model, {"pose": one}, NAMES))
  assert recipe.load(tmp_path).inputs["pose"] == one
  assert json.loads((tmp_path / recipe.FILE).read_text())["inputs"]["pose"]["skeleton"] == arm


def test_a_recipe_holds_the_sizes_of_a_variant_and_the_defaults(tmp_path, monkeypatch):
  one = example().inputs["pose"]
  options = {"name": "posec3d", "num_classes": 2, "variant": "small-strided", "width": 8}
  recipe.save(tmp_path, recipe.Recipe(options, {"pose": one}, NAMES))
  found = recipe.load(tmp_path)
  assert found.model == {
    **{"name": "posec3d", "num_classes": 2, "width": 8, "depths": [1, 3, 3], "stem": [3, 2]},
    **{"dropout": 0.5, "embedding_size": 0},
  }
  before = found.build_model()
  for sizes in models.posec3d.VARIANTS.values():
    monkeypatch.setitem(sizes, "depths", (9,))
  assert recipe.load(tmp_path).build_model() == before


@pytest.mark.parametrize(
  ("content", "message"),
  [
    ("{", "recipe.json: expected JSON"),
    ("[]", "recipe.json: expected a recipe with its digest, got none"),
    ('{"model": {}}', "expected a recipe with its digest, got none .of an earlier version"),
  ],
)
def test_a_file_that_is_no_recipe_is_refused(tmp_path, content, message):
  (tmp_path / recipe.FILE).write_text(content)
  with pytest.raises(errors.CheckpointError, match=message):
    recipe.load(tmp_path)


def pose(name, value):
  return lambda content: content["inputs"]["pose"].update({name: value})


def model(name, value):
  return lambda content: content["model"].update({name: value})


@pytest.mark.parametrize(
  ("change", "message"),
  [
    (pose("sgima", 1.0), "inputs: pose: expected .*sigma.*, got sgima"),
    (pose("sigma", "0.6"), "inputs: pose: sigma: expected a number, got '0.6'"),
    (pose("sigma", 0.0), r"inputs: pose: sigma: expected in \(0, 100\], got 0.0"),
    (pose("sigma", True), "inputs: pose: sigma: expected a number, got True"),
    (pose("num_frames", 4.0), "inputs: pose: num_frames: expected a whole number from 0, got 4.0"),
    (pose("num_frames", 0), r"inputs: pose: num_frames: expected in \[1, 4096\], got 0"),
    (pose("stream", "bone"), "inputs: pose: stream: expected joint or limb, got bone"),
    (pose("sampling", "wrap"), "inputs: pose: sampling: expected uniform or .*, got wrap"),
    (pose("crop", [1.0, 0.5]), r"crop: expected two numbers in \(0, 1\], the least first, got \(1"),
    (pose("tilt", 181.0), r"tilt: expected in \[0, 180\], got 181.0"),
    (pose("crop", [0.5]), r"inputs: pose: crop: expected 2 values, got \[0.5\]"),
    (pose("skeleton", "imigue"), "inputs: pose: skeleton: "),
    (pose("kind", "video2"), "inputs: pose: kind: expected faces or graph or heatmaps"),
    (
      model("name", "posec3"),
      "model: name: expected agcn or fusion or .*posec3d or swinface, got posec3",
    ),
    (model("variant", "small"), "model: expected .*width, got variant"),
    (model("widht", 4), "model: expected .*width, got widht"),
    (model("width", -4), "model: width: expected a whole number from 0, got -4"),
    (model("depths", [1, "1"]), "model: depths: expected a whole number from 0, got '1'"),
    (model("num_classes", 3), "model: num_classes: expected 2, one a name, got 3"),
    (lambda content: content.pop("views"), "expected views, got none"),
    (lambda content: content["views"].pop("mirror"), "views: expected mirror, got none"),
    (lambda content: content.update(views=3), "views: expected names and values, got 3"),
    (lambda content: content["views"].update(num_clips=0), "num_clips: expected at least 1"),
    (lambda content: content.update(class_names="ab"), "class_names: expected "),
  ],
)
def test_what_cannot_be_is_named_in_one_line(tmp_path, change, message):
  recipe.save(tmp_path, example())
  edit(tmp_path, change)
  with pytest.raises(errors.CheckpointError, match=f"recipe.json: .*{message}") as caught:
    recipe.load(tmp_path)
  assert str(caught.value).count("\n") == 0


def test_the_label_table_is_the_one_of_the_recipe(tmp_path):
  table = np.arange(6, dtype=np.float32).reshape(2, 3)
  np.save(tmp_path / recipe.LABELS, table)
  found = example(label_embeddings=recipe.table_digest(table))
  np.testing.assert_array_equal(recipe.label_table(tmp_path, found), table)
  np.save(tmp_path / recipe.LABELS, table[::-1])
  with pytest.raises(errors.CheckpointError, match=r"label_embeddings.npy: expected the table"):
    recipe.label_table(tmp_path, found)
  (tmp_path / recipe.LABELS).write_bytes(b"nothing")
  with pytest.raises(errors.CheckpointError, match=r"label_embeddings.npy: "):
    recipe.label_table(tmp_path, found)
  assert recipe.label_table(tmp_path, example()) is None


def fused(encoders):
  model = {"name": "fusion", "num_classes": 2, "variant": "tiny", "encoders": encoders}
  graph = inputs.Graph(SKELETON, (72, 128), num_frames=4)
  tokens = inputs.Tokens("tokens-a", 3, 2, "abc")
  return recipe.Recipe(model, {"pose": graph, "a": tokens}, NAMES)


PARENTS = list(topology.get(SKELETON).parents)
AGCN = {"name": "agcn", "num_classes": 5, "parents": PARENTS, "width": 4, "depths": [1, 2]}


def test_a_dictionary_among_a_models_options_is_of_models(tmp_path):
  recipe.save(tmp_path, fused({"pose": AGCN, "name": AGCN}))
  found = recipe.load(tmp_path)
  assert found.model["encoders"]["pose"]["depths"] == [1, 2]
  assert found.build_model() == fused({"pose": AGCN, "name": AGCN}).build_model()
  assert found.build_model(jnp.bfloat16).encoders["name"].dtype == jnp.bfloat16
  assert found.tracks == ("pose", "tokens-a")


@pytest.mark.parametrize(
  ("encoders", "message"),
  [
    ({"pose": AGCN | {"widht": 3}}, "model: encoders: pose: expected .*width, got widht"),
    ({"pose": AGCN | {"name": "agnc"}}, "model: encoders: pose: name: expected .*, got agnc"),
    ({"pose": 3}, "model: encoders: pose: expected names and values, got 3"),
    ({}, None),
  ],
)
def test_what_cannot_be_of_a_model_within_is_named(tmp_path, encoders, message):
  recipe.save(tmp_path, fused(None))
  edit(tmp_path, model("encoders", encoders))
  if message is None:
    assert recipe.load(tmp_path).build_model().encoders == {}
    return
  with pytest.raises(errors.CheckpointError, match=message) as caught:
    recipe.load(tmp_path)
  assert str(caught.value).count("\n") == 0


def test_which_clips_lack_an_input_reaches_the_model():
  found = fused(None)
  found = dataclasses.replace(found, num_clips=2)
  keys = jax.random.split(jax.random.key(0), 1)
  there, pose = jnp.array([False]), found.inputs["pose"]
  zeros = lambda example: jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), example)  # noqa: E731
  batch = {name: zeros(one.example()) for name, one in found.inputs.items()}
  given, _ = found.train_inputs(keys, batch)
  assert given.keys() == {"pose", "a"}
  given, _ = found.train_inputs(keys, batch | {"pose": batch["pose"] | {"present": there}})
  assert given["present"] == {"pose": there}
  tests = {name: zeros(one.example(2)) for name, one in found.inputs.items()}
  views = found.test_views(tests | {"pose": tests["pose"] | {"present": there}})
  assert views["present"]["pose"].shape == (2, 1)
  view = found.test_view(jax.tree.map(lambda x: x[1], views))
  assert not view["present"]["pose"][0]
  assert found.test_view(jax.tree.map(lambda x: x[1], found.test_views(tests))).keys() == {
    *found.inputs
  }
  with pytest.raises(ValueError, match=r"^inputs: expected other names than present, got it$"):
    dataclasses.replace(found, inputs={"present": pose})
