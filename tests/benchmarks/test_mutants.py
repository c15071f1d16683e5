"""Which changes are faults, and which tests must notice them; nothing is changed here."""

import pathlib

import pytest

from benchmarks import mutants

BEFORE = '''"""Doc, 1."""
def f(x: int | None = 1) -> int | None:
  y: "float" = 2
  raise ValueError(f"expected {x + 1}")
if __name__ == "__main__":
  f(1)
'''


@pytest.mark.parametrize(
  ("old", "new", "does"),
  [
    ("= 1", "= 2", True),
    ("= 2", "= 3", True),
    ("raise ValueError(", "print(", True),
    ("raise ", "", True),
    ("= 1", "= 1 +", False),  # no program
    ("= 1", "=  1", False),
    ("| None =", "^ None =", False),
    ("-> int | None", "-> int & None", False),
    ('"float"', "not float", False),
    ("{x + 1}", "{x - 1}", False),
    ("__name__ ==", "__name__ !=", False),
    ("  f(1)", "  f(2)", False),
  ],
)
def test_what_counts_as_a_fault(old, new, does):
  assert old in BEFORE
  assert mutants.counts(BEFORE, BEFORE.replace(old, new, 1)) is does


def test_related_are_the_tests_that_import_a_module_or_what_imports_it(tmp_path):
  for name, text in {
    "jaxmg/data/source.py": "import numpy",
    "jaxmg/recipe.py": "from jaxmg.data import source",
    "jaxmg/data/other.py": "",
    "experiments/configs/agcn.py": "",
    "benchmarks/loader.py": "from jaxmg.data.source import Source",
    "tests/data/test_source.py": "from jaxmg.data.source import Source",
    "tests/data/conftest.py": "from jaxmg.data import source",
    "tests/test_recipe.py": "from jaxmg import recipe",
    "tests/test_loader.py": "from benchmarks import loader",
    "tests/test_other.py": "import jaxmg.data.other  # configs/agcn.py",
    "tests/test_text.py": "NAMES = 'jaxmg.data.source configs/'",
  }.items():
    tmp_path.joinpath(name).parent.mkdir(parents=True, exist_ok=True)
    tmp_path.joinpath(name).write_text(text)
  tests = ["tests/data/test_source.py", "tests/test_recipe.py"]
  assert mutants.related(tmp_path, "jaxmg/data/source.py") == tests
  assert mutants.related(tmp_path, "experiments/configs/agcn.py") == ["tests/test_other.py"]


def test_each_module_that_may_be_changed_has_related_tests():
  root = pathlib.Path(mutants.ROOT)
  for path in mutants.PATHS:
    for file in sorted(root.joinpath(path).rglob("*.py")) or [root / path]:
      assert mutants.related(root, str(file.relative_to(root))), file
