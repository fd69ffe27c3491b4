"""Matched records set beside each other: per method its scores over seeds, and the paired differences to vanilla.

A pure function of records: same records, same answer. Refuses records that are not comparable and says by which field.
Knows nothing of files and of how the answer is shown.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from statistics import fmean, stdev
from typing import Any

from selfflow_bench.canonical import canonical_json, digest
from selfflow_bench.errors import SuiteError
from selfflow_bench.results.record import Metric, Record
from selfflow_bench.results.statistics import PairedDifference, paired_difference

BASELINE = "vanilla"


@dataclass(frozen=True)
class Score:
    """A metric of one method over its seeds. `mean` is null, with the reason, where no seed has a value."""

    n: int
    mean: float | None
    sd: float | None
    floor: float | None
    untrained: float | None
    media: int | None
    network: str | None
    rank_deficient: bool | None
    reason: str | None


@dataclass(frozen=True)
class Arm:
    """A method's matched runs. One successful run a seed, the first made: repeats are counted and never chosen from."""

    label: str
    settings_digest: str
    seeds: tuple[int, ...]
    repeats: int
    failed: tuple[str, ...]
    samples: int | None
    scores: dict[str, Score]
    train_s: float | None
    flops_over_baseline: float | None
    time_over_baseline: float | None
    peak_memory_mb: float | None


@dataclass(frozen=True)
class Difference:
    """One method against vanilla in one metric."""

    label: str
    metric: str
    lower_is_better: bool
    paired: PairedDifference


