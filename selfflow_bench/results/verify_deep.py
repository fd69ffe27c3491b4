"""Derives again, from the recipe files and from the curves, what records and the lock say of themselves.

Slower than `verify`, which trusts the lock: every recipe is parsed and its transformer built without memory. Knows what
runs follow from a recipe; nothing of how they are run.
"""

import json
import math
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

from selfflow_bench.canonical import canonical_json, digest
from selfflow_bench.errors import SuiteError
from selfflow_bench.places import Places
from selfflow_bench.plan import RunSpec, lock_entries, make_plan
from selfflow_bench.protocol import VALIDATION_TIMESTEPS
from selfflow_bench.recipe import read_lock
from selfflow_bench.results.comparison import BASELINE
from selfflow_bench.results.record import Record
from selfflow_bench.results.record_files import RECORDS, read_all, record_path
from selfflow_bench.results.verify import Finding


def verify_deep(places: Places) -> list[Finding]:
    """Findings over the lock and all records that `read_all` trusts; empty if all of it can be derived again."""
    findings = [
        Finding("error", "lock.json", field, "is not what recipe files and code say: selfflow-bench lock --check")
        for field in _moved(read_lock(places.recipes), lock_entries(places))
    ]

    @cache
    def plan(recipe: str, tier: Any, label: str, overrides: str, seeds: int) -> tuple[RunSpec, ...]:
        return make_plan(places, recipe, tier=tier, labels=[label], seeds=seeds, overrides=json.loads(overrides)).runs

    records = read_all(places.results).records
    most: dict[tuple[str, str, str, str], int] = defaultdict(int)
    for record in records:
        most[_what(record)] = max(most[_what(record)], record.seed.index + 1)
    for record in records:
        where = record_path(record, places.results).relative_to(places.results).as_posix()
        try:
            runs = plan(*_what(record), most[_what(record)])
        except SuiteError as error:
            findings.append(Finding("error", where, "recipe", f"cannot be planned again: {error}"))
            continue
        spec = next(run for run in runs if (run.label, run.seed_index) == (record.method.label, record.seed.index))
        findings += [
            Finding("error", where, *found)
            for found in (*_identity(record, spec), *_rows(record, spec), *_whole(record, spec))
        ]
    findings += _matched(records)
    return sorted(findings, key=lambda finding: (finding.severity, finding.path, finding.field))


def _what(record: Record) -> tuple[str, str, str, str]:
    return str(record.recipe), record.tier, record.method.label, canonical_json(record.overrides)


def _moved(lock: Any, derived: Any, where: str = "") -> Iterator[str]:
    if isinstance(lock, dict) and isinstance(derived, dict):
        for key in sorted({*lock, *derived}):
            yield from _moved(lock.get(key), derived.get(key), f"{where}.{key}".lstrip("."))
    elif lock != derived:
        yield where


def _identity(record: Record, spec: RunSpec) -> Iterator[tuple[str, str]]:
    for field, found, wanted in (
        ("recipe.digest", record.recipe.digest, spec.recipe.digest),
        ("protocol.digest", record.protocol.digest, spec.protocol.digest),
        ("method.settings", digest(record.method.settings), spec.settings_digest),
        ("seed.value", record.seed.value, spec.seed),
        ("data", record.data, spec.data_digests),
        ("unpinned", record.unpinned, spec.unpinned),
    ):
        if found != wanted:
            yield field, f"{found}, but the recipe files give {wanted}"
    if not record.run_id.startswith(f"{spec.folder_name}-"):
        yield "run_id", f"does not begin with {spec.folder_name}, which is derived from all a run is given"


def _rows(record: Record, spec: RunSpec) -> Iterator[tuple[str, str]]:
    """Each row by itself, as far as a run came."""
    for index, validation in enumerate(record.validations):
        if len(validation.per_timestep) != VALIDATION_TIMESTEPS:
            yield f"validations[{index}]", f"has {len(validation.per_timestep)} timesteps, not {VALIDATION_TIMESTEPS}"
    for index, row in enumerate(record.curve):
        parts = [row.get(name) for name in ("loss_generative", "alignment_weight", "loss_alignment")]
        constant = spec.settings.get("schedule", {}).get("kind") == "constant"
        if constant and row.get("loss") is not None and all(part is not None for part in parts):
            generative, weight, alignment = (float(part or 0) for part in parts)
            whole = generative + weight * alignment
            if not math.isclose(float(row["loss"] or 0), whole, rel_tol=1e-4):
                yield f"curve[{index}].loss", f"{row['loss']}, but its parts make {whole}"


def _whole(record: Record, spec: RunSpec) -> Iterator[tuple[str, str]]:
    """The rows a run to its end must have, and what they add up to."""
    if record.status != "success":
        return
    training, evaluation = spec.conditions.training, spec.conditions.evaluation
    if record.samples != training.samples:
        yield "samples", f"{record.samples}, but the protocol trains {training.samples}"
    wanted = list(range(training.log_every, training.samples + 1, training.log_every))
    if [row["samples"] for row in record.curve] != wanted:
        yield "curve", f"has not the protocol's rows, one every {training.log_every} samples"
    wanted = sorted({*range(0, training.samples, evaluation.validation_every), training.samples})
    if [validation.samples for validation in record.validations] != wanted:
        yield "validations", f"are not the protocol's, one every {evaluation.validation_every} samples from 0"
    last = record.curve[-1].get("seconds") if record.curve else None
    if last is not None and record.timing.train_s and not math.isclose(last, record.timing.train_s, rel_tol=0.01):
        yield "timing.train_s", f"{record.timing.train_s} s, but the curve ends at {last} s"
    for name, metric in record.metrics.items():
        if metric.n not in (None, evaluation.samples):
            yield f"metrics.{name}.n", f"{metric.n}, but the protocol generates {evaluation.samples}"
        if metric.network not in (None, evaluation.network):
            yield f"metrics.{name}.network", f"{metric.network}, but the protocol has {evaluation.network}"


def _matched(records: Sequence[Record]) -> Iterator[Finding]:
    """Methods of one seed must have started from the same weights, and costs be over the same vanilla step."""
    base: dict[tuple[str, str, int], Record] = {}
    for record in records:
        if record.method.label == BASELINE and record.status == "success":
            base.setdefault((record.recipe.digest, record.protocol.digest, record.seed.index), record)
    for record in records:
        other = base.get((record.recipe.digest, record.protocol.digest, record.seed.index))
        if other is None or record.status != "success":
            continue
        where = f"{RECORDS}/{record.recipe.name}/{record.tier}/{record.run_id}.json"
        name = f"{other.run_id} has"
        # On one class of machine they are the same bits; elsewhere the arithmetic differs a little.
        tolerance = 1e-9 if record.hardware == other.hardware and record.versions == other.versions else 1e-3
        start, own = other.untrained_scores, record.untrained_scores
        for metric in sorted(set(start) & set(own)):
            one, two = own[metric].value, start[metric].value
            if one is not None and two is not None and not math.isclose(one, two, rel_tol=tolerance):
                yield Finding("error", where, f"untrained {metric}", f"{one}, but with the same seed {name} {two}")
        flops, vanilla = record.cost.get("flops_per_sample"), other.cost.get("flops_per_sample")
        ratio = record.cost.get("flops_over_vanilla")
        if flops and vanilla and ratio and not math.isclose(ratio, flops / vanilla, rel_tol=1e-6):
            text = f"{ratio}, but {name} {vanilla} FLOPs a sample, which makes {flops / vanilla}"
            yield Finding("error", where, "cost.flops_over_vanilla", text)
