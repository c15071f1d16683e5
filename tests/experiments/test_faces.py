"""The command that finds faces, from a video and key points to crops, a table and curves."""

import csv
import types

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments import faces as command
from experiments import launch
from jaxmg import encoders, faces, inputs, models
from jaxmg.models import swinface

SIZE = (96, 128)


def places(number):
  return (0.5 * faces.TEMPLATE + np.array([20 + number, 10])).astype(np.float32)


def drawn(number):
  """A grey picture with bright squares for the landmarks."""
  image = np.full((*SIZE, 3), 60, np.uint8)
  for x, y in places(number).round().astype(int):
    image[y - 2 : y + 3, x - 2 : x + 3] = 240
  return image


@pytest.fixture(scope="module")
def files(videos, tmp_path_factory):
  """A video of 20 frames, 0.8 seconds, and key points of it; in the last 5 nobody is there."""
  folder = tmp_path_factory.mktemp("faces")
  video = videos.write(
    folder / "a.mp4", 20, size=SIZE, change=lambda image: drawn(videos.number(image))
  )
  keypoints = np.zeros((20, 137, 3), np.float32)
  for t in range(15):
    for k, points in enumerate((range(36, 42), range(42, 48), (30,), (48,), (54,))):
      keypoints[t, [25 + point for point in points]] = [*places(t)[k], 0.8]
  np.save(folder / "a.npy", keypoints)
  return video, folder / "a.npy"


def run(video, out, *more):
  return launch.command(
    command.run, command.define, [str(video), f"--out={out}", *more], positional="VIDEO"
  )


def table(folder):
  with open(folder / "faces.csv", newline="") as file:
    return [*csv.DictReader(file)]


def test_a_video_and_its_key_points_give_crops_a_table_and_curves(files, tmp_path, capsys):
  video, keypoints = files
  assert run(video, tmp_path / "out", f"--keypoints={keypoints}", "--rate=12.5") == 0
  assert "a face in 8 of 10 pictures (80.0%)" in capsys.readouterr().out
  rows = table(tmp_path / "out")
  assert [int(row["frame"]) for row in rows] == [*range(0, 20, 2)]
  assert [row["score"] for row in rows] == ["0.8000"] * 8 + ["0.0000"] * 2
  assert float(rows[2]["nose_x"]) == pytest.approx(places(4)[2, 0], abs=0.01)
  assert rows[9]["nose_x"] == ""
  strip = np.asarray(Image.open(tmp_path / "out" / "strip.png"))
  assert strip.shape == (112, 8 * 112, 3)
  x, y = faces.TEMPLATE.round().astype(int).T
  for k in range(8):
    assert strip[y, 112 * k + x].min() > 180
  assert strip[:5].max() < 90
  assert (tmp_path / "out" / "faces.png").stat().st_size > 5000


class Toy(swinface.SwinFace):
  """Tells how bright a face is; the network itself would compile for 10 seconds."""

  def apply(self, variables, x):
    bright = x.mean((2, 3, 4))[..., None]
    attributes = jnp.zeros((*bright.shape[:2], 40, 2)).at[..., 1].set(bright)
    return None, {
      "age": 30 * bright,
      "expression": bright * jnp.arange(7),
      "attributes": attributes,
    }


def test_a_swinface_tells_of_each_face(files, tmp_path, monkeypatch):
  one = inputs.Faces(size=28)
  model = Toy(7, branches=True, classify="expression")
  recipe = types.SimpleNamespace(build_model=lambda: model, inputs={"faces": one})
  monkeypatch.setattr(encoders, "load", lambda run, step: (recipe, {}))
  video, keypoints = files
  assert run(video, tmp_path, f"--keypoints={keypoints}", "--run=any", "--rate=25") == 0
  rows = table(tmp_path)
  assert len(command.OUTPUTS) == 48
  assert set(command.OUTPUTS) <= rows[0].keys()
  crops = np.asarray(Image.open(tmp_path / "strip.png"), np.float32)
  for k in (0, 9):  # of the first faces that it saw together, and of the next
    crop = crops[:28, 28 * k : 28 * k + 28]
    bright = (crop / 255 - 0.5).mean() / 0.5
    expected = np.exp(bright * np.arange(7)) / np.exp(bright * np.arange(7)).sum()
    assert float(rows[k]["age"]) == pytest.approx(30 * bright, abs=1e-3)
    found = [float(rows[k][name]) for name in swinface.EXPRESSIONS]
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert float(rows[k]["male"]) == pytest.approx(1 / (1 + np.exp(-bright)), abs=1e-4)
  assert rows[-1]["age"] == ""


def test_other_runs_tell_nothing(files, tmp_path, monkeypatch, capsys):
  model = models.MODELS["swinface"](7)
  recipe = types.SimpleNamespace(build_model=lambda: model, inputs={"faces": inputs.Faces()})
  monkeypatch.setattr(encoders, "load", lambda run, step: (recipe, {}))
  assert run(files[0], tmp_path, f"--keypoints={files[1]}", "--run=RUN") == 4
  error = "RUN: expected an imported SwinFace with its branches, got one without"
  assert error in capsys.readouterr().err


@pytest.mark.parametrize(
  ("options", "code", "message"),
  [
    ([], 2, "faces: expected --keypoints=FILE or --detector=FOLDER, got neither"),
    (["--keypoints=a", "--detector=b"], 2, "or --detector=FOLDER, got both"),
    (["--detector={folder}"], 4, "expected pnet.pt, rnet.pt and onet.pt, got no pnet.pt"),
    (["--keypoints={video}"], 3, "expected poses, got a video"),
    (["--keypoints={keypoints}", "--rate=0"], 2, "--rate: expected pictures a second, above 0"),
    (["--keypoints={keypoints}", "more"], 2, "unexpected argument 'more' (one VIDEO at a time)"),
  ],
)
def test_mistakes_are_one_line(files, tmp_path, capsys, options, code, message):
  video, keypoints = files
  names = {"video": video, "keypoints": keypoints, "folder": tmp_path}
  assert run(video, tmp_path / "out", *(one.format(**names) for one in options)) == code
  error = capsys.readouterr().err
  assert message in error
  assert error.count("\n") == 1


def test_key_points_are_no_video(files, tmp_path, capsys):
  assert run(files[1], tmp_path, "--detector=a") == 3
  assert "expected a video, got a pose" in capsys.readouterr().err
