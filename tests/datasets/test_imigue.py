"""iMiGUE: files in its formats, all made here, -> a prepared directory."""

import collections
import json
import shutil
import sys

import numpy as np
import pytest
import xlsxwriter

from jaxmg.data import prepared, source
from jaxmg.errors import ConfigError, DataError
from jaxmg.skeletons import topology

# Videos and their subjects: 1 by 42 and 218 by 21 train, 67 by 19 tests.
LABELS = {1: "3,0,9\n99,5,14\n3,20,29\n", 67: "1,0,4\n31,10,10\n", 218: "5,2,3\n"}
NUM_FRAMES = 30


def pose(video):
  shape = (NUM_FRAMES, 137)
  return np.random.default_rng(video).uniform((1, 1, 0.1), (1280, 720, 1), (*shape, 3)).round(2)


def write_csv(raw, video):
  keypoints = pose(video)[:, topology.get("imigue35").indices_in("openpose137")]
  rows = np.concatenate([np.arange(NUM_FRAMES)[:, None], keypoints.reshape(NUM_FRAMES, -1)], 1)
  lines = [",".join(map(str, range(106))), *(",".join(f"{x:g}" for x in row) for row in rows)]
  lines[0] = lines[0].replace("0,", "frame,", 1)
  (raw / f"{video:04d}" / f"{video:04d}_light_hand.csv").write_text("\n".join(lines))


def write_xlsx(raw, video):
  with xlsxwriter.Workbook(raw / f"{video:04d}" / f"{video:04d}_2.xlsx") as book:
    sheet = book.add_worksheet()
    for number, row in enumerate(pose(video).reshape(NUM_FRAMES, -1).tolist()):
      sheet.write_row(number, 0, row)


@pytest.fixture
def raw(tmp_path):
  raw = tmp_path / "raw"
  for video, lines in LABELS.items():
    (raw / f"{video:04d}").mkdir(parents=True)
    (raw / f"{video:04d}" / f"{video:04d}_label.csv").write_text(lines)
    write_csv(raw, video)
  return raw


@pytest.fixture
def imigue(prepare):
  return sys.modules[prepare.load("imigue").__module__]


def write(prepare, raw, track=None, **options):
  builder = prepare.load("imigue", track)
  return source.Source(prepared.write(builder, raw=raw, data_dir=raw.parent / "data", **options))


def notes(data):
  absent = "subjects to train on have no clip"  # these files are few of the data set's
  return [note for note in data.track("pose").notes if absent not in note]


@pytest.fixture
def whole(raw, make_video):
  """A video of each recording; the first one's is longer than its skeleton file."""
  for video in LABELS:
    make_video(raw / f"{video:04d}" / f"{video:04d}.mp4", NUM_FRAMES + 2 * (video == 1))
  return raw


def test_clips_are_the_lines_of_the_label_files(prepare, raw):
  data = write(prepare, raw)
  assert data.ids == ("0001_0", "0001_1", "0001_2", "0067_0", "0067_1", "0218_0")
  assert data.labels.tolist() == [2, 31, 2, 0, 30, 4]
  assert data.recordings.tolist() == ["0001"] * 3 + ["0067"] * 2 + ["0218"]
  assert data.subjects.tolist() == ["42"] * 3 + ["19"] * 2 + ["21"]
  assert data.track("pose").num_frames.tolist() == [10, 10, 10, 5, 1, 2]
  pose = data.track("pose").kind
  assert (str(pose), pose.frame_size, pose.fps) == ("imigue35", (720, 1280), 25)


def test_linked_folders_are_part_of_the_raw_files(prepare, raw, tmp_path):
  ids = write(prepare, raw).ids
  shutil.rmtree(raw.parent / "data")
  raw.rename(tmp_path / "disk2")
  raw.mkdir()
  (raw / "linked").symlink_to(tmp_path / "disk2")
  assert write(prepare, raw).ids == ids


