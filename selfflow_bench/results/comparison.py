"""Matched records set beside each other: scores over seeds, and differences to a baseline with their verdicts.

A pure function of records and margins: same records, same answer. Refuses records that are not comparable and says by
which field. Knows nothing of files and of how the answer is shown.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean, stdev
from typing import Any

from selfflow_bench.canonical import canonical_json, digest
from selfflow_bench.errors import SuiteError
from selfflow_bench.results.equal_axes import AtEqual, at_equal
from selfflow_bench.results.record import VALIDATION_LOSS, Metric, Record
from selfflow_bench.results.statistics import (
    BETTER,
    EQUIVALENT,
    IDENTICAL,
    INCONCLUSIVE,
    WORSE,
    MeanDifference,
    difference_of_means,
    over_family,
    paired_difference,
)

BASELINE = "vanilla"
Margins = Mapping[str, Mapping[str, Any]]
"""By protocol ("image-micro@1") and kind of metric, how large a difference counts as none: a share of the baseline's
mean. As recipes/lock.json holds them."""
NO_MARGINS: Margins = {}


@dataclass(frozen=True)
class Score:
    """A metric of one method over its seeds. `mean` is null, with the reason, where no seed has a value.

    `reference_sha256` is of published statistics that the media were compared with in place of real media.
    """

    n: int
    mean: float | None
    sd: float | None
    floor: float | None
    untrained: float | None
    media: int | None
    network: str | None
    rank_deficient: bool | None
    reference_sha256: str | None
    reason: str | None


@dataclass(frozen=True)
class Arm:
    """A method's matched runs. One successful run a seed, the first made: repeats are counted and never chosen from.

    Only a difference pairs an arm's run with a repeat of the control's, where that was made on the same class of
    machine and the first was not.

    Seeds go from 0 without holes, so that none can be picked: where one has no run at all, it is in `missing` and those
    after it are in `beyond`, which do not count. `failed` are run ids, `lost` the seeds none of whose runs succeeded.
    """

    label: str
    settings_digest: str
    seeds: tuple[int, ...]
    repeats: int
    failed: tuple[str, ...]
    lost: tuple[int, ...]
    missing: tuple[int, ...]
    beyond: tuple[int, ...]
    samples: int | None
    scores: dict[str, Score]
    train_s: float | None
    flops_over_baseline: float | None
    time_over_baseline: float | None
    peak_memory_mb: float | None


@dataclass(frozen=True)
class Difference:
    """One arm against the baseline in one metric. All differences of a comparison are one family of verdicts.

    `lost` are seeds on which one of the two arms has failed and the other has not. No verdict favours the arm that
    failed: its means are over the seeds that went well.
    """

    label: str
    metric: str
    lower_is_better: bool
    paired: MeanDifference
    lost: tuple[int, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """Records of one recipe, protocol and tier; the baseline's arm first. `equal` is a family of its own."""

    baseline: str | None
    recipe: str
    recipe_digest: str
    protocol: str
    protocol_digest: str
    tier: str
    overrides: dict[str, Any]
    arms: tuple[Arm, ...]
    differences: tuple[Difference, ...]
    equal: tuple[AtEqual, ...]

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


def compare(records: Sequence[Record], margins: Margins = NO_MARGINS) -> Comparison:
    """Compare methods, each with vanilla.

    Raises SuiteError if there are no records, or naming the first field in which two must not differ.
    """
    if not records:
        raise SuiteError("comparison: there are no records. Run the recipe first.")
    _refuse_mixtures(records, _ALWAYS)
    by_arm: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        by_arm.setdefault((record.method.label, digest(record.method.settings)), []).append(record)
    keys = sorted(by_arm, key=lambda key: (key[0] != BASELINE, key))
    repeated = {label for label, _ in keys if sum(other == label for other, _ in keys) > 1}
    labels = {key: f"{key[0]} ({key[1][:8]})" if key[0] in repeated else key[0] for key in keys}
    baseline = next((labels[key] for key in keys if key[0] == BASELINE), None)
    return _comparison({labels[key]: by_arm[key] for key in keys}, baseline, margins)


