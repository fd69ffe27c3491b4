"""Points of a record's curves, for whatever draws them. Knows records; nothing of figures.

Points are (samples seen, value) unless said otherwise; gaps are left out.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Sequence
from statistics import fmean

from selfflow_bench.results.record import Record

Points = list[tuple[float, float]]


def column(record: Record, *names: str) -> Points:
    """The first of the columns that a record's training curve has."""
    for name in names:
        found = [(row["samples"], row[name]) for row in record.curve if row.get(name) is not None]
        if found:
            return [(float(x), float(y)) for x, y in found if x is not None and y is not None]
    return []


def validation_losses(record: Record) -> Points:
    """The validation loss, from the untrained weights on."""
    return [(float(row.samples), row.loss) for row in record.validations]


def by_sigma(record: Record) -> Points:
    """(sigma, validation loss) at the end."""
    if not record.validations:
        return []
    losses = record.validations[-1].per_timestep
    return [((index + 0.5) / len(losses), loss) for index, loss in enumerate(losses)]


def over_baseline(record: Record, baseline: Sequence[Record], points: Callable[[Record], Points]) -> Points:
    """A record's points over those of the baseline's record of the same seed, minus 1, in percent, where both are."""
    same = next((dict(points(other)) for other in baseline if other.seed.index == record.seed.index), {})
    ratios = [(x, value / same[x]) for x, value in points(record) if same.get(x)]
    return [(x, 100 * (ratio - 1)) for x, ratio in ratios if math.isfinite(ratio)]


def mean_points(seeds: Sequence[Points]) -> Points:
    """The mean at each place that all seeds reached; the first seed's where they share none."""
    shared = set.intersection(*({x for x, _ in points} for points in seeds))
    values = [dict(points) for points in seeds]
    return [(x, fmean(points[x] for points in values)) for x in sorted(shared)] or list(seeds[0])


def seconds_at(record: Record, samples: float) -> float | None:
    """Seconds of training until a number of samples, on the line between two logged rows; null past the last."""
    rows = [(0.0, 0.0), *column(record, "seconds")]
    place = bisect_left(rows, (samples, -math.inf))
    if place == len(rows):
        return None
    (x, y), (before_x, before_y) = rows[place], rows[max(0, place - 1)]
    return y if x == samples else before_y + (y - before_y) * (samples - before_x) / (x - before_x)


def flops_at(record: Record, samples: float) -> float | None:
    """FLOPs of training until a number of samples; null where the record has no count."""
    per_sample = record.cost.get("flops_per_sample")
    return None if per_sample is None else per_sample * samples
