"""Pickles from outside (B28 to B39 of the project's list of bad inputs)."""

import collections
import gzip
import json
import os
import pathlib
import pickle
import struct
import subprocess
import sys

import numpy as np
import pytest

from jaxmg import errors, pickles

HOSTILE = pathlib.Path(__file__).parent / "hostile.py"


def annotations():
  rng = np.random.default_rng(0)
  clips = []
  for i in range(3):
    clips.append(
      {
        "frame_dir": f"clip {i} 手",
        "total_frames": 4 + i,
        "img_shape": (1080, 1920),
        "label": i,
        "keypoint": rng.random((2, 4 + i, 17, 2)).astype(np.float16),
        "keypoint_score": rng.random((2, 4 + i, 17)).astype(np.float32),
      }
    )
  return {"split": {"xsub_train": ["clip 0 手"], "xsub_val": []}, "annotations": clips}


def load(content, folder):
  path = folder / "annotations.pkl"
  path.write_bytes(content)
  return pickles.load(path)


def assert_same(found, expected):
  assert type(found) is type(expected)
  if isinstance(expected, dict):
    assert list(found) == list(expected)
    for key in expected:
      assert_same(found[key], expected[key])
  elif isinstance(expected, list | tuple):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
      assert_same(a, b)
  elif isinstance(expected, np.ndarray):
    assert found.dtype.name == expected.dtype.name  # numpy turns bytes into its own order
    np.testing.assert_array_equal(found, expected)
  else:
    assert found == expected


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("core", [b"numpy.core", b"numpy._core"], ids=["numpy1", "numpy2"])
def test_annotations_are_read_in_every_protocol_and_by_the_names_of_both_numpys(
  protocol, core, tmp_path
):
  content = pickle.dumps(annotations(), protocol)
  if protocol < 4:  # names of later protocols are counted
    content = content.replace(b"numpy._core", core)
  assert_same(load(content, tmp_path), annotations())


@pytest.mark.parametrize("protocol", [2, 4, 5])
@pytest.mark.parametrize(
  "array",
  [
    np.arange(24.0).reshape(2, 3, 4)[:, ::2].T,
    np.asfortranarray(np.arange(6, dtype=np.int16).reshape(2, 3)),
    np.arange(3, dtype=">f4"),
    np.zeros((0, 5), np.float32),
    np.array(3, np.uint8),
    np.array([True, False]),
    np.array(["ab", "手"]),
    np.array([b"ab", b"c"]),
  ],
  ids=lambda array: f"{array.dtype}{array.shape}",
)
def test_arrays_of_every_layout_and_kind_are_read(array, protocol, tmp_path):
  found = load(pickle.dumps([array, array], protocol), tmp_path)
  assert_same(found, [array, array])


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_plain_values_are_read(protocol, tmp_path):
  values = [None, True, -1, 1 << 80, 0.5, "手", b"\xff\x00", b"", (1,), {1, 2}, frozenset({3})]
  values += [np.float32(0.5), np.int64(3), np.bool_(True), {np.int64(1): "a"}, [[], {}, ()]]
  assert_same(load(pickle.dumps(values, protocol), tmp_path), values)
  ordered = collections.OrderedDict(b=1, a=2)
  assert_same(load(pickle.dumps(ordered, protocol), tmp_path), {"b": 1, "a": 2})


