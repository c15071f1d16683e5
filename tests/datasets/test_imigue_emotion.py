"""Interviews after matches won or lost, made here -> a prepared set of whole videos."""

import importlib
import io
import shutil

import numpy as np
import pytest
from PIL import Image

from jaxmg import inputs
from jaxmg.data import prepared, source
from jaxmg.errors import ConfigError, DataError

TABLE = "Label/labels_20200831.csv"


@pytest.fixture(scope="module")
def made(prepare, tmp_path_factory):
  prepare.load("synthetic_emotion")
  generate = importlib.import_module("synthetic_emotion.generate")
  raw = tmp_path_factory.mktemp("made")
  generate.write(raw, seed=0, train={1: 2}, test={2: 2}, seconds=(3, 3))
  return raw


@pytest.fixture
def raw(made, tmp_path):
  return shutil.copytree(made, tmp_path / "raw")


def write(prepare, raw, track=None, name="synthetic_emotion"):
  builder = prepare.load(name, track)
  return source.Source(prepared.write(builder, raw=raw, data_dir=raw.parent / "data"))


def change(path, change):
  path.write_text(change(path.read_text()))


@pytest.fixture(scope="module")
def data(prepare, made, tmp_path_factory):
  raw = shutil.copytree(made, tmp_path_factory.mktemp("set") / "raw")
  write(prepare, raw)
  return write(prepare, raw, "video")


def test_a_clip_is_a_whole_video_that_was_won_or_lost(data, made):
  assert data.ids == ("0001", "0002", "0003", "0004")
  assert tuple(data.recordings) == data.ids
  assert data.class_names == ("lose", "win")
  assert (data.name, data.synthetic, data.mirror) == ("synthetic_emotion", True, True)
  assert data.track("pose").num_frames.tolist() == [75] * 4
  lines = (made / TABLE).read_text().splitlines()[1:]
  outcomes = {int(line.split(",")[0]): line.split(",")[4].lower() for line in lines}
  assert [data.class_names[label] for label in data.labels] == [outcomes[k] for k in range(1, 5)]


def test_the_lists_are_the_protocol(data):
  assert [*data.protocols] == ["emotion"]
  assert data.rows("train").tolist() == [0, 1]
  assert data.rows("test").tolist() == [2, 3]
  assert data.subjects.tolist() == ["1", "1", "2", "2"]
  assert "emotion: train has 1 lost and 1 won, not 50 and 50" in data.track("pose").notes


def test_key_points_are_those_of_the_picture(data):
  pose = data.track("pose")
  assert (str(pose.kind), pose.kind.frame_size, pose.kind.fps) == ("openpose137", (160, 208), 25)


def test_every_other_frame_is_kept_with_its_time(data):
  record = data.track("video")[0]
  np.testing.assert_allclose(record["times"], np.arange(38) * 0.08)
  assert Image.open(io.BytesIO(record["frames"][37])).size == (208, 160)


def test_a_window_of_seconds_is_drawn_from_the_whole(data):
  video = inputs.INPUTS["video"](frame_size=(160, 208), num_frames=8, seconds=1.28, size=32)
  record = data.track("video")[0]
  assert video.read(record, np.random.default_rng(0))["frames"].shape == (8, 160, 208, 3)
  tests = video.sampled(record, 3)
  np.testing.assert_allclose(np.diff(record["times"][tests[:, 0]]), 0.86, atol=0.08)


def write_as_imigue(prepare, raw, **changes):
  """The same files, whose subjects are not those of iMiGUE."""
  changes = {"subject_file": None, "name": "imigue_emotion"} | changes
  builder = type("Builder", (prepare.load("imigue_emotion"),), changes)
  return source.Source(prepared.write(builder, raw=raw, data_dir=raw.parent / "data"))


@pytest.fixture(scope="module")
def found(prepare, data, made):
  """The set of `data`, with faces."""
  builder = prepare.load("synthetic_emotion", "faces")
  raw = data.directory.parents[2] / "raw"
  folder = prepared.write(builder, raw=raw, data_dir=data.directory.parents[1])
  return source.Source(folder)


def test_faces_are_aligned_five_times_a_second(found):
  record = found.track("faces")[0]
  np.testing.assert_allclose(np.diff(record["times"]), 0.2, atol=1e-9)
  assert 12 <= len(record["frames"]) <= 15
  face = Image.open(io.BytesIO(record["frames"][0]))
  assert face.size == (112, 112)
  assert (record["scores"] > 0.3).all()
  # Where the template has the mouth, there are lips; skin is brown to pink, and not red.
  red, green, blue = np.asarray(face, float)[86:96, 44:68].mean((0, 1))
  assert red > 1.5 * max(green, blue)


def test_faces_and_video_have_windows_of_the_same_moments(found):
  faces, video = (found.track(name)[0] for name in ("faces", "video"))
  times = video["times"]
  np.testing.assert_allclose(faces["span"], [times[0], times[-1] + 0.08])
  assert faces["landmarks"].max() < 208


def test_key_points_of_other_pixels_are_scaled_to_the_video(prepare, raw, found):
  table = raw / "mg_skeleton_only" / "0001" / "0001_openpose.csv"
  keypoints = np.loadtxt(table, delimiter=",").reshape(-1, 137, 3) * (5, 5, 1)
  np.savetxt(table, keypoints.reshape(len(keypoints), -1), delimiter=",", fmt="%.6g")
  for path in raw.rglob("000[234]*"):
    shutil.rmtree(path) if path.is_dir() else path.unlink()
  builder = prepare.load("synthetic_emotion", "faces")
  changes = {"name": "x", "frame_size": (800, 1040)}
  builder = type("Faces", (builder,), changes)
  data = source.Source(prepared.write(builder, raw=raw, data_dir=raw.parent / "data"))
  there, here = (one.track("faces")[0]["landmarks"] for one in (found, data))
  np.testing.assert_allclose(here, there, atol=0.5)


