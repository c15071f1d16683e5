"""What the command `jaxmg` lists beside its commands."""

import json
import shutil

import jax
import jax.numpy as jnp
import pytest

from experiments import overview, settings
from jaxmg import models, skeletons


def example(model):
  """What a network of these is given, and what it needs to be made beside the classes."""

  def of(*shape):
    return jax.ShapeDtypeStruct((1, *shape), jnp.float32)

  parents = skeletons.get("imigue22").parents
  tokens = {name: {"tokens": of(16, 256), "times": of(16)} for name in ("a", "b")}
  return {
    "agcn": (of(64, 1, 22, 3), parents),
    "fusion": (tokens,),
    "interfusion": (tokens,),
    "mvit": (of(16, 224, 224, 3),),
    "posec3d": (of(48, 56, 56, 22),),
    "swinface": (of(8, 112, 112, 3),),
  }[model]


@pytest.mark.parametrize("name", models.MODELS)
def test_parameters_of_every_variant_are_as_listed(name):
  given, *more = example(name)
  found = {}
  ours = [one for one in getattr(models, name).VARIANTS if one != "one_block"]  # of other tests
  for variant in ours:
    model = models.MODELS[name](overview.CLASSES, *more, variant=variant)
    shapes = jax.eval_shape(model.init, jax.random.key(0), given)["params"]
    found[variant] = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  assert overview.PARAMETERS[name] == found


def test_every_shipped_config_is_listed_with_its_argument(tmp_path):
  found = overview.configs()
  assert found["posec3d"] == "DATASET,STREAM[,small][,fold=I[/N]]"
  shipped = {path.relative_to(overview.CONFIGS) for path in overview.CONFIGS.rglob("*.py")}
  assert found.keys() == {path.with_suffix("").as_posix() for path in shipped} - {"grammar"}
  for name in found:
    assert "get_config" in settings.load(name)


def test_sets_and_runs_below_the_folder_are_listed(run, nods, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  assert [*overview.lines()][-5:] == ["prepared sets in ./data:", "  none", "", "runs in ./runs:",
                                      "  none"]  # fmt: skip
  shutil.copytree(nods, "data")
  shutil.copytree(run, "runs/first")
  (tmp_path / "runs/first/test").mkdir(exist_ok=True)
  (tmp_path / "runs/first/test/metrics.json").write_text(json.dumps({"top1": 0.5, "step": 2}))
  (tmp_path / "runs/second").mkdir()
  (tmp_path / "runs/second/recipe.json").write_text("{")
  found = [line.split(maxsplit=1) for line in overview.lines()]
  assert ["nods/1.0.0", "synthetic, 24 clips, 2 classes; pose"] in found
  assert ["first", "posec3d on nods; step 4; test at step 2: top-1 50.0%"] in found
  assert found[-1] == ["second", "cannot be read"]
