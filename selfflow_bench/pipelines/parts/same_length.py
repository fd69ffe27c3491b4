"""Guidance that keeps the length of vectors, as several pipelines do against oversaturation."""

from __future__ import annotations

import math

from torch import Tensor


def of_same_length(guided: Tensor, predicted: Tensor, most: float = math.inf) -> Tensor:
    """``guided`` with each vector along the last axis as long as in ``predicted``, stretched ``most``-fold at most."""
    wanted, found = (vectors.norm(dim=-1, keepdim=True) for vectors in (predicted, guided))
    kept: Tensor = guided * (wanted / found.clamp_min(1e-8)).clamp_max(most)
    return kept
