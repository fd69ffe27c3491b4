"""The leaderboard as data: a pure function of records and margins, without a clock.

Its Markdown is in `leaderboard_markdown`.

One table per recipe and tier, of records with the newest recipe's and protocol's digests and no overrides. Older ones
are listed as superseded, overridden ones as open; smoke runs are counted only.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from selfflow_bench.results.comparison import Comparison, Margins, compare
from selfflow_bench.results.record import Record
from selfflow_bench.results.record_files import Damaged, Reading


@dataclass(frozen=True)
class Listed:
    """A record that is shown apart: what it is, why, and its scores."""

    run_id: str
    recipe: str
    tier: str
    label: str
    seed: int
    overrides: dict[str, Any]
    scores: dict[str, float | None]


@dataclass(frozen=True)
class Failed:
    """A run that did not succeed."""

    run_id: str
    status: str
    kind: str


@dataclass(frozen=True)
class Invalidated:
    """A record that no longer counts: since when, why, and what shows it."""

    run_id: str
    date: str
    reason: str
    evidence: str


@dataclass(frozen=True)
class Board:
    """Everything the leaderboard shows."""

    tables: tuple[Comparison, ...]
    failed: tuple[Failed, ...]
    open: tuple[Listed, ...]
    superseded: tuple[Listed, ...]
    smoke: int
    invalidated: tuple[Invalidated, ...]
    damaged: tuple[Damaged, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)


def build(reading: Reading, margins: Margins) -> Board:
    """The board of what was read from a results folder."""
    ranked = [record for record in reading.records if record.tier != "smoke" and not record.departures]
    families: dict[tuple[str, str], list[Record]] = {}
    for record in ranked:
        families.setdefault((record.recipe.name, record.tier), []).append(record)
    tables, failed, superseded = [], [], []
    for key in sorted(families):
        newest = max(_age(record) for record in families[key])
        current = [record for record in families[key] if _digests(record) == newest[-1]]
        tables.append(compare(current, margins))
        failed += [record for record in current if record.status != "success"]
        superseded += [record for record in families[key] if _digests(record) != newest[-1]]
    return Board(
        tables=tuple(tables),
        failed=tuple(Failed(r.run_id, r.status, r.failure.kind if r.failure else "") for r in failed),
        open=_listed(record for record in reading.records if record.tier != "smoke" and record.departures),
        superseded=_listed(superseded),
        smoke=sum(record.tier == "smoke" for record in reading.records),
        invalidated=tuple(
            Invalidated(run_id, line.date, line.reason, line.evidence)
            for run_id, line in sorted(reading.invalidated.items())
        ),
        damaged=reading.damaged,
    )


def leaders(table: Comparison) -> Sequence[int]:
    """Places of the arms in the order shown: by mean KID, else by validation loss; without a value last."""

    def order(index: int) -> tuple[float, str]:
        arm = table.arms[index]
        for kind in ("kid", "validation_loss"):
            for name, score in arm.scores.items():
                if name.partition("/")[0] == kind and score.mean is not None:
                    return score.mean, arm.label
        return float("inf"), arm.label

    return sorted(range(len(table.arms)), key=order)


def _digests(record: Record) -> tuple[str, str]:
    return record.recipe.digest, record.protocol.digest


def _age(record: Record) -> tuple[int, int, str, tuple[str, str]]:
    return record.recipe.version, record.protocol.version, record.created, _digests(record)


def _listed(records: Iterable[Record]) -> tuple[Listed, ...]:
    return tuple(
        Listed(
            run_id=record.run_id,
            recipe=str(record.recipe),
            tier=record.tier,
            label=record.method.label,
            seed=record.seed.index,
            overrides=record.departures,
            scores={name: metric.value for name, metric in record.scores.items()},
        )
        for record in records
    )
