"""FLUX.2 (Black Forest Labs): three modulations shared by all blocks; reference pictures behind the target."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Flux2Transformer2DModel
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import REFERENCE, Conditions
from selfflow_bench.families.parts.context_rows import fill_context_mean, take_context_row
from selfflow_bench.families.parts.packing import grid_positions
from selfflow_bench.families.parts.two_streams import TwoStreams, embedded_guidance

_PICTURE_DISTANCE = 10
"""How far apart pictures lie along the first axis of the positions."""


class Flux2(TwoStreams):
    """Images. Output: noise - data. Time: sigma itself. Latents come 2x2-packed into channels, so a cell is a token."""

    transformer_class = Flux2Transformer2DModel
    accepts = (REFERENCE,)

    def attach(self, transformer: nn.Module) -> None:
        """Text gets the mean of the time embedding, in its one modulation as a row per sample."""
        fill_context_mean(transformer.get_submodule("time_guidance_embed"))
        take_context_row(transformer.get_submodule("double_stream_modulation_txt"))

    def patch(self) -> tuple[int, ...]:
        """One cell per token."""
        return (1, 1)

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """A checkpoint with a guidance embedding is trained at guidance 1, which is none."""
        arguments = self.image_arguments(latents, time, conditions)
        if self.config.get("guidance_embeds", True):
            arguments["guidance"] = embedded_guidance(latents, conditions)
        return arguments

    def image_positions(self, latents: Tensor, conditions: Conditions) -> Tensor:
        """``[N, 4]``: picture, row, column, 0."""
        places = grid_positions(self.token_grid(latents.shape[1:]), latents.device)
        zeros = torch.zeros_like(places[:, :1])
        pictures = 2 if REFERENCE in conditions else 1
        return torch.cat([torch.cat([zeros + _PICTURE_DISTANCE * n, places, zeros], 1) for n in range(pictures)])

    def text_positions(self, text: Tensor) -> Tensor:
        """``[T, 4]``: along the last axis."""
        places = torch.arange(text.shape[1], dtype=torch.float32, device=text.device)[:, None]
        return torch.cat([torch.zeros_like(places).expand(-1, 3), places], 1)

    def hidden_tokens(self, output: Any, latents: Tensor, conditions: Conditions) -> Tensor:
        """Two-stream blocks return (text, image), one-stream blocks [text, image] as one."""
        if not isinstance(output, tuple):
            output = (None, output[:, conditions["text"].shape[1] :])
        return super().hidden_tokens(output, latents, conditions)

    def scheduler(self, shift: float) -> FlowMatchEulerDiscreteScheduler:
        """As in the published pipeline: Euler steps on shifted flow sigmas."""
        return FlowMatchEulerDiscreteScheduler(shift=shift)
