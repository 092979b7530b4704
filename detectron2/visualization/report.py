"""A run as one HTML file with all its numbers, curves and pictures inside: it opens without a network."""

from __future__ import annotations

import base64
import html
import io
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from PIL import Image

from detectron2.utils.file_io import atomic_write

Point = tuple[float, float]

_JPEG_QUALITY = 88
_CURVE_COLOURS = ("#3366cc", "#dc6b19", "#2a9d5c", "#b0399c", "#8a6d3b", "#0f8a9d", "#c0392b", "#6b7280")
_CHART_WIDTH, _CHART_HEIGHT = 460, 240
_CHART_LEFT, _CHART_TOP, _CHART_RIGHT, _CHART_BOTTOM = 52, 12, 12, 30

_STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8882; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 1080px; margin: 2rem auto; padding: 0 1rem; }
h1 { margin-bottom: 0; } h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); }
.figures { display: flex; flex-wrap: wrap; gap: 1rem; margin: 1.2rem 0; }
.figure { background: var(--soft); border-radius: .6rem; padding: .7rem 1.3rem; text-align: center; }
.figure b { display: block; font-size: 1.9rem; line-height: 1.2; }
table { border-collapse: collapse; margin: .8rem 0; }
th, td { padding: .25rem .9rem; border-bottom: 1px solid var(--line); text-align: right; }
th:first-child, td:first-child { text-align: left; }
.charts, .tables { display: flex; flex-wrap: wrap; gap: 1.4rem; align-items: flex-start; }
svg { max-width: 100%; height: auto; } svg text { fill: currentColor; font: 11px system-ui, sans-serif; }
figure { margin: 1rem 0; } figure img { width: 100%; border-radius: .3rem; }
figcaption { font-size: .9rem; opacity: .8; }
pre { background: var(--soft); padding: .8rem; border-radius: .4rem; overflow-x: auto; }
"""


@dataclass(frozen=True)
class Table:
    """A titled table; cells are shown as they are, floats with two digits."""

    title: str
    header: Sequence[str]
    rows: Sequence[Sequence[str | int | float]]


@dataclass(frozen=True)
class Chart:
    """Curves over one x axis, each a list of (x, y); points that are not finite are left out."""

    title: str
    curves: Mapping[str, Sequence[Point]]
    x_label: str = "iteration"


@dataclass
class Report:
    """What goes into a report, in the order of the page.

    Attributes:
        title: heading.
        lead: a sentence or two below it.
        figures: the few numbers that matter, by name.
        tables: results in detail.
        charts: curves of the training.
        pictures: image files with a caption each; they are copied into the page.
        notes: titled blocks of plain text, such as the command and the config.
    """

    title: str
    lead: str = ""
    figures: dict[str, float] = field(default_factory=dict)
    tables: list[Table] = field(default_factory=list)
    charts: list[Chart] = field(default_factory=list)
    pictures: list[tuple[str | os.PathLike[str], str]] = field(default_factory=list)
    notes: dict[str, str] = field(default_factory=dict)

    def to_html(self) -> str:
        """Render the page."""
        parts = [f"<h1>{html.escape(self.title)}</h1>", f"<p>{html.escape(self.lead)}</p>"]
        if self.figures:
            parts.append(_block("figures", (_figure_html(*item) for item in self.figures.items())))
        if self.pictures:
            parts += ["<h2>Pictures</h2>", *(_picture_html(*picture) for picture in self.pictures)]
        if self.tables:
            parts += ["<h2>Results</h2>", _block("tables", map(_table_html, self.tables))]
        if self.charts:
            parts += ["<h2>Training</h2>", _block("charts", map(_chart_html, self.charts))]
        for title, text in self.notes.items():
            parts += [f"<h2>{html.escape(title)}</h2>", f"<pre>{html.escape(text)}</pre>"]
        body = "\n".join(parts)
        return (
            '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
            '<meta name="viewport" content="width=device-width, initial-scale=1">'
            f"<title>{html.escape(self.title)}</title><style>{_STYLE}</style></head>\n"
            f"<body>\n{body}\n</body></html>\n"
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the page to a file."""
        with atomic_write(path, "w") as file:
            file.write(self.to_html())


def read_metrics(path: str | os.PathLike[str]) -> dict[str, list[Point]]:
    """Read the curves of a `metrics.json`: one JSON object a line, each with its `iteration`.

    A run that was resumed may have written an iteration twice; the later line counts. A line that was cut
    off is skipped.
    """
    curves: dict[str, dict[float, float]] = {}
    with open(path, encoding="utf-8") as file:
        for line in file:
            try:
                record = json.loads(line)
            except json.JSONDecodeError:
                continue
            iteration = record.get("iteration")
            for name, value in record.items():
                if iteration is not None and name != "iteration" and isinstance(value, (int, float)):
                    curves.setdefault(name, {})[iteration] = float(value)
    return {name: sorted(points.items()) for name, points in curves.items()}


