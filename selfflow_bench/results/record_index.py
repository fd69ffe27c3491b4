"""The index of records: results/index.jsonl, a line for each record and each invalidation, chained, only appended to.

A line names, by their sha256, the lines it follows: all that no other line followed when it was written. That is one
line, or after a merge of two machines' indexes, which keeps the lines of both in any order, the last line of each. So
a line that is changed, moved up or taken out breaks those after it. Taking lines off the end breaks nothing; the board
says how many there are. Knows records as files with a hash and nothing of what is in them.
"""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from selfflow_bench.atomic_files import folder_lock, replace_text
from selfflow_bench.canonical import canonical_json
from selfflow_bench.errors import DamagedFileError
from selfflow_bench.identity import Name, Sha256

FILE = "index.jsonl"


class _Line(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    after: Annotated[tuple[Sha256, ...], Field(strict=False)] = ()
    run_id: Name


class Indexed(_Line):
    """A record was added; `sha256` is its file's."""

    kind: Literal["record"] = "record"
    sha256: Sha256


class Invalidation(_Line):
    """A record no longer counts: why, what shows it, and since when. The record stays."""

    kind: Literal["invalidation"] = "invalidation"
    reason: Annotated[str, Field(min_length=1)]
    evidence: Annotated[str, Field(min_length=1)]
    date: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\d$")]


Entry = Indexed | Invalidation
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Annotated[Entry, Field(discriminator="kind")])


@dataclass(frozen=True)
class Problem:
    """What is wrong with a line of the index; lines count from 1."""

    line: int
    text: str


@dataclass(frozen=True)
class Index:
    """The index as it was read. `tips` are the hashes of the lines that the next one follows."""

    entries: tuple[Entry, ...]
    tips: tuple[str, ...]
    problems: tuple[Problem, ...]
    text: str

    @property
    def hashes(self) -> dict[str, str]:
        """sha256 of each record's file, by run id."""
        return {one.run_id: one.sha256 for one in self.entries if isinstance(one, Indexed)}

    @property
    def invalidated(self) -> dict[str, Invalidation]:
        """Records that no longer count."""
        return {one.run_id: one for one in self.entries if isinstance(one, Invalidation)}


def read_index(root: Path) -> Index:
    """The index of a results folder, empty where there is none. What is wrong with it is named, never raised."""
    path = root / FILE
    return parse(path.read_bytes().decode("utf-8", errors="replace") if path.exists() else "")


def parse(text: str) -> Index:
    """The index that a text holds."""
    entries: list[Entry] = []
    problems: list[Problem] = []
    known: dict[str, int] = {}
    tips: dict[str, None] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if not line and number == text.count("\n") + 1:
            break
        own = hashlib.sha256(line.encode()).hexdigest()
        try:
            entry = _ENTRY.validate_json(line)
        except ValidationError as error:
            problems.append(Problem(number, f"is no line of an index ({error.errors()[0]['msg']})"))
        else:
            problems += [Problem(number, found) for found in _wrong(line, entry, entries, known)]
            entries.append(entry)
            for followed in entry.after:
                tips.pop(followed, None)
        known[own] = number
        tips[own] = None
    if text and not text.endswith("\n"):
        problems.append(Problem(text.count("\n") + 1, "is cut off: it has no end"))
    return Index(tuple(entries), tuple(tips), tuple(problems), text)


def extended(index: Index, additions: Sequence[Entry]) -> Index:
    """The index with what is added to it, less the records it has already.

    Raises DamagedFileError where the index has a problem: nothing is built on a broken chain.
    """
    if index.problems:
        first = index.problems[0]
        raise DamagedFileError(f"{FILE}: line {first.line} {first.text}. Restore the file from version control.")
    text, tips, known = index.text, index.tips, set(index.entries)
    have = {(one.run_id, one.sha256) for one in known if isinstance(one, Indexed)}
    for addition in additions:
        if isinstance(addition, Indexed) and (addition.run_id, addition.sha256) in have:
            continue
        line = canonical_json(addition.model_copy(update={"after": tips}).model_dump(mode="json"))
        text += line + "\n"
        tips = (hashlib.sha256(line.encode()).hexdigest(),)
    return parse(text)


def append(root: Path, additions: Callable[[Index], Sequence[Entry]], deadline_s: float = 30.0) -> None:
    """Add lines under the folder's lock; `additions` gets the index as it is then.

    Raises DamagedFileError where the index is damaged, BusyError where another process holds the folder too long.
    """
    with folder_lock(root, deadline_s):
        index = read_index(root)
        longer = extended(index, additions(index))
        if longer.text != index.text:
            replace_text(root / FILE, longer.text)


def file_hash(content: bytes) -> str:
    """sha256 of a record's file: what `sha256sum` prints."""
    return hashlib.sha256(content).hexdigest()


def _wrong(line: str, entry: Entry, before: Sequence[Entry], known: dict[str, int]) -> list[str]:
    found = []
    if line != canonical_json(_content(entry)):
        found.append("was edited: it is not as the suite writes it")
    if any(followed not in known for followed in entry.after):
        found.append("follows a line that is not above it: one was changed, moved or taken out")
    if not entry.after and known:
        found.append("follows no line, which only the first may")
    earlier = [one for one in before if isinstance(one, Indexed) and one.run_id == entry.run_id]
    if isinstance(entry, Invalidation) and not earlier:
        found.append(f"invalidates {entry.run_id}, which is not above it")
    if isinstance(entry, Indexed) and any(one.sha256 != entry.sha256 for one in earlier):
        found.append(f"gives {entry.run_id} another hash than a line above it")
    return found


def _content(entry: Entry) -> dict[str, Any]:
    return entry.model_dump(mode="json")