@dataclass(frozen=True)
class Comparison:
    """Records of one recipe, protocol and tier; the baseline's arm first."""

    recipe: str
    recipe_digest: str
    protocol: str
    protocol_digest: str
    tier: str
    overrides: dict[str, Any]
    arms: tuple[Arm, ...]
    differences: tuple[Difference, ...]

    def as_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return asdict(self)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics any arm has: validation loss, KIDs, then the others by name."""
        found = {name for arm in self.arms for name in arm.scores}
        return tuple(sorted(found, key=metric_order))


def metric_order(name: str) -> tuple[int, str]:
    """Sorting key: validation loss, then KID, which leads the distances, then the Frechet distance, then the rest."""
    kinds = ("validation_loss", "kid", "frechet")
    kind = name.partition("/")[0]
    return (kinds.index(kind) if kind in kinds else len(kinds), name)


def compare(records: Sequence[Record]) -> Comparison:
    """Compare records. Raises SuiteError if there are none, or naming the first field in which two must not differ."""
    if not records:
        raise SuiteError("comparison: there are no records. Run the recipe first.")
    _refuse_mixtures(records)
    by_arm: dict[tuple[str, str], list[Record]] = {}
    for record in sorted(records, key=lambda record: (record.created, record.run_id)):
        by_arm.setdefault((record.method.label, digest(record.method.settings)), []).append(record)
    keys = sorted(by_arm, key=lambda key: (key[0] != BASELINE, key))
    repeated = {label for label, _ in keys if sum(other == label for other, _ in keys) > 1}
    chosen = {key: _first_by_seed(by_arm[key]) for key in keys}
    base_key = next((key for key in keys if key[0] == BASELINE), None)
    base = chosen[base_key] if base_key else {}
    labels = {key: f"{key[0]} ({key[1][:8]})" if key[0] in repeated else key[0] for key in keys}
    arms = tuple(_arm(labels[key], key[1], by_arm[key], chosen[key], base) for key in keys)
    differences = [
        difference
        for key in keys
        if base_key and key != base_key
        for difference in _differences(labels[key], chosen[key], base)
    ]
    first = records[0]
    return Comparison(
        recipe=str(first.recipe),
        recipe_digest=first.recipe.digest,
        protocol=str(first.protocol),
        protocol_digest=first.protocol.digest,
        tier=first.tier,
        overrides=first.overrides,
        arms=arms,
        differences=tuple(differences),
    )


def _refuse_mixtures(records: Sequence[Record]) -> None:
    first = records[0]
    for other in records[1:]:
        for field, one, two in (
            ("recipe.name", first.recipe.name, other.recipe.name),
            ("tier", first.tier, other.tier),
            ("recipe.digest", first.recipe.digest, other.recipe.digest),
            ("protocol.digest", first.protocol.digest, other.protocol.digest),
            ("overrides", canonical_json(first.overrides), canonical_json(other.overrides)),
        ):
            if one != two:
                raise SuiteError(
                    f"comparison: {first.run_id} and {other.run_id} differ in {field} ({one} and {two}), so their "
                    "results cannot be compared. Choose runs of one recipe and protocol."
                )


def _first_by_seed(records: Iterable[Record]) -> dict[int, Record]:
    chosen: dict[int, Record] = {}
    for record in records:
        if record.status == "success":
            chosen.setdefault(record.seed.index, record)
    return dict(sorted(chosen.items()))


def _arm(label: str, settings: str, records: list[Record], chosen: dict[int, Record], base: dict[int, Record]) -> Arm:
    successes = sum(record.status == "success" for record in records)
    names = sorted({name for record in chosen.values() for name in record.scores}, key=metric_order)
    return Arm(
        label=label,
        settings_digest=settings,
        seeds=tuple(chosen),
        repeats=successes - len(chosen),
        failed=tuple(record.run_id for record in records if record.status != "success"),
        samples=next((record.samples for record in chosen.values()), None),
        scores={name: _score(name, list(chosen.values())) for name in names},
        train_s=_mean(record.timing.train_s for record in chosen.values()),
        flops_over_baseline=_mean(
            _ratio(record.cost.get("flops_per_sample"), base[seed].cost.get("flops_per_sample"))
            for seed, record in chosen.items()
            if seed in base
        ),
        time_over_baseline=_mean(_time_ratio(record, base[seed]) for seed, record in chosen.items() if seed in base),
        peak_memory_mb=_mean(record.cost.get("peak_memory_mb") for record in chosen.values()),
    )


def _score(name: str, records: list[Record]) -> Score:
    found = [record.scores.get(name, Metric(value=None, reason="not in the record")) for record in records]
    values = [metric.value for metric in found if metric.value is not None]
    started = [record.untrained_scores[name].value for record in records if name in record.untrained_scores]
    reasons = [metric.reason for metric in found if metric.reason]
    return Score(
        n=len(values),
        mean=_mean(values),
        sd=stdev(values) if len(values) > 1 else None,
        floor=_mean(metric.floor for metric in found),
        untrained=_mean(started),
        media=found[0].n,
        network=found[0].network,
        rank_deficient=found[0].rank_deficient,
        reason=reasons[0] if reasons else None,
    )


def _differences(label: str, chosen: dict[int, Record], base: dict[int, Record]) -> list[Difference]:
    names = {name for record in (*chosen.values(), *base.values()) for name in record.scores}
    found = []
    for name in sorted(names, key=metric_order):
        pairs = [
            (base[seed].scores.get(name), record.scores.get(name)) for seed, record in chosen.items() if seed in base
        ]
        both = [(one, two) for one, two in pairs if one and two and one.value is not None and two.value is not None]
        lower = all(one.lower_is_better and two.lower_is_better for one, two in both)
        paired = paired_difference(
            [one.value for one, _ in both if one.value is not None],
            [two.value for _, two in both if two.value is not None],
            lower_is_better=lower,
        )
        found.append(Difference(label, name, lower, paired))
    return found


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return fmean(present) if present else None


def _ratio(one: float | None, two: float | None) -> float | None:
    return one / two if one is not None and two else None


def _time_ratio(record: Record, base: Record) -> float | None:
    """Training time per sample over the baseline's, only if both ran on the same class of machine."""
    if record.hardware != base.hardware:
        return None
    ratio = _ratio(base.timing.samples_per_s, record.timing.samples_per_s)
    return ratio if ratio is not None and math.isfinite(ratio) else None
