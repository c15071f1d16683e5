"""The page about evaluated runs: whole in itself, and with the figures of metrics.json."""

import base64
import dataclasses
import hashlib
import html.parser
import io
import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from experiments import evaluate, launch, page, pictures, plots, report
from jaxmg import recipe as recipes
from jaxmg import scores
from jaxmg.data import tracks
from jaxmg.data.source import Source
from jaxmg.training import metrics

NASTY = "<script>alert(1)</script>\"'><img src=//x onerror=y> & </title>"


class Page(html.parser.HTMLParser):
  """The elements of a page, with their attributes and the text up to the next tag."""

  def __init__(self, text):
    super().__init__()
    self.elements, self.inside = [], False
    self.feed(text)

  def handle_starttag(self, tag, attributes):
    self.elements.append((tag, dict(attributes), []))
    self.inside = True

  def handle_endtag(self, tag):
    self.inside = False

  def handle_data(self, text):
    if self.inside:
      self.elements[-1][2].append(text)

  def all(self, tag, kind=None):
    return [
      (attributes, "".join(text))
      for name, attributes, text in self.elements
      if name == tag and (kind is None or attributes.get("class") == kind)
    ]

  def numbers(self):
    return [float(attributes["value"]) for attributes, _ in self.all("data")]


def call(*argv):
  return launch.command(report.run, report.define, [*map(str, argv)], positional="RUN")


@pytest.fixture(scope="module")
def evaluated(run, tmp_path_factory):
  """A run on `nods` that is evaluated; do not write into it."""
  path = shutil.copytree(run, tmp_path_factory.mktemp("evaluated") / "nods")
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(plots, "views", lambda *args, **options: None)
    assert launch.command(evaluate.run, evaluate.define, [f"--run={path}"]) == 0
  return path


@pytest.fixture
def make(evaluated, tmp_path):
  """Writes a run as if it was evaluated, of made-up scores of clips of a set, or of none."""

  def write(
    name, num_classes=6, ids=60, *, seed=0, strength=2.0, data=None, hidden=False, names=None
  ):
    ids = tuple(f"clip {i}" for i in range(ids)) if isinstance(ids, int) else tuple(ids)
    names = names or tuple(f"class {k}" for k in range(num_classes))
    labels = np.arange(len(ids), dtype=np.int32) % num_classes
    logits = np.random.default_rng(seed).normal(size=(len(ids), num_classes))
    logits += strength * np.eye(num_classes)[labels]
    p = np.float32(np.exp(logits) / np.exp(logits).sum(1, keepdims=True))
    recipe = recipes.load(evaluated)
    about = data.describe(recipe.tracks) if data else recipe.data | {"directory": "/gone"}
    about.pop("names")  # those of a made-up set
    model = recipe.model | {"num_classes": num_classes}
    folder = tmp_path / name / "test"
    folder.mkdir(parents=True)
    recipes.save(
      tmp_path / name,
      dataclasses.replace(recipe, class_names=names, model=model, data=about),
    )
    known = labels - labels - 1 if hidden else labels
    scores.save(folder / "scores.npz", scores.Scores(ids, p, known, names, "test", name))
    if not hidden:
      samples = metrics.bootstrap(p, labels, num_samples=200)
      content = metrics.summary(p, labels, num_classes) | {"data": about, "step": 4}
      content["interval"] = {key: metrics.interval(x) for key, x in samples.items()}
      content["per_class"] = metrics.per_class(labels, p.argmax(-1), names)
      (folder / "metrics.json").write_text(json.dumps(content))
    return tmp_path / name

  return write


def test_figures_of_the_page_are_those_of_metrics_json(evaluated, tmp_path, capsys):
  assert call(evaluated, f"--out={tmp_path / 'a.html'}") == 0
  assert f"nods: {tmp_path / 'a.html'} (0." in capsys.readouterr().out
  text = (tmp_path / "a.html").read_text()
  found = json.loads((evaluated / "test" / "metrics.json").read_text())
  titles = ["top1", "mean_class", "macro_f1", "auc"]
  shares = [one[key] for one in found["per_class"] for key in ("accuracy", "precision", "f1")]
  p = scores.load(evaluated / "test" / "scores.npz")
  error = metrics.calibration(p.probabilities, p.labels)["error"]
  expected = [*(found[title] for title in titles), *(x for x in shares if x is not None), error]
  assert Page(text).numbers() == expected
  for name in titles[:3]:
    low, high = found["interval"][name]
    assert f"<small>{100 * low:.1f} to {100 * high:.1f} (clips)</small>" in text
  assert "interval_over_subjects" not in found  # of one person
  assert "<small>" not in re.search("<span>AUC</span>.*?</div>", text, re.DOTALL)[0]
  assert "SYNTHETIC" in text
  assert {text for _, text in Page(text).all("figcaption")} >= {"training loss"}


