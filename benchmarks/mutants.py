"""Changes the code in one place at a time, and counts how many of these faults the tests notice.

  pip install cosmic-ray     # it makes the mutants; beside what the tests need
  python -m benchmarks.mutants --folder=MUTANTS --mutants=60 --seed=0

The seed draws places, each as likely as any other, and one of the tool's changes there. Texts,
annotations and what is under `if __name__` are no places; a change that does not compile is none.
Each mutant is made in a copy of the tree, MUTANTS/tree, and tested by the files that import its
module, or what imports it: first that of its own name, then the fastest. The first failure catches
it, or that they take three times as long as without it and a minute more.

MUTANTS/results.jsonl has a line for each; the same command goes on after the last, and tries those
again that survived before the code or the tests changed. More mutants of a seed begin with the
same. One that changes nothing that anybody could see is replaced by the next of the draw, once its
name and the reason are a line of the file `--equivalent`.
"""

import argparse
import ast
import contextlib
import difflib
import functools
import hashlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
FOLDERS = ("benchmarks", "datasets", "experiments", "jaxmg", "tests")
PATHS = ("experiments", "jaxmg/predict.py", "jaxmg/data/pipeline.py", "jaxmg/data/source.py")


class Mutant(NamedTuple):
  name: str
  path: str
  code: str
  diff: str


