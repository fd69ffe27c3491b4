"""`prepare` as a user runs it: real media, tiny real pipelines, real processes, ended by real signals."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from selfflow_bench.cli import main
from selfflow_bench.condition_table import ConditionTable
from selfflow_bench.data.content_folder import write_manifest
from selfflow_bench.data.items import Kind
from selfflow_bench.data.media import MediaSize
from selfflow_bench.data.prepare_published import EMPTY, Wanted, load_published
from selfflow_bench.data.shard_files import FACTS, SHARD, shard_path
from selfflow_bench.data.sharded import ShardedRows
from selfflow_bench.errors import DamagedFileError
from selfflow_bench.flow import TimestepDistribution
from selfflow_bench.pipelines import pipeline_class
from selfflow_bench.pipelines.snapshot import local_snapshot
from selfflow_bench.places import Places
from selfflow_bench.plan import make_plan
from selfflow_bench.recipe import Checkpoint
from selfflow_bench.stages.data import published_data
from selfflow_bench.training.batches import Batches
from tests.data.reference_recipes import command, environment, small_recipes
from tests.data.test_media import png

ROWS, HELD_OUT, TRAINED, BROKEN = 3 * SHARD + 40, 20, 2 * SHARD + 3, (5, 40, 100)
"""Of the data set; rows of it are no pictures."""
HUB = {
    "id": "org/pictures",
    "medium": "image",
    "caption": "said",
    "train": "train",
    "validation": "train",
    "train_skip": 10,
    "train_items": TRAINED,
    "validation_items": HELD_OUT,
    "resolution": [64, 64],
}


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("hub")


@pytest.fixture(scope="module")
def recipes(hub: Path, project: Places, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's sana and its reference protocol, with tiny weights and small pictures."""
    return small_recipes(project, tmp_path_factory.mktemp("small") / "recipes", hub, "sana", HUB)


@pytest.fixture(scope="module")
def connected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder in which `datasets` finds the protocol's data set and streams it."""
    import datasets

    folder = tmp_path_factory.mktemp("connected")
    source = np.random.default_rng(0)
    media = [png(Image.fromarray(source.integers(0, 256, (9, 12, 3), dtype=np.uint8))) for _ in range(ROWS)]
    for row in BROKEN:
        media[row] = b"no picture"
    features = datasets.Features({"image": datasets.Image(), "said": datasets.Value("string")})
    content = {"image": [{"bytes": one, "path": None} for one in media], "said": [f"row {n}" for n in range(ROWS)]}
    (folder / "org" / "pictures").mkdir(parents=True)
    whole = datasets.Dataset.from_dict(content, features=features)
    for number in range(3):
        path = folder / "org" / "pictures" / f"train-0000{number}-of-00003.parquet"
        whole.shard(3, number, contiguous=True).to_parquet(path)
    return folder


def files(work: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(work.glob("cache/published/*/*"))}


def children(process: subprocess.Popen[str]) -> list[int]:
    """The living processes below one, however deep."""
    parents = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            parents[int(status.parent.name)] = int(fields[1])
    found, level = [], [process.pid]
    while level:
        level = [child for child, parent in parents.items() if parent in level]
        found += level
    return found


def encoding(process: subprocess.Popen[str]) -> list[int]:
    """Those that encode, once there are any."""
    for _ in range(600):
        found = [one for one in children(process) if b"spawn_main" in Path(f"/proc/{one}/cmdline").read_bytes()]
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError("nothing encodes")


def gone(processes: list[int]) -> bool:
    """Whether all have ended, after waiting for that a while."""
    for _ in range(300):
        if not any(Path(f"/proc/{one}").exists() for one in processes):
            return True
        time.sleep(0.1)
    return False


def until(process: subprocess.Popen[str], split: str, items: int) -> None:
    """Read what a preparation says until it is so far."""
    assert process.stdout is not None
    for line in process.stdout:
        event = json.loads(line)
        if event.get("split") == split and event["items"] >= items:
            return
    raise AssertionError(process.wait(60))


