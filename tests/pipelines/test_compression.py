"""Latent shapes of the reference tier, against what diffusers' own autoencoders of published configuration give."""

from __future__ import annotations

from typing import Any

import diffusers
import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl_ltx2_audio import LATENT_DOWNSAMPLE_FACTOR
from torch import Tensor, nn

from selfflow_bench.places import Places, default_places
from selfflow_bench.plan import make_plan
from selfflow_bench.recipe import Compression, load_recipe, recipe_names

# What the published configurations say otherwise than the class's own defaults, as far as shapes go.
CONFIGURATIONS: dict[str, dict[str, Any]] = {
    "AutoencoderKL": {
        "block_out_channels": (128, 256, 512, 512),
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
    },
    "AutoencoderOobleck": {"downsampling_ratios": [2, 4, 4, 6, 10], "sampling_rate": 48000},
}
ALIKE = ("longcat_video", "sanavideo", "wan_s2v", "sit_b", "sit_l")
"""Recipes whose autoencoder and media another has."""
OF_CLIPS = ("AutoencoderKLQwenImage",)
"""To these a picture is a clip of one frame."""


def encoded(kind: str, compression: Compression, media: tuple[int, ...]) -> Tensor:
    """The latents of one medium, on the meta device."""
    config = dict(CONFIGURATIONS.get(kind, {}))
    if kind == "AutoencoderKL":
        config["latent_channels"] = compression.channels
    shape = (1, *media) if kind in OF_CLIPS and len(media) == 2 else media
    with torch.device("meta"), torch.no_grad():
        autoencoder: nn.Module = getattr(diffusers, kind)(**config).eval()
        found = autoencoder.encode(torch.empty(1, 2 if len(media) == 1 else 3, *shape))  # type: ignore[operator]
    latents: Tensor = found.latent if hasattr(found, "latent") else found.latent_dist.mode()
    return latents[:, :, 0] if len(shape) > len(media) else latents


@pytest.mark.parametrize(
    "recipe_name",
    [
        pytest.param(name, marks=pytest.mark.once if name in ALIKE else ())
        for name in recipe_names(default_places().recipes)
    ],
)
def test_the_latent_shape_follows_from_the_autoencoder(recipe_name: str, project: Places) -> None:
    published = load_recipe(project.recipes, recipe_name)[1].published
    hub = make_plan(project, recipe_name, tier="reference").runs[0].conditions.data.hub
    assert hub is not None
    media, compression = published.media_of(hub), published.compression
    latents = encoded(published.autoencoder, compression, media)
    channels, *cells = latents.shape[1:]
    side = compression.packed
    packed = (channels * side**2, *(size // side for size in cells))
    expected = compression.latent_shape(media, hub.fps or published.fps)
    if compression.sound_rate is None:
        assert packed == expected
    else:  # a clip's cells, then its sound's
        with torch.device("meta"):
            config = diffusers.AutoencoderKLLTX2Audio().config
        assert compression.sound_rate == config.sample_rate / config.mel_hop_length / LATENT_DOWNSAMPLE_FACTOR
        assert packed[0] == expected[0]
        sound = round(media[0] / (hub.fps or published.fps or 0) * compression.sound_rate)
        assert packed[1] * packed[2] * packed[3] + sound == expected[1]
