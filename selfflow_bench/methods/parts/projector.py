"""Projectors from a student's hidden states to a target's channels. Trained with the student, never exported."""

from __future__ import annotations

from typing import Literal

from torch import nn

ProjectorKind = Literal["layernorm_linear", "mlp_silu", "mlp3_silu"]
REPA_WIDTH = 2048
"""The hidden width of REPA's projector, whatever the model's."""


def projector(kind: ProjectorKind, channels: int, target_channels: int) -> nn.Module:
    """``[..., channels] -> [..., target_channels]``.

    ``layernorm_linear`` is the documented one; ``mlp_silu`` Self-Flow's two-layer MLP, D -> 2D -> D; ``mlp3_silu``
    REPA's three-layer MLP (width 2048, or 2 D where that is less).
    """
    if kind == "layernorm_linear":
        return nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, target_channels))
    if kind == "mlp3_silu":
        width = min(REPA_WIDTH, 2 * channels)
        return nn.Sequential(
            nn.Linear(channels, width),
            nn.SiLU(),
            nn.Linear(width, width),
            nn.SiLU(),
            nn.Linear(width, target_channels),
        )
    return nn.Sequential(nn.Linear(channels, 2 * channels), nn.SiLU(), nn.Linear(2 * channels, target_channels))
