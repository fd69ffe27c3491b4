"""Gemma 2, a KL autoencoder (8 cells to one, 16 channels), Euler steps."""

from __future__ import annotations

from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler, Lumina2Pipeline

from tests.pipelines import tiny_parts, tiny_tokenizers

LENGTH = 256
TRANSFORMER = {
    "sample_size": 16,
    "patch_size": 2,
    "in_channels": 16,
    "hidden_size": 24,
    "num_layers": 2,
    "num_refiner_layers": 1,
    "num_attention_heads": 2,
    "num_kv_heads": 1,
    "multiple_of": 4,
    "scaling_factor": 1.0,
    "axes_dim_rope": [4, 4, 4],
    "axes_lens": [300, 32, 32],
    "cap_feat_dim": tiny_parts.WIDTH,
}


def pipeline(transformer: Any) -> Lumina2Pipeline:
    """With a transformer of the configuration above."""
    tokenizer = tiny_tokenizers.gemma()
    return Lumina2Pipeline(
        tokenizer=tokenizer,
        text_encoder=tiny_parts.gemma2(tokenizer),
        vae=tiny_parts.kl(),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
    )
