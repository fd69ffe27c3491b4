"""Paired differences over seeds: how large, how sure, and what could have been seen at all.

Student's t throughout: with 3 to 10 seeds a bootstrap or a rank test says nothing. Knows nothing of records. Intervals
and verdicts are per metric; nothing is corrected for looking at several.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

LEVEL = 0.95
POWER = 0.80

NOT_MEASURED = "not measured"
ONE_SEED = "n = 1: no verdict"
BETTER, WORSE, NO_DIFFERENCE = "better", "worse", "no difference shown"
IDENTICAL = "identical"


@dataclass(frozen=True)
class PairedDifference:
    """Candidate minus baseline over seeds that both have.

    `low` to `high` is the 95 % t interval of the mean, `p` the two-sided p value. `correlation` is that of the paired
    values: pairing helps only as far as it is high. `detectable` is the smallest true difference that n seeds with this
    spread would show with 80 % power. Percentages are of the baseline's mean and null where that is not above 0. With
    n = 1 everything that needs a spread is null.
    """

    n: int
    baseline_mean: float | None
    candidate_mean: float | None
    mean: float | None
    sd: float | None
    low: float | None
    high: float | None
    p: float | None
    correlation: float | None
    detectable: float | None
    mean_percent: float | None
    low_percent: float | None
    high_percent: float | None
    detectable_percent: float | None
    verdict: str


def paired_difference(
    baseline: Sequence[float], candidate: Sequence[float], *, lower_is_better: bool = True
) -> PairedDifference:
    """Compare values of the same seeds, in one order. Raises ValueError on unequal lengths and non-finite values."""
    first, second = np.asarray(baseline, dtype=np.float64), np.asarray(candidate, dtype=np.float64)
    if first.shape != second.shape or first.ndim != 1:
        raise ValueError(f"pairs need equal lengths, not {first.shape} and {second.shape}")
    if not (np.isfinite(first).all() and np.isfinite(second).all()):
        raise ValueError("pairs must be finite")
    n = len(first)
    if n == 0:
        return _without_spread(0, None, None, NOT_MEASURED)
    if n == 1:
        return _without_spread(1, float(first[0]), float(second[0]), ONE_SEED)
    differences = second - first
    mean, sd = float(differences.mean()), float(differences.std(ddof=1))
    half = float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * sd / math.sqrt(n)
    detectable = detectable_difference(sd, n)
    base = float(first.mean())
    return PairedDifference(
        n=n,
        baseline_mean=base,
        candidate_mean=float(second.mean()),
        mean=mean,
        sd=sd,
        low=mean - half,
        high=mean + half,
        p=_p_value(mean, sd, n),
        correlation=_correlation(first, second),
        detectable=detectable,
        mean_percent=_percent(mean, base),
        low_percent=_percent(mean - half, base),
        high_percent=_percent(mean + half, base),
        detectable_percent=_percent(detectable, base),
        verdict=_verdict(mean, half, lower_is_better=lower_is_better),
    )


def detectable_difference(sd: float, n: int) -> float:
    """The smallest true mean difference a two-sided paired t test at 5 % shows with 80 % power, for n >= 2 pairs."""
    return _detectable_noncentrality(n) * sd / math.sqrt(n)


@lru_cache(maxsize=256)
def _detectable_noncentrality(n: int) -> float:
    """The noncentral t's parameter at which the test has its power: a mean over the chi distribution of the spread.

    Not `scipy.stats.nct`, which answers NaN for the parameters that n = 2 and 3 need (seen with SciPy 1.17).
    """
    critical = float(stats.t.ppf((1 + LEVEL) / 2, n - 1))
    shares = (np.arange(20_000) + 0.5) / 20_000
    bounds = critical * stats.chi.ppf(shares, n - 1) / math.sqrt(n - 1)

    def missing_power(noncentrality: float) -> float:
        return float((stats.norm.cdf(noncentrality - bounds) + stats.norm.cdf(-noncentrality - bounds)).mean()) - POWER

    return float(optimize.brentq(missing_power, 0.0, 4.0 * critical, xtol=1e-9))


def _verdict(mean: float, half: float, *, lower_is_better: bool) -> str:
    if mean == half == 0:
        return IDENTICAL
    if abs(mean) <= half:
        return NO_DIFFERENCE
    return BETTER if (mean < 0) == lower_is_better else WORSE


def _p_value(mean: float, sd: float, n: int) -> float:
    if sd == 0:
        return 1.0 if mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(mean) / (sd / math.sqrt(n)), n - 1))


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.clip(np.corrcoef(first, second)[0, 1], -1, 1))


def _percent(value: float, base: float) -> float | None:
    return 100 * value / base if base > 0 else None


def _without_spread(n: int, baseline: float | None, candidate: float | None, verdict: str) -> PairedDifference:
    mean = None if baseline is None or candidate is None else candidate - baseline
    return PairedDifference(
        n=n,
        baseline_mean=baseline,
        candidate_mean=candidate,
        mean=mean,
        sd=None,
        low=None,
        high=None,
        p=None,
        correlation=None,
        detectable=None,
        mean_percent=None if mean is None or baseline is None else _percent(mean, baseline),
        low_percent=None,
        high_percent=None,
        detectable_percent=None,
        verdict=verdict,
    )
