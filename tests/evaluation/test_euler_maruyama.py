"""The stochastic sampler against what is known of a Gaussian, and against the published recipe written out anew."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from selfflow_bench.errors import FieldError
from selfflow_bench.evaluation.euler_maruyama import sample
from selfflow_bench.families.base import Family
from selfflow_bench.randomness import generator, normal
from tests.conftest import Tiny

MEAN, SPREAD = 0.7, 1.6


def knowing(family: Family, monkeypatch: pytest.MonkeyPatch) -> Family:
    """The family with the right velocity for data that are normal with `MEAN` and `SPREAD`: E[noise - data | noisy]."""
    knows = copy.copy(family)

    def predict(_model: object, noisy: Tensor, sigma: Tensor, _conditions: object) -> Tensor:
        s = sigma.view(-1, 1, 1, 1).double()
        variance = (1 - s) ** 2 * SPREAD**2 + s**2
        slope = (s - (1 - s) * SPREAD**2) / variance
        return slope * (noisy.double() - (1 - s) * MEAN) - MEAN

    monkeypatch.setattr(knows, "predict", predict)
    return knows


def made(case: Tiny, family: Family, *, steps: int, samples: Sequence[int] = range(60), seed: int = 3) -> Tensor:
    conditions = {"label": torch.zeros(len(samples), dtype=torch.int64)}
    return sample(family, case.transformer, conditions, case.latent_shape, steps=steps, samples=samples, seed=seed)


def test_a_gaussian_is_sampled_with_its_mean_and_variance(
    tiny: Callable[[str], Tiny], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Against the mean and variance that the same steps have exactly, and those against the data's.

    The steps are linear in the state, so mean and variance follow a recursion. The last step leaves out the noise that
    lies below sigma 0.04, which the data's variance shows.
    """
    case = tiny("sit")
    found = made(case, knowing(case.family, monkeypatch), steps=250).double()
    mean, variance = 0.0, 1.0
    sigmas = [1 - 0.96 * step / 249 for step in range(250)]
    for now, after in zip(sigmas, [*sigmas[1:], 0.0], strict=True):
        total = (1 - now) ** 2 * SPREAD**2 + now**2
        slope, rest = (now - (1 - now) * SPREAD**2) / total, 0.0
        rest = -slope * (1 - now) * MEAN - MEAN
        # The drift is the velocity and the predicted noise: x + (2 - sigma) v.
        factor = 1 + (after - now) * (1 + (2 - now) * slope)
        mean = factor * mean + (after - now) * (2 - now) * rest
        variance = factor**2 * variance + (2 * now * (now - after) if after else 0.0)
    n = found.numel()
    assert float(found.mean()) == pytest.approx(mean, abs=4 * math.sqrt(variance / n))
    assert float(found.var()) == pytest.approx(variance, rel=4 * math.sqrt(2 / n))
    assert mean == pytest.approx(MEAN, abs=0.01)
    assert math.sqrt(variance) == pytest.approx(SPREAD, rel=0.01)


def test_it_is_the_published_recipe(tiny: Callable[[str], Tiny]) -> None:
    """Written in the published code's own time, which runs from noise (0) to data (1), on the bare model."""
    case, steps, size = tiny("sit"), 6, 2
    labels = torch.tensor([1, 4])
    ours = sample(
        case.family, case.transformer, {"label": labels}, case.latent_shape, steps=steps, samples=range(size), seed=9
    )
    x = normal(case.latent_shape, 9, "sampling", range(size)).double()
    times = torch.linspace(0, 0.96, steps, dtype=torch.float64)

    def drift(x: Tensor, t: Tensor) -> Tensor:
        with torch.no_grad():
            v = case.transformer(x.float(), t.float().expand(size), labels, return_dict=False)[0].double()
        score = (t * v - x) / (1 - t)
        return v + (1 - t) * score

    for step, t in enumerate(times[:-1]):
        dt = times[1] - times[0]
        noise = torch.stack(
            [torch.randn(case.latent_shape, generator=generator(9, "sampling", row, step)) for row in range(size)]
        )
        x = x + drift(x, t) * dt + (2 * (1 - t) * dt).sqrt() * noise.double()
    x = x + 0.04 * drift(x, times[-1])
    torch.testing.assert_close(ours.double(), x, rtol=0, atol=1e-4)


def test_samples_depend_on_their_seed_and_index_and_not_on_the_batch(tiny: Callable[[str], Tiny]) -> None:
    case = tiny("sit")
    whole = made(case, case.family, steps=3, samples=range(4))
    part = made(case, case.family, steps=3, samples=[3, 1])
    torch.testing.assert_close(part, whole[[3, 1]], rtol=1e-5, atol=1e-5)
    assert (whole[0] - whole[1]).abs().max() > 0.1
    assert (whole - made(case, case.family, steps=3, samples=range(4), seed=4)).abs().max() > 0.1


def test_what_it_cannot_sample_is_refused(tiny: Callable[[str], Tiny]) -> None:
    with pytest.raises(FieldError, match="no rectified flow"):
        made(tiny("pixart"), tiny("pixart").family, steps=4)
    with pytest.raises(FieldError, match="too few"):
        made(tiny("sit"), tiny("sit").family, steps=1)
