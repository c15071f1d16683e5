"""What is said of a file of poses, and that nothing is touched."""

import json
import pickle
import shutil

import numpy as np
import pytest

from experiments import doctor, launch
from jaxmg.data import prepared, readers, tracks


def annotation(id, label=0, *, frames=4, size=(72, 128), **fields):
  height, width = size
  points = np.random.default_rng(list(id.encode())).uniform(1, (width, height), (1, frames, 17, 2))
  points[..., 1].sort(-1)  # from the nose down to the ankles
  score = np.full((1, frames, 17), 0.5)
  return {
    "frame_dir": id,
    "label": label,
    "img_shape": size,
    "keypoint": points.astype(np.float32),
    "keypoint_score": score,
  } | fields


def ntu(person, action=1):
  return f"S001C001P00{person}R001A00{action}"


CLIPS = {
  "split": {"train": [ntu(1), ntu(1, 2)], "test": [ntu(2)]},
  "annotations": [
    annotation(ntu(1), frames=10),
    annotation(ntu(1, 2), 2, frames=90),
    annotation(ntu(2), frames=33),
  ],
}


def clips(**fields):
  """The same, with other fields in the first clip."""
  first, *others = CLIPS["annotations"]
  return CLIPS | {"annotations": [first | fields, *others]}


@pytest.fixture
def examine(tmp_path, capsys):
  """Runs the command: `examine(content or path)` -> its code, what it prints, and its error."""

  def run(path, *argv):
    if not hasattr(path, "is_dir"):
      content, path = path, tmp_path / "toy.pkl"
      path.write_bytes(pickle.dumps(content))
    before = files(tmp_path)
    code = launch.command(doctor.run, doctor.define, [str(path), *argv], positional="FILE")
    assert files(tmp_path) == before
    out, error = capsys.readouterr()
    assert (code == 0) == (not error)
    assert error.count("\n") == bool(code)
    return code, out, error

  return run


def files(folder):
  return {
    path: (path.stat().st_mtime_ns, path.read_bytes())
    for path in folder.rglob("*")
    if path.is_file()
  }


def lines(out):
  return [" ".join(line.split()) for line in out.splitlines()]


def test_a_table_says_what_a_pickle_holds(examine):
  code, out, _ = examine(clips(keypoint=np.full((1, 10, 17, 2), np.nan)))
  assert code == 0
  assert lines(out)[1:] == [
    "clips 3",
    "persons at most 1",
    "subjects 2",
    "frames 10 to 90, median 33",
    "num_frames 32 suggested",
    "joints 7.5% absent, 7.5% NaN, 0.0% outside the image",
    "test 2 to train, 1 to test",
    "classes 3",
    "class 0 2 ####################",
    "class 2 1 ##########",
    "note: 170 joints are NaN, and read as absent",
    f"note: 1 clip is without anybody: '{ntu(1)}'",
    "note: 1 class is without clips: 'class 1'",
    "nothing is wrong",
  ]


def test_a_prepared_set_is_read_whole(examine, nods):
  code, out, _ = examine(nods / "nods")
  assert code == 0
  assert "nods 1.0.0, prepared, synthetic, openpose25" in out
  text = "\n".join(lines(out))
  for line in ("subjects 4", "xsub 18 to train, 6 to test", "nod 12 ####################"):
    assert line in text


def test_a_recording_is_examined_without_labels(examine, tmp_path):
  np.save(tmp_path / "a.npy", np.tile([(5 + 3 * v, 9 * v, 0.5) for v in range(17)], (40, 1, 1)))
  code, out, _ = examine(tmp_path / "a.npy")
  assert code == 0
  guess = "40 frames of 1 person, 17 joints (coco17 assumed), pixels, axes TVC"
  assert f"a.npy: one recording, read as {guess}" in out
  assert "classes no labels" in lines(out)
  assert "num_frames 40 suggested" in lines(out)


def test_3d_points_and_a_layout_of_ones_own(examine, tmp_path):
  layout = tmp_path / "dot.json"
  definition = {"name": "dot", "joints": ["dot"], "parents": [0], "limbs": [], "mirror_pairs": []}
  layout.write_text(json.dumps(definition))
  points = np.random.default_rng(0).normal(0, 0.3, (1, 4, 1, 3))
  code, out, _ = examine(
    [annotation("a", keypoint=points, keypoint_score=None)], f"--layout={layout}"
  )
  assert code == 0
  assert "annotations, 1 joint (dot), metres assumed" in out
  assert "note: the 3-D points do not lie before a camera: no key points, no heatmaps" in out
  assert "note: no two splits pair up, and prepare will not take it: 'toy'" in out


