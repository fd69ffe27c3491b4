"""Panels as compact inline SVG. matplotlib places and labels; the markup is our own, in classes the page colours.

Knows panels and forests; nothing of records. Colours, dashes and fonts belong to the page's style sheet, so that a
drawing follows the reader's light or dark scheme and takes few bytes.
"""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any
from xml.etree import ElementTree

from selfflow_bench.results.report.curves import Panel
from selfflow_bench.results.report.overview import Forest
from selfflow_bench.results.report.tones import TONES

_NAMESPACE = "{http://www.w3.org/2000/svg}"
_NUMBER = re.compile(r"[MLz]|-?\d+(?:\.\d+)?")
# Few enough points that each is a measurement worth its own dot.
_DOTTED = 12
_FONT = 7.5
# With more lines than this, those of single seeds would hide the means.
_SEEN_APART = 4
_Path = list[tuple[str, int, int]]


def panel_svg(panel: Panel) -> str:
    """A panel as one `<svg>` element of about 2 kB."""
    figure, axis = _figure(2.8, 2.0)
    for line in panel.lines:
        for points in line.seeds if len(panel.lines) <= _SEEN_APART else ():
            axis.plot(*zip(*points, strict=True), gid=f"s{line.style} seed", clip_on=False)
        axis.plot(*zip(*line.mean, strict=True), gid=f"s{line.style} mean", clip_on=False)
    if panel.zero:
        axis.axhline(0, gid="zero")
    axis.set_xlabel(panel.horizontal, fontsize=_FONT)
    axis.ticklabel_format(useOffset=False)
    axis.locator_params(nbins=6)
    axis.grid(True)
    _without_ticks(axis)
    return _compact(figure, panel.text)


def forest_svg(forest: Forest) -> str:
    """A row a family: the difference in percent and its interval."""
    rows = len(forest.rows)
    figure, axis = _figure(3.0, 0.5 + 0.16 * rows)
    for place, row in enumerate(reversed(forest.rows)):
        if row.low is not None and row.high is not None:
            axis.plot((row.low, row.high), (place, place), gid=f"{row.tone} interval", clip_on=False)
        gid = f"{row.tone} {'point' if row.low is not None else 'open'}"
        axis.plot((row.value,), (place,), gid=gid, clip_on=False)
    axis.axvline(0, gid="zero")
    axis.set_yticks(range(rows), [row.name for row in reversed(forest.rows)])
    axis.set_ylim(-0.6, rows - 0.4)
    axis.set_xlabel(forest.horizontal, fontsize=_FONT)
    axis.grid(True, axis="x")
    _without_ticks(axis)
    return _compact(figure, forest.text)


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    return figure, figure.subplots()


def _without_ticks(axis: Any) -> None:
    axis.tick_params(length=0, labelsize=_FONT)
    axis.spines[["top", "right", "left", "bottom"]].set_visible(False)
    for which in (axis.xaxis, axis.yaxis):
        for number, line in enumerate(which.get_gridlines()):
            line.set_gid(f"grid {number}")


def _compact(figure: Any, text: str) -> str:
    """matplotlib's SVG, of which the lines that we named and the texts are kept."""
    import matplotlib

    drawn = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "path.simplify": True, "svg.hashsalt": "selfflow_bench"}):
        figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    root = ElementTree.fromstring(drawn.getvalue())
    box = " ".join(f"{float(value):.0f}" for value in root.attrib["viewBox"].split())
    parts, grid = [], []
    for group in root.iter(f"{_NAMESPACE}g"):
        name = group.get("id", "")
        paths = [_read_path(path.get("d", "")) for path in group.findall(f"{_NAMESPACE}path")]
        if name.startswith("grid"):
            grid += paths
        elif name.partition(" ")[0] in ("zero", *TONES) or re.match(r"s\d+ ", name):
            parts += [_path(name, path) for path in paths]
            if name.endswith(" mean") and len(paths[0]) <= _DOTTED:
                parts.append(_dots(name.replace("mean", "dot"), paths[0]))
        parts += [_text(element) for element in group.findall(f"{_NAMESPACE}text")]
    body = "".join([_path("grid", [step for path in grid for step in path]) if grid else "", *parts])
    return f'<svg viewBox="{box}" role="img" aria-label="{escape(text)}">{body}</svg>'


def _read_path(text: str) -> _Path:
    """Commands with absolute places in tenths."""
    tokens = iter(_NUMBER.findall(text))
    return [
        (token, round(10 * float(next(tokens))), round(10 * float(next(tokens)))) for token in tokens if token in "ML"
    ]


def _path(name: str, steps: _Path) -> str:
    """Relative steps, which are shorter; the rounding does not add up, since absolute places were rounded."""
    if len(steps) == 1:
        return _dots(name, steps)
    return f'<path class="{name}" d="{"".join(_relative(steps))}"/>'


def _relative(steps: _Path) -> Iterable[str]:
    at_x = at_y = 0
    for command, x, y in steps:
        if command == "M":
            yield f"M{_tenths(x)} {_tenths(y)}"
        else:
            yield f"l{_tenths(x - at_x)} {_tenths(y - at_y)}"
        at_x, at_y = x, y


def _dots(name: str, steps: Sequence[tuple[str, int, int]]) -> str:
    places = "".join(f"M{_tenths(x)} {_tenths(y)}h0" for _, x, y in steps)
    return f'<path class="{name}" d="{places}"/>'


def _text(element: ElementTree.Element) -> str:
    x, y = (round(10 * float(element.get(name, "0"))) for name in ("x", "y"))
    anchor = "end" if "text-anchor: end" in element.get("style", "") else "middle"
    return f'<text class="{anchor}" x="{_tenths(x)}" y="{_tenths(y)}">{escape(element.text or "")}</text>'


def _tenths(value: int) -> str:
    return f"{value // 10}" if value % 10 == 0 else f"{value / 10:.1f}"
