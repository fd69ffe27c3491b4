"""Stable Diffusion 3 and 3.5 (arXiv 2403.03206): two-stream blocks, in 3.5 medium some with a second attention."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler, SD3Transformer2DModel
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import Conditions, Family
from selfflow_bench.families.parts.context_rows import fill_context_mean, take_context_row
from selfflow_bench.families.parts.pooled_text import pooled_text


class SD3(Family):
    """Images. Output: noise - data. Time: 1000 sigma."""

    modality = "image"
    modulates_context = True
    transformer_class = SD3Transformer2DModel

    def attach(self, transformer: nn.Module) -> None:
        """Text gets the mean of the time embedding, in its own norms as one row per sample."""
        fill_context_mean(transformer.get_submodule("time_text_embed"))
        for block in self.blocks(transformer):
            take_context_row(block.get_submodule("norm1_context"))

    def patch(self) -> tuple[int, ...]:
        """Square patches, two cells wide in all published models."""
        size = int(self.config.get("patch_size", 2))
        return (size, size)

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """Each returns (text, image); the last one None for the text."""
        return list(transformer.get_submodule("transformer_blocks").children())

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """Captions are attended without a mask, as in the pipeline."""
        return {
            "hidden_states": latents,
            "timestep": time,
            "encoder_hidden_states": conditions["text"],
            "pooled_projections": pooled_text(conditions),
        }

    def hidden_tokens(self, output: Any, latents: Tensor, conditions: Conditions) -> Tensor:
        """Of (text, image) the image."""
        tokens: Tensor = output[1]
        return tokens

    def scheduler(self, shift: float) -> FlowMatchEulerDiscreteScheduler:
        """As in the published pipeline: Euler steps on shifted flow sigmas."""
        return FlowMatchEulerDiscreteScheduler(shift=shift)
