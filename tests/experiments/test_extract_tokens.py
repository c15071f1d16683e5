"""Tokens are added to a set, of a run or of a folder; a fusion of both trains on them."""

import functools
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import evaluate, extract_tokens, launch, predict, trainer
from jaxmg import inputs, recipe, scores
from jaxmg import predict as predictor
from jaxmg.data import prepared, shards, source, tracks
from jaxmg.training import checkpoints

ID = "clip7"


def extract(*arguments):
  return launch.command(extract_tokens.run, extract_tokens.define, arguments)


@pytest.fixture(scope="module")
def data(run, nods, tmp_path_factory):
  """A copy of `nods` with tokens of the run `nods`: its test views, and 3 more."""
  data = shutil.copytree(nods, tmp_path_factory.mktemp("tokens") / "data")
  assert extract(f"--run={run}", f"--data={data}/nods", "--views=3", "--batch_size=16") == 0
  return data


@pytest.fixture(scope="module")
def folder(nods, tmp_path_factory):
  """A folder of arrays of another network: a class token, and 2 moments of 2 tokens."""
  folder = tmp_path_factory.mktemp("foreign") / "arrays"
  folder.mkdir()
  found = source.Source(nods / "nods")
  rng = np.random.default_rng(0)
  for id, label in zip(found.ids, found.labels, strict=True):
    np.save(folder / f"{id}.npy", np.float32(rng.normal(size=(5, 6)) + 2 * label))
  return folder


def views(data, row, name="tokens-nods"):
  track = source.Source(data / "nods").track(name)
  return np.stack([view["tokens"] for view in track[row]["views"]]), track


def test_a_run_adds_the_tokens_of_its_views_and_touches_nothing_else(run, nods, data):
  before, after = nods / "nods" / "1.0.0", data / "nods" / "1.0.0"
  old = {p.relative_to(before): p.read_bytes() for p in before.rglob("*") if p.is_file()}
  assert {name: (after / name).read_bytes() for name in old} == old
  assert source.Source(after).track_names == ("pose", "tokens-nods")
  found = recipe.load(run)
  of, track = views(data, 7)
  count = found.num_views
  assert found.mirror
  assert of.shape == (count + 3, 4, 32)
  assert track.kind.test_views == count
  assert (track.rows.tolist(), track.num_frames.tolist()) == (list(range(24)), [count + 3] * 24)
  view = track[7]["views"][0]
  np.testing.assert_allclose(view["times"], [0.125, 0.375, 0.625, 0.875])
  # The mean of the tokens is what the run classifies.
  variables = checkpoints.restore_variables(run / "checkpoints")
  model, pose = found.build_model(), found.inputs["pose"]
  part = pose.read_test(source.Source(nods / "nods").track("pose")[7], found.num_clips)
  part = {name: jnp.asarray(x)[None] for name, x in part.items()}
  seen = jax.tree.map(lambda x: x[:, 0], jax.vmap(pose.view)(pose.views(part, True)))
  _, out = jax.jit(model.apply)(variables, seen)
  clips, mirrored = np.split(np.asarray(out["features"]), 2)
  expected = np.stack([clips, mirrored], 1).reshape(count, -1)  # a clip, its mirror image, ...
  np.testing.assert_allclose(of[:count].mean(1), expected, rtol=0.01, atol=1e-3)
  assert np.abs(expected[0] - expected[1]).max() > 0.01
  assert len({view.tobytes() for view in of}) == count + 3


