"""Streams of the hub's data sets: here of folders laid out as there, which `datasets` itself streams."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from selfflow_bench.data.hub_items import NOT_UNPACKED, hub_items
from selfflow_bench.data.items import Item, Items
from selfflow_bench.errors import FieldError, InfrastructureError
from selfflow_bench.protocol import HubData
from tests.data.test_media import png

ROWS, FILES = 60, 4
REVISION = "0123456789abcdef0123456789abcdef01234567"


def hub(**fields: Any) -> HubData:
    table: dict[str, Any] = {
        "id": "org/pictures",
        "revision": REVISION,
        "medium": "image",
        "caption": "said",
        "train": "train",
        "validation": "train",
        "train_skip": 10,
        "resolution": [8, 8],
    }
    return HubData.model_validate(table | fields)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``org/pictures`` in the working folder, where `datasets` finds it without a hub."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hub"))
    made = tmp_path / "org" / "pictures"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def tables(folder: Path) -> Path:
    """Parquet, as the hub has it, in several files; `datasets` marks its columns of pictures in the schema."""
    import datasets

    features = datasets.Features({"image": datasets.Image(), "said": datasets.List(datasets.Value("string"))})
    for file in range(FILES):
        numbers = range(file * ROWS // FILES, (file + 1) * ROWS // FILES)
        pictures = [png(Image.fromarray(np.full((2, 2, 3), number, dtype=np.uint8))) for number in numbers]
        made = datasets.Dataset.from_dict(
            {
                "image": [{"bytes": one, "path": None} for one in pictures],
                "said": [[f"number {number}", "another"] for number in numbers],
            },
            features=features,
        )
        made.to_parquet(folder / f"train-{file:05d}-of-{FILES:05d}.parquet", batch_size=7)
    return folder


def numbers(items: list[Item]) -> list[int]:
    return [int((item.caption or "").rpartition(" ")[2]) for item in items]


def read(items: Items, split: Any, row: int = 0, state: Any = None) -> list[Item]:
    return list(items.read(split, row, state))


@pytest.mark.usefixtures("tables")
def test_rows_come_in_their_order_undecoded_and_the_first_caption_counts() -> None:
    items = hub_items("protocol", hub())
    found = read(items, "train")
    assert numbers(found) == list(range(ROWS))
    assert found[7].medium == png(Image.fromarray(np.full((2, 2, 3), 7, dtype=np.uint8)))
    assert [item.name for item in found] == [str(number) for number in range(ROWS)]
    assert numbers(read(items, "train", 37)) == list(range(37, ROWS))


@pytest.mark.usefixtures("tables")
@pytest.mark.parametrize("left_at", [1, 20, 59])
def test_a_stream_is_gone_on_with_from_its_state_without_reading_the_files_before(tables: Path, left_at: int) -> None:
    items = hub_items("protocol", hub())
    stream = items.read("train", 0, None)
    iterator = iter(stream)
    for _ in range(left_at):
        next(iterator)
    state = json.loads(json.dumps(stream.state()))
    iterator.close()  # type: ignore[attr-defined]
    # The schema of the first is that of all, and is read; a state may be of the end of the file before.
    done = range(1, left_at * FILES // ROWS - 1)
    for file in done:
        (tables / f"train-{file:05d}-of-{FILES:05d}.parquet").write_bytes(b"damaged: reading it would fail")
    first = min(left_at + 3, ROWS - 1)
    assert numbers(read(items, "train", first, (left_at, state))) == list(range(first, ROWS))
    if done:
        with pytest.raises(InfrastructureError, match=rf"org/pictures@{REVISION}: cannot be read"):
            read(items, "train")


def test_what_is_held_out_is_not_trained_on() -> None:
    shared = hub_items("protocol", hub())
    assert (shared.first_row(4), shared.first_row(17)) == (10, 17)
    apart = hub_items("protocol", hub(validation="validation", train_skip=0))
    assert apart.first_row(17) == 0


@pytest.mark.usefixtures("tables")
def test_a_column_that_is_not_there_is_named() -> None:
    with pytest.raises(FieldError, match=r"data\.hub\.caption = 'txt': is no column .* image, said"):
        read(hub_items("protocol", hub(caption="txt")), "train")
    with pytest.raises(FieldError, match="is not pinned"):
        hub_items("protocol", hub(revision="unpinned"))


def test_a_data_set_that_cannot_be_had_says_so(folder: Path) -> None:
    folder.rmdir()
    with pytest.raises(InfrastructureError, match=r"org/pictures@.*cannot be read from the hub.*hf auth login"):
        read(hub_items("protocol", hub()), "train")


def test_media_and_labels_of_a_folder(folder: Path) -> None:
    for split, name in (("train", "cat"), ("train", "dog"), ("validation", "dog")):
        (folder / split / name).mkdir(parents=True)
        Image.new("RGB", (2, 2)).save(folder / split / name / "one.png")
    items = hub_items("protocol", hub(caption=None, label="label", validation="validation", train_skip=0))
    assert [item.label for item in read(items, "train")] == [0, 1]
    (found,) = read(items, "validation")
    assert (found.label, found.medium) == (1, (folder / "validation" / "dog" / "one.png").read_bytes())


def test_files_in_archives_are_looked_for_where_they_were_unpacked(folder: Path, tmp_path: Path) -> None:
    table = pa.table({"image": ["a.png", "lost.png"], "said": ["number 1", "number 2"]})
    pq.write_table(table, folder / "train.parquet")
    with pytest.raises(FieldError, match=r"names of files \('a\.png'\).*--media FOLDER"):
        read(hub_items("protocol", hub()), "train")
    (tmp_path / "unpacked").mkdir()
    (tmp_path / "unpacked" / "a.png").write_bytes(b"content")
    there, lost = read(hub_items("protocol", hub(), tmp_path / "unpacked"), "train")
    assert (there.medium, there.missing) == (tmp_path / "unpacked" / "a.png", None)
    assert lost.missing == NOT_UNPACKED