@pytest.mark.once
def test_killed_stopped_damaged_and_shared_it_comes_to_the_same_shards(
    recipes: Path, hub: Path, connected: Path, tmp_path: Path
) -> None:
    line = command(recipes, tmp_path / "one", "sana", "--json")
    options: dict[str, Any] = {"env": environment(hub), "cwd": connected, "text": True}
    # Killed, it leaves whole shards; what encoded for it ends by itself.
    process = subprocess.Popen(line, stdout=subprocess.PIPE, start_new_session=True, **options)
    until(process, "validation", HELD_OUT)
    below = children(process)
    assert below
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert gone(below)
    (folder,) = (tmp_path / "one" / "cache" / "published").glob("*/")
    first = folder / "validation-000000.safetensors"
    kept = first.stat().st_mtime_ns
    # One of its processes killed, as for memory, it says so and ends.
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **options)
    below = encoding(process)
    os.kill(below[0], signal.SIGKILL)
    assert process.stderr is not None
    assert "a process that encodes was killed" in process.stderr.read()
    assert process.wait(60) == 3
    assert gone(below)
    # Ctrl-C in a terminal is for all of its processes.
    process = subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True, **options)
    until(process, "train", SHARD)
    below = children(process)
    os.killpg(process.pid, signal.SIGINT)
    assert process.stderr is not None
    assert "The same command goes on from there" in process.stderr.read()
    assert process.wait(60) == 130
    assert gone(below)
    assert not (folder / "manifest.json").exists()
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]
    assert first.stat().st_mtime_ns == kept
    # A shard that is not as it was written is made again, and the files of the data set before it are not read again.
    damaged = folder / "train-000000.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    done = subprocess.run(line, capture_output=True, timeout=300, check=False, **options)
    assert done.returncode == 0, done.stderr
    assert "train-000000.safetensors is not as it was written" in done.stdout
    assert first.stat().st_mtime_ns == kept
    assert "GB are free" in done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["items"] == {"train": TRAINED, "validation": HELD_OUT}
    assert said["left_out"] == {"train": {"cannot be read": 2}, "validation": {"cannot be read": 1}}

    line = command(recipes, tmp_path / "two", "sana", "--processes", "2")
    done = subprocess.run(line, capture_output=True, timeout=300, check=False, **options)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert f"train: {TRAINED} items; left out: 2 cannot be read" in done.stdout
    assert said["sha256"]["train"] in done.stdout
    assert files(tmp_path / "one") == files(tmp_path / "two")
    assert {name.rpartition(".")[2] for name in files(tmp_path / "one")} == {"safetensors", "json", "npz"}

    # And what a run reads of them is what the pipeline makes.
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
        places = Places(recipes, tmp_path / "results", tmp_path / "two")
        spec = make_plan(places, "sana", tier="reference", labels=[]).runs[0]
        data = load_published(published_data(spec, spec.conditions.data.source), places.cache, "make them")
        # Rows that were held out, and one that is no picture among them, are not trained on.
        usable = [str(row) for row in range(ROWS) if row not in BROKEN]
        assert data.validation.names == tuple(usable[:HELD_OUT])
        assert data.train.names == tuple(usable[HELD_OUT : HELD_OUT + TRAINED])
        assert data.latent_shape == (32, 2, 2)
        assert spec.checkpoint is not None
        pipeline = pipeline_class("sana")(local_snapshot(spec.checkpoint), torch.device("cpu"), torch.float32)
        table = ConditionTable(data.validation.caption, data.text)
        made = table.of(torch.tensor([7, 7]), torch.tensor([False, True]))
        for row, text in enumerate((f"row {data.validation.names[7]}", "")):
            for name, value in pipeline.encode_text([text], spec.conditions.data.text_length).items():
                torch.testing.assert_close(made[name][row : row + 1], value, rtol=1e-5, atol=1e-5)
        assert data.codec.decode(data.train.latents[torch.arange(2)]).shape == (2, 64, 64, 3)