def test_an_extraction_goes_on_to_the_same_tokens(run, nods, data, tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(shards, "SHARD_BYTES", 1)
  copy = shutil.copytree(nods, tmp_path / "data")
  write = prepared.Example
  made = []

  def stop(id, *values):
    made.append(id)
    if len(made) == 20:  # in the second batch
      raise KeyboardInterrupt
    return write(id, *values)

  arguments = [f"--run={run}", f"--data={copy}/nods", "--views=3", "--batch_size=16"]
  with monkeypatch.context() as patch:
    patch.setattr(prepared, "Example", stop)
    assert extract(*arguments) == 130
  assert source.Source(copy / "nods").track_names == ("pose",)
  assert extract(*arguments) == 0
  assert "goes on where it was stopped: 16 clips of 1 of 2" in capsys.readouterr().err
  (a, first), (b, then) = views(data, 20), views(copy, 20)
  np.testing.assert_array_equal(a, b)
  assert first.fingerprint() == then.fingerprint()


def test_tokens_of_another_checkpoint_are_refused(run, data, tmp_path, capsys):
  assert extract(f"--run={run}", f"--data={data}/nods", "--views=3") == 0
  assert "is whole, and left as it is" in capsys.readouterr().out
  other = shutil.copytree(run, tmp_path / "nods")
  content = json.loads((other / recipe.FILE).read_text())
  changed = recipe.from_json(content)
  changed.model["dropout"] = 0.25
  recipe.save(other, changed)
  assert extract(f"--run={other}", f"--data={data}/nods") == 2
  message = "1.0.0/tokens-nods: expected 4 tokens of width 32 of "
  error = capsys.readouterr().err
  assert message in error
  assert error.endswith("(remove it, or take another --name)\n")


def test_views_of_the_same_number_are_of_the_same_moment_and_side(run, nods):
  found = recipe.load(run)
  keys = np.arange(24, dtype=np.int32)

  class Told:
    def train(self, keys, part, mirror):
      return mirror

  told = [
    recipe.Recipe(found.model, {name: Told() for name in names}, found.class_names, mirror=True)
    for names in (("pose",), ("video",))
  ]
  sides = [
    extract_tokens._drawn(one, {"clip": keys, "view": np.full(24, 3), **dict.fromkeys(one.inputs)})
    for one in told
  ]
  np.testing.assert_array_equal(*sides)
  assert set(sides[0].tolist()) == {True, False}


def describe(config, data):
  model = {"name": "fusion", "num_classes": len(data.class_names), "variant": "tiny"}
  chosen = {}
  for name in ("nods", "other"):
    kind = data.track(f"tokens-{name}").kind
    chosen[name] = inputs.Tokens(f"tokens-{name}", kind.num_tokens, kind.width, kind.encoder)
  return model, chosen


def test_a_fusion_of_tokens_trains_is_evaluated_and_says_that_no_file_will_do(
  data, folder, training, tmp_path, capsys
):
  arguments = [f"--from={folder}", f"--data={data}/nods", "--name=other"]
  assert extract(*arguments, "--times=2", "--class_token") == 0
  out = capsys.readouterr().out
  changed = shutil.copytree(folder, tmp_path / "changed")
  np.save(changed / f"{ID}.npy", np.ones((5, 6), np.float32))
  again = [f"--from={changed}", *arguments[1:], "--times=2", "--class_token"]
  assert extract(*again) == 2
  assert "remove it, or take another --name" in capsys.readouterr().err
  assert "read as 5 tokens of width 6 a view: 2 moments, evenly" in out
  assert "of 2 tokens each, after a class token" in out
  _, track = views(data, 7, "tokens-other")
  np.testing.assert_array_equal(
    track[7]["views"][0]["tokens"], np.float16(np.load(folder / f"{ID}.npy"))
  )
  np.testing.assert_array_equal(track[7]["views"][0]["times"], [-1, 0.25, 0.25, 0.75, 0.75])

  workdir = tmp_path / "run"
  run = functools.partial(trainer.run, describe=describe)
  assert launch.main(run, training(workdir, "sampling.mirror=False", data=data)) == 0
  assert launch.command(evaluate.run, evaluate.define, [f"--run={workdir}"]) == 0
  found = scores.load(workdir / "test" / "scores.npz")
  there = source.Source(data / "nods")
  tokens = {name: there.track(name)[20] for name in ("tokens-nods", "tokens-other")}
  expected = found.probabilities[found.ids.index("clip20")]
  np.testing.assert_allclose(predictor.Predictor(workdir)(tokens), expected, atol=1e-5)
  np.save(tmp_path / "raw.npy", there.track("pose")[20]["keypoints"])
  capsys.readouterr()
  raw = [f"--run={workdir}", f"--input={tmp_path / 'raw.npy'}", "--layout=openpose25"]
  raw += ["--points=keypoints", "--frame_size=72x128"]
  assert launch.command(predict.run, predict.define, raw) == 3
  error = capsys.readouterr().err
  hint = "(which no file holds: evaluate takes it from a prepared set)"
  assert error.endswith(f"expected a tokens-nods, got pose {hint}\n")


def test_what_a_folder_lacks_is_said_in_one_line(data, folder, tmp_path, capsys):
  copy = shutil.copytree(folder, tmp_path / "copy")
  arguments = [f"--from={copy}", f"--data={data}/nods", "--name=third"]

  def refused(code, message):
    assert extract(*arguments) == code
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
    assert "tokens-third" not in source.Source(data / "nods").track_names

  np.save(copy / "x.npy", np.zeros((5, 6)))
  refused(3, "copy: expected files named by clips' ids, got x.npy (1 such files of 25)")
  (copy / "x.npy").unlink()
  (copy / "clip3.npy").rename(tmp_path / "clip3.npy")
  refused(3, "copy: expected a file for every clip, got none of clip3 (1 such clips of 24)")
  for array, message in (
    (np.zeros((5, 7)), "nods: clip 'clip3': tokens: expected [5, 6] a view, got [5, 7]"),
    (np.zeros((0, 6)), "clip3.npy: expected float[L, D] or float[N, L, D], got float64[0, 6]"),
    (np.zeros(5), "clip3.npy: expected float[L, D] or float[N, L, D], got float64[5]"),
    (np.zeros((5, 6), int), "clip3.npy: expected float[L, D] or float[N, L, D], got int64[5, 6]"),
    (np.full((5, 6), np.inf), "nods: clip 'clip3': tokens: expected finite numbers"),
  ):
    np.save(copy / "clip3.npy", array)
    refused(3, message)
  arguments.append("--times=3")
  refused(2, "--times: expected a divisor of 5 tokens, got 3")
  arguments[2:] = ["--name=a/b"]
  (copy / "clip3.npy").unlink()
  (tmp_path / "clip3.npy").rename(copy / "clip3.npy")
  refused(2, "--name: expected letters, digits, _ and - alone, got 'a/b'")
  arguments.pop()
  refused(2, "--name: expected what the network is called, got none")
  arguments[0] = f"--from={tmp_path / 'nothing'}"
  arguments.append("--name=third")
  refused(3, "nothing: expected a folder of .npy files, got none")
  arguments.append("--run=runs/a")
  refused(2, "--run or --from: expected one of them, got both")
  assert isinstance(source.Source(data / "nods").track("tokens-nods").kind, tracks.Tokens)
