"""Qwen 2.5-VL, Qwen-Image's autoencoder (8 cells to one, 16 channels), Euler steps with a shift by size."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler, QwenImagePipeline

from tests.pipelines import tiny_parts, tiny_tokenizers
from tests.pipelines.tiny_hub import without

LENGTH = 256
TRANSFORMER = {
    "patch_size": 2,
    "in_channels": 64,
    "out_channels": 16,
    "num_layers": 2,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": tiny_parts.WIDTH,
    "axes_dims_rope": [4, 6, 6],
}


def pipeline(transformer: Any) -> QwenImagePipeline:
    """With a transformer of the configuration above."""
    tokenizer = tiny_tokenizers.qwen()
    return QwenImagePipeline(
        tokenizer=tokenizer,
        text_encoder=tiny_parts.qwen_vl(tokenizer),
        vae=AutoencoderKLQwenImage(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, max_shift=0.9, max_image_seq_len=8192),
    )


def call(given: dict[str, Any]) -> dict[str, Any]:
    """Its ``guidance_scale`` is another; a second prediction is made for a negative prompt alone."""
    return {
        **without(given, "guidance_scale"),
        "true_cfg_scale": given["guidance_scale"],
        "negative_prompt": "",
    }
