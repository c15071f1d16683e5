"""Checkpoints from outside (B69 to B71, B74 and B75 of the project's list of bad inputs)."""

import io
import json
import pathlib
import pickle
import struct
import subprocess
import sys
import tarfile
import zipfile

import ml_dtypes
import numpy as np
import pytest

from jaxmg import errors
from jaxmg.pretrained import torch_files

TESTS = pathlib.Path(__file__).parents[1]
GOLDEN, HOSTILE = TESTS / "golden", TESTS / "hostile.py"
FORMS = ["zip", "legacy"]


@pytest.fixture(autouse=True)
def _without_torch(monkeypatch):
  monkeypatch.setitem(sys.modules, "torch", None)


def golden(name, form):
  return GOLDEN / f"torch_{name}{'_legacy' if form == 'legacy' else ''}.pth"


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["posec3d_slowonly_r50", "agcn_ntu25", "agcn_openpose18"])
def test_file_of_pytorch_holds_its_state_dict_to_the_bit(name, form, torch_file, seeded_state_dict):
  found, expected = torch_files.read(torch_file(name, form)), seeded_state_dict(name)
  assert list(found) == list(expected)
  for key in expected:
    np.testing.assert_array_equal(found[key], expected[key], strict=True)


@pytest.mark.parametrize("form", FORMS)
def test_views_and_dtypes_are_those_of_pytorch(form):
  numbers = np.arange(24, dtype=np.float32).reshape(2, 3, 4)
  expected = {
    "whole": numbers,
    "transposed": numbers.transpose(2, 0, 1),
    "offset": numbers[1, 1:, ::2],
    "scalar": numbers[1, 2, 3],
    "empty": np.zeros((0, 5), np.float32),
    "parameter": np.arange(3.0),
    "half": np.arange(4, dtype=np.float16) / 4,
    "bfloat16": np.array([0, 1.5, 3, 4.5], ml_dtypes.bfloat16),
    "int64": np.array(-7),
    "int32": np.arange(3, dtype=np.int32),
    "int16": np.arange(3, dtype=np.int16),
    "int8": np.arange(-1, 2, dtype=np.int8),
    "uint8": np.arange(253, 256).astype(np.uint8),
    "boolean": np.array([True, False]),
  }
  found = torch_files.read(golden("views", form))
  assert list(found) == list(expected)
  for key in expected:
    assert isinstance(found[key], np.ndarray)
    np.testing.assert_array_equal(found[key], np.asarray(expected[key]), strict=True)


@pytest.mark.parametrize("form", FORMS)
def test_of_what_training_saved_only_the_state_dict_is_taken(form):
  found = torch_files.read(golden("training", form))
  assert {name: array.shape for name, array in found.items()} == {
    "0.weight": (2, 3),
    "0.bias": (2,),
    "1.weight": (2,),
    "1.bias": (2,),
    "1.running_mean": (2,),
    "1.running_var": (2,),
    "1.num_batches_tracked": (),
  }
  assert found["1.num_batches_tracked"] == 1
  np.testing.assert_array_equal(found["1.bias"], np.float32([-0.4, -0.4]))


@pytest.mark.parametrize("form", FORMS)
def test_a_copy_of_the_weights_is_read_under_its_key_if_it_is_of_tensors_alone(form, tmp_path):
  make, view = (archive, b"") if form == "zip" else (legacy, b"N")
  one, other = tree(w=tensor(view=view)), tree(w=tensor(view=view, shape=(3, 2), strides=(2, 1)))
  (tmp_path / "both").write_bytes(make(tree(state_dict=one, ema=other, model_ema=tree(x=plain(1)))))
  found = torch_files.read(tmp_path / "both")
  assert {name: array.shape for name, array in found.items()} == {"w": (2, 3), "ema.w": (3, 2)}
  (tmp_path / "alone").write_bytes(make(tree(epoch=plain(3), state_dict_ema=one)))
  assert list(torch_files.read(tmp_path / "alone")) == ["state_dict_ema.w"]


