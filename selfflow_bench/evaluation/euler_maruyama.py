"""Stochastic sampling of a rectified flow by Euler-Maruyama, as the comparisons on ImageNet are sampled.

SiT (arXiv 2401.08740, section 2.4): the reverse-time SDE of the flow with diffusion ``w(sigma) = sigma``. In the
suite's time, from noise (1) to data (0),

    dx = (v - w s) dsigma + sqrt(2 w) dW,    score s = -(x + (1 - sigma) v) / sigma,

so that the drift is ``v`` and the predicted noise. ``steps`` forwards: equal noisy steps down to sigma 0.04, and from
there one step of the mean to 0. The state is kept in float64; the model sees float32. Without guidance. Knows nothing
of schedulers: the ordinary way of sampling is in `selfflow_bench.evaluation.sampling`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from selfflow_bench.errors import FieldError
from selfflow_bench.families.base import Family
from selfflow_bench.flow import RectifiedFlow
from selfflow_bench.precision import bfloat16_where
from selfflow_bench.randomness import normal

LAST_SIGMA = 0.04
"""Where the noisy steps end; the last step leads from here to the data."""


@torch.no_grad()
def sample(
    family: Family,
    model: nn.Module,
    conditions: Mapping[str, Tensor],
    latent_shape: Sequence[int],
    *,
    steps: int,
    samples: Sequence[int],
    seed: int,
    bfloat16: bool = False,
    before_step: Callable[[], None] = lambda: None,
) -> Tensor:
    """Latents ``[M, C, *cells]`` on the model's device, one per row of the conditions.

    A sample starts from the same noise as with a scheduler, keyed by (seed, its number in ``samples``), and the noise
    of a step is keyed by (seed, that number, the step): results depend neither on the batch nor on who makes it.
    The model computes in bfloat16 if told so. ``before_step`` is called before each step and may raise to stop. Raises
    FieldError for a family that is no rectified flow, and for fewer than 2 steps.
    """
    if not isinstance(family.noising, RectifiedFlow):
        name = type(family).__name__
        raise FieldError("protocol", "evaluation.sampler", "euler_maruyama", f"{name} is no rectified flow", _OTHER)
    if steps < 2:
        raise FieldError("protocol", "evaluation.sampler_steps", steps, "too few for this sampler", "Set 2 or more.")
    device = next(model.parameters()).device
    chosen = {name: value.to(device) for name, value in conditions.items()}
    sigmas = [*torch.linspace(1.0, LAST_SIGMA, steps, dtype=torch.float64).tolist(), 0.0]
    state = normal(latent_shape, seed, "sampling", samples).to(device).double()
    for step, (sigma, following) in enumerate(pairwise(sigmas)):
        before_step()
        at = torch.full((len(samples),), sigma, device=device)
        with bfloat16_where(bfloat16, device):
            velocity = family.predict(model, state.float(), at, chosen).double()
        predicted_noise = state + (1 - sigma) * velocity
        state = state + (following - sigma) * (velocity + predicted_noise)
        if step < steps - 1:
            fresh = normal(latent_shape, seed, "sampling", samples, step).to(device).double()
            state = state + (2 * sigma * (sigma - following)) ** 0.5 * fresh
    return state.float()


_OTHER = "Leave evaluation.sampler out: the family's own scheduler is used."
