"""T5, LTX's autoencoder (8 frames, 32 cells to one, 128 channels; its decoder takes a time), Euler steps."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKLLTXVideo, FlowMatchEulerDiscreteScheduler, LTXPipeline

from tests.pipelines import tiny_parts, tiny_tokenizers

TRANSFORMER = {
    "in_channels": 128,
    "out_channels": 128,
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "cross_attention_dim": 24,
    "num_layers": 2,
    "caption_channels": tiny_parts.WIDTH,
}


def pipeline(transformer: Any) -> LTXPipeline:
    """With a transformer of the configuration above."""
    tokenizer = tiny_tokenizers.t5(128)
    return LTXPipeline(
        tokenizer=tokenizer,
        text_encoder=tiny_parts.t5(tokenizer),
        vae=AutoencoderKLLTXVideo(
            latent_channels=128,
            block_out_channels=(8,) * 4,
            decoder_block_out_channels=(8,) * 4,
            layers_per_block=(1,) * 5,
            decoder_layers_per_block=(1,) * 5,
            timestep_conditioning=True,
        ),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(),
    )
