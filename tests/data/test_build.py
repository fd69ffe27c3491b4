"""The parts of the builders that need no package: names, split by hash, note grid, and reading a SoundFont's tables."""

import hashlib
import json
import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from selfflow_bench.data import sources
from selfflow_bench.data.build import emoji_names, packages, soundfont, webp
from selfflow_bench.data.build.embedded_set import split_of, write_embedded_set
from selfflow_bench.errors import DamagedFileError


@pytest.mark.parametrize(
    ("names", "subject"),
    [
        (("woman-running-facing-right", "man-running", "person-running"), "running"),
        (("flag-for-flag-chad", "flag-for-chad", "flag-chad"), "flag-chad"),
        (("one-oclock", "twelve-thirty"), "clock"),
        (("man-white-hair", "older-person", "bearded-person", "woman", "adult"), "person"),
        (("family-man-boy", "family"), "family"),
        (("women-holding-hands", "woman-and-man-holding-hands"), "holding-hands"),
        (("white-heart",), "white-heart"),
        (("old-key",), "old-key"),
    ],
)
def test_names_of_one_subject(names: tuple[str, ...], subject: str) -> None:
    assert {emoji_names.subject(name) for name in names} == {subject}


def test_skin_tones_are_told_from_lights() -> None:
    names = frozenset({"artist", "artist-dark", "police-car-light", "bulb"})
    assert emoji_names.is_skin_tone("artist-dark", names)
    assert emoji_names.is_skin_tone("artist-medium-skin-tone", names)
    assert emoji_names.is_skin_tone("bearded-person-tone3", names)
    assert not emoji_names.is_skin_tone("police-car-light", names)


@given(st.lists(st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("abcdefgh")), max_size=12), st.randoms())
def test_groups_do_not_depend_on_order(pairs: list[tuple[str, str]], random: object) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)
    groups, others = emoji_names.SubjectGroups(), emoji_names.SubjectGroups()
    for first, second in pairs:
        groups.unite(first, second)
    for first, second in shuffled:
        others.unite(second, first)
    for name in "abcdefgh":
        assert groups.key(name) == others.key(name)
    assert all(groups.key(first) == groups.key(second) for first, second in pairs)


def test_split_share_is_about_what_was_asked() -> None:
    keys = [f"key {number}" for number in range(4000)]
    assert sum(split_of(key, 0.15) == "validation" for key in keys) / len(keys) == pytest.approx(0.15, abs=0.02)
    assert split_of("red heart", 0) == "train"
    assert split_of("red heart", 1) == "validation"


def test_written_sets_are_equal_byte_for_byte_and_load(tmp_path: Path) -> None:
    rows = {split: sources.load("pictures", split).select(range(5)).to_list() for split in ("train", "validation")}
    for name in ("first", "second"):
        write_embedded_set(tmp_path / name, rows)
    first, second = ({path.name: path.read_bytes() for path in (tmp_path / n).iterdir()} for n in ("first", "second"))
    assert first == second
    checksums = json.loads(first["checksums.json"])
    assert checksums["train.parquet"] == {"rows": 5, "sha256": hashlib.sha256(first["train.parquet"]).hexdigest()}
    assert sources.ParquetSource("first", tmp_path / "first").load("train").to_list() == rows["train"]


def test_webp_is_lossless_and_transparency_becomes_white() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    assert (sources._picture(webp.encode(pixels)) == pixels).all()
    assert webp.on_white(Image.new("RGBA", (1, 1), (0, 0, 0, 0))).getpixel((0, 0)) == (255, 255, 255)


def test_republished_package_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "package.tgz"
    path.write_bytes(b"other content")
    with pytest.raises(DamagedFileError, match="pinned"):
        packages._checked(path, "0" * 64)


def test_programs_that_share_a_sample_are_one_group() -> None:
    samples = {0: frozenset({1, 2}), 1: frozenset({3}), 2: frozenset({2, 4}), 3: frozenset({4}), 4: frozenset({9})}
    assert {frozenset(group) for group in soundfont.sharing_groups(samples)} == {
        frozenset({0, 2, 3}),
        frozenset({1}),
        frozenset({4}),
    }


def test_soundfont_tables_are_read(tmp_path: Path) -> None:
    """A SoundFont with two presets: program 5 plays samples 7 and 8, program 6 (and one of bank 128) sample 8."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return name + struct.pack("<I", len(content)) + content + b"\0" * (len(content) % 2)

    def preset(program: int, bank: int, bag: int) -> bytes:
        return struct.pack("<20sHHHIII", b"", program, bank, bag, 0, 0, 0)

    def pairs(*values: tuple[int, int]) -> bytes:
        return b"".join(struct.pack("<HH", *value) for value in values)

    instrument, sample, key_range = 41, 53, 43
    tables = (
        chunk(b"phdr", preset(5, 0, 0) + preset(6, 0, 2) + preset(0, 128, 3) + preset(0, 0, 4))
        + chunk(b"pbag", pairs((0, 0), (1, 0), (2, 0), (3, 0), (4, 0)))
        + chunk(b"pmod", b"")
        + chunk(b"pgen", pairs((instrument, 0), (instrument, 1), (instrument, 1), (instrument, 1), (0, 0)))
        + chunk(b"inst", struct.pack("<20sH", b"", 0) + struct.pack("<20sH", b"", 1) + struct.pack("<20sH", b"", 2))
        + chunk(b"ibag", pairs((0, 0), (2, 0), (3, 0)))
        + chunk(b"imod", b"")
        + chunk(b"igen", pairs((key_range, 60), (sample, 7), (sample, 8), (0, 0)))
        + chunk(b"shdr", b"\0" * 46)
    )
    lists = chunk(b"LIST", b"INFO" + chunk(b"INAM", b"odd")) + chunk(b"LIST", b"sdta" + chunk(b"smpl", b"\1\2"))
    path = tmp_path / "small.sf2"
    path.write_bytes(chunk(b"RIFF", b"sfbk" + lists + chunk(b"LIST", b"pdta" + tables)))
    assert soundfont.samples_of_programs(path) == {5: frozenset({7, 8}), 6: frozenset({8})}
