"""Writes a run as one program that needs jax alone: recordings in, probabilities out.

  jaxmg export --run=RUN --frames=48 --out=FILE

FILE is StableHLO with the weights in it, for a batch of any size, and FILE.json says what goes in
and what comes out: shapes, units, names of joints and of classes. Elsewhere, without jaxmg:

  import jax
  program = jax.export.deserialize(open(FILE, "rb").read())  # needs flatbuffers, too
  probabilities = program.call(keypoints, frame_size)

It gives what `predict` gives for a recording of just so many frames, which is what it takes
(without --frames: as many as the network sees). Of a run that sees videos

  --frame_size=HxW     of the frames; else that of the run's data
  --fps=25             where frames are sampled by seconds; else all frames last as long as what the
                       network sees
"""

import json
import pathlib

import flatbuffers  # noqa: F401 (jax.export needs it)
import jax
from absl import flags

import jaxmg
from jaxmg import encoders, errors, export, files
from jaxmg import recipe as recipes
from jaxmg.data import readers

from . import launch


def define(values: flags.FlagValues) -> None:
  options = {"flag_values": values}
  flags.DEFINE_string(
    "run", None, "The work directory of a training run.", required=True, **options
  )
  flags.DEFINE_string("out", None, "The file to write.", required=True, **options)
  flags.DEFINE_integer("frames", None, "Of a recording.", lower_bound=1, **options)
  flags.DEFINE_string("frame_size", None, "HEIGHTxWIDTH of a video's frames.", **options)
  flags.DEFINE_float("fps", None, "Frames a second of a video.", **options)
  flags.DEFINE_string("step", "best", "best, latest or a number.", **options)
  platforms = ", ".join(export.PLATFORMS)
  flags.DEFINE_list("platforms", [*export.PLATFORMS], f"Of {platforms}.", **options)


def run(values: flags.FlagValues) -> None:
  if not values.platforms or {*values.platforms} - {*export.PLATFORMS}:
    expected, got = f"some of {', '.join(export.PLATFORMS)}", ",".join(values.platforms)
    raise errors.ConfigError("--platforms", expected=expected, got=got)
  out = pathlib.Path(values.out)
  beside = out.with_name(f"{out.name}.json")
  if not out.name or not out.parent.is_dir() or out.is_dir() or beside.is_dir():
    expected = "a file, in a folder that is there"
    raise errors.ConfigError("--out", expected=expected, got=values.out or "no name")
  if (out.parent / recipes.FILE).exists():
    raise errors.ConfigError("--out", expected="a file outside of runs", got=values.out)
  size = values.frame_size and readers.frame_size(values.frame_size)
  options = {"num_frames": values.frames, "frame_size": size, "fps": values.fps}
  recipe, variables = encoders.load(values.run, step=values.step)
  wholes = export.recordings(recipe, **options)
  content = export.exported(recipe, variables, platforms=values.platforms, **options).serialize()
  about = {
    "jax": jax.__version__,
    "jaxmg": jaxmg.__version__,
    "platforms": values.platforms,
    "frames_per_second": values.fps,
    **export.describe(recipe, wholes),
  }
  with files.replace(beside) as part:
    part.write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
  with files.replace(out) as part:
    part.write_bytes(content)
  print(f"{out}: {len(content) / 1e6:.1f} MB, for {', '.join(values.platforms)}; {beside.name}:")
  for name, one in wholes.items():
    for key, array in one.arrays.items():
      shape = ", ".join(map(str, ("b", *array.shape)))
      print(f"  {name}: {key} {array.dtype.name}[{shape}]")
  print(f"  probabilities float32[b, {len(recipe.class_names)}]")


if __name__ == "__main__":
  launch.command(run, define)
