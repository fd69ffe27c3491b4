"""Qwen-Image (arXiv 2508.02324): sixty two-stream blocks over packed latents and a language model's states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler, QwenImageTransformer2DModel
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import Conditions, Family
from selfflow_bench.families.parts.context_rows import fill_context_mean, take_context_row
from selfflow_bench.families.parts.packing import pack, unpack


class QwenImage(Family):
    """Images. Output: noise - data. Time: sigma itself (the class scales it). The last block's text is unused."""

    modality = "image"
    modulates_context = True
    transformer_class = QwenImageTransformer2DModel

    def attach(self, transformer: nn.Module) -> None:
        """Text gets the mean of the time embedding, in its own modulation as one row per sample."""
        fill_context_mean(transformer.get_submodule("time_text_embed"))
        for block in self.blocks(transformer):
            take_context_row(block.get_submodule("txt_mod"))

    def patch(self) -> tuple[int, ...]:
        """The caller packs 2x2 cells into a token."""
        return (2, 2)

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """Each returns (text, image)."""
        return list(transformer.get_submodule("transformer_blocks").children())

    def model_time(self, sigma: Tensor) -> Tensor:
        """The embedding multiplies by 1000 itself."""
        return sigma

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """Captions are attended under their mask."""
        return {
            "hidden_states": pack(latents, self.patch()),
            "timestep": time,
            "encoder_hidden_states": conditions["text"],
            "encoder_hidden_states_mask": conditions["text_mask"],
            "img_shapes": [[(1, *self.token_grid(latents.shape[1:]))]] * latents.shape[0],
        }

    def prediction(self, output: Tensor, latents: Tensor) -> Tensor:
        """Unpacked."""
        return unpack(output, self.token_grid(latents.shape[1:]), self.patch())

    def hidden_tokens(self, output: Any, latents: Tensor, conditions: Conditions) -> Tensor:
        """Of (text, image) the image."""
        tokens: Tensor = output[1]
        return tokens

    def scheduler(self, shift: float) -> FlowMatchEulerDiscreteScheduler:
        """As in the published pipeline: Euler steps on shifted flow sigmas."""
        return FlowMatchEulerDiscreteScheduler(shift=shift)
