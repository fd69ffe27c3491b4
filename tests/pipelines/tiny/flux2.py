"""Mistral Small 3 (as deep as is read), FLUX.2's autoencoder, Euler steps with a shift by size."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AutoencoderKLFlux2, FlowMatchEulerDiscreteScheduler, Flux2Pipeline

from tests.pipelines import tiny_parts, tiny_tokenizers

LENGTH = 288
TRANSFORMER = {
    "in_channels": 128,
    "num_layers": 1,
    "num_single_layers": 1,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 3 * tiny_parts.WIDTH,
    "axes_dims_rope": [4, 4, 4, 4],
}


def pipeline(transformer: Any) -> Flux2Pipeline:
    """With a transformer of the configuration above, and an autoencoder that has seen latents."""
    processor = tiny_tokenizers.pixtral()
    vae = AutoencoderKLFlux2(block_out_channels=(4,) * 4, layers_per_block=1, norm_num_groups=2)
    vae.bn.running_mean.copy_(torch.linspace(-1, 1, 128))
    vae.bn.running_var.copy_(torch.linspace(0.5, 2, 128))
    return Flux2Pipeline(
        tokenizer=processor,
        text_encoder=tiny_parts.mistral3(processor.tokenizer),
        vae=vae,
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True),
    )
