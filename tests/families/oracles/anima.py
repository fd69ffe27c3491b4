"""Anima, one row per token: Cosmos on one frame, behind the text conditioner."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tests.families.expectations import Expectations
from tests.families.oracles.cosmos import transformed


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``time``: ``[B, N]`` in the model's clock."""
    mask = conditions["text_mask"]
    text = model.text_conditioner(
        source_hidden_states=conditions["text"],
        target_input_ids=conditions["text_ids"],
        target_attention_mask=mask,
        source_attention_mask=mask,
    )
    return transformed(model.transformer, latents[:, :, None], time, text)[:, :, 0]


EXPECTED = Expectations(
    forward,
    clock=lambda sigma: sigma,
    raw=lambda x0, noise: (noise - x0)[:, :, None],
    modulated=lambda model: (model.transformer.transformer_blocks[0].attn1, "hidden_states"),
)
