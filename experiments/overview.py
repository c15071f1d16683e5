"""What there is to work with: models, configs, layouts, and what lies in ./data and ./runs.

It is read from small files; no network is made, and no extra of `pip install` is needed.
"""

import ast
import json
import pathlib
import re
from collections.abc import Callable, Iterator

from jaxmg import skeletons
from jaxmg.training import metrics

CLASSES = 32  # of the networks whose parameters are counted
# The parameters of each variant with so many classes: of one person of 22 joints, of 16 pictures of
# 224 x 224, of 8 faces, and of a fusion of two encoders whose tokens are 256 wide.
PARAMETERS = {
  "agcn": {"agcn": 3_457_916, "small": 569_404, "tiny": 12_832},
  "fusion": {"base": 1_725_216, "small": 137_184, "tiny": 7_320},
  "interfusion": {"base": 539_936, "small": 62_048, "tiny": 5_992},
  "mvit": {"mvitv2-s": 34_254_752, "small": 486_240, "tiny": 40_176},
  "posec3d": {
    "slowonly-r50": 2_018_336,
    "slowonly-r50-346": 3_027_616,
    "small": 196_576,
    "small-strided": 414_816,
    "tiny": 7_632,
  },
  "swinface": {"swin-t": 28_517_914, "tiny": 26_769},
}
CONFIGS = pathlib.Path(__file__).with_name("configs")
MOST = 30  # runs that are listed


def lines() -> Iterator[str]:
  """The lines of the listing, each section after an empty one."""
  yield from _section(f"models, their variants and the parameters of these with {CLASSES} classes")
  for model, variants in PARAMETERS.items():
    yield _line(model, ", ".join(f"{name} {count:,}" for name, count in variants.items()))
  yield from _section(
    "configs, as in jaxmg train NAME:ARGUMENT; ablations, as in jaxmg ablate NAME:ARGUMENT"
  )
  for name, argument in configs().items():
    yield _line(name, argument)
  yield from _section("layouts of skeletons, and their joints")
  for name, skeleton in skeletons.SKELETONS.items():
    yield _line(name, str(skeleton.num_joints))
  yield from _section("prepared sets in ./data")
  yield from _found("*/*/index.json", pathlib.Path("data"), _set) or [_line("none")]
  yield from _section("runs in ./runs")
  folder = pathlib.Path("runs")
  yield from (
    _found("*/recipe.json", folder, _run) + _found("*/*/recipe.json", folder, _run)
    or [_line("none")]
  )


def configs() -> dict[str, str]:
  """The configs that are shipped, by name, and the argument that each takes."""
  found = {}
  for path in sorted(CONFIGS.rglob("*.py")):
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    name = path.relative_to(CONFIGS).with_suffix("").as_posix()
    if argument := re.search(rf"jaxmg \w+ {name}:(\S+)", text):
      found[name] = argument[1]
  return found


def _section(title: str) -> tuple[str, str]:
  return "", f"{title}:"


def _line(name: str, text: str = "") -> str:
  return f"  {name:<24}{'  ' * (len(name) > 23)}{text}".rstrip()


def _found(pattern: str, folder: pathlib.Path, tell: Callable[[pathlib.Path], str]) -> list[str]:
  """A line for each file of the pattern, by the folder that it is in."""
  paths, said = sorted(folder.glob(pattern)), []
  for path in paths[:MOST]:
    try:
      text = tell(path)
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
      text = "cannot be read: jaxmg doctor" if tell is _set else "cannot be read"
    said.append(_line(path.parent.relative_to(folder).as_posix(), text))
  return said + [_line(f"... and {len(paths) - MOST} more")] * (len(paths) > MOST)


def _set(path: pathlib.Path) -> str:
  index = _read(path)
  kinds = sorted(one.parent.name for one in path.parent.glob("*/track.json"))
  kinds = [name for name in kinds if not name.endswith(".part")] or ["pose"]
  clips, classes = len(index["clips"]["id"]), len(index["class_names"])
  synthetic = "synthetic, " * bool(index["synthetic"])
  return f"{synthetic}{clips:,} clips, {classes} classes; {', '.join(kinds)}"


def _run(path: pathlib.Path) -> str:
  recipe = _read(path)
  data = (recipe["data"] or {}).get("name", "no set of ours")
  saved = [int(one.name) for one in path.parent.glob("checkpoints/*") if one.name.isdecimal()]
  parts = [f"{recipe['model']['name']} on {data}"]
  parts.append(f"step {max(saved):,}" if saved else "no checkpoint")
  tested = path.parent / "test" / "metrics.json"
  if tested.is_file():
    figures = _read(tested)
    titles = metrics.TITLES_OF_TWO if "auc" in figures else metrics.TITLES
    names = [name for name in ("top1", "mean_class", "auc") if name in figures]
    when = "" if saved and figures.get("step") == max(saved) else f" at step {figures.get('step')}"
    parts.append(
      f"test{when}: " + ", ".join(f"{titles[name]} {figures[name]:.1%}" for name in names)
    )
  return "; ".join(parts)


def _read(path: pathlib.Path) -> dict:
  return json.loads(path.read_text(encoding="utf-8"))
