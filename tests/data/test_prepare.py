"""Preparation with the real encoder: its content, what a kill leaves behind, and two processes at once."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from selfflow_bench.data import codecs, sources
from selfflow_bench.data.prepare import Prepared, load_prepared, prepare
from selfflow_bench.errors import DamagedFileError, FieldError

from . import small_source


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("small")
    small_source.write(directory)
    small_source.register(directory)
    return directory


@pytest.fixture
def prepared(small: Path, tmp_path: Path) -> Prepared:
    return small_source.prepare_small(tmp_path / "cache")


def start(small: Path, cache: Path, steps: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "tests.data.small_source", str(small), str(cache), str(steps)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])


def visible(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if not path.name.startswith("."))


def test_prepared_latents_decode_to_the_source(prepared: Prepared) -> None:
    for split, part in (("train", prepared.train), ("validation", prepared.validation)):
        source = sources.load("small", split)
        assert part.latents.dtype == torch.float32
        assert tuple(part.latents.shape) == (small_source.ITEMS, *prepared.latent_shape)
        np.testing.assert_array_equal(prepared.codec.decode(part.latents), sources.media(source))
        assert part.names == tuple(source["name"])


def test_text_holds_the_empty_caption_and_every_other(prepared: Prepared) -> None:
    assert prepared.text["text"].shape[1:] == (small_source.TEXT_LENGTH, 384)
    assert prepared.text["text_mask"].shape == prepared.text["text_ids"].shape == prepared.text["text"].shape[:2]
    # Row 0 is "", which is nothing but the first and last token.
    assert prepared.text["text_mask"][0].sum() == 2
    captions = {text for split in ("train", "validation") for text in sources.load("small", split)["caption"]}
    assert len(prepared.text["text"]) == len(captions) + 1
    for part in (prepared.train, prepared.validation):
        assert part.caption.dtype == torch.int64
        assert part.caption.min() >= 1
        assert part.caption.max() < len(prepared.text["text"])
    train = sources.load("small", "train")["caption"]
    rows = dict(zip(train, prepared.train.caption.tolist(), strict=True))
    assert len(set(rows.values())) == len(set(train))


def test_what_is_prepared_is_found_again(prepared: Prepared) -> None:
    made = (prepared.directory / "manifest.json").stat().st_mtime_ns
    again = small_source.prepare_small(prepared.directory.parent)
    assert again.digest == prepared.digest
    assert (again.directory / "manifest.json").stat().st_mtime_ns == made
    assert again.codec == prepared.codec
    torch.testing.assert_close(again.train.latents, prepared.train.latents, rtol=0, atol=0)


def test_digest_depends_on_content_and_not_on_spelling(prepared: Prepared, small: Path) -> None:
    cache = prepared.directory.parent
    one = prepare("small", {"name": "space_to_depth", "space": 4}, small_source.TEXT_LENGTH, cache)
    same = prepare("small", {"time": 1, "space": 4, "name": "space_to_depth"}, small_source.TEXT_LENGTH, cache)
    longer = prepare("small", small_source.CODEC, small_source.TEXT_LENGTH + 1, cache)
    assert one.digest == same.digest
    assert len({prepared.digest, one.digest, longer.digest}) == 3


@pytest.mark.parametrize("file", ["train.safetensors", "text.safetensors", "validation-names.json", "manifest.json"])
def test_truncated_cache_is_refused(prepared: Prepared, file: str) -> None:
    path = prepared.directory / file
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(DamagedFileError, match="Delete that folder") as caught:
        small_source.prepare_small(prepared.directory.parent)
    assert str(prepared.directory) in str(caught.value)


def test_flipped_byte_is_found_by_verifying(prepared: Prepared) -> None:
    load_prepared(prepared.directory, verify=True)
    path = prepared.directory / "validation.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    load_prepared(prepared.directory)
    with pytest.raises(DamagedFileError, match=r"validation\.safetensors"):
        load_prepared(prepared.directory, verify=True)


def test_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DamagedFileError):
        load_prepared(tmp_path / "nothing")


def test_codec_that_does_not_divide_leaves_no_half_made_folder(small: Path, tmp_path: Path) -> None:
    with pytest.raises(FieldError, match="does not divide"):
        prepare("small", {"name": "space_to_depth", "space": 5}, small_source.TEXT_LENGTH, tmp_path)
    assert visible(tmp_path) == []


def test_killed_preparation_leaves_nothing_and_the_next_one_succeeds(small: Path, tmp_path: Path) -> None:
    process = start(small, tmp_path, 3)
    assert process.stdout is not None
    reached = json.loads(process.stdout.readline())
    assert reached.endswith(" captions")
    # Half-made now: shards are written, the manifest is not.
    (half_made,) = tmp_path.glob(".*.partial")
    assert any(half_made.iterdir())
    process.kill()
    assert process.wait() == -9
    assert visible(tmp_path) == []

    prepared = small_source.prepare_small(tmp_path)
    assert visible(tmp_path) == [prepared.digest]
    assert list(tmp_path.glob(".*.partial")) == []
    load_prepared(prepared.directory, verify=True)


def test_what_a_killed_preparation_of_other_data_left_is_removed(small: Path, tmp_path: Path) -> None:
    process = start(small, tmp_path, 1)
    assert process.stdout is not None
    process.stdout.readline()
    (left,) = tmp_path.glob(".*.partial")
    other = {"name": "space_to_depth", "space": 8}
    # While the other process lives, its folder is left alone.
    prepare("small", other, small_source.TEXT_LENGTH, tmp_path)
    assert left.is_dir()
    process.kill()
    process.wait()
    prepare("small", other | {"time": 2}, small_source.TEXT_LENGTH, tmp_path)
    assert not left.exists()


def test_two_preparations_at_once_both_succeed(small: Path, tmp_path: Path) -> None:
    processes = [start(small, tmp_path, -1) for _ in range(2)]
    digests = {process.communicate()[0].strip() for process in processes}
    assert [process.returncode for process in processes] == [0, 0]
    assert visible(tmp_path) == sorted(digests)
    prepared = load_prepared(tmp_path / digests.pop(), verify=True)
    assert isinstance(prepared.codec, codecs.SpaceToDepth)
