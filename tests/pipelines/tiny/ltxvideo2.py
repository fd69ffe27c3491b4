"""Gemma 3, connectors with registers, LTX-2's two autoencoders and its vocoder, Euler steps with a shift by size."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLLTX2Audio, AutoencoderKLLTX2Video, FlowMatchEulerDiscreteScheduler, LTX2Pipeline
from diffusers.pipelines.ltx2 import LTX2TextConnectors, LTX2Vocoder
from torch import Tensor
from torch.nn.functional import pad

from tests.pipelines import tiny_parts, tiny_tokenizers

LENGTH = 32
GRID, SOUND = (2, 2, 3), 9
"""Latents of 9 frames of 64 x 96, and of their sound at 24 frames a second."""
MEAN, STD = torch.linspace(-1, 1, 128), torch.linspace(0.5, 2, 128)
TRANSFORMER = {
    "video_grid": [2, 2, 3],
    "in_channels": 128,
    "out_channels": 128,
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "cross_attention_dim": 32,
    "audio_in_channels": 128,
    "audio_out_channels": 128,
    "audio_num_attention_heads": 2,
    "audio_attention_head_dim": 8,
    "audio_cross_attention_dim": 16,
    "num_layers": 2,
    "caption_channels": tiny_parts.WIDTH,
    "rope_type": "split",
}


def pipeline(transformer: Any) -> LTX2Pipeline:
    """With a transformer of the configuration above."""
    tokenizer = tiny_tokenizers.gemma()
    connectors = {
        f"{stream}_connector_{name}": value
        for stream in ("video", "audio")
        for name, value in {
            "num_attention_heads": 2,
            "attention_head_dim": tiny_parts.WIDTH // 2,
            "num_layers": 1,
            "num_learnable_registers": 16,
        }.items()
    }
    vae = AutoencoderKLLTX2Video(
        block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8, 16, 32),
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 4,
        spatial_compression_ratio=32,
        temporal_compression_ratio=8,
    )
    audio_vae = AutoencoderKLLTX2Audio(ch_mult=(1, 1, 1), num_res_blocks=1)
    for autoencoder in (vae, audio_vae):
        autoencoder.latents_mean.copy_(MEAN)
        autoencoder.latents_std.copy_(STD)
    return LTX2Pipeline(
        tokenizer=tokenizer,
        text_encoder=tiny_parts.gemma3(tokenizer),
        connectors=LTX2TextConnectors(
            caption_channels=tiny_parts.WIDTH, text_proj_in_factor=3, rope_type="split", **connectors
        ),
        vae=vae,
        audio_vae=audio_vae,
        vocoder=LTX2Vocoder(hidden_channels=32),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(use_dynamic_shifting=True, shift_terminal=0.1),
    )


def call(given: dict[str, Any]) -> dict[str, Any]:
    """Sound guided alike, and none of the other guidances."""
    off = {"stg_scale": 0.0, "modality_scale": 1.0, "guidance_rescale": 0.0}
    off |= {f"audio_{name}": value for name, value in off.items()}
    return {**given, **off, "audio_guidance_scale": given["guidance_scale"]}


def media(count: int, source: np.random.Generator) -> np.ndarray[Any, Any]:
    """Clips of 9 frames with the sound of 24 a second."""
    fields = {
        "frames": source.integers(0, 256, (count, 9, 64, 96, 3), dtype=np.uint8),
        "audio": source.integers(-(2**15), 2**15, (count, 9000, 2), dtype=np.int16),
    }
    joint = np.empty(count, [(name, values.dtype, values.shape[1:]) for name, values in fields.items()])
    for name, values in fields.items():
        joint[name] = values
    return joint


def noise(_shape: tuple[int, ...], source: torch.Generator) -> Tensor:
    """The clip's, then the sound's, bands last."""
    clip = torch.randn(1, 128, *GRID, generator=source).flatten(2)
    return torch.cat([clip, torch.randn(1, 8, SOUND, 16, generator=source).transpose(2, 3).flatten(1, 2)], 2)


def laid_out(made: tuple[Tensor, Tensor], _shape: tuple[int, ...]) -> Tensor:
    """Normalised, in one row."""
    clip, sound = made[0].flatten(2), made[1].transpose(2, 3).flatten(1, 2)
    return (torch.cat([clip, sound], 2) - MEAN[:, None]) / STD[:, None]


def as_media(made: tuple[Any, Tensor]) -> dict[str, Any]:
    """Sound in steps of int16, silent to its end."""
    levels = (made[1] * 2**15).clamp(-(2**15), 2**15 - 1)
    return {"frames": made[0] * 255, "audio": pad(levels, (0, 720)).transpose(1, 2)}
