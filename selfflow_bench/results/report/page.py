"""The page as HTML text, by jinja2 templates; and the page without what was drawn, which is what can be compared.

Other versions of matplotlib or of an encoder draw the same content with other bytes. So everything drawn stands between
marks that hold the digest of its content and of its bytes: two pages say the same if they are equal without the bytes.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass

from selfflow_bench.results import wording
from selfflow_bench.results.cost_table import COLUMNS
from selfflow_bench.results.report import tones
from selfflow_bench.results.report.content import Content
from selfflow_bench.results.report.curves import Panel
from selfflow_bench.results.report.overview import Forest, relative_interval
from selfflow_bench.results.report.sections import STYLES, Sheet
from selfflow_bench.results.significance import POWER
from selfflow_bench.results.statistics import LEVEL, ONE_SEED

# What the section is about; the others follow as the table has them.
_COST_FIRST = {
    name: place for place, name in enumerate(("family", "size", "ratio", "floor", "per_token_rows", "full_teacher"))
}
_WORDING = (
    "detectable",
    "metric_kind",
    "metric_title",
    "number",
    "percent",
    "probability",
    "seconds",
    "share",
    "signed",
    "spread",
    "times",
    "verdict",
)
_DRAWN = re.compile(r"<!--drawn ([0-9a-f]{16}) ([0-9a-f]{16})-->(.*?)<!--/drawn-->", re.DOTALL)


@dataclass(frozen=True)
class Pen:
    """What draws: a panel, a forest and a sheet as HTML."""

    panel: Callable[[Panel], str]
    forest: Callable[[Forest], str]
    sheet: Callable[[Sheet], str]


@dataclass(frozen=True)
class Links:
    """Where the folders of results and recipes are, seen from the page: "" or "../results/"."""

    results: str
    recipes: str


def drawing_pen() -> Pen:
    """Draws with matplotlib and embeds with Pillow and soundfile."""
    from selfflow_bench.results.report.drawing import forest_svg, panel_svg
    from selfflow_bench.results.report.embedding import sheet_html

    return Pen(panel_svg, forest_svg, sheet_html)


def blank_pen() -> Pen:
    """Draws nothing: for `without_drawings`."""
    return Pen(lambda _: "", lambda _: "", lambda _: "")


def page(content: Content, links: Links, pen: Pen) -> str:
    """The whole page."""
    from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
    from markupsafe import Markup

    def drawn(draw: Callable[[Panel], str] | Callable[[Forest], str] | Callable[[Sheet], str]) -> Callable[..., Markup]:
        def html(what: Panel | Forest | Sheet) -> Markup:
            body = draw(what)  # type: ignore[arg-type]
            return Markup(f"<!--drawn {what.digest[:16]} {_digest(body)}-->{body}<!--/drawn-->")

        return html

    environment = Environment(
        loader=PackageLoader("selfflow_bench.results.report"),
        autoescape=select_autoescape(),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        **{name: getattr(wording, name) for name in _WORDING},
        "spent": lambda value, axis: wording.spent(axis, value),
        "tone": tones.tone,
        "sign": tones.sign,
        "relative_interval": relative_interval,
        "thousands": lambda value: f"{value:,}",
    }
    text = environment.get_template("report.html").render(
        content=content,
        links=links,
        one_seed=ONE_SEED,
        styles=STYLES,
        level=round(100 * LEVEL),
        power=round(100 * POWER),
        cost_columns=sorted(COLUMNS, key=lambda column: _COST_FIRST.get(column[0], len(COLUMNS))),
        panel=drawn(pen.panel),
        forest=drawn(pen.forest),
        sheet=drawn(pen.sheet),
    )
    return re.sub(r"\n\s*\n+", "\n", text).strip() + "\n"


def without_drawings(text: str) -> str:
    """A page with its drawings taken out but for the digests of their content."""
    return _DRAWN.sub(r"<!--drawn \1-->", text)


def edited_drawings(text: str) -> list[str]:
    """Digests of the drawings whose bytes are not those that were written."""
    return [found[1] for found in _DRAWN.finditer(text) if _digest(found[3]) != found[2]]


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]
