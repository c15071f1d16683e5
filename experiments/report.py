"""Writes one page of HTML about evaluated runs.

  jaxmg report RUN
  jaxmg report RUN RUN RUN --split=test --out=FILE.html

A RUN is a run directory that `jaxmg evaluate` has left metrics.json and scores.npz in, in the
folder --split. Several runs must have the same clips: each is compared with the first one, clip by
clip. The page is one file (default: RUN/<split>/report.html of the first run), which needs nothing
else: no network, no other file. It has the figures, the training curves, the classes and what they
are confused with, the calibration, the surest mistakes, and the recipe.

The clips that were most surely wrong are shown from the prepared set. Where it is gone, the page
says so and has all else; --data=DATA/NAME says where it is now.
"""

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

import jaxmg
from jaxmg import files, scores
from jaxmg import recipe as recipes
from jaxmg.training import metrics

from . import launch, page, pictures, results, settings
from .page import Html, tag
from .results import Run

CLIPS = 24  # that are shown of all runs together
CLASSES = 100  # in the confusion matrix

# The columns of metrics.jsonl that are drawn, their titles, and what they are multiplied by.
CURVES = {
  "loss": ("training loss", 1),
  "accuracy": ("training accuracy, %", 100),
  "eval/top1": ("top-1 of held-out subjects, %", 100),
  "eval/mean_class": ("mean-class accuracy of held-out subjects, %", 100),
  "eval/macro_f1": ("macro-F1 of held-out subjects, %", 100),
  "learning_rate": ("learning rate", 1),
}


def define(values: flags.FlagValues) -> None:
  options = {"flag_values": values}
  flags.DEFINE_string("split", "test", "Which evaluation: the name of its folder.", **options)
  flags.DEFINE_string("data", None, "The set of the clips, if it moved.", **options)
  flags.DEFINE_string("out", None, "The file to write.", **options)


def run(values: flags.FlagValues, *directories: str) -> None:
  paths = [pathlib.Path(directory) for directory in directories]
  places = [path.resolve() for path in paths]
  names = [place.name for place in places]
  results.check_different(places)
  if len({*names}) < len(names):
    names = list(directories)
  runs = [
    results.read(path, values.split, name, values.data)
    for path, name in zip(paths, names, strict=True)
  ]
  aligned = scores.align([one.scores for one in runs])
  runs = [dataclasses.replace(one, scores=found) for one, found in zip(runs, aligned, strict=True)]
  out = pathlib.Path(values.out) if values.out else paths[0] / values.split / "report.html"
  text = write(runs)
  with files.replace(out) as part:
    part.write_text(text, encoding="utf-8", errors="backslashreplace")
  print(f"{', '.join(names)}: {out} ({out.stat().st_size / 1e6:.1f} MB)")


