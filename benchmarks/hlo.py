"""What a compiled program moves through memory, counted in its text.

On a GPU a network like ours is as fast as its memory, and this figure needs no GPU and has no
noise: every instruction of the compiled program reads its operands and writes its results, a fusion
as a whole, and a loop as often as it runs.
"""

import math
import re
from typing import NamedTuple

_SIZES = {"pred": 1, "bf16": 2, "f16": 2, "c64": 8, "c128": 16, "token": 0, "opaque": 0}
_ARRAY = re.compile(r"\b([a-z]\w*)\[([\d,]*)\]")
_ATTRIBUTES = {  # of instructions that run computations, one after the other or one of several
  "call": r"to_apply=%?([\w.-]+)",
  "async-start": r"calls=%?([\w.-]+)",
  "while": r"(?:body|condition)=%?([\w.-]+)",
  "conditional": r"(?:(?:true|false)_computation=|branch_computations=\{|, |\{)%([\w.-]+)",
}
# No work at run time: names of what is already there.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"}


class Traffic(NamedTuple):
  """What one run of a program moves, and with how many instructions that are no mere names."""

  bytes: int
  kernels: int

  def __mul__(self, times: int) -> "Traffic":
    return Traffic(self.bytes * times, self.kernels * times)


class Instruction(NamedTuple):
  name: str
  shape: str
  operation: str
  operands: list[str]
  text: str  # of the operands: the value of a constant
  attributes: str


def traffic(text: str) -> Traffic:
  """Counts an optimised HLO module, as `jax.stages.Compiled.as_text` gives it.

  Of a conditional's branches the one that moves most counts. Raises ValueError for a loop whose
  number of turns the compiler does not know, and for text that is no such module.
  """
  computations, entry = _parse(text)
  return _of(computations, entry)


def _of(computations, name):
  instructions = computations[name]
  sizes = {instruction.name: _size(instruction.shape) for instruction in instructions}
  total, kernels = 0, 0
  for instruction in instructions:
    operation = instruction.operation
    if operation in _FREE or operation.endswith("-done"):
      continue
    if operation in _ATTRIBUTES:
      names = re.findall(_ATTRIBUTES[operation], instruction.attributes)
      inner = [_of(computations, name) for name in names]
      if operation == "conditional":
        inner = [max(inner)]
      times = _trips(instruction, computations) if operation == "while" else 1
      total += times * sum(found.bytes for found in inner)
      kernels += times * sum(found.kernels for found in inner)
      continue
    read = sum(sizes[operand] for operand in set(instruction.operands))
    if operation == "custom-call" and instruction.shape.startswith("("):
      # A library's scratch memory is a result that nobody takes, and of which nobody knows the use.
      sizes[instruction.name] = sum(
        sizes[other.name]
        for other in instructions
        if other.operation == "get-tuple-element" and instruction.name in other.operands
      )
    # What starts a copy or a sum over devices gives its operands back beside its results.
    written = read if operation.endswith("-start") else sizes[instruction.name]
    total += read + written
    kernels += 1
  return Traffic(total, kernels)


def _trips(instruction, computations):
  if found := re.search(r'"known_trip_count":\{"n":"(\d+)"\}', instruction.attributes):
    return int(found[1])
  # A TPU's compiler does not say. The loops of lax.scan and lax.map count from 0 to a constant.
  condition = computations[re.search(r"condition=%?([\w.-]+)", instruction.attributes)[1]]
  ends = {x.name: x.text for x in condition if x.operation == "constant"}
  *_, last = condition
  if last.operation == "compare" and "direction=LT" in last.attributes and len(ends) == 1:
    (name, text), (_, bound) = *ends.items(), last.operands
    if name == bound and text.isdecimal():
      return int(text)
  raise ValueError(f"{instruction.name}: how often this loop runs is not known")


def _size(shape):
  total = 0
  for dtype, dimensions in _ARRAY.findall(shape):
    size = _SIZES.get(dtype)
    if size is None:
      size = int(re.match(r"(?:f|s|u)(\d+)", dtype)[1]) / 8
    total += size * math.prod(map(int, filter(None, dimensions.split(","))))
  return math.ceil(total)


def _parse(text):
  """The instructions of each computation, and which of them begins."""
  computations, entry, current = {}, None, None
  for line in text.splitlines():
    if header := re.match(r"(ENTRY )?%?([\w.-]+) \(.*\{$", line):
      current = computations[header[2]] = []
      entry = header[2] if header[1] else entry
    elif line.startswith("}"):
      current = None
    elif current is not None and " = " in line:
      current.append(_instruction(line))
  if entry is None:
    raise ValueError("no compiled HLO module: it has no ENTRY")
  return computations, entry


def _instruction(line):
  left, right = re.sub(r"/\*.*?\*/", "", line).split(" = ", 1)
  shape = right[: _closing(right)] if right.startswith("(") else right.split(" ", 1)[0]
  right = right[len(shape) + 1 :]
  operation, rest = right.split("(", 1)
  end = _closing("(" + rest) - 1
  text = rest[: end - 1]
  operands = re.findall(r"%([\w.-]+)", text)
  name = left.removeprefix("  ").removeprefix("ROOT ").removeprefix("%")
  return Instruction(name, shape, operation, operands, text, rest[end:])


def _closing(text):
  """Where the parenthesis that `text` begins with ends."""
  depth = 0
  for i, character in enumerate(text):
    depth += (character == "(") - (character == ")")
    if depth == 0:
      return i + 1
  raise ValueError(f"a parenthesis is left open: {text[:80]}")
