"""Qwen 3, T5's token numbers, Qwen-Image's autoencoder (8 cells to one, 16 channels), Euler steps."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler

from tests.pipelines import tiny_parts, tiny_tokenizers
from tests.pipelines.tiny_hub import Folder

TRANSFORMER = {
    "transformer_config": {
        "in_channels": 16,
        "out_channels": 16,
        "num_attention_heads": 2,
        "attention_head_dim": 16,
        "num_layers": 2,
        "mlp_ratio": 2.0,
        "text_embed_dim": tiny_parts.WIDTH,
        "adaln_lora_dim": 4,
        "max_size": [4, 16, 16],
        "patch_size": [1, 2, 2],
        "rope_scale": [1.0, 4.0, 4.0],
        "concat_padding_mask": True,
        "extra_pos_embed_type": None,
    },
    "text_conditioner_config": {
        "source_dim": tiny_parts.WIDTH,
        "target_dim": tiny_parts.WIDTH,
        "model_dim": 16,
        "num_layers": 1,
        "num_attention_heads": 2,
        "target_vocab_size": len(tiny_tokenizers.t5()),
        "min_sequence_length": 32,
    },
}
LENGTH = 24


def pipeline(transformer: Any) -> Folder:
    """With the parts of a model of the configuration above."""
    tokenizer = tiny_tokenizers.qwen()
    return Folder(
        "modular_model_index.json",
        transformer=transformer.transformer,
        text_conditioner=transformer.text_conditioner,
        text_encoder=tiny_parts.qwen3(tokenizer),
        tokenizer=tokenizer,
        t5_tokenizer=tiny_tokenizers.t5(),
        vae=AutoencoderKLQwenImage(base_dim=4, dim_mult=[1, 1, 1, 1], num_res_blocks=1),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )
