"""Qwen 2.5-VL's language model, ByT5, an autoencoder (4 frames, 16 cells to one, 32 channels), Euler steps."""

from __future__ import annotations

from typing import Any

from diffusers import (
    AutoencoderKLHunyuanVideo15,
    ClassifierFreeGuidance,
    FlowMatchEulerDiscreteScheduler,
    HunyuanVideo15Pipeline,
)
from transformers import ByT5Tokenizer

from tests.pipelines import tiny_parts, tiny_tokenizers
from tests.pipelines.tiny_hub import without

LENGTH = 1000
# Its autoencoder is slow on processors.
SIZE = {"num_frames": 5, "height": 32, "width": 48}
TRANSFORMER = {
    "in_channels": 65,
    "out_channels": 32,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "num_layers": 2,
    "num_refiner_layers": 1,
    "mlp_ratio": 2.0,
    "patch_size": 1,
    "patch_size_t": 1,
    "text_embed_dim": tiny_parts.WIDTH,
    "text_embed_2_dim": tiny_parts.WIDTH,
    "rope_axes_dim": [4, 6, 6],
}


def pipeline(transformer: Any) -> HunyuanVideo15Pipeline:
    """With a transformer of the configuration above, and without guidance."""
    tokenizer, bytes_tokenizer = tiny_tokenizers.qwen(), ByT5Tokenizer()
    return HunyuanVideo15Pipeline(
        tokenizer=tokenizer,
        text_encoder=tiny_parts.qwen_vl(tokenizer).model.language_model,
        tokenizer_2=bytes_tokenizer,
        text_encoder_2=tiny_parts.t5(bytes_tokenizer),
        vae=AutoencoderKLHunyuanVideo15(block_out_channels=(8, 16, 16, 64, 64), layers_per_block=1),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
        guider=ClassifierFreeGuidance(guidance_scale=1.0),
    )


def call(given: dict[str, Any]) -> dict[str, Any]:
    """How it is guided, and how long captions are, is set on the pipeline itself."""
    return without(given, "guidance_scale", "max_sequence_length")
