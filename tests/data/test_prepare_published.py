"""`prepare` as a user runs it: real pictures, a tiny real pipeline, real processes, one killed with a real signal."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomlkit
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from safetensors.torch import save_file

from selfflow_bench.condition_table import ConditionTable
from selfflow_bench.data.items import own_items, split_of
from selfflow_bench.data.prepare_published import SHARD, load_published
from selfflow_bench.data.sharded import ShardedRows
from selfflow_bench.errors import DamagedFileError, FieldError
from selfflow_bench.flow import TimestepDistribution
from selfflow_bench.places import Places
from selfflow_bench.plan import make_plan
from selfflow_bench.stages.data import published_data
from selfflow_bench.training.batches import Batches
from tests.pipelines.tiny_hub import tiny_checkpoint, tiny_transformer

SIZE, PICTURES = 64, 2 * SHARD + 20
Command = Callable[..., tuple[list[str], dict[str, str]]]
"""Arguments and environment of a preparation in a work folder of that name."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("hub")
    tiny_checkpoint("sana", folder)
    return folder


@pytest.fixture(scope="module")
def recipes(hub: Path, project: Places, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The project's sana and its reference protocol, with tiny weights and small pictures."""
    folder = tmp_path_factory.mktemp("recipes")
    recipe = tomlkit.parse((project.recipes / "sana" / "v1.toml").read_text())
    tier: Any = recipe["tiers"]["reference"]  # type: ignore[index]
    tier["checkpoint"] = tiny_checkpoint("sana", hub).model_dump()
    tier["transformer"] = tiny_transformer("sana")
    protocol = tomlkit.parse((project.recipes / "protocols" / "t2i-coco" / "v1.toml").read_text())
    data: Any = protocol["data"]
    data["hub"]["resolution"], data["text_length"] = [SIZE, SIZE], 8
    for name, content in (("sana", recipe), ("protocols/t2i-coco", protocol)):
        (folder / name).mkdir(parents=True)
        (folder / name / "v1.toml").write_text(tomlkit.dumps(content))
    for path in (project.recipes / "protocols").glob("image-*"):
        (folder / "protocols" / path.name).symlink_to(path)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pictures")
    source = np.random.default_rng(0)
    for number in range(PICTURES):
        Image.fromarray(source.integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(folder / f"{number:03d}.png")
        (folder / f"{number:03d}.txt").write_text(f"picture number {number}\n")
    return folder


@pytest.fixture
def command(
    recipes: Path, hub: Path, pictures: Path, tmp_path: Path
) -> Callable[..., tuple[list[str], dict[str, str]]]:
    def make(work: str, *arguments: str) -> tuple[list[str], dict[str, str]]:
        options = ["--recipes", str(recipes), "--results", str(tmp_path / "results"), "--work", str(tmp_path / work)]
        line = [
            sys.executable,
            "-m",
            "selfflow_bench",
            *options,
            "prepare",
            "sana",
            "--data",
            str(pictures),
            *arguments,
        ]
        return [*line, *arguments], {**os.environ, "HF_HUB_CACHE": str(hub), "OMP_NUM_THREADS": "1"}

    return make


def files(work: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(work.glob("cache/published/*/*"))}


@pytest.mark.once
def test_killed_and_shared_it_comes_to_the_same_shards_and_a_run_reads_them(
    command: Command,
    recipes: Path,
    hub: Path,
    pictures: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    line, environment = command("killed", "--json")
    process = subprocess.Popen(line, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    assert json.loads(process.stdout.readline()) == {"event": "prepared", "split": "train", "items": SHARD}
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    (folder,) = (tmp_path / "killed" / "cache" / "published").glob("*/")
    assert (folder / "train-000000.safetensors").exists()
    assert not (folder / "manifest.json").exists()
    kept = (folder / "train-000000.safetensors").stat().st_mtime_ns
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert (folder / "train-000000.safetensors").stat().st_mtime_ns == kept
    assert "GB are free" in done.stderr
    source = json.loads(done.stdout.splitlines()[-1])["source"]

    line, environment = command("shared", "--processes", "2")
    done = subprocess.run(line, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert f"--set data.source={source}" in done.stdout
    found, expected = files(tmp_path / "killed"), files(tmp_path / "shared")
    # Names of temporary files never show; what is there is whole.
    assert found == expected
    assert not [name for name in found if name.startswith(".")]

    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    places = Places(recipes, tmp_path / "results", tmp_path / "killed")
    spec = make_plan(places, "sana", tier="reference", labels=[], overrides={"data.source": source}).runs[0]
    wanted = published_data(spec, source)
    data = load_published(wanted, places.cache, "make them")
    names = [f"{number:03d}.png" for number in range(PICTURES)]
    assert data.train.names == tuple(name for name in names if split_of(name) == "train")
    assert data.validation.names == tuple(name for name in names if split_of(name) == "validation")
    assert data.latent_shape == (32, 2, 2)
    # A caption of a known picture, its latents, and the empty caption are the pipeline's own.
    from selfflow_bench.pipelines import pipeline_class
    from selfflow_bench.pipelines.snapshot import local_snapshot

    assert spec.checkpoint is not None
    pipeline = pipeline_class("sana")(local_snapshot(spec.checkpoint), torch.device("cpu"), torch.float32)
    table = ConditionTable(data.validation.caption, data.text)
    made = table.of(torch.tensor([0, 0]), torch.tensor([False, True]))
    for row, text in enumerate((f"picture number {int(data.validation.names[0][:3])}", "")):
        for name, value in pipeline.encode_text([text], spec.conditions.data.text_length).items():
            torch.testing.assert_close(made[name][row : row + 1], value, rtol=1e-5, atol=1e-5)
    batch = Batches(
        data.train.latents,
        ConditionTable(data.train.caption, data.text),
        (2, 2),
        TimestepDistribution("uniform"),
        0.1,
        3,
    ).make(range(5))
    assert batch.latents.shape == (5, 32, 2, 2)
    assert torch.isfinite(batch.latents).all()
    assert data.codec.decode(batch.latents).shape == (5, SIZE, SIZE, 3)


def test_data_that_are_not_prepared_are_refused_with_the_command(recipes: Path, tmp_path: Path) -> None:
    places = Places(recipes, tmp_path / "results", tmp_path / "work")
    spec = make_plan(places, "sana", tier="reference", labels=[]).runs[0]
    wanted = published_data(spec, spec.conditions.data.source)
    with pytest.raises(DamagedFileError, match=r"not there.*selfflow-bench prepare sana"):
        load_published(wanted, places.cache, "Make them: selfflow-bench prepare sana")
    other = published_data(spec, "own:abc/first-7")
    assert (other.identity, other.limit) == ({"own": "abc"}, 7)
    assert other.digest != wanted.digest


def test_own_pictures_need_captions_and_both_splits(pictures: Path, tmp_path: Path) -> None:
    items = own_items(pictures)
    assert sum(count or 0 for count in items.counts.values()) == PICTURES
    assert all(item.caption.startswith("picture number") for item in items.read("validation"))
    for split, number in (("train", 1), ("validation", 2)):
        (tmp_path / split).mkdir()
        (tmp_path / split / "one.png").write_bytes((pictures / f"{number:03d}.png").read_bytes())
        (tmp_path / split / "one.txt").write_text("a caption")
    assert own_items(tmp_path).counts == {"train": 1, "validation": 1}
    (tmp_path / "train" / "one.txt").unlink()
    with pytest.raises(FieldError, match=r"one\.txt.*is missing beside its picture"):
        own_items(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(FieldError, match="has no picture for the train split"):
        own_items(tmp_path / "empty")


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
