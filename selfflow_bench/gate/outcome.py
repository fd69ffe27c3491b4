"""What the gate can say of one thing it looked at, and of all together, with the exit code. Knows no runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from selfflow_bench.errors import (
    EXIT_INCONCLUSIVE,
    EXIT_INFRASTRUCTURE,
    EXIT_NOTHING_MEASURED,
    EXIT_REGRESSION,
)

Verdict = Literal["pass", "regression", "inconclusive", "infrastructure", "nothing measured"]
EXIT_CODES: dict[Verdict, int] = {
    "regression": EXIT_REGRESSION,
    "infrastructure": EXIT_INFRASTRUCTURE,
    "inconclusive": EXIT_INCONCLUSIVE,
    "nothing measured": EXIT_NOTHING_MEASURED,
    "pass": 0,
}
"""Worst first: of several verdicts the first of these is the gate's."""


@dataclass(frozen=True)
class Outcome:
    """One verdict: of what (``sana self_flow: golden curve``), and the numbers it rests on."""

    subject: str
    verdict: Verdict
    text: str


def overall(outcomes: Sequence[Outcome]) -> Verdict:
    """The worst of the verdicts; without any, nothing was measured."""
    found = {outcome.verdict for outcome in outcomes} or {"nothing measured"}
    return next(verdict for verdict in EXIT_CODES if verdict in found)
