"""Differences of means over seeds: how large, how sure, whether large enough to matter, and what could have been seen.

Student's t throughout: with 3 to 10 seeds a bootstrap or a rank test says nothing. A verdict belongs to a family of
comparisons, all that one table makes, and uses p values adjusted over it: 5 % is the chance of any false "better" or
"worse" in the table, and 5 % that of any false "equivalent". Knows nothing of records.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from selfflow_bench.results.significance import ALPHA, detectable, difference_p, equivalence_p, holm

LEVEL = 0.95

NOT_MEASURED = "not measured"
ONE_SEED = "n = 1: no verdict"
BETTER, WORSE, EQUIVALENT, INCONCLUSIVE = "better", "worse", "equivalent", "inconclusive"
IDENTICAL = "identical"


@dataclass(frozen=True)
class MeanDifference:
    """Candidate minus baseline, over seeds that both have (`by_seed`) or, where they share none, of the two means.

    `low` to `high` is the 95 % t interval of this difference by itself, `p` the two-sided p value. `margin` is how
    large a difference counts as none, and `p_equivalent` belongs to "the difference is at least that". The adjusted
    ones are Holm's over the `family` of comparisons that the verdict is one of, and decide it. `within_margin`: the
    difference is shown to be smaller than the margin, also where it is shown to be there. `detectable` is the smallest
    true difference that this many seeds with this spread would show in such a family with 80 % power, were it the only
    one there. `correlation` is that of the paired values: pairing helps only as far as it is high. Percentages are of
    the baseline's mean and null where that is not above 0. With n = 1 everything that needs a spread is null.
    """

    n: int
    baseline_mean: float | None
    candidate_mean: float | None
    mean: float | None
    verdict: str
    lower_is_better: bool = True
    by_seed: bool = True
    sd: float | None = None
    error: float | None = None
    df: float | None = None
    low: float | None = None
    high: float | None = None
    p: float | None = None
    p_adjusted: float | None = None
    family: int = 1
    correlation: float | None = None
    detectable: float | None = None
    margin: float | None = None
    p_equivalent: float | None = None
    p_equivalent_adjusted: float | None = None
    mean_percent: float | None = None
    low_percent: float | None = None
    high_percent: float | None = None
    detectable_percent: float | None = None
    margin_percent: float | None = None
    within_margin: bool = False


def paired_difference(
    baseline: Sequence[float],
    candidate: Sequence[float],
    *,
    lower_is_better: bool = True,
    margin: float | None = None,
) -> MeanDifference:
    """Compare values of the same seeds, in one order, as a family of one.

    `margin` is a share of the baseline's mean (0.01 for 1 %), taken as if that mean were exact; without one nothing is
    called equivalent. Raises ValueError on unequal lengths and non-finite values.
    """
    first, second = _finite(baseline), _finite(candidate)
    if first.shape != second.shape:
        raise ValueError(f"pairs need equal lengths, not {first.shape} and {second.shape}")
    n = len(first)
    if n < 2:
        return _without_spread(first, second, n, lower_is_better=lower_is_better, by_seed=True)
    differences = second - first
    sd = float(differences.std(ddof=1))
    found = _with_interval(
        first, second, n, float(differences.mean()), sd / math.sqrt(n), float(n - 1), lower_is_better, margin
    )
    return over_family([replace(found, sd=sd, correlation=_correlation(first, second))])[0]


def difference_of_means(
    baseline: Sequence[float],
    candidate: Sequence[float],
    *,
    lower_is_better: bool = True,
    margin: float | None = None,
) -> MeanDifference:
    """The same for values that share no seeds (Welch's t); `n` is the smaller of the two numbers of values."""
    first, second = _finite(baseline), _finite(candidate)
    n = min(len(first), len(second))
    if n < 2:
        return _without_spread(first, second, n, lower_is_better=lower_is_better, by_seed=False)
    parts = np.array([first.var(ddof=1) / len(first), second.var(ddof=1) / len(second)])
    error = math.sqrt(parts.sum())
    freedom = np.array([len(first) - 1, len(second) - 1])
    df = float(parts.sum() ** 2 / (parts**2 / freedom).sum()) if error > 0 else float(freedom.sum())
    mean = float(second.mean() - first.mean())
    found = _with_interval(first, second, n, mean, error, df, lower_is_better, margin)
    return over_family([replace(found, by_seed=False)])[0]


def over_family(found: Sequence[MeanDifference]) -> tuple[MeanDifference, ...]:
    """The same differences judged together, all those of one table. Those without a spread stay as they are."""
    judged = [index for index, one in enumerate(found) if one.p is not None]
    size = len(judged)
    adjusted = dict(zip(judged, _adjusted([found[index].p for index in judged]), strict=True))
    equivalences = [index for index in judged if found[index].p_equivalent is not None]
    same = dict(zip(equivalences, _adjusted([found[index].p_equivalent for index in equivalences]), strict=True))
    return tuple(
        _judged(one, size, adjusted[index], same.get(index)) if index in adjusted else one
        for index, one in enumerate(found)
    )


def _adjusted(p: Sequence[float | None]) -> list[float]:
    return [float(value) for value in holm(np.array(p, dtype=np.float64))] if p else []


def _judged(one: MeanDifference, family: int, p: float, p_equivalent: float | None) -> MeanDifference:
    assert one.error is not None
    assert one.df is not None
    seen = detectable(one.error, one.df, ALPHA / family)
    found = replace(
        one,
        family=family,
        p_adjusted=p,
        p_equivalent_adjusted=p_equivalent,
        detectable=seen,
        detectable_percent=_percent(seen, one.baseline_mean),
        within_margin=p_equivalent is not None and p_equivalent < ALPHA,
    )
    return replace(found, verdict=_verdict(found))


def _verdict(one: MeanDifference) -> str:
    if one.mean == one.error == 0:
        return IDENTICAL
    if one.p_adjusted is not None and one.mean is not None and one.p_adjusted < ALPHA:
        return BETTER if (one.mean < 0) == one.lower_is_better else WORSE
    return EQUIVALENT if one.within_margin else INCONCLUSIVE


def _with_interval(
    first: NDArray[np.float64],
    second: NDArray[np.float64],
    n: int,
    mean: float,
    error: float,
    df: float,
    lower_is_better: bool,
    margin: float | None,
) -> MeanDifference:
    half = float(stats.t.ppf((1 + LEVEL) / 2, df)) * error
    base = float(first.mean())
    size = margin * base if margin is not None and base > 0 else None
    return MeanDifference(
        n=n,
        baseline_mean=base,
        candidate_mean=float(second.mean()),
        mean=mean,
        verdict=INCONCLUSIVE,
        lower_is_better=lower_is_better,
        error=error,
        df=df,
        low=mean - half,
        high=mean + half,
        p=float(difference_p(mean, error, df)),
        margin=size,
        p_equivalent=None if size is None else float(equivalence_p(mean, error, df, size)),
        mean_percent=_percent(mean, base),
        low_percent=_percent(mean - half, base),
        high_percent=_percent(mean + half, base),
        margin_percent=None if size is None else _percent(size, base),
    )


def _without_spread(
    first: NDArray[np.float64], second: NDArray[np.float64], n: int, *, lower_is_better: bool, by_seed: bool
) -> MeanDifference:
    base, other = (float(side.mean()) if n and len(side) else None for side in (first, second))
    mean = None if base is None or other is None else other - base
    return MeanDifference(
        n=n,
        baseline_mean=base,
        candidate_mean=other,
        mean=mean,
        verdict=ONE_SEED if n else NOT_MEASURED,
        lower_is_better=lower_is_better,
        by_seed=by_seed,
        mean_percent=None if mean is None else _percent(mean, base),
    )


def _finite(values: Sequence[float]) -> NDArray[np.float64]:
    found = np.asarray(values, dtype=np.float64)
    if found.ndim != 1:
        raise ValueError(f"values must be in a row, not {found.shape}")
    if not np.isfinite(found).all():
        raise ValueError("values must be finite")
    return found


def _correlation(first: NDArray[np.float64], second: NDArray[np.float64]) -> float | None:
    if len(first) < 3 or np.ptp(first) == 0 or np.ptp(second) == 0:
        return None
    return float(np.clip(np.corrcoef(first, second)[0, 1], -1, 1))


def _percent(value: float, base: float | None) -> float | None:
    return 100 * value / base if base is not None and base > 0 else None
