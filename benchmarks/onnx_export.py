"""Converts the network of a run to ONNX, and compares it with onnxruntime.

It needs an environment of its own, since jax2onnx pins an older Orbax than training needs:

  python -m venv onnx && onnx/bin/pip install . jax2onnx onnxruntime
  onnx/bin/python -m benchmarks.onnx_export --model=posec3d --variant=small --shape=48,56,56,17
  onnx/bin/python -m benchmarks.onnx_export --run=RUN --out=FILE.onnx

What is converted is the network alone, for inference, from what it sees (of PoseC3D heatmaps, of
2s-AGCN a stream, of MViTv2 normalised pictures) to logits: what comes before is in the run's
recipe. The batch has a fixed size, or with `--batch=B` any. Without a run, weights are random.

The largest difference of logits, from those of JAX in float32, is printed; above 1e-4 of the
largest logit the exit code is 1.
"""

import argparse
import contextlib
import sys
import time
from collections.abc import Sequence
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

from jaxmg import models, recipe, skeletons

SHAPES = {"posec3d": (48, 56, 56, 17), "agcn": (48, 1, 17, 3), "mvit": (16, 224, 224, 3)}
TOLERANCE = 1e-4


def main(argv: Sequence[str] | None = None) -> int:
  parser = argparse.ArgumentParser(
    description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
  )
  parser.add_argument("--run", help="a run directory of a model of one input")
  parser.add_argument("--model", choices=SHAPES, default="posec3d", help="where there is no run")
  parser.add_argument("--variant", default="tiny")
  parser.add_argument("--shape", help="of the network's input without the batch, as 48,56,56,17")
  parser.add_argument("--batch", default="1", help="a number, or B for any")
  parser.add_argument("--out", help="the file to write")
  arguments = parser.parse_args(argv)
  import onnxruntime
  from jax2onnx import to_onnx

  if arguments.run:
    model, variables, shape = _of_run(arguments.run)
  else:
    shape = arguments.shape or ",".join(map(str, SHAPES[arguments.model]))
    shape = tuple(map(int, shape.split(",")))
    model, variables = _random(arguments.model, arguments.variant, shape)
  folded = jax.jit(lambda variables: recipe.folded(model, **variables))(variables)
  folded = jax.tree.map(np.asarray, folded)
  any_batch = not arguments.batch.isdigit()
  batch = arguments.batch if any_batch else int(arguments.batch)
  start = time.perf_counter()
  with _form_of_cpus():
    proto = to_onnx(lambda x: model.apply(folded, x)[0], [(batch, *shape)])
  content = proto.SerializeToString()
  seconds = time.perf_counter() - start
  if arguments.out:
    with open(arguments.out, "wb") as file:
      file.write(content)
  session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
  (given,) = session.get_inputs()
  expected_of = jax.jit(lambda x: model.apply(folded, x)[0])
  worst = 0.0
  for size in (1, 3) if any_batch else (batch,):
    x = np.random.default_rng(size).uniform(0, 1, (size, *shape)).astype(np.float32)
    (found,) = session.run(None, {given.name: x})
    expected = np.asarray(expected_of(x))
    error, largest = np.abs(found - expected).max(), np.abs(expected).max()
    worst = max(worst, error / max(largest, 1e-9))
    print(f"batch {size}: largest difference {error:.1e}, of logits up to {largest:.3g}")
  versions = f"onnxruntime {onnxruntime.__version__}, jax {jax.__version__}"
  opset = proto.opset_import[0].version
  print(f"{len(content) / 1e6:.2f} MB, opset {opset}, converted in {seconds:.0f} s; {versions}")
  return int(worst > TOLERANCE)


def _of_run(run):
  from jaxmg import encoders

  found, variables = encoders.load(run)
  example = found.example()
  if not hasattr(example, "shape"):
    sys.exit("expected a run of one input")
  one = next(iter(found.inputs.values()))
  batch = {name: one.example(1) for name, one in found.inputs.items()}
  views = jax.eval_shape(lambda batch: one.view(_first(one.views(batch, False))), *batch.values())
  return found.build_model(), dict(variables), views.shape[1:]


def _first(views):
  return jax.tree.map(lambda x: x[0], views)


def _random(name, variant, shape):
  options = {"parents": skeletons.get("coco17").parents} if name == "agcn" else {}
  model = models.MODELS[name](num_classes=32, variant=variant, **options)
  variables = {"batch_stats": {}, **jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, *shape)))}
  rng = np.random.default_rng(0)  # norms and heads begin as nothing

  def moved(x):
    return np.float32(x + 0.1 * np.abs(rng.normal(size=x.shape)) if x.ndim == 1 else x)

  return model, jax.tree.map(moved, variables)


@contextlib.contextmanager
def _form_of_cpus():
  """Of layers in two forms, the plain one of CPUs: ONNX does not know for what it is made."""

  def cpu(*given, cpu, default=None, **others):
    return cpu(*given)

  with mock.patch.object(jax.lax, "platform_dependent", cpu):
    yield


if __name__ == "__main__":
  sys.exit(main())
