"""Validation loss: fixed (sample, noise, timestep) triples at homogeneous timesteps, the same for every run.

Sigmas are the midpoints of 8 equal parts of [0, 1], ``(j + 1/2) / 8``; each triple is pre-assigned one, so that the
parts have equally many. Noise is keyed by the triple alone: neither the method nor the run's seed changes it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from selfflow_bench.condition_table import ConditionTable
from selfflow_bench.families.base import Family
from selfflow_bench.flow import per_sample_shape
from selfflow_bench.randomness import normal
from selfflow_bench.recipe import VALIDATION_TIMESTEPS

_SEED = 0


@dataclass(frozen=True)
class ValidationLoss:
    """Mean squared error of the predicted target: over everything, and for each sigma from clean to noisy."""

    whole: float
    per_timestep: tuple[float, ...]


class ValidationTriples:
    """The fixed triples over a validation split.

    Args:
        latents: ``[items, C, *cells]``.
        conditions: of the items.
        count: number of triples, a multiple of 8.
        batch: triples per forward.
    """

    def __init__(self, latents: Tensor, conditions: ConditionTable, *, count: int, batch: int) -> None:
        self._latents, self._conditions = latents, conditions
        self.count, self._batch = count, batch

    def batches(self) -> list[tuple[Tensor, Tensor, Tensor, dict[str, Tensor]]]:
        """(latents, noise, sigma, conditions) of each forward, in triple order."""
        made = []
        for start in range(0, self.count, self._batch):
            triples = range(start, min(start + self._batch, self.count))
            items = torch.tensor([triple % len(self._latents) for triple in triples])
            # Going round the split again moves every sample on to the next timestep.
            bins = torch.tensor([(t + t // len(self._latents)) % VALIDATION_TIMESTEPS for t in triples])
            latents = self._latents[items]
            noise = normal(latents.shape[1:], _SEED, "validation", triples)
            made.append((latents, noise, (bins + 0.5) / VALIDATION_TIMESTEPS, self._conditions.of(items)))
        return made


@torch.no_grad()
def validation_loss(family: Family, model: nn.Module, triples: ValidationTriples) -> ValidationLoss:
    """The model's loss on the triples; one read-back at the end. Accumulated in float64."""
    device = next(model.parameters()).device
    total = torch.zeros(VALIDATION_TIMESTEPS, dtype=torch.float64, device=device)
    counts = torch.zeros(VALIDATION_TIMESTEPS, dtype=torch.float64, device=device)
    for cpu_latents, cpu_noise, cpu_sigma, cpu_conditions in triples.batches():
        latents, noise, sigma = cpu_latents.to(device), cpu_noise.to(device), cpu_sigma.to(device)
        conditions = {name: value.to(device) for name, value in cpu_conditions.items()}
        noisy = family.noising.noised(latents, noise, per_sample_shape(sigma, latents))
        predicted = family.predict(model, noisy, sigma, conditions).float()
        losses = (predicted - family.noising.target(latents, noise)).square().flatten(1).mean(1).double()
        bins = (sigma * VALIDATION_TIMESTEPS).long()
        total.index_add_(0, bins, losses)
        counts.index_add_(0, bins, torch.ones_like(losses))
    per_timestep = (total / counts).tolist()
    return ValidationLoss(sum(per_timestep) / len(per_timestep), tuple(per_timestep))
