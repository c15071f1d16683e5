"""A kind of data that only this file knows: a track, an input and a model; jaxmg is not touched."""

import dataclasses
import functools
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorflow_datasets as tfds
from flax import linen as nn

from experiments import evaluate, launch, trainer
from jaxmg import inputs, models, predict, scores
from jaxmg.data import prepared, source, tracks
from jaxmg.errors import ConfigError, DataError


@dataclasses.dataclass(frozen=True)
class Sound:
  """The track: samples of a microphone, one record for each second."""

  rate: int  # samples a second

  @property
  def about(self):
    return {"rate": self.rate}

  def read_file(self, path):
    return np.load(path)

  def features(self):
    return {"samples": tfds.features.Tensor(shape=(None,), dtype=np.int16)}

  def records(self, clip):
    return [{"samples": part} for part in np.split(clip, range(self.rate, len(clip), self.rate))]

  def remarks(self, clip):
    return ()

  def num_frames(self, clip):
    return len(clip)

  def content(self, clip):
    return clip if clip.any() else None

  def read(self, records):
    return {"rate": self.rate, "seconds": records}


@dataclasses.dataclass(frozen=True)
class Loudness:
  """The input: how loud a second is, drawn at random in training."""

  scale: float = 1.0
  track = "sound"
  num_frames = 1  # of what is drawn
  SEEN = ("scale",)

  told = {}  # noqa: RUF012 (its raw files are read by nothing of ours)

  def check(self, about):
    if about["rate"] < 2:
      raise ValueError(f"rate: expected at least 2, got {about['rate']}")

  def check_shown(self, record):
    pass

  def read(self, record, rng):
    seconds = record["seconds"]
    return {"samples": np.float32(seconds[rng.integers(len(seconds))]["samples"])}

  def read_test(self, record, num_clips):
    places = np.arange(num_clips) % len(record["seconds"])
    return {"samples": np.stack([np.float32(record["seconds"][k]["samples"]) for k in places])}

  def example(self, num_clips=None):
    views = () if num_clips is None else (num_clips,)
    return {"samples": jax.ShapeDtypeStruct((1, *views, 4), jnp.float32)}

  def train(self, keys, part, mirror):
    return self.view(part["samples"])

  def views(self, part, mirror):
    views = jnp.moveaxis(part["samples"], 1, 0)
    return jnp.repeat(views, 2 if mirror else 1, axis=0)

  def ones(self, samples):
    return jnp.ones_like(samples)

  def view(self, samples, mask=None):
    samples = samples if mask is None else samples * mask
    return self.scale * jnp.abs(samples).mean(-1, keepdims=True)

  def draw(self, axes, part, clip, frame):
    axes.plot(part["samples"][clip, 0])

  def picture(self, x):
    return None


class Listens(nn.Module):
  """The model: hears the sound, and sees the joints."""

  num_classes: int
  dtype: Any = jnp.float32

  @nn.compact
  def __call__(self, x, *, train=False, rows=None):
    del train, rows
    joints = x["pose"].mean((1, 2)).reshape(len(x["pose"]), -1)
    features = jnp.concatenate([joints, x["sound"]], -1)
    return nn.Dense(self.num_classes, name="head")(features), {"features": features}


def describe(config, data):
  pose = trainer.make_input(
    config, inputs.Graph, trainer.pose_fields(config, data) | {"stream": "joint"}
  )
  model = {"name": "listens", "num_classes": len(data.class_names)}
  return model, {"pose": pose, "sound": Loudness(scale=0.5)}


run = functools.partial(trainer.run, describe=describe)


def sound(row):
  return np.int16([row + 1, -row, row, 1, row % 2, 2, 3, 4])


