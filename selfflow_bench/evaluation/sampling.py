"""Ordinary sampling by a diffusers scheduler: one timestep for all tokens, no mask, no teacher.

Each sample's noise is keyed by (seed, its number) and by nothing else, so that results depend neither on the batch size
nor on how many processes share the samples. Knows nothing of media.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from selfflow_bench.families.base import Family
from selfflow_bench.pipelines.base import Guide
from selfflow_bench.precision import bfloat16_where
from selfflow_bench.randomness import normal


@dataclass(frozen=True)
class Sampler:
    """How samples are made.

    Args:
        schedule: makes a diffusers scheduler with its timesteps set, for predictions as the family gives them. It
            counts its steps: one for each batch.
        noise_scale: the standard deviation of the first noise.
        guide: makes a guide, which may count its steps too; without it nothing is predicted a second time.
    """

    schedule: Callable[[], Any]
    noise_scale: float = 1.0
    guide: Callable[[], Guide] | None = None


@torch.no_grad()
def sample(
    family: Family,
    model: nn.Module,
    conditions: Mapping[str, Tensor],
    away: Mapping[str, Tensor],
    latent_shape: Sequence[int],
    sampler: Sampler,
    *,
    samples: Sequence[int],
    seed: int,
    bfloat16: bool = False,
    before_step: Callable[[], None] = lambda: None,
) -> Tensor:
    """Latents ``[M, C, *cells]``, float32, on the model's device.

    Args:
        family: of the model.
        model: predicts.
        conditions: ``[M, ...]`` each.
        away: what is guided away from, in the same shapes; not read without a guide.
        latent_shape: of one sample, channels first.
        sampler: how.
        samples: the M samples' numbers.
        seed: of all noise.
        bfloat16: whether the model computes in it. The scheduler never does: its sums of many predictions would suffer.
        before_step: called before each of the sampler's steps; may raise to stop.
    """
    device = next(model.parameters()).device
    wanted, unwanted = ({name: value.to(device) for name, value in given.items()} for given in (conditions, away))
    scheduler, guide = sampler.schedule(), None if sampler.guide is None else sampler.guide()
    latents = normal(latent_shape, seed, "sampling", samples).to(device) * sampler.noise_scale
    for timestep in scheduler.timesteps:
        before_step()
        sigma = family.sampler_sigma(scheduler, timestep).to(device).expand(len(samples))
        with bfloat16_where(bfloat16, device):
            predicted = family.predict(model, latents, sigma, wanted).float()
            away_from = None if guide is None else family.predict(model, latents, sigma, unwanted).float()
        if guide is not None and away_from is not None:
            predicted = guide(predicted, away_from)
        latents = scheduler.step(predicted, timestep, latents, return_dict=False)[0]
    return latents.float()
