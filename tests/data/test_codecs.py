"""Codecs: exact round trips on random and on real media, statistics, strict parameters."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from selfflow_bench.data import codecs, sources
from selfflow_bench.data.spectrogram import LogSpectrogram
from selfflow_bench.errors import FieldError

exact = settings(max_examples=40, deadline=None)


@st.composite
def visual_media(draw: st.DrawFn) -> tuple[codecs.Codec, np.ndarray]:
    """Pictures or clips of any divisible size, with a codec."""
    space, time = draw(st.sampled_from([1, 2, 4])), draw(st.sampled_from([1, 2]))
    height, width = (space * draw(st.integers(1, 3)) for _ in range(2))
    frames = (time * draw(st.integers(1, 3)),) if time > 1 or draw(st.booleans()) else ()
    media = draw(arrays.arrays(np.uint8, (draw(st.integers(1, 3)), *frames, height, width, 3)))
    return codecs.SpaceToDepth(space=space, time=time), media


@exact
@given(visual_media())
def test_space_to_depth_is_exact(example: tuple[codecs.Codec, np.ndarray]) -> None:
    codec, media = example
    fitted = codec.fit(media)
    latents = fitted.encode(media)
    assert latents.dtype == torch.float32
    assert tuple(latents.shape[1:]) == codec.latent_shape(media.shape[1:])
    decoded = fitted.decode(latents)
    assert decoded.dtype == np.uint8
    np.testing.assert_array_equal(decoded, media)


@pytest.mark.parametrize(
    ("name", "codec", "shape"),
    [
        ("pictures", {"name": "space_to_depth", "space": 4}, (48, 8, 8)),
        ("clips", {"name": "space_to_depth", "space": 4, "time": 2}, (96, 8, 8, 8)),
    ],
)
def test_embedded_sets_survive_exactly_and_become_standard(name: str, codec: dict, shape: tuple[int, ...]) -> None:
    train = sources.media(sources.load(name, "train"))
    fitted = codecs.codec_from(codec).fit(train)
    latents = fitted.encode(train)
    assert latents.shape[1:] == shape
    assert abs(latents.mean().item()) < 1e-4
    assert latents.std().item() == pytest.approx(1, abs=1e-4)
    validation = sources.media(sources.load(name, "validation"))
    np.testing.assert_array_equal(fitted.decode(latents[:200]), train[:200])
    np.testing.assert_array_equal(fitted.decode(fitted.encode(validation)), validation)


def test_space_to_depth_orders_channels_as_pixel_unshuffle() -> None:
    pictures = sources.media(sources.load("pictures", "validation"))[:4]
    latents = codecs.SpaceToDepth(space=4).fit(pictures).encode(pictures)
    pixels = torch.from_numpy(pictures).permute(0, 3, 1, 2).float()
    expected = torch.nn.functional.pixel_unshuffle(pixels, 4)
    mean, std = expected.mean(), expected.std(correction=0)
    torch.testing.assert_close(latents, (expected - mean) / std, atol=1e-4, rtol=1e-4)


def test_space_to_depth_puts_frames_between_color_and_row() -> None:
    clip = np.zeros((1, 4, 4, 4, 3), np.uint8)
    # Color 2, frame 1 of the second pair, row 1 and column 0 of the block in the lower right.
    clip[0, 3, 3, 2, 2] = 255
    latents = codecs.SpaceToDepth(space=2, time=2).fit(clip).encode(clip)
    channel, *cell = (int(index[0]) for index in torch.nonzero(latents[0] > 1, as_tuple=True))
    assert channel == ((2 * 2 + 1) * 2 + 1) * 2 + 0
    assert cell == [1, 1, 1]


def test_spectrogram_of_a_tone_is_in_its_band_at_its_amplitude() -> None:
    rate, hertz, amplitude = 8000, 1000.0, 0.25
    tone = np.round(32768 * amplitude * np.sin(2 * np.pi * hertz * np.arange(8192) / rate)).astype(np.int16)[None]
    logarithm = LogSpectrogram(channels=128)._logarithm(tone)[0, :, 5:-5]
    # Bands are 31.25 Hz wide: the tone is in the middle of band 32.
    assert set(logarithm.argmax(0).tolist()) == {32}
    torch.testing.assert_close(logarithm[32].exp(), torch.full((54,), amplitude + 1e-3), atol=2e-3, rtol=0)


def test_spectrogram_normalises_each_band() -> None:
    notes = sources.media(sources.load("notes", "train"))[::4]
    latents = LogSpectrogram().fit(notes).encode(notes)
    assert latents.shape[1:] == LogSpectrogram().latent_shape(notes.shape[1:]) == (128, 64)
    torch.testing.assert_close(latents.mean((0, 2)), torch.zeros(128), atol=1e-4, rtol=0)
    torch.testing.assert_close(latents.std((0, 2)), torch.ones(128), atol=1e-3, rtol=0)


def test_sound_from_a_spectrogram_has_that_spectrogram() -> None:
    """Griffin-Lim on real notes: the spectrogram of what it makes is near the one it was given."""
    notes = sources.media(sources.load("notes", "validation"))[::32]
    codec = LogSpectrogram().fit(notes)
    latents = codec.encode(notes)
    decoded = codec.decode(latents)
    assert decoded.dtype == np.int16
    assert decoded.shape == notes.shape
    assert (codec.encode(decoded) - latents).square().mean().sqrt() < 0.3


def test_decoding_notes_depends_on_nothing_but_the_latent() -> None:
    notes = sources.media(sources.load("notes", "validation"))[:5]
    codec = LogSpectrogram().fit(notes)
    latents = codec.encode(notes)
    np.testing.assert_array_equal(codec.decode(latents)[3:], codec.decode(latents[3:]))


@pytest.mark.parametrize("codec", [codecs.SpaceToDepth(space=2, time=2), LogSpectrogram(channels=8)])
def test_state_survives_json(codec: codecs.Codec) -> None:
    generator = np.random.default_rng(0)
    if isinstance(codec, LogSpectrogram):
        media = generator.integers(-3000, 3000, (3, 64), dtype=np.int16)
    else:
        media = generator.integers(0, 256, (3, 4, 8, 8, 3), dtype=np.uint8)
    for original in (codec, codec.fit(media)):
        assert codecs.from_state(json.loads(json.dumps(original.state()))) == original


def test_decoding_rounds_and_saturates() -> None:
    codec = codecs.SpaceToDepth().fit(np.array([[[[0, 128, 255]]]], np.uint8))
    low, high = codec.decode(torch.full((1, 3, 1, 1), -50.0)), codec.decode(torch.full((1, 3, 1, 1), 50.0))
    assert low.max() == 0
    assert high.min() == 255
    notes = LogSpectrogram(channels=8).fit(np.arange(-32, 32, dtype=np.int16)[None])
    wild = notes.decode(torch.full((1, 8, 8), 1e30))
    assert wild.dtype == np.int16


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(bad: float) -> None:
    pictures = codecs.SpaceToDepth().fit(np.zeros((1, 2, 2, 3), np.uint8))
    notes = LogSpectrogram(channels=2).fit(np.zeros((1, 8), np.int16))
    with pytest.raises(ValueError, match="finite"):
        pictures.decode(torch.full((1, 3, 2, 2), bad))
    with pytest.raises(ValueError, match="finite"):
        notes.decode(torch.full((1, 2, 4), bad))


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"name": "vae"}, "name"),
        ({}, "name"),
        ({"name": "log_spectrogram", "channel": 64}, "channel"),
        ({"name": "log_spectrogram", "channels": "64"}, "channels"),
        ({"name": "log_spectrogram", "channels": True}, "channels"),
        ({"name": "space_to_depth", "space": 0}, "space"),
        ({"name": "space_to_depth", "statistics": 1}, "statistics"),
    ],
)
def test_bad_tables_are_refused(spec: dict, field: str) -> None:
    with pytest.raises(FieldError) as caught:
        codecs.codec_from(spec)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("spec", "shape", "field"),
    [
        ({"name": "space_to_depth", "space": 5}, (32, 32, 3), "space"),
        ({"name": "space_to_depth", "time": 3}, (16, 32, 32, 3), "time"),
        ({"name": "space_to_depth", "time": 2}, (32, 32, 3), "time"),
        ({"name": "log_spectrogram", "channels": 100}, (8192,), "channels"),
        ({"name": "log_spectrogram", "channels": 1}, (8192,), "channels"),
    ],
)
def test_sizes_that_do_not_divide_are_refused(spec: dict, shape: tuple[int, ...], field: str) -> None:
    with pytest.raises(FieldError) as caught:
        codecs.codec_from(spec).latent_shape(shape)
    assert caught.value.field == field


def test_unfitted_codecs_and_wrong_types_are_refused() -> None:
    pictures = np.zeros((1, 4, 4, 3), np.uint8)
    with pytest.raises(ValueError, match="not fitted"):
        codecs.SpaceToDepth().encode(pictures)
    with pytest.raises(ValueError, match="not fitted"):
        LogSpectrogram().decode(torch.zeros(1, 128, 2))
    with pytest.raises(ValueError, match="float64"):
        codecs.SpaceToDepth().fit(pictures / 255)
