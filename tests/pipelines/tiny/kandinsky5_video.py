"""Qwen 2.5-VL, CLIP, HunyuanVideo's autoencoder (4 frames, 8 cells to one, 16 channels), Euler steps."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKLHunyuanVideo, FlowMatchEulerDiscreteScheduler, Kandinsky5T2VPipeline
from torch import Tensor

from tests.pipelines import tiny_parts, tiny_tokenizers

LENGTH = 300
ATTACHED = True
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
    "visual_cond": True,
    "rope_scale_factor": [1.0, 3.16, 3.16],
}


def pipeline(transformer: Any) -> Kandinsky5T2VPipeline:
    """With a transformer of the configuration above."""
    processor, clip = tiny_tokenizers.qwen_vl(), tiny_tokenizers.clip()
    tiny_parts.with_output(transformer)
    return Kandinsky5T2VPipeline(
        tokenizer=processor,
        text_encoder=tiny_parts.qwen_vl(processor.tokenizer),
        tokenizer_2=clip,
        text_encoder_2=tiny_parts.clip(clip),
        vae=AutoencoderKLHunyuanVideo(block_out_channels=(4,) * 4, layers_per_block=1, norm_num_groups=2),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(shift=5.0),
    )


def own(published: Any, _size: dict[str, int]) -> Any:
    """With the end of its template: one token a character is too many for the whole."""
    published.pipeline.prompt_template = published.pipeline.prompt_template[-300:]
    return published.pipeline


def noise(shape: tuple[int, ...], source: torch.Generator) -> Tensor:
    """Channels last."""
    return torch.randn(1, *shape[1:], shape[0], generator=source).movedim(-1, 1)


def laid_out(made: Tensor, shape: tuple[int, ...]) -> Tensor:
    """Channels first."""
    return made.movedim(-1, 1).view(-1, *shape)
