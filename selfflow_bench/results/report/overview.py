"""All families at a glance: who was measured, with which verdicts, what is missing. Knows comparisons and no page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from selfflow_bench.canonical import digest
from selfflow_bench.results.comparison import Comparison, Difference, metric_order
from selfflow_bench.results.metric_name import MetricName
from selfflow_bench.results.report.tones import TONES, tone
from selfflow_bench.results.statistics import MeanDifference
from selfflow_bench.results.wording import metric_kind, percent

METHOD = "self_flow"
"""The method that the suite is about."""

_EQUAL = {"FLOPs": "FLOPs", "seconds": "time"}


@dataclass(frozen=True)
class RecipeFacts:
    """What the page says of a recipe. `path` is its file."""

    name: str
    title: str
    modality: str
    summary: str
    path: str
    tiers: tuple[str, ...]


@dataclass(frozen=True)
class Row:
    """One method of one recipe and tier against vanilla; `differences` by kind of metric."""

    recipe: str
    anchor: str
    modality: str
    tier: str
    label: str
    pairs: int
    differences: dict[str, Difference]
    flops: float | None


@dataclass(frozen=True)
class ForestRow:
    """One family's difference in percent; without an interval where there is one seed."""

    name: str
    value: float
    low: float | None
    high: float | None
    tone: str


@dataclass(frozen=True)
class Forest:
    """The differences of all families in one metric."""

    title: str
    horizontal: str
    rows: tuple[ForestRow, ...]
    text: str

    @property
    def digest(self) -> str:
        """Of everything that is drawn."""
        content: dict[str, Any] = asdict(self)
        return digest(content)


@dataclass(frozen=True)
class Tally:
    """How often each verdict was given for a metric or at equal effort, in the order of `Overview.verdicts`."""

    metric: str
    counts: tuple[int, ...]


@dataclass(frozen=True)
class Overview:
    """The top of the page."""

    rows: tuple[Row, ...]
    others: tuple[Row, ...]
    metrics: tuple[str, ...]
    verdicts: tuple[str, ...]
    tallies: tuple[Tally, ...]
    forests: tuple[Forest, ...]
    unmeasured: tuple[str, ...]

    @property
    def single(self) -> int:
        """Families of which there is one pair."""
        return sum(row.pairs == 1 for row in self.rows)


def overview(tables: Sequence[Comparison], recipes: Sequence[RecipeFacts]) -> Overview:
    """The overview of all tables of the board."""
    modality = {facts.name: facts.modality for facts in recipes}
    rows = [row for table in tables for row in _rows(table, modality)]
    ours = [row for row in rows if row.label == METHOD]
    metrics = sorted({kind for row in rows for kind in row.differences}, key=metric_order)
    given = [(kind, d.paired.verdict) for row in ours for kind, d in row.differences.items()]
    given.sort(key=lambda one: metric_order(one[0]))
    given += [
        (f"validation loss at equal {name}", one.paired.verdict)
        for table in tables
        for one in table.equal
        for axis, name in _EQUAL.items()
        if (one.label, one.axis) == (METHOD, axis) and one.budget is not None
    ]
    verdicts = sorted({verdict for _, verdict in given}, key=_verdict_order)
    counts = Counter(given)
    tallies = tuple(
        Tally(kind, tuple(counts[kind, verdict] for verdict in verdicts))
        for kind in dict.fromkeys(kind for kind, _ in given)
    )
    forests = [_forest(kind, ours) for kind in metrics]
    found = {row.recipe.partition("@")[0] for row in ours}
    return Overview(
        rows=tuple(ours),
        others=tuple(row for row in rows if row.label != METHOD),
        metrics=tuple(metrics),
        verdicts=tuple(verdicts),
        tallies=tallies,
        forests=tuple(forest for forest in forests if forest.rows),
        unmeasured=tuple(facts.name for facts in recipes if facts.name not in found),
    )


def anchor(table: Comparison) -> str:
    """The place of a table's section on the page."""
    return f"{table.recipe.partition('@')[0]}-{table.tier}"


def _rows(table: Comparison, modality: dict[str, str]) -> list[Row]:
    rows = []
    for arm in table.arms:
        own = [(MetricName.of(d.metric), d) for d in table.differences if d.label == arm.label]
        differences = {name.kind: d for name, d in own if not name.sampler}
        if differences:
            pairs = max(d.paired.n for d in differences.values())
            known = modality.get(table.recipe.partition("@")[0], "other")
            row = Row(
                table.recipe, anchor(table), known, table.tier, arm.label, pairs, differences, arm.flops_over_baseline
            )
            rows.append(row)
    return rows


def _verdict_order(verdict: str) -> tuple[int, str]:
    return TONES.index(tone(verdict)), verdict


def _forest(kind: str, rows: Sequence[Row]) -> Forest:
    found = []
    for row in rows:
        paired = row.differences[kind].paired if kind in row.differences else None
        if paired is not None and paired.mean_percent is not None:
            name = f"{row.recipe.partition('@')[0]}" + ("" if row.tier == "micro" else f" {row.tier}")
            found.append(
                ForestRow(name, paired.mean_percent, paired.low_percent, paired.high_percent, tone(paired.verdict))
            )
    title = metric_kind(kind)
    title = title[0].upper() + title[1:]
    text = f"{title}, Self-Flow against vanilla: " + "; ".join(
        f"{row.name} {percent(row.value)}" + ("" if row.low is None else f" ({_interval(row)})") for row in found
    )
    return Forest(title, "difference to vanilla (%)", tuple(found), text)


def _interval(row: ForestRow) -> str:
    return f"{percent(row.low)} to {percent(row.high)}"


def relative_interval(paired: MeanDifference) -> str:
    """The interval in percent, or nothing."""
    if paired.low_percent is None or paired.high_percent is None:
        return ""
    return f"{percent(paired.low_percent)} to {percent(paired.high_percent)}"
