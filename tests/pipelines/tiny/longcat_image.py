"""Qwen 2.5-VL, a KL autoencoder (8 cells to one, 16 channels), Euler steps with a shift by size."""

from __future__ import annotations

from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler, LongCatImagePipeline

from tests.pipelines import tiny_parts, tiny_tokenizers
from tests.pipelines.tiny_hub import without

TRANSFORMER = {
    "in_channels": 64,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": tiny_parts.WIDTH,
    "pooled_projection_dim": tiny_parts.WIDTH,
    "axes_dims_rope": [4, 6, 6],
}


def pipeline(transformer: Any) -> LongCatImagePipeline:
    """With a transformer of the configuration above, and nothing to rewrite prompts with."""
    tokenizer = tiny_tokenizers.qwen()
    return LongCatImagePipeline(
        tokenizer=tokenizer,
        text_encoder=tiny_parts.qwen_vl(tokenizer),
        text_processor=None,
        vae=tiny_parts.kl(),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )


def call(given: dict[str, Any]) -> dict[str, Any]:
    """How long captions are is set on the pipeline itself."""
    return {**without(given, "max_sequence_length"), "enable_prompt_rewrite": False}
