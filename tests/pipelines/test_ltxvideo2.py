"""What is particular to LTX-2's published pipeline: media of two streams, in one row of latents."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from transformers.audio_utils import mel_filter_bank, spectrogram, window_function

from selfflow_bench.pipelines.parts.log_mel import log_mel, silent
from selfflow_bench.places import default_places
from selfflow_bench.recipe import load_recipe
from tests.pipelines.cases import Case
from tests.pipelines.tiny.ltxvideo2 import GRID, SOUND


@torch.no_grad()
def test_clips_and_their_sound_become_one_row_of_latents_and_come_back(cases: Callable[[str], Case]) -> None:
    case = cases("ltxvideo2")
    published, media = case.published, case.media()
    latents = published.encode_media(media)
    compression = load_recipe(default_places().recipes, "ltxvideo2")[1].published.compression
    assert tuple(latents.shape[1:]) == compression.latent_shape((9, 64, 96), 24.0) == (128, 12 + SOUND)
    assert torch.equal(latents, published.encode_media(media))
    decoded = published.decode(latents)
    assert decoded["frames"].shape == media["frames"].shape
    assert decoded["audio"].shape == (2, SOUND * 960, 2)
    vae = published.pipeline.vae
    values = torch.from_numpy(media["frames"]).movedim(-1, 1).float() / 127.5 - 1
    expected = vae.decode(vae.encode(values).latent_dist.mode()).sample.movedim(1, -1)
    np.testing.assert_allclose(decoded["frames"], ((expected + 1) * 127.5).clamp(0, 255), atol=0.6)


def test_one_channel_is_heard_on_both(cases: Callable[[str], Case]) -> None:
    published, media = cases("ltxvideo2").published, cases("ltxvideo2").media(1)
    fields = [("frames", np.uint8, media["frames"].shape[1:]), ("audio", np.int16, (9000, 1))]
    one, two = np.empty(1, fields), media.copy()
    one["frames"], one["audio"], two["audio"] = media["frames"], media["audio"][..., :1], media["audio"][..., :1]
    assert torch.equal(published.encode_media(one), published.encode_media(two))


def test_packed_latents_of_unknown_clips_are_refused(
    cases: Callable[[str], Case], monkeypatch: pytest.MonkeyPatch
) -> None:
    published = cases("ltxvideo2").published
    monkeypatch.setattr(published, "video_grid", None)
    with pytest.raises(ValueError, match="set video_grid"):
        published.decode(torch.zeros(1, 128, 21))
    published.encode_media(cases("ltxvideo2").media(1))
    assert published.video_grid == GRID  # type: ignore[attr-defined]


def test_the_spectrogram_is_the_one_that_transformers_makes() -> None:
    sound = torch.randn(2, 1600, generator=torch.manual_seed(0), dtype=torch.float64)
    filters = mel_filter_bank(513, 64, 0.0, 8000.0, 16000, norm="slaney", mel_scale="slaney")
    found = log_mel(sound.float(), 16000, 160, 64)
    for row in range(2):
        expected = spectrogram(
            sound[row].numpy(),
            window_function(1024, "hann"),
            1024,
            160,
            power=1.0,
            mel_filters=filters,
            mel_floor=1e-5,
            log_mel="log",
        )
        np.testing.assert_allclose(found[row], expected.T, rtol=1e-3, atol=1e-3)
    assert torch.equal(log_mel(torch.zeros(1, 1600), 16000, 160, 64)[:, :3], silent(3, found[:1]))
