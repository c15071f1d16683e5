"""A flipped bit or character in a small file of a run or a set: an error, or nothing changes."""

import shutil

import numpy as np
import pytest

from jaxmg import errors, inputs, recipe, skeletons
from jaxmg.data import prepared, readers, source, tracks


def flips(path, count=200):
  """Damages a file in one place after another: half of the time a bit, else a character."""
  whole, rng = path.read_bytes(), np.random.default_rng(0)
  for number, place in enumerate(rng.choice(len(whole), count, replace=False)):
    damaged = bytearray(whole)
    others = [byte for byte in range(32, 127) if byte != whole[place]]
    damaged[place] = rng.choice(others) if number % 2 else whole[place] ^ 1 << rng.integers(8)
    path.write_bytes(damaged)
    yield


def refused(path, read):
  """How many of 200 flips raise an error of ours; the others must not change what is read."""
  expected, messages = read(), []
  for _ in flips(path):
    try:
      np.testing.assert_equal(read(), expected)
    except errors.Error as error:
      messages.append(str(error))
  assert all(message.startswith(str(path.parent)) for message in messages)
  return len(messages)


@pytest.fixture
def run(tmp_path):
  """The small files of a run with a head for label embeddings."""
  table = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)
  one = inputs.Heatmaps(skeletons.get("imigue22"), (72, 128), stream="limb", crop=(0.5, 1.0))
  model = {"name": "posec3d", "num_classes": 2, "width": 4, "depths": (1, 1), "dropout": 0.1}
  options = {"data": {"name": "nods"}, "label_embeddings": recipe.table_digest(table)}
  recipe.save(tmp_path, recipe.Recipe(model, {"pose": one}, ("nod", "shake"), **options))
  np.save(tmp_path / recipe.LABELS, table)
  return tmp_path


def test_a_flip_in_a_recipe(run):
  assert refused(run / recipe.FILE, lambda: recipe.to_json(recipe.load(run))) > 100


def test_a_flip_in_the_table_of_label_embeddings(run):
  whole = recipe.load(run)
  assert refused(run / recipe.LABELS, lambda: recipe.label_table(run, whole)) > 150


@pytest.mark.parametrize("file", ["index.json", "pose/track.json", "pose/features.json"])
def test_a_flip_in_a_file_of_a_set(nods, tmp_path, file):
  folder = shutil.copytree(nods / "nods", tmp_path / "nods") / "1.0.0"

  def read():
    data = source.Source(folder)
    track = data.track("pose")
    public = {name: value for name, value in vars(data).items() if not name.startswith("_")}
    return public, [track[row] for row in range(len(data))]

  assert refused(folder / file, read) > 100


class Depth(prepared.Builder):
  """Frames of noise, in clips of one and of two records."""

  track = tracks.Video((16, 16), channels=1, timed=False)
  track_name = "video"
  class_names = ("any",)
  protocols = {}  # noqa: RUF012

  def clips(self, recording, known):
    rng = np.random.default_rng(0)
    for k, length in enumerate((3, 258)):
      frames = readers.without_loss(rng.integers(0, 256, (length, 16, 16), np.uint8))
      yield prepared.Example(f"clip{k}", 0, "a", frames)


def test_a_flip_in_a_track_of_video(tmp_path):
  folder = prepared.write(Depth, raw=tmp_path, data_dir=tmp_path) / "video"
  once = source.Source(folder.parent).track("video")

  def read(track=once):
    return [b"".join(track[row]["frames"]) for row in (0, 1)], track.num_frames, track.notes

  # Most of the file is room for more.
  assert refused(folder / "depth-clips.array_record-00000", read) > 50
  opened_again = lambda: read(source.Source(folder.parent).track("video"))  # noqa: E731
  assert refused(folder / "track.json", opened_again) > 100
