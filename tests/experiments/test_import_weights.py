"""Weights of PyTorch through the commands: imported, then evaluated, predicted with and trained."""

import dataclasses
import functools
import importlib.util
import io
import json
import pathlib
import re
import struct

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from flax import traverse_util

from experiments import agcn, evaluate, import_weights, launch, predict, trainer
from jaxmg import models, recipe, scores, skeletons
from jaxmg.data import prepared, readers, tracks
from jaxmg.data import source as prepared_source
from jaxmg.predict import Predictor
from jaxmg.pretrained import convert
from jaxmg.pretrained import mvit as pretrained_mvit
from jaxmg.pretrained import swinface as pretrained_swinface
from jaxmg.training import checkpoints, step

GOLDEN = pathlib.Path(__file__).parents[1] / "golden"
BLOCKS = {"l1": "l1", "l5": "l2", "l8": "l3"}  # of 2s-AGCN, the first of each width
KINDS = {"float32": "F32", "float16": "F16", "bfloat16": "BF16", "int64": "I64"}


def save(path, tensors):
  """Writes safetensors."""
  header, content = {}, b""
  for name, array in tensors.items():
    begin, content = len(content), content + array.tobytes()
    places = {"shape": list(array.shape), "data_offsets": [begin, len(content)]}
    header[name] = {"dtype": KINDS[array.dtype.name], **places}
  text = json.dumps(header).encode()
  path.write_bytes(struct.pack("<Q", len(text)) + text + content)
  return path


def tiny(golden, num_classes=2, blocks=BLOCKS):
  """A state dict as of a golden, an eighth as wide and with one block of each width."""
  shapes = json.loads((GOLDEN / f"{golden}.json").read_text())["state_dict"]
  rng = np.random.default_rng(0)
  kept = (17, 18, 25, 108, 150)  # joints, and 2-person norms of the data
  tensors = {}
  for name, shape in shapes.items():
    if ".layer" in name and ".0." not in name:
      continue
    block, _, rest = name.partition(".")
    if block[0] == "l":
      if block not in blocks:
        continue
      name = f"{blocks[block]}.{rest}"
    shape = [num_classes if n in (60, 400) else n if n in kept or n < 10 else n // 8 for n in shape]
    dtype = np.int64 if name.endswith("num_batches_tracked") else np.float32
    tensors[name] = np.asarray(rng.uniform(0.1, 1, shape)).astype(dtype)
  return tensors


@pytest.fixture
def source(tmp_path):
  return save(tmp_path / "weights.safetensors", tiny("posec3d_slowonly_r50"))


def command(source, out, *arguments, model="posec3d"):
  argv = [f"--model={model}", f"--source={source}", f"--out={out}", *arguments]
  if not any(argument.startswith("--stream") for argument in arguments):
    argv.append("--stream=joint")
  return launch.command(import_weights.run, import_weights.define, argv)


def shorten(out):
  """Makes the test of a run short enough for tests."""
  found = recipe.load(out)
  size = {"test_size": 16} if found.model["name"] == "posec3d" else {}
  one = dataclasses.replace(found.inputs["pose"], num_frames=8, **size)
  recipe.save(out, dataclasses.replace(found, inputs={"pose": one}, num_clips=1))


@pytest.fixture
def recording(tmp_path):
  pose = np.random.default_rng(0).uniform((1, 1, 0.1), (120, 70, 1), (9, 1, 25, 3))
  np.save(tmp_path / "clip.npy", pose)
  return [f"--input={tmp_path / 'clip.npy'}", "--layout=openpose25"]


def weights(out):
  return checkpoints.restore_variables(out / "checkpoints", "latest")


def test_imported_weights_are_evaluated(source, nods, tmp_path, capsys):
  out = tmp_path / "run"
  assert command(source, out, f"--data={nods}/nods") == 0
  printed = capsys.readouterr().out
  assert "posec3d, width 4, depths [1, 1, 1]; joint of coco17; 2 classes" in printed
  assert "points: keypoints" in printed
  assert "80 tensors, 67 of them taken" in printed
  shorten(out)
  assert launch.command(evaluate.run, evaluate.define, [f"--run={out}"]) == 0
  found = scores.load(out / "test" / "scores.npz")
  assert found.class_names == ("nod", "shake")
  assert found.probabilities.shape == (6, 2)


def test_training_begins_with_imported_weights(source, tmp_path):
  assert command(source, tmp_path / "run") == 0
  model = models.MODELS["posec3d"](2, width=4, depths=(1, 1, 1))
  init = functools.partial(step.init_train_state, model, optax.sgd(0.1))
  state = jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 8, 16, 16, 17)))
  begun, _ = trainer.with_weights(
    state, str(tmp_path / "run"), recipe.load(tmp_path / "run"), data=None
  )
  expected = weights(tmp_path / "run")
  jax.tree.map(np.testing.assert_array_equal, begun.params, expected["params"])
  jax.tree.map(np.testing.assert_array_equal, begun.batch_stats, expected["batch_stats"])