def test_metrics_json_has_the_figures_of_each_class(evaluated):
  found = json.loads((evaluated / "test" / "metrics.json").read_text())
  assert [(one["name"], one["count"]) for one in found["per_class"]] == [("nod", 3), ("shake", 3)]
  assert np.mean([one["accuracy"] for one in found["per_class"]]) == found["mean_class"]


def test_wrong_clips_move(evaluated, nods, tmp_path):
  assert call(evaluated, f"--out={tmp_path / 'a.html'}", f"--data={nods / 'nods'}") == 0
  found = scores.load(evaluated / "test" / "scores.npz")
  wrong = (found.probabilities.argmax(-1) != found.labels).sum()
  canvases = Page((tmp_path / "a.html").read_text()).all("canvas")
  assert len(canvases) == wrong > 0
  limbs = Source(nods / "nods").track("pose").kind.layout.limbs
  for canvas, _ in canvases:
    assert canvas["data-shape"] == "12 1 25"
    assert canvas["data-limbs"] == " ".join(f"{a}-{b}" for a, b in limbs)
    points = np.frombuffer(base64.b64decode(canvas["data-points"]), "<u2").reshape(12, 1, 25, 2)
    assert np.ptp(points[..., 0], axis=0).max() + np.ptp(points[..., 1], axis=0).max() > 5000


def test_nothing_is_from_elsewhere_and_all_texts_are_escaped(make, tmp_path):
  names = (NASTY, "http://example.org/a.js", "c", "d", "e", "f")
  ids = [f"{NASTY} {i}" for i in range(60)]
  assert call(make("a", 6, ids, names=names), make("b", 6, ids, names=names, seed=1)) == 0
  text = (tmp_path / "a" / "test" / "report.html").read_text()
  found = Page(text)
  for tag, attributes, _ in found.elements:
    assert tag not in ("link", "iframe", "object", "embed", "base", "form", "audio", "video")
    assert not [name for name in attributes if name.startswith("on")]
    assert attributes.get("href", "#")[0] == "#"
    assert attributes.get("src", "data:").startswith("data:")
    assert "url(" not in (attributes.get("style") or "")
  ((_, style),) = found.all("style")
  assert not re.search(r"@import|url\(|//|https?:", style)
  ((_, script),) = found.all("script")
  assert not re.search(r"//|https?:|fetch|import|XMLHttpRequest|WebSocket|\beval", script)
  assert [name for name, *_ in found.elements].count("img") == 0
  policy = next(x["content"] for x, _ in found.all("meta") if "http-equiv" in x)
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  assert policy.startswith("default-src 'none';")
  assert f"script-src 'sha256-{digest}'" in policy
  # As a text, an address is there; nothing else has one.
  rest = text.replace("http://example.org/a.js", "")
  assert not re.search(r"https?:", rest)
  assert NASTY in {attributes.get("title") for attributes, _ in found.all("th")}


def test_several_runs_are_compared_clip_by_clip(make, tmp_path):
  one, two = make("one"), make("two", seed=1, strength=1.0)
  found = scores.load(two / "test" / "scores.npz")
  order = np.random.default_rng(0).permutation(60)
  parts = {"probabilities": found.probabilities[order], "labels": found.labels[order]}
  ids = tuple(found.ids[k] for k in order)
  scores.save(two / "test" / "scores.npz", dataclasses.replace(found, ids=ids, **parts))
  assert call(one, two, f"--out={tmp_path / 'a.html'}") == 0
  parts = [scores.load(one / "test" / "scores.npz"), found]
  samples = [metrics.bootstrap(x.probabilities, x.labels)["top1"] for x in parts]
  low, high = metrics.interval(samples[1] - samples[0])
  right = [x.probabilities.argmax(-1) == x.labels for x in parts]
  text = (tmp_path / "a.html").read_text()
  assert f"{100 * low:+.1f} to {100 * high:+.1f} (clips)" in text
  cells = [int((right[1] & ~right[0]).sum()), int((right[0] & ~right[1]).sum())]
  assert f"<td>{cells[0]}</td><td>{cells[1]}</td>" in text
  assert right[1].mean() - right[0].mean() in Page(text).numbers()
  assert [x["id"] for x, _ in Page(text).all("details", "run")] == ["run0", "run1"]


