"""The arrows of docs/architecture.md: who may import whom, and what an import must not load."""

import ast
import pathlib
import subprocess
import sys

import pytest

from jaxmg import errors

ROOT = pathlib.Path(__file__).parents[1]

# All that a module may import beside the standard library, numpy and jaxtyping. A name allows what
# is below it; what stands in brackets is imported inside functions only.
ARROWS = {
  "jaxmg": "jaxmg.inputs jaxmg.models jaxmg.skeletons jaxmg.predict",
  "jaxmg.detection": "jax jaxmg.models.mtcnn",
  "jaxmg.encoders": (
    "jax jaxmg.errors jaxmg.fields jaxmg.inputs jaxmg.recipe jaxmg.training.checkpoints"
  ),
  "jaxmg.errors": "",
  "jaxmg.export": (
    "jax jaxmg.errors jaxmg.ranges jaxmg.recipe jaxmg.data.batch jaxmg.inputs.whole"
    " jaxmg.training.step"
  ),
  "jaxmg.inputs": "jaxmg.inputs jaxmg.names",
  "jaxmg.inputs.faces": "jax jaxmg.ranges jaxmg.video jaxmg.inputs.video jaxmg.inputs.whole",
  "jaxmg.inputs.graph": (
    "jax jaxmg.ranges jaxmg.shapes jaxmg.inputs.pose jaxmg.inputs.published jaxmg.skeletons"
  ),
  "jaxmg.inputs.heatmaps": (
    "jax jaxmg.gaussians jaxmg.ranges jaxmg.shapes jaxmg.inputs.pose jaxmg.skeletons"
  ),
  "jaxmg.inputs.pose": "jax jaxmg.ranges jaxmg.inputs.whole jaxmg.skeletons",
  "jaxmg.inputs.tokens": "jax jaxmg.ranges",
  "jaxmg.inputs.video": (
    "jax jaxmg.ranges jaxmg.video jaxmg.inputs.whole jaxmg.skeletons.sampling [PIL] [simplejpeg]"
  ),
  "jaxmg.inputs.whole": "jax",
  "jaxmg.inputs.published": "jax jaxmg.skeletons.topology",
  "jaxmg.predict": (
    "jax jaxmg.encoders jaxmg.errors jaxmg.progress jaxmg.ranges jaxmg.recipe jaxmg.data.batch"
    " jaxmg.data.embeddings jaxmg.data.readers jaxmg.training.precision jaxmg.training.sharding"
    " jaxmg.training.step"
  ),
  "jaxmg.recipe": (
    "flax jax jaxmg.errors jaxmg.fields jaxmg.files jaxmg.inputs jaxmg.models jaxmg.data.batch"
    " jaxmg.training.step [jaxmg.training.checkpoints]"
  ),
  "jaxmg.faces": "jax jaxmg.shapes jaxmg.skeletons.topology",
  "jaxmg.fields": "jaxmg.errors jaxmg.ranges jaxmg.skeletons.topology",
  "jaxmg.gaussians": "jax",
  "jaxmg.files": "jaxmg.errors jaxmg.progress",
  "jaxmg.names": "jaxmg.errors",
  "jaxmg.pickles": "jaxmg.errors",
  "jaxmg.progress": "[tqdm]",
  "jaxmg.ranges": "",
  "jaxmg.scores": "jaxmg.errors jaxmg.files",
  "jaxmg.shapes": "",
  "jaxmg.video": "jax",
  # What a pose is: arrays and no files; frames are chosen on the host.
  "jaxmg.skeletons": "jaxmg.skeletons",
  "jaxmg.skeletons.augment": "jax jaxmg.skeletons.geometry",
  "jaxmg.skeletons.geometry": "jax",
  "jaxmg.skeletons.heatmaps": "jax jaxmg.gaussians jaxmg.shapes",
  "jaxmg.skeletons.plausible": "jaxmg.skeletons.topology",
  "jaxmg.skeletons.sampling": "",
  "jaxmg.skeletons.topology": "jaxmg.errors",
  # A model can be lifted out with one file: a skeleton reaches it as numbers.
  "jaxmg.models": "flax jaxmg.models jaxmg.names",
  "jaxmg.models.agcn": (
    "flax jax jaxmg.ranges jaxmg.shapes jaxmg.models.layers jaxmg.models.variants"
  ),
  "jaxmg.models.convolutions": "flax jax jaxmg.gaussians jaxmg.models.layers",
  "jaxmg.models.fusion": "flax jax jaxmg.shapes jaxmg.models.layers jaxmg.models.variants",
  "jaxmg.models.interfusion": (
    "flax jax jaxmg.models.fusion jaxmg.models.layers jaxmg.models.variants"
  ),
  "jaxmg.models.layers": "flax jax jaxmg.shapes",
  "jaxmg.models.mtcnn": "flax jax jaxmg.shapes",
  "jaxmg.models.mvit": (
    "flax jax jaxmg.gaussians jaxmg.shapes jaxmg.models.layers jaxmg.models.variants"
  ),
  "jaxmg.models.posec3d": (
    "flax jax jaxmg.gaussians jaxmg.shapes jaxmg.models.convolutions jaxmg.models.layers"
    " jaxmg.models.variants"
  ),
  "jaxmg.models.swinface": (
    "flax jax jaxmg.shapes jaxmg.models.convolutions jaxmg.models.layers jaxmg.models.variants"
  ),
  "jaxmg.models.variants": "flax jaxmg.errors jaxmg.ranges",
  "jaxmg.pretrained": "",
  "jaxmg.pretrained.agcn": "jaxmg.pretrained.convert",
  "jaxmg.pretrained.convert": "flax jax jaxmg.errors",
  "jaxmg.pretrained.names": "jaxmg.errors jaxmg.pretrained.torch_files",
  "jaxmg.pretrained.mtcnn": (
    "jaxmg.errors jaxmg.models.mtcnn jaxmg.pretrained.convert jaxmg.pretrained.torch_files"
  ),
  "jaxmg.pretrained.mvit": "jaxmg.models.mvit jaxmg.pretrained.convert",
  "jaxmg.pretrained.posec3d": "jaxmg.pretrained.convert",
  "jaxmg.pretrained.swinface": "jaxmg.models.swinface jaxmg.pretrained.convert",
  "jaxmg.pretrained.torch_files": "ml_dtypes jaxmg.errors jaxmg.pickles",
  # The host's side, without jax: grain in the pipeline, tensorflow_datasets where records are.
  "jaxmg.data": "",
  "jaxmg.data.batch": "",
  "jaxmg.data.builders": (
    "tensorflow_datasets jaxmg.errors jaxmg.fields jaxmg.data.readers jaxmg.data.records"
    " jaxmg.data.source"
  ),
  "jaxmg.data.decoding": "[av] [PIL]",
  "jaxmg.data.embeddings": "jaxmg.errors jaxmg.data.readers",
  "jaxmg.data.face_crops": (
    "jax jaxmg.errors jaxmg.faces jaxmg.data.readers jaxmg.skeletons.topology [PIL]"
  ),
  "jaxmg.data.guarded": "jaxmg.errors jaxmg.data.guarded_child",
  "jaxmg.data.guarded_child": "",
  "jaxmg.data.linking": "[scipy]",
  "jaxmg.data.matlab": "[scipy]",
  "jaxmg.data.memory": (
    "jax jaxmg.errors jaxmg.progress jaxmg.ranges jaxmg.data.builders jaxmg.data.readers"
    " jaxmg.data.records jaxmg.data.source jaxmg.data.tracks jaxmg.skeletons.topology"
  ),
  "jaxmg.data.pipeline": (
    "grain jaxmg.errors jaxmg.ranges jaxmg.data.batch jaxmg.data.records jaxmg.data.source"
  ),
  "jaxmg.data.prepared": (
    "jaxmg.errors jaxmg.fields jaxmg.files jaxmg.progress jaxmg.data.builders jaxmg.data.readers"
    " jaxmg.data.recordings jaxmg.data.records jaxmg.data.shards jaxmg.data.source"
    " jaxmg.data.tracks"
  ),
  "jaxmg.data.readers": "jaxmg.errors jaxmg.data.readers",
  "jaxmg.data.readers.annotations": ("jaxmg.data.readers jaxmg.errors jaxmg.pickles jaxmg.ranges"),
  "jaxmg.data.readers.arrays": "jaxmg.data.readers jaxmg.errors jaxmg.skeletons.topology",
  "jaxmg.data.readers.clip": "jaxmg.data.readers jaxmg.errors jaxmg.ranges jaxmg.skeletons",
  "jaxmg.data.readers.damage": "jaxmg.data.readers jaxmg.errors",
  "jaxmg.data.readers.faces": "",
  "jaxmg.data.readers.matlab": "jaxmg.data.guarded jaxmg.data.matlab jaxmg.data.readers",
  "jaxmg.data.readers.ntu": "jaxmg.data.readers jaxmg.errors",
  "jaxmg.data.readers.openpose": (
    "jaxmg.data.linking jaxmg.data.readers jaxmg.errors jaxmg.skeletons.topology"
  ),
  "jaxmg.data.readers.tables": (
    "jaxmg.data.readers jaxmg.data.spreadsheets jaxmg.errors jaxmg.skeletons.topology"
  ),
  "jaxmg.data.readers.video": (
    "jaxmg.data.decoding jaxmg.data.guarded jaxmg.data.readers jaxmg.errors [PIL]"
  ),
  "jaxmg.data.recordings": "jaxmg.errors",
  "jaxmg.data.records": ("google tensorflow_datasets jaxmg.errors jaxmg.fields jaxmg.data.tracks"),
  "jaxmg.data.shards": "array_record tensorflow_datasets jaxmg.errors jaxmg.files",
  "jaxmg.data.source": "jaxmg.errors jaxmg.fields jaxmg.data.records",
  "jaxmg.data.spreadsheets": "[python_calamine]",
  "jaxmg.data.tracks": (
    "tensorflow_datasets jaxmg.errors jaxmg.ranges jaxmg.data.readers jaxmg.skeletons.topology"
  ),
  # Arrays and callables: no data set, no skeleton, no particular model.
  "jaxmg.training": "",
  "jaxmg.training.checkpoints": "jax orbax jaxmg.errors",
  "jaxmg.training.evaluate": "jax jaxmg.training.sharding",
  "jaxmg.training.loop": (
    "jax tensorboardX jaxmg.errors jaxmg.files jaxmg.progress"
    " jaxmg.training.checkpoints jaxmg.training.sharding jaxmg.training.step"
  ),
  "jaxmg.training.losses": "jax jaxmg.ranges jaxmg.shapes",
  "jaxmg.training.metrics": "jaxmg.shapes",
  "jaxmg.training.mixing": "jax scipy jaxmg.gaussians jaxmg.video",
  "jaxmg.training.optimizers": "flax jax optax jaxmg.errors",
  "jaxmg.training.parameters": "flax jaxmg.errors",
  "jaxmg.training.precision": "jax jaxmg.errors",
  "jaxmg.training.sharding": "jax jaxmg.errors jaxmg.progress",
  "jaxmg.training.step": (
    "flax jax optax jaxmg.ranges jaxmg.shapes jaxmg.training.parameters jaxmg.training.sharding"
  ),
  # Composition, and the only place for flags and configs; imported by itself alone, and by names
  # from where it stands: in a wheel it is jaxmg.experiments.
  "experiments": "",
  "experiments.__main__": "jaxmg .overview",
  "experiments.ablate": (
    "jaxmg.errors jaxmg.data.source .grid .launch .processes .settings .tables .train .trainer"
  ),
  "experiments.agcn": "jaxmg .launch .trainer .weights",
  "experiments.attribution": (
    "jax jaxmg.files jaxmg.predict jaxmg.recipe jaxmg.video .overlay [.plots] [PIL]"
  ),
  "experiments.backend": "absl jax jaxmg.errors jaxmg.training.precision jaxmg.training.sharding",
  # As if all of them lay in configs/ (`experiments.settings.load`).
  "experiments.configs.ablations.labels": "ml_collections .grammar",
  "experiments.configs.ablations.long_tail": "ml_collections .grammar",
  "experiments.configs.ablations.recipe_a": "ml_collections .grammar",
  "experiments.configs.ablations.sampling": "ml_collections .grammar",
  "experiments.configs.agcn": "ml_collections jaxmg.inputs .grammar",
  "experiments.configs.emotion": "ml_collections jaxmg.models.interfusion .grammar",
  "experiments.configs.fusion": "ml_collections jaxmg.models.fusion .grammar",
  "experiments.configs.grammar": "ml_collections jaxmg.errors",
  "experiments.configs.mvit": "ml_collections jaxmg.inputs .grammar",
  "experiments.configs.swinface": "ml_collections .grammar",
  "experiments.configs.posec3d": "ml_collections jaxmg.inputs.heatmaps .grammar",
  "experiments.doctor": (
    "absl jaxmg.errors jaxmg.progress jaxmg.data.readers jaxmg.data.records jaxmg.data.source"
    " jaxmg.skeletons .launch .recording_flags"
  ),
  "experiments.evaluate": "absl flax jax jaxmg .backend .launch .lineage .plots .signals .workdir",
  "experiments.results": (
    "jaxmg.errors jaxmg.recipe jaxmg.scores jaxmg.data.source jaxmg.training.metrics"
  ),
  "experiments.export": "absl flatbuffers jax jaxmg .launch",
  "experiments.extract_tokens": (
    "absl jax jaxmg .launch .lineage .settings .signals .train .trainer .workdir"
  ),
  "experiments.faces": (
    "absl jax jaxmg.detection jaxmg.encoders jaxmg.errors jaxmg.faces jaxmg.files jaxmg.progress"
    " jaxmg.data.face_crops jaxmg.data.readers jaxmg.models.swinface jaxmg.pretrained.mtcnn"
    " .launch .recording_flags [.plots] [PIL]"
  ),
  "experiments.fuse_scores": (
    "absl jaxmg.errors jaxmg.scores jaxmg.training.metrics .launch .results"
  ),
  "experiments.emotion": "jaxmg .fusion .launch .trainer",
  "experiments.fusion": "jax jaxmg .launch .trainer",
  "experiments.grid": "jaxmg.errors",
  "experiments.import_weights": "absl jax jaxmg .agcn .launch .mvit .posec3d .swinface .weights",
  "experiments.launch": "absl jax jaxmg.errors .backend .settings .signals .workdir",
  "experiments.lineage": "jaxmg.errors jaxmg.recipe jaxmg.data.source jaxmg.training.checkpoints",
  "experiments.mvit": "jaxmg .launch .trainer .weights",
  "experiments.movies": "jaxmg.errors jaxmg.files [av] [PIL]",
  "experiments.overlay": (
    "jaxmg.errors jaxmg.files jaxmg.data.readers jaxmg.skeletons.topology .movies [PIL]"
  ),
  "experiments.overview": "jaxmg.skeletons jaxmg.training.metrics",
  "experiments.plots": (
    "jax jaxmg.files jaxmg.recipe jaxmg.skeletons jaxmg.data.pipeline [matplotlib]"
  ),
  "experiments.posec3d": "jaxmg .launch .trainer .weights",
  "experiments.predict": (
    "absl jaxmg.detection jaxmg.encoders jaxmg.errors jaxmg.predict jaxmg.progress jaxmg.recipe"
    " jaxmg.data.face_crops jaxmg.data.readers jaxmg.pretrained.mtcnn"
    " .attribution .backend .input_pictures .launch .overlay .recording_flags .timeline"
  ),
  "experiments.processes": "jaxmg.errors .signals",
  "experiments.input_pictures": "jax jaxmg.recipe",
  "experiments.page": "",
  "experiments.pictures": (
    "jaxmg.errors jaxmg.data.records jaxmg.data.source jaxmg.data.tracks .page [PIL]"
  ),
  "experiments.report": (
    "absl jaxmg jaxmg.files jaxmg.recipe jaxmg.scores jaxmg.training.metrics"
    " .launch .page .pictures .results .settings"
  ),
  "experiments.settings": (
    "absl ml_collections jaxmg.errors jaxmg.ranges jaxmg.training.losses jaxmg.training.optimizers"
    " jaxmg.training.precision"
  ),
  "experiments.signals": "jax jaxmg.errors",
  "experiments.submit": "absl jaxmg.errors jaxmg.files jaxmg.scores jaxmg.data.source .launch",
  "experiments.tables": (
    "scipy jaxmg.files jaxmg.recipe jaxmg.scores jaxmg.data.source jaxmg.training.metrics .grid"
    " .plots"
  ),
  "experiments.timeline": "absl jaxmg.errors jaxmg.files .movies .overlay [.plots]",
  "experiments.recording_flags": "absl jaxmg.data.readers",
  "experiments.swinface": "jaxmg .launch .trainer .weights",
  "experiments.train": "jaxmg.errors jaxmg.models .launch",
  "experiments.trainer": "jax jaxmg optax .evaluate .lineage .settings .signals",
  "experiments.weights": "jaxmg.errors jaxmg.data.source jaxmg.skeletons.topology",
  "experiments.workdir": "jax ml_collections jaxmg.errors jaxmg.files .backend .settings",
  # What each claim of speed is measured with; imported by itself alone, and peers in functions.
  "benchmarks.agcn": (
    "jax benchmarks.peers jaxmg.models jaxmg.pretrained jaxmg.skeletons [benchmarks.torch_agcn]"
  ),
  "benchmarks.compile": "jax benchmarks.peers benchmarks.timing jaxmg.models jaxmg.training",
  "benchmarks.compiled": (
    "jax benchmarks.hlo benchmarks.timing experiments.agcn experiments.emotion experiments.fusion"
    " experiments.mvit experiments.posec3d experiments.swinface"
    " experiments.settings experiments.trainer benchmarks.peers jaxmg.data jaxmg.models"
    " jaxmg.recipe jaxmg.training"
  ),
  "benchmarks.emotion": "benchmarks.fusion benchmarks.timing experiments jaxmg",
  "benchmarks.end_to_end": (
    "jax benchmarks.loader benchmarks.peers benchmarks.timing jaxmg [benchmarks.torch_posec3d]"
    " [torch]"
  ),
  "benchmarks.fusion": "jax benchmarks.timing experiments jaxmg",
  "benchmarks.heatmaps": "jax benchmarks.timing jaxmg.skeletons jaxmg.training.sharding",
  "benchmarks.hlo": "",
  "benchmarks.loader": "benchmarks.timing jaxmg.data jaxmg.inputs jaxmg.skeletons",
  "benchmarks.mutants": "[cosmic_ray]",
  "benchmarks.mvit": (
    "jax benchmarks.peers benchmarks.timing jaxmg.models jaxmg.training [torch] [torchvision]"
  ),
  "benchmarks.onnx_export": (
    "jax jaxmg.models jaxmg.recipe jaxmg.skeletons [jax2onnx] [jaxmg.encoders] [onnxruntime]"
  ),
  "benchmarks.peers": "flax jax optax benchmarks.timing jaxmg.pretrained jaxmg.training [torch]",
  "benchmarks.posec3d": (
    "jax benchmarks.peers jaxmg.gaussians jaxmg.models jaxmg.pretrained jaxmg.skeletons.heatmaps"
    " [benchmarks.torch_posec3d]"
  ),
  "benchmarks.predictor": "jax benchmarks.timing jaxmg",
  "benchmarks.recipe": (
    "jax benchmarks.loader benchmarks.timing experiments.launch experiments.posec3d"
    " jaxmg.data.prepared jaxmg.data.tracks"
  ),
  "benchmarks.report": "",
  "benchmarks.scale": "benchmarks.timing jaxmg.data jaxmg.inputs jaxmg.skeletons",
  "benchmarks.timing": "jax",
  "benchmarks.torch_agcn": "torch",
  "benchmarks.torch_posec3d": "torch",
  "benchmarks.video_loader": "jax benchmarks.timing jaxmg.data jaxmg.inputs [av]",
  "benchmarks.soak": (
    "jax jaxmg.data.prepared jaxmg.data.readers jaxmg.data.recordings jaxmg.data.shards"
    " jaxmg.data.source jaxmg.data.tracks [experiments] [jaxmg.training.loop]"
  ),
  # Raw files to prepared data; imported by nothing. These folders are on the path as packages.
  "datasets": "",
  "datasets.prepare": (
    "etils jaxmg.errors jaxmg.data.prepared jaxmg.data.readers jaxmg.data.records jaxmg.data.source"
  ),
  "datasets.imigue.imigue_dataset_builder": (
    "jaxmg.errors jaxmg.files jaxmg.data.prepared jaxmg.data.readers jaxmg.data.recordings"
    " jaxmg.data.tracks"
  ),
  "datasets.imigue_emotion.imigue_emotion_dataset_builder": (
    "imigue.imigue_dataset_builder jaxmg.errors jaxmg.data.face_crops jaxmg.data.prepared"
    " jaxmg.data.readers jaxmg.data.recordings jaxmg.data.tracks"
  ),
  "datasets.pyskl_pickle.pyskl_pickle_dataset_builder": (
    "jaxmg.errors jaxmg.data.prepared jaxmg.data.readers jaxmg.data.tracks"
  ),
  "datasets.smg.smg_dataset_builder": (
    "jaxmg.errors jaxmg.files jaxmg.data.prepared jaxmg.data.tracks"
  ),
  "datasets.synthetic_emotion.generate": (
    "synthetic_imigue.generate jaxmg.errors jaxmg.files jaxmg.progress [PIL] [av]"
  ),
  "datasets.synthetic_emotion.synthetic_emotion_dataset_builder": (
    "imigue_emotion.imigue_emotion_dataset_builder synthetic_emotion.generate jaxmg.data.tracks"
  ),
  "datasets.synthetic_expressions.synthetic_expressions_dataset_builder": (
    "synthetic_emotion.generate synthetic_emotion.synthetic_emotion_dataset_builder"
    " jaxmg.errors jaxmg.data.prepared"
  ),
  "datasets.synthetic_gestures.synthetic_gestures_dataset_builder": (
    "imigue.imigue_dataset_builder synthetic_emotion.synthetic_emotion_dataset_builder "
    "jaxmg.data.tracks"
  ),
  "datasets.synthetic_imigue.generate": (
    "xlsxwriter jaxmg.errors jaxmg.files jaxmg.skeletons.topology"
  ),
  "datasets.synthetic_imigue.synthetic_imigue_dataset_builder": (
    "imigue.imigue_dataset_builder synthetic_imigue.generate jaxmg.data.prepared"
  ),
  "datasets.video_folder.video_folder_dataset_builder": (
    "jaxmg.errors jaxmg.files jaxmg.progress jaxmg.data.prepared jaxmg.data.readers"
    " jaxmg.data.recordings jaxmg.data.tracks"
  ),
  "datasets.utd_mhad.utd_mhad_dataset_builder": (
    "tensorflow_datasets jaxmg.errors jaxmg.data.prepared jaxmg.data.readers"
    " jaxmg.data.recordings jaxmg.data.tracks"
  ),
}