def test_names_of_parallel_training_averages_and_half_precision_are_known(source, tmp_path, capsys):
  tensors = tiny("posec3d_slowonly_r50")
  half = {f"module.{name}": x.astype(np.float16) for name, x in tensors.items() if x.dtype == "f4"}
  half["module.cls_head.fc_cls.bias"] = np.array([1, 2], ml_dtypes.bfloat16)
  half["module.ema_backbone_conv1_conv_weight"] = np.zeros((4, 17, 1, 7, 7), np.float32)
  assert command(save(tmp_path / "half", half), tmp_path / "a") == 0
  printed = capsys.readouterr().out
  assert "66 of float16, which are now float32" in printed
  assert "1 of bfloat16, which are now float32" in printed
  assert "no --data: evaluate needs one" in printed
  assert "frames of 1080 x 1920 where a clip has no size" in printed
  assert "copy of the weights" not in printed
  assert command(source, tmp_path / "b") == 0
  found, expected = weights(tmp_path / "a"), weights(tmp_path / "b")
  np.testing.assert_array_equal(found["params"]["head"].pop("bias"), np.float32([1, 2]))
  expected["params"]["head"].pop("bias")
  for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
    assert a.dtype == np.float32
    np.testing.assert_allclose(a, b, rtol=1e-3)


def video_weights(channels=3):
  """A state dict as of a golden, of its first block alone: 4 frames of 48 x 48."""
  shapes = json.loads((GOLDEN / "mvit_gradients.json").read_text())["state_dict"]
  shapes |= {"conv_proj.weight": (8, channels, 3, 7, 7), "head.1.weight": (5, 8)}
  rng = np.random.default_rng(0)
  return {
    name: rng.normal(0, 0.5, 8 if name.startswith("norm.") else shape).astype(np.float32)
    for name, shape in shapes.items()
    if not name.startswith(("blocks.1", "blocks.2", "blocks.3"))
  }


def import_video(source, out, *arguments):
  argv = ["--model=mvit", f"--source={source}", f"--out={out}", *arguments]
  return launch.command(import_weights.run, import_weights.define, argv)


def test_weights_of_mvit_predict_other_classes_from_other_clips(tmp_path, capsys):
  (tmp_path / "names").write_text("a\nb\nc\n")
  source, out = save(tmp_path / "mvit", video_weights()), tmp_path / "run"
  options = ["--num_frames=2", "--size=32", "--drop_head", f"--class_names={tmp_path / 'names'}"]
  assert import_video(source, out, *options) == 0
  printed = capsys.readouterr().out
  assert "mvit, width 8, depths [1]; 2 frames over 0.267 s, 32 x 32; 3 classes" in printed
  assert "tables of positions resized: made for 4 frames of 48 x 48" in printed
  assert "7.5 frames a second, values of mean 0.45 and deviation 0.225, keys pooled by 8" in printed
  found = recipe.load(out)
  one = found.inputs["video"]
  assert (found.num_clips, found.mirror, one.test_crop) == (5, False, 0.875)

  # Frames of the very size that is shown, so that nothing is resized.
  pictures = np.random.default_rng(0).integers(256, size=(2, 32, 32, 3), dtype=np.uint8)
  one = dataclasses.replace(one, frame_size=(32, 32), test_crop=1.0)
  found = dataclasses.replace(found, inputs={"video": one}, num_clips=1)
  encoded = tuple(png(picture) for picture in pictures)
  clip = readers.Frames(encoded, np.array([0.0, 0.1]), (32, 32))
  batch = {"video": jax.tree.map(lambda x: x[None], one.read_test(clip.record(), 1))}
  variables, model = weights(out), found.build_model()
  predict = jax.jit(found.predict_step(model))
  probabilities = predict(variables["params"], {}, batch)
  logits, _ = jax.jit(model.apply)(variables, (pictures[None] / 255 - 0.45).astype("f4") / 0.225)
  np.testing.assert_allclose(probabilities, jax.nn.softmax(logits), atol=1e-4)


