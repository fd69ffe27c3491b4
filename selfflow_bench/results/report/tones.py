"""How a verdict looks: its tone, which the style sheet colours, and a sign, so that colour is never all there is.

Knows the verdicts of `statistics` and nothing of pages.
"""

from selfflow_bench.results.statistics import (
    BETTER,
    EQUIVALENT,
    IDENTICAL,
    INCONCLUSIVE,
    NOT_MEASURED,
    ONE_SEED,
    WORSE,
)

TONES = ("better", "worse", "equivalent", "neutral", "none")
_TONES = {
    BETTER: "better",
    WORSE: "worse",
    EQUIVALENT: "equivalent",
    IDENTICAL: "equivalent",
    INCONCLUSIVE: "neutral",
    ONE_SEED: "none",
    NOT_MEASURED: "none",
}
_SIGNS = {"better": "✓", "worse": "✗", "equivalent": "=", "neutral": "?", "none": "○"}


def tone(verdict: str) -> str:
    """One of `TONES`."""
    return _TONES[verdict]


def sign(verdict: str) -> str:
    """One character beside the verdict's words."""
    return _SIGNS[tone(verdict)]