# By Python 2.7.18's cPickle, with numpy's array taken apart as numpy does it.
PYTHON_2 = [
  b"(lp1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntp4\nS'b'\ntRp5\n("
  b"I1\n(I3\ntp6\ncnumpy\ndtype\np7\n(S'f4'\np8\nI0\nI1\ntRp9\n(I3\nS'<'\nNNNI-1\nI-1\nI0\ntp10\nb"
  rb"I00"
  b"\n"
  rb"S'\x00\x00\xc0?\x00\x00\x00\xc0\xc3\xf5H@'"
  b"\n"
  rb"tp11"
  b"\n"
  rb"baV\u624b"
  b"\n"
  rb"aS"
  rb'"'
  rb"caf\xe9 'x'\\"
  rb'"'
  b"\np12\naL1180591620717411303424L\nac__builtin__\n"
  b"set\np13\n((lp14\nI7\natRp15\naccollections\nOrderedDict\np16\n((lp17\n(lp18\nS'a'\naI1\naatRp19"
  b"\na.",
  b"\x80\x02]q\x01(cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\nq\x03K\x00\x85q\x04U"
  b"\x01b\x87Rq\x05(K\x01K\x03\x85q\x06cnumpy\ndtype\nq\x07U\x02f4q\x08K\x00K\x01\x87Rq\t(K\x03U\x01"
  b"<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\nb\x89U\x0c\x00\x00\xc0?\x00\x00\x00\xc0\xc3\xf5H@"
  b"tq\x0bbX\x03\x00\x00\x00\xe6\x89\x8bU\tcaf\xe9 'x'\\q\x0c\x8a\t\x00\x00\x00\x00\x00\x00\x00"
  b"\x00@c__builtin__\nset\nq\r]q\x0eK\x07a\x85Rq\x0fccollections\nOrderedDict\nq\x10]q\x11]q\x12(U\x01a"
  b"K\x01ea\x85Rq\x13e.",
]


@pytest.mark.parametrize("content", PYTHON_2, ids=["protocol 0", "protocol 2"])
def test_pickles_of_python_2_are_read(content, tmp_path):
  expected = [np.float32([1.5, -2, 3.14]), "手", "café 'x'\\", 1 << 70, {7}, {"a": 1}]
  assert_same(load(content, tmp_path), expected)


# --- what attacks


def attack(module="os", name="system", *arguments):
  """The opcodes of a call of a global."""
  return f"c{module}\n{name}\n".encode() + plain(arguments or ("touch canary",)) + b"R"


def plain(value):
  """The opcodes of a value."""
  return pickle.dumps(value, 2)[2:-1]


def pickled(*opcodes):
  return b"\x80\x04" + b"".join(opcodes) + b"."


class Payload:
  def __reduce__(self):
    return os.system, ("touch canary",)


def dtype(code, state=(3, "<", None, None, None, -1, -1, 0)):
  return b"cnumpy\ndtype\n" + plain((code, False, True)) + b"R" + plain(state) + b"b"


def array(shape, code="f4", raw=b"", start=(0,)):
  begin = b"cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\n" + plain(start) + plain(b"b")
  state = b"(K\x01" + plain(shape) + dtype(code) + b"\x89" + plain(raw) + b"t"
  return begin + b"tR" + state + b"b"


def flat(raw, code, shape):
  begin = b"cnumpy._core.numeric\n_frombuffer\n(B" + struct.pack("<I", len(raw)) + raw
  return begin + dtype(code) + plain(shape) + plain("C") + b"tR"


def short(text):
  return b"\x8c" + bytes([len(text.encode())]) + text.encode()


GLOBALS = [
  ("builtins", "eval"),
  ("builtins", "getattr"),
  ("builtins", "__import__"),
  ("__builtin__", "apply"),
  ("posix", "system"),
  ("nt", "system"),
  ("subprocess", "Popen"),
  ("numpy.f2py.crackfortran", "getlincoef"),
  ("numpy", "load"),
  ("numpy", "__builtins__"),
  ("numpy", "core.multiarray.os.system"),
  ("numpy.core.multiarray", "_reconstruct.__globals__"),
  ("numpy.core.multiarray ", "_reconstruct"),
  ("numpy.core", "multiarray _reconstruct"),
  ("numpy.testing._private.utils", "runstring"),
  ("operator", "attrgetter"),
  ("functools", "partial"),
  ("importlib", "import_module"),
  ("pkgutil", "resolve_name"),
  ("copyreg", "_reconstructor"),
  ("copyreg", "__newobj__"),
  ("collections", "namedtuple"),
  ("torch.storage", "_load_from_bytes"),
  ("a\u2028b", "system\x1b[2J"),
]
LAUGHS = b"]" + b"".join(
  b"q%c]" % level + (b"h%c" % level).join([b"("] + [b""] * 10) + b"e" for level in range(1, 41)
)