def png(picture):
  from PIL import Image

  into = io.BytesIO()
  Image.fromarray(picture).save(into, "PNG")
  return into.getvalue()


def test_weights_of_mvit_are_what_the_tables_make_of_them(tmp_path, spots, capsys):
  tensors = video_weights()
  source = save(tmp_path / "mvit", tensors)
  assert import_video(source, tmp_path / "run") == 0
  found = recipe.load(tmp_path / "run")
  clips = jax.ShapeDtypeStruct((1, 4, 48, 48, 3), jnp.float32)
  abstract = jax.eval_shape(found.build_model().init, jax.random.key(0), clips)
  expected = convert.convert(tensors, abstract, pretrained_mvit.RULES)
  jax.tree.map(
    np.testing.assert_array_equal, weights(tmp_path / "run")["params"], expected["params"]
  )
  assert found.inputs["video"].num_frames == 4
  assert found.inputs["video"].seconds == pytest.approx(16 / 30)

  assert import_video(source, tmp_path / "spots", f"--data={spots}/spots", "--drop_head") == 0
  found = recipe.load(tmp_path / "spots")
  assert (found.inputs["video"].frame_size, found.class_names) == ((20, 24), ("left", "right"))
  capsys.readouterr()
  grey = save(tmp_path / "grey", video_weights(channels=1))
  assert import_video(grey, tmp_path / "no", f"--data={spots}/spots", "--drop_head") == 4
  assert "grey: channels: expected 1, got 3" in capsys.readouterr().err
  assert import_video(source, tmp_path / "no", "--stream=joint") == 2
  assert "--stream: expected --model=posec3d or agcn, got mvit" in capsys.readouterr().err


def face_weights():
  """A state dict of the names of the golden, of two stages of one block: faces of 28 x 28."""
  sizes = dict(width=8, depths=(1, 1), heads=(1, 2), token_width=16)
  model = models.MODELS["swinface"](7, branches=True, classify="expression", **sizes)
  faces = jax.ShapeDtypeStruct((1, 1, 28, 28, 3), jnp.float32)
  wanted = traverse_util.flatten_dict(jax.eval_shape(model.init, jax.random.key(0), faces), sep="/")
  back = {  # theirs of our axes
    pretrained_swinface.conv: lambda shape: (*shape[:2:-1], 3, 3),
    pretrained_swinface.patches: lambda shape: (*shape[:1:-1], 2, 2),
    pretrained_swinface.positions: lambda shape: (169, shape[-1]),
    convert.linear: lambda shape: shape[::-1],
    convert.same: lambda shape: shape,
  }
  rng, tensors = np.random.default_rng(0), {}
  for name in json.loads((GOLDEN / "swinface.json").read_text())["state_dict"]:
    for rule in pretrained_swinface.RULES:
      match = re.fullmatch(rule.pattern, name)
      if match and (path := match.expand(rule.target)) in wanted:
        shape = back[rule.layout](wanted[path].shape)
        tensors[name] = rng.uniform(0.1 - len(shape) / 10, 0.5, shape).astype(np.float32)
        tensors[name] += 0.5 * path.endswith("/var")
  return model, tensors | {"backbone.head.bias": np.ones(3, np.float32)}


def import_faces(source, out, *arguments):
  argv = ["--model=swinface", f"--source={source}", f"--out={out}", *arguments]
  return launch.command(import_weights.run, import_weights.define, argv)


def test_weights_of_swinface_tell_seven_expressions(tmp_path, looks, capsys):
  model, tensors = face_weights()
  source, out = save(tmp_path / "weights", tensors), tmp_path / "run"
  assert import_faces(source, out) == 0
  printed = capsys.readouterr().out
  assert "swinface, width 8, depths [1, 1]; 8 faces over 2.13 s, 28 x 28; 7 classes" in printed
  assert "values of mean 0.5 and deviation 0.5" in printed
  found, variables = recipe.load(out), weights(out)
  assert found.class_names == models.swinface.EXPRESSIONS
  assert found.build_model() == model
  one = found.inputs["faces"]
  record = prepared_source.Source(looks / "looks").track("faces")[0]
  batch = {"faces": jax.tree.map(lambda x: x[None], one.read_test(record, 1))}
  found = dataclasses.replace(found, num_clips=1)
  predict = jax.jit(found.predict_step(model))
  probabilities = predict(variables["params"], variables["batch_stats"], batch)
  faces = (batch["faces"]["frames"][0, :1] / 255 - 0.5).astype("f4") / 0.5
  _, out = jax.jit(model.apply)(variables, faces)
  expected = jax.nn.softmax(out["expression"].mean(1))
  np.testing.assert_allclose(probabilities, expected, atol=1e-5)


