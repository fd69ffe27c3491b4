"""The report as a file: written whole, or compared with what the records say now. Knows nothing of its content."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from selfflow_bench.atomic_files import replace_text
from selfflow_bench.results.comparison import Margins
from selfflow_bench.results.report.content import content
from selfflow_bench.results.report.overview import RecipeFacts
from selfflow_bench.results.report.page import (
    Links,
    Pen,
    blank_pen,
    drawing_pen,
    edited_drawings,
    page,
    without_drawings,
)

FILE = "report.html"
_LONGEST = 240


@dataclass(frozen=True)
class Recipes:
    """What the report needs of the recipes: their folder, what to say of each, and the margins of their protocols."""

    folder: Path
    facts: tuple[RecipeFacts, ...]
    margins: Margins


def write(results: Path, recipes: Recipes, path: Path) -> None:
    """Draw the report of a results folder."""
    replace_text(path, _page(results, recipes, path, drawing_pen()))


def check(results: Path, recipes: Recipes, path: Path) -> list[str]:
    """What differs between the file and the records, as lines of a unified diff; empty if nothing does.

    Draws nothing: drawings are compared by the digest of their content, so that another version of matplotlib or of an
    encoder is no difference; and each must be, byte for byte, the one that was written.
    """
    found = path.read_text(encoding="utf-8") if path.exists() else ""
    wanted = without_drawings(_page(results, recipes, path, blank_pen()))
    edited = [f"{path.name}: the drawing {name} was edited" for name in edited_drawings(found)]
    lines = difflib.unified_diff(
        without_drawings(found).splitlines(),
        wanted.splitlines(),
        f"{path.name} as it is",
        f"{path.name} from the records",
        lineterm="",
        n=0,
    )
    return [*edited, *(line[:_LONGEST] for line in lines)]


def _page(results: Path, recipes: Recipes, path: Path, pen: Pen) -> str:
    folder = path.resolve().parent
    links = Links(_prefix(results, folder), _prefix(recipes.folder, folder))
    return page(content(results, recipes.facts, recipes.margins), links, pen)


def _prefix(target: Path, folder: Path) -> str:
    relative = Path(os.path.relpath(target.resolve(), folder)).as_posix()
    return "" if relative == "." else f"{relative}/"
