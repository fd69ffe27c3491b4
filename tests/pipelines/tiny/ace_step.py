"""Qwen 3, the condition encoder, a stereo autoencoder (1920 samples to one, 64 channels)."""

from __future__ import annotations

from typing import Any

from diffusers import AceStepPipeline, AutoencoderOobleck, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.ace_step import AceStepConditionEncoder

from tests.pipelines import tiny_parts, tiny_tokenizers

ATTENTION = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}
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
    return AceStepPipeline(
        tokenizer=tokenizer,
        text_encoder=tiny_parts.qwen3(tokenizer),
        condition_encoder=AceStepConditionEncoder(
            **ATTENTION,
            text_hidden_dim=tiny_parts.WIDTH,
            timbre_hidden_dim=64,
            num_lyric_encoder_hidden_layers=1,
            num_timbre_encoder_hidden_layers=1,
        ),
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
