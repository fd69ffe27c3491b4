"""Sana-Video (arXiv 2509.24695): linear attention in space and time, convolutional feed-forward, patch (1, 2, 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffusers import DPMSolverMultistepScheduler, SanaVideoTransformer3DModel
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import Conditions, Family


class SanaVideo(Family):
    """Video. Output: noise - data. Time: 1000 sigma."""

    modality = "video"
    transformer_class = SanaVideoTransformer3DModel

    def patch(self) -> tuple[int, ...]:
        """(time, height, width)."""
        return tuple(int(size) for size in self.config.get("patch_size", (1, 2, 2)))

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """All blocks are alike; each returns the video tokens."""
        blocks: Sequence[nn.Module] = transformer.transformer_blocks  # type: ignore[assignment]
        return blocks

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
