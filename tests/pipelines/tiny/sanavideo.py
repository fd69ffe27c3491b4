"""Gemma 2, Wan's autoencoder (4 frames, 8 cells to one, 16 channels), DPM-Solver++ on flow sigmas."""

from __future__ import annotations

from typing import Any

from diffusers import DPMSolverMultistepScheduler, SanaVideoPipeline

from tests.pipelines import tiny_parts, tiny_tokenizers
from tests.pipelines.tiny_hub import without

TRANSFORMER = {
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 12,
    "cross_attention_dim": 24,
    "caption_channels": tiny_parts.WIDTH,
    "sample_size": 32,
    "patch_size": [1, 2, 2],
    "rope_max_seq_len": 32,
}


def pipeline(transformer: Any) -> SanaVideoPipeline:
    """With a transformer of the configuration above."""
    tokenizer = tiny_tokenizers.gemma()
    return SanaVideoPipeline(
        tokenizer=tokenizer,
        text_encoder=tiny_parts.gemma2(tokenizer),
        vae=tiny_parts.wan(),
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=8.0, final_sigmas_type="zero"
        ),
    )


def call(given: dict[str, Any]) -> dict[str, Any]:
    """In the size that is asked."""
    return {**without(given, "num_frames"), "frames": given["num_frames"], "use_resolution_binning": False}
