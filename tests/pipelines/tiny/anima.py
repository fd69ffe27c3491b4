"""Qwen 3, T5's token numbers, Qwen-Image's autoencoder (8 cells to one, 16 channels), Euler steps."""

from __future__ import annotations

from typing import Any

from diffusers import AutoencoderKLQwenImage, FlowMatchEulerDiscreteScheduler

from tests.pipelines import tiny_parts, tiny_tokenizers
from tests.pipelines.tiny import cosmos
from tests.pipelines.tiny_hub import Folder

TRANSFORMER = {
    "transformer_config": cosmos.TRANSFORMER,
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