@pytest.mark.parametrize("form", FORMS)
def test_the_state_dicts_of_swinfaces_parts_are_one(form, tmp_path):
  make, view = (archive, b"") if form == "zip" else (legacy, b"N")
  one, other = tree(w=tensor(view=view)), tree(w=tensor(view=view, shape=(3, 2), strides=(2, 1)))
  parts = {"epoch": plain(3), "state_dict_om": one, "state_dict_fam": other}
  (tmp_path / "parts").write_bytes(make(tree(**parts, state_optimizer=one)))
  found = torch_files.read(tmp_path / "parts")
  assert {name: array.shape for name, array in found.items()} == {"om.w": (2, 3), "fam.w": (3, 2)}


def safetensors(header, content=b""):
  if not isinstance(header, bytes):
    header = json.dumps(header).encode()
  return struct.pack("<Q", len(header)) + header + content


def entry(dtype="F32", shape=(2,), begin=0, end=8):
  return {"dtype": dtype, "shape": list(shape), "data_offsets": [begin, end]}


def test_safetensors_are_read(tmp_path):
  expected = {
    "b": np.arange(6, dtype=np.float16).reshape(2, 3),
    "a": np.array(1.5, ml_dtypes.bfloat16),
    "empty": np.zeros((0, 3), np.float32),
    "n": np.array([2, -3]),
  }
  names = {"b": "F16", "a": "BF16", "empty": "F32", "n": "I64"}
  header, content = {"__metadata__": {"format": "pt"}}, b""
  for key, array in expected.items():
    end = len(content) + array.nbytes
    header[key] = entry(names[key], array.shape, len(content), end)
    content += array.tobytes()
  path = tmp_path / "model.safetensors"
  path.write_bytes(safetensors(dict(reversed(header.items())), content))
  found = torch_files.read(path)
  assert found.keys() == expected.keys()
  for key in expected:
    np.testing.assert_array_equal(found[key], expected[key], strict=True)


# --- what attacks


def plain(value):
  """The opcodes of a value."""
  return pickle.dumps(value, 2)[2:-1]


def attack(name="os\nsystem"):
  return f"c{name}\n".encode() + plain(("touch canary",)) + b"R"


def tensor(
  key="0", kind="FloatStorage", size=6, offset=0, shape=(2, 3), strides=(3, 1), more=b"", view=b""
):
  """The opcodes of a tensor, by default one that is right."""
  storage = b"(" + plain("storage") + f"ctorch\n{kind}\n".encode() + plain(key) + plain("cpu")
  storage += plain(size) + view + b"tQ"
  return (
    b"ctorch._utils\n_rebuild_tensor_v2\n("
    + b"".join([storage, plain(offset), plain(shape), plain(strides), b"\x89"])
    + b"ccollections\nOrderedDict\n)R"
    + more
    + b"tR"
  )


def tree(**values):
  return b"}(" + b"".join(plain(key) + value for key, value in values.items()) + b"u"


SIX = struct.pack("<q", 6)
NUMBERS = np.arange(6, dtype=np.float32).tobytes()


def archive(opcodes=None, entries=(("data/0", NUMBERS),), compression=zipfile.ZIP_STORED):
  """A zip archive as PyTorch writes it, by default one that is right."""
  opcodes = tree(w=tensor()) if opcodes is None else opcodes
  stream = io.BytesIO()
  with zipfile.ZipFile(stream, "w", compression) as file:
    for name, content in (("data.pkl", b"\x80\x02" + opcodes + b"."), *entries):
      file.writestr(f"archive/{name}", content)
  return stream.getvalue()


def patched(content, signature, offset, form, value, *, last=False):
  """An archive with another number in a record of its directory."""
  place = (content.rindex if last else content.index)(signature) + offset
  size = struct.calcsize(form)
  return content[:place] + struct.pack(form, value) + content[place + size :]


