"""LongCat-Image (Meituan): FLUX's blocks without pooled text; its editing sibling adds clean reference tokens."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, LongCatImageTransformer2DModel
from torch import Tensor

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import REFERENCE, Conditions
from selfflow_bench.families.parts.packing import grid_positions
from selfflow_bench.families.parts.two_streams import TwoStreams


class LongCatImage(TwoStreams):
    """Images. Output: noise - data. Time: sigma itself. The reference stands behind the target, as picture 2."""

    transformer_class = LongCatImageTransformer2DModel
    accepts = (REFERENCE,)
    time_embedding = "time_embed"

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """As the family of FLUX, without pooled text."""
        return self.image_arguments(latents, time, conditions)

    def image_positions(self, latents: Tensor, conditions: Conditions) -> Tensor:
        """The pictures' index counts from 1, and their places from the text's length, as in the pipeline."""
        places = grid_positions(self.token_grid(latents.shape[1:]), latents.device, start=conditions["text"].shape[1])
        pictures = 2 if REFERENCE in conditions else 1
        return torch.cat([torch.cat([torch.full_like(places[:, :1], 1 + n), places], 1) for n in range(pictures)])

    def text_positions(self, text: Tensor) -> Tensor:
        """Along the diagonal of picture 0."""
        places = torch.arange(text.shape[1], dtype=torch.float32, device=text.device)
        return torch.stack([torch.zeros_like(places), places, places], 1)

    def scheduler(self, shift: float) -> FlowMatchEulerDiscreteScheduler:
        """As in the published pipeline: Euler steps on shifted flow sigmas."""
        return FlowMatchEulerDiscreteScheduler(shift=shift)
