"""Middle sizes to time steps at: larger than the micro tier's, so that fixed overheads do not decide; quick on a CPU.

One family of each kind of modulation, on 256 tokens, 256 channels wide. Knows numbers only: no family, no torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class MiddleSize:
    """What differs from a recipe's micro tier.

    Args:
        modulation: how the family is modulated by its time, for readers.
        latent_shape: of one sample, ``[C, *cells]``.
        transformer: arguments that replace the micro tier's.
    """

    modulation: str
    latent_shape: tuple[int, ...]
    transformer: Mapping[str, Any]


MIDDLE_SIZES: Mapping[str, MiddleSize] = {
    "sana": MiddleSize(
        "one row for all blocks, a table in each",
        (48, 16, 16),
        {
            "num_attention_heads": 8,
            "num_cross_attention_heads": 8,
            "cross_attention_dim": 256,
            "sample_size": 16,
        },
    ),
    "sd3": MiddleSize(
        "a norm in each block for either stream",
        (12, 32, 32),
        {"num_attention_heads": 8, "caption_projection_dim": 256, "sample_size": 32},
    ),
    "flux2": MiddleSize("shared by all blocks", (48, 16, 16), {"num_attention_heads": 8}),
    "chroma": MiddleSize(
        "a network that makes all rows", (12, 32, 32), {"num_attention_heads": 8, "approximator_hidden_dim": 256}
    ),
    "z_image": MiddleSize("gates through tanh", (12, 32, 32), {"dim": 256, "n_heads": 8, "n_kv_heads": 8}),
    "cosmos": MiddleSize(
        "every norm through a low rank", (24, 4, 16, 16), {"num_attention_heads": 8, "adaln_lora_dim": 128}
    ),
    "kandinsky5_image": MiddleSize(
        "nine parts, in float32", (12, 32, 32), {"model_dim": 256, "ff_dim": 1024, "time_dim": 256}
    ),
    "omnigen": MiddleSize(
        "a token of the sequence",
        (12, 32, 32),
        {
            "hidden_size": 256,
            "num_attention_heads": 8,
            "num_key_value_heads": 8,
            "intermediate_size": 672,
            "max_position_embeddings": 512,
            "original_max_position_embeddings": 512,
        },
    ),
}