@dataclass(frozen=True)
class Side:
    """One of two things to compare: what to call it, and its records, all of one method's settings."""

    title: str
    records: tuple[Record, ...]


def compare_sides(first: Side, second: Side, *, may_differ: Sequence[str], margins: Margins = NO_MARGINS) -> Comparison:
    """The second against the first, seed by seed; by their means where the recipe's digest may differ and does.

    `may_differ` names fields as the message of the SuiteError does that is raised where another one differs.
    """
    for side in (first, second):
        if not side.records:
            raise SuiteError(f"{side.title}: there are no records of it. Run it first.")
        _refuse_mixtures(side.records, _FIELDS)
    checked = [field for field in _FIELDS if field not in may_differ]
    _refuse_mixtures((first.records[0], second.records[0]), checked)
    if first.title == second.title:
        raise SuiteError(f"{first.title}: is compared with itself. Name two that differ.")
    one, two = ({record.seed.index for record in side.records} for side in (first, second))
    if not one & two:
        raise SuiteError(
            f"{first.title} and {second.title}: differ in seed.index ({_listed(one)} and {_listed(two)}), and only "
            "runs of one seed can be compared. Choose runs that share one."
        )
    return _comparison({side.title: list(side.records) for side in (first, second)}, first.title, margins)


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(seeds)))


_FIELDS = ("recipe.name", "tier", "recipe.digest", "protocol.digest", "overrides", "method.label", "method.settings")
_ALWAYS = _FIELDS[:5]


def _refuse_mixtures(records: Sequence[Record], fields: Sequence[str]) -> None:
    first = records[0]
    for other in records[1:]:
        for field in fields:
            one, two = _value(first, field), _value(other, field)
            if one != two:
                raise SuiteError(
                    f"comparison: {first.run_id} and {other.run_id} differ in {field} ({one} and {two}), so their "
                    "results cannot be compared. Choose runs of one recipe and protocol."
                )


def _value(record: Record, field: str) -> str:
    values = {
        "recipe.name": record.recipe.name,
        "tier": record.tier,
        "recipe.digest": record.recipe.digest,
        "protocol.digest": record.protocol.digest,
        "overrides": canonical_json(record.departures),
        "method.label": record.method.label,
        "method.settings": canonical_json(record.method.settings),
    }
    return values[field]


def _comparison(arms: Mapping[str, list[Record]], baseline: str | None, margins: Margins) -> Comparison:
    ordered = {
        label: sorted(records, key=lambda record: (record.created, record.run_id)) for label, records in arms.items()
    }
    chosen = {label: _first_by_seed(records) for label, records in ordered.items()}
    control = [record for record in ordered[baseline] if record.seed.index in chosen[baseline]] if baseline else []
    bases = {label: _matched(control, chosen[label]) for label in ordered}
    everything = [record for records in ordered.values() for record in records]
    made = {label: _arm(label, records, chosen[label], bases[label]) for label, records in ordered.items()}
    others = [label for label in ordered if baseline and label != baseline]
    by_seed = len({record.recipe.digest for record in everything}) == 1
    limits = margins.get(str(everything[0].protocol), {})
    differences = [
        difference
        for label in others
        for difference in _differences(label, chosen[label], bases[label], by_seed=by_seed, margins=limits)
    ]
    judged = over_family([difference.paired for difference in differences])
    differences = [replace(one, paired=paired) for one, paired in zip(differences, judged, strict=True)]
    return Comparison(
        baseline=baseline,
        recipe=_one_of(str(record.recipe) for record in everything),
        recipe_digest=_one_of(record.recipe.digest for record in everything),
        protocol=_one_of(str(record.protocol) for record in everything),
        protocol_digest=everything[0].protocol.digest,
        tier=everything[0].tier,
        overrides=everything[0].departures,
        arms=tuple(made.values()),
        differences=tuple(_without_survivors(one, made[one.label], made[baseline or ""]) for one in differences),
        equal=at_equal({label: (chosen[label], bases[label]) for label in others}, limits.get(VALIDATION_LOSS))
        if by_seed
        else (),
    )


def _one_of(values: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(values))


