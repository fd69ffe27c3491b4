"""Sana-Video, one row per token: its own class takes a timestep per token."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tests.families.expectations import Expectations


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``time``: ``[B, N]`` in the model's clock."""
    return model(
        latents,
        timestep=time,
        encoder_hidden_states=conditions["text"],
        encoder_attention_mask=conditions["text_mask"],
        return_dict=False,
    )[0]


EXPECTED = Expectations(forward)
