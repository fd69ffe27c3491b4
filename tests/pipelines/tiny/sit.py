"""The autoencoder that SiT is trained with (8 cells to one, 4 channels): a folder of its own."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKL

from tests.pipelines import tiny_parts

TRANSFORMER = {
    "input_size": 8,
    "in_channels": 4,
    "hidden_size": 24,
    "depth": 2,
    "num_heads": 2,
    "num_classes": 10,
}


def pipeline(transformer: Any) -> AutoencoderKL:
    """Without the transformer."""
    return tiny_parts.kl(channels=4, scaling=0.18215, shift=None)
