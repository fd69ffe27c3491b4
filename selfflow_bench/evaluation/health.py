"""Whether a model's features are alive: spread and effective rank of its hidden states. A collapse shows here first."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from selfflow_bench.evaluation.validation import ValidationTriples
from selfflow_bench.families.base import Family
from selfflow_bench.flow import per_sample_shape
from selfflow_bench.hidden_states import output_of_block

COLLAPSED_RANK, COLLAPSED_SHARE = 2.0, 0.05
"""The collapse alarm: an effective rank below 2, or either measure below a twentieth of what it was at the start."""


@dataclass(frozen=True)
class FeatureHealth:
    """Of the hidden states after one block, over the tokens of the first validation triples.

    Args:
        standard_deviation: mean over channels of the standard deviation over tokens.
        effective_rank: exp of the entropy of the normalised singular values of the centred states
            (Roy and Vetterli 2007): between 1 (collapsed) and the number of channels.
    """

    block: int
    standard_deviation: float
    effective_rank: float

    def collapsed_since(self, start: FeatureHealth) -> bool:
        """Whether almost nothing is left of the features that training started from."""
        return (
            self.effective_rank < max(COLLAPSED_RANK, COLLAPSED_SHARE * start.effective_rank)
            or self.standard_deviation < COLLAPSED_SHARE * start.standard_deviation
        )


@torch.no_grad()
def feature_health(family: Family, model: nn.Module, triples: ValidationTriples, block: int) -> FeatureHealth:
    """Health of the hidden states after ``block`` (from 1)."""
    device = next(model.parameters()).device
    latents, noise, sigma, conditions = triples.batches()[0]
    noisy = family.noising.noised(latents, noise, per_sample_shape(sigma, latents)).to(device)
    on_device = {name: value.to(device) for name, value in conditions.items()}
    output = output_of_block(
        family.blocks(model)[block - 1], lambda: family.predict(model, noisy, sigma.to(device), on_device)
    )
    states = family.hidden_tokens(output, noisy, on_device).flatten(0, 1).double()
    centred = states - states.mean(0)
    shares = torch.linalg.svdvals(centred.T @ centred).clamp_min(0).sqrt()
    shares = shares / shares.sum().clamp_min(torch.finfo(torch.float64).tiny)
    entropy = -(shares * shares.clamp_min(torch.finfo(torch.float64).tiny).log()).sum()
    return FeatureHealth(block, float(centred.std(0).mean()), float(entropy.exp()))
