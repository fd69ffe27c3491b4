"""Validation loss: fixed (sample, noise, timestep) triples at homogeneous timesteps, the same for every run.

Sigmas are one for each of 8 equal parts of [0, 1]: the midpoints, ``(j + 1/2) / 8``, or where the parts begin,
``j / 8``, as MLPerf Training's FLUX.1 benchmark has them. Each triple is pre-assigned one, row i of the split the
(i mod 8)-th, so that the parts have equally many. Noise is keyed by the triple alone: neither the method nor the run's
seed changes it. MLPerf itself draws fresh noise at every validation, so its losses vary where these do not.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from selfflow_bench.condition_table import ConditionTable
from selfflow_bench.data.sharded import Rows
from selfflow_bench.evaluation.shared_work import ALONE, SharedWork
from selfflow_bench.families.base import Family
from selfflow_bench.flow import per_sample_shape
from selfflow_bench.protocol import VALIDATION_TIMESTEPS, ValidationGrid
from selfflow_bench.randomness import normal

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
        grid: which sigmas.
    """

    def __init__(
        self, latents: Rows, conditions: ConditionTable, *, count: int, batch: int, grid: ValidationGrid = "midpoints"
    ) -> None:
        self._latents, self._conditions = latents, conditions
        self.count, self._batch = count, batch
        self._offset = 0.5 if grid == "midpoints" else 0.0

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
            made.append((latents, noise, (bins + self._offset) / VALIDATION_TIMESTEPS, self._conditions.of(items)))
        return made


@torch.no_grad()
def validation_loss(
    family: Family, model: nn.Module, triples: ValidationTriples, processes: SharedWork = ALONE
) -> ValidationLoss:
    """The model's loss on the triples; one read-back at the end. Accumulated in float64.

    Several processes take turns at the batches and all get the whole loss. All run the model equally often, because
    each may hold a part of it only: where batches run out, the last is run again and not counted.
    """
    device = next(model.parameters()).device
    total = torch.zeros(VALIDATION_TIMESTEPS, dtype=torch.float64, device=device)
    counts = torch.zeros(VALIDATION_TIMESTEPS, dtype=torch.float64, device=device)
    batches = triples.batches()
    for turn in range(processes.index, -(-len(batches) // processes.count) * processes.count, processes.count):
        cpu_latents, cpu_noise, cpu_sigma, cpu_conditions = batches[min(turn, len(batches) - 1)]
        latents, noise, sigma = cpu_latents.to(device), cpu_noise.to(device), cpu_sigma.to(device)
        conditions = {name: value.to(device) for name, value in cpu_conditions.items()}
        noisy = family.noising.noised(latents, noise, per_sample_shape(sigma, latents))
        predicted = family.predict(model, noisy, sigma, conditions).float()
        losses = (predicted - family.noising.target(latents, noise)).square().flatten(1).mean(1).double()
        if turn >= len(batches):
            continue
        bins = (sigma * VALIDATION_TIMESTEPS).long()
        total.index_add_(0, bins, losses)
        counts.index_add_(0, bins, torch.ones_like(losses))
    per_timestep = (processes.total(total) / processes.total(counts)).tolist()
    return ValidationLoss(sum(per_timestep) / len(per_timestep), tuple(per_timestep))
