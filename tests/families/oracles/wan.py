"""Wan, one row per token: its own class takes a timestep per token."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tests.families.expectations import Expectations


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """Wan's own class takes a timestep per token."""
    return model(latents, timestep=time, encoder_hidden_states=conditions["text"], return_dict=False)[0]


# Its blocks cast to float32 whatever the weights are, so float64 brings no more digits.
EXPECTED = Expectations(forward, float64_tolerance=1e-5)
