"""Qwen 2.5-VL, CLIP, a KL autoencoder (8 cells to one, 16 channels), Euler steps."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Kandinsky5T2IPipeline
from torch import Tensor

from tests.pipelines import tiny_parts, tiny_tokenizers

LENGTH = 300
ATTACHED = True
# It rounds to bfloat16 inside.
ATOL = 1e-3
TRANSFORMER = {
    "in_visual_dim": 16,
    "out_visual_dim": 16,
    "in_text_dim": tiny_parts.WIDTH,
    "in_text_dim2": tiny_parts.CLIP_WIDTH,
    "time_dim": 16,
    "model_dim": 32,
    "ff_dim": 32,
    "num_text_blocks": 2,
    "num_visual_blocks": 2,
    "axes_dims": [4, 6, 6],
}


def pipeline(transformer: Any) -> Kandinsky5T2IPipeline:
    """With a transformer of the configuration above."""
    return Kandinsky5T2IPipeline(vae=tiny_parts.kl(), **others(transformer, shift=3.0))


def others(transformer: Any, shift: float) -> dict[str, Any]:
    """All but the autoencoder."""
    processor, clip = tiny_tokenizers.qwen_vl(), tiny_tokenizers.clip()
    tiny_parts.with_output(transformer)
    return {
        "tokenizer": processor,
        "text_encoder": tiny_parts.qwen_vl(processor.tokenizer),
        "tokenizer_2": clip,
        "text_encoder_2": tiny_parts.clip(clip),
        "transformer": transformer,
        "scheduler": FlowMatchEulerDiscreteScheduler(shift=shift),
    }


def own(published: Any, size: dict[str, int]) -> Any:
    """In the size that is asked."""
    published.pipeline.resolutions = [(size["width"], size["height"])]
    return published.pipeline


def noise(shape: tuple[int, ...], source: torch.Generator) -> Tensor:
    """Channels last."""
    return torch.randn(1, *shape[1:], shape[0], generator=source).movedim(-1, 1)


def laid_out(made: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Channels first."""
    return made.movedim(-1, 1).view(-1, *shape)
