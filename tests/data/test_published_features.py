"""An encoder's features of media at published sizes: beside the latents, row by row of the same items."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from selfflow_bench.cli import main
from selfflow_bench.commands.reference import lacking
from selfflow_bench.data import media
from selfflow_bench.data.content_folder import write_manifest
from selfflow_bench.data.items import Item, Kind
from selfflow_bench.data.media import MediaSize
from selfflow_bench.data.own_items import own_items
from selfflow_bench.data.prepare_published import Wanted
from selfflow_bench.data.published_features import FeatureShards, load_features
from selfflow_bench.data.shard_files import FACTS, SHARD, shard_path
from selfflow_bench.data.shard_making import Done, make_shards
from selfflow_bench.encoders.dinov2 import NAME, DinoV2
from selfflow_bench.errors import DamagedFileError, FieldError
from selfflow_bench.networks.dinov2 import BASE
from selfflow_bench.places import Places
from selfflow_bench.plan import make_plan
from selfflow_bench.recipe import Checkpoint
from tests.data.made_media import write_clip
from tests.data.reference_recipes import command, environment, save_encoder, small_recipes
from tests.data.test_prepare_published import children, gone

SIZE = (64, 96)
BROKEN, ELSEWHERE = 3, range(10, SHARD - 4)
"""Of the training pictures: one that cannot be read, and those that the latents left out for another reason."""


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("hub")
    save_encoder(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(folder))
        patch.setenv("HF_HUB_CACHE", str(folder))  # of the processes that encode
        yield folder


def pictures(folder: Path, train: int, validation: int) -> Path:
    """A data set of one's own, one of its training pictures broken."""
    source = np.random.default_rng(0)
    for split, count in (("train", train), ("validation", validation)):
        (folder / split).mkdir(parents=True)
        for number in range(count):
            pixels = source.integers(0, 256, (70, 100, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / split / f"{number:03d}.png")
            (folder / split / f"{number:03d}.txt").write_text(f"picture {number}")
    (folder / "train" / f"{BROKEN:03d}.png").write_bytes(b"no picture")
    return folder


def write_latents(folder: Path, items: list[Item], left_out: dict[int, str]) -> None:
    """Shards as a preparation leaves them, as far as features follow them."""
    folder.mkdir(parents=True)
    for index, start in enumerate(range(0, len(items), SHARD)):
        rows = range(start, min(start + SHARD, len(items)))
        kept = [items[row] for row in rows if row not in left_out]
        facts = {
            "rows": len(rows),
            "names": [item.name for item in kept],
            "digests": [item.digest for item in kept],
            "left_out": [[items[row].name, left_out[row]] for row in rows if row in left_out],
        }
        save_file(
            {"latents": torch.zeros(len(kept), 1)}, shard_path(folder, "train", index), {FACTS: json.dumps(facts)}
        )
    write_manifest(folder, sorted(folder.glob("*.safetensors")), {"rows": {"validation": 0}})


def test_a_row_is_what_the_encoder_makes_of_the_same_item(hub: Path, tmp_path: Path) -> None:
    items = own_items(pictures(tmp_path / "media", SHARD + 6, 1), Kind("image"))
    checkpoint = Checkpoint(id="tiny/sana", revision="0" * 40)
    shards = FeatureShards(Wanted("sana", checkpoint, Kind("image"), MediaSize(SIZE), 8, {}), NAME, tmp_path / "cache")
    with pytest.raises(DamagedFileError, match=r"features of dinov2-vitb14 are not there.*prepare it"):
        load_features(shards, "prepare it")
    rows = list(items.read("train", 0, None))
    left_out = {BROKEN: media.UNREADABLE} | dict.fromkeys(ELSEWHERE, "its reference cannot be read")
    write_latents(shards.follows, rows, left_out)
    told: list[Done] = []
    make_shards(shards, items, processes=1, progress=told.append)

    kept = [row for number, row in enumerate(rows) if number not in left_out]
    assert told[-1].items == len(kept) == 19
    found = load_features(shards, "prepare it")
    assert (found.shape, found.pictures_per_item, len(found.rows)) == ((16, 16, 768), 1, len(kept))
    assert found.rows.dtype == torch.bfloat16
    chosen = torch.tensor([18, 0, BROKEN, 9, 12])
    seen = np.stack([media.picture(kept[item].medium, SIZE) for item in chosen.tolist()])
    expected = torch.from_numpy(DinoV2(tmp_path).encode(seen))
    torch.testing.assert_close(found.of(chosen), expected, rtol=1e-2, atol=1e-4)
    assert not torch.allclose(expected[0], expected[1], rtol=1e-1), "pictures differ"
    manifest = json.loads((shards.folder / "manifest.json").read_text())
    assert manifest["encoder"] == f"{BASE} 224"
    assert shards.item_bytes * len(kept) == found.rows.dtype.itemsize * found.rows.shape.numel()
    first = shard_path(shards.folder, "train", 0)
    first.write_bytes(first.read_bytes()[:-5])
    with pytest.raises(DamagedFileError, match=r"damaged \(train-000000.*prepare it"):
        load_features(shards, "prepare it")


def test_a_clip_is_encoded_frame_by_frame_and_a_sound_not_at_all(hub: Path, tmp_path: Path) -> None:
    checkpoint, size = Checkpoint(id="tiny/wan", revision="0" * 40), MediaSize((64, 96), frames=3, fps=12.0)
    wanted = Wanted("wan", checkpoint, Kind("video"), size, 8, {}, makes_clips=True)
    clip = write_clip(tmp_path / "clip.mkv", frames=4, fps=12)
    (found,) = FeatureShards(wanted, NAME, tmp_path).encoded(Item("one", clip, "a clip")).values()
    expected = torch.from_numpy(DinoV2(tmp_path).encode(media.clip(clip, size)))
    torch.testing.assert_close(found[0].float(), expected, rtol=1e-2, atol=1e-4)
    sounds = Wanted("ace_step", checkpoint, Kind("audio"), MediaSize(seconds=1.0), 8, {})
    with pytest.raises(FieldError, match=r"--encoder = 'dinov2-vitb14': sees pictures and clips"):
        FeatureShards(sounds, NAME, tmp_path).check()


def test_what_lacks_is_named_with_its_command(
    project: Places, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipes = small_recipes(project, tmp_path / "recipes", tmp_path / "hub", "sana", {"resolution": [64, 64]})
    places = Places(recipes, tmp_path / "results", tmp_path / "work")
    plan = make_plan(
        places, "sana", tier="reference", labels=["repa", "irepa"], overrides={"data.source": "own:abc/first-7"}
    )
    found = [one for one in lacking(plan.runs, places) if "features" in one.what]
    assert [one.what for one in found] == ["the features of dinov2-vitb14 that repa aligns to"]
    assert found[0].prevents
    assert found[0].remedy == "Prepare: selfflow-bench prepare sana --data FOLDER --limit 7 --encoder dinov2-vitb14"
    assert main(command(recipes, tmp_path / "work", "sana", "--encoder", "dino")[3:]) == 2
    assert "no such encoder. There are: dinov2-vitb14" in " ".join(capsys.readouterr().err.split())


def encoded(process: subprocess.Popen[str]) -> None:
    """Read what a preparation says until a shard of features is there."""
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line)["event"] == "encoded":
            return
    raise AssertionError(process.wait(60))


@pytest.mark.once
def test_killed_damaged_and_shared_it_comes_to_the_same_features(project: Places, hub: Path, tmp_path: Path) -> None:
    recipes = small_recipes(project, tmp_path / "recipes", hub, "sana", {"resolution": [64, 64]})
    data = pictures(tmp_path / "media", 3 * SHARD, 4)
    options: dict[str, Any] = {"env": environment(hub), "text": True}

    def line(work: str, *more: str) -> list[str]:
        return command(recipes, tmp_path / work, "sana", "--data", str(data), "--encoder", NAME, *more)

    # After the latents, as everyone has them who first prepared without an encoder.
    without = command(recipes, tmp_path / "one", "sana", "--data", str(data))
    subprocess.run(without, capture_output=True, timeout=300, check=True, **options)
    process = subprocess.Popen(line("one", "--json"), stdout=subprocess.PIPE, start_new_session=True, **options)
    encoded(process)
    below = children(process)
    process.send_signal(signal.SIGKILL)
    process.wait(60)
    assert gone(below)
    (folder,) = (tmp_path / "one" / "cache" / "published").glob(f"*/features-{NAME}-*/")
    assert not (folder / "manifest.json").exists()
    damaged = folder / "train-000000.safetensors"
    content = bytearray(damaged.read_bytes())
    content[-1] ^= 1
    damaged.write_bytes(content)
    done = subprocess.run(line("one", "--json"), capture_output=True, timeout=300, check=False, **options)
    assert done.returncode == 0, done.stderr
    assert "train-000000.safetensors is not as it was written" in done.stdout
    assert f"features of {NAME}: " in done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["features"] == {NAME: str(folder)}

    done = subprocess.run(line("two", "--processes", "2"), capture_output=True, timeout=300, check=False, **options)
    assert done.returncode == 0, done.stderr
    assert f"train: {3 * SHARD - 1} items seen by {NAME}" in done.stderr
    files = {work: {file.name: file.read_bytes() for file in folders(tmp_path / work)} for work in ("one", "two")}
    assert files["one"] == files["two"]
    assert len(files["one"]) == 4

    # Features of other items than the latents' are refused.
    shutil.rmtree(folder)
    (data / "train" / "010.txt").write_text("another caption")
    wanted = next((tmp_path / "one" / "cache" / "published").glob("*/manifest.json")).parent
    shards = FeatureShards(FixedWanted(wanted), NAME, tmp_path / "one" / "cache")
    with pytest.raises(DamagedFileError, match=r"train-000000.*its items are no longer those"):
        make_shards(shards, own_items(data, Kind("image")), processes=1)
    assert not list(shards.folder.glob("*.safetensors"))


def folders(work: Path) -> list[Path]:
    """The files of a work folder's features."""
    return sorted((work / "cache" / "published").glob(f"*/features-{NAME}-*/*"))


class FixedWanted(Wanted):
    """The data of a folder that is there, whatever they are made of now."""

    def __init__(self, folder: Path) -> None:
        checkpoint = Checkpoint(id="tiny/sana", revision="0" * 40)
        super().__init__("sana", checkpoint, Kind("image"), MediaSize((64, 64)), 8, {"folder": str(folder)})

    def folder(self, cache: Path) -> Path:
        return Path(self.identity["folder"])