def test_weights_of_swinface_go_on_with_other_classes(tmp_path, looks, capsys):
  _, tensors = face_weights()
  source = save(tmp_path / "weights", tensors)
  options = ["--drop_head", f"--data={looks}/looks", "--num_frames=2"]
  assert import_faces(source, tmp_path / "new", *options) == 0
  found, variables = recipe.load(tmp_path / "new"), weights(tmp_path / "new")
  assert (found.class_names, found.inputs["faces"].num_frames) == (("above", "below"), 2)
  assert found.model["classify"] == "tokens"
  assert variables["params"]["head"]["kernel"].shape == (16, 2)
  kept = variables["params"]["branch_expression"]["expression"]["bias"]
  np.testing.assert_array_equal(kept, tensors["om.output_fcs.3.bias"])
  capsys.readouterr()
  assert import_faces(source, tmp_path / "no", f"--data={looks}/looks") == 4
  assert "classes: expected 2 as in" in capsys.readouterr().err
  other = save(tmp_path / "other", tiny("posec3d_slowonly_r50"))
  assert import_faces(other, tmp_path / "no") == 4
  assert "expected the weights of swinface, got backbone" in capsys.readouterr().err


def test_a_new_head_is_said_and_all_else_is_kept(source, tmp_path, capsys):
  (tmp_path / "names.txt").write_text("nod\n\n shake \nwave\n", "utf-8-sig")
  arguments = ["--drop_head", f"--class_names={tmp_path / 'names.txt'}"]
  assert command(source, tmp_path / "new", *arguments) == 0
  assert "the classifier is new" in capsys.readouterr().out
  assert recipe.load(tmp_path / "new").class_names == ("nod", "shake", "wave")
  assert command(source, tmp_path / "old") == 0
  new, old = weights(tmp_path / "new"), weights(tmp_path / "old")
  head = new["params"].pop("head")
  assert head["kernel"].shape == (64, 3)
  assert 0.005 < head["kernel"].std() < 0.02
  assert not head["bias"].any()
  del old["params"]["head"]
  jax.tree.map(np.testing.assert_array_equal, new, old)


def test_limbs_of_published_weights_come_to_our_order(source, tmp_path):
  assert command(source, tmp_path / "joint") == 0
  assert command(source, tmp_path / "limb", "--stream=limb", "--skeleton=coco17") == 0
  theirs, ours = (
    weights(tmp_path / stream)["params"]["stem"]["conv"]["kernel"] for stream in ("joint", "limb")
  )
  limbs = skeletons.get("coco17").limbs
  for channel, limb in ((0, (0, 5)), (11, (14, 16)), (12, (0, 1)), (16, (11, 12))):  # of theirs
    np.testing.assert_array_equal(ours[..., limbs.index(limb), :], theirs[..., channel, :])


def test_first_kernels_go_to_joints_of_the_same_name_and_their_mean_to_others(source, tmp_path):
  assert command(source, tmp_path / "coco17") == 0
  arguments = ["--skeleton=imigue22", "--stem_from=coco17"]
  assert command(source, tmp_path / "imigue22", *arguments) == 0
  theirs, ours = (
    weights(tmp_path / name)["params"]["stem"]["conv"]["kernel"] for name in ("coco17", "imigue22")
  )
  names = skeletons.get("coco17").joints
  for v, joint in enumerate(skeletons.get("imigue22").joints):
    expected = theirs[..., names.index(joint), :] if joint in names else theirs.mean(-2)
    np.testing.assert_allclose(ours[..., v, :], expected, rtol=1e-6)
  assert recipe.load(tmp_path / "imigue22").inputs["pose"].skeleton.name == "imigue22"


