"""The suite's time convention, what noising and target go with it, and its timestep distributions.

sigma in [0, 1], 0 = data, 1 = noise. Rectified flow: ``x_sigma = (1 - sigma) x0 + sigma eps``, velocity target
``eps - x0``. A family that was trained otherwise brings its own `Noising` on the same sigma axis.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

Distribution = Literal["logit_normal", "uniform"]


@dataclass(frozen=True)
class TimestepDistribution:
    """p(sigma): uniform on (0, 1), or the sigmoid of a normal; then shifted towards noise.

    The shift is the resolution shift of SD3 (arXiv 2403.03206, eq. 23): ``a s / (1 + (a - 1) s)``.
    """

    kind: Distribution
    mean: float = 0.0
    std: float = 1.0
    shift: float = 1.0

    def draw(self, count: int, source: torch.Generator) -> Tensor:
        """``[count]`` float32 draws in (0, 1)."""
        if self.kind == "uniform":
            sigma = torch.rand(count, generator=source)
        else:
            sigma = torch.sigmoid(torch.randn(count, generator=source) * self.std + self.mean)
        return shifted(sigma, self.shift)


def shifted(sigma: Tensor, shift: float) -> Tensor:
    """``shift sigma / (1 + (shift - 1) sigma)``; keeps 0 and 1."""
    return shift * sigma / (1 + (shift - 1) * sigma)


class Noising(ABC):
    """How data become noisy at a sigma, and what a model is trained to predict there."""

    @abstractmethod
    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """Noisy latents; ``sigma`` broadcasts over ``x0``. In float32 whatever the compute type."""

    @abstractmethod
    def target(self, x0: Tensor, noise: Tensor) -> Tensor:
        """The training target."""

    @abstractmethod
    def data(self, noisy: Tensor, prediction: Tensor, sigma: Tensor) -> Tensor:
        """The data that a prediction of the target stands for; ``sigma`` broadcasts over ``noisy``."""


class RectifiedFlow(Noising):
    """Straight lines between data and noise; the target is the velocity ``noise - x0``."""

    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """``(1 - sigma) x0 + sigma noise``."""
        return torch.lerp(x0, noise, sigma)

    def target(self, x0: Tensor, noise: Tensor) -> Tensor:
        """``noise - x0``."""
        return noise - x0

    def data(self, noisy: Tensor, prediction: Tensor, sigma: Tensor) -> Tensor:
        """``noisy - sigma velocity``."""
        return noisy - sigma * prediction


def per_sample_shape(sigma: Tensor, like: Tensor) -> Tensor:
    """``[B] -> [B, 1, ...]`` so that it broadcasts over ``like``."""
    return sigma.view(-1, *[1] * (like.ndim - 1))
