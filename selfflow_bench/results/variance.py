"""Two levels of variance: between training seeds, and between sampling seeds of one trained network.

Re-training moves a score far more than sampling again, so an error over generated media alone says nothing of a method.
Knows nothing of records: it takes a table of scores.
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


@dataclass(frozen=True)
class VarianceComponents:
    """What a table of scores [training seeds, sampling seeds] says of its two sources of spread.

    `training_sd` is the spread that re-training adds, at least 0; `sampling_sd` that of sampling a trained network
    again. `p` belongs to "re-training adds none" (F test). `error` is the standard error of the mean over everything,
    with `df` = training seeds - 1 degrees of freedom; `error_by_sampling_alone` is what one would believe it to be who
    takes all scores for independent samplings.
    """

    mean: float
    training_sd: float
    sampling_sd: float
    p: float
    error: float
    df: int
    error_by_sampling_alone: float


def variance_components(scores: ArrayLike) -> VarianceComponents:
    """Components by analysis of variance. Raises ValueError without 2 rows of at least 2 finite scores each."""
    table = np.asarray(scores, dtype=np.float64)
    if table.ndim != 2 or min(table.shape) < 2 or not np.isfinite(table).all():
        raise ValueError(f"needs finite scores [training seeds >= 2, sampling seeds >= 2], not {table.shape}")
    seeds, resamplings = table.shape
    within = float(table.var(axis=1, ddof=1).mean())
    between = resamplings * float(table.mean(axis=1).var(ddof=1))
    without_spread = 0.0 if between > 0 else 1.0
    p = float(stats.f_oneway(*table).pvalue) if within > 0 else without_spread
    return VarianceComponents(
        mean=float(table.mean()),
        training_sd=math.sqrt(max(0.0, (between - within) / resamplings)),
        sampling_sd=math.sqrt(within),
        p=p,
        error=math.sqrt(between / table.size),
        df=seeds - 1,
        error_by_sampling_alone=math.sqrt(within / table.size),
    )
