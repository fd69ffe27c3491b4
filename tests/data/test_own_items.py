"""One's own data in each layout that is read, and what is said of what is not."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from selfflow_bench.data.items import Item, Items, Kind
from selfflow_bench.data.own_items import own_items, split_of
from selfflow_bench.errors import FieldError
from tests.data.made_media import write_clip

PICTURES, EDITS = Kind("image"), Kind("image", referenced=True)
CLASSES = Kind("image", labelled=True)


def draw(path: Path, level: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), level, dtype=np.uint8)).save(path)
    return path


def read(items: Items, split: Any = "train") -> list[Item]:
    return list(items.read(split, 0, None))


@pytest.fixture
def splits(tmp_path: Path) -> Path:
    """Two pictures to train on and one held out, without anything said of them."""
    for number, split in enumerate(("train", "train", "validation")):
        draw(tmp_path / "mine" / split / f"{number}.png", number)
    return tmp_path / "mine"


def say(splits: Path, file: str, content: str) -> None:
    for split in ("train", "validation"):
        (splits / split / file).write_text(content)


def test_captions_beside_the_media(splits: Path) -> None:
    for picture in splits.rglob("*.png"):
        picture.with_suffix(".txt").write_text(f"picture {picture.stem}\n")
    items = own_items(splits, PICTURES)
    assert items.counts == {"train": 2, "validation": 1}
    assert [(item.name, item.caption) for item in read(items)] == [("0.png", "picture 0"), ("1.png", "picture 1")]
    assert [item.name for item in items.read("train", 1, None)] == ["1.png"]
    before = items.identity
    (splits / "train" / "0.txt").write_text("another")
    assert own_items(splits, PICTURES).identity != before
    (splits / "train" / "0.txt").unlink()
    with pytest.raises(FieldError, match=r"0\.txt.*is missing beside its image"):
        own_items(splits, PICTURES)


@pytest.mark.parametrize("table", ["metadata.jsonl", "metadata.csv"])
def test_a_table_is_read_as_the_hub_s_own_builder_reads_it(splits: Path, table: str) -> None:
    captions = {"0.png": 'a "red", square', "1.png": "", "2.png": "größer"}
    for split in ("train", "validation"):
        rows = [(path.name, captions[path.name]) for path in sorted((splits / split).glob("*.png"))]
        with (splits / split / table).open("w", newline="") as file:
            if table.endswith("csv"):
                import csv

                csv.writer(file).writerows([("file_name", "text"), *rows])
            else:
                file.writelines(json.dumps({"file_name": name, "text": text}) + "\n" for name, text in rows)
    items = own_items(splits, PICTURES)
    theirs = datasets.load_dataset("imagefolder", data_dir=str(splits), streaming=True)
    for split in ("train", "validation"):
        found = [(np.asarray(Image.open(item.medium)).tolist(), item.caption) for item in read(items, split)]
        # An empty cell of a table is none to the builder.
        assert found == [(np.asarray(row["image"]).tolist(), row["text"] or "") for row in theirs[split]]


def test_edits_name_the_picture_that_they_start_from(splits: Path, tmp_path: Path) -> None:
    with pytest.raises(FieldError, match="reference_file_name"):
        own_items(splits, EDITS)
    for path in list(splits.rglob("*.png")):
        draw(path.parent / "before" / path.name, 200)
        row = {"file_name": path.name, "text": "darker", "reference_file_name": f"before/{path.name}"}
        with (path.parent / "metadata.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
    (found,) = read(own_items(splits, EDITS), "validation")
    assert found.reference == splits / "validation" / "before" / "2.png"
    (splits / "validation" / "before" / "2.png").unlink()
    with pytest.raises(FieldError, match=r"metadata\.jsonl, line 1: reference_file_name = 'before/2\.png'"):
        own_items(splits, EDITS)


def test_folders_are_classes_in_the_order_of_the_alphabet(tmp_path: Path) -> None:
    for split, name in (("train", "owl"), ("train", "cat"), ("validation", "owl"), ("train", "dog")):
        draw(tmp_path / split / name / "one.png", 3)
    items = own_items(tmp_path, CLASSES)
    found = [(item.name, item.label) for item in read(items)]
    assert found == [("cat/one.png", 0), ("dog/one.png", 1), ("owl/one.png", 2)]
    assert [item.label for item in read(items, "validation")] == [2]
    draw(tmp_path / "train" / "stray.png", 1)
    with pytest.raises(FieldError, match="no folder that names its class"):
        own_items(tmp_path, CLASSES)


def test_a_table_may_have_classes(splits: Path) -> None:
    for split, rows in (("train", "0.png,7\n1.png,0\n"), ("validation", "2.png,7\n")):
        (splits / split / "metadata.csv").write_text("file_name,label\n" + rows)
    assert [item.label for item in read(own_items(splits, CLASSES))] == [7, 0]
    (splits / "train" / "metadata.csv").write_text("file_name,label\n0.png,cat\n")
    with pytest.raises(FieldError, match=r"metadata\.csv, line 2: label = 'cat': is no class"):
        own_items(splits, CLASSES)


def test_clips_without_splits_are_split_by_their_names(tmp_path: Path) -> None:
    names = [f"{number}.mkv" for number in range(40)]
    clip = write_clip(tmp_path / names[0], frames=2, fps=8).read_bytes()
    for name in names:
        (tmp_path / name).write_bytes(clip)
        (tmp_path / name).with_suffix(".txt").write_text(name)
    (tmp_path / "cover.png").write_bytes(b"")  # not of this kind
    items = own_items(tmp_path, Kind("video"))
    for split in ("train", "validation"):
        assert [item.name for item in read(items, split)] == sorted(name for name in names if split_of(name) == split)


@pytest.mark.parametrize("kind", [PICTURES, Kind("audio"), CLASSES, EDITS])
def test_parquet_as_datasets_writes_it(tmp_path: Path, kind: Kind) -> None:
    rows = {kind.modality: [{"bytes": bytes([number]), "path": None} for number in range(30)]}
    if kind.labelled:
        rows["label"] = list(range(30))  # type: ignore[assignment]
    else:
        rows["text"] = [f"number {number}" for number in range(30)]  # type: ignore[misc]
    if kind.referenced:
        rows["reference"] = [{"bytes": b"before", "path": None}] * 30
    pq.write_table(pa.table(rows), tmp_path / "mine.parquet", row_group_size=7)
    items = own_items(tmp_path / "mine.parquet", kind)
    found = sorted((*read(items), *read(items, "validation")), key=lambda item: item.name)
    assert [item.medium for item in found] == [bytes([number]) for number in range(30)]
    assert found[7].label == (7 if kind.labelled else None)
    assert found[7].caption == (None if kind.labelled else "number 7")
    assert found[7].reference == (b"before" if kind.referenced else None)
    with pytest.raises(FieldError, match="has no column video"):
        own_items(tmp_path / "mine.parquet", Kind("video"))


def test_nothing_of_the_kind_is_said(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match="has no image for the validation split"):
        own_items(tmp_path, PICTURES)
    with pytest.raises(FieldError, match="is no folder"):
        own_items(tmp_path / "absent", PICTURES)
    (tmp_path / "broken.parquet").write_text("no table")
    with pytest.raises(FieldError, match=r"broken\.parquet.*cannot be read"):
        own_items(tmp_path / "broken.parquet", PICTURES)
