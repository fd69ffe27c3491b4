"""Records as files: results/records/<recipe>/<tier>/<run_id>.json, canonical text, never overwritten, indexed.

What is read is trusted only as far as it is what was written: see `read_all`. Knows nothing of comparing records.
"""

import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from selfflow_bench.atomic_files import create_text
from selfflow_bench.errors import DamagedFileError, SuiteError
from selfflow_bench.results.privacy import machine_name_in, strings
from selfflow_bench.results.record import SCHEMA_VERSION, Record
from selfflow_bench.results.record_index import Index, Indexed, Invalidation, append, file_hash, read_index

RECORDS = "records"
# Filled from the machine, so that its name could have got in; the other fields come from files of the repository.
_FROM_THE_MACHINE = ("hardware", "failure", "code", "container", "cost", "seed")


@dataclass(frozen=True)
class Damaged:
    """A record file that cannot be used: its path within the results folder, and why."""

    path: str
    problem: str


@dataclass(frozen=True)
class Reading:
    """All records of a results folder, sorted by run id; what is invalidated or damaged apart.

    `unindexed` are those of the records that are not in the index yet, in the order in which they were made.
    """

    records: tuple[Record, ...]
    damaged: tuple[Damaged, ...]
    invalidated: dict[str, Invalidation]
    unindexed: tuple[Indexed, ...] = ()


def record_text(record: Record) -> str:
    """The canonical text: sorted keys, one line a field, one line a row of a table; floats as Python repeats them."""
    return canonical_text(record.model_dump(mode="json", by_alias=True))


def canonical_text(content: dict[str, Any]) -> str:
    """`record_text` of parsed JSON."""
    fields = []
    for key in sorted(content):
        value = content[key]
        if isinstance(value, list) and value:
            body = "[\n" + ",\n".join("  " + _line(item) for item in value) + "\n ]"
        else:
            body = _line(value)
        fields.append(f" {json.dumps(key)}: {body}")
    return "{\n" + ",\n".join(fields) + "\n}\n"


def record_path(record: Record, root: Path) -> Path:
    """Where the record belongs in a results folder."""
    return root / RECORDS / record.recipe.name / record.tier / f"{record.run_id}.json"


def write(record: Record, root: Path) -> Path:
    """Write a record into the results folder `root` and its line into the index; the record's path.

    Writing the same record again changes nothing.

    Raises SuiteError if another record has its name already, or if it names this machine or its user.
    """
    content = record.model_dump(mode="json", by_alias=True)
    for place, text in strings({field: content[field] for field in _FROM_THE_MACHINE}):
        found = machine_name_in(text)
        if found:
            raise SuiteError(f"record {record.run_id}: {place} holds {found!r}, a name of this machine. Take it out.")
    path, text = record_path(record, root), record_text(record)
    if not create_text(path, text) and path.read_text(encoding="utf-8") != text:
        raise SuiteError(
            f"{path}: holds a different record already, and records are never overwritten. "
            "Give the run another id, or invalidate the old record and keep it."
        )
    if kept(record):
        append(root, lambda _: [Indexed(run_id=record.run_id, sha256=file_hash(text.encode()))])
    return path


def read(path: Path) -> Record:
    """One record. Raises DamagedFileError naming the file and the first field that is wrong."""
    try:
        return parse(path.read_bytes())
    except OSError as error:
        raise DamagedFileError(
            f"{path}: cannot be read ({error.strerror}). Restore it from version control."
        ) from error
    except DamagedFileError as error:
        raise DamagedFileError(f"{path}: {error}") from error


def parse(content: bytes) -> Record:
    """The record that a file's content is. Raises DamagedFileError naming the first field that is wrong."""
    try:
        return Record.model_validate_json(content)
    except ValidationError as error:
        version = _schema_version(content)
        if version is not None and version > SCHEMA_VERSION:
            raise DamagedFileError(
                f"schema_version: {version} is newer than what this suite reads ({SCHEMA_VERSION}). Update the suite."
            ) from error
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "record"
        raise DamagedFileError(f"{place}: {first['msg']}. Restore it from version control.") from error