def legacy(
  opcodes=None,
  keys=("0",),
  storages=SIX + NUMBERS,
  magic=0x1950A86A20F9469CFC6C,
  system=(("little_endian", True),),
):
  """The stacked pickles of old, by default such that are right."""
  opcodes = tree(w=tensor(view=b"N")) if opcodes is None else opcodes
  parts = [magic, 1001, dict(system)]
  parts = [pickle.dumps(part, 2) for part in parts] + [b"\x80\x02" + opcodes + b"."]
  return b"".join([*parts, pickle.dumps(list(keys), 2), storages])


def old_tar():
  stream = io.BytesIO()
  with tarfile.open(fileobj=stream, mode="w", format=tarfile.USTAR_FORMAT) as file:
    info = tarfile.TarInfo("pickle")
    payload = b"\x80\x02" + attack() + b"."
    info.size = len(payload)
    file.addfile(info, io.BytesIO(payload))
  return stream.getvalue()


CENTRAL, END = b"PK\x01\x02", b"PK\x05\x06"


def corpus():
  """Name -> (file, what its refusal says)."""
  payload = b"\x80\x02" + attack() + b"."
  system = "the global 'os.system'"
  good, sound = tensor(), archive()
  files = {
    "B69 instead": (archive(attack()), system),
    "B69 in the state dict": (archive(tree(w=good, x=attack())), system),
    "B69 beside it": (archive(tree(state_dict=tree(w=good), optimizer=attack())), system),
    "B69 dropped": (archive(attack() + b"0" + tree(w=good)), system),
    "B69 as attributes": (archive(b"ccollections\nOrderedDict\n)R" + attack() + b"b"), system),
    "B69 getattr": (archive(attack("builtins\ngetattr")), "the global 'builtins.getattr'"),
    "B69 nested": (archive(attack("torch.storage\n_load_from_bytes")), "_load_from_bytes'"),
    "B69 two pickles": (archive(tree(w=good) + b"." + attack()), "more bytes after the pickle"),
    "B69 legacy first": (payload + legacy(), system),
    "B69 legacy": (legacy(attack()), system),
    "B69 legacy keys": (legacy(keys=()).removesuffix(b"]q\x00." + NUMBERS) + payload, ""),
    "B69 tar": (old_tar(), "a tar archive"),
    "B69 script": (archive(entries=[("code/__torch__.py", b"")]), "a TorchScript archive"),
    "B69 constants": (archive(entries=[("constants.pkl", payload)]), "a TorchScript archive"),
    "B69 zip behind a pickle": (payload + sound, system),
    "B69 pickle behind a zip": (sound + payload, "does not end with its directory"),
    "B69 zip behind a zip": (sound + sound, "a zip archive behind something else"),
    "B69 comment": (patched(sound, END, 20, "<H", len(payload)) + payload, "does not end"),
    "B69 plain pickle": (payload, system),
    "B69 pickle of numbers": (pickle.dumps({"w": 1.0}), "did not write"),
    "B70 unknown": (
      archive(tree(state_dict=tree(w=good), meta=attack("mmcv.runner\nHook"))),
      "the global 'mmcv.runner.Hook', which is not allowed (where the file is trusted",
    ),
    "B70 module": (
      archive(b"ctorch.nn.modules.linear\nLinear\n)\x81}b"),
      "the global 'torch.nn.modules.linear.Linear'",
    ),
    "B70 stub as tensor": (
      archive(tree(w=b"cdatetime\ndatetime\n)R")),
      "'w', which is no tensor but datetime datetime",
    ),
    "B70 number as tensor": (archive(tree(w=good, epoch=b"K\x01")), "'epoch', which is no tensor"),
    "B70 two": (archive(tree(model=tree(w=good), state_dict=tree(w=good))), "state_dict, model"),
    "B70 none": (archive(tree(state_dict=b"}")), "no dictionary of tensors"),
    "B70 a list": (archive(b"](" + good + b"e"), "no dictionary of tensors"),
    "B70 control characters": (archive(tree(**{"\x1b[2J": good})), "without a printable name"),
    "B70 a number as name": (archive(b"}K\x01" + good + b"s"), "'1', which is no tensor"),
  }
  for name, options in {
    "shape": {"shape": (2, 4)},
    "offset": {"offset": 1},
    "stride": {"strides": (4, 1)},
    "overflow": {"shape": (2**62, 4), "strides": (0, 1)},
    "wrap": {"shape": (2,), "strides": (2**62,)},
    "repeated": {"shape": (10**6, 10**6), "strides": (0, 0)},
  }.items():
    files[f"B71 {name}"] = archive(tree(w=tensor(**options))), "that its storage of 6 does not hold"
  for name, options in {
    "negative offset": {"offset": -1},
    "negative stride": {"strides": (-3, 1)},
    "negative shape": {"shape": (-2, -3)},
    "float": {"shape": (2.0, 3)},
    "bool": {"offset": True},
  }.items():
    files[f"B71 {name}"] = archive(tree(w=tensor(**options))), "negative shape or stride"
  twice = tensor() + plain("x") + tensor(kind="IntStorage")
  files |= {
    "B71 axes": (archive(tree(w=tensor(shape=(1,) * 99, strides=(1,) * 99))), "one stride for"),
    "B71 strides": (archive(tree(w=tensor(strides=(1,)))), "one stride for each axis"),
    "B71 10 TB": (
      archive(tree(w=tensor(size=10**13))),
      "storage '0' of 40000000000000 bytes with 24",
    ),
    "B71 negative storage": (archive(tree(w=tensor(size=-6))), "to what is no storage"),
    "B71 huge storage": (archive(tree(w=tensor(size=2**62))), "to what is no storage"),
    "B71 missing": (archive(entries=()), "storage '0' of 24 bytes missing"),
    "B71 short": (archive(entries=[("data/0", NUMBERS[1:])]), "storage '0' of 24 bytes with 23"),
    "B71 path as key": (archive(tree(w=tensor(key="../x"))), "missing"),
    "B71 two dtypes": (archive(tree(w=twice)), "to what is no storage"),
    "B71 no reference": (archive(b"K\x01Q"), "TypeError"),
    "B71 other reference": (archive(plain(("module",) * 5) + b"Q"), "to what is no storage"),
    "B71 no storage": (
      archive(tree(w=b"ctorch._utils\n_rebuild_tensor\n(K\x01K\x00))tR")),
      "a tensor without storage or shape",
    ),
    "B71 bomb": (
      archive(entries=[("data/0", bytes(1 << 27))], compression=zipfile.ZIP_DEFLATED),
      "compressed",
    ),
    "B71 byte order": (archive(entries=[("byteorder", b"big")]), "another byte order than little"),
    "B71 no pickle": (sound.replace(b"data.pkl", b"data.pkx"), "a zip archive with 'data.pkx'"),
    "B71 stranger": (archive(entries=[("payload.exe", b"")]), "a zip archive with 'payload.exe'"),
    "B71 traversal": (archive(entries=[("../data/0", NUMBERS)]), "a zip archive with '../data/0'"),
    "B71 folders": (sound.replace(b"archive/data/0", b"archivf/data/0"), "several folders"),
    "B71 overlap": (
      patched(sound, CENTRAL, 42, "<I", 0, last=True),
      "a zip archive with entries that overlap",
    ),
    "B71 long entry": (
      patched(
        patched(sound, CENTRAL, 20, "<I", 5000, last=True), CENTRAL, 24, "<I", 5000, last=True
      ),
      "overlap",
    ),
    "B71 long header": (patched(sound, b"PK\x03\x04", 28, "<H", 500), "overlap"),
    "B71 size": (patched(sound, CENTRAL, 24, "<I", 1 << 30, last=True), "compressed"),
    "B71 encrypted": (patched(sound, CENTRAL, 8, "<H", 1), "encrypted"),
    "B71 checksum": (patched(sound, CENTRAL, 16, "<I", 1, last=True), "Bad CRC-32"),
    "B71 directory": (patched(sound, END, 12, "<I", 1 << 31), "a directory of 2147483648 bytes"),
    "B71 start": (patched(sound, END, 16, "<I", 1 << 30), ""),
    "B71 legacy size": (
      legacy(storages=struct.pack("<q", 7) + NUMBERS + bytes(4)),
      "storage '0' of 6 numbers with 7",
    ),
    "B71 legacy 10 TB": (
      legacy(tree(w=tensor(view=b"N", size=10**13)), storages=struct.pack("<q", 10**13)),
      "storages up to byte 40000000",
    ),
    "B71 legacy negative": (legacy(storages=struct.pack("<q", -6) + NUMBERS), "with -6"),
    "B71 legacy longer": (legacy() + b"x", "storages up to byte"),
    "B71 legacy keys": (legacy(keys=("0", "1")), "storages that are not those"),
    "B71 legacy same keys": (legacy(keys=("0", "0")), "storages that are not those"),
    "B71 legacy no keys": (legacy(keys=()), "storages that are not those"),
    "B71 legacy view": (legacy(tree(w=tensor(view=b"K\x01"))), "to what is no storage"),
    "B71 legacy byte order": (legacy(system=[("little_endian", False)]), "another byte order"),
    "B71 legacy magic": (legacy(magic=7), "a pickle that PyTorch did not write"),
    "B74 quantised": (archive(tree(w=tensor(kind="QInt8Storage"))), "'torch.QInt8Storage'"),
    "B74 complex": (archive(tree(w=tensor(kind="ComplexFloatStorage"))), "ComplexFloatStorage'"),
    "B74 sparse": (
      archive(attack("torch._utils\n_rebuild_sparse_tensor")),
      "the global 'torch._utils._rebuild_sparse_tensor'",
    ),
    "B74 conjugate": (
      archive(tree(w=tensor(more=plain({"conj": True})))),
      "pending conjugation or negation",
    ),
    "B75 long header": (struct.pack("<Q", 1 << 40) + b"{}", "a header of 1099511627776 bytes"),
    "B75 large header": (
      struct.pack("<Q", 10**7 + 1) + b"{" + bytes(10**7),
      "a header of 10000001 bytes",
    ),
    "B75 deep": (safetensors(b'{"a":' * 10**6), "RecursionError"),
    "B75 digits": (safetensors(b'{"a":' + b"1" * 5000 + b"}"), "4300"),
    "B75 no JSON": (safetensors(b"{]"), "Expecting property name"),
    "B75 no UTF-8": (safetensors(b'{"\xff":1}'), "can't decode byte 0xff"),
    "B75 empty": (safetensors({}), "a file without tensors"),
    "B75 metadata alone": (safetensors({"__metadata__": {}}), "a file without tensors"),
    "B75 twice": (safetensors(b'{"a":1,"a":2}'), "a header that names something twice"),
    "B75 no entry": (safetensors({"a": 1}), "TypeError"),
    "B75 no dtype": (safetensors({"a": {"data_offsets": [0, 8]}}), "KeyError: 'dtype'"),
    "B75 dtype": (safetensors({"a": entry("F8_E4M3")}, bytes(8)), "'a' of dtype 'F8_E4M3'"),
    "B75 dtype of lists": (safetensors({"a": entry([])}, bytes(8)), "'a' of dtype '[]'"),
    "B75 short": (safetensors({"a": entry()}, bytes(7)), "'a' behind the end of the file"),
    "B75 longer": (safetensors({"a": entry()}, bytes(9)), "tensors up to byte"),
    "B75 shape": (safetensors({"a": entry(shape=(3,))}, bytes(8)), "'a' at bytes 0 to 8"),
    "B75 negative": (safetensors({"a": entry(shape=(-2,))}, bytes(8)), "negative shape"),
    "B75 float": (safetensors({"a": entry(shape=(2.0,))}, bytes(8)), "negative shape"),
    "B75 overflow": (safetensors({"a": entry(shape=(2**62, 16))}, bytes(8)), "'a' at bytes 0"),
    "B75 hole": (safetensors({"a": entry(begin=4, end=12)}, bytes(12)), "to 12, after 0"),
    "B75 overlap": (
      safetensors({"a": entry(), "b": entry(begin=4, end=12)}, bytes(12)),
      "'b' at bytes 4 to 12, after 8",
    ),
    "empty": (b"", "an empty file"),
    "html": (b"<!DOCTYPE html><title>404</title>", "an HTML page"),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    "gzip": (b"\x1f\x8b\x08\x00", "a gzip archive"),
    "text": (b"epoch 24", "neither a zip archive nor a pickle"),
    "no archive": (b"PK\x03\x04" + bytes(200), "does not end with its directory"),
  }
  return files