@pytest.mark.parametrize("limit", [[], ["--limit", "90000000000"]])
def test_too_little_space_is_refused_before_anything_starts(
    project: Places,
    hub: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    limit: list[str],
) -> None:
    """No disk has room for so many items."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    recipes = small_recipes(project, tmp_path / "recipes", hub, "sana", {**HUB, "train_items": 10**12})
    line = command(recipes, tmp_path / "work", "sana", *limit)[3:]
    assert main(line) == 2
    said = capsys.readouterr().err
    assert "GB free" in said
    assert "--limit" in said
    assert not list((tmp_path / "work").rglob("*"))


def test_data_that_are_not_prepared_are_refused_with_the_command(recipes: Path, tmp_path: Path) -> None:
    places = Places(recipes, tmp_path / "results", tmp_path / "work")
    spec = make_plan(places, "sana", tier="reference", labels=[]).runs[0]
    wanted = published_data(spec, spec.conditions.data.source)
    with pytest.raises(DamagedFileError, match=r"not there.*selfflow-bench prepare sana"):
        load_published(wanted, places.cache, "Make them: selfflow-bench prepare sana")
    other = published_data(spec, "own:abc/first-7")
    assert (other.identity, other.limit) == ({"own": "abc"}, 7)
    assert other.digest != wanted.digest


def shards(folder: Path, split: str, tensors: Mapping[str, torch.Tensor], sizes: list[int]) -> None:
    """Write tensors as shards of so many items, some perhaps without any."""
    start = 0
    for number, size in enumerate(sizes):
        names = [str(item) for item in range(start, start + size)]
        facts = {"rows": size + 1, "names": names, "digests": names, "left_out": [["x", "too short"]]}
        part = {name: value[start : start + size].contiguous() for name, value in tensors.items() if size}
        save_file(part, shard_path(folder, split, number), {FACTS: json.dumps(facts)})
        start += size


def test_a_batch_from_shards_is_the_batch_from_tensors_in_memory(tmp_path: Path) -> None:
    source = torch.Generator().manual_seed(0)
    items = {"train": [3, 0, 4, 2], "validation": [2]}
    tensors = {
        split: {
            "latents": torch.randn(sum(sizes), 4, 2, 2, generator=source),
            "text": torch.randn(sum(sizes), 5, 3, generator=source).bfloat16(),
            "condition.reference": torch.randn(sum(sizes), 4, 2, 2, generator=source),
            "condition.label": torch.randint(0, 7, (sum(sizes),), generator=source),
        }
        for split, sizes in items.items()
    }
    empty = torch.randn(1, 5, 3, generator=source).bfloat16()
    wanted = Wanted("sana", Checkpoint(id="tiny/sana", revision="0" * 40), Kind("image"), MediaSize((64, 64)), 8, {})
    folder = wanted.folder(tmp_path)
    folder.mkdir(parents=True)
    for split, sizes in items.items():
        shards(folder, split, tensors[split], sizes)
    save_file({"text": empty}, folder / EMPTY)
    counts = {split: sum(sizes) for split, sizes in items.items()}
    numbers = {split: len(sizes) for split, sizes in items.items()}
    facts = {"digest": wanted.digest, "items": counts, "shards": numbers}
    write_manifest(folder, sorted(folder.glob("*.safetensors")), facts)

    data = load_published(wanted, tmp_path, "make them")
    train = tensors["train"]
    text = torch.cat([empty, train["text"], tensors["validation"]["text"]])
    conditions = {name: train[f"condition.{name}"] for name in ("reference", "label")}
    in_memory = ConditionTable(torch.arange(1, 10), {"text": text}, conditions)
    times = TimestepDistribution("uniform")
    whole = Batches(train["latents"], in_memory, (2, 2), times, 0.5, 3).make(range(20))
    table = ConditionTable(data.train.caption, data.text, data.train.conditions)
    found = Batches(data.train.latents, table, (2, 2), times, 0.5, 3).make(range(20))
    assert torch.equal(found.latents, whole.latents)
    assert torch.equal(found.noise, whole.noise)
    assert found.conditions.keys() == whole.conditions.keys()
    for name, value in whole.conditions.items():
        assert found.conditions[name].dtype == value.dtype
        assert torch.equal(found.conditions[name], value)
    (folder / "train-000002.safetensors").unlink()
    with pytest.raises(DamagedFileError, match="make them"):
        load_published(wanted, tmp_path, "make them")


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.data())
def test_sharded_rows_are_the_tensor_s_rows(sizes: list[int], draw: st.DataObject) -> None:
    import tempfile

    whole = torch.arange(sum(sizes) * 6, dtype=torch.int64).view(-1, 2, 3)
    with tempfile.TemporaryDirectory() as folder:
        paths = []
        for number, part in enumerate(whole.split(sizes)):
            paths.append(Path(folder) / f"{number}.safetensors")
            save_file({"rows": part.contiguous()}, paths[-1])
        rows = ShardedRows(paths, "rows")
        assert (rows.shape, rows.dtype, len(rows)) == (whole.shape, whole.dtype, len(whole))
        items = torch.tensor(draw.draw(st.lists(st.integers(0, len(whole) - 1), max_size=7)), dtype=torch.int64)
        assert torch.equal(rows[items], whole[items])
        with pytest.raises(IndexError):
            rows[torch.tensor([len(whole)])]
