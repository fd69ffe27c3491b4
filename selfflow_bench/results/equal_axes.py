"""Validation loss of two arms at equal samples, equal FLOPs and equal time: what a method's steps are worth.

A step of one method can cost more than one of another, and the metrics at the end stand at equal samples only. Knows
records; nothing of how the answer is shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from selfflow_bench.results.record import Record
from selfflow_bench.results.statistics import MeanDifference, over_family, paired_difference

Axis = Literal["samples", "FLOPs", "seconds"]
AXES: tuple[Axis, ...] = ("samples", "FLOPs", "seconds")


@dataclass(frozen=True)
class AtEqual:
    """Validation loss where every run has spent `budget` of one thing: the most that all runs of both arms reached.

    Between validations the loss is interpolated linearly. A curve that levels off lies below such a line, which counts
    a little against the arm that is read between two. Without a budget, `reason` says why there is none.
    """

    label: str
    axis: Axis
    budget: float | None
    paired: MeanDifference
    reason: str | None = None


def at_equal(
    arms: Mapping[str, tuple[Mapping[int, Record], Mapping[int, Record]]], margin: float | None
) -> tuple[AtEqual, ...]:
    """Each arm against its baseline (both records by seed) on every axis; all verdicts one family."""
    found = [_at_equal(label, axis, records, base, margin) for label, (records, base) in arms.items() for axis in AXES]
    judged = over_family([one.paired for one in found])
    return tuple(
        AtEqual(one.label, one.axis, one.budget, paired, one.reason) for one, paired in zip(found, judged, strict=True)
    )


def _at_equal(
    label: str, axis: Axis, records: Mapping[int, Record], base: Mapping[int, Record], margin: float | None
) -> AtEqual:
    seeds = sorted(set(records) & set(base))
    pairs = [(base[seed], records[seed]) for seed in seeds]
    nothing = paired_difference([], [])
    if not pairs:
        return AtEqual(label, axis, None, nothing, "no seed has succeeded in both")
    if axis == "seconds" and any(one.hardware != pairs[0][0].hardware for pair in pairs for one in pair):
        return AtEqual(label, axis, None, nothing, "not on the same class of machine")
    if axis == "seconds" and any(one.timing.is_disturbed for pair in pairs for one in pair):
        return AtEqual(label, axis, None, nothing, "timed on a machine that did other work too")
    curves = [[_spent(record, axis) for record in pair] for pair in pairs]
    if any(len(curve) < 2 for both in curves for curve in both):
        return AtEqual(label, axis, None, nothing, f"a record has no validations with {axis}")
    budget = min(curve[-1][0] for both in curves for curve in both)
    losses = [[_at(curve, budget) for curve in both] for both in curves]
    paired = paired_difference([one for one, _ in losses], [two for _, two in losses], margin=margin)
    return AtEqual(label, axis, budget, paired)


def _spent(record: Record, axis: Axis) -> list[tuple[float, float]]:
    """(spent, loss) of each validation whose spending is known."""
    if axis == "FLOPs":
        flops = record.cost.get("flops_per_sample")
        return [(one.samples * flops, one.loss) for one in record.validations] if flops else []
    if axis == "samples":
        return [(float(one.samples), one.loss) for one in record.validations]
    seconds = {row["samples"]: row.get("seconds") for row in record.curve} | {0: 0.0}
    spent = [(seconds.get(one.samples), one.loss) for one in record.validations]
    return [(float(at), loss) for at, loss in spent if at is not None]


def _at(curve: list[tuple[float, float]], budget: float) -> float:
    return float(np.interp(budget, [at for at, _ in curve], [loss for _, loss in curve]))