def test_a_video_that_shows_no_face_is_noted_and_left_out(prepare, raw):
  table = raw / "mg_skeleton_only" / "0002" / "0002_openpose.csv"
  table.write_text("\n".join([",".join(["0"] * 411)] * 75))
  faces = write(prepare, raw, "faces").track("faces")
  assert faces.rows.tolist() == [0, 1, 2]
  assert "video 0002 shows no face, and is left out" in faces.notes


def test_imigue_itself_says_what_is_published(prepare, raw):
  data = write_as_imigue(prepare, raw)
  assert [*data.protocols] == ["emotion", "xsub"]
  notes = data.track("pose").notes
  assert "emotion: train has 1 lost and 1 won, not 51 and 51" in notes
  assert "emotion: test has 1 lost and 1 won, not 50 and 50" in notes


def test_lists_as_published_are_told_without_an_objection(prepare, raw):
  data = write_as_imigue(prepare, raw, published={"train": (1, 1), "test": (1, 1)})
  assert "emotion: train has 1 lost and 1 won" in data.track("pose").notes


def test_without_lists_subjects_are_split_and_that_is_said(prepare, raw):
  for name in ("emotion_train.txt", "emotion_test.txt"):
    (raw / name).unlink()
  data = write_as_imigue(prepare, raw)
  assert [*data.protocols] == ["xsub"]
  assert data.rows("train").tolist() == [2, 3]  # of subject 2
  assert any("not the published protocol" in note for note in data.track("pose").notes)


def test_subjects_on_both_sides_of_the_lists_are_noted(prepare, raw):
  (raw / "emotion_train.txt").write_text("1\n3\n")
  (raw / "emotion_test.txt").write_text("\n0002\n")
  data = write(prepare, raw)
  assert data.rows("train").tolist() == [0, 2]
  assert data.rows("test").tolist() == [1]
  assert "emotion: 1 subjects are in both train and test" in data.track("pose").notes


def test_a_video_without_a_file_is_noted_and_left_out(prepare, raw):
  shutil.rmtree(raw / "mg_skeleton_only" / "0002")
  data = write(prepare, raw)
  assert data.ids == ("0001", "0003", "0004")
  note = "video 0002 has labels and no skeleton file, and is left out"
  assert note in data.track("pose").notes
  video = write(prepare, raw, "video").track("video")
  assert "clip 0002 is not in the set and is left out" in video.notes


@pytest.mark.parametrize(
  ("name", "lines", "message"),
  [
    ("emotion_train.txt", "0001\n99", "emotion_train.txt: expected videos that the table of labe"),
    ("emotion_train.txt", "1\n2\n3", "emotion_test.txt:1: expected each video once in the two li"),
    ("emotion_train.txt", "1\n1", r"emotion_train.txt:2: expected each video once .* got 1 again"),
    ("emotion_test.txt", "3\nfour", r"emotion_test.txt:2: expected a video, as 0001, got 'four'"),
  ],
)
def test_faulty_lists_are_one_line_errors(prepare, raw, name, lines, message):
  (raw / name).write_text(lines)
  with pytest.raises(DataError, match=message) as caught:
    write(prepare, raw)
  assert "\n" not in str(caught.value)


def test_one_list_alone_is_refused(prepare, raw):
  (raw / "emotion_test.txt").unlink()
  with pytest.raises(DataError, match=r"expected emotion_test.txt, got emotion_train.txt alone"):
    write(prepare, raw)


@pytest.mark.parametrize("got", ["Lose and Win", "Draw"])
def test_videos_whose_lines_disagree_are_refused(prepare, raw, got):
  if got == "Draw":
    change(raw / TABLE, lambda text: text.replace("Win", got).replace("Lose", got))
  else:
    change(raw / TABLE, lambda text: f"{text}1,1,0,9,Win,1\n1,1,0,9,Lose,1\n")
  expected = rf"win_or_lose of video 1: expected one of Win and Lose in all its lines, got {got}"
  with pytest.raises(DataError, match=expected):
    write(prepare, raw)


def test_a_damaged_video_is_named(prepare, raw):
  (raw / "video" / "0002.mp4").write_bytes(b"no video")
  with pytest.raises(DataError, match=r"0002\.mp4: expected a video"):
    write(prepare, raw, "video")


def test_an_empty_folder_is_filled_and_no_other(prepare, tmp_path, monkeypatch):
  builder = prepare.load("synthetic_emotion")
  generate = importlib.import_module("synthetic_emotion.generate")
  filled = []

  def write(out, *, seed):
    filled.append(out)
    raise ConfigError("filled")

  monkeypatch.setattr(generate, "write", write)
  (tmp_path / "empty").mkdir()
  with pytest.raises(ConfigError, match="filled"):
    builder(raw=tmp_path / "empty", data_dir=tmp_path)
  (tmp_path / "home").mkdir()
  (tmp_path / "home" / "letter.txt").touch()
  with pytest.raises(DataError, match="expected files of every video"):
    builder(raw=tmp_path / "home", data_dir=tmp_path)
  assert filled == [tmp_path / "empty"]
