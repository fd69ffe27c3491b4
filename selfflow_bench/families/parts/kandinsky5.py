"""Kandinsky 5: one transformer class for pictures and clips, channels last."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from diffusers import FlowMatchEulerDiscreteScheduler, Kandinsky5Transformer3DModel
from torch import Tensor, nn

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import ATTENDED, Conditions, Family
from selfflow_bench.families.parts.context_rows import fill_context_mean, take_context_row
from selfflow_bench.families.parts.hidden_padding import ARGUMENT, hide_padding
from selfflow_bench.families.parts.pooled_text import pooled_text


class Kandinsky5(Family):
    """Output: noise - data. Time: 1000 sigma. Its rotary embedding rounds to bfloat16 whatever the weights are.

    The configuration may have ``rope_scale_factor``, by which places (time, height, width) are divided.
    """

    modulates_context = True
    transformer_class = Kandinsky5Transformer3DModel

    def __init__(self, config: Mapping[str, Any]) -> None:
        super().__init__(config)
        # What the published pipeline calls the model with, by the size of its clips: no argument of the class.
        self._rope_scale = tuple(float(scale) for scale in self.config.pop("rope_scale_factor", (1.0, 1.0, 1.0)))

    def attach(self, transformer: nn.Module) -> None:
        """The text's own blocks get the mean of the time embedding. What is not attended is hidden."""
        hide_padding(transformer)
        fill_context_mean(transformer.get_submodule("time_embeddings"))
        for block in transformer.get_submodule("text_transformer_blocks").children():
            take_context_row(block)

    def clip_patch(self) -> tuple[int, ...]:
        """(time, height, width)."""
        return tuple(int(size) for size in self.config.get("patch_size", (1, 2, 2)))

    def blocks(self, transformer: nn.Module) -> Sequence[nn.Module]:
        """The visual blocks; each returns the visual tokens."""
        return list(transformer.get_submodule("visual_transformer_blocks").children())

    def clip_arguments(self, clips: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """For latents ``[B, C, T, H, W]``. Checkpoints that can be given a first frame are given none: zeros."""
        cells = clips.movedim(1, -1)
        if self.config.get("visual_cond"):
            cells = torch.cat([cells, torch.zeros_like(cells), torch.zeros_like(cells[..., :1])], -1)
        grid = [size // patch for size, patch in zip(clips.shape[2:], self.clip_patch(), strict=True)]
        arguments = {
            "hidden_states": cells,
            "timestep": time,
            "encoder_hidden_states": conditions["text"],
            "pooled_projections": pooled_text(conditions),
            "visual_rope_pos": [torch.arange(size, device=clips.device) for size in grid],
            "text_rope_pos": torch.arange(conditions["text"].shape[1], device=clips.device),
            "scale_factor": self._rope_scale,
        }
        if ATTENDED in conditions:
            arguments[ARGUMENT] = conditions[ATTENDED]
        return arguments

    def prediction(self, output: Tensor, latents: Tensor) -> Tensor:
        """Channels first again; ``[B, C, T, H, W]``."""
        return output.movedim(-1, 1)

    def scheduler(self, shift: float) -> FlowMatchEulerDiscreteScheduler:
        """As in the published pipelines: Euler steps on shifted flow sigmas."""
        return FlowMatchEulerDiscreteScheduler(shift=shift)
