"""What is said of a setting before anything runs."""

import itertools
import pathlib

import pytest

from experiments import agcn, mvit, posec3d, settings, swinface, trainer
from jaxmg import errors, inputs
from jaxmg.data import source

EXPERIMENTS = {"posec3d": posec3d, "agcn": agcn, "mvit": mvit, "swinface": swinface}
ABLATIONS = ("labels", "long_tail", "recipe_a", "sampling")
CONFIGS = pathlib.Path(settings.__file__).with_name("configs")


def arguments(name):
  config = settings.load(name)
  datasets = (*config["DATASETS"], "of_ones_own")
  options = ("", *(f",{variant}" for variant in config["VARIANTS"]), ",fold=1")
  return [
    "".join((dataset, ",", stream, option))
    for dataset, stream, option in itertools.product(datasets, config["STREAMS"], options)
  ]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_shipped_config_makes_a_recipe(name, waves, spots, looks, monkeypatch):
  # They have all that a config may ask for, but faces of 112 pixels.
  monkeypatch.setattr(inputs.Faces, "check", lambda self, about: None)
  folders = {"mvit": spots / "spots", "swinface": looks / "looks"}
  data = source.Source(folders.get(name, waves / "utd_mhad"))
  for argument in arguments(name):
    config = settings.read_config(f"{name}:{argument}", [])
    found = trainer.make_recipe(config, data, EXPERIMENTS[name].describe, None)
    assert found.model["name"] == name


def test_every_file_of_configs_is_one_of_these():
  names = {path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.py")}
  names -= {
    "emotion.py",
    "fusion.py",
  }  # of tokens: tests/experiments/test_fusion.py, test_emotion.py
  ablations = {f"ablations/{name}.py" for name in ABLATIONS}
  assert names == {f"{name}.py" for name in EXPERIMENTS} | {"grammar.py"} | ablations


@pytest.mark.parametrize("name", [*EXPERIMENTS, "emotion", "fusion"])
def test_options_of_a_config_come_in_any_order(name):
  stream = settings.load(name)["STREAMS"][0]
  base = f"imigue,{stream}"
  first, second = (
    settings.read_config(f"{name}:{base},{end}", []) for end in ("small,fold=2", "fold=2/4,small")
  )
  assert first.data.fold == "2/4"
  assert first.to_dict() == second.to_dict()
  assert settings.read_config(f"{name}:{base}", []).data.fold is None
  ends = (",large", ",fold=1,fold=2", ",", ",small,small", ",fold=a")
  for argument in ("imigue", f",{stream}", *(base + end for end in ends)):
    with pytest.raises(errors.ConfigError, match=f"expected DATASET,{stream}"):
      settings.read_config(f"{name}:{argument}", [])


def test_a_file_of_ones_own_comes_before_a_shipped_one_of_its_name(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "agcn").mkdir()
  assert settings.read_config("agcn:imigue,joint", []).model.name == "agcn"
  text = "from . import grammar\nget_config = lambda text: grammar.ablation(text)[-1]\n"
  pathlib.Path("posec3d").write_text(text)
  assert settings.read_config("posec3d:mine", []).base == "posec3d:mine,joint"


def test_a_config_that_is_not_there_is_named_with_those_that_are():
  with pytest.raises(errors.ConfigError) as caught:
    settings.read_config("recipe_a:imigue", [])
  assert str(caught.value) == (
    "--config=recipe_a:imigue: expected a file, or ablations/labels or ablations/long_tail or "
    "ablations/recipe_a or ablations/sampling or agcn or emotion or fusion or mvit or posec3d or "
    "swinface, got recipe_a (did you mean ablations/recipe_a?)"
  )
  with pytest.raises(errors.ConfigError, match="did you mean ablations/labels"):
    settings.read_config("labels:utd_mhad", [])
  with pytest.raises(errors.ConfigError, match="jaxmg alone lists them"):
    settings.read_config("nothing:utd_mhad", [])


@pytest.mark.parametrize("setting", settings.USED_WITH)
def test_a_setting_that_would_do_nothing_is_refused(setting):
  values = {
    "augment.tilt": ("5.0", "sampling.points=keypoints"),
    "optimizer.momentum": ("0.5", "optimizer.name=adamw"),
    "optimizer.nesterov": ("True", "optimizer.name=adamw"),
    "schedule.milestones": ("(3,)", "schedule.name=cosine"),
    "semantic.weight": ("3.0", "semantic.loss=off"),
    "semantic.temperature": ("0.5", "semantic.loss=mse"),
    "semantic.table": ("a.npy", "semantic.loss=off"),
    "train.class_weights": ("inverse", "stage=classifier"),
    "train.logit_adjustment": ("1.0", "stage=classifier"),
    "train.trainable": ("('head/.*',)", "stage=classifier"),
    "train.evaluate_every": ("2", "train.seed=0"),
  }
  value, beside = values[setting]
  # A set of one's own decides its points; what else is asked for by default is taken away.
  plain = ["augment.tilt=0", "train.logit_adjustment=0"]
  given = dict(text.split("=", 1) for text in (*plain, beside, f"{setting}={value}"))
  overrides = [f"--config.{name}={text}" for name, text in given.items()]
  with pytest.raises(errors.ConfigError, match=f"^--config.{setting}: expected none, "):
    settings.read_config("agcn:of_ones_own,joint", overrides)


def test_a_setting_outside_its_range_is_refused():
  for setting in ("train.seed=-1", "train.ema=1.0", "optimizer.learning_rate=nan"):
    with pytest.raises(errors.ConfigError, match=f"^--config.{setting.split('=')[0]}: expected "):
      settings.read_config("agcn:imigue,joint", [f"--config.{setting}"])


def test_what_the_file_sets_may_be_made_idle_by_a_setting_that_is_given():
  overrides = ["--config.sampling.points=keypoints"]  # the file has a tilt, of 3-D joints
  assert settings.read_config("agcn:utd_mhad,joint", overrides).augment.tilt > 0
  config = settings.read_config("agcn:utd_mhad,joint,paper", ["--config.optimizer.name=adamw"])
  assert trainer.make_optimizer(config, 10, None)  # without Nesterov's momentum
  overrides.append("--config.augment.tilt=5.0")
  with pytest.raises(errors.ConfigError, match=r"augment\.tilt: expected none, got 5\.0"):
    settings.read_config("agcn:utd_mhad,joint", overrides)


@pytest.mark.parametrize("text", ["imigue,fold=2", "imigue,small,small", ",small", "imigue,joint"])
def test_an_ablation_takes_a_data_set_and_its_size_alone(text):
  for name in ABLATIONS:
    with pytest.raises(errors.ConfigError, match=r"expected DATASET\[,small\], got"):
      settings.read_config(f"ablations/{name}:{text}", [])


def test_a_damaged_config_of_a_run_says_what_to_do(tmp_path):
  (tmp_path / "config.json").write_text("[")
  with pytest.raises(
    errors.ConfigError, match=r"config\.json: .*train again, in another --workdir"
  ):
    settings.of_run(tmp_path)
