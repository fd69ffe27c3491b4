"""The DDPM noise schedule on the suite's sigma axis, for models trained to predict the noise."""

from __future__ import annotations

import torch
from diffusers import DDPMScheduler
from torch import Tensor

from selfflow_bench.flow import Noising


class DDPM(Noising):
    """1000 steps of linear betas from 1e-4 to 0.02 (Ho et al. 2020): sigma stands for step round(999 sigma)."""

    STEPS = 1000

    def __init__(self) -> None:
        schedule = DDPMScheduler(num_train_timesteps=self.STEPS, beta_start=1e-4, beta_end=0.02)
        self._kept: dict[torch.device, Tensor] = {torch.device("cpu"): schedule.alphas_cumprod}

    def step(self, sigma: Tensor) -> Tensor:
        """The step of each sigma, as a float that is a whole number; 0 is the cleanest."""
        return (sigma * (self.STEPS - 1)).round()

    def noised(self, x0: Tensor, noise: Tensor, sigma: Tensor) -> Tensor:
        """``sqrt(a) x0 + sqrt(1 - a) noise`` with the step's cumulative product a."""
        kept = self._at(sigma)
        return kept.sqrt() * x0 + (1 - kept).sqrt() * noise

    def target(self, x0: Tensor, noise: Tensor) -> Tensor:
        """The noise."""
        return noise.expand_as(x0)

    def data(self, noisy: Tensor, prediction: Tensor, sigma: Tensor) -> Tensor:
        """``(noisy - sqrt(1 - a) noise) / sqrt(a)``."""
        kept = self._at(sigma)
        return (noisy - (1 - kept).sqrt() * prediction) / kept.sqrt()

    def _at(self, sigma: Tensor) -> Tensor:
        if sigma.device not in self._kept:
            self._kept[sigma.device] = self._kept[torch.device("cpu")].to(sigma.device)
        return self._kept[sigma.device][self.step(sigma).long()]
