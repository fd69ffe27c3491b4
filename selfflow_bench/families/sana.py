"""Sana (arXiv 2410.10629): linear attention, a convolutional feed-forward, patch 1."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffusers import DPMSolverMultistepScheduler, SanaTransformer2DModel
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import Conditions, Family


class Sana(Family):
    """Images. Output: noise - data. Time: 1000 sigma, times the class's own scale."""

    modality = "image"
    transformer_class = SanaTransformer2DModel

    def patch(self) -> tuple[int, ...]:
        """One cell per token unless the configuration says otherwise."""
        size = int(self.config.get("patch_size", 1))
        return (size, size)

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """All blocks are alike; each returns the image tokens."""
        blocks: Sequence[nn.Module] = transformer.transformer_blocks  # type: ignore[assignment]
        return blocks

    def model_time(self, sigma: Tensor) -> Tensor:
        """The pipeline multiplies its timestep by ``timestep_scale`` before the call."""
        return sigma * (1000.0 * float(self.config.get("timestep_scale", 1.0)))

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """Captions are attended under their mask."""
        return {
            "hidden_states": latents,
            "timestep": time,
            "encoder_hidden_states": conditions["text"],
            "encoder_attention_mask": conditions["text_mask"],
        }

    def scheduler(self, shift: float) -> DPMSolverMultistepScheduler:
        """As in the published pipeline: second-order DPM-Solver++ on flow sigmas."""
        return DPMSolverMultistepScheduler(
            prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift, final_sigmas_type="zero"
        )
