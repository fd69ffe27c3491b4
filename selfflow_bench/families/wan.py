"""Wan 2.1 text to video (arXiv 2503.20314): full space-time attention, patch (1, 2, 2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffusers import UniPCMultistepScheduler, WanTransformer3DModel
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import Conditions, Family


class Wan(Family):
    """Video. Output: noise - data. Time: 1000 sigma."""

    modality = "video"
    transformer_class = WanTransformer3DModel

    def patch(self) -> tuple[int, ...]:
        """(time, height, width)."""
        return tuple(int(size) for size in self.config.get("patch_size", (1, 2, 2)))

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """All blocks are alike; each returns the video tokens."""
        blocks: Sequence[nn.Module] = transformer.blocks  # type: ignore[assignment]
        return blocks

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """Wan attends to captions without a mask; behind the caption they are zero, as in its pipeline."""
        return {"hidden_states": latents, "timestep": time, "encoder_hidden_states": conditions["text"]}

    def scheduler(self, shift: float) -> UniPCMultistepScheduler:
        """As in the published pipeline: UniPC on flow sigmas."""
        return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
