"""Records as files: results/records/<recipe>/<tier>/<run_id>.json, canonical text, never overwritten.

Also the list of invalidated ones (results/invalidated.jsonl). Knows nothing of comparing records.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from selfflow_bench.atomic_files import create_text, folder_lock, replace_text
from selfflow_bench.errors import DamagedFileError, SuiteError
from selfflow_bench.results.privacy import machine_name_in, strings
from selfflow_bench.results.record import Record

RECORDS, INVALIDATED = "records", "invalidated.jsonl"
# Filled from the machine, so that its name could have got in; the other fields come from files of the repository.
_FROM_THE_MACHINE = ("hardware", "failure", "code", "container", "cost", "seed")


@dataclass(frozen=True)
class Damaged:
    """A record file that cannot be used: its path within the results folder, and why."""

    path: str
    problem: str


@dataclass(frozen=True)
class Reading:
    """All records of a results folder, sorted by run id; what is invalidated (id to reason) or damaged apart."""

    records: tuple[Record, ...]
    damaged: tuple[Damaged, ...]
    invalidated: dict[str, str]


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
    """Write a record into the results folder `root`; its path. Writing the same record again changes nothing.

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
    return path


def read(path: Path) -> Record:
    """One record. Raises DamagedFileError naming the file and the first field that is wrong."""
    try:
        return Record.model_validate_json(path.read_bytes())
    except OSError as error:
        raise DamagedFileError(
            f"{path}: cannot be read ({error.strerror}). Restore it from version control."
        ) from error
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"]) or "record"
        text = f"{path}: {place}: {first['msg']}. Restore it from version control."
        raise DamagedFileError(text) from error


def read_all(root: Path) -> Reading:
    """Every record under the results folder `root`; damaged files are named, never raised."""
    records, damaged = [], []
    invalidated = read_invalidated(root)
    for path in sorted((root / RECORDS).rglob("*.json")):
        try:
            record = read(path)
        except DamagedFileError as error:
            damaged.append(Damaged(str(path.relative_to(root)), str(error).removeprefix(f"{path}: ")))
        else:
            if record.run_id not in invalidated:
                records.append(record)
    return Reading(tuple(sorted(records, key=lambda record: record.run_id)), tuple(damaged), invalidated)


def read_invalidated(root: Path) -> dict[str, str]:
    """Run ids that no longer count, with their reasons. Raises DamagedFileError naming the line that is wrong."""
    path = root / INVALIDATED
    if not path.exists():
        return {}
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        try:
            entry = json.loads(line)
            found[str(entry["run_id"])] = str(entry["reason"])
        except (ValueError, TypeError, KeyError) as error:
            text = f'{path}: line {number}: must be {{"run_id": "...", "reason": "..."}}. Mend or remove the line.'
            raise DamagedFileError(text) from error
    return found


def invalidate(run_id: str, reason: str, root: Path) -> None:
    """Add the line that takes a record out of every comparison; the record itself stays.

    Raises SuiteError without a reason, or if there is no such record.
    """
    if not reason.strip():
        raise SuiteError(f"record {run_id}: an invalidation needs its reason. Say what is wrong with the record.")
    if not list((root / RECORDS).rglob(f"{run_id}.json")):
        raise SuiteError(f"{root / RECORDS}: there is no record {run_id}. Give the id of one that is there.")
    path = root / INVALIDATED
    with folder_lock(root):
        before = path.read_text(encoding="utf-8") if path.exists() else ""
        replace_text(path, before + _line({"reason": reason.strip(), "run_id": run_id}) + "\n")


def _line(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False)
