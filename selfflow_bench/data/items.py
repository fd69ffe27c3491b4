"""Pictures with captions as they come: from the hub, in a stream; from a folder or a parquet file of one's own.

What an item holds is still encoded. Knows nothing of latents and of what becomes of an item.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from selfflow_bench.errors import FieldError, InfrastructureError
from selfflow_bench.recipe import HubData, HubSet

SplitName = Literal["train", "validation"]
SPLITS: tuple[SplitName, ...] = ("train", "validation")
PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".bmp")
HELD_OUT = 10
"""Of pictures without splits of their own, one in so many is held out, chosen by its name."""


@dataclass(frozen=True)
class Item:
    """An encoded picture and what it shows."""

    name: str
    medium: bytes
    caption: str


@dataclass(frozen=True)
class Items:
    """Items of both splits.

    Args:
        identity: what they are, JSON-able: equal identities mean equal items.
        counts: how many there are in each split, as far as that is known beforehand.
        read: begins to read a split.
    """

    identity: dict[str, Any]
    counts: Mapping[SplitName, int | None]
    read: Callable[[SplitName], Iterator[Item]]


def hub_items(where: str, hub: HubData) -> Items:
    """The items of a protocol's data set. Reading raises InfrastructureError where the hub cannot be reached."""
    for field, one in (("data.hub", hub), ("data.hub.validation_from", hub.validation_from)):
        if one is not None and one.revision == "unpinned":
            raise FieldError(
                where, f"{field}.revision", one.revision, "is not pinned", "Pin it: selfflow-bench pin <recipe>"
            )
    return Items(
        hub.model_dump(mode="json"),
        {"train": hub.train_items, "validation": hub.validation_items},
        lambda split: _from_hub(hub, split),
    )


def own_items(path: Path) -> Items:
    """Pictures in a folder, each with its caption in a .txt file of its name; or the columns ``image`` and ``caption``
    of a parquet file. Subfolders ``train`` and ``validation`` are the splits; without them names decide.

    Raises FieldError where there is nothing of the kind.
    """
    read = _parquet_reader(path) if path.suffix == ".parquet" else _folder_reader(path)
    names = {split: [item.name for item in read(split)] for split in SPLITS}
    for split in SPLITS:
        if not names[split]:
            remedy = "Give more pictures, or subfolders train and validation."
            raise FieldError("command line", "--data", str(path), f"has no picture for the {split} split", remedy)
    content = hashlib.sha256()
    for split in SPLITS:
        for item in read(split):
            for part in (split.encode(), item.name.encode(), item.medium, item.caption.encode()):
                content.update(hashlib.sha256(part).digest())
    return Items({"own": content.hexdigest()}, {split: len(names[split]) for split in SPLITS}, read)


def _from_hub(hub: HubData, split: SplitName) -> Iterator[Item]:
    import datasets

    held_out = split == "validation"
    source: HubSet = hub.validation_from if held_out and hub.validation_from is not None else hub
    skip, count = (0, hub.validation_items) if held_out else (hub.train_skip, hub.train_items)
    if source.caption is None:
        raise FieldError(source.id, "caption", None, "only data with captions can be prepared", "Name its column.")
    try:
        rows = datasets.load_dataset(
            source.id,
            source.config,
            split=hub.validation if held_out else hub.train,
            revision=source.revision,
            streaming=True,
        )
        rows = rows.cast_column(source.medium, datasets.Image(decode=False)).skip(skip)
        for number, row in enumerate(rows if count is None else islice(rows, count)):
            caption = row[source.caption]
            yield Item(
                str(row.get("__key__", number)),
                _bytes(row[source.medium]),
                str(caption[0] if isinstance(caption, list) else caption),
            )
    except (OSError, ValueError) as error:
        text = str(error).splitlines()[0]
        raise InfrastructureError(f"{source.id}@{source.revision}: cannot be read from the hub: {text}") from error


def _folder_reader(path: Path) -> Callable[[SplitName], Iterator[Item]]:
    if not path.is_dir():
        remedy = "Give a folder of pictures, or a .parquet file."
        raise FieldError("command line", "--data", str(path), "is no folder", remedy)
    has_splits = all((path / split).is_dir() for split in SPLITS)

    def read(split: SplitName) -> Iterator[Item]:
        root = path / split if has_splits else path
        for picture in sorted(found for found in root.rglob("*") if found.suffix.lower() in PICTURES):
            name = picture.relative_to(root).as_posix()
            if not has_splits and split_of(name) != split:
                continue
            text = picture.with_suffix(".txt")
            if not text.exists():
                remedy = "Write what the picture shows into it; an empty file is an empty caption."
                raise FieldError("command line", "--data", str(text), "is missing beside its picture", remedy)
            yield Item(name, picture.read_bytes(), text.read_text(encoding="utf-8").strip())

    return read


def _parquet_reader(path: Path) -> Callable[[SplitName], Iterator[Item]]:
    import pyarrow.parquet as pq  # type: ignore[import-untyped]

    try:
        columns = pq.read_schema(path).names
    except OSError as error:
        raise FieldError("command line", "--data", str(path), f"cannot be read: {error}", "Give a file.") from error
    if not {"image", "caption"} <= set(columns):
        remedy = "Name a file with the columns image and caption."
        raise FieldError("command line", "--data", str(path), f"has the columns {', '.join(columns)}", remedy)

    def read(split: SplitName) -> Iterator[Item]:
        number = 0
        for batch in pq.ParquetFile(path).iter_batches(64, columns=["image", "caption"]):
            for row in batch.to_pylist():
                name = f"{number:09d}"
                number += 1
                if split_of(name) == split:
                    yield Item(name, _bytes(row["image"]), str(row["caption"]))

    return read


def split_of(name: str) -> SplitName:
    """The split of a picture that is in none: by its name, so that one more picture moves no other."""
    return "train" if int(hashlib.sha256(name.encode()).hexdigest(), 16) % HELD_OUT else "validation"


def _bytes(value: Any) -> bytes:
    content: bytes = value["bytes"] if isinstance(value, Mapping) else value
    return content