def test_frames_count_from_zero_and_ends_are_inclusive(prepare, raw):
  keypoints = write(prepare, raw).track("pose")[1]["keypoints"]
  points = topology.get("imigue35").indices_in("openpose137")
  np.testing.assert_allclose(keypoints[:, 0], pose(1)[5:15, points], rtol=1e-5)


def test_protocols_split_by_subject_and_miga_leaves_four_videos_out(prepare, raw):
  data = write(prepare, raw)
  assert list(data.protocols) == ["xsub", "miga"]
  assert data.rows("train").tolist() == [0, 1, 2, 5]
  assert data.rows("test").tolist() == [3, 4]
  assert data.rows("train", protocol="miga").tolist() == [0, 1, 2]
  assert data.rows("test", protocol="miga").tolist() == [3, 4]


def test_protocols_have_the_numbers_of_the_publications(prepare):
  builder = prepare.load("imigue")
  subjects = json.loads(builder.subject_file.read_text())
  assert (len(subjects), len(set(subjects.values()))) == (359, 72)
  splits = {
    name: [
      protocol({"recording": f"{int(video):04d}", "subject": str(subject)})
      for video, subject in subjects.items()
    ]
    for name, protocol in builder.protocols.items()
  }
  assert (splits["miga"].count("train"), splits["miga"].count("test")) == (251, 104)
  train = {
    s for s, split in zip(subjects.values(), splits["xsub"], strict=True) if split == "train"
  }
  assert len(train) == 37


def test_there_are_32_classes_with_short_names(prepare):
  builder = prepare.load("imigue")
  assert len(set(builder.class_names)) == len(set(builder.class_short_names)) == 32
  assert builder.class_names[31] == "Illustrative body language"
  assert builder.class_short_names[22] == "rub hand"


def test_every_class_has_a_group(prepare, raw):
  assert collections.Counter(prepare.load("imigue").class_groups) == {
    "head": 4, "head-hand": 9, "body-hand": 8, "body": 3, "hand": 7, "illustrative": 1,
  }  # fmt: skip
  data = write(prepare, raw)
  assert [data.class_groups[k] for k in (0, 10, 11, 20, 31)] == [
    "head", "head-hand", "body-hand", "body", "illustrative",
  ]  # fmt: skip


def test_the_largest_layout_that_all_videos_have_is_taken(prepare, raw):
  for video in LABELS:
    write_xlsx(raw, video)
  data = write(prepare, raw)
  assert str(data.track("pose").kind) == "openpose137"
  np.testing.assert_allclose(data.track("pose")[0]["keypoints"][:, 0], pose(1)[:10], rtol=1e-5)


def test_a_layout_that_one_video_has_is_not_taken(prepare, raw):
  write_xlsx(raw, 1)
  assert str(write(prepare, raw).track("pose").kind) == "imigue35"


def test_the_smaller_layout_can_be_asked_for(prepare, raw):
  for video in LABELS:
    write_xlsx(raw, video)
  data = write(prepare, raw, layout="imigue35")
  assert str(data.track("pose").kind) == "imigue35"


def test_a_layout_that_is_not_there_is_refused(prepare, raw):
  write_xlsx(raw, 1)
  with pytest.raises(DataError, match="openpose137, got openpose137 of 1, imigue35 of 3"):
    write(prepare, raw, layout="openpose137")
  with pytest.raises(ConfigError, match="layout: expected openpose137 or imigue35, got coco17"):
    write(prepare, raw, layout="coco17")