@pytest.mark.parametrize(
  ("content", "note"),
  [
    (clips(keypoint=CLIPS["annotations"][0]["keypoint"].astype(np.float16)), "1 clip is float16"),
    (clips(label=None) | {"split": {}}, "1 clip is without a label"),
    (clips(label=1), "test: 1 class is tested but never trained: 'class 0'"),
    (
      CLIPS | {"split": {"train": [ntu(1)], "test": [ntu(2)]}},
      f"1 clip is in no split: '{ntu(1, 2)}'",
    ),
    (
      CLIPS | {"split": {"xview_train": [ntu(1)], "xview_val": [ntu(1, 2)]}},
      "xview_val: 1 subject is on both sides (across cameras): 'P001'",
    ),
    (
      [annotation("a"), annotation("a") | {"frame_dir": "b"}],
      "2 clips are with the very points of another one",
    ),
  ],
)
def test_notes_are_no_faults(examine, content, note):
  code, out, _ = examine(content)
  assert code == 0
  assert f"note: {note}" in out
  assert "WRONG" not in out


def seen(points, frames, joints):
  """The same with only the first of its frames and joints."""
  points = points.copy()
  points[:, frames:] = points[:, :, joints:] = 0
  return points


BODIES = annotation("a")["keypoint"]
SWAPPED = [annotation(id, size=(720, 1280), img_shape=(1280, 720)) for id in "abc"]


@pytest.mark.parametrize(
  ("content", "wrong"),
  [
    (SWAPPED, "the frame size seems to be (width, height): 4"),
    ([annotation("a", img_shape=(36, 64))], "of the joints lie outside the image"),
    (clips(label=-1), "test: 1 clip is to train with, without a label"),
    (clips(frame_dir=ntu(2)) | {"split": {}}, "2 clips are with the very ids of another one"),
    (
      CLIPS | {"split": {"train": [ntu(1), ntu(3)], "test": [ntu(2)]}},
      f"split 'train': expected ids of annotations, got 1: '{ntu(3)}'",
    ),
    (
      CLIPS | {"split": {"train": [ntu(1)], "test": [ntu(1)]}},
      "expected no clip in both train and te",
    ),
    (
      CLIPS | {"split": {"train": [ntu(1)], "test": [ntu(1, 2)]}},
      "test: 1 subject is on both sides: 'P001'",
    ),
    (
      CLIPS
      | {
        "annotations": [CLIPS["annotations"][2] | {"frame_dir": ntu(1)}, *CLIPS["annotations"][1:]]
      },
      f"test: 1 array is on both sides, of '{ntu(2)}'",
    ),
    (clips(keypoint=np.full((1, 10, 17, 2), np.inf)), "expected a finite number, got inf"),
    (
      clips(keypoint=np.full((1, 4, 17, 2), 0.5), keypoint_score=None),
      "pixels, got a body of 0 (norm",
    ),
    (clips(keypoint=None), "annotation 1"),
    (clips(keypoint=np.ones((1, 10, 18, 2)), keypoint_score=None), "expected [M, T, 18, 2] as in"),
    ([annotation("a"), annotation("b", keypoint=np.ones((1, 4, 17, 3)))], "17, 2] as in the first"),
    (clips(total_frames=5), "total_frames: expected 10, got 5"),
    (
      [annotation("a", keypoint=BODIES.repeat(3, 1).repeat(32, 0), keypoint_score=None)],
      "1 clip is with more than 10 persons in a frame: 'a' (frames and persons mistaken?)",
    ),
    (
      [annotation("a", keypoint=seen(BODIES.repeat(250, 1), 40, 17), keypoint_score=None)],
      "1 clip is without anybody in more than 90% of the frames: 'a'",
    ),
    (
      [annotation("a", keypoint=seen(BODIES, 4, 3), keypoint_score=None)],
      "1 clip is without more than 80% of the joints of those who are there: 'a'",
    ),
    (
      [annotation("a", keypoint=20 + BODIES / 72, keypoint_score=None)],
      "'a': coordinates: expected pixels, got a body of 1",
    ),
  ],
)
def test_what_is_wrong_is_listed_and_ends_with_3(examine, content, wrong):
  code, out, error = examine(content)
  assert code == 3
  assert any(line.startswith("WRONG: ") and wrong in line for line in out.splitlines()), out
  assert "thing" in error
  assert "nothing is wrong" not in out