def write(runs: Sequence[Run]) -> str:
  """The page of runs whose scores are of the same clips, in one order."""
  first, several = runs[0], len(runs) > 1
  title = f"{' and '.join(one.name for one in runs)}: {_where(first)}"
  links = [("figures", "Figures")]
  links += [("compared", "Compared")] if several else []
  links += [("curves", "Training")]
  sections = [_figures(runs)]
  if several:
    sections.append(_compared(runs))
  sections.append(_curves(runs))
  most = max(6, CLIPS // len(runs))
  for i, one in enumerate(runs):
    parts = {
      "classes": ("Classes", _classes(one)),
      "matrix": ("Confusion matrix", _matrix(one)),
      "calibration": ("Calibration", _calibration(one)),
      "mistakes": ("Surest mistakes", _mistakes(one, most)),
      "recipe": ("Recipe and data", _recipe(one)),
    }
    if several:
      body = [page.join(tag("h3", heading), body) for heading, body in parts.values()]
      summary = tag("summary", one.name)
      sections.append(tag("details", summary, *body, class_="run", id=f"run{i}", open=i == 0))
      links.append((f"run{i}", one.name))
    else:
      for id, (heading, body) in parts.items():
        sections.append(page.join(tag("h2", heading, id=id), body))
        links.append((id, heading))
  warning = "SYNTHETIC data: made up by a program. No figure here says anything about real people."
  return page.document(
    title,
    tag("h1", title),
    tag("p", warning, class_="warn") if first.metrics["data"].get("synthetic") else None,
    tag("nav", *(tag("a", text, href=f"#{id}") for id, text in links)),
    *sections,
    tag(
      "footer",
      f"Written by jaxmg {jaxmg.__version__}. Nothing on this page is loaded from elsewhere.",
    ),
  )


def _where(one: Run) -> str:
  return f"{one.metrics['data'].get('name')}, {one.scores.split}"


def _percent(value: float | None, sign: str = "") -> str:
  return "" if value is None else f"{100 * value:{sign}.1f}"


def _between(pair: Sequence[float], sign: str = "") -> str:
  return f"{_percent(pair[0], sign)} to {_percent(pair[1], sign)}"


def _figures(runs: Sequence[Run]) -> Html:
  first = runs[0]
  parts = [tag("h2", "Figures", id="figures")]
  count, classes = first.metrics["num_clips"], len(first.scores.class_names)
  text = (
    f"{count:,} clips of {classes} classes, in per cent. Always answering the most frequent class: "
    f"{_percent(first.metrics['majority_class'])}. A range holds 95 % of bootstrap samples: of "
    "other clips of these persons"
  )
  text += ", or of other persons." if first.metrics["interval_over_subjects"] else "."
  parts.append(tag("p", text, class_="note"))
  for one in runs:
    if len(runs) > 1:
      parts.append(tag("h3", one.name))
    cards = []
    for name, title in one.titles.items():
      ranges = [
        tag("small", f"{_between(one.metrics[place][name])} ({what})")
        for place, what in (
          ("interval", "clips"),
          ("interval_over_subjects", "persons"),
        )
        if name in one.metrics[place]
      ]
      value = page.number(one.metrics[name], _percent(one.metrics[name]))
      card = tag("div", tag("span", title), tag("b", value), *ranges, class_="card")
      cards.append(card)
    parts.append(tag("div", *cards, class_="cards"))
  return page.join(*parts)


def _compared(runs: Sequence[Run]) -> Html:
  """Each run's difference to the first one, of the same bootstrap samples of clips."""
  first, *others = runs
  known = next((one for one in runs if one.data), None)
  groups = known.data.subjects[known.rows] if known else None
  samples = [metrics.bootstrap(one.scores.probabilities, one.scores.labels) for one in runs]
  several = groups is not None and len(np.unique(groups)) > 1
  over = [
    metrics.bootstrap_groups(one.scores.probabilities, one.scores.labels, groups)
    for one in (runs if several else ())
  ]
  right = [one.scores.probabilities.argmax(-1) == one.scores.labels for one in runs]
  rows = []
  for i, one in enumerate(others, 1):
    cells = []
    for name in first.titles:
      value = one.metrics[name] - first.metrics[name]
      ranges = [
        tag("small", f"{_between(metrics.interval(found[i][name] - found[0][name]), '+')} ({what})")
        for found, what in ((samples, "clips"), (over, "persons"))
        if found and name in found[0]
      ]
      cells.append(tag("td", page.number(value, _percent(value, "+")), *ranges))
    gained, lost = int((right[i] & ~right[0]).sum()), int((right[0] & ~right[i]).sum())
    rows.append([one.name, *cells, gained, lost])
  head = [f"minus {first.name}", *first.titles.values(), "right alone", f"{first.name} right alone"]
  text = (
    f"Differences to {first.name}, in points. Both are given the same bootstrap samples, so the "
    "ranges are those of the difference. One that holds 0 may be chance. The last two columns are "
    "clips that one of both recognises, and the other does not."
  )
  accuracies = [
    [name, int(first.metrics["per_class"][k]["count"])]
    + [_share(one.metrics["per_class"][k]["accuracy"]) for one in runs]
    for k, name in enumerate(first.scores.class_names)
  ]
  of_classes = page.table(
    ["class", "clips", *(one.name for one in runs)], accuracies, kind="sortable"
  )
  return page.join(
    tag("h2", "Compared", id="compared"),
    tag("p", text, class_="note"),
    page.table(head, rows),
    tag("details", tag("summary", "Accuracy of each class, in per cent"), of_classes),
  )


def _curves(runs: Sequence[Run]) -> Html:
  charts = []
  for key, (title, times) in CURVES.items():
    series = {
      one.name: [(x["epoch"], times * x[key]) for x in one.curves if results.is_number(x.get(key))]
      for one in runs
    }
    if any(series.values()):
      charts.append(page.lines(title, series))
  parts = [tag("h2", "Training", id="curves")]
  if without := [one.name for one in runs if not one.curves]:
    text = f"No curves of {', '.join(without)}: there is no metrics.jsonl."
    parts.append(tag("p", text, class_="note"))
  return page.join(*parts, tag("div", *charts, class_="charts"))


def _share(value: float | None) -> Html:
  """A cell of a share: a number, and a bar behind it."""
  if value is None:
    return tag("td", "", data_v=-1)
  shown = page.number(value, _percent(value))
  return tag("td", shown, class_="bar", style=f"--s:{value:.3f}", data_v=f"{value:.6f}")


def _classes(one: Run) -> Html:
  rows = []
  for found in one.metrics["per_class"]:
    other = ""
    if found["confused"]:
      other = f"{found['confused_with']} ({found['confused']} of {found['count']})"
    shares = [_share(found[name]) for name in ("accuracy", "precision", "f1")]
    share = found["confused"] / max(found["count"], 1)
    cell = tag("td", other, class_="text", data_v=f"{share:.6f}")
    rows.append([found["name"], found["count"], *shares, cell])
  text = (
    "Accuracy: of a class's clips, how many are recognised. Precision: of the clips that are taken "
    "for it, how many are of it. In per cent; a click on a column's title sorts."
  )
  head = ["class", "clips", "accuracy", "precision", "F1", "mostly confused with"]
  return page.join(tag("p", text, class_="note"), page.table(head, rows, kind="sortable"))


def _matrix(one: Run) -> Html:
  names, labels = one.scores.class_names, one.scores.labels
  counts = metrics.confusion_matrix(labels, one.scores.probabilities.argmax(-1), len(names))
  text = "Row: the label. Column: what it was taken for. A cell is a number of clips, as dark as "
  text += "its share of the row; blue is right."
  chosen = np.arange(len(names))
  if len(names) > CLASSES:
    wrong = counts.sum(0) + counts.sum(1) - 2 * counts.diagonal()
    chosen = np.sort(np.argsort(-wrong, kind="stable")[:CLASSES])
    text += f" Of {len(names)} classes, those {CLASSES} that are confused most."
  head = tag("tr", tag("th", "label \\ taken for"), *(_head(names[k]) for k in chosen))
  rows = []
  totals = counts.sum(1)
  for k in chosen.tolist():
    cells = [
      Html("<td>") if not counts[k, j] else _cell(counts, totals, names, k, j)
      for j in chosen.tolist()
    ]
    side = tag("th", names[k], scope="row", title=names[k])
    rows.append(Html(f"<tr>{side}{''.join(cells)}"))
  table = tag("table", tag("thead", head), tag("tbody", *rows))
  size = min(28, max(14, 940 // len(chosen)))
  zoom = tag("input", type="range", min=8, max=36, value=size)
  return tag(
    "div",
    tag("p", text, class_="note"),
    tag("label", "size", zoom, class_="zoom"),
    tag("p", "Point at a cell to read it.", class_="status", aria_live="polite"),
    tag("div", table, class_="scroll"),
    class_="matrix",
  )


def _head(name: str) -> Html:
  return tag("th", tag("span", name), scope="col", title=name)


def _cell(counts, totals, names, k: int, j: int) -> Html:
  count, share = int(counts[k, j]), counts[k, j] / totals[k]
  verb = "recognised" if k == j else f"taken for {names[j]}"
  kinds = {"hit": k == j, "dark": share > 0.45}
  kind = " ".join(name for name, holds in kinds.items() if holds) or None
  what = f"{names[k]}: {count} of {totals[k]} clips ({share:.0%}) {verb}"
  return tag("td", count, class_=kind, title=what, style=f"--s:{share:.2f}")


def _calibration(one: Run) -> Html:
  found = metrics.calibration(one.scores.probabilities, one.scores.labels)
  bins = len(found["count"])
  sure = float(one.scores.probabilities.max(-1).mean())
  right = one.metrics["top1"]
  word = "surer" if sure > right else "less sure"
  text = (
    f"On average the run is {sure:.1%} sure, and right in {right:.1%} of the clips: "
    f"{abs(sure - right) * 100:.1f} points {word} than right. How sure it is of a clip is the "
    "probability of its most probable class."
  )
  error = page.number(found["error"], _percent(found["error"]))
  card = tag(
    "div",
    tag("span", "expected calibration error"),
    tag("b", error),
    tag("small", f"points, {bins} bins of equal width; 0 is best"),
    class_="card",
  )
  note = (
    "Bars: how many of the bin's clips are right. Short lines: how sure the run was of them, on "
  )
  note += (
    "average. A bar below its line: too sure. On the dashed line it would be as sure as right."
  )
  rows = [
    [
      f"{100 * k / bins:.0f} to {100 * (k + 1) / bins:.0f} %",
      int(found["count"][k]),
      _percent(found["confidence"][k]),
      _percent(found["accuracy"][k]),
    ]
    for k in range(bins)
    if found["count"][k]
  ]
  table = page.table(["sure", "clips", "sure, mean %", "right, %"], rows)
  chart = page.reliability(found["count"], found["confidence"], found["accuracy"])
  said = [tag("p", text), tag("div", card, class_="cards"), tag("p", note, class_="note")]
  said.append(tag("details", tag("summary", "The bins as a table"), table))
  return tag("div", chart, tag("div", *said), class_="beside")


def _mistakes(one: Run, most: int) -> Html:
  """The wrong clips of which the run was surest, each with what the set has of it to be seen."""
  p, labels = one.scores.probabilities, one.scores.labels
  guesses = p.argmax(-1)
  wrong = np.flatnonzero(guesses != labels)
  if not wrong.size:
    return tag("p", "There are none: every clip was recognised.")
  sure = p[wrong, guesses[wrong]]
  chosen = wrong[np.argsort(-sure, kind="stable")[:most]].tolist()
  text = (
    f"{len(wrong)} of {len(labels):,} clips are wrong. These are the {len(chosen)} of which the "
    "run was surest. The network may be wrong, the label may be wrong, or the clip may show little."
  )
  rows = one.rows if one.data else None
  shown = pictures.tracks_of(one.data, one.recipe.tracks) if one.data else []
  cards = []
  for clip in chosen:
    names, label, guess = one.scores.class_names, labels[clip], guesses[clip]
    place = int((p[clip] > p[clip, label]).sum()) + 1
    said = [
      ("label", f"{names[label]}, {p[clip, label]:.1%}, place {place}", None),
      ("taken for", f"{names[guess]}, {p[clip, guess]:.1%}", "wrong"),
      ("clip", one.scores.ids[clip], None),
    ]
    if one.data:
      said.append(("person", one.data.subjects[rows[clip]], None))
    pairs = (page.join(tag("dt", x), tag("dd", text, class_=kind)) for x, text, kind in said)
    seen = [pictures.picture(track, rows[clip]) for track in shown]
    cards.append(tag("div", *seen, tag("div", tag("dl", *pairs)), class_="clip"))
  parts = [tag("p", text, class_="note")]
  if one.data is None:
    parts.append(tag("p", f"No pictures, as the set is not there: {one.without}", class_="warn"))
  elif not shown:
    parts.append(tag("p", "No pictures: the set has nothing that can be shown.", class_="warn"))
  elif note := pictures.note(shown):
    parts.append(tag("p", note, class_="note"))
    parts.append(tag("button", "stop all", class_="pause", type="button"))
    parts.append(
      tag("noscript", tag("p", "Skeletons need JavaScript, which is off.", class_="warn"))
    )
  return page.join(*parts, tag("div", *cards, class_="clips"))


def _recipe(one: Run) -> Html:
  about = one.metrics["data"]
  fold = (one.recipe.data or {}).get("fold")
  data = {
    "set": about.get("name"),
    "version": about.get("version"),
    "synthetic": "yes: made up by a program" if about.get("synthetic") else "no",
    "protocol": about.get("protocol"),
    "evaluated": one.scores.split,
    "trained on": f"fold {fold[0]} of {fold[1]}: without its subjects"
    if fold
    else "all training subjects"
    if one.recipe.data
    else None,
    "fingerprint": about.get("fingerprint"),
  }
  recipe = one.recipe
  network = {
    "model": recipe.model["name"],
    "sees": str(recipe),
    "test views": f"{recipe.num_views} of every clip",
    "step": one.metrics["step"],
  }
  whole = recipes.to_json(recipe)
  whole = {name: whole[name] for name in ("model", "inputs", "views")}
  parts = [
    tag("div", _pairs(network), _pairs(data), class_="beside"),
    tag("details", tag("summary", "The recipe"), _pairs(settings.flatten(whole))),
  ]
  if one.config:
    flat = settings.flatten(one.config)
    parts.append(tag("details", tag("summary", "All settings of the training"), _pairs(flat)))
  return page.join(*parts)


def _pairs(values: Mapping[str, Any]) -> Html:
  rows = [[name, "" if value is None else value] for name, value in values.items()]
  return page.table([], rows, kind="pairs")


if __name__ == "__main__":
  launch.command(run, define, positional="RUN", devices=False)
