"""HunyuanVideo 1.5's published pipeline: Qwen 2.5-VL, ByT5 for what is to be written, a 16 x 16 x 4 autoencoder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers import HunyuanVideo15Pipeline
from torch import Tensor

from selfflow_bench.pipelines.parts.scaled import ScaledAutoencoder


class HunyuanVideoPublished(ScaledAutoencoder):
    """Clips have one frame more than a multiple of four. Quoted text in captions goes to ByT5 as well."""

    pipeline_class = HunyuanVideo15Pipeline
    steps = 50
    guidance = 6.0
    longest = 1000

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """``text`` and ``text_mask`` of Qwen; ``text_2`` and ``text_2_mask`` of ByT5, 256 tokens."""
        self.pipeline.tokenizer_max_length = length
        text, mask, glyphs, glyph_mask = self.pipeline.encode_prompt(
            captions, batch_size=len(captions), device=self.device
        )
        return {"text": text, "text_mask": mask.bool(), "text_2": glyphs, "text_2_mask": glyph_mask.bool()}

    def encoded(self, values: Tensor) -> Tensor:
        """One clip at a time: the autoencoder's attention mask is of one (diffusers 0.42.1)."""
        return torch.cat([super(HunyuanVideoPublished, self).encoded(clip[None]) for clip in values.unbind()])

    def decoded(self, latents: Tensor) -> Tensor:
        """One clip at a time, as `encoded`."""
        return torch.cat([super(HunyuanVideoPublished, self).decoded(clip[None]) for clip in latents.unbind()])

    def timesteps(self, latent_shape: Sequence[int], steps: int) -> dict[str, Any]:
        """Sigmas in equal steps from 1."""
        return {"sigmas": np.linspace(1.0, 1 / steps, steps)}