def test_scores_that_were_clipped_are_counted(examine):
  score = np.full((1, 4, 17), 0.5)
  score[0, 0, 3], score[0, 1, 5] = 1.4, -0.1
  code, out, _ = examine([annotation("a", keypoint_score=score)])
  assert code == 0
  assert "note: 2 scores are outside [0, 1], and clipped" in out


def test_what_a_file_was_taken_for_is_said_and_may_be_told(examine, tmp_path):
  points = np.stack([annotation(id, frames=30)["keypoint"][0] for id in "abc"])
  array = np.concatenate([points, np.ones((3, 30, 17, 1))], -1)
  np.save(tmp_path / "a.npy", array)
  code, _, error = examine(tmp_path / "a.npy")
  assert code == 3
  assert "--axes=MTVC or --axes=CTVM" in error
  code, out, _ = examine(tmp_path / "a.npy", "--axes=MTVC", "--frame_size=72x128")
  assert code == 0
  guess = "30 frames of 3 persons, 17 joints (coco17 assumed), pixels, axes MTVC, 72 x 128"
  assert f"read as {guess}" in out
  assert "0.0% outside the image" in out


def test_all_faults_are_counted_and_few_are_shown(examine):
  first, *others = CLIPS["annotations"]
  broken = [first | {"frame_dir": f"a{i}", "label": "x"} for i in range(30)]
  code, out, error = examine([*broken, *others])
  assert code == 3
  assert out.count("WRONG: ") == 11
  assert "WRONG: and 20 more" in out
  assert "30 things are wrong, named above" in error


def test_a_prepared_set_that_was_changed_is_wrong(examine, nods, tmp_path, edit_json):
  path = shutil.copytree(nods, tmp_path / "data") / "nods"

  def edit(index):
    index["clips"]["subject"][20] = "a"
    index["clips"]["label"][4:6] = [-1, 9]

  edit_json(path / "1.0.0" / "index.json", edit)
  track = path / "1.0.0" / "pose" / "track.json"
  edit_json(track, lambda track: track["digests"].__setitem__(3, "0"))
  code, out, _ = examine(path)
  assert code == 3
  for text in ("with other data", "1 subject is on both sides: 'a'", "without a label"):
    assert text in out
  assert "WRONG: labels: expected at most 1, got 9" in out


def test_records_of_every_track_are_read_and_each_fault_is_listed_once(
  examine, nods, tmp_path, edit_json
):
  path = shutil.copytree(nods, tmp_path / "data") / "nods" / "1.0.0"
  shutil.copytree(path / "pose", path / "second")
  edit_json(path / "pose" / "track.json", lambda track: track["digests"].__setitem__(5, "0"))
  edit_json(path / "second" / "track.json", lambda track: track["digests"].__setitem__(3, "0"))
  code, out, _ = examine(path)
  assert code == 3
  faults = [line for line in lines(out) if line.startswith("WRONG: ")]
  assert len(faults) == 2
  for fault, (track, number) in zip(faults, (("second", 3), ("pose", 5)), strict=True):
    assert f"{track}: record {number}: expected clip 'clip{number}' as it was written" in fault


def test_clips_of_3d_joints_are_examined_in_3d_where_they_have_no_key_points(examine, tmp_path):
  class Bodies(prepared.Builder):
    track = tracks.Pose("kinect25", frame_size=(240, 320), joints3d=True)
    class_names = ("centred", "seen")
    protocols = {}  # noqa: RUF012
    synthetic = True

    def clips(self, recording, known):
      joints3d = np.random.default_rng(0).normal(0, 0.3, (2, 4, 1, 25, 3)).astype(np.float32)
      seen = np.tile(np.float32([(9 + v, 9 * v, 1) for v in range(25)]), (4, 1, 1, 1))
      seen[:, 0, 24, 0] = 400  # one joint in 25 lies outside the image
      for label, keypoints in enumerate((0 * seen, seen)):
        clip = readers.Clip(keypoints, "kinect25", joints3d=joints3d[label])
        yield prepared.Example(f"c{label}", label, "ab"[label], clip)

  code, out, _ = examine(prepared.write(Bodies, raw=tmp_path, data_dir=tmp_path / "data"))
  assert code == 0
  assert "joints 0.0% absent, 4.0% outside the image" in lines(out)
  assert "without anybody" not in out


def test_a_protocol_of_rows_that_are_not_there_is_one_line(examine, nods, tmp_path, edit_json):
  path = shutil.copytree(nods, tmp_path / "data") / "nods"
  index = path / "1.0.0" / "index.json"
  edit_json(index, lambda index: index["protocols"]["xsub"]["test"].append(99))
  code, _, error = examine(path)
  assert code == 3
  assert "protocol 'xsub': test rows: expected 0 to 23, got others" in error


