"""Lumina-Image 2.0 (arXiv 2503.21758): refiners, then joint blocks over [text, image] without padding in between."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Lumina2Transformer2DModel
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import Conditions, Family
from selfflow_bench.families.parts.context_rows import fill_context_mean


class Lumina2(Family):
    """Images. Output: data - noise. Time: 1 - sigma.

    In the joint blocks each sample's image starts where its own caption ends, so the class reads the captions' lengths
    on the host: one wait for the device a forward, which is the class's own.
    """

    modality = "image"
    modulates_context = True
    transformer_class = Lumina2Transformer2DModel

    def attach(self, transformer: nn.Module) -> None:
        """Text is modulated in the joint blocks only, where it takes its level."""
        fill_context_mean(transformer.get_submodule("time_caption_embed"))

    def patch(self) -> tuple[int, ...]:
        """Square patches, two cells wide in the published model."""
        size = int(self.config.get("patch_size", 2))
        return (size, size)

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """The noise refiners over the image alone, then the joint layers."""
        return [
            *transformer.get_submodule("noise_refiner").children(),
            *transformer.get_submodule("layers").children(),
        ]

    def model_time(self, sigma: Tensor) -> Tensor:
        """Runs from noise to data."""
        return 1 - sigma

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """The mask says how long each caption is."""
        return {
            "hidden_states": latents,
            "timestep": time,
            "encoder_hidden_states": conditions["text"],
            "encoder_attention_mask": conditions["text_mask"],
        }

    def prediction(self, output: Tensor, latents: Tensor) -> Tensor:
        """Turned round."""
        return -output

    def sequences(
        self, target: Tensor, context: int, clean: int, latents: Tensor, conditions: Conditions
    ) -> Sequence[Tensor]:
        """The image, and [text, image, padding], ragged."""
        lengths = conditions["text_mask"].sum(1)
        place = torch.arange(int(lengths.max()) + target.shape[1], device=target.device) - lengths[:, None]
        inside = (place >= 0) & (place < target.shape[1])
        image = target.gather(1, place.clamp(0, target.shape[1] - 1))
        return [target, torch.where(inside, image, context)]

    def hidden_tokens(self, output: Any, latents: Tensor, conditions: Conditions) -> Tensor:
        """Behind each sample's caption, where there is one."""
        tokens: Tensor = output
        rows, columns = self.token_grid(latents.shape[1:])
        if tokens.shape[1] == rows * columns:
            return tokens
        start = conditions["text_mask"].sum(1)[:, None]
        place = start + torch.arange(rows * columns, device=tokens.device)
        return tokens.gather(1, place[..., None].expand(-1, -1, tokens.shape[-1]))

    def scheduler(self, shift: float) -> FlowMatchEulerDiscreteScheduler:
        """As in the published pipeline: Euler steps on shifted flow sigmas."""
        return FlowMatchEulerDiscreteScheduler(shift=shift)
