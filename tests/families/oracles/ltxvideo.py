"""LTX-Video, one row per token: its own class takes a timestep per token."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tests.families.expectations import Expectations
from tests.families.oracles.wan import with_still


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``time``: ``[B, N]`` in the model's clock."""
    clip, times = with_still(latents, time, conditions)
    frames, height, width = clip.shape[2:]
    made = model(
        clip.flatten(2).transpose(1, 2),
        encoder_hidden_states=conditions["text"],
        timestep=times,
        encoder_attention_mask=conditions["text_mask"],
        num_frames=frames,
        height=height,
        width=width,
        rope_interpolation_scale=(0.32, 32, 32),
        return_dict=False,
    )[0]
    return made.transpose(1, 2).reshape(len(latents), -1, frames, height, width)[:, :, -latents.shape[2] :]


EXPECTED = Expectations(
    forward,
    raw=lambda x0, noise: (noise - x0).flatten(2).transpose(1, 2),
    target=lambda tokens, count: tokens[:, -count:],
)
