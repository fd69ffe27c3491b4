"""ACE-Step 1.5 (the 1-D diffusion transformer): alternating sliding-window and full attention over audio frames."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from diffusers import AceStepTransformer1DModel, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import SILENCE, Conditions, Family


class AceStep(Family):
    """Audio. Latents ``[B, C, frames]``. Output: noise - data. Time: sigma itself."""

    modality = "audio"
    transformer_class = AceStepTransformer1DModel

    def patch(self) -> tuple[int, ...]:
        """Frames per token."""
        return (int(self.config.get("patch_size", 2)),)

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """All blocks return the audio tokens."""
        blocks: Sequence[nn.Module] = transformer.layers  # type: ignore[assignment]
        return blocks

    def model_time(self, sigma: Tensor) -> Tensor:
        """The class multiplies by 1000 itself."""
        return sigma

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """Text-to-audio from nothing: the context latents are silence, zero unless conditions have others; the chunk
        mask is one everywhere.

        ``timestep_r = timestep`` is the ordinary (not mean-flow) call.
        """
        frames = latents.transpose(1, 2)
        context_channels = int(self.config.get("in_channels", 192)) - frames.shape[-1]
        context = torch.zeros(*frames.shape[:2], context_channels, dtype=frames.dtype, device=frames.device)
        context[..., context_channels // 2 :] = 1
        if SILENCE in conditions:
            context[..., : context_channels // 2] = conditions[SILENCE].transpose(1, 2)
        return {
            "hidden_states": frames,
            "timestep": time,
            "timestep_r": time,
            "encoder_hidden_states": conditions["text"],
            "context_latents": context,
        }

    def prediction(self, output: Any, latents: Tensor) -> Tensor:
        """``[B, frames, C] -> [B, C, frames]``."""
        predicted: Tensor = output.transpose(1, 2)
        return predicted

    def scheduler(self, shift: float) -> FlowMatchEulerDiscreteScheduler:
        """As in the published pipeline: Euler steps on shifted flow sigmas."""
        return FlowMatchEulerDiscreteScheduler(shift=shift)