def corpus():
  """Name -> (file, what its refusal says)."""
  files = {}
  for protocol in range(6):
    files[f"B28 protocol {protocol}"] = pickle.dumps(Payload(), protocol), "'posix.system'"
  files |= {
    "B29 in a value": (pickle.dumps({"annotations": [{"x": (Payload(),)}]}), "'posix.system'"),
    "B29 in an array": (pickle.dumps(np.array([Payload()], object)), "an array of objects ('O8')"),
    "B29 in frame_dir": (pickle.dumps([{"frame_dir": Payload()}]), "'posix.system'"),
  }
  for i, (module, name) in enumerate(GLOBALS):
    shown = repr(f"{module}.{name}".replace(" ", "."))
    call = short(module) + short(name) + b"\x93" + plain(("touch canary",)) + b"R"
    files[f"B30 {i} by the stack"] = pickled(call), shown
    if module.isascii():
      files[f"B30 {i} by its name"] = pickled(attack(module, name)), shown
  files |= {
    "B31 behind a pickle": (pickle.dumps([1]) + pickled(attack()), "more bytes after it"),
    "B32 EXT1": (pickled(b"\x82\x01"), "the opcode EXT1"),
    "B32 EXT2": (pickled(b"\x83\x01\x00"), "the opcode EXT2"),
    "B32 EXT4": (pickled(b"\x84\x01\x00\x00\x00"), "the opcode EXT4"),
    "B32 PERSID": (pickled(b"Pid\n"), "the opcode PERSID"),
    "B32 BINPERSID": (pickled(b"K\x01Q"), "BINPERSID"),
    "B32 NEXT_BUFFER": (pickled(b"\x97"), "the opcode NEXT_BUFFER"),
    "B32 READONLY_BUFFER": (pickled(b"]\x98"), "the opcode READONLY_BUFFER"),
    "B32 INST": (pickled(b"(ios\nsystem\n"), "the opcode INST"),
    "B32 OBJ": (pickled(b"(ccollections\nOrderedDict\no"), "the opcode OBJ"),
    "B32 NEWOBJ": (pickled(b"ccollections\nOrderedDict\n)\x81"), "a call (NEWOBJ)"),
    "B32 NEWOBJ_EX": (pickled(b"ccollections\nOrderedDict\n)}\x92"), "the opcode NEWOBJ_EX"),
    "B32 BUILD on a list": (pickled(b"]}b"), "BUILD on list"),
    "B32 BUILD on a dict": (pickled(b"}}b"), "BUILD on dict"),
    "B32 BUILD on a function": (pickled(b"c_codecs\nencode\n}b"), "BUILD on Call"),
    "B32 BUILD on a class": (pickled(b"cnumpy\nndarray\n}b"), "BUILD on object"),
    "B32 items of an array": (pickled(array((0,)), b"K\x00K\x01s"), "SETITEM on ndarray"),
    "B32 call of a text": (pickled(b"X\x01\x00\x00\x00a)R"), "a call (REDUCE)"),
    "B32 call of a class": (pickled(b"cnumpy\nndarray\n)R"), "a call (REDUCE)"),
    "B32 bare function": (pickled(b"c_codecs\nencode\n"), "a bare call"),
    "B32 bare dtype": (pickled(dtype("f4")), "a bare dtype"),
    "B33 long": (b"\x80\x02Nr\xff\xff\xff\x0f.", "memo index 268435455 in a file of 9 bytes"),
    "B33 text": (b"Np99999999999\n.", "memo index 99999999999"),
    "B33 negative": (b"Np-1\n.", "memo index -1"),
    "B34 256 GiB": (pickled(array((0,), start=(2**38,))), "does not begin empty"),
    "B34 2 GiB": (pickled(array((0,), start=(2**31,))), "does not begin empty"),
    "B34 state": (pickled(array((2**31,), "f8")), "an array float64[2147483648] of 0 bytes"),
    "B34 overflow": (pickled(array((2**33, 2**33), "f8")), " of 0 bytes"),
    "B34 negative": (pickled(array((-1, -1), "b1", b"a")), "a shape that is none"),
    "B34 axes": (pickled(array((1,) * 10**5, "b1", b"a")), "a shape that is none"),
    "B34 bytes": (pickled(array((3,), "f4", b"12345678")), "float32[3] of 8 bytes"),
    "B34 text": (pickled(array((1,), "U1", b"\xff\xff\xff\xff")), "text that is none"),
    "B34 void": (pickled(array((1,), "V8", b"12345678")), "an array of records"),
    "B34 complex": (pickled(array((1,), "c8", b"12345678")), "an array of complex numbers"),
    "B34 wide": (pickled(array((1,), "U999999", b"a")), " of 1 bytes"),
    "B34 fields": (
      pickled(dtype("f4", (3, "<", None, ("a",), {"a": 1}, 8, 1, 0))),
      "an array of records",
    ),
    "B34 zeros": (pickled(flat(b"", "f4", (0, 2**62))), ""),
    "B34 text of no width": (pickled(flat(b"", "U0", (2**40,))), "an array of other things ('U0')"),
    "B34 bytes of no width": (pickled(array((2**40,), "S0")), "an array of other things ('S0')"),
    "B35 laughs": (pickled(b"(" + LAUGHS + b"t"), "more values than its bytes can hold"),
    "B35 sets of one list": (
      pickled(
        plain(list(range(20000))), b"q\x01", b"(", b"cbuiltins\nset\nh\x01\x85R" * 5000, b"t"
      ),
      "values larger than the file",
    ),
    "B35 bytes of one text": (
      pickled(plain("a" * 10**5), b"q\x01(", b"c_codecs\nencode\nh\x01\x8c\x06latin1\x86R" * 9000),
      "values larger than the file",
    ),
    "B35 pairs of one text": (
      pickled(
        plain("a" * 10**5), b"q\x01(", b"ccollections\nOrderedDict\n](", b"h\x01" * 5000, b"e\x85R"
      ),
      "an OrderedDict of what are no pairs",
    ),
    "B35 sets of one array": (
      pickled(
        flat(bytes(10**5), "u1", (10**5,)), b"q\x01(", b"cbuiltins\nset\nh\x01\x85R" * 5000, b"t"
      ),
      "a set of what is no list but ndarray",
    ),
    "B35 states of one tuple": (
      pickled(
        dtype("f4"), b"q\x01(", plain(3) + plain("<") + b"N" * 10**5, b"tq\x020", b"h\x02b" * 9000
      ),
      "values larger than the file",
    ),
    "B35 itself": (pickled(b"]q\x01h\x01a"), "nested more than 100 deep"),
    "B35 one hash": (
      pickled(b"}(", *(plain(i * (2**61 - 1)) + b"N" for i in range(1, 20000)), b"u"),
      "a key beyond 60 bits",
    ),
    "B36 lists": (pickled(b"]" * 200000, b"a" * 199999), "nested more than 100 deep"),
    "B36 tuples": (pickled(b")", b"\x85" * 200000), "nested more than 100 deep"),
    "B36 key": (pickled(b"})", b"\x85" * 200000, b"Ns"), "a key of type tuple"),
    "B37 bytes": (pickled(b"\x8e" + struct.pack("<Q", 2**40)), "only 1 remain"),
    "B37 bytearray": (pickled(b"\x96" + struct.pack("<Q", 2**40)), "only 1 remain"),
    "B37 text": (pickled(b"\x8d" + struct.pack("<Q", 2**62)), "only 1 remain"),
    "B37 number": (pickled(b"\x8b\xff\xff\xff\x7f"), "not enough data"),
    "B37 digits": (b"I" + b"1" * 10**5 + b"\n.", "4300"),
    "B37 empty": (b"", "an empty file"),
    "B37 end": (b"\x80\x04]", "the end of the file in a pickle"),
    "B38 gzip": (gzip.compress(pickle.dumps([1])), "a gzip archive"),
    "B38 zip": (b"PK\x03\x04" + bytes(60), "a zip archive"),
    "B38 html": (b"\n<!DOCTYPE html>\n<html>", "an HTML page"),
    "B38 lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a", "git lfs pull"),
    "B38 npy": (b"\x93NUMPY\x01\x00", "an .npy file"),
    "B38 text": (b"frame_dir,label\n", ""),
    "quotes": (b"S'a\n.", "a text without quotes"),
    "no quotes": (b"S\n.", "a text without quotes"),
    "stack": (pickled(b"a"), ""),
    "marks": (pickled(b"(N"), "1 values and 1 marks"),
    "nothing": (b".", "0 values"),
    "unknown": (pickled(b"\xff"), "the opcode 'ÿ'"),
    "memo": (pickled(b"h\x07"), "KeyError: 7"),
  }
  return files