def main(argv: Sequence[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("paths", nargs="*", default=PATHS, help="files and folders to change")
  parser.add_argument("--folder", type=pathlib.Path, required=True)
  parser.add_argument("--mutants", type=int, default=60)
  parser.add_argument("--seed", type=int, default=0)
  parser.add_argument("--equivalent", type=pathlib.Path, help="lines of a name and a reason")
  arguments = parser.parse_args(argv)
  lines = arguments.equivalent.read_text().splitlines() if arguments.equivalent else []
  equivalent = dict(line.split(maxsplit=1) for line in lines)
  trial, results, left_out = Trial(arguments.folder.absolute()), [], []
  for mutant in draw(arguments.paths, arguments.seed):
    if len(results) == arguments.mutants:
      break
    if mutant.name in equivalent:
      left_out.append(f"- {mutant.name}: {equivalent[mutant.name]}")
      continue
    results.append(one := trial.of(mutant))
    print(f"{mutant.name}: {one['by'] or 'SURVIVED'}\n{mutant.diff}", flush=True)
  print("\n| mutant | caught by | s |\n|---|---|---|")
  for one in results:
    print(f"| {one['name']} | {one['by'] or '**nothing**'} | {one['seconds']:.0f} |")
  print(f"\n{sum(one['by'] is not None for one in results)} of {len(results)} caught; equivalent:")
  print("\n".join(left_out) or "none")
  return 0


def draw(paths: Sequence[str], seed: int) -> Iterator[Mutant]:
  """A mutant for each place of these files, in the order of a seed."""
  from cosmic_ray import ast as trees
  from cosmic_ray import mutating, plugins

  kinds = {name: plugins.get_operator(name) for name in plugins.operator_names()}
  places, folders = {}, [ROOT / path for path in paths]
  for file in (x for folder in folders for x in sorted(folder.rglob("*.py")) or [folder]):
    nodes = list(trees.ast_nodes(trees.get_ast(file.read_text(encoding="utf-8"))))
    for name, kind in kinds.items():
      if not kind.arguments():  # others would have to be told names of variables
        found = (place for node in nodes for place in kind().mutation_positions(node))
        for occurrence, place in enumerate(found):
          places.setdefault((file, *place), []).append((name, occurrence))
  rng = random.Random(seed)
  for (file, start, _), changes in rng.sample(sorted(places.items()), len(places)):
    before, path = file.read_text(encoding="utf-8"), str(file.relative_to(ROOT))
    for name, occurrence in rng.sample(changes, len(changes)):
      code = mutating.mutate_code(before, kinds[name](), occurrence)
      # The tool's own exception has no name here; this one is raised as rarely.
      code = code.replace("CosmicRayTestingException", "StopAsyncIteration")
      if counts(before, code):
        lines = difflib.ndiff(before.splitlines(), code.splitlines())
        diff = "\n".join(line for line in lines if line[0] in "+-")
        digest = hashlib.sha256(diff.encode()).hexdigest()[:4]
        yield Mutant(f"{path}:{start[0]}:{name.removeprefix('core/')}:{digest}", path, code, diff)
        break


def counts(before: str, code: str) -> bool:
  """Whether a mutant is a program, and another one even without texts and annotations."""
  try:
    return ast.dump(Bare().visit(ast.parse(code))) != ast.dump(Bare().visit(ast.parse(before)))
  except SyntaxError:
    return False


class Bare(ast.NodeTransformer):
  """Leaves out of a tree what no test should have to notice."""

  def generic_visit(self, node):
    for name in {"annotation", "returns"} & {*node._fields}:
      setattr(node, name, None)
    return super().generic_visit(node)

  def visit_JoinedStr(self, node):
    return ast.Constant("")

  def visit_If(self, node):
    return None if "__name__" in ast.unparse(node.test) else self.generic_visit(node)


class Trial:
  """A copy of the tree, and what its tests have said so far."""

  def __init__(self, folder: pathlib.Path):
    self._tree, self._file = folder / "tree", folder / "results.jsonl"
    copy(self._tree)
    digest = hashlib.sha256()
    for path in sorted(modules(self._tree).values()):
      digest.update(path.read_bytes())
    self._state = digest.hexdigest()[:16]
    self._file.touch()
    lines = map(json.loads, self._file.read_text().splitlines())
    self._known = {one["name"]: one for one in lines}

  def of(self, mutant: Mutant) -> dict[str, Any]:
    """What became of a mutant: "by" is what caught it, or None."""
    known, path = self._known.get(mutant.name), self._tree / mutant.path
    if known and (known["by"] or known["state"] == self._state):
      return known
    seconds = {test: self._without(test) for test in related(self._tree, mutant.path)}
    own = f"/test_{path.stem}.py"
    tests = sorted(seconds, key=lambda test: (not test.endswith(own), seconds[test]))
    before = path.read_bytes()
    try:
      path.write_text(mutant.code, encoding="utf-8")
      return self._run(mutant.name, tests, limit=60 + 3 * sum(seconds.values()))
    finally:
      path.write_bytes(before)

  def _without(self, test: str) -> float:
    """The seconds that a test file takes without a mutant."""
    known = self._known.get(test)
    if not known or known["state"] != self._state:
      known = self._run(test, [test], limit=3600)
    if known["by"]:
      raise RuntimeError(f"without a mutant fails {known['by']}")
    return known["seconds"]

  def _run(self, name: str, tests: Sequence[str], *, limit: float) -> dict[str, Any]:
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--tb=no", *tests]
    environment = os.environ | {"PYTHONPATH": str(self._tree), "PYTHONDONTWRITEBYTECODE": "1"}
    options = {"cwd": self._tree, "env": environment, "stdout": subprocess.PIPE, "text": True}
    start, by = time.monotonic(), None
    # A group of its own: what tests have started ends with it.
    with subprocess.Popen(command, process_group=0, **options) as process:
      try:
        out, _ = process.communicate(timeout=limit)
        failed = re.search(r"^(?:FAILED|ERROR) (.+?)(?: - |$)", out, re.MULTILINE)
        if process.returncode:
          by = failed[1] if failed else f"exit code {process.returncode}"
      except subprocess.TimeoutExpired:
        by = "timeout"
      finally:
        with contextlib.suppress(ProcessLookupError):  # what a test has left running
          os.killpg(process.pid, signal.SIGKILL)
    seconds = time.monotonic() - start
    self._known[name] = {"name": name, "by": by, "seconds": seconds, "state": self._state}
    with self._file.open("a") as file:
      print(json.dumps(self._known[name]), file=file)
    return self._known[name]


def copy(tree: pathlib.Path) -> None:
  """Makes a folder a copy of the tree as it is, but for its cache of compiled programs."""
  for old in tree.glob("*"):
    if old.name != ".pytest_cache":
      shutil.rmtree(old) if old.is_dir() else old.unlink()
  command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
  names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout
  for name in filter(lambda name: ROOT.joinpath(name).is_file(), names.split("\0")):
    tree.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(ROOT / name, tree / name)


def related(tree: pathlib.Path, path: str) -> list[str]:
  """The test files of a module; of a config, which nothing imports, those that name the folder.

  A test without an import of ours is about the text of all modules.
  """
  files = modules(tree)
  (module,) = (name for name, file in files.items() if file == tree / path)
  users = {name for name, file in files.items() if module in imports(name, file)}
  users = {module} | {name for name in users if not name.startswith(("benchmarks.", "tests."))}
  text, found = "configs/" if "/configs/" in path else module, []
  for name, file in files.items():
    is_test = name.startswith("tests.") and file.name.startswith("test_")
    used = imports(name, file)
    named = used & users or text in file.read_text(encoding="utf-8")
    if is_test and named and used & files.keys():
      found.append(str(file.relative_to(tree)))
  return found


def modules(tree: pathlib.Path) -> dict[str, pathlib.Path]:
  """All files of code, by their names when they are imported."""
  paths = (path for folder in FOLDERS for path in sorted(tree.joinpath(folder).rglob("*.py")))
  names = {path: path.relative_to(tree).with_suffix("").parts for path in paths}
  return {".".join(parts).removesuffix(".__init__"): path for path, parts in names.items()}


@functools.cache
def imports(name: str, path: pathlib.Path) -> set[str]:
  """All that the file of a module imports, among it whatever is a module."""
  found, place = set(), [*name.split("."), *(["__init__"] if path.stem == "__init__" else [])]
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.Import | ast.ImportFrom):
      from_where = isinstance(node, ast.ImportFrom)
      base = place[: -node.level] if from_where and node.level else []
      base = [".".join([*base, *filter(None, [node.module])])] if from_where else []
      found.update(base, (".".join([*base, alias.name]) for alias in node.names))
  return found


if __name__ == "__main__":
  sys.exit(main())
