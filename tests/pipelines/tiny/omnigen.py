"""Token numbers, a KL autoencoder (8 cells to one, 4 channels), Euler steps counted from the data's end."""

from __future__ import annotations

from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler, OmniGenPipeline

from tests.pipelines import tiny_parts, tiny_tokenizers
from tests.pipelines.tiny_hub import without

LENGTH = 512
# Its pipeline gives all of a batch the positions of the first: right only if that is not the shorter.
CAPTION = "a red fox" + " and far away" * 28
TRANSFORMER = {
    "in_channels": 4,
    "patch_size": 2,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "intermediate_size": 32,
    "num_layers": 2,
    "pad_token_id": 0,
    "vocab_size": len(tiny_tokenizers.phi()),
    "rope_scaling": {"short_factor": [1.0, 1.0, 1.0, 1.0], "long_factor": [1.0, 1.0, 1.0, 1.0]},
    "pos_embed_max_size": 16,
    "time_step_dim": 16,
}


def pipeline(transformer: Any) -> OmniGenPipeline:
    """With a transformer of the configuration above."""
    return OmniGenPipeline(
        tokenizer=tiny_tokenizers.phi(),
        vae=tiny_parts.kl(channels=4, scaling=0.13025, shift=None),
        transformer=transformer,
        scheduler=FlowMatchEulerDiscreteScheduler(num_train_timesteps=1, invert_sigmas=True),
    )


def call(given: dict[str, Any]) -> dict[str, Any]:
    """Captions are not cut."""
    return without(given, "max_sequence_length")
