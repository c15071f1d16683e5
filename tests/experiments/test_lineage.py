"""What is known of the clips that weights have seen."""

import shutil

import pytest

from experiments import launch, lineage, posec3d, trainer
from jaxmg import recipe
from jaxmg.training import checkpoints


@pytest.fixture
def copy(run, tmp_path):
  """A copy of a run, as some make it: without its config."""
  copy = shutil.copytree(run, tmp_path / "copy")
  (copy / "config.json").unlink()
  return copy


def test_a_run_names_those_that_it_began_with(copy, edit_json):
  own = recipe.load(copy).data
  assert lineage.of(copy, recipe.load(copy)) == [own]
  for before, expected in (({"name": "a"}, [{"name": "a"}]), (None, [None])):
    edit_json(copy / "recipe.json", lambda one, x=before: one["data"].update(began_with=x))
    found = recipe.load(copy)
    assert lineage.of(copy, found) == [found.data, *expected]


def test_of_imported_weights_nothing_is_known(copy):
  weights = checkpoints.restore_variables(copy / "checkpoints")
  shutil.rmtree(copy / "checkpoints")
  with checkpoints.Checkpoints(copy / "checkpoints") as saved:
    saved.save(0, weights, {})
  assert lineage.of(copy, recipe.load(copy)) == [None]


def test_clips_that_an_earlier_run_has_seen_stay_forbidden(copy, training, edit_json, capsys):
  def train(workdir):
    settings = ("data.fold=0/3", f"init_from={copy}")
    return launch.main(posec3d.run, training(copy.parent / workdir, *settings))

  message = "expected weights that have not seen the clips held out here, got 6 trained on"
  assert train("first") == 4
  assert message in capsys.readouterr().err

  def put_before(content):
    before = dict(content["data"])
    content["data"] |= {"began_with": before, "fold": [0, 3]}  # itself, it left these clips out

  edit_json(copy / "recipe.json", put_before)
  assert train("second") == 4
  assert message in capsys.readouterr().err


def test_a_new_run_keeps_what_it_began_with(run, training, tmp_path, monkeypatch):
  monkeypatch.setattr(trainer.loop, "train", lambda *args, **options: None)
  assert launch.main(posec3d.run, training(tmp_path / "next", f"init_from={run}")) == 0
  assert recipe.load(tmp_path / "next").data["began_with"] == recipe.load(run).data
