"""Items of one's own: a folder of media with captions, or a parquet file. Decodes nothing.

The layouts are those of the hub's folder builders: ``metadata.jsonl`` or ``metadata.csv`` with ``file_name`` beside the
media, or a ``.txt`` beside each; folders named by their class.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from selfflow_bench.data.items import SPLITS, Item, Items, Kind, SplitName
from selfflow_bench.errors import FieldError

ENDINGS = {
    "image": (".jpg", ".jpeg", ".png", ".webp", ".bmp"),
    "video": (".mp4", ".webm", ".mkv", ".mov", ".avi", ".gif"),
    "audio": (".wav", ".flac", ".mp3", ".ogg", ".opus", ".m4a"),
}
HELD_OUT = 10
"""Of media without splits of their own, one in so many is held out, chosen by its name."""
CAPTIONS = ("text", "caption")
METADATA = ("metadata.jsonl", "metadata.csv")
_BATCH = 64


def own_items(path: Path, kind: Kind) -> Items:
    """The items of a folder or a parquet file.

    Subfolders ``train`` and ``validation`` are the splits; without them names decide. Raises FieldError where there is
    nothing of the kind, or something lacks its caption, class or reference.
    """
    walk = _parquet_walk(path, kind) if path.suffix == ".parquet" else _folder_walk(path, kind)
    content = hashlib.sha256()
    counts: dict[SplitName, int | None] = {}
    for split in SPLITS:
        content.update(split.encode())
        digests = [item.digest for item in walk(split)]
        content.update("".join(digests).encode())
        counts[split] = len(digests)
        if not digests:
            remedy = f"Give more ({', '.join(ENDINGS[kind.modality])}), or subfolders train and validation."
            raise _refusal(path, f"has no {kind.modality} for the {split} split", remedy)
    return Items({"own": content.hexdigest()}, counts, lambda split, row, state: _OwnStream(walk(split), row))


def split_of(name: str) -> SplitName:
    """The split of a medium that is in none: by its name, so that one more moves no other."""
    return "train" if int(hashlib.sha256(name.encode()).hexdigest(), 16) % HELD_OUT else "validation"


_Walk = Callable[[SplitName], Iterator[Item]]


@dataclass
class _OwnStream:
    items: Iterator[Item]
    first: int

    def __iter__(self) -> Iterator[Item]:
        return islice(self.items, self.first, None)

    def state(self) -> None:
        return None


def _folder_walk(path: Path, kind: Kind) -> _Walk:
    if not path.is_dir():
        raise _refusal(path, "is no folder", "Give a folder, or a .parquet file.")
    has_splits = all((path / split).is_dir() for split in SPLITS)
    classes: dict[str, int] = {}
    if kind.labelled:
        roots = [path / split for split in SPLITS] if has_splits else [path]
        found = sorted({folder.name for root in roots for folder in root.iterdir() if folder.is_dir()})
        classes = {name: place for place, name in enumerate(found)}

    def walk(split: SplitName) -> Iterator[Item]:
        root = path / split if has_splits else path
        table = next((root / name for name in METADATA if (root / name).exists()), None)
        items = _files(root, kind, classes) if table is None else _listed(root, table, kind)
        return (item for item in items if has_splits or split_of(item.name) == split)

    return walk


def _files(root: Path, kind: Kind, classes: Mapping[str, int]) -> Iterator[Item]:
    """Media with their captions beside them, or in folders named by their classes."""
    if kind.referenced:
        problem = "says of no picture which one it starts from"
        raise _refusal(root, problem, "Write metadata.jsonl with file_name, text and reference_file_name.")
    for path in sorted(found for found in root.rglob("*") if found.suffix.lower() in ENDINGS[kind.modality]):
        name = path.relative_to(root).as_posix()
        if kind.labelled:
            folder, inside, _ = name.partition("/")
            if not inside:
                raise _refusal(path, "lies in no folder that names its class", "Move it into one, or write metadata.")
            yield Item(name, path, label=classes[folder])
            continue
        text = path.with_suffix(".txt")
        if not text.exists():
            remedy = f"Write what {path.name} is of into it; an empty file is an empty caption."
            raise _refusal(text, f"is missing beside its {kind.modality}, and there is no {METADATA[0]}", remedy)
        yield Item(name, path, text.read_text(encoding="utf-8").strip())


def _listed(root: Path, table: Path, kind: Kind) -> Iterator[Item]:
    """Media as a table beside them names them."""
    for line, row in _rows(table):
        where = f"{table}, line {line}"

        def file(column: str, where: str = where, row: Mapping[str, Any] = row) -> Path:
            name = row.get(column)
            if not isinstance(name, str) or not (root / name).is_file():
                raise FieldError(where, column, name, f"is no file in {root}", "Name one, from that folder on.")
            return root / name

        medium = file("file_name")
        yield Item(
            str(row["file_name"]),
            medium,
            *_said(where, row, kind),
            file("reference_file_name") if kind.referenced else None,
        )


def _rows(table: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Each row with the line that it ends on, counted from 1."""
    with table.open(encoding="utf-8", newline="") as file:
        if table.suffix == ".csv":
            reader = csv.DictReader(file)
            yield from ((reader.line_num, row) for row in reader)
            return
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise _refusal(table, f"line {number} is no JSON: {error}", "Write one object a line.") from error
            yield number, row


def _parquet_walk(path: Path, kind: Kind) -> _Walk:
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        columns = set(pq.read_schema(path).names)
    except (OSError, ValueError) as error:
        raise _refusal(path, f"cannot be read: {error}", "Give a parquet file.") from error
    said = next((name for name in CAPTIONS if name in columns), CAPTIONS[0])
    wanted = [kind.modality, "label" if kind.labelled else said, *(["reference"] if kind.referenced else [])]
    for column in wanted:
        if column not in columns:
            problem = f"has no column {column}, but {', '.join(sorted(columns))}"
            raise _refusal(path, problem, f"Name a file with the columns {', '.join(wanted)}.")

    def walk(split: SplitName) -> Iterator[Item]:
        number = 0
        for batch in pq.ParquetFile(path).iter_batches(_BATCH, columns=wanted):
            for row in batch.to_pylist():
                name = f"{number:09d}"
                number += 1
                if split_of(name) == split:
                    where = f"{path}, row {number}"
                    medium = _bytes(where, kind.modality, row)
                    reference = _bytes(where, "reference", row) if kind.referenced else None
                    yield Item(name, medium, *_said(where, row, kind), reference)

    return walk


def _said(where: str, row: Mapping[str, Any], kind: Kind) -> tuple[str | None, int | None]:
    """A row's caption, or its class."""
    if kind.labelled:
        label = row.get("label")
        if not str(label).isdecimal():
            raise FieldError(where, "label", label, "is no class", "Give a number, counted from 0.")
        return None, int(str(label))
    found = next((row[name] for name in CAPTIONS if row.get(name) is not None), None)
    if not isinstance(found, str):
        raise FieldError(where, CAPTIONS[0], found, "is no caption", "Give a text; it may be empty.")
    return found, None


def _bytes(where: str, column: str, row: Mapping[str, Any]) -> bytes:
    value = row[column]
    content = value.get("bytes") if isinstance(value, Mapping) else value
    if not isinstance(content, bytes):
        raise FieldError(where, column, value, "holds no encoded medium", "Put the file's bytes there.")
    return content


def _refusal(path: Path, problem: str, remedy: str) -> FieldError:
    return FieldError("command line", "--data", str(path), problem, remedy)
