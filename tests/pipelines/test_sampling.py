"""Sampling with a published pipeline's scheduler and guidance: against what its own call does from the same noise."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from selfflow_bench.families.base import GUIDANCE
from tests.pipelines.cases import Case, made

STEPS, SCALE = 3, 2.5


@torch.no_grad()
def test_timesteps_guidance_and_what_is_made_are_the_pipelines_own(called: Case) -> None:
    with times_of(called.transformer) as theirs:
        expected = called.as_latents(made(called, "latent", guidance=SCALE, steps=STEPS))
    with times_of(called.transformer) as ours:
        found = sampled(called, tuple(expected.shape[1:]))
    assert len(theirs) == STEPS
    torch.testing.assert_close(torch.tensor(ours), torch.tensor(theirs), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(found, expected[:1], rtol=1e-3, atol=10 * called.atol)


def sampled(case: Case, shape: tuple[int, ...]) -> Tensor:
    """The loop that the published pipeline documents, on the noise that its own call draws."""
    published, family = case.published, case.family
    captions, away = (published.encode_text([text], case.length) for text in (case.caption, published.negative))
    guide, scheduler = published.guide(SCALE), published.schedule(shape, STEPS)
    latents = case.noise(shape) * published.noise_scale
    for timestep in scheduler.timesteps:
        sigma = family.sampler_sigma(scheduler, timestep).expand(1)
        if published.guided_by == "embedded":
            predicted = family.predict(case.transformer, latents, sigma, captions | {GUIDANCE: torch.tensor([SCALE])})
        else:
            predicted = guide(
                family.predict(case.transformer, latents, sigma, captions),
                family.predict(case.transformer, latents, sigma, away),
            )
        latents = scheduler.step(predicted, timestep, latents, return_dict=False)[0]
    return latents


@contextmanager
def times_of(transformer: nn.Module) -> Iterator[list[float]]:
    """The timesteps that a transformer is called with, each once."""
    found: list[float] = []

    def keep(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        given = inspect.signature(module.forward).bind(*args, **kwargs).arguments
        time = next(float(given[name].flatten()[0]) for name in ("timestep", "timesteps", "t") if name in given)
        if found[-1:] != [time]:
            found.append(time)

    handle = transformer.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        yield found
    finally:
        handle.remove()