def test_hostile_checkpoints_are_refused_in_time_and_memory_and_nothing_of_them_runs(tmp_path):
  files, folder = corpus(), tmp_path / "files"
  folder.mkdir()
  for name, (content, _) in files.items():
    (folder / name).write_bytes(content)
  for name, content in {"sound zip": archive(), "sound legacy": legacy()}.items():
    (folder / name).write_bytes(content)
  argv = [sys.executable, HOSTILE, "jaxmg.pretrained.torch_files", "read", folder]
  done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60)
  assert done.returncode == 0, done.stderr
  outcomes = {name: rest for name, *rest in map(json.loads, done.stdout.splitlines())}
  # What the others are made from is read: they are refused for what is wrong with them.
  assert outcomes.pop("sound zip")[0] == outcomes.pop("sound legacy")[0] == "read: dict"
  assert outcomes.keys() == files.keys()
  for name, (outcome, seconds, grown) in outcomes.items():
    assert outcome.startswith(f"CheckpointError: {folder / name}: expected a state dict"), name
    assert files[name][1] in outcome, (name, outcome)
    assert outcome.isprintable(), name
    assert seconds < 1, (name, seconds)
    assert grown < 300 << 20, (name, grown)
  assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize("form", [*FORMS, "safetensors"])
def test_part_of_a_checkpoint_is_refused_in_one_line(form, tmp_path):
  path = tmp_path / "model"
  path.write_bytes(damageable(form))
  for length in reversed(range(0, path.stat().st_size, 3)):
    with open(path, "r+b") as file:
      file.truncate(length)
    with pytest.raises(errors.CheckpointError) as caught:
      torch_files.read(path)
    assert str(caught.value).isprintable()


def damageable(form):
  if form == "safetensors":
    return safetensors({"a": entry(shape=(2, 3), end=24), "b": entry(begin=24, end=32)}, bytes(32))
  return golden("views", form).read_bytes()


@pytest.mark.parametrize("form", [*FORMS, "safetensors"])
def test_checkpoint_with_flipped_bits_is_read_or_refused_in_one_line(form, tmp_path):
  rng = np.random.default_rng(0)
  path, content = tmp_path / "model", damageable(form)
  path.write_bytes(content)
  whole = torch_files.read(path)
  refused, one_line, equal = 0, True, True
  for _ in range(200):
    flipped = bytearray(content)
    for place in rng.integers(len(content), size=rng.integers(1, 4)):
      flipped[place] ^= 1 << rng.integers(8)
    path.write_bytes(flipped)
    try:
      found = torch_files.read(path)
    except errors.CheckpointError as error:
      refused += 1
      one_line &= str(error).isprintable()
      continue
    equal &= found.keys() == whole.keys() and all(
      found[key].tobytes() == whole[key].tobytes() for key in whole
    )
  assert refused > 20
  assert one_line
  assert equal or form != "zip"  # the other two have no checksum
