"""Kandinsky 5 on one frame, one row per token."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from tests.families.expectations import Expectations
from tests.families.oracles.kandinsky5_video import ROUNDED, transformed


def forward(model, latents: Tensor, time: Tensor, conditions: Mapping[str, Tensor]) -> Tensor:
    """``time``: ``[B, N]`` in the model's clock."""
    return transformed(model, latents[:, :, None], time, conditions)[:, :, 0]


EXPECTED = Expectations(forward, raw=lambda x0, noise: (noise - x0)[:, :, None].movedim(1, -1), **ROUNDED)
