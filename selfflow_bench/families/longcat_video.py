"""LongCat-Video (arXiv 2510.22200): full space-time attention, a small time embedding that every block expands."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.architectures.longcat_video import LongCatVideoTransformer3DModel
from selfflow_bench.families.architectures.longcat_video_weights import published_model
from selfflow_bench.families.base import Conditions, Family


class LongCatVideo(Family):
    """Video. Output: data - noise. Time: 1000 sigma. The class is this suite's own: diffusers has none."""

    modality = "video"
    transformer_class = LongCatVideoTransformer3DModel

    def load(self, snapshot: Path, dtype: torch.dtype) -> nn.Module:
        """From ``dit``, under the published names, or as `save` writes it."""
        if (snapshot / "dit").exists():
            return published_model(snapshot / "dit", dtype)
        return super().load(snapshot, dtype)

    def patch(self) -> tuple[int, ...]:
        """(time, height, width)."""
        return tuple(int(size) for size in self.config.get("patch_size", (1, 2, 2)))

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """All blocks are alike; each returns the video tokens."""
        blocks: Sequence[nn.Module] = transformer.blocks  # type: ignore[assignment]
        return blocks

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """The configuration says whether text behind a caption is zeroed or masked."""
        return {
            "hidden_states": latents,
            "timestep": time,
            "encoder_hidden_states": conditions["text"],
            "encoder_attention_mask": conditions["text_mask"],
        }

    def prediction(self, output: Any, latents: Tensor) -> Tensor:
        """The published pipeline negates the output too."""
        predicted: Tensor = -output
        return predicted

    def scheduler(self, shift: float) -> FlowMatchEulerDiscreteScheduler:
        """As in the published pipeline: Euler steps on shifted flow sigmas."""
        return FlowMatchEulerDiscreteScheduler(shift=shift)
