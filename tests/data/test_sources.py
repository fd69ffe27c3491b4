"""The embedded sets as committed: counts, splits without leaks, checksums that catch a changed byte."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections import defaultdict
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from selfflow_bench.data import sources
from selfflow_bench.data.build import emoji_names
from selfflow_bench.errors import DamagedFileError, FieldError

SPLITS = ("train", "validation")
SHAPES = {
    "pictures": ((32, 32, 3), np.uint8),
    "clips": ((16, 32, 32, 3), np.uint8),
    "notes": ((8192,), np.int16),
}
COLUMNS = {
    "pictures": {"name", "caption", "category", "vendor", "image"},
    "clips": {"name", "caption", "codepoint", "frames"},
    "notes": {"name", "caption", "program", "family", "pitch", "velocity", "audio"},
}


@cache
def media_of(name: str, split: str) -> np.ndarray:
    return sources.media(sources.load(name, split))


def column(name: str, split: str, key: str) -> list:
    return list(sources.load(name, split)[key])


def test_the_package_imports_without_torch_and_datasets() -> None:
    code = "import sys, selfflow_bench.data; assert not {'torch', 'datasets'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_all_sets_are_available() -> None:
    assert set(SHAPES) <= set(sources.available())


@pytest.mark.parametrize("name", SHAPES)
def test_media_have_one_shape_and_no_item_is_in_both_splits(name: str) -> None:
    shape, dtype = SHAPES[name]
    seen = {}
    for split in SPLITS:
        dataset = sources.load(name, split)
        assert set(dataset.column_names) == COLUMNS[name]
        media = media_of(name, split)
        assert media.dtype == dtype
        assert media.shape == (len(dataset), *shape)
        seen[split] = {hashlib.sha256(item.tobytes()).digest() for item in media}
        assert len(seen[split]) == len(dataset)
        assert all(dataset["caption"])
    assert not seen["train"] & seen["validation"]


@pytest.mark.parametrize("name", SHAPES)
def test_media_of_a_selection_are_those_of_the_whole(name: str) -> None:
    dataset = sources.load(name, "validation")
    some = [5, 0, 17]
    np.testing.assert_array_equal(sources.media(dataset.select(some)), media_of(name, "validation")[some])


@pytest.mark.parametrize("name", SHAPES)
def test_card_and_licences_are_there_and_the_card_counts_right(name: str) -> None:
    directory = sources.EMBEDDED / name
    card = (directory / "CARD.md").read_text()
    checksums = json.loads((directory / "checksums.json").read_text())
    for split in SPLITS:
        rows = len(sources.load(name, split))
        assert checksums[f"{split}.parquet"]["rows"] == rows
        assert f"| {split} | {rows} " in card
    assert list((directory / "LICENSES").iterdir())


@pytest.mark.parametrize(("name", "megabytes"), [("pictures", 5), ("clips", 15), ("notes", 15)])
def test_sets_stay_small_enough_to_commit(name: str, megabytes: int) -> None:
    assert sum(path.stat().st_size for path in (sources.EMBEDDED / name).glob("*.parquet")) <= megabytes * 2**20


@pytest.mark.parametrize("name", ["pictures", "clips"])
def test_no_emoji_subject_is_in_both_splits(name: str) -> None:
    subjects = [{emoji_names.subject(emoji) for emoji in column(name, split, "name")} for split in SPLITS]
    assert not subjects[0] & subjects[1]


@pytest.mark.parametrize(("name", "least"), [("pictures", 0.045), ("clips", 0.06)])
def test_no_near_copy_crosses_the_splits(name: str, least: float) -> None:
    if name == "pictures":
        # Within a vendor: across vendors, white squares on white are alike whatever they are called.
        groups = {vendor: _by(name, "vendor", vendor) for vendor in set(column(name, "train", "vendor"))}
    else:
        groups = {"": [media_of(name, split) for split in SPLITS]}
    for media in groups.values():
        train, validation = (part.reshape(len(part), -1).astype(np.float32) / 255 for part in media)
        squares = (train**2).sum(1)[:, None] + (validation**2).sum(1) - 2 * train @ validation.T
        assert np.sqrt(max(squares.min(), 0) / train.shape[1]) > least


def _by(name: str, key: str, value: str) -> list:
    loaded = [(media_of(name, split), column(name, split, key)) for split in SPLITS]
    return [media[[i for i, found in enumerate(values) if found == value]] for media, values in loaded]


def test_one_clip_code_point_is_in_one_split() -> None:
    codes = [{emoji_names.code_key(code) for code in column("clips", split, "codepoint")} for split in SPLITS]
    assert not codes[0] & codes[1]


def test_pictures_have_nine_categories_and_four_vendors_in_both_splits() -> None:
    for split in SPLITS:
        assert len(set(column("pictures", split, "category"))) == 9
        assert len(set(column("pictures", split, "vendor"))) == 4
    assert len(sources.load("pictures", "validation")) >= 900


def test_clips_move() -> None:
    for split in SPLITS:
        media = media_of("clips", split).astype(int)
        assert (np.abs(np.diff(media, axis=1)).reshape(len(media), -1).max(1) > 0).all()


def test_no_program_is_in_both_splits_and_every_family_is() -> None:
    programs = [set(column("notes", split, "program")) for split in SPLITS]
    assert not programs[0] & programs[1]
    assert len(programs[0] | programs[1]) == 128
    for split in SPLITS:
        assert len(set(column("notes", split, "family"))) == 16
    assert len(sources.load("notes", "validation")) >= 600


def test_no_two_notes_of_one_pitch_are_the_same_recording_across_the_splits() -> None:
    spectra = []
    for split in SPLITS:
        by_pitch = defaultdict(list)
        media = media_of("notes", split).astype(np.float32)
        transformed = np.fft.rfft(media / np.linalg.norm(media, axis=1, keepdims=True), 2 * media.shape[1])
        for spectrum, pitch in zip(transformed, column("notes", split, "pitch"), strict=True):
            by_pitch[pitch].append(spectrum)
        spectra.append(by_pitch)
    train, validation = spectra
    for pitch, notes in validation.items():
        for note in notes:
            # Cross-correlation at any lag; a copy of a recording would come near 1.
            correlation = np.fft.irfft(np.stack(train[pitch]) * note.conj())
            assert np.abs(correlation).max() < 0.95


def test_notes_are_audible_and_do_not_clip() -> None:
    for split in SPLITS:
        media = media_of("notes", split).astype(float)
        loudness = 20 * np.log10(np.sqrt((media**2).mean(1)) / 32768)
        assert loudness.min() > -51
        assert np.abs(media).max() < 32000
        # No offset: it is no sound, and would be most of a quiet note's energy.
        assert np.abs(media.mean(1)).max() < 40


@pytest.fixture
def copied(tmp_path: Path) -> sources.ParquetSource:
    for file in ("validation.parquet", "train.parquet", "checksums.json"):
        shutil.copy(sources.EMBEDDED / "pictures" / file, tmp_path)
    return sources.ParquetSource("copied", tmp_path)


def test_changed_byte_is_refused(copied: sources.ParquetSource) -> None:
    path = copied.directory / "validation.parquet"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    for use in (copied.load, copied.digest):
        with pytest.raises(DamagedFileError, match=r"validation\.parquet"):
            use("validation")
    assert len(copied.load("train")) == len(sources.load("pictures", "train"))


@pytest.mark.parametrize("file", ["train.parquet", "checksums.json"])
def test_missing_file_is_refused(copied: sources.ParquetSource, file: str) -> None:
    (copied.directory / file).unlink()
    with pytest.raises(DamagedFileError, match=r"train\.parquet"):
        copied.load("train")


def test_digest_is_the_files_sha256() -> None:
    content = (sources.EMBEDDED / "notes" / "train.parquet").read_bytes()
    assert sources.digest("notes", "train") == hashlib.sha256(content).hexdigest()


def test_unknown_names_are_refused(copied: sources.ParquetSource) -> None:
    with pytest.raises(FieldError, match="photographs"):
        sources.load("photographs", "train")
    with pytest.raises(FieldError, match="test"):
        copied.load("test")
    with pytest.raises(FieldError, match="no medium"):
        sources.media(copied.load("train").remove_columns("image"))


def test_a_further_source_is_one_more_object(copied: sources.ParquetSource) -> None:
    sources.register(copied)
    assert "copied" in sources.available()
    assert sources.digest("copied", "train") == sources.digest("pictures", "train")