def test_page_of_500_clips_is_small_and_shows_the_surest_mistakes(make, make_nods, tmp_path):
  data = Source(make_nods("a" + 500 * "d") / "nods")
  ids = [data.ids[row] for row in data.rows("test")]
  run = make("big", 60, ids, data=data)
  assert call(run) == 0
  text = (run / "test" / "report.html").read_text()
  found = scores.load(run / "test" / "scores.npz")
  guesses = found.probabilities.argmax(-1)
  sure = np.where(guesses != found.labels, found.probabilities.max(-1), 0)
  surest = [ids[k] for k in np.argsort(-sure, kind="stable")[: report.CLIPS]]
  assert [text for _, text in Page(text).all("dd") if text in {*ids}] == surest
  assert len(Page(text).all("canvas")) == report.CLIPS
  assert len(text.encode()) < 5e6
  cells = [attributes["title"] for attributes, _ in Page(text).all("td") if "title" in attributes]
  shown = [tuple(map(int, re.search(r": (\d+) of (\d+) clips", cell).groups())) for cell in cells]
  assert sum(count for count, _ in shown) == 500


@pytest.mark.parametrize(("persons", "joints"), [(1, 25), (2, 133), (10, 133)])
def test_picture_of_a_clip_is_small_however_long_it_is(persons, joints):
  layout = {25: "openpose25", 133: "wholebody133"}[joints]
  kind = tracks.Pose(layout, (720, 1280), num_persons=persons)
  pose = np.random.default_rng(0).random((2000, persons, joints, 3), np.float32)
  pose[:, 0, 0] = 0
  picture = pictures._skeleton(kind, {"keypoints": pose})
  assert len(picture) < 75_000
  shape = tuple(map(int, re.search('data-shape="(.*?)"', picture)[1].split()))
  assert shape[0] <= pictures.FRAMES
  points = base64.b64decode(re.search('data-points="(.*?)"', picture)[1])
  points = np.frombuffer(points, "<u2").reshape(*shape, 2)
  assert (points[:, 0, 0] == 65535).all()  # absent
  assert (points[:, 0, 1:] < 65535).mean() > 0.95


def test_nobody_and_moments_without_anybody_are_no_error():
  kind = tracks.Pose("openpose25", (720, 1280))
  pose = np.zeros((100, 1, 25, 3), np.float32)
  assert "Nobody" in pictures._skeleton(kind, {"keypoints": pose})
  pose[1] = 1  # of a frame that is left out
  assert pictures._skeleton(kind, {"keypoints": pose}).startswith("<canvas")


def test_clips_of_videos_are_small_jpegs(spots):
  data = Source(spots / "spots")
  (track,) = pictures.tracks_of(data, ["video"])
  found = Page(pictures.picture(track, 20)).all("img")
  assert len(found) == pictures.PICTURES
  for image, _ in found:
    kind, _, content = image["src"].partition(",")
    assert kind == "data:image/jpeg;base64"
    with Image.open(io.BytesIO(base64.b64decode(content))) as picture:
      assert (picture.format, picture.size) == ("JPEG", (24, 20))


def test_where_the_set_is_gone_the_page_says_so_and_has_the_rest(make, capsys):
  run = make("a")
  assert call(run) == 0
  text = (run / "test" / "report.html").read_text()
  assert "No pictures, as the set is not there: /gone: expected a prepared data set" in text
  assert not Page(text).all("canvas")
  assert len(Page(text).all("div", "clip")) > 3
  assert "No curves of a: there is no metrics.jsonl." in text
  assert call(run, "--data=/nowhere") == 3
  assert "/nowhere: expected a prepared data set" in capsys.readouterr().err


