"""Projectors from a student's hidden states to a target's channels. Trained with the student, never exported."""

from __future__ import annotations

from typing import Literal

from torch import nn

ProjectorKind = Literal["layernorm_linear", "mlp_silu"]


def projector(kind: ProjectorKind, channels: int, target_channels: int) -> nn.Module:
    """``[..., channels] -> [..., target_channels]``.

    ``layernorm_linear`` is the documented one; ``mlp_silu`` the paper's two-layer MLP, D -> 2D -> D.
    """
    if kind == "layernorm_linear":
        return nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, target_channels))
    return nn.Sequential(nn.Linear(channels, 2 * channels), nn.SiLU(), nn.Linear(2 * channels, target_channels))
