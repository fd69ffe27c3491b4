"""SRA (arXiv 2505.02831): aligned to the EMA's deeper block at a slightly cleaner time, both homogeneous."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from selfflow_bench.flow import per_sample_shape
from selfflow_bench.hidden_states import output_of_block
from selfflow_bench.methods.base import Batch, Metrics, Needs, Sizes
from selfflow_bench.methods.parts.alignment import mean_cosine, score, unit
from selfflow_bench.methods.parts.homogeneous import DeeperTargetSettings, HomogeneousAlignment
from selfflow_bench.methods.parts.projector import ProjectorKind, projector


class SraSettings(DeeperTargetSettings):
    """Documented defaults: weight 0.2; the teacher is up to 0.2 in sigma cleaner than the student."""

    weight: float = 0.2
    interval: float = Field(default=0.2, ge=0.0, le=1.0)
    loss: Literal["smooth_l1", "cosine"] = "smooth_l1"
    projector: ProjectorKind = "mlp3_silu"


class Sra(HomogeneousAlignment):
    """``projector(h_l(x_sigma))`` against the EMA's ``h_k(x_{sigma - d})``, ``d ~ U[0, interval)``, same noise."""

    settings_class = SraSettings
    summary = "aligned to the EMA's deeper block at a slightly cleaner time"

    settings: Any

    @property
    def needs(self) -> Needs:
        """The EMA, and a draw for how much cleaner it is."""
        return Needs(hidden_size=True, ema=True, uniforms=1)

    def heads(self, sizes: Sizes) -> nn.ModuleDict:
        """The projector keeps the width."""
        return nn.ModuleDict({"projector": projector(self.settings.projector, sizes.hidden, sizes.hidden)})

    def auxiliary_loss(
        self, hidden: Sequence[Tensor], heads: nn.ModuleDict, teacher: nn.Module, batch: Batch
    ) -> tuple[Tensor, Metrics]:
        """Smooth L1 over channels, or one minus the cosine."""
        projected: Tensor = heads["projector"](hidden[0])
        target = self.teacher_tokens(teacher, batch)
        cosine = mean_cosine(unit(projected), unit(target))
        metrics: Metrics = {"alignment_score": score(cosine)}
        if self.settings.loss == "cosine":
            return 1 - cosine, metrics
        return F.smooth_l1_loss(projected.float(), target.float()), metrics

    def cleaner(self, batch: Batch) -> Tensor:
        """The teacher's sigma ``[B]``: never below 0."""
        assert batch.uniforms is not None
        sigma: Tensor = (batch.first - self.settings.interval * batch.uniforms[:, 0]).clamp_min(0.0)
        return sigma

    def teacher_tokens(self, teacher: nn.Module, batch: Batch) -> Tensor:
        """The EMA's target tokens after its block, ``[B, N, D]``; nothing behind the block is run."""
        sigma = self.cleaner(batch)
        view = self.family.noising.noised(batch.latents, batch.noise, per_sample_shape(sigma, batch.latents))
        block = self.family.blocks(teacher)[self.settings.teacher_block - 1]
        with torch.no_grad():
            output = output_of_block(block, lambda: self.family.predict(teacher, view, sigma, batch.conditions))
        tokens: Tensor = self.family.hidden_tokens(output, view, batch.conditions)
        return tokens