@pytest.mark.parametrize(
  ("argv", "code", "message"),
  [
    ([], 2, "FILE is required"),
    (["a", "b"], 2, "unexpected argument 'b' (one FILE at a time)"),
    (["none.csv"], 3, "none.csv: expected a file or a folder, got nothing"),
    (["none.pkl"], 3, "none.pkl: expected annotations: .pkl files"),
    (["a.pkl", "--layout=coco71"], 2, "layout: "),
    (["page.pkl"], 3, "page.pkl: "),
    (["all_wrong.pkl"], 3, "annotation 1: expected a dict, got 1"),
    (["odd.pkl"], 3, "odd.pkl: points: expected 17 (coco17), "),
    (["data"], 3, "index.json: expected an index as prepare.py writes it"),
  ],
)
def test_what_cannot_be_examined_is_one_line(tmp_path, monkeypatch, capsys, argv, code, message):
  monkeypatch.chdir(tmp_path)
  (tmp_path / "page.pkl").write_text("<html>")
  (tmp_path / "all_wrong.pkl").write_bytes(pickle.dumps([1, 2]))
  odd = annotation("a", keypoint=np.ones((1, 4, 3, 2)), keypoint_score=None)
  (tmp_path / "odd.pkl").write_bytes(pickle.dumps([odd]))
  (tmp_path / "data").mkdir()
  (tmp_path / "data" / "index.json").write_text("{")
  assert launch.command(doctor.run, doctor.define, argv, positional="FILE") == code
  error = capsys.readouterr().err
  assert error.startswith("jaxmg: error: ")
  assert error.count("\n") == 1
  assert message in error


def test_a_video_is_decoded_to_its_end(examine, videos, tmp_path, monkeypatch):
  monkeypatch.setattr(doctor, "VIDEO_PART", 16)
  path = videos.write(tmp_path / "a.mp4", 40, container_options={"movflags": "faststart"})
  code, out, _ = examine(path)
  assert code == 0
  guess = "one recording, read as 40 frames of 48 x 64 pixels, 25 a second"
  assert out == f"{path}: {guess}\nnothing is wrong\n"
  data = path.read_bytes()
  path.write_bytes(data[:-30])
  code, out, _ = examine(path)
  assert code == 0
  assert "of its last frames are not in the file" in out
  path.write_bytes(data[: len(data) * 3 // 4])
  code, _, error = examine(path)
  assert code == 3
  assert error.startswith(f"jaxmg: error: {path}: expected 40 frames, as its header says, got ")


def test_damage_in_a_video_names_the_file_and_the_frame(examine, videos, tmp_path):
  path = videos.write(tmp_path / "a.avi", codec="mpeg4")
  data = bytearray(path.read_bytes())
  at = data.index(b"movi")
  for _ in range(11):
    at = data.index(b"00dc", at + 4)
  size = int.from_bytes(data[at + 4 : at + 8], "little")
  data[at + 8 + size // 2 : at + 8 + size] = (size - size // 2) * b"\xa5"
  path.write_bytes(data)
  code, _, error = examine(path)
  assert code == 3
  assert error.startswith(f"jaxmg: error: {path}: frame ")
  assert ": expected a whole one, got damage" in error


def test_a_prepared_set_of_videos_alone_is_examined(examine, tmp_path, edit_json):
  images = np.random.default_rng(0).integers(0, 256, (3, 5, 6, 7), np.uint8)

  class Depth(prepared.Builder):
    track, track_name = tracks.Video((6, 7), channels=1, timed=False), "video"
    class_names = ("nod", "shake")
    protocols = {"xsub": prepared.by_subject(train=("a",))}  # noqa: RUF012

    def clips(self, recording, known):
      for k, one in enumerate(images):
        yield prepared.Example(f"clip{k}", k % 2, "aab"[k], readers.without_loss(one))

  path = prepared.write(Depth, raw=tmp_path, data_dir=tmp_path)
  code, out, _ = examine(path)
  assert code == 0
  assert lines(out)[:4] == [
    f"{path}: depth 1.0.0, prepared, video of 6 x 7, one channel",
    "clips 3",
    "subjects 2",
    "frames 5 to 5, median 5",
  ]
  assert "xsub 2 to train, 1 to test" in lines(out)
  edit_json(path / "video" / "track.json", lambda track: track["digests"].__setitem__(1, "0"))
  code, out, _ = examine(path)
  assert code == 3
  assert "WRONG" in out
  assert "video: record 1: expected clip 'clip1' as it was written" in out