def test_of_several_copies_the_weights_are_taken_or_the_one_that_is_named(tmp_path, capsys):
  tensors = {f"model.{name}": x for name, x in tiny("posec3d_slowonly_r50").items()}
  bias = "cls_head.fc_cls.bias"
  average = {name.replace("model.", "ema.module.", 1): x for name, x in tensors.items()}
  average[f"ema.module.{bias}"] = np.float32([3, 4])
  source = save(tmp_path / "both", tensors | average)
  assert command(source, tmp_path / "plain") == 0
  assert "not taken: the copy of the weights called ema (--copy=ema)" in capsys.readouterr().out
  assert command(source, tmp_path / "ema", "--copy=ema") == 0
  assert "the copy of the weights called ema is taken" in capsys.readouterr().out
  plain, ema = (weights(tmp_path / name)["params"]["head"]["bias"] for name in ("plain", "ema"))
  np.testing.assert_array_equal(plain, tensors[f"model.{bias}"])
  np.testing.assert_array_equal(ema, [3, 4])


def seeded(tensors):
  """Of these names and shapes, as the weights of the goldens, and with logits of about 1."""
  spec = importlib.util.spec_from_file_location("seeded", GOLDEN / "seeded.py")
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  found = {name: module.seeded_array(name, x.shape) for name, x in tensors.items()}
  return found | {"fc.weight": found["fc.weight"] / 5}


PREPARED = [
  ("ntu", "agcn_ntu25", "late_gap", "joint"),
  ("ntu", "agcn_ntu25", "one", "bone"),
  ("kinetics", "agcn_openpose18", "crowd", "joint"),
  ("kinetics", "agcn_openpose18", "one", "bone"),
]


@pytest.mark.parametrize(("preparation", "network", "name", "stream"), PREPARED)
def test_a_clip_gets_the_classes_that_the_originals_input_gives(
  preparation, network, name, stream, tmp_path, capsys
):
  tensors = seeded(tiny(network))
  arguments = [f"--preparation={preparation}", f"--stream={stream}"]
  out = tmp_path / "run"
  assert command(save(tmp_path / "agcn", tensors), out, *arguments, model="agcn") == 0
  assert f"{stream} of " in (printed := capsys.readouterr().out)
  assert f" as published ({preparation})" in printed

  with np.load(GOLDEN / f"agcn_{preparation}_prepared.npz") as golden:
    raw = golden[f"{name}.raw"].swapaxes(0, 1)
    x = golden[f"{name}.{'bone' if stream == 'bone' else 'input'}"].transpose(3, 1, 2, 0)[None]
  clip = {"layout": "openpose18", "keypoints": raw * np.float32([340, 256, 1])}
  if preparation == "ntu":
    seen = raw.any(-1, keepdims=True)
    clip = {"layout": "kinect25", "keypoints": np.where(seen, 1, 0 * raw), "joints3d": raw}
  predictor = Predictor(out)
  got = predictor(readers.Clip(**clip, frame_size=(256, 340)))
  model = predictor.recipe.build_model()
  logits, _ = jax.jit(model.apply)(weights(out), x.transpose(0, 2, 1, 3, 4))
  expected = np.asarray(jax.nn.softmax(logits[0]))
  np.testing.assert_allclose(got, expected, rtol=1e-3)
  assert 0.01 < expected.min() < 0.49


@pytest.fixture
def bodies(tmp_path):
  """A prepared set `bodies` of two persons before a camera."""

  class Bodies(prepared.Builder):
    track = tracks.Pose("kinect25", frame_size=(240, 320), num_persons=2, joints3d=True)
    class_names = ("one", "two")
    protocols = {"xsub": prepared.by_subject(train=("a", "b"))}  # noqa: RUF012

    def clips(self, recording, known):
      rng = np.random.default_rng(0)
      for i in range(12):
        joints3d = np.float32(rng.normal((0, 0, 3), 0.3, (9, 1 + i % 2, 25, 3)))
        clip = readers.Clip(readers.depth_view(joints3d), "kinect25", joints3d=joints3d)
        yield prepared.Example(f"c{i}", i % 2, "abc"[i % 3], clip)

  prepared.write(Bodies, raw=tmp_path, data_dir=tmp_path / "data")
  return tmp_path / "data"


