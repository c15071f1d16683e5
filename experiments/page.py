"""A page of HTML in one file: elements that escape their texts, and charts in SVG.

Nothing of a page comes from elsewhere, and a policy in its head tells the browser to load nothing.
"""

import base64
import hashlib
import html
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

_HERE = pathlib.Path(__file__).parent
_NO_END = ("br", "img", "input", "meta")
_COLORS = 8  # as many as report.css has; more series begin again, with dashes
_MOST = 240  # points of a line


class Html(str):
  """Text that is HTML already, as `tag` and `join` make it: it is not escaped again."""


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
  """An element: children and attributes are escaped, unless they are Html.

  `class_="wide"` is `class="wide"`, `data_x=1` is `data-x="1"`; None and False leave one out.
  """
  found = [name]
  for key, value in attributes.items():
    if value is None or value is False:
      continue
    key = key.rstrip("_").replace("_", "-")
    found.append(key if value is True else f'{key}="{html.escape(str(value))}"')
  end = "" if name in _NO_END else f"</{name}>"
  return Html(f"<{' '.join(found)}>{join(*children)}{end}")


def join(*children: Any) -> Html:
  """Children side by side; None is nothing."""
  return Html(
    "".join(
      one if isinstance(one, Html) else html.escape(str(one)) for one in children if one is not None
    )
  )


def document(title: str, *body: Any) -> str:
  """The whole page, with the style and the script of reports."""
  style, script = ((_HERE / f"report.{kind}").read_text(encoding="utf-8") for kind in ("css", "js"))
  digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
  # No other script runs, even where a text would have got in as HTML.
  policy = (
    f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{digest}'"
  )
  head = tag(
    "head",
    tag("meta", charset="utf-8"),
    tag("meta", http_equiv="Content-Security-Policy", content=policy),
    tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
    tag("title", title),
    tag("style", Html(style)),
  )
  body = tag("body", *body, tag("script", Html(script)))
  return f"<!doctype html>\n{tag('html', head, body, lang='en')}\n"


def table(head: Sequence[Any], rows: Sequence[Sequence[Any]], *, kind: str | None = None) -> Html:
  """A table whose first column names the rows; cells are texts, or Html of a <td>.

  Of the kind "sortable", a click on the title of a column sorts it.
  """
  titles = (tag("button", x, type="button") if kind == "sortable" else x for x in head)
  top = tag("thead", tag("tr", *(tag("th", x, scope="col") for x in titles))) if head else None
  body = (
    tag("tr", tag("th", first, scope="row"), *(_cell(x) for x in rest)) for first, *rest in rows
  )
  return tag("div", tag("table", top, tag("tbody", *body), class_=kind), class_="scroll")


def _cell(x):
  return x if isinstance(x, Html) and x.startswith("<td") else tag("td", x)


def number(value: float, text: str) -> Html:
  """A number in full, shown as a text."""
  return tag("data", text, value=repr(value))


def lines(title: str, series: Mapping[str, Sequence[tuple[float, float]]]) -> Html:
  """A chart of lines over the epochs, by name: points (x, y); a long line is shown by means.

  A line without points is left out; at least one has some.
  """
  left, top, width, height = 46, 10, 324, 176
  shown = {name: _thinned(points) for name, points in series.items() if points}
  low, high = _span([y for points in shown.values() for _, y in points])
  first, last = _span([0.0, *(x for points in shown.values() for x, _ in points)])

  def place(x, y):
    across, up = (x - first) / (last - first), (y - low) / (high - low)
    return f"{left + width * across:.1f},{top + height * (1 - up):.1f}"

  drawn = []
  for y in _ticks(low, high):
    at = top + height * (1 - (y - low) / (high - low))
    drawn.append(tag("line", x1=left, x2=left + width, y1=f"{at:.1f}", y2=f"{at:.1f}"))
    drawn.append(tag("text", f"{y:g}", x=left - 6, y=f"{at + 4:.1f}", class_="end"))
  for x in _ticks(first, last):
    at = left + width * (x - first) / (last - first)
    drawn.append(tag("text", f"{x:g}", x=f"{at:.1f}", y=top + height + 17, class_="middle"))
  drawn.append(tag("text", "epoch", x=left + width / 2, y=top + height + 34, class_="middle"))
  names = []
  for i, name in enumerate(series):
    if name not in shown:
      continue
    points = shown[name]
    style = f"stroke:var(--c{i % _COLORS})" + (";stroke-dasharray:5 3" if i >= _COLORS else "")
    what = tag("title", f"{name}: {points[-1][1]:.4g} at the end")
    path = " ".join(place(*point) for point in points)
    drawn.append(tag("polyline", what, points=path, style=style))
    if len(points) <= 40:
      for x, y in points:
        cx, cy = place(x, y).split(",")
        what = tag("title", f"{name}, epoch {x:g}: {y:.4g}")
        drawn.append(tag("circle", what, cx=cx, cy=cy, r=2.5, style=style))
    names.append(tag("span", tag("i", style=style.replace("stroke:", "background:")), name))
  size = f"0 0 {left + width + 10} {top + height + 40}"
  picture = tag("svg", *drawn, viewBox=size, role="img", aria_label=title, class_="lines")
  legend = tag("div", *names, class_="legend") if len(series) > 1 else None
  return tag("figure", tag("figcaption", title), picture, legend)