def test_the_table_of_all_labels_stands_in_for_the_files_of_single_videos(prepare, raw):
  one = write(prepare, raw)
  rows = ["video_id,class,start_frame,end_frame,win_or_lose,subject_id"]
  for (video, lines), subject in zip(LABELS.items(), (42, 19, 21), strict=True):
    rows += [f"{video},{line},Win,{subject}" for line in lines.split()]
    (raw / f"{video:04d}" / f"{video:04d}_label.csv").unlink()
  (raw / "Label").mkdir()
  (raw / "Label" / "labels_20200831.csv").write_text("\n".join(rows))
  builder = prepare.load("imigue")
  other = prepared.write(builder, raw=raw, data_dir=raw.parent / "other")
  assert source.Source(other).fingerprint(["pose"]) == one.fingerprint(["pose"])


def test_a_table_with_other_subjects_is_refused(prepare, raw):
  row = "video_id,class,start_frame,end_frame,win_or_lose,subject_id\n1,3,0,9,Win,2\n"
  (raw / "labels_20200831.csv").write_text(row)
  with pytest.raises(DataError, match="subject of video 1: expected 42, got 2"):
    write(prepare, raw)


def test_cut_clips_and_videos_without_labels_are_noted(prepare, raw):
  (raw / "0001" / "0001_label.csv").write_text("3,20,31\n")
  (raw / "0067" / "0067_label.csv").unlink()
  data = write(prepare, raw)
  assert data.track("pose").num_frames.tolist() == [10, 2]
  assert notes(data) == [
    "clip 0001_0 ends 2 frames after its file",
    "video 0067 has no labels and is left out",
  ]


def test_clips_outside_their_file_and_videos_without_skeletons_are_noted(prepare, raw):
  (raw / "0001" / "0001_label.csv").write_text("3,0,9\n3,30,31\n")
  for path in (raw / "0067").glob("0067_light_hand.csv"):
    path.unlink()
  data = write(prepare, raw)
  assert "0001_1" not in data.ids
  assert notes(data) == [
    "video 0067 has labels and no skeleton file, and is left out",
    "clip 0001_1 starts after its file's end and is left out",
  ]


def test_folders_without_skeletons_or_labels_are_refused(prepare, raw):
  for video in LABELS:
    (raw / f"{video:04d}" / f"{video:04d}_label.csv").unlink()
  with pytest.raises(DataError, match="got no labels of the videos there"):
    write(prepare, raw)
  for path in raw.rglob("*.csv"):
    path.unlink()
  with pytest.raises(DataError, match="got openpose137 of 0, imigue35 of 0"):
    write(prepare, raw)


@pytest.mark.parametrize("first", ["pose", "video"])
def test_videos_are_cut_into_the_same_clips_to_the_frame(prepare, whole, numbers_of, first):
  write(prepare, whole, first)
  data = write(prepare, whole, {"pose": "video", "video": "pose"}[first])
  assert data.ids == ("0001_0", "0001_1", "0001_2", "0067_0", "0067_1", "0218_0")
  pose, video = data.track("pose"), data.track("video")
  assert str(video.kind) == "video of 256 x 455, in colours"
  assert video.num_frames.tolist() == pose.num_frames.tolist() == [10, 10, 10, 5, 1, 2]
  parts = [(0, 9), (5, 14), (20, 29), (0, 4), (10, 10), (2, 3)]
  for row, (start, end) in enumerate(parts):
    assert numbers_of(video[row]) == list(range(start, end + 1))
  np.testing.assert_allclose(video[2]["times"], np.arange(20, 30) / 25, atol=1e-3)


def test_a_clip_that_only_the_video_is_long_enough_for_is_left_out(prepare, whole):
  (whole / "0001" / "0001_label.csv").write_text("3,0,9\n3,30,31\n")
  write(prepare, whole)
  data = write(prepare, whole, "video")
  assert "0001_1" not in data.ids
  assert data.track("video").notes[0] == "clip 0001_1 is not in the set and is left out"


def test_a_video_at_another_rate_is_noted(prepare, raw, make_video):
  make_video(raw / "1.mkv", 40, fps=30)
  notes = write(prepare, raw, "video").track("video").notes
  assert "1.mkv has 30 frames a second, not 25: do its labels count these frames?" in notes
  assert "video 0067 has labels and no video file, and is left out" in notes