class Recorded(prepared.Builder):
  """Sounds of clips of `nods`: two seconds each."""

  name = "nods"
  track, track_name = Sound(rate=4), "sound"
  class_names = ("nod", "shake")
  synthetic = True
  protocols = {}  # noqa: RUF012 (the set's own hold)
  subject = "abcd"

  def clips(self, recording, known):
    for row in range(23):  # that of the last clip was lost
      yield prepared.Example(f"clip{row}", row % 2, self.subject[row // 6], sound(row))


@pytest.fixture(autouse=True, scope="module")
def known():
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(tracks.TRACKS, "sound", Sound)
    patch.setitem(inputs.INPUTS, "loudness", Loudness)
    patch.setitem(models.MODELS, "listens", Listens)
    yield


@pytest.fixture(scope="module")
def heard(known, nods, tmp_path_factory):
  """A copy of `nods` with sound."""
  data = shutil.copytree(nods, tmp_path_factory.mktemp("heard") / "data")
  prepared.write(Recorded, raw=data, data_dir=data)
  return data


def test_a_track_is_added_and_nothing_else_is_touched(nods, heard):
  before, after = nods / "nods" / "1.0.0", heard / "nods" / "1.0.0"
  old = {
    path.relative_to(before): path.read_bytes() for path in before.rglob("*") if path.is_file()
  }
  new = {path.relative_to(after): path.read_bytes() for path in after.rglob("*") if path.is_file()}
  assert {name for name in new if name not in old} == {
    after.joinpath("sound", name).relative_to(after)
    for name in (
      "track.json",
      "features.json",
      "dataset_info.json",
      "nods-clips.array_record-00000",
    )
  }
  assert {name: new[name] for name in old} == old
  data = source.Source(after)
  assert data.track_names == ("pose", "sound")
  assert data.fingerprint(["pose"]) == source.Source(before).fingerprint(["pose"])
  track = data.track("sound")
  assert (track.kind, track.rows.tolist()) == (Sound(rate=4), list(range(23)))
  seconds = track[5]["seconds"][:]
  assert [second["samples"].tolist() for second in seconds] == [[6, -5, 5, 1], [1, 2, 3, 4]]
  with pytest.raises(DataError, match="clip 'clip23': expected its data, got none"):
    track[23]
  assert prepared.write(Recorded, raw=heard / "none", data_dir=heard) == after  # as it is


@pytest.mark.parametrize(
  ("options", "message"),
  [
    ({"subject": "abbd"}, r"clip 'clip12': expected it in .*, as \{.*'b'.*\}, got \{.*'c'.*\}"),
    ({"clips": lambda self, *_: [prepared.Example("x", 0, "a", sound(1))]}, "as .*, got none"),
    ({"clips": lambda self, *_: []}, "expected at least one clip, got none"),
    ({"class_names": ("shake", "nod")}, r"class_names: expected \('nod', 'shake'\), got"),
    ({"mirror": False}, "mirror: expected True, got False"),
  ],
)
def test_a_track_of_other_clips_is_refused(nods, tmp_path, options, message):
  data = shutil.copytree(nods, tmp_path / "data")
  with pytest.raises((ConfigError, DataError), match=message):
    prepared.write(
      type("Recorded", (Recorded,), {"name": "nods", **options}), raw=data, data_dir=data
    )
  assert [path.name for path in (data / "nods" / "1.0.0").iterdir() if path.is_dir()] == ["pose"]


def test_copies_between_train_and_test_are_refused_in_every_track(nods, tmp_path):
  def clips(self, recording, known):
    for row in (0, 18):
      yield prepared.Example(f"clip{row}", row % 2, "abcd"[row // 6], sound(3))

  data = shutil.copytree(nods, tmp_path / "data")
  with pytest.raises(DataError, match="no copies between train and test, got 1: 'clip18'"):
    prepared.write(
      type("Recorded", (Recorded,), {"name": "nods", "clips": clips}), raw=data, data_dir=data
    )
  assert source.Source(data / "nods").track_names == ("pose",)


def test_a_track_of_another_set_is_refused(heard, make_nods):
  other = make_nods(6 * "a" + 6 * "b" + 6 * "c" + 5 * "d")  # the same ids but for the last
  shutil.copytree(heard / "nods" / "1.0.0" / "sound", other / "nods" / "1.0.0" / "sound")
  data = source.Source(other / "nods")
  assert data.track("pose").rows.size == 23
  with pytest.raises(DataError, match="sound: expected a track of this set, got one of another"):
    data.track("sound")


def test_which_records_are_whose_is_part_of_the_fingerprint(nods, tmp_path):
  found = set()
  for length in (4, 8):  # of the first clip: the three seconds are the same

    def clips(self, recording, known, length=length):
      yield prepared.Example("clip0", 0, "a", np.arange(1, 13, dtype=np.int16)[:length])
      yield prepared.Example("clip1", 1, "a", np.arange(1, 13, dtype=np.int16)[length:])

    data = shutil.copytree(nods, tmp_path / str(length))
    builder = type("Recorded", (Recorded,), {"name": "nods", "clips": clips})
    path = prepared.write(builder, raw=data, data_dir=data)
    found.add(source.Source(path).fingerprint(["sound"]))
  assert len(found) == 2


def test_a_clip_without_records_or_arrays_is_named(nods, tmp_path):
  data = shutil.copytree(nods, tmp_path / "data")
  for records, message in (
    ([], "clip 'clip0': expected at least one record, got none"),
    ([{"samples": [1, 2]}], "clip 'clip0': samples: expected an array, got list"),
  ):
    kind = type("Odd", (Sound,), {"records": lambda self, clip, records=records: records})
    builder = type("Recorded", (Recorded,), {"name": "nods", "track": kind(rate=4)})
    with pytest.MonkeyPatch.context() as patch:
      patch.setitem(tracks.TRACKS, "odd", kind)
      with pytest.raises(DataError, match=message):
        prepared.write(builder, raw=data, data_dir=data)


def test_a_builder_that_forgot_the_name_of_its_track_is_refused(nods, tmp_path):
  data = shutil.copytree(nods, tmp_path / "data")
  builder = type("Recorded", (Recorded,), {"name": "nods", "track_name": "pose"})
  with pytest.raises(ConfigError, match=r"1\.0\.0: pose: expected Pose, got Sound"):
    prepared.write(builder, raw=data, data_dir=data)


def test_what_lies_where_the_track_goes_is_left(nods, tmp_path):
  data = shutil.copytree(nods, tmp_path / "data")
  mine = data / "nods" / "1.0.0" / "sound" / "mine.txt"
  mine.parent.mkdir()
  mine.touch()
  with pytest.raises(ConfigError, match=r"sound: expected a track, or nothing, got no track\.json"):
    prepared.write(Recorded, raw=data, data_dir=data)
  assert mine.exists()


def test_it_trains_goes_on_is_evaluated_and_predicts(heard, training, tmp_path):
  settings = ("schedule.name=step", "train.seed=3")
  assert launch.main(run, training(tmp_path / "run", *settings, data=heard)) == 0
  arguments = [f"--run={tmp_path / 'run'}", "--split=train"]
  assert launch.command(evaluate.run, evaluate.define, arguments) == 0
  found = scores.load(tmp_path / "run" / "train" / "scores.npz")
  data = source.Source(heard / "nods")
  predictor = predict.Predictor(tmp_path / "run")
  records = {name: data.track(name)[4] for name in ("pose", "sound")}
  np.testing.assert_allclose(predictor(records), found.probabilities[4], atol=1e-6)
  with pytest.raises(DataError, match="expected a sound, got pose"):
    predictor({"pose": records["pose"]})


def test_a_clip_without_the_data_is_named(heard, training, tmp_path, capsys):
  assert launch.main(run, training(tmp_path / "run", data=heard)) == 0
  assert launch.command(evaluate.run, evaluate.define, [f"--run={tmp_path / 'run'}"]) == 3
  message = "sound: clip 'clip23': expected its data, got none (1 such clips)"
  assert message in capsys.readouterr().err
