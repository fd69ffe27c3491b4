"""t tests on summaries: different, equivalent, and what could have been seen at all; Holm over a family of them.

Everything takes an estimate, its standard error and its degrees of freedom, as numbers or as arrays of them, so that
each rate can be checked on many thousand simulated experiments. Knows nothing of metrics and verdicts.
"""

import math
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import optimize, stats

ALPHA = 0.05
POWER = 0.80

Floats = NDArray[np.float64]


def difference_p(estimate: ArrayLike, error: ArrayLike, df: float | Floats) -> Floats:
    """Two-sided p value of "there is no difference". With no error at all: 1 for an estimate of 0, else 0."""
    return np.asarray(2 * stats.t.sf(np.abs(_ratio(estimate, error)), df), dtype=np.float64)


def equivalence_p(estimate: ArrayLike, error: ArrayLike, df: float | Floats, margin: ArrayLike) -> Floats:
    """p value of "the difference is at least the margin", by two one-sided tests: the larger of theirs."""
    estimate, margin = np.asarray(estimate, dtype=np.float64), np.asarray(margin, dtype=np.float64)
    above = stats.t.sf(_ratio(estimate + margin, error), df)
    below = stats.t.cdf(_ratio(estimate - margin, error), df)
    return np.asarray(np.maximum(above, below), dtype=np.float64)


def holm(p: ArrayLike) -> Floats:
    """Holm's adjusted p values over the last axis: all below 5 % rejected, the chance of any false one is 5 %."""
    values = np.asarray(p, dtype=np.float64)
    size = values.shape[-1]
    order = np.argsort(values, axis=-1)
    stepped = np.take_along_axis(values, order, -1) * (size - np.arange(size))
    rising = np.minimum(np.maximum.accumulate(stepped, axis=-1), 1.0)
    adjusted = np.empty_like(rising)
    np.put_along_axis(adjusted, order, rising, -1)
    return adjusted


def detectable(error: float, df: float, alpha: float = ALPHA) -> float:
    """The smallest true difference that the two-sided test at `alpha` shows with 80 % power."""
    return _detectable_noncentrality(df, alpha) * error


@lru_cache(maxsize=256)
def _detectable_noncentrality(df: float, alpha: float) -> float:
    """The noncentral t's parameter at which the test has its power: a mean over the chi distribution of the spread.

    Not `scipy.stats.nct`, which answers NaN for the parameters that 1 and 2 degrees of freedom need (SciPy 1.17).
    """
    critical = float(stats.t.isf(alpha / 2, df))
    shares = (np.arange(20_000) + 0.5) / 20_000
    bounds = critical * stats.chi.ppf(shares, df) / math.sqrt(df)

    def missing_power(noncentrality: float) -> float:
        return float((stats.norm.cdf(noncentrality - bounds) + stats.norm.cdf(-noncentrality - bounds)).mean()) - POWER

    return float(optimize.brentq(missing_power, 0.0, 4.0 * critical, xtol=1e-9))


def _ratio(estimate: ArrayLike, error: ArrayLike) -> Floats:
    """estimate / error, and 0 or an infinity where there is no error."""
    value, size = np.broadcast_arrays(np.asarray(estimate, dtype=np.float64), np.asarray(error, dtype=np.float64))
    certain: Floats = np.where(value == 0, 0.0, np.copysign(np.inf, value))
    np.divide(value, size, out=certain, where=size > 0)
    return certain
