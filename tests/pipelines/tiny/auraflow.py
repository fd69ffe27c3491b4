"""UMT5, a KL autoencoder (8 cells to one, 4 channels), Euler steps."""

from __future__ import annotations

from typing import Any

from diffusers import AuraFlowPipeline, FlowMatchEulerDiscreteScheduler

from tests.pipelines import tiny_parts, tiny_tokenizers

TRANSFORMER = {
    "sample_size": 32,
    "patch_size": 2,
    "in_channels": 4,
    "num_mmdit_layers": 1,
    "num_single_dit_layers": 1,
    "attention_head_dim": 8,
    "num_attention_heads": 2,
    "joint_attention_dim": tiny_parts.WIDTH,
    "caption_projection_dim": 16,
    "out_channels": 4,
    "pos_embed_max_size": 256,
}


def pipeline(transformer: Any) -> AuraFlowPipeline:
    """With a transformer of the configuration above."""
    tokenizer = tiny_tokenizers.t5()
    return AuraFlowPipeline(
        tokenizer=tokenizer,
        text_encoder=tiny_parts.umt5(tokenizer),
        vae=tiny_parts.kl(channels=4, scaling=0.13025, shift=None),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=1.73),
    )
