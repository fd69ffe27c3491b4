"""Wan S2V's parts: its sound's features, and the community's names of its transformer's weights."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from selfflow_bench.families.base import REFERENCE
from selfflow_bench.families.wan_s2v import SOUND
from tests.pipelines.cases import Case
from tests.pipelines.tiny.wan_s2v import LAYERS, TABLES, as_published


def test_weights_are_where_the_communitys_names_say(cases: Callable[[str], Case]) -> None:
    model = cases("wan_s2v").transformer
    published = as_published(model.state_dict())
    assert set(TABLES) <= set(published)
    assert all(f"{layer}.weight" in published for layer in LAYERS)
    # Loaded from such a folder: every weight came, and each is the one that was saved.
    torch.manual_seed(0)
    saved = cases("wan_s2v").family.make().state_dict()
    assert {name: value.shape for name, value in model.state_dict().items()} == {
        name: value.shape for name, value in saved.items()
    }
    assert all(torch.equal(value, saved[name]) for name, value in model.state_dict().items())


@torch.no_grad()
def test_sound_is_wav2vecs_features_of_every_layer(cases: Callable[[str], Case]) -> None:
    case = cases("wan_s2v")
    published, family = case.published, case.family
    sound = np.random.default_rng(0).integers(-(2**15), 2**15, (2, 9600, 2), dtype=np.int16)
    heard = published.encode_sound(sound)
    frames = published.pipeline.audio_encoder._get_feat_extract_output_lengths(9600)
    assert heard.shape == (2, 3, int(frames / 50 * 30), 16)
    torch.testing.assert_close(published.encode_sound(sound[1:]), heard[1:], rtol=1e-4, atol=1e-5)
    mono = np.repeat(sound.mean(-1, keepdims=True).astype(np.int16), 2, -1)
    assert not torch.equal(published.encode_sound(mono[:, ::-1].copy()), heard)
    latents = published.encode_media(case.media())
    conditions = published.encode_text([case.caption, ""], case.length) | {
        SOUND: heard,
        REFERENCE: published.encode_media(case.media()[:, :1]),
    }
    audio = family.arguments(latents, torch.ones(2), conditions)["audio"]
    assert audio.shape == (2, 3, 4 * latents.shape[2], 16)
    torch.testing.assert_close(audio[:, :, 0], heard[:, :, 0])
    torch.testing.assert_close(audio[:, :, -1], heard[:, :, -1])
    assert family.predict(case.transformer, latents, torch.full((2,), 0.5), conditions).isfinite().all()
