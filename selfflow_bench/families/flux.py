"""FLUX.1 (Black Forest Labs): two-stream and one-stream blocks, guidance distilled into an embedding."""

from __future__ import annotations

from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler, FluxTransformer2DModel
from torch import Tensor

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import Conditions
from selfflow_bench.families.parts.pooled_text import pooled_text
from selfflow_bench.families.parts.two_streams import TwoStreams, embedded_guidance


class Flux(TwoStreams):
    """Images. Output: noise - data. Time: sigma itself."""

    transformer_class = FluxTransformer2DModel

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """A checkpoint with a guidance embedding is trained at guidance 1, which is none."""
        arguments = self.image_arguments(latents, time, conditions)
        arguments["pooled_projections"] = pooled_text(conditions)
        if self.config.get("guidance_embeds"):
            arguments["guidance"] = embedded_guidance(latents, conditions)
        return arguments

    def scheduler(self, shift: float) -> FlowMatchEulerDiscreteScheduler:
        """As in the published pipeline: Euler steps on shifted flow sigmas."""
        return FlowMatchEulerDiscreteScheduler(shift=shift)
