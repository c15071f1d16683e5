"""Fusion on UTD-MHAD, cross-subject: each encoder alone, their scores fused, their tokens fused.

  python -m benchmarks.fusion --data=DATA/utd_mhad --runs=RUNS --out=fusion.json
  python -m benchmarks.fusion --data=... --runs=... --out=3d.json --pose=joint3d --folds=0

Two encoders a seed, MViTv2 `both,small` on depth and 2s-AGCN `,small` on a stream of the skeletons
(POSES), and those of four folds of the training subjects, are trained in RUNS (`depth-0`,
`joint-0`, ...) if they are not there. Then their tokens are added to the set, the fusions are
trained, and all is evaluated on the test subjects; what is done is not done again. Use a copy of
the set: it gets twelve tracks. With --folds=0 nothing is out of fold: tokens are as trained, and
scores are fused with equal weights.

What is compared, clip by clip, is the mean over the seeds of what is right; the interval is of
2,000 bootstrap samples of the test subjects, of whom there are four: it is coarse.
"""

import functools
import pathlib

import jax
import numpy as np

from benchmarks import timing
from experiments import evaluate, extract_tokens, fuse_scores, launch, train
from jaxmg import recipe as recipes
from jaxmg import scores
from jaxmg.data import pipeline
from jaxmg.data.source import Source
from jaxmg.training import checkpoints, sharding, step

DEPTH = ["mvit:utd_mhad,both,small"]
KEYPOINTS = ["sampling.points=keypoints", "augment.tilt=0.0", "augment.rotation=10.0"]  # in 2-D
POSES = {
  "joint": ["agcn:utd_mhad,joint,small", *KEYPOINTS],
  "bone_motion": ["agcn:utd_mhad,bone_motion,small", *KEYPOINTS],
  "joint3d": ["agcn:utd_mhad,joint,small"],
}
# Of each fusion its config, whether its tokens are out of fold, and other settings.
FUSIONS = {
  "CMTF joint": ("joint", True, []),
  "CMTF cross": ("cross", True, []),
  "CMTF joint, tokens as trained": ("joint", False, []),
  "CMTF cross, tokens as trained": ("cross", False, []),
  "CMTF joint, modality dropout": ("joint", True, ["model.modality_dropout=0.5"]),
  "CMTF joint, tokens as trained, modality dropout": (
    "joint",
    False,
    ["model.modality_dropout=0.5"],
  ),
}


def main(argv: list[str] | None = None) -> None:
  parser = timing.parser(__doc__)
  parser.add_argument("--data", type=pathlib.Path, required=True)
  parser.add_argument("--runs", type=pathlib.Path, required=True)
  parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
  parser.add_argument("--views", type=int, default=8)
  parser.add_argument("--pose", choices=POSES, default="joint")
  parser.add_argument("--folds", type=int, default=4, help="of the training subjects; 0: none")
  parser.add_argument("--only", nargs="+", choices=FUSIONS, default=list(FUSIONS))
  parser.add_argument("--also", nargs="*", default=[], help="settings of all trainings: KEY=VALUE")
  arguments = parser.parse_args(argv)
  if not arguments.folds:
    arguments.only = [name for name in arguments.only if not FUSIONS[name][1]]
  source = Source(arguments.data)
  arguments.data = source.directory
  right: dict[str, list[np.ndarray]] = {}
  for seed in arguments.seeds:
    for name, found in of_seed(arguments, seed).items():
      right.setdefault(name, []).append(found)
      print(f"seed {seed}  {name}: {100 * found.mean():.1f}", flush=True)
  subjects = source.subjects[source.rows("test")]
  timing.report(arguments, [*table(right, subjects)])


def table(right, subjects):
  """The rows: accuracies in per cent, and the difference to the fused scores."""
  means = {name: np.mean(found, 0) for name, found in right.items()}
  rng, names = np.random.default_rng(0), np.unique(subjects)
  drawn = rng.integers(len(names), size=(2000, len(names)))
  for name, found in right.items():
    difference = means[name] - means.get("scores fused, tempered", means["scores fused"])
    of_subjects = np.array([difference[subjects == x].mean() for x in names])
    low, high = np.percentile(of_subjects[drawn].mean(-1), [2.5, 97.5])
    yield {
      "": name,
      "top-1": ", ".join(f"{100 * x.mean():.1f}" for x in found),
      "mean": 100 * means[name].mean(),
      "minus fused scores": 100 * difference.mean(),
      "interval over subjects": f"[{100 * low:+.1f}, {100 * high:+.1f}]",
    }


