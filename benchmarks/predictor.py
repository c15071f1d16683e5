"""`jaxmg.load` on a list of clips against its bare, jitted inference, on the same batches.

  python -m benchmarks.predictor --run=RUN --out=predictor.json

The bare inference is given what the run's inputs have read before; the list is of clips that are in
memory, or of their arrays, which are checked as any array of a user's. All take turns.
"""

import jax
import numpy as np

import jaxmg
from benchmarks import timing
from jaxmg import encoders
from jaxmg.data import readers, source
from jaxmg.training import sharding
from jaxmg.training import step as steps


def main(argv: list[str] | None = None) -> None:
  parser = timing.parser(__doc__)
  parser.add_argument("--run", required=True, help="A run that sees poses.")
  parser.add_argument("--data", help="Its set, if it was moved.")
  parser.add_argument("--clips", type=int, default=100)
  parser.add_argument("--batch_size", type=int, default=16)
  parser.add_argument("--rounds", type=int, default=7)
  arguments = parser.parse_args(argv)

  predictor = jaxmg.load(arguments.run, batch_size=arguments.batch_size)
  data = source.Source(arguments.data or predictor.recipe.data["directory"])
  track = data.track("pose")
  rows = np.resize(data.rows("test"), arguments.clips).tolist()
  layout, size = track.kind.layout, track.kind.frame_size
  clips = [readers.Clip(track[row]["keypoints"], layout, size) for row in rows]
  arrays = [clip.keypoints for clip in clips]
  told = {"layout": layout, "frame_size": size, "axes": "TMVC"}

  recipe, variables = encoders.load(arguments.run)
  mesh = sharding.data_mesh(jax.local_devices()[:1])
  step = steps.compile_predict_step(recipe.predict_step(recipe.build_model()), mesh)
  params, batch_stats = jax.device_put(
    (variables["params"], variables["batch_stats"]), sharding.replicated(mesh)
  )
  read = [
    {name: one.read_test(clip.record(), recipe.num_clips) for name, one in recipe.inputs.items()}
    for clip in clips
  ]
  batches = [
    read[start : start + arguments.batch_size]
    for start in range(0, len(read), arguments.batch_size)
  ]

  def bare():
    found = []
    for batch in batches:
      stacked = jax.tree.map(lambda *x: np.stack(x), *batch)
      found.append(np.asarray(step(params, batch_stats, stacked)))
    return np.concatenate(found)

  calls = {
    "bare inference": bare,
    "list of clips": lambda: predictor(clips),
    "list of arrays": lambda: predictor(arrays, **told),
  }
  for call in calls.values():  # compiled, and alike
    np.testing.assert_allclose(call(), bare(), atol=1e-5)
  timers = {name: timing.timer(call) for name, call in calls.items()}
  seconds = timing.alternate(timers, rounds=arguments.rounds)
  ratios = {name: np.median(seconds["bare inference"] / times) for name, times in seconds.items()}
  timing.report(
    arguments,
    [
      {
        "prediction": name,
        "clips/s": round(len(clips) / np.median(times), 1),
        "of the bare inference": round(float(ratios[name]), 3),
      }
      for name, times in seconds.items()
    ],
  )


if __name__ == "__main__":
  main()
