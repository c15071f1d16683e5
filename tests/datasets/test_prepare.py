"""The command `python datasets/prepare.py`."""

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
import scipy.io

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture
def raw(tmp_path):
  raw = tmp_path / "raw"
  raw.mkdir()
  for x, name in enumerate(("a1_s1_t1", "a2_s2_t1")):
    joints = np.full((20, 3, 4), [[x], [1], [2]], float)
    joints[:, 1] += np.arange(20)[:, None] / 20  # a body of a metre
    scipy.io.savemat(raw / f"{name}_skeleton.mat", {"d_skel": joints})
  return raw


def arguments(raw, name="utd_mhad"):
  return [name, f"--manual_dir={raw}", f"--data_dir={raw.parent / 'data'}"]


def test_it_runs_as_a_script_from_the_root(raw):
  command = [sys.executable, "datasets/prepare.py", *arguments(raw)]
  done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
  assert "2 clips, 27 classes, 2 subjects, kinect20" in done.stdout
  assert "xsub: 1 to train, 1 to test" in done.stdout
  assert "xsub: no training clip of swipe right, wave" in done.stdout
  assert (raw.parent / "data" / "utd_mhad" / "1.1.0" / "index.json").exists()


def test_a_builder_of_ones_own_is_found_where_one_is(prepare, tmp_path, monkeypatch, capsys):
  folder = tmp_path / "datasets" / "desk"
  folder.mkdir(parents=True)
  (folder / "desk_dataset_builder.py").write_text(
    "from jaxmg.data import prepared\n\nclass Builder(prepared.Builder):\n  count = 3\n"
  )
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(sys, "path", [*sys.path])
  assert prepare.load("desk").count == 3
  assert prepare.main(["bureau", "--manual_dir=a", "--data_dir=b"]) == 2
  error = capsys.readouterr().err
  assert "expected desk or imigue or" in error
  assert "or video_folder, got bureau (your own: datasets/bureau/bureau_dataset_b" in error


def test_the_same_command_again_says_that_all_is_there(prepare, raw, capsys):
  assert prepare.main(arguments(raw)) == 0
  assert "1.1.0 made in" in capsys.readouterr().out
  assert prepare.main(arguments(raw)) == 0
  assert "1.1.0 is whole, and left as it is" in capsys.readouterr().out


@pytest.mark.parametrize("clip", [0, 1])
def test_a_second_command_leaves_the_set_to_the_first(prepare, raw, monkeypatch, clip):
  builder, seconds = prepare.load("utd_mhad"), []
  clips = builder.clips

  def while_another_comes(self, *arguments_of_clips):
    seconds.append(None)
    if len(seconds) == clip + 1:
      command = [sys.executable, "datasets/prepare.py", *arguments(raw)]
      seconds[-1] = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    return clips(self, *arguments_of_clips)

  monkeypatch.setattr(builder, "clips", while_another_comes)
  assert prepare.main(arguments(raw)) == 0
  assert seconds[clip].returncode == 7
  assert f"1.1.0.part is in use by pid {os.getpid()} on " in seconds[clip].stderr
  assert prepare.main([*arguments(raw)[:2], f"--data_dir={raw.parent / 'alone'}"]) == 0
  found, alone = (
    {path.relative_to(folder): path for path in folder.rglob("*")}
    for folder in (raw.parent / "data", raw.parent / "alone")
  )
  assert found.keys() == alone.keys()
  for name in found:
    if name.suffix == ".json":
      assert found[name].read_bytes() == alone[name].read_bytes()


def test_a_reader_that_has_seen_enough_is_no_error(raw):
  closed, out = os.pipe()
  os.close(closed)
  command = [sys.executable, "datasets/prepare.py", *arguments(raw)]
  done = subprocess.run(command, cwd=ROOT, stdout=out, stderr=subprocess.PIPE, text=True)
  os.close(out)
  assert (done.returncode, done.stderr) == (141, "")


def test_a_file_in_place_of_the_folder_is_named(prepare, raw, capsys):
  file = raw / "a1_s1_t1_skeleton.mat"
  assert prepare.main(["utd_mhad", f"--manual_dir={file}", f"--data_dir={raw}"]) == 3
  assert "expected the folder of the raw files, got a file" in capsys.readouterr().err


def test_the_description_of_the_data_set_goes_along(prepare, raw):
  assert prepare.main(arguments(raw)) == 0
  text = (raw.parent / "data" / "utd_mhad" / "1.1.0" / "pose" / "dataset_info.json").read_text()
  assert "says nothing about" in text
  assert "chen2015utdmhad" in text


def test_left_and_right_are_kept_apart_on_demand_and_a_mirrored_set_is_refused_then(
  prepare, raw, monkeypatch, capsys
):
  builder = prepare.load("utd_mhad")
  monkeypatch.setattr(builder, "mirror", True)
  assert prepare.main(arguments(raw)) == 0
  notes = [line for line in capsys.readouterr().out.splitlines() if "LEFT AND RIGHT" in line]
  assert len(notes) == 1
  assert notes[0].endswith(
    "apart: 'swipe left' and 'swipe right': prepare --no_mirror, or mirror = False in the builder"
  )
  assert prepare.main([*arguments(raw), "--no_mirror"]) == 2
  assert "mirror: expected False, got True (remove it, " in capsys.readouterr().err
  assert prepare.main([*arguments(raw), "--no_mirror", "--name=sides"]) == 0
  assert "LEFT AND RIGHT" not in capsys.readouterr().out
  index = json.loads((raw.parent / "data" / "sides" / "1.1.0" / "index.json").read_text())
  assert index["mirror"] is False
  assert prepare.main([*arguments(raw), "--name=sides"]) == 0  # as it is: nothing is lost


def test_a_set_may_have_another_name(prepare, raw):
  assert prepare.main([*arguments(raw), "--name=utd_small"]) == 0
  index = json.loads((raw.parent / "data" / "utd_small" / "1.1.0" / "index.json").read_text())
  assert index["name"] == "utd_small"
  text = (raw.parent / "data" / "utd_small" / "1.1.0" / "pose" / "dataset_info.json").read_text()
  assert "says nothing about" in text


def test_a_track_is_chosen_among_those_of_the_data_set(prepare, raw, capsys):
  images = np.random.default_rng(0).integers(0, 256, (2, 16, 112, 112), np.uint8)
  ids = np.array(["a1_s1_t1", "a2_s2_t1"])
  np.savez(raw / "depth16_112.npz", x=images, ids=ids)
  assert prepare.main([*arguments(raw), "--track=sound"]) == 2
  assert "--track: expected pose or video, got sound" in capsys.readouterr().err
  assert prepare.main([*arguments(raw), "--track=video", "--name=seen"]) == 0
  assert "seen/1.1.0 made in" in capsys.readouterr().out
  assert prepare.main([*arguments(raw), "--name=seen"]) == 0
  assert prepare.main([*arguments(raw), "--track=video", "--name=seen"]) == 0
  assert "seen/1.1.0 is whole, and left as it is" in capsys.readouterr().out
  folder = raw.parent / "data" / "seen" / "1.1.0"
  assert {path.name for path in folder.iterdir()} == {"index.json", "pose", "video"}
  assert prepare.main([*arguments(raw), "--track=video", "--name=seen", "--points=joints3d"]) == 2
  message = "points: expected joints3d, got video of 112 x 112, one channel"
  assert message in capsys.readouterr().err
