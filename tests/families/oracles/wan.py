"""Wan, one row per token: its own class takes a timestep per token."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from tests.families.expectations import Expectations


def with_still(latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """The reference as a first frame, and time 0 for its tokens."""
    if "reference" not in conditions:
        return latents, time
    still = torch.zeros(len(time), time.shape[1] // latents.shape[2], dtype=time.dtype)
    return torch.cat([conditions["reference"], latents], 2), torch.cat([still, time], 1)


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``time``: ``[B, N]`` in the model's clock."""
    clip, times = with_still(latents, time, conditions)
    made = model(clip, timestep=times, encoder_hidden_states=conditions["text"], return_dict=False)[0]
    return made[:, :, clip.shape[2] - latents.shape[2] :]


# Its blocks cast to float32 whatever the weights are, so float64 brings no more digits.
EXPECTED = Expectations(forward, float64_tolerance=1e-5, target=lambda tokens, count: tokens[:, -count:])