def module_files():
  for folder in ("jaxmg", "experiments", "datasets", "benchmarks"):
    for path in sorted((ROOT / folder).rglob("*.py")):
      parts = path.relative_to(ROOT).with_suffix("").parts
      yield ".".join(parts[:-1] if parts[-1] == "__init__" else parts), path


FILES = dict(module_files())


def imports(tree):
  """Yields the full name of everything imported and whether that is inside a function."""
  late = {
    node
    for function in ast.walk(tree)
    if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
    for node in ast.walk(function)
  }
  for node in ast.walk(tree):
    if isinstance(node, ast.Import):
      names = [alias.name for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      origin = "." * node.level + (node.module or "")
      dot = "" if origin.endswith(".") else "."
      names = [f"{origin}{dot}{alias.name}" for alias in node.names]
    else:
      continue
    for name in names:
      if name.partition(".")[0] not in sys.stdlib_module_names | {"numpy", "jaxtyping"}:
        yield name, node in late


def forbidden(tree, allowed):
  """The imports of a module that its row of ARROWS does not hold."""

  def is_allowed(name, late):
    parts = name.split(".")
    above = {".".join(parts[:i]) for i in range(1, len(parts) + 1)}
    return any(x in allowed or (late and f"[{x}]" in allowed) for x in above)

  return sorted(name for name, late in imports(tree) if not is_allowed(name, late))


def test_every_module_has_its_row():
  assert FILES.keys() - ARROWS.keys() == set()
  assert ARROWS.keys() - FILES.keys() == set()


@pytest.mark.parametrize("module", sorted(FILES.keys() & ARROWS.keys()))
def test_module_imports_what_its_row_allows(module):
  tree = ast.parse(FILES[module].read_text(encoding="utf-8"))
  assert forbidden(tree, ARROWS[module].split()) == []


def test_whatever_more_than_the_library_needs_is_said_to_be_missing_by_its_extra():
  needed = set()
  for module, row in ARROWS.items():
    if module.partition(".")[0] in ("jaxmg", "experiments", "datasets"):
      needed |= {name.strip("[]").partition(".")[0] for name in row.split()}
  ours = {"", "jaxmg", "imigue", "imigue_emotion", "synthetic_emotion", "synthetic_imigue"}
  assert needed - ours - {"jax", "flax", "ml_dtypes"} == errors.EXTRAS.keys()


@pytest.mark.parametrize(
  ("code", "found"),
  [
    ("import json, numpy\nimport jax.numpy as jnp\nfrom jaxmg.data import source", []),
    ("from jaxmg import data", ["jaxmg.data"]),
    ("from jaxmg.data import sources", ["jaxmg.data.sources"]),
    ("import jax, grain", ["grain"]),
    ("from . import data", [".data"]),
    ("def read():\n  import scipy.io", []),
    ("import scipy.io", ["scipy.io"]),
    ("if True:\n  from scipy import io", ["scipy.io"]),
  ],
)
def test_forbidden_imports_are_found(code, found):
  assert forbidden(ast.parse(code), ["jax", "jaxmg.data.source", "[scipy]"]) == found


def test_importing_the_models_loads_nothing_that_trains_reads_or_draws():
  code = "import jaxmg.models, sys; print(*sys.modules)"
  run = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
  loaded = {name.partition(".")[0] for name in run.stdout.split()}
  assert "flax" in loaded
  # jaxmg/__init__.py runs first: what holds for the models holds for the whole menu.
  heavy = "grain tensorflow_datasets tensorflow orbax optax torch ml_collections matplotlib scipy"
  assert loaded.isdisjoint(heavy.split())
