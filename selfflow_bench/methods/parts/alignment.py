"""Aligning tokens to a target by their direction: cosines, the terms of neighbouring frames, grids that differ.

Tokens are ``[B, N, D]``, frame-major where there are frames. Everything is computed in float32.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def unit(tokens: Tensor) -> Tensor:
    """Tokens of length 1, in float32."""
    return F.normalize(tokens.float(), dim=-1)


def mean_cosine(first: Tensor, second: Tensor) -> Tensor:
    """Mean over all tokens of the cosine of unit tokens."""
    return (first * second).sum(-1).mean()


def score(cosine: Tensor) -> Tensor:
    """A cosine to log: without gradient, and within [-1, 1] whatever the rounding."""
    return cosine.detach().clamp(-1.0, 1.0)


def neighbour_terms(student: Tensor, target: Tensor, frames: int, reach: int, tau: float) -> tuple[Tensor, Tensor]:
    """``(1/F) sum_f sum_d exp(-d/tau) (1 - cos(student f, target f +- d))`` over neighbours that exist; mean cosine.

    Documented for video in the Self-Flow guide and for CREPA. Both are unit tokens.
    """
    ours, theirs = torch.unflatten(student, 1, (frames, -1)), torch.unflatten(target, 1, (frames, -1))
    total, cosines = student.new_zeros(()), []
    for distance in range(1, min(reach, frames - 1) + 1):
        factor, pairs = math.exp(-distance / tau), frames - distance
        for near, far in ((ours[:, :pairs], theirs[:, distance:]), (ours[:, distance:], theirs[:, :pairs])):
            cosine = mean_cosine(near, far)
            total = total + factor * (1 - cosine) * pairs / frames
            cosines.append(cosine)
    return total, torch.stack(cosines).mean() if cosines else student.new_zeros(())


def resized_to_tokens(features: Tensor, grid: Sequence[int]) -> Tensor:
    """Features of pictures ``[B, rows, columns, D]`` at the tokens' grid ``(h, w)``, bilinearly: ``[B, h w, D]``."""
    channels_first = features.permute(0, 3, 1, 2)
    if channels_first.shape[2:] != tuple(grid):
        channels_first = F.interpolate(channels_first, size=tuple(grid), mode="bilinear", antialias=True)
    return channels_first.flatten(2).transpose(1, 2)


def frames_resized_to_tokens(features: Tensor, grid: Sequence[int]) -> Tensor:
    """Features of clips ``[B, frames, rows, columns, D]`` at the tokens' grid ``(F, h, w)``: ``[B, F h w, D]``.

    Frames that share a latent frame are averaged.
    """
    batch, frames = features.shape[:2]
    per_frame = resized_to_tokens(features.flatten(0, 1), grid[1:])
    per_frame = per_frame.view(batch, frames, *per_frame.shape[1:])
    if frames != grid[0]:
        tokens, channels = per_frame.shape[2:]
        in_time = per_frame.permute(0, 2, 3, 1).flatten(1, 2)
        pooled = F.adaptive_avg_pool1d(in_time, grid[0])
        per_frame = pooled.view(batch, tokens, channels, grid[0]).permute(0, 3, 1, 2)
    return per_frame.flatten(1, 2)
