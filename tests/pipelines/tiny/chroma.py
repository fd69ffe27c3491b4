"""T5, a KL autoencoder (8 cells to one, 16 channels), Euler steps."""

from __future__ import annotations

from typing import Any

from diffusers import ChromaPipeline, FlowMatchEulerDiscreteScheduler

from tests.pipelines import tiny_parts, tiny_tokenizers

TRANSFORMER = {
    "in_channels": 64,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": tiny_parts.WIDTH,
    "axes_dims_rope": [4, 6, 6],
    "approximator_num_channels": 8,
    "approximator_hidden_dim": 16,
    "approximator_layers": 1,
}


def pipeline(transformer: Any) -> ChromaPipeline:
    """With a transformer of the configuration above."""
    tokenizer = tiny_tokenizers.t5()
    return ChromaPipeline(
        tokenizer=tokenizer,
        text_encoder=tiny_parts.t5(tokenizer),
        vae=tiny_parts.kl(),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
    )


def own(published: Any, _size: dict[str, int]) -> Any:
    """Its call hands on its mask as numbers, which attention adds: a known fault of diffusers 0.42.1."""
    prepare = published.pipeline._prepare_attention_mask
    published.pipeline._prepare_attention_mask = lambda attention_mask, **others: prepare(
        attention_mask=attention_mask if attention_mask is None else attention_mask.bool(), **others
    )
    return published.pipeline