def reliability(counts: np.ndarray, confidence: np.ndarray, accuracy: np.ndarray) -> Html:
  """Of each bin of confidence the accuracy as a bar, over how many clips there are."""
  left, top, side, gap, low = 46, 10, 280, 12, 64
  num, bottom = len(counts), top + side
  step, most = side / num, counts.max()
  drawn = []
  for share in (0, 0.2, 0.4, 0.6, 0.8, 1):
    x, y = left + side * share, bottom - side * share
    drawn.append(tag("line", x1=left, x2=left + side, y1=y, y2=y))
    drawn.append(tag("text", f"{100 * share:g}", x=left - 6, y=y + 4, class_="end"))
    label = tag("text", f"{100 * share:g}", x=x, y=bottom + gap + low + 16, class_="middle")
    drawn.append(label)
  for k, count in enumerate(counts.tolist()):
    if not count:
      continue
    what = f"{100 * k / num:.0f} to {100 * (k + 1) / num:.0f} % sure: {count} clips, "
    what += f"{confidence[k]:.1%} sure on average, {accuracy[k]:.1%} right"
    x, wide = left + step * k, f"{step - 1.5:.1f}"
    for kind, y, high in (
      ("right", bottom - side * accuracy[k], side * accuracy[k]),
      ("count", bottom + gap + low * (1 - count / most), low * count / most),
    ):
      box = {"x": f"{x:.1f}", "y": f"{y:.1f}", "width": wide, "height": f"{high:.1f}"}
      drawn.append(tag("rect", tag("title", what), class_=kind, **box))
    at = bottom - side * confidence[k]
    mark = {"x1": f"{x:.1f}", "x2": f"{x + step - 1.5:.1f}", "y1": f"{at:.1f}", "y2": f"{at:.1f}"}
    drawn.append(tag("line", tag("title", what), class_="sure", **mark))
  drawn.append(tag("line", x1=left, y1=bottom, x2=left + side, y2=top, class_="diagonal"))
  middle = bottom + gap + low / 2
  drawn.append(tag("text", most, x=left - 6, y=bottom + gap + 10, class_="end"))
  drawn.append(tag("text", "clips", x=left - 6, y=middle + 12, class_="end"))
  axis = {"x": left + side / 2, "y": bottom + gap + low + 34, "class_": "middle"}
  drawn.append(tag("text", "sure, in %", **axis))
  options = {"role": "img", "aria_label": "reliability diagram", "class_": "reliability"}
  size = f"0 0 {left + side + 14} {bottom + gap + low + 40}"
  caption = tag("figcaption", "right, in %, by how sure the run was")
  return tag("figure", caption, tag("svg", *drawn, viewBox=size, **options))


def _span(values: Sequence[float]) -> tuple[float, float]:
  low, high = min(values), max(values)
  if low == high:
    low, high = low - (abs(low) or 1) / 2, high + (abs(high) or 1) / 2
  return low, high


def _ticks(low: float, high: float) -> list[float]:
  """Three to six round numbers between two."""
  rough = (high - low) / 4
  power = 10.0 ** math.floor(math.log10(rough))
  step = next(m * power for m in (1, 2, 5, 10) if m * power >= rough)
  return [round(k * step, 12) for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _thinned(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
  """Means of neighbours, where there are more points than can be seen."""
  parts = np.array_split(np.asarray(points, float), min(len(points), _MOST))
  return [tuple(part.mean(axis=0).tolist()) for part in parts]
