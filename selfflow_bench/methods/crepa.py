"""CREPA (arXiv 2506.09229): REPA per frame of a video, with terms to the neighbouring frames' features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from pydantic import Field
from torch import Tensor, nn

from selfflow_bench.methods.base import Batch, Metrics
from selfflow_bench.methods.parts.alignment import (
    frames_resized_to_tokens,
    mean_cosine,
    neighbour_terms,
    score,
    unit,
)
from selfflow_bench.methods.repa import Repa, RepaSettings


class CrepaSettings(RepaSettings):
    """Documented defaults: REPA's, and neighbours at distance 1 with ``tau`` 1."""

    neighbour_distance: int = Field(default=1, ge=0)
    neighbour_tau: float = Field(default=1.0, gt=0.0)


class Crepa(Repa):
    """``1 - cos(P(h_f), y_f) + sum_d exp(-d / tau) [1 - cos(P(h_f), y_{f +- d})]``, over frames."""

    settings_class = CrepaSettings
    summary = "video frames aligned to a frozen encoder's features of their own and neighbouring frames"
    modalities = ("video",)

    settings: Any

    def auxiliary_loss(
        self, hidden: Sequence[Tensor], heads: nn.ModuleDict, teacher: nn.Module, batch: Batch
    ) -> tuple[Tensor, Metrics]:
        """Own frames and neighbours, logged apart."""
        grid = self.family.aligned_grid(batch.latents.shape[1:])
        student = unit(self.projected(hidden[0], heads, grid))
        target = unit(frames_resized_to_tokens(self.target(batch), grid))
        own = mean_cosine(student, target)
        neighbours, cosine = neighbour_terms(
            student, target, grid[0], self.settings.neighbour_distance, self.settings.neighbour_tau
        )
        return 1 - own + neighbours, {"alignment_score": score(own), "neighbour_score": score(cosine)}
