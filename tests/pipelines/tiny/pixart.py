"""T5, a KL autoencoder (8 cells to one, 4 channels), DPM-Solver++."""

from __future__ import annotations

from typing import Any

from diffusers import DPMSolverMultistepScheduler, PixArtSigmaPipeline

from tests.pipelines import tiny_parts, tiny_tokenizers

TRANSFORMER = {
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "in_channels": 4,
    "out_channels": 8,
    "num_layers": 2,
    "cross_attention_dim": 16,
    "sample_size": 16,
    "patch_size": 2,
    "caption_channels": tiny_parts.WIDTH,
    "use_additional_conditions": False,
}


def pipeline(transformer: Any) -> PixArtSigmaPipeline:
    """With a transformer of the configuration above."""
    tokenizer = tiny_tokenizers.t5()
    return PixArtSigmaPipeline(
        tokenizer=tokenizer,
        text_encoder=tiny_parts.t5(tokenizer),
        vae=tiny_parts.kl(channels=4, scaling=0.13025, shift=None),
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(),
    )


def call(given: dict[str, Any]) -> dict[str, Any]:
    """In the size that is asked, and captions as they are."""
    return {**given, "use_resolution_binning": False, "clean_caption": False}