def read_all(root: Path) -> Reading:
    """Every record under the results folder `root` that is what was written, once.

    Named as damaged, never raised: a file that cannot be read or parsed, is of a newer schema, was edited, is not where
    its run id says (so a copy too) or is not what the index says; and a record of the index that has no file.
    """
    records: list[Record] = []
    damaged: list[Damaged] = []
    unindexed: list[tuple[str, Indexed]] = []
    index = read_index(root)
    seen = set()
    for path in sorted((root / RECORDS).rglob("*.json")):
        place = path.relative_to(root).as_posix()
        try:
            content = path.read_bytes()
            record = parse(content)
            _refuse_edited(record, content, path, root, index)
        except (OSError, DamagedFileError) as error:
            damaged.append(Damaged(place, str(error)))
            seen.add(path.stem)
            continue
        seen.add(record.run_id)
        if record.run_id not in index.hashes and kept(record):
            unindexed.append((record.created, Indexed(run_id=record.run_id, sha256=file_hash(content))))
        if record.run_id not in index.invalidated:
            records.append(record)
    damaged += [Damaged(run_id, "is in the index, but has no file") for run_id in index.hashes if run_id not in seen]
    in_order = sorted(unindexed, key=lambda one: (one[0], one[1].run_id))
    return Reading(
        records=tuple(sorted(records, key=lambda record: record.run_id)),
        damaged=tuple(damaged),
        invalidated=index.invalidated,
        unindexed=tuple(entry for _, entry in in_order),
    )


def invalidate(run_id: str, reason: str, evidence: str, root: Path) -> None:
    """Add the line that takes a record out of every comparison; the record itself stays.

    Raises SuiteError without a reason and evidence, or if there is no such record, it is invalidated already or is of a
    smoke run.
    """
    for field, text in (("reason", reason), ("evidence", evidence)):
        if not text.strip():
            raise SuiteError(
                f"record {run_id}: an invalidation needs its {field}. Say what is wrong and what shows it."
            )
    found = list((root / RECORDS).rglob(f"{run_id}.json"))
    if not found:
        raise SuiteError(f"{root / RECORDS}: there is no record {run_id}. Give the id of one that is there.")
    if not kept(read(found[0])):
        raise SuiteError(f"record {run_id}: is of a smoke run, which never counts. There is nothing to take out.")
    line = Invalidation(
        run_id=run_id,
        reason=reason.strip(),
        evidence=evidence.strip(),
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
    )

    def additions(index: Index) -> list[Indexed | Invalidation]:
        if run_id in index.invalidated:
            raise SuiteError(f"record {run_id}: is invalidated already ({index.invalidated[run_id].reason}).")
        if run_id in index.hashes:
            return [line]
        return [Indexed(run_id=run_id, sha256=file_hash(found[0].read_bytes())), line]

    append(root, additions)


def kept(record: Record) -> bool:
    """Whether a record is for keeping, and so is indexed: smoke runs only show on a machine that the path works."""
    return record.tier != "smoke"


def _refuse_edited(record: Record, content: bytes, path: Path, root: Path, index: Index) -> None:
    if path != record_path(record, root):
        wanted = record_path(record, root).relative_to(root).as_posix()
        raise DamagedFileError(f"run_id: the file must be {wanted}; this one is a copy or was moved. Take it away.")
    if content.decode("utf-8", errors="replace") != canonical_text(json.loads(content)):
        raise DamagedFileError("was edited: the text is not as records are written. Restore it from version control.")
    known = index.hashes.get(record.run_id)
    if known not in (None, file_hash(content)):
        raise DamagedFileError("was changed: its sha256 is not the index's. Restore it from version control.")


def _schema_version(content: bytes) -> int | None:
    try:
        found = json.loads(content)["schema_version"]
    except (ValueError, TypeError, KeyError):
        return None
    return found if isinstance(found, int) else None


def _line(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
