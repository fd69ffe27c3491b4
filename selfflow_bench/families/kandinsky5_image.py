"""Kandinsky 5 Image (arXiv 2511.14993): the video model's class on one frame."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import Conditions
from selfflow_bench.families.parts.kandinsky5 import Kandinsky5


class Kandinsky5Image(Kandinsky5):
    """Images, as clips of one frame."""

    modality = "image"

    def patch(self) -> tuple[int, ...]:
        """(height, width)."""
        return self.clip_patch()[1:]

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """With a frame axis."""
        return self.clip_arguments(latents[:, :, None], time, conditions)

    def prediction(self, output: Tensor, latents: Tensor) -> Tensor:
        """Without the frame axis."""
        return super().prediction(output, latents)[:, :, 0]
