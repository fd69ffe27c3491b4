"""Latents as a sequence of tokens, for models that leave patching to their pipeline; and the tokens' positions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def pack(latents: Tensor, patch: Sequence[int]) -> Tensor:
    """``[B, C, *cells] -> [B, N, C * prod(patch)]``: row-major tokens; in each, channels first, then its cells."""
    axes = len(patch)
    for axis, size in enumerate(patch):
        latents = torch.unflatten(latents, 2 + 2 * axis, (-1, size))
    tokens = range(2, 2 + 2 * axes, 2)
    inside = range(3, 3 + 2 * axes, 2)
    return latents.permute(0, *tokens, 1, *inside).flatten(1 + axes).flatten(1, axes)


def unpack(tokens: Tensor, grid: Sequence[int], patch: Sequence[int]) -> Tensor:
    """``[B, N, C * prod(patch)] -> [B, C, *cells]``: the inverse of `pack` for a grid of tokens."""
    axes = len(patch)
    cells = torch.unflatten(torch.unflatten(tokens, 1, tuple(grid)), -1, (-1, *patch))
    channel = 1 + axes
    order = [axis for token in range(1, channel) for axis in (token, token + channel)]
    sizes = [count * size for count, size in zip(grid, patch, strict=True)]
    return cells.permute(0, channel, *order).reshape(len(tokens), -1, *sizes)


def grid_positions(grid: Sequence[int], device: torch.device, start: int = 0) -> Tensor:
    """float32 ``[N, axes]``: each token's place on the grid, counted from ``start`` along every axis."""
    axes = [torch.arange(start, start + size, dtype=torch.float32, device=device) for size in grid]
    return torch.stack(torch.meshgrid(*axes, indexing="ij"), -1).flatten(0, -2)
