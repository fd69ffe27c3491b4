"""Ordinary sampling with the family's own scheduler: one timestep for all tokens, no mask, no teacher, no guidance."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from selfflow_bench.families.base import Family
from selfflow_bench.randomness import normal


@torch.no_grad()
def sample(
    family: Family,
    model: nn.Module,
    conditions: Mapping[str, Tensor],
    latent_shape: Sequence[int],
    *,
    steps: int,
    shift: float,
    batch: int,
    seed: int,
    progress: Callable[[int], None] = lambda _done: None,
) -> Tensor:
    """Latents ``[M, C, *cells]`` on the CPU, one per row of the conditions.

    Each sample's noise is keyed by (seed, its index), so results do not depend on the batch size.
    """
    device = next(model.parameters()).device
    count = len(next(iter(conditions.values())))
    made = []
    for start in range(0, count, batch):
        rows = range(start, min(start + batch, count))
        latents = normal(latent_shape, seed, "sampling", rows).to(device)
        chosen = {name: value[rows.start : rows.stop].to(device) for name, value in conditions.items()}
        scheduler = family.scheduler(shift)
        scheduler.set_timesteps(steps, device=device)
        for timestep in scheduler.timesteps:
            sigma = family.sampler_sigma(scheduler, timestep).to(device).expand(len(rows))
            predicted = family.predict(model, latents, sigma, chosen)
            latents = scheduler.step(predicted, timestep, latents, return_dict=False)[0]
        made.append(latents.float().cpu())
        progress(rows.stop)
    return torch.cat(made)
