"""The command that evaluates a run: broken off, it goes on."""

import numpy as np
import pytest

from experiments import evaluate, launch, plots
from jaxmg import files, scores
from jaxmg.data import pipeline
from jaxmg.training import evaluate as evaluation


@pytest.fixture
def score(run, monkeypatch):
  """Evaluates the run's training split, 8 clips at a time; returns the code and the clips read."""
  monkeypatch.setattr(evaluate.Kept, "SECONDS", 0.0)
  read = []
  load = pipeline._load

  def counted(source, row, *args):
    read.append(row)
    return load(source, row, *args)

  monkeypatch.setattr(pipeline, "_load", counted)
  monkeypatch.setattr(plots, "views", lambda *args, **options: None)

  def call(batch_size=8):
    read.clear()
    argv = [f"--run={run}", "--split=train", f"--batch_size={batch_size}"]
    return launch.command(evaluate.run, evaluate.define, argv), len(set(read))

  return call


def break_off(monkeypatch, after):
  """Makes the next evaluation end like one that is killed, after so many batches."""
  original = evaluation.evaluate

  def broken(*args, keep, **options):
    def keep_and_die(parts):
      keep(parts)
      if len(parts) == after:
        raise KeyboardInterrupt

    return original(*args, keep=keep_and_die, **options)

  monkeypatch.setattr(evaluation, "evaluate", broken)


def test_an_interrupted_evaluation_goes_on_to_the_same_bits(run, score, monkeypatch, capsys):
  folder = run / "train"
  assert score() == (0, 18)
  whole = {name: (folder / name).read_bytes() for name in ("scores.npz", "metrics.json")}
  (folder / "scores.npz").unlink()
  with monkeypatch.context() as patch:
    break_off(patch, after=2)
    assert score()[0] == 130
  assert (folder / "unfinished.npz").exists()
  assert "unfinished.npz holds the scores so far: the same command" in capsys.readouterr().err
  with files.locked(folder):
    assert score()[0] == 7
  assert score() == (0, 2)  # of 3 batches, the last with 2 of 18 clips
  assert "goes on where it was stopped: 2 batches are there" in capsys.readouterr().err
  assert {name: (folder / name).read_bytes() for name in whole} == whole
  assert not (folder / "unfinished.npz").exists()


@pytest.mark.parametrize("change", ["batch size", "damage", "split", "machine"])
def test_scores_of_other_batches_are_not_gone_on_with(run, score, monkeypatch, capsys, change):
  path = run / "train" / "unfinished.npz"
  with monkeypatch.context() as patch:
    break_off(patch, after=2)
    assert score()[0] == 130
  if change == "damage":
    content = bytearray(path.read_bytes())
    content[6] ^= 1  # the flags of its first part, at which zipfile raises a RuntimeError
    content[content.rindex(b"PK\x01\x02") + 8] ^= 1
    path.write_bytes(content)
  if change == "machine":
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_enable_fast_math=true")  # read at the start alone
  if change == "split":
    (run / "test").mkdir(exist_ok=True)
    path = path.rename(run / "test" / "unfinished.npz")
    arguments = [f"--run={run}", "--split=test", "--batch_size=8"]
    assert launch.command(evaluate.run, evaluate.define, arguments) == 0
    assert len(scores.load(run / "test" / "scores.npz").ids) == 6
  else:
    assert score(batch_size=16 if change == "batch size" else 8) == (0, 18)
  assert "begins again: " in capsys.readouterr().err
  assert not path.exists()


def test_ctrl_c_says_what_is_kept_and_not_what_is_refused(run, score, monkeypatch, capsys):
  path = run / "train" / "unfinished.npz"
  path.write_bytes(b"of something else")

  def interrupted(*args, **options):
    raise KeyboardInterrupt

  with monkeypatch.context() as patch:
    patch.setattr(evaluation, "evaluate", interrupted)
    assert score()[0] == 130
  printed = capsys.readouterr().err
  assert "begins again: " in printed
  assert "no scores are kept: the same command begins again" in printed
  path.unlink()


def test_half_a_save_of_a_killed_evaluation_is_removed(tmp_path):
  path = tmp_path / ".part.unfinished.npz"
  path.write_bytes(b"half")
  evaluate.Kept(tmp_path / "unfinished.npz", []).remove()
  assert not path.exists()


def test_every_kept_part_is_what_its_batch_gave(tmp_path):
  parts = [(np.arange(n), np.full((n, 3), n / 7, np.float32), np.arange(n) % 3) for n in (4, 4, 1)]
  of = {"weights": np.ones(3), "recipe": "a"}
  kept = evaluate.Kept(tmp_path / "unfinished.npz", of)
  kept.SECONDS = 0
  kept.save(parts)
  for one, other in zip(evaluate.Kept(tmp_path / "unfinished.npz", of).parts, parts, strict=True):
    for x, y in zip(one, other, strict=True):
      np.testing.assert_array_equal(x, y, strict=True)
  assert evaluate.Kept(tmp_path / "unfinished.npz", of | {"weights": np.zeros(3)}).parts == []
