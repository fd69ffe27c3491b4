"""One recipe and tier: its comparison, every run behind it, curves and samples. Knows records and no page."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from selfflow_bench.canonical import digest
from selfflow_bench.results.comparison import BASELINE, Arm, Comparison
from selfflow_bench.results.leaderboard import leaders
from selfflow_bench.results.media import FIGURES
from selfflow_bench.results.record import Record
from selfflow_bench.results.record_files import record_path
from selfflow_bench.results.report.curves import Curves, PanelGroup
from selfflow_bench.results.report.overview import RecipeFacts, anchor

STYLES = 16
"""How many colours and dashes the style sheet has."""


@dataclass(frozen=True)
class Run:
    """A record and where it lies, its method's settings by digest; `counted` if the means above are made of it."""

    record: Record
    path: str
    label: str
    settings_digest: str
    counted: bool


@dataclass(frozen=True)
class Sheet:
    """An arm's samples of seed 0: a still picture and, of clips or notes, what moves or sounds."""

    label: str
    field: str
    kind: str
    still: Path
    moving: Path | None
    sound: Path | None
    text: str
    digest: str


@dataclass(frozen=True)
class Section:
    """Everything the page says of one recipe and tier. `labels` are the arms with curves, vanilla first."""

    anchor: str
    table: Comparison
    arms: tuple[Arm, ...]
    facts: RecipeFacts | None
    cost: dict[str, str] | None
    runs: tuple[Run, ...]
    labels: tuple[str, ...]
    sheets: tuple[Sheet, ...]
    effort: tuple[PanelGroup, ...]
    more: tuple[PanelGroup, ...]


def styles(records: Sequence[Record]) -> dict[str, int]:
    """Each method's colour and dashes on the whole page: vanilla first, Self-Flow next, then by name."""
    labels = {record.method.label for record in records}
    order = sorted(labels, key=lambda label: (label != BASELINE, label != "self_flow", label))
    return {label: index % STYLES for index, label in enumerate(order)}


def section(
    table: Comparison,
    records: Sequence[Record],
    results: Path,
    facts: RecipeFacts | None,
    cost: dict[str, str] | None,
    method_styles: dict[str, int],
) -> Section:
    """The section of a board's table; `records` are all of the results folder."""
    runs = _runs(table, records, results)
    counted: dict[str, list[Record]] = {}
    for arm in table.arms:
        found = [run.record for run in runs if run.counted and run.label == arm.label]
        if found:
            counted[arm.label] = found
    known = {label: method_styles[label.partition(" ")[0]] for label in counted}
    counted = {label: counted[label] for label in sorted(counted, key=lambda label: (known[label], label))}
    curves = Curves(counted, known)
    more = (curves.by_noise_level(), curves.alignment(), curves.health())
    return Section(
        anchor=anchor(table),
        table=table,
        arms=tuple(table.arms[index] for index in leaders(table)),
        facts=facts,
        cost=cost,
        runs=runs,
        labels=tuple(counted),
        sheets=_sheets(table, results),
        effort=curves.against_effort(),
        more=tuple(group for group in more if group.panels),
    )


def _runs(table: Comparison, records: Sequence[Record], results: Path) -> tuple[Run, ...]:
    """By arm and seed, in the order made; of each seed that counts the first success."""
    wanted = (table.recipe_digest, table.protocol_digest, table.tier)
    made = [r for r in records if (r.recipe.digest, r.protocol.digest, r.tier) == wanted and not r.departures]
    found = []
    for arm in table.arms:
        own = [
            r
            for r in made
            if r.method.label == arm.label.partition(" ")[0] and digest(r.method.settings) == arm.settings_digest
        ]
        seen: set[int] = set()
        for record in sorted(own, key=lambda r: (r.seed.index, r.created, r.run_id)):
            counts = record.status == "success" and record.seed.index in arm.seeds and record.seed.index not in seen
            if counts:
                seen.add(record.seed.index)
            path = record_path(record, results).relative_to(results).as_posix()
            found.append(Run(record, path, arm.label, arm.settings_digest, counts))
    return tuple(found)


def _sheets(table: Comparison, results: Path) -> tuple[Sheet, ...]:
    folder = results / FIGURES / anchor(table)
    found: list[Sheet] = []
    for arm in sorted(table.arms, key=lambda arm: (arm.label != BASELINE, arm.label)):
        stem = arm.label.partition(" ")[0]
        for still in sorted([*folder.glob(f"{stem}.png"), *folder.glob(f"{stem}-*.png")]):
            field = still.stem.removeprefix(stem).lstrip("-")
            found.append(_sheet(arm, field, still))
    return tuple(sorted(found, key=lambda sheet: sheet.field))


def _sheet(arm: Arm, field: str, still: Path) -> Sheet:
    moving, sound = still.with_suffix(".webp"), still.with_suffix(".wav")
    kind = "clips" if moving.exists() else "notes" if sound.exists() else "pictures"
    shown = {"clips": "frames of clips", "notes": "spectrograms of notes", "pictures": "pictures"}[kind]
    seen = "" if arm.samples is None else f" after {arm.samples:,} training samples"
    text = f"Generated {shown} of {arm.label}{seen}, each with its caption"
    files = {path.name: _sha256(path) for path in (still, moving, sound) if path.exists()}
    return Sheet(
        label=arm.label,
        field=field,
        kind=kind,
        still=still,
        moving=moving if moving.exists() else None,
        sound=sound if sound.exists() else None,
        text=text,
        digest=digest({"files": files, "text": text}),
    )


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
