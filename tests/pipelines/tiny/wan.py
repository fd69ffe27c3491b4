"""UMT5, Wan's autoencoder (4 frames, 8 cells to one, 16 channels), UniPC on flow sigmas."""

from __future__ import annotations

from typing import Any

from diffusers import UniPCMultistepScheduler, WanPipeline

from tests.pipelines import tiny_parts, tiny_tokenizers

TRANSFORMER = {
    "patch_size": [1, 2, 2],
    "num_attention_heads": 2,
    "attention_head_dim": 12,
    "in_channels": 16,
    "out_channels": 16,
    "text_dim": tiny_parts.WIDTH,
    "freq_dim": 16,
    "ffn_dim": 32,
    "num_layers": 2,
    "rope_max_seq_len": 32,
}


def pipeline(transformer: Any) -> WanPipeline:
    """With a transformer of the configuration above."""
    tokenizer = tiny_tokenizers.t5()
    return WanPipeline(
        tokenizer=tokenizer,
        text_encoder=tiny_parts.umt5(tokenizer),
        vae=tiny_parts.wan(),
        transformer=transformer,
        scheduler=UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=3.0),
    )
