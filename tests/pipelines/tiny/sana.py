"""Gemma 2, DC-AE (32 cells to one, 32 channels), DPM-Solver++ on flow sigmas."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderDC, DPMSolverMultistepScheduler, SanaPipeline

from tests.pipelines import tiny_parts, tiny_tokenizers

TRANSFORMER = {
    "in_channels": 32,
    "out_channels": 32,
    "num_layers": 2,
    "num_attention_heads": 2,
    "attention_head_dim": 8,
    "num_cross_attention_heads": 2,
    "cross_attention_head_dim": 8,
    "cross_attention_dim": 16,
    "caption_channels": tiny_parts.WIDTH,
    "sample_size": 32,
    "patch_size": 1,
}


def pipeline(transformer: Any) -> SanaPipeline:
    """With a transformer of the configuration above."""
    tokenizer = tiny_tokenizers.gemma()
    levels: dict[str, Any] = {
        f"{side}_{name}": value
        for side in ("encoder", "decoder")
        for name, value in {
            "block_out_channels": (4, 4, 8, 8, 16, 32),
            "layers_per_block": (1,) * 6,
            "qkv_multiscales": ((),) * 6,
        }.items()
    }
    return SanaPipeline(
        tokenizer=tokenizer,
        text_encoder=tiny_parts.gemma2(tokenizer),
        vae=AutoencoderDC(latent_channels=32, attention_head_dim=4, scaling_factor=0.41407, **levels),
        transformer=transformer,
        scheduler=DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0, final_sigmas_type="zero"
        ),
    )


def call(given: dict[str, Any]) -> dict[str, Any]:
    """In the size that is asked."""
    return {**given, "use_resolution_binning": False}
