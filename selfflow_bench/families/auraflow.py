"""AuraFlow (fal): two-stream then one-stream blocks, eight register tokens before the text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AuraFlowTransformer2DModel, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import Conditions, Family
from selfflow_bench.families.parts.context_rows import fill_context_mean, take_context_row

_REGISTERS = 8


class AuraFlow(Family):
    """Images. Output: noise - data. Time: sigma itself. Registers are modulated as text is."""

    modality = "image"
    modulates_context = True
    transformer_class = AuraFlowTransformer2DModel

    def attach(self, transformer: nn.Module) -> None:
        """Registers and text get the mean of the time embedding."""
        fill_context_mean(transformer.get_submodule("time_step_proj"))
        for block in transformer.get_submodule("joint_transformer_blocks").children():
            take_context_row(block.get_submodule("norm1_context"))

    def patch(self) -> tuple[int, ...]:
        """Square patches, two cells wide in all published models."""
        size = int(self.config.get("patch_size", 2))
        return (size, size)

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """Two-stream blocks, then one-stream ones."""
        return [
            *transformer.get_submodule("joint_transformer_blocks").children(),
            *transformer.get_submodule("single_transformer_blocks").children(),
        ]

    def model_time(self, sigma: Tensor) -> Tensor:
        """The embedding multiplies by 1000 itself."""
        return sigma

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """Captions are attended without a mask, as in the pipeline."""
        return {"hidden_states": latents, "timestep": time, "encoder_hidden_states": conditions["text"]}

    def sequences(
        self, target: Tensor, context: int, clean: int, latents: Tensor, conditions: Conditions
    ) -> Sequence[Tensor]:
        """The image, and the one-stream blocks' [registers, text, image]."""
        before = target.new_full((target.shape[0], _REGISTERS + conditions["text"].shape[1]), context)
        return [target, torch.cat([before, target], 1)]

    def hidden_tokens(self, output: Any, latents: Tensor, conditions: Conditions) -> Tensor:
        """Two-stream blocks return (text, image), one-stream blocks [registers, text, image]."""
        if isinstance(output, tuple):
            tokens: Tensor = output[1]
            return tokens
        cut: Tensor = output[:, _REGISTERS + conditions["text"].shape[1] :]
        return cut

    def scheduler(self, shift: float) -> FlowMatchEulerDiscreteScheduler:
        """As in the published pipeline: Euler steps on shifted flow sigmas."""
        return FlowMatchEulerDiscreteScheduler(shift=shift)
