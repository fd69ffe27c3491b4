"""Cosmos Predict2 (NVIDIA, arXiv 2501.03575): full space-time attention, each norm modulated through a low rank."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from diffusers import CosmosTransformer3DModel, FlowMatchEulerDiscreteScheduler
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import Conditions, Family


class Cosmos(Family):
    """Video. Output: noise - data. Time: sigma itself.

    Predict2's preconditioning with t = s / (1 + s) is rectified flow, and so it is trained here.
    """

    modality = "video"
    transformer_class = CosmosTransformer3DModel

    def patch(self) -> tuple[int, ...]:
        """(time, height, width)."""
        return tuple(int(size) for size in self.config.get("patch_size", (1, 2, 2)))

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """All blocks are alike; each returns the video tokens."""
        return list(transformer.get_submodule("transformer_blocks").children())

    def model_time(self, sigma: Tensor) -> Tensor:
        """Not scaled."""
        return sigma

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """Nothing is padded; captions are attended without a mask, as in the pipeline."""
        return {
            "hidden_states": latents,
            "timestep": time,
            "encoder_hidden_states": conditions["text"],
            "padding_mask": latents.new_zeros(1, 1, *latents.shape[-2:]),
        }

    def scheduler(self, shift: float) -> FlowMatchEulerDiscreteScheduler:
        """As in the published pipeline: Euler steps on flow sigmas."""
        return FlowMatchEulerDiscreteScheduler(shift=shift)
