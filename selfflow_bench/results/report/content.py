"""The whole page as plain data: a pure function of the results folder and the recipes. No clock, no HTML."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selfflow_bench.results import cost_table, speed_table
from selfflow_bench.results.claims import PublishedTable, read_claims
from selfflow_bench.results.comparison import Comparison, Margins
from selfflow_bench.results.leaderboard import Board, build
from selfflow_bench.results.metric_name import MetricName
from selfflow_bench.results.record_files import read_all
from selfflow_bench.results.report.overview import Overview, RecipeFacts, overview
from selfflow_bench.results.report.sections import Section, section, styles

MODALITIES = {"image": "Pictures", "video": "Video", "audio": "Sound", "other": "Other recipes"}


@dataclass(frozen=True)
class Chapter:
    """The recipes of one modality."""

    modality: str
    title: str
    sections: tuple[Section, ...]


@dataclass(frozen=True)
class Content:
    """Everything the page shows.

    `timed` is the file of timed steps, if there is one; `styles` are the methods' colours; `measured_by_method` says
    where each method was run and with which verdicts on KID.
    """

    board: Board
    overview: Overview
    chapters: tuple[Chapter, ...]
    recipes: tuple[RecipeFacts, ...]
    costs: dict[str, dict[str, str]]
    timed: str | None
    claims: tuple[PublishedTable, ...]
    styles: dict[str, int]
    records: int
    measured_by_method: dict[str, str]

    @property
    def measured(self) -> tuple[str, ...]:
        """Names of the recipes with a section."""
        names = {s.table.recipe.partition("@")[0] for chapter in self.chapters for s in chapter.sections}
        return tuple(sorted(names))


def content(results: Path, recipes: Sequence[RecipeFacts], margins: Margins) -> Content:
    """Read the results folder and put everything in its place. Raises what reading it raises."""
    reading = read_all(results)
    board = build(reading, margins)
    costs = cost_table.read(results)
    facts = {one.name: one for one in recipes}
    colours = styles(reading.records)
    sections = []
    for table in board.tables:
        name = table.recipe.partition("@")[0]
        sections.append(section(table, reading.records, results, facts.get(name), costs.get(name), colours))
    chapters = []
    for modality, title in MODALITIES.items():
        own = tuple(s for s in sections if (s.facts.modality if s.facts else "other") == modality)
        if own:
            chapters.append(Chapter(modality, title, own))
    return Content(
        board=board,
        overview=overview(board.tables, recipes),
        chapters=tuple(chapters),
        recipes=tuple(recipes),
        costs=costs,
        timed=speed_table.FILE if (results / speed_table.FILE).exists() else None,
        claims=read_claims(results, {record.run_id for record in reading.records}).tables,
        styles=colours,
        records=len(reading.records),
        measured_by_method=_measured_by_method(board.tables),
    )


def _measured_by_method(tables: Sequence[Comparison]) -> dict[str, str]:
    recipes: dict[str, set[str]] = {}
    verdicts: dict[str, Counter[str]] = {}
    for table in tables:
        for arm in table.arms:
            recipes.setdefault(arm.label, set()).add(table.recipe)
        for found in table.differences:
            name = MetricName.of(found.metric)
            if name.kind == "kid" and not name.sampler:
                verdicts.setdefault(found.label, Counter())[found.paired.verdict] += 1
    said = {}
    for label, names in recipes.items():
        counts = ", ".join(f"{verdict} {count}" for verdict, count in sorted(verdicts.get(label, Counter()).items()))
        families = "family" if len(names) == 1 else "families"
        said[label] = f"in {len(names)} small {families}" + (f"; KID: {counts}" if counts else "")
    return said