def test_hostile_pickles_are_refused_in_time_and_memory_and_nothing_of_them_runs(tmp_path):
  files, folder = corpus(), tmp_path / "files"
  folder.mkdir()
  for name, (content, _) in files.items():
    (folder / name).write_bytes(content)
  argv = [sys.executable, HOSTILE, "jaxmg.pickles", "load", folder]
  done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, timeout=60)
  assert done.returncode == 0, done.stderr
  outcomes = [json.loads(line) for line in done.stdout.splitlines()]
  assert {name for name, *_ in outcomes} == files.keys()
  for name, outcome, seconds, grown in outcomes:
    assert outcome.startswith(f"DataError: {folder / name}: expected a pickle"), (name, outcome)
    assert files[name][1] in outcome, (name, outcome)
    assert outcome.isprintable(), name
    assert seconds < 1, (name, seconds)
    assert grown < 300 << 20, (name, grown)
  assert not (tmp_path / "canary").exists()
  # The canary does sing where a pickle is loaded as Python does.
  code = f"import pickle; pickle.load(open({str(folder / 'B28 protocol 2')!r}, 'rb'))"
  subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)
  assert (tmp_path / "canary").exists()


def small(protocol):
  clip = annotations()["annotations"][0]
  clip["keypoint"] = clip["keypoint"][:1, :2, :3]
  del clip["keypoint_score"]
  return pickle.dumps({"annotations": [clip]}, protocol)


def test_part_of_a_pickle_is_refused_in_one_line(tmp_path):
  path = tmp_path / "annotations.pkl"
  path.write_bytes(small(4))
  for length in reversed(range(len(small(4)))):
    os.truncate(path, length)
    with pytest.raises(errors.DataError) as caught:
      pickles.load(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("protocol", [2, 5])
def test_pickle_with_flipped_bits_is_read_or_refused_in_one_line(protocol, tmp_path):
  rng = np.random.default_rng(0)
  refused, one_line = 0, True
  for _ in range(200):
    flipped = bytearray(small(protocol))
    for place in rng.integers(len(flipped), size=rng.integers(1, 4)):
      flipped[place] ^= 1 << rng.integers(8)
    try:
      load(flipped, tmp_path)
    except errors.DataError as error:
      refused += 1
      one_line &= str(error).isprintable()
  assert refused > 50
  assert one_line


def test_missing_file_and_folder_are_named(tmp_path):
  with pytest.raises(errors.DataError, match=r"none\.pkl: expected a pickle, got no such file"):
    pickles.load(tmp_path / "none.pkl")
  with pytest.raises(errors.DataError, match="got a folder"):
    pickles.load(tmp_path)
