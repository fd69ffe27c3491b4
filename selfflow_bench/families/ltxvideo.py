"""LTX-Video (arXiv 2501.00103): full space-time attention over latents that need no patches."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from diffusers import FlowMatchEulerDiscreteScheduler, LTXVideoTransformer3DModel
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import REFERENCE, Conditions, Family
from selfflow_bench.families.parts.first_frame import with_first_frame, with_first_levels, with_first_time
from selfflow_bench.families.parts.packing import pack, unpack


class LTXVideo(Family):
    """Video. Output: noise - data. Time: 1000 sigma. With a reference: image to video."""

    modality = "video"
    accepts = (REFERENCE,)
    transformer_class = LTXVideoTransformer3DModel

    def patch(self) -> tuple[int, ...]:
        """(time, height, width); the caller packs."""
        size = int(self.config.get("patch_size", 1))
        return (int(self.config.get("patch_size_t", 1)), size, size)

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """All blocks are alike; each returns the video tokens."""
        return list(transformer.get_submodule("transformer_blocks").children())

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """Captions are attended under their mask. Positions are stretched as if the clip were of the published size."""
        clip = with_first_frame(latents, conditions)
        frames, height, width = self.token_grid(clip.shape[1:])
        tokens = math.prod(self.token_grid(latents.shape[1:]))
        return {
            "hidden_states": pack(clip, self.patch()),
            "timestep": with_first_time(time, tokens, height * width, conditions),
            "encoder_hidden_states": conditions["text"],
            "encoder_attention_mask": conditions["text_mask"],
            "num_frames": frames,
            "height": height,
            "width": width,
            "rope_interpolation_scale": (_FRAME_SCALE, _CELL_SCALE, _CELL_SCALE),
        }

    def sequences(
        self, target: Tensor, context: int, clean: int, latents: Tensor, conditions: Conditions
    ) -> Sequence[Tensor]:
        """The clip, its clean first frame with it."""
        _, height, width = self.token_grid(latents.shape[1:])
        return [with_first_levels(target, height * width, clean, conditions)]

    def prediction(self, output: Tensor, latents: Tensor) -> Tensor:
        """The target's frames, unpacked."""
        grid = self.token_grid(latents.shape[1:])
        return unpack(output[:, -math.prod(grid) :], grid, self.patch())

    def hidden_tokens(self, output: Any, latents: Tensor, conditions: Conditions) -> Tensor:
        """The target's frames come last."""
        tokens: Tensor = output[:, -math.prod(self.token_grid(latents.shape[1:])) :]
        return tokens

    def scheduler(self, shift: float) -> FlowMatchEulerDiscreteScheduler:
        """As in the published pipeline: Euler steps on shifted flow sigmas."""
        return FlowMatchEulerDiscreteScheduler(shift=shift)


_FRAME_SCALE, _CELL_SCALE = 8 / 25, 32.0
"""Seconds per latent frame and pixels per latent cell, as the pipeline has them: 8 frames at 25 a second, 32 pixels."""