def of_seed(arguments, seed: int) -> dict[str, np.ndarray]:
  """By name, which of the test clips are right."""
  encoders, number = {"depth": DEPTH, arguments.pose: POSES[arguments.pose]}, arguments.folds
  runs = {name: arguments.runs / f"{name}-{seed}" for name in encoders}
  for name, (config, *settings) in encoders.items():
    trained(arguments, runs[name], config, [f"train.seed={seed}", *settings])
    extracted(arguments, runs[name])
    if number:
      extracted(arguments, runs[name], f"--folds={number}")
  files = [evaluated(run) for run in runs.values()]
  found = {f"{name} alone": correct(file) for name, file in zip(runs, files, strict=True)}
  found["either right (oracle)"] = np.maximum(*found.values())
  folds = [
    [evaluated(run / "folds" / f"{i}-of-{number}", "val") for run in runs.values()]
    for i in range(number)
  ]
  searched = [f"--search={','.join(map(str, fold))}" for fold in folds]
  for name, options in {"scores fused": [], "scores fused, tempered": searched}.items():
    if name != "scores fused" and not folds:
      continue
    out = arguments.runs / f"{arguments.pose}-{name.replace(' ', '_')}-{seed}.npz"
    command(fuse_scores, [*map(str, files), f"--out={out}", *options], positional="RUN")
    found[name] = correct(out)
  for name in arguments.only:
    attention, out_of_fold, settings = FUSIONS[name]
    end = f"-folds{number}" if out_of_fold else ""
    tokens = [f"{run.name}{end}" for run in runs.values()]
    run = arguments.runs / f"{arguments.pose}-{name.replace(', ', '-').replace(' ', '_')}-{seed}"
    settings = [f"tokens={','.join(tokens)}", f"train.seed={seed}", *settings]
    trained(arguments, run, f"fusion:utd_mhad,{attention},small", settings)
    found[name] = correct(evaluated(run))
    if "dropout" in name:
      for lost, left in zip(tokens, reversed([*runs]), strict=True):
        found[f"{name}: {left} alone"] = correct(evaluated(run, "test", f"--without={lost}"))
    for permuted in tokens:
      of = permuted.partition("-")[0]
      found[f"{name}: {of} of other clips"] = shuffled(run, arguments.data, permuted)
  return found


def trained(arguments, run: pathlib.Path, config: str, settings: list[str]) -> None:
  """Trains a run to its end."""
  if (run / "done").exists():
    return
  settings = [f"data.dir={arguments.data.parents[1]}", *settings, *arguments.also]
  options = [f"--config={config}", f"--workdir={run}", *(f"--config.{x}" for x in settings)]
  if code := launch.main(train.run, options):
    raise SystemExit(code)
  (run / "done").touch()


def extracted(arguments, run: pathlib.Path, *options: str) -> None:
  """Adds the tokens of a run."""
  options = [f"--run={run}", f"--data={arguments.data}", f"--views={arguments.views}", *options]
  command(extract_tokens, options)


def evaluated(run: pathlib.Path, split: str = "test", *options: str) -> pathlib.Path:
  """The scores of a run."""
  name = "-".join([split, *(x.replace("--", "").replace("=", "-") for x in options)])
  file = run / name / "scores.npz"
  if not file.exists():
    command(evaluate, [f"--run={run}", f"--split={split}", "--step=latest", *options])
  return file


def command(module, options: list[str], **more: str) -> None:
  if code := launch.command(module.run, module.define, options, **more):
    raise SystemExit(code)


def correct(file: pathlib.Path) -> np.ndarray:
  found = scores.load(file)
  return np.float64(found.probabilities.argmax(-1) == found.labels)


def shuffled(run: pathlib.Path, data: pathlib.Path, name: str) -> np.ndarray:
  """Which clips are right where an input is that of another clip, drawn at random."""
  recipe, source = recipes.load(run), Source(data)
  rows = source.rows("test")
  batches = pipeline.test_batches(
    source, rows, recipe.inputs, num_clips=recipe.num_clips, batch_size=43, may_lack=recipe.may_lack
  )
  whole = jax.tree.map(lambda *x: np.concatenate(x)[: len(rows)], *batches)
  order = np.random.default_rng(0).permutation(len(rows))
  whole[name] = jax.tree.map(lambda x: x[order], whole[name])
  variables = checkpoints.restore_variables(run / "checkpoints", "latest")
  predict = step.compile_predict_step(
    recipe.predict_step(recipe.build_model()), sharding.data_mesh()
  )
  predict = functools.partial(predict, variables["params"], variables["batch_stats"])
  found = [
    np.asarray(predict(jax.tree.map(lambda x, i=i: x[i : i + 43], whole)))
    for i in range(0, len(rows), 43)
  ]
  return np.float64(np.concatenate(found).argmax(-1) == source.labels[rows])


if __name__ == "__main__":
  main()
