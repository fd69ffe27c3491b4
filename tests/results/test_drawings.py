"""Plots and media are whole files of the right form; the colours come through unchanged."""

import wave
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from record_factory import record

from selfflow_bench.errors import FieldError
from selfflow_bench.results.media import picture_grid, write_media
from selfflow_bench.results.plots import curves
from selfflow_bench.results.record import Record

RNG = np.random.default_rng(0)


def test_curves_of_all_arms_are_drawn(tmp_path: Path, matched: list[Record]) -> None:
    curves([*matched, record("self_flow", 3, status="failed")], tmp_path / "new" / "curves.png")
    [path] = (tmp_path / "new").iterdir()
    with Image.open(path) as image:
        assert image.size == (1350, 780)
        colours = {colour for _, colour in image.convert("RGB").getcolors(1 << 20) or []}
    assert {(0, 0, 0), (0xD5, 0x5E, 0)} <= colours
    assert path.stat().st_size < 400_000


def test_curves_of_vanilla_alone_and_of_a_run_that_failed_at_once(tmp_path: Path) -> None:
    curves([record()], tmp_path / "a.png")
    curves([record(status="failed", curve=[], validations=[])], tmp_path / "b.png")
    assert all(path.stat().st_size > 10_000 for path in tmp_path.iterdir())


def test_pictures_are_enlarged_three_times_without_smoothing() -> None:
    pictures = RNG.integers(0, 256, (10, 32, 32, 3), dtype=np.uint8)
    sheet = np.asarray(
        picture_grid(pictures, ["a-very-long-name-that-must-wrap-and-then-be-cut-somewhere"] * 10, "title")
    )
    assert (sheet[28 : 28 + 96 : 3, 8 : 8 + 96 : 3] == pictures[0]).all()
    second_row = 28 + 96 + 2 * 13 + 4 + 8
    assert (sheet[second_row + 1 : second_row + 97 : 3, 8 + 104 : 8 + 200 : 3] == pictures[9]).all()


def test_clips_move_and_have_a_film_strip(tmp_path: Path) -> None:
    clips = RNG.integers(0, 256, (9, 5, 32, 32, 3), dtype=np.uint8)
    paths = write_media(clips, [f"clip {index}" for index in range(9)], tmp_path, "s", "wan, micro: vanilla, seed 0")
    assert [path.name for path in paths] == ["s.webp", "s.png"]
    with Image.open(paths[0]) as moving:
        assert moving.n_frames == 5  # type: ignore[attr-defined]
    with Image.open(paths[1]) as strip:
        assert np.asarray(strip.convert("RGB"))[28:92:2, 132:196:2].tolist() == clips[0, 0].tolist()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["s.png", "s.webp"]


def test_notes_are_joined_with_pauses_and_drawn(tmp_path: Path) -> None:
    notes = RNG.integers(-9000, 9000, (3, 8192), dtype=np.int16)
    sound, sheet = write_media(notes, ["flute, pitch 60", "organ", "drum"], tmp_path, "n", "ace_step")
    with wave.open(str(sound)) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (8000, 1, 2)
        heard = np.frombuffer(file.readframes(file.getnframes()), "<i2")
    assert len(heard) == 3 * (8192 + 1200)
    assert (heard[9392 : 9392 + 8192] == notes[1]).all()
    with Image.open(sheet) as image:
        assert image.width > 400


def test_silence_and_a_single_medium_can_be_drawn(tmp_path: Path) -> None:
    write_media(np.zeros((1, 8192), np.int16), ["silence"], tmp_path, "n", "t")
    [path] = write_media(np.zeros((1, 32, 32, 3), np.uint8), [""], tmp_path, "p", "t")
    assert path.exists()


def test_what_is_no_medium_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FieldError, match="neither pictures, clips nor notes"):
        write_media(np.zeros((2, 3)), ["a", "b"], tmp_path, "x", "t")
    with pytest.raises(FieldError, match="captions = 1: there are 2 media"):
        write_media(np.zeros((2, 32, 32, 3), np.uint8), ["a"], tmp_path, "x", "t")