def test_figures_of_classes_that_an_older_run_lacks_are_made_of_its_scores(make):
  run = make("a")
  assert call(run) == 0
  text = (run / "test" / "report.html").read_text()
  path = run / "test" / "metrics.json"
  content = json.loads(path.read_text())
  del content["per_class"]
  path.write_text(json.dumps(content))
  assert call(run) == 0
  assert (run / "test" / "report.html").read_text() == text


def edited(run, **values):
  path = run / "test" / "metrics.json"
  path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
  ("change", "code", "message"),
  [
    (lambda run: shutil.rmtree(run / "test"), 3, "test: expected an evaluated run, got no scores"),
    (lambda run: (run / "test" / "metrics.json").unlink(), 3, "got no such file (jaxmg evaluate"),
    (lambda run: (run / "recipe.json").unlink(), 4, "expected a run directory with a recipe"),
    (shutil.rmtree, 4, "expected a run directory, got no such folder"),
    (lambda run: edited(run, top1=0.999), 3, "metrics.json: top1: expected 0."),
    (lambda run: edited(run, per_class=[]), 3, "per_class: expected the figures of scores.npz"),
    (lambda run: edited(run, interval={"top1": [0, "<"]}), 3, "interval: expected two numbers"),
    (lambda run: edited(run, data=None), 3, "metrics.json: expected the data and the step"),
    (lambda run: (run / "test" / "metrics.json").write_text("["), 3, "metrics.json: expected JSON"),
    (
      lambda run: (run / "test" / "metrics.json").write_text("[]"),
      3,
      "got list (jaxmg evaluate --run=",
    ),
    (lambda run: (run / "config.json").write_text("["), 3, "a report does without: remove it)"),
  ],
)
def test_what_is_not_evaluated_or_not_as_it_was_written_is_one_line(
  make, capsys, change, code, message
):
  run = make("a")
  change(run)
  assert call(run) == code
  error = capsys.readouterr().err
  assert message in error
  assert error.count("\n") == 1
  if "evaluated" in message:
    assert error.endswith(f"(jaxmg evaluate --run={run} --split=test)\n")


def test_hidden_labels_are_one_line(make, capsys):
  assert call(make("a", hidden=True)) == 3
  error = capsys.readouterr().err
  assert error.endswith("labels: expected known ones, got hidden ones (nothing to report)\n")


def test_runs_of_other_clips_are_not_compared(make, capsys):
  assert call(make("a"), make("b", ids=[f"other {i}" for i in range(60)])) == 3
  assert "scores 2 of 2 ('b'): expected the clips of the first" in capsys.readouterr().err


def test_a_run_is_not_compared_with_itself(make, capsys):
  run = make("a")
  assert call(run, f"{run}/test/..") == 2
  assert f"RUN: expected different runs, got {run} twice" in capsys.readouterr().err


def test_of_many_classes_the_matrix_has_those_that_are_confused_most(make):
  run = make("a", 150, 300)
  assert call(run) == 0
  text = (run / "test" / "report.html").read_text()
  assert "Of 150 classes, those 100 that are confused most." in text
  assert text.count("<td>") < 100 * 100 + 2000


def test_lines_of_curves_that_a_kill_cut_off_are_left_out(make):
  run = make("a")
  lines = [{"epoch": k / 10, "step": k, "loss": 3 - k / 1000} for k in range(1, 1001)]
  lines.append({"epoch": 100.1, "step": 1001, "loss": None})
  text = "".join(json.dumps(line) + "\n" for line in lines)
  (run / "metrics.jsonl").write_text(text + '{"epoch": 100.')
  assert call(run) == 0
  (line,) = Page((run / "test" / "report.html").read_text()).all("polyline")
  assert len(line[0]["points"].split()) == 240


@pytest.mark.parametrize("points", [[(1.0, 2.0)], [(1.0, 0.0), (2.0, 0.0)], [(0.0, -1.0)]])
def test_a_chart_of_one_value_has_a_height(points):
  found = Page(page.lines("loss", {"a": points, "b": []}))
  assert "nan" not in str(found.elements)
  assert len(found.all("circle")) == len(points)


@pytest.mark.parametrize(("low", "high"), [(0, 1), (1e-8, 3e-3), (-2, 2), (17, 18.5), (0, 123456)])
def test_ticks_are_few_and_within(low, high):
  ticks = page._ticks(low, high)
  assert 2 <= len(ticks) <= 6
  assert low <= ticks[0] < ticks[-1] <= high
