"""Won or lost, on synthetic interviews: each stream alone, their scores fused, InterFusion.

  python -m benchmarks.emotion --data=DATA --runs=RUNS --out=emotion.json

DATA holds `synthetic_emotion`, with its tracks faces and video, `synthetic_expressions`, and
`synthetic_gestures`, with its track video, of the same raw files. A seed has two encoders, trained
on the training videos: SwinFace `small` on expressions, and MViTv2 `both,small` on gestures. What
they make of twelve windows of each video, and of twelve drawn at random, are its tokens: of each
face one, and of MViTv2 the class token. The
streams alone are InterFusion that loses one of the two inputs 99 times of 100 in training. What is
done is not done again. Settings were chosen on folds of the training subjects.

The interval is of 2,000 bootstrap samples of the test subjects.
"""

import pathlib

import numpy as np

from benchmarks import fusion, timing
from experiments import extract_tokens, fuse_scores
from jaxmg.data.source import Source

WINDOWS = 12
ENCODERS = {
  "face": ["swinface:synthetic_expressions,faces,small", "schedule.epochs=8"],
  "gesture": ["mvit:synthetic_gestures,both,small", "schedule.epochs=20"],
}
TOKENS = {"face": [], "gesture": ["--class_token"]}
# Of each fusion its pool, and other settings.
FUSIONS = {
  "InterFusion, mean": ("mean", []),
  "InterFusion, attention": ("attention", []),
  "InterFusion, mean, modality dropout": ("mean", ["model.modality_dropout=0.5"]),
}
ALONE = ("mean", ["model.modality_dropout=0.99"])


def main(argv: list[str] | None = None) -> None:
  parser = timing.parser(__doc__)
  parser.add_argument("--data", type=pathlib.Path, required=True)
  parser.add_argument("--runs", type=pathlib.Path, required=True)
  parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
  parser.add_argument("--only", nargs="+", choices=FUSIONS, default=list(FUSIONS))
  parser.add_argument("--fold", help="I/N: of the training subjects, in place of the test subjects")
  parser.add_argument("--also", nargs="*", default=[], help="settings of all trainings: KEY=VALUE")
  parser.add_argument("--of_fusions", nargs="*", default=[], help="settings of fusions: KEY=VALUE")
  arguments = parser.parse_args(argv)
  source = Source(arguments.data / "synthetic_emotion")
  arguments.data = source.directory
  right: dict[str, list[np.ndarray]] = {}
  for seed in arguments.seeds:
    for name, found in of_seed(arguments, seed).items():
      right.setdefault(name, []).append(found)
      print(f"seed {seed}  {name}: {100 * found.mean():.1f}", flush=True)
  fold = arguments.fold and tuple(map(int, arguments.fold.split("/")))
  rows = source.rows("val" if fold else "test", fold=fold)
  timing.report(arguments, [*fusion.table(right, source.subjects[rows])])


def of_seed(arguments, seed: int) -> dict[str, np.ndarray]:
  """By name, which of the videos are right."""
  for name, (config, *settings) in ENCODERS.items():
    run = arguments.runs / f"{name}-{seed}"
    fusion.trained(arguments, run, config, [f"train.seed={seed}", *settings])
    views = [f"--test_clips={WINDOWS}", f"--views={WINDOWS}", *TOKENS[name]]
    options = [f"--run={run}", f"--data={arguments.data}", *views]
    fusion.command(extract_tokens, options)
  found, split = {}, "val" if arguments.fold else "test"
  run, tokens = fused(arguments, seed, "alone", ALONE)
  files = [fusion.evaluated(run, split, f"--without={lost}") for lost in reversed(tokens)]
  found |= {
    f"{name} alone": fusion.correct(file)
    for name, file in zip(("faces", "gestures"), files, strict=True)
  }
  found["either right (oracle)"] = np.maximum(found["faces alone"], found["gestures alone"])
  out = arguments.runs / f"scores-{run.name}.npz"
  fusion.command(fuse_scores, [*map(str, files), f"--out={out}"], positional="RUN")
  found["scores fused"] = fusion.correct(out)
  for name in arguments.only:
    run, tokens = fused(arguments, seed, name, FUSIONS[name])
    found[name] = fusion.correct(fusion.evaluated(run, split))
    if "dropout" in name:
      for lost, left in zip(tokens, ("gestures", "faces"), strict=True):
        file = fusion.evaluated(run, split, f"--without={lost}")
        found[f"{name}: {left} alone"] = fusion.correct(file)
    if not arguments.fold:
      for permuted in tokens:
        of = permuted.partition("-")[0]
        key = f"{name}: {of} of other videos"
        found[key] = fusion.shuffled(run, arguments.data, permuted)
  return found


def fused(arguments, seed: int, name: str, fusion_of: tuple) -> tuple[pathlib.Path, list[str]]:
  """A trained InterFusion, and the names of its inputs, those of faces first."""
  pool, settings = fusion_of
  tokens = [f"{name}-{seed}" for name in ENCODERS]
  fold = f",fold={arguments.fold}" if arguments.fold else ""
  end = f"-fold{arguments.fold.replace('/', 'of')}" if arguments.fold else ""
  run = arguments.runs / f"{name.replace(', ', '-').replace(' ', '_')}{end}-{seed}"
  settings = [f"tokens={','.join(tokens)}", f"train.seed={seed}", *settings, *arguments.of_fusions]
  fusion.trained(arguments, run, f"emotion:synthetic_emotion,{pool},small{fold}", settings)
  return run, tokens


if __name__ == "__main__":
  main()
