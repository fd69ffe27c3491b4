"""CLIP, T5, a KL autoencoder (8 cells to one, 16 channels), Euler steps with a shift by size."""

from __future__ import annotations

from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline

from tests.pipelines import tiny_parts, tiny_tokenizers

TRANSFORMER = {
    "in_channels": 64,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": tiny_parts.WIDTH,
    "pooled_projection_dim": tiny_parts.CLIP_WIDTH,
    "guidance_embeds": True,
    "axes_dims_rope": [4, 6, 6],
}


def pipeline(transformer: Any) -> FluxPipeline:
    """With a transformer of the configuration above."""
    clip, t5 = tiny_tokenizers.clip(), tiny_tokenizers.t5()
    return FluxPipeline(
        tokenizer=clip,
        text_encoder=tiny_parts.clip(clip),
        tokenizer_2=t5,
        text_encoder_2=tiny_parts.t5(t5),
        vae=tiny_parts.kl(),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=True),
    )
