"""Kandinsky 5 Video (arXiv 2511.14993): cross-attention blocks under nine modulations each."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from selfflow_bench.conditioning import LevelRows
from selfflow_bench.families.base import Conditions
from selfflow_bench.families.parts.kandinsky5 import Kandinsky5


class Kandinsky5Video(Kandinsky5):
    """Video."""

    modality = "video"

    def patch(self) -> tuple[int, ...]:
        """(time, height, width)."""
        return self.clip_patch()

    def arguments(self, latents: Tensor, time: Tensor | LevelRows, conditions: Conditions) -> dict[str, Any]:
        """As they are."""
        return self.clip_arguments(latents, time, conditions)
