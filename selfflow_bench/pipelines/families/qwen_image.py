"""Qwen-Image's published pipeline: Qwen 2.5-VL behind a template, a video autoencoder used for single frames."""

from __future__ import annotations

import torch
from diffusers import QwenImagePipeline
from torch import Tensor
from torch.nn.functional import pad

from selfflow_bench.families.parts.packing import pack, unpack
from selfflow_bench.pipelines.base import Guide
from selfflow_bench.pipelines.parts.same_length import of_same_length
from selfflow_bench.pipelines.parts.shifted_by_size import ShiftedBySize
from selfflow_bench.pipelines.parts.still import StillAutoencoder


class QwenImagePublished(ShiftedBySize, StillAutoencoder):
    """Pictures whose sides are multiples of 16. The template's own tokens do not count."""

    pipeline_class = QwenImagePipeline
    steps = 50
    guidance = 4.0
    longest = 512

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """``text``, zero behind a caption's end, and ``text_mask``."""
        text, mask = self.pipeline.encode_prompt(captions, max_sequence_length=length, device=self.device)
        if mask is None:
            mask = text.new_ones(text.shape[:2], dtype=torch.bool)
        behind = length - text.shape[1]
        return {"text": pad(text, (0, 0, 0, behind)), "text_mask": pad(mask.bool(), (0, behind))}

    def guide(self, scale: float) -> Guide:
        """Each token of the guided prediction is made as long as without guidance."""
        patch = (2, 2)

        def guided(predicted: Tensor, away: Tensor) -> Tensor:
            grid = [size // 2 for size in predicted.shape[2:]]
            kept = of_same_length(pack(away + scale * (predicted - away), patch), pack(predicted, patch))
            return unpack(kept, grid, patch)

        return guided