def test_imported_weights_are_trained_and_tested_on_the_input_that_they_know(
  bodies, tmp_path, capsys
):
  begin = tmp_path / "imported"
  arguments = ["--preparation=ntu", f"--data={bodies}/bodies"]
  tensors = tiny("agcn_ntu25", blocks={"l1": "l1", "l5": "l2", "l6": "l3"})  # our "tiny"
  tensors["fc.weight"] = tensors["fc.weight"][:, :16]
  assert command(save(tmp_path / "agcn", tensors), begin, *arguments, model="agcn") == 0
  settings = {"data.dir": bodies, "init_from": begin, "model.variant": "tiny"}
  settings |= {"train.batch_size": 4, "schedule.epochs": 1, "sampling.num_frames": 16}
  settings |= {"optimizer.learning_rate": 0.0, "schedule.milestones": ()}
  settings = [f"--config.{name}={value}" for name, value in settings.items()]
  argv = ["--config=agcn:bodies,joint,paper", f"--workdir={tmp_path / 'tuned'}", *settings]
  assert launch.main(agcn.run, argv) == 4
  error = capsys.readouterr().err
  assert "pose.preparation: expected ours, got ntu (--config.inputs.preparation" in error
  argv[1] = f"--workdir={tmp_path / 'new'}"
  assert launch.main(agcn.run, [*argv, "--config.inputs.preparation=ntu"]) == 0
  assert recipe.load(tmp_path / "new").inputs["pose"].preparation == "ntu"
  assert launch.command(evaluate.run, evaluate.define, [f"--run={tmp_path / 'new'}"]) == 0
  assert scores.load(tmp_path / "new" / "test" / "scores.npz").probabilities.shape == (4, 2)
  theirs, ours = (weights(out)["params"] for out in (begin, tmp_path / "new"))
  jax.tree.map(np.testing.assert_array_equal, theirs, ours)


def test_weights_of_2s_agcn_predict(recording, tmp_path, capsys):
  tensors = tiny("agcn_ntu25")
  source, out = save(tmp_path / "agcn", tensors), tmp_path / "run"
  ours = "--preparation=ours"
  assert command(source, out, ours, model="agcn") == 2
  assert "--skeleton: expected kinect25 or openpose25, got none" in capsys.readouterr().err
  assert command(source, out, "--skeleton=kinect25", model="agcn") == 2
  assert "--preparation: expected ntu or ours, got none (weights" in capsys.readouterr().err
  assert command(source, out, "--skeleton=openpose25", "--stream=bone", ours, model="agcn") == 0
  printed = capsys.readouterr().out
  assert "agcn, width 8, depths [1, 1, 1]; bone of openpose25; 2 classes" in printed
  one = recipe.load(out).inputs["pose"]
  assert (one.num_frames, one.num_persons) == (300, 2)
  shorten(out)
  assert launch.command(predict.run, predict.define, [f"--run={out}", *recording]) == 0
  assert "class 1" in capsys.readouterr().out


