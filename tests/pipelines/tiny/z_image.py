"""Qwen 3, a KL autoencoder (8 cells to one, 16 channels), Euler steps."""

from __future__ import annotations

from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler, ZImagePipeline

from tests.pipelines import tiny_parts, tiny_tokenizers

LENGTH = 64
TRANSFORMER = {
    "in_channels": 16,
    "dim": 32,
    "n_layers": 2,
    "n_refiner_layers": 1,
    "n_heads": 2,
    "n_kv_heads": 2,
    "cap_feat_dim": tiny_parts.WIDTH,
    "axes_dims": [4, 6, 6],
    "axes_lens": [256, 32, 32],
}


def pipeline(transformer: Any) -> ZImagePipeline:
    """With a transformer of the configuration above."""
    tokenizer = tiny_tokenizers.qwen()
    return ZImagePipeline(
        tokenizer=tokenizer,
        text_encoder=tiny_parts.qwen3(tokenizer),
        vae=tiny_parts.kl(),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=6.0),
    )


def call(given: dict[str, Any]) -> dict[str, Any]:
    """Its scale of guidance counts from 0."""
    return {**given, "guidance_scale": given["guidance_scale"] - 1}
