"""Two CLIPs, T5, a KL autoencoder (8 cells to one, 16 channels), Euler steps."""

from __future__ import annotations

from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler, StableDiffusion3Pipeline

from tests.pipelines import tiny_parts, tiny_tokenizers

TRANSFORMER = {
    "sample_size": 32,
    "patch_size": 2,
    "in_channels": 16,
    "out_channels": 16,
    "num_layers": 2,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": tiny_parts.WIDTH,
    "caption_projection_dim": 16,
    "pooled_projection_dim": 2 * tiny_parts.CLIP_WIDTH,
    "pos_embed_max_size": 32,
    "dual_attention_layers": [0],
    "qk_norm": "rms_norm",
}


def pipeline(transformer: Any) -> StableDiffusion3Pipeline:
    """With a transformer of the configuration above."""
    clip, t5 = tiny_tokenizers.clip(), tiny_tokenizers.t5()
    return StableDiffusion3Pipeline(
        tokenizer=clip,
        text_encoder=tiny_parts.clip(clip, projected=True),
        tokenizer_2=clip,
        text_encoder_2=tiny_parts.clip(clip, projected=True),
        tokenizer_3=t5,
        text_encoder_3=tiny_parts.t5(t5),
        vae=tiny_parts.kl(scaling=1.5305, shift=0.0609),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