def _block(css_class: str, parts: Iterable[str]) -> str:
    return f'<div class="{css_class}">' + "".join(parts) + "</div>"


def _cell(value: str | int | float) -> str:
    return f"{value:.2f}" if isinstance(value, float) else html.escape(str(value))


def _figure_html(name: str, value: float) -> str:
    return f'<div class="figure"><b>{value:.1f}</b>{html.escape(name)}</div>'


def _table_html(table: Table) -> str:
    header = "".join(f"<th>{html.escape(name)}</th>" for name in table.header)
    rows = "".join(
        "<tr>" + "".join(f"<td>{_cell(value)}</td>" for value in row) + "</tr>" for row in table.rows
    )
    return f"<div><h3>{html.escape(table.title)}</h3><table><tr>{header}</tr>{rows}</table></div>"


def _picture_html(path: str | os.PathLike[str], caption: str) -> str:
    encoded = io.BytesIO()
    with Image.open(path) as picture:
        picture.convert("RGB").save(encoded, format="JPEG", quality=_JPEG_QUALITY)
    content = base64.b64encode(encoded.getvalue()).decode("ascii")
    text = html.escape(caption)
    return (
        f'<figure><img src="data:image/jpeg;base64,{content}" alt="{text}">'
        f"<figcaption>{text}</figcaption></figure>"
    )


def _round_ticks(low: float, high: float, num_ticks: int = 4) -> list[float]:
    """About `num_ticks` round numbers between two others."""
    if not high > low:
        return [low]
    rough = (high - low) / num_ticks
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(m * magnitude for m in (1, 2, 5, 10) if m * magnitude >= rough)
    first = math.ceil(low / step)
    return [number * step for number in range(first, math.floor(high / step + 1e-9) + 1)]


@dataclass(frozen=True)
class _Axes:
    """The ranges of a chart, and where they lie on the page."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    @classmethod
    def around(cls, points: Sequence[Point]) -> _Axes:
        x_values, y_values = zip(*points)
        return cls(min(x_values), max(x_values), min(0.0, *y_values), max(y_values))

    def x(self, value: float) -> float:
        share = (value - self.x_low) / ((self.x_high - self.x_low) or 1.0)
        return _CHART_LEFT + share * (_CHART_WIDTH - _CHART_LEFT - _CHART_RIGHT)

    def y(self, value: float) -> float:
        share = (self.y_high - value) / ((self.y_high - self.y_low) or 1.0)
        return _CHART_TOP + share * (_CHART_HEIGHT - _CHART_TOP - _CHART_BOTTOM)


def _chart_html(chart: Chart) -> str:
    curves = {
        name: [(x, y) for x, y in points if math.isfinite(x) and math.isfinite(y)]
        for name, points in chart.curves.items()
    }
    all_points = [point for points in curves.values() for point in points]
    if not all_points:
        return ""
    axes = _Axes.around(all_points)
    parts, legend = _axes_svg(axes, chart.x_label), []
    for position, (name, points) in enumerate(curves.items()):
        colour = _CURVE_COLOURS[position % len(_CURVE_COLOURS)]
        path = " ".join(f"{axes.x(x):.1f},{axes.y(y):.1f}" for x, y in points)
        parts.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        legend.append(f'<span style="color:{colour}">&#9632;</span> {html.escape(name)} ')
    caption = "".join(legend) if len(curves) > 1 else ""
    return (
        f"<figure><b>{html.escape(chart.title)}</b><br>"
        f'<svg viewBox="0 0 {_CHART_WIDTH} {_CHART_HEIGHT + 4}" width="{_CHART_WIDTH}" role="img">'
        f"{''.join(parts)}</svg><figcaption>{caption}</figcaption></figure>"
    )


def _axes_svg(axes: _Axes, x_label: str) -> list[str]:
    right, middle = _CHART_WIDTH - _CHART_RIGHT, (_CHART_LEFT + _CHART_WIDTH - _CHART_RIGHT) / 2
    parts = []
    for tick in _round_ticks(axes.y_low, axes.y_high):
        y = axes.y(tick)
        parts.append(f'<line x1="{_CHART_LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}" stroke="#8884"/>')
        parts.append(f'<text x="{_CHART_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:.4g}</text>')
    parts += [
        f'<text x="{axes.x(tick):.1f}" y="{_CHART_HEIGHT - 12}" text-anchor="middle">{tick:.4g}</text>'
        for tick in _round_ticks(axes.x_low, axes.x_high)
    ]
    parts.append(
        f'<text x="{middle:.0f}" y="{_CHART_HEIGHT}" text-anchor="middle">{html.escape(x_label)}</text>'
    )
    return parts
