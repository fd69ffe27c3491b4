"""Plain flow matching at one timestep per sample: the control of every comparison."""

from __future__ import annotations

from torch import nn
from torch.nn import functional as F

from selfflow_bench.flow import per_sample_shape
from selfflow_bench.methods.base import Batch, Method, MethodSettings, StepResult


class VanillaSettings(MethodSettings):
    """Nothing to set."""


class Vanilla(Method):
    """Mean squared error of the prediction of the family's target."""

    settings_class = VanillaSettings
    summary = "plain flow matching, one timestep per sample"

    def step(
        self, transformer: nn.Module, heads: nn.ModuleDict, teacher: nn.Module, batch: Batch, step: int
    ) -> StepResult:
        """Homogeneous at the batch's first timestep."""
        noisy = self.family.noising.noised(batch.latents, batch.noise, per_sample_shape(batch.first, batch.latents))
        predicted = self.family.predict(transformer, noisy, batch.first, batch.conditions)
        loss = F.mse_loss(predicted.float(), self.family.noising.target(batch.latents, batch.noise))
        return StepResult(loss, {"loss_generative": loss.detach()})