def test_a_file_of_each_clip_will_do(prepare, whole, make_video, numbers_of):
  for path in whole.rglob("*.mp4"):
    path.unlink()
  for k, length in enumerate((10, 8)):
    make_video(whole / "clips" / f"0001_{k}.mp4", length, first=k)
  make_video(whole / "clips" / "67_1.mp4", 1, first=7)
  data = write(prepare, whole, "video")
  assert data.ids == ("0001_0", "0001_1", "0067_1")
  assert (data.labels.tolist(), data.subjects.tolist()) == ([2, 31, 30], ["42", "42", "19"])
  assert [numbers_of(data.track("video")[row])[0] for row in range(3)] == [0, 1, 7]
  assert [note for note in data.track("video").notes if "subjects" not in note] == [
    "video 0218 has labels and no video file, and is left out",
    "1 clips have no file and are left out: 0001_2",
    "clip 0001_1 has 8 frames, by its label 10",
    "1 clips have no file and are left out: 0067_0",
  ]
  make_video(whole / "clips" / "0001_3.mp4", 2)
  shutil.rmtree(whole.parent / "data")
  with pytest.raises(DataError, match=r"a line 3 \(the first is 0\) of the labels of video 0001"):
    write(prepare, whole, "video")


def test_whole_videos_are_taken_before_their_parts(prepare, whole, make_video):
  make_video(whole / "0001_0.mp4", 2)
  data = write(prepare, whole, "video")
  assert data.track("video").num_frames.tolist() == [10, 10, 10, 5, 1, 2]
  assert "1 videos are there in parts as well, which are not used" in data.track("video").notes


def test_videos_that_are_missing_or_damaged_are_named(prepare, whole):
  path = whole / "0067" / "0067.mp4"
  path.write_bytes(path.read_bytes()[:300])
  with pytest.raises(DataError, match=r"0067\.mp4: expected a video, got"):
    write(prepare, whole, "video")
  for path in whole.rglob("*.mp4"):
    path.unlink()
  with pytest.raises(DataError, match=r"raw: expected videos, 0001\.mp4 \.\.\. or 0001_0"):
    write(prepare, whole, "video")


def test_labels_of_one_video_have_no_header(imigue, tmp_path):
  path = tmp_path / "0001_label.csv"
  path.write_bytes(b"1,10,35\n99,40,41\r\n0,50,60\n\n")
  assert imigue.read_labels(path) == [
    imigue.Label(0, 10, 35),
    imigue.Label(31, 40, 41),
    imigue.Label(-1, 50, 60),
  ]


def test_labels_of_all_videos_have_a_header(imigue, tmp_path):
  text = "video_id,class,start_frame,end_frame,win_or_lose,subject_id\n1,31,10,35,Win,42\n"
  path = tmp_path / "labels.csv"
  path.write_text(text)
  (label,) = imigue.read_labels(path)
  assert label == imigue.Label(30, 10, 35, video=1, subject=42, outcome="Win")


@pytest.mark.parametrize(
  ("content", "expected"),
  [
    (b"1,10,35\n32,10,35\n", ":2: class: expected 1 to 31 or 99, got 32"),
    (b"1,35,10\n", ":1: frames: expected 0 <= start <= end, got 35 to 10"),
    (b"1,10\n", ":1: expected 3 columns, got 2"),
    (b"1,10,x\n", ":1: end_frame: expected an integer, got 'x'"),
    (b"class,start_frame,end_frame,subject_id\n", ":1: expected a column video_id"),
    (b"\xff,1,2\n", "utf-8"),
  ],
)
def test_a_faulty_label_is_named_by_line_and_field(imigue, tmp_path, content, expected):
  path = tmp_path / "0001_label.csv"
  path.write_bytes(content)
  with pytest.raises(DataError) as caught:
    imigue.read_labels(path)
  assert expected in str(caught.value)
