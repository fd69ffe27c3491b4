"""Media brought to size: real files, coded and decoded by the libraries that the product uses."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import soundfile
from PIL import Image

from selfflow_bench.data import media
from selfflow_bench.data.media import MediaSize, UnusableError
from tests.data.made_media import samples, write_clip


def png(picture: Image.Image, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, "PNG", **options)
    return file.getvalue()


def test_pictures_cover_the_size_and_lose_their_edges() -> None:
    wide = np.zeros((16, 40, 3), dtype=np.uint8)
    wide[:, :4], wide[:, -4:] = 255, 255  # what is cut off
    found = media.picture(png(Image.fromarray(wide)), (8, 16))
    assert (found.shape, found.dtype) == ((8, 16, 3), np.uint8)
    assert not found[:, 1:-1].any()
    # Twice as large becomes the means of four, rounded in either direction.
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
    means = noise.reshape(8, 2, 8, 2, 3).mean((1, 3))
    np.testing.assert_allclose(media.picture(png(Image.fromarray(noise)), (8, 8)), means, atol=1)


def test_pictures_are_turned_as_their_camera_was_held() -> None:
    upright = np.zeros((8, 8, 3), dtype=np.uint8)
    upright[:4] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    lying = Image.fromarray(np.rot90(upright))
    assert np.array_equal(media.picture(png(lying, exif=exif), (8, 8)), upright)


@pytest.mark.parametrize("content", [b"", b"no picture", png(Image.new("RGB", (64, 64)))[:60]])
def test_what_is_no_picture_is_unusable(content: bytes) -> None:
    with pytest.raises(UnusableError) as caught:
        media.picture(content, (8, 8))
    assert caught.value.reason == media.UNREADABLE


@pytest.mark.parametrize(
    ("fps", "taken"),
    [
        (None, [0, 1, 2, 3, 4]),
        (12.0, [0, 2, 4, 6, 8]),
        (24.0, [0, 1, 2, 3, 4]),
        (16.0, [0, 1, 3, 4, 6]),
        (48.0, [0, 0, 1, 1, 2]),
    ],
)
@pytest.mark.parametrize("ending", ["mkv", "avi", "mp4"])
def test_of_a_clip_the_frames_shown_at_each_moment_are_taken(
    tmp_path: Path, ending: str, fps: float | None, taken: list[int]
) -> None:
    path = write_clip(tmp_path / f"clip.{ending}", frames=10, fps=24)
    size = MediaSize(resolution=(16, 16), frames=5, fps=fps)
    found = media.clip(path, size)
    assert (found.shape, found.dtype) == ((5, 16, 16, 3), np.uint8)
    assert np.rint(found[:, 8, 8, 0] / 20).tolist() == taken
    assert np.array_equal(media.clip(path.read_bytes(), size), found)


def test_a_clip_must_last_as_long_as_its_frames_are_shown(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", frames=10, fps=16)
    assert len(media.clip(path, MediaSize(resolution=(16, 16), frames=10, fps=16.0))) == 10
    for size in (MediaSize((16, 16), 11, 16.0), MediaSize((16, 16), 11), MediaSize((16, 16), 6, 8.0)):
        with pytest.raises(UnusableError) as caught:
            media.clip(path, size)
        assert caught.value.reason == media.TOO_SHORT
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UnusableError) as caught:
        media.clip(path, MediaSize((16, 16), 2))
    assert caught.value.reason == media.UNREADABLE


@pytest.mark.parametrize("channels", [1, 2])
def test_sounds_are_resampled_and_cut(tmp_path: Path, channels: int) -> None:
    tone = samples(1.0, 44100, channels)
    soundfile.write(tmp_path / "tone.flac", tone, 44100)
    found = media.sound(tmp_path / "tone.flac", 0.5, 48000)
    assert (found.shape, found.dtype) == ((24000, channels), np.int16)
    expected = samples(0.5, 48000, channels)
    # A resampler rings at the ends.
    np.testing.assert_allclose(found[200:-200], expected[200:-200], atol=40)
    same = media.sound((tmp_path / "tone.flac").read_bytes(), 0.5, 44100)
    assert np.array_equal(same, tone[:22050])


def test_a_sound_that_lacks_a_hundredth_is_filled_up_and_a_shorter_one_left_out(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "tone.wav", samples(0.995, 16000), 16000)
    found = media.sound(tmp_path / "tone.wav", 1.0, 16000)
    assert found.shape == (16000, 1)
    assert not found[15920:].any()
    soundfile.write(tmp_path / "tone.wav", samples(0.98, 16000), 16000)
    with pytest.raises(UnusableError) as caught:
        media.sound(tmp_path / "tone.wav", 1.0, 16000)
    assert caught.value.reason == media.TOO_SHORT


def test_a_clip_s_own_sound(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mkv", frames=8, fps=16, sound_s=0.5)
    assert np.array_equal(media.sound(path, 0.5, 16000), samples(0.5, 16000))
    with pytest.raises(UnusableError) as caught:
        media.sound(write_clip(tmp_path / "silent.mkv", frames=8, fps=16), 0.5, 16000)
    assert caught.value.reason == media.SOUNDLESS
