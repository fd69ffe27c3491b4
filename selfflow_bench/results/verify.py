"""Checks every record of a results folder: form, place, index, digests, seeds, aggregates, holes. Changes nothing.

Recipes and the seed's rule come as arguments, so that this module knows neither.
"""

import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from selfflow_bench.canonical import digest
from selfflow_bench.errors import DamagedFileError
from selfflow_bench.results.record import SCHEMA_VERSION, Record
from selfflow_bench.results.record_files import RECORDS, canonical_text, kept, parse, read, record_path
from selfflow_bench.results.record_index import FILE, file_hash, read_index
from selfflow_bench.results.schema import schema_problems

Lock = Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True)
class Finding:
    """Something wrong ("error") or worth knowing ("note") in a record file; its path is within the results folder."""

    severity: Literal["error", "note"]
    path: str
    field: str
    problem: str

    def __str__(self) -> str:
        return f"{self.path}: {self.field}: {self.problem}"


def verify(root: Path, *, lock: Lock, derive_seed: Callable[[str, int], int]) -> list[Finding]:
    """Findings over all records under the results folder `root`, errors first, then by path; empty if all is well.

    `lock` is recipes/lock.json: {"recipes": {"sana@1": {tier: digest}}, "protocols": {"image-micro@1": digest},
    "methods": {"sana@1": {tier: {label: digest}}}}.
    `derive_seed(recipe digest, index)` is the rule seeds must follow.
    """
    index = read_index(root)
    findings = [Finding("error", FILE, f"line {one.line}", one.text) for one in index.problems]
    records: list[tuple[str, Record]] = []
    files = set()
    for path in sorted((root / RECORDS).rglob("*.json")):
        place = str(path.relative_to(root))
        files.add(path.stem)
        problems = list(_form(path))
        findings += [Finding("error", place, field, problem) for field, problem in problems]
        known = index.hashes.get(path.stem)
        if known is not None and known != file_hash(path.read_bytes()):
            findings.append(Finding("error", place, "index", "its sha256 is not the index's: it was changed"))
        if any(field in ("file", "schema") for field, _ in problems):
            continue
        record = read(path)
        records.append((place, record))
        if known is None and kept(record):
            findings.append(Finding("error", place, "index", "is not in the index; add it: selfflow-bench leaderboard"))
        if path != record_path(record, root):
            wanted = record_path(record, root).relative_to(root)
            findings.append(Finding("error", place, "run_id", f"the file must be {wanted}"))
        for field, problem in (*_identity(record, lock, derive_seed), *_aggregates(record)):
            findings.append(Finding("error", place, field, problem))
        if record.code.dirty:
            findings.append(
                Finding("note", place, "code.dirty", "made from a working tree that differed from its commit")
            )
    findings += [
        Finding("error", FILE, run_id, "has no file; restore it from version control")
        for run_id in sorted(set(index.hashes) - files)
    ]
    counted = [(place, record) for place, record in records if record.run_id not in index.invalidated]
    findings += _between(counted)
    return sorted(findings, key=lambda finding: (finding.severity, finding.path, finding.field))


def _form(path: Path) -> Iterator[tuple[str, str]]:
    try:
        data = path.read_bytes()
        text = data.decode("utf-8")
        content = json.loads(text)
    except (OSError, ValueError) as error:
        yield "file", f"not JSON ({error}); restore it from version control"
        return
    version = content.get("schema_version") if isinstance(content, dict) else None
    if isinstance(version, int) and version > SCHEMA_VERSION:
        yield "schema", f"schema_version {version} is newer than this version of the suite reads; update it"
        return
    problems = schema_problems(content)
    for problem in problems:
        yield "schema", problem
    if problems:
        return
    try:
        parse(data)
    except DamagedFileError as error:
        yield "schema", str(error)
        return
    if text != canonical_text(content):
        yield "canonical form", "the text is not as records are written; it was edited"


def _identity(record: Record, lock: Lock, derive_seed: Callable[[str, int], int]) -> Iterator[tuple[str, str]]:
    wanted = derive_seed(record.recipe.digest, record.seed.index)
    if record.seed.value != wanted:
        yield "seed.value", f"{record.seed.value}, but index {record.seed.index} derives {wanted}"
    known = lock.get("recipes", {}).get(str(record.recipe), {}).get(record.tier)
    if known != record.recipe.digest:
        yield "recipe.digest", f"{record.recipe.digest[:12]} is not the locked one of {record.recipe} ({_short(known)})"
    known = lock.get("methods", {}).get(str(record.recipe), {}).get(record.tier, {}).get(record.method.label)
    found = digest(record.method.settings)
    if known != found and not record.overrides:
        yield "method.settings", f"their digest {found[:12]} is not the locked one of {record.recipe} ({_short(known)})"
    known = lock.get("protocols", {}).get(str(record.protocol))
    if known != record.protocol.digest and not record.overrides:
        yield (
            "protocol.digest",
            f"{record.protocol.digest[:12]} is not the locked one of {record.protocol} ({_short(known)})",
        )


def _aggregates(record: Record) -> Iterator[tuple[str, str]]:
    for index, row in enumerate(record.validations):
        mean = fmean(row.per_timestep)
        if not math.isclose(row.loss, mean, rel_tol=1e-6):
            yield f"validations[{index}].loss", f"{row.loss}, but its timesteps average {mean}"
    if record.status != "success":
        return
    for name, rows in (
        ("curve", [r["samples"] for r in record.curve]),
        ("validations", [v.samples for v in record.validations]),
    ):
        if rows and rows[-1] != record.samples:
            yield name, f"ends at {rows[-1]} samples, but the run saw {record.samples}"
    timing = record.timing
    if timing.train_s and timing.samples_per_s:
        rate = record.samples / timing.train_s
        if not math.isclose(timing.samples_per_s, rate, rel_tol=0.01):
            yield (
                "timing.samples_per_s",
                f"{timing.samples_per_s}, but {record.samples} samples in {timing.train_s} s are {rate:.4g}",
            )
    if timing.train_s and timing.wall_s and timing.train_s > timing.wall_s * 1.001:
        yield "timing.train_s", f"{timing.train_s} s of training in a run of {timing.wall_s} s"


def _between(records: list[tuple[str, Record]]) -> Iterator[Finding]:
    by_id: dict[str, list[str]] = defaultdict(list)
    by_seed: dict[tuple[str, ...], dict[int, list[tuple[str, Record]]]] = defaultdict(lambda: defaultdict(list))
    for place, record in records:
        by_id[record.run_id].append(place)
        group = (
            record.recipe.digest,
            record.protocol.digest,
            record.tier,
            record.method.label,
            digest(record.method.settings),
        )
        by_seed[group][record.seed.index].append((place, record))
    for run_id, places in by_id.items():
        for place in places[1:]:
            yield Finding("error", place, "run_id", f"{run_id} is also in {places[0]}")
    for (_, _, tier, label, _), seeds in by_seed.items():
        missing = sorted(set(range(max(seeds))) - set(seeds))
        if missing:
            place, record = seeds[max(seeds)][0]
            text = f"{record.recipe} {tier} {label} has seed {max(seeds)} but not {', '.join(map(str, missing))}"
            yield Finding("error", place, "seed.index", text + "; seeds go from 0 without holes, failed runs included")
        for index, made in seeds.items():
            successes = [place for place, record in made if record.status == "success"]
            for place in successes[1:]:
                yield Finding("note", place, "seed.index", f"repeats seed {index}; the board counts the first one made")


def _short(known: Any) -> str:
    return str(known)[:12] if known else "which the lock does not have"