@pytest.mark.parametrize(
  ("arguments", "code", "message"),
  [
    (["--out=."], 2, "--out: expected a new directory"),
    (["--stream=bone"], 2, "--stream: expected joint or limb, got bone (weights do not tell)"),
    (["--preparation=ntu"], 2, "--preparation: expected --model=agcn, got posec3d"),
    (["--num_frames=8"], 2, "--num_frames: expected --model=mvit or swinface, got posec3d"),
    (["--copy=ema"], 4, "copy of the weights: expected none, got ema"),
    (["--source=aagcn", "--model=agcn"], 4, "PYSKL or mmaction2, which is not covered"),
    (["--source=c3d"], 4, "got those of C3D, as PYSKL's C3D-light, which is not covered"),
    (
      ["--source=agcn", "--model=agcn", "--preparation=kinetics"],
      4,
      "joints: expected 18 of openpose18, got 25",
    ),
    (
      ["--source=agcn", "--model=agcn", "--preparation=ntu", "--skeleton=openpose25"],
      2,
      "--preparation=ntu: skeleton: expected kinect25 with preparation=ntu, got openpose25",
    ),
    (["--skeleton=coco71"], 2, "--skeleton: skeleton: expected coco17 or "),
    (["--stem_from=coco71", "--skeleton=coco17"], 2, "--stem_from: skeleton: expected coco17 or "),
    (["--stem_from=coco17"], 2, "--skeleton: expected coco17, got none"),
    (["--skeleton=imigue22"], 4, "joints: expected 22, of imigue22, got 17 (weights of another"),
    (["--data=none"], 3, "expected a prepared data set"),
    (["--class_names=none"], 5, "none: No such file or directory"),
    (
      ["--class_names=twice"],
      3,
      "twice: expected names, one a line, each once, got 'a' among them",
    ),
    (["--class_names=latin"], 3, "latin: 'utf-8' codec can't decode byte 0xe9"),
    (["--class_names=nothing"], 3, "nothing: expected names, one a line, each once, got none"),
    (["--stem_from=coco17", "--skeleton=arms"], 2, "--skeleton: skeleton: expected coco17 or "),
    (["--class_names=three"], 4, "classes: expected 3 as in three, got 2 (--drop_head makes"),
    (["--drop_head"], 2, "the new head's classes: expected --data or --class_names"),
    (["--source=none"], 4, "none: expected a checkpoint, got no such file"),
    (["--source=agcn"], 4, "posec3d, got data_bn.weight, data_bn.bias, data_bn.running_mean, ..."),
    (["--source=scalar"], 4, "(not found: tuple index out of range)"),
    (["--source=empty"], 4, "(not found: 'params/stem/conv/kernel')"),
    (["--source=scalar", "--model=agcn"], 4, "(not found: 'params/block1/graph/edges')"),
    (
      ["--source=untimed", "--model=agcn", "--preparation=ntu"],
      4,
      "(not found: 'params/block1/temporal/conv/kernel')",
    ),
    (
      ["--source=alone", "--model=agcn", "--skeleton=kinect25", "--preparation=ours"],
      4,
      "data_bn.weight: params/data_bn/scale: expected (75,), got (3,)",
    ),
    (["--source=nan"], 4, "expected finite numbers in float32, got NaN or infinity"),
    (["--source=zero"], 4, "expected trained weights, got zeros alone"),
    (["--source=variance"], 4, "expected variances, got negative numbers"),
    (["--source=missing"], 4, "batch_stats/stage1/block0/conv1/bn/mean is not filled"),
    (["--source=stranger"], 4, "neck.weight matches 0 rules"),
    (["--source=twofold"], 4, "expected 'cls_head.fc_cls.bias' once, got cls_head.fc_cls.bias and"),
  ],
)
def test_what_cannot_be_imported_is_refused_in_one_line_and_leaves_nothing(
  arguments, code, message, source, tmp_path, capsys, monkeypatch
):
  monkeypatch.chdir(tmp_path)
  good = tiny("posec3d_slowonly_r50")
  bias, stem = "cls_head.fc_cls.bias", "backbone.conv1.conv.weight"
  graph = tiny("agcn_ntu25")
  save(tmp_path / "agcn", graph)
  save(tmp_path / "aagcn", {"backbone.gcn.0.gcn.conv_ta.weight": np.ones((1, 64, 9), np.float32)})
  save(tmp_path / "c3d", {"backbone.conv1a.conv.weight": np.ones((32, 17, 3, 3, 3), np.float32)})
  save(tmp_path / "alone", graph | {"data_bn.weight": np.ones(3, np.float32)})
  del graph["l1.tcn1.conv.weight"]
  save(tmp_path / "untimed", graph)
  save(tmp_path / "nan", good | {bias: np.float32([np.nan, 0])})
  save(tmp_path / "zero", good | {stem: 0 * good[stem]})
  save(tmp_path / "variance", good | {"backbone.conv1.bn.running_var": np.float32([1, 1, 1, -1])})
  save(tmp_path / "stranger", good | {"neck.weight": np.float32([1])})
  save(tmp_path / "twofold", good | {f"module.{bias}": good[bias]})
  save(tmp_path / "scalar", good | {bias: np.float32(1)})
  save(tmp_path / "empty", good | {stem: good[stem][:0]})
  del good["backbone.layer1.0.conv1.bn.running_mean"]
  save(tmp_path / "missing", good)
  (tmp_path / "three").write_text("a\nb\nc\n")
  (tmp_path / "nothing").write_text("\n")
  (tmp_path / "latin").write_bytes("géné\nb\n".encode("latin-1"))
  (tmp_path / "twice").write_text("a\nb\na\n")
  before = sorted(tmp_path.rglob("*"))
  flags = {"--model": "posec3d", "--source": source.name, "--out": "run", "--stream": "joint"}
  flags |= dict(argument.partition("=")[::2] for argument in arguments)
  argv = [f"{name}={value}" if value else name for name, value in flags.items()]
  assert launch.command(import_weights.run, import_weights.define, argv) == code
  error = capsys.readouterr().err
  assert error.startswith("jaxmg: error: ")
  assert error.count("\n") == 1
  assert message in error
  assert sorted(tmp_path.rglob("*")) == before
