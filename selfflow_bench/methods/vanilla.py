"""Plain flow matching at one timestep per sample: the control of every comparison."""

from __future__ import annotations

from torch import nn
from torch.nn import functional as F

from selfflow_bench.methods.base import Batch, Method, MethodSettings, StepResult
from selfflow_bench.methods.parts.homogeneous import homogeneous_prediction


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
        _, predicted = homogeneous_prediction(self, transformer, batch)
        loss = F.mse_loss(predicted.float(), self.family.noising.target(batch.latents, batch.noise))
        return StepResult(loss, {"loss_generative": loss.detach()})
