"""Qwen 3, the condition encoder, a stereo autoencoder (1920 samples to one, 64 channels)."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import AceStepPipeline, AutoencoderOobleck, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.ace_step import AceStepConditionEncoder
from torch import Tensor

from tests.pipelines import tiny_parts, tiny_tokenizers
from tests.pipelines.tiny_hub import without

ATTENTION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}
LENGTH = 256
SECONDS = 0.4
SIZE = {"samples": round(48000 * SECONDS)}
TRANSFORMER = {
    **ATTENTION,
    "num_hidden_layers": 2,
    "in_channels": 192,
    "audio_acoustic_hidden_dim": 64,
    "patch_size": 2,
    "sliding_window": 8,
}


def pipeline(transformer: Any) -> AceStepPipeline:
    """With a transformer of the configuration above."""
    tokenizer = tiny_tokenizers.qwen()
    encoder = AceStepConditionEncoder(
        **ATTENTION,
        text_hidden_dim=tiny_parts.WIDTH,
        timbre_hidden_dim=64,
        num_lyric_encoder_hidden_layers=1,
        num_timbre_encoder_hidden_layers=1,
    )
    encoder.silence_latent.normal_()
    return AceStepPipeline(
        tokenizer=tokenizer,
        text_encoder=tiny_parts.qwen3(tokenizer),
        condition_encoder=encoder,
        vae=AutoencoderOobleck(
            encoder_hidden_size=128,
            downsampling_ratios=[2, 4, 4, 6, 10],
            channel_multiples=[1, 1, 1, 1, 1],
            decoder_channels=4,
            decoder_input_channels=64,
            sampling_rate=48000,
        ),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, shift=1.0),
    )


def call(given: dict[str, Any]) -> dict[str, Any]:
    """Padding is what its transformer attends to, and a longer prompt in the batch what makes it."""
    return {
        **without(given, "samples", "max_sequence_length"),
        "prompt": [given["prompt"], " a" * given["max_sequence_length"]],
        "lyrics": ["", ""],
        "max_text_length": given["max_sequence_length"],
        "audio_duration": SECONDS,
    }


def own(published: Any, _size: dict[str, int]) -> Any:
    """With prompts that state the right length."""
    published.seconds = SECONDS
    return published.pipeline


def noise(shape: tuple[int, ...], source: torch.Generator) -> Tensor:
    """Channels last."""
    return torch.randn(1, *reversed(shape), generator=source).transpose(1, 2)


def laid_out(made: Tensor, _shape: tuple[int, ...]) -> Tensor:
    """Channels first, of the one prompt."""
    return made[:1].transpose(1, 2)