def _without_survivors(one: Difference, arm: Arm, base: Arm) -> Difference:
    """No verdict that favours an arm by the seeds it failed on."""
    lost, base_lost = set(arm.lost) & set(base.seeds), set(base.lost) & set(arm.seeds)
    unfair = {EQUIVALENT, IDENTICAL} if lost or base_lost else set()
    unfair |= {BETTER} if lost else set()
    unfair |= {WORSE} if base_lost else set()
    paired = replace(one.paired, verdict=INCONCLUSIVE) if one.paired.verdict in unfair else one.paired
    return replace(one, paired=paired, lost=tuple(sorted(lost | base_lost)))


def _first_by_seed(records: Iterable[Record]) -> dict[int, Record]:
    """Of each seed the first success, up to the first seed without any run."""
    runs = list(records)
    known = {record.seed.index for record in runs}
    chosen: dict[int, Record] = {}
    for record in runs:
        if record.status == "success" and known.issuperset(range(record.seed.index)):
            chosen.setdefault(record.seed.index, record)
    return dict(sorted(chosen.items()))


def _matched(control: Sequence[Record], arm: Mapping[int, Record]) -> dict[int, Record]:
    """The control's run of each seed: the first made on the arm's own class of machine, else the first made.

    Processors round differently, and a training carries that on: a pair is matched whole only on one kind of them. The
    rule looks at no result.
    """
    chosen: dict[int, Record] = {}
    for record in control:
        if record.status == "success":
            first = chosen.setdefault(record.seed.index, record)
            partner = arm.get(record.seed.index)
            if partner is not None and first.hardware != partner.hardware == record.hardware:
                chosen[record.seed.index] = record
    return dict(sorted(chosen.items()))


def _arm(label: str, records: list[Record], chosen: dict[int, Record], base: dict[int, Record]) -> Arm:
    known = {record.seed.index for record in records}
    succeeded = {record.seed.index for record in records if record.status == "success"}
    missing = tuple(sorted(set(range(max(known))) - known))
    counted = [record for record in records if record.status == "success" and record.seed.index in chosen]
    names = sorted({name for record in chosen.values() for name in record.scores}, key=metric_order)
    return Arm(
        label=label,
        settings_digest=digest(records[0].method.settings),
        seeds=tuple(chosen),
        repeats=len(counted) - len(chosen),
        failed=tuple(record.run_id for record in records if record.status != "success"),
        lost=tuple(sorted(known - succeeded)),
        missing=missing,
        beyond=tuple(sorted(succeeded - set(chosen))),
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
        reference_sha256=found[0].reference_sha256,
        reason=reasons[0] if reasons else None,
    )


def _differences(
    label: str, chosen: dict[int, Record], base: dict[int, Record], *, by_seed: bool, margins: Mapping[str, Any]
) -> list[Difference]:
    names = {name for record in (*chosen.values(), *base.values()) for name in record.scores}
    found = []
    for name in sorted(names, key=metric_order):
        values = [
            {seed: record.scores[name] for seed, record in side.items() if name in record.scores}
            for side in (base, chosen)
        ]
        present = [{seed: one.value for seed, one in side.items() if one.value is not None} for side in values]
        lower = all(metric.lower_is_better for side in values for metric in side.values())
        margin = margins.get(name.partition("/")[0])
        if by_seed:
            seeds = sorted(set(present[0]) & set(present[1]))
            sides = [[side[seed] for seed in seeds] for side in present]
            paired = paired_difference(*sides, lower_is_better=lower, margin=margin)
        else:
            sides = [list(side.values()) for side in present]
            paired = difference_of_means(*sides, lower_is_better=lower, margin=margin)
        found.append(Difference(label, name, lower, paired))
    return found


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    return fmean(present) if present else None


def _ratio(one: float | None, two: float | None) -> float | None:
    return one / two if one is not None and two else None


def _time_ratio(record: Record, base: Record) -> float | None:
    """Training time per sample over the baseline's, only if both ran undisturbed on the same class of machine."""
    if record.hardware != base.hardware or record.timing.is_disturbed or base.timing.is_disturbed:
        return None
    ratio = _ratio(base.timing.samples_per_s, record.timing.samples_per_s)
    return ratio if ratio is not None and math.isfinite(ratio) else None
