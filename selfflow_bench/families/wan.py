"""Wan 2.1 text to video (arXiv 2503.20314): full space-time attention, patch (1, 2, 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from diffusers import UniPCMultistepScheduler, WanTransformer3DModel
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import REFERENCE, Conditions, Family
from selfflow_bench.families.parts.first_frame import with_first_frame, with_first_levels, with_first_time


class Wan(Family):
    """Video. Output: noise - data. Time: 1000 sigma. With a reference: image to video, as Wan 2.2 TI2V."""

    modality = "video"
    accepts = (REFERENCE,)
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
        frames, rows, columns = self.token_grid(latents.shape[1:])
        return {
            "hidden_states": with_first_frame(latents, conditions),
            "timestep": with_first_time(time, frames * rows * columns, rows * columns, conditions),
            "encoder_hidden_states": conditions["text"],
        }

    def sequences(
        self, target: Tensor, context: int, clean: int, latents: Tensor, conditions: Conditions
    ) -> Sequence[Tensor]:
        """The clip, its clean first frame with it."""
        _, rows, columns = self.token_grid(latents.shape[1:])
        return [with_first_levels(target, rows * columns, clean, conditions)]

    def prediction(self, output: Tensor, latents: Tensor) -> Tensor:
        """The target's frames."""
        return output[:, :, -latents.shape[2] :]

    def hidden_tokens(self, output: Any, latents: Tensor, conditions: Conditions) -> Tensor:
        """The target's frames come last."""
        tokens: Tensor = output[:, -math.prod(self.token_grid(latents.shape[1:])) :]
        return tokens

    def scheduler(self, shift: float) -> UniPCMultistepScheduler:
        """As in the published pipeline: UniPC on flow sigmas."""
        return UniPCMultistepScheduler(prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=shift)
