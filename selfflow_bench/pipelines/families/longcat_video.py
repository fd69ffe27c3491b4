"""LongCat-Video's parts: UMT5 and Wan's autoencoder, of diffusers' own classes; its pipeline is upstream's alone."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderKLWan, FlowMatchEulerDiscreteScheduler
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from torch import Tensor
from transformers import AutoTokenizer, UMT5EncoderModel

from selfflow_bench.pipelines.base import Guide
from selfflow_bench.pipelines.parts.assembled import Assembled
from selfflow_bench.pipelines.parts.standardized import StandardizedAutoencoder


class LongCatVideoPublished(StandardizedAutoencoder):
    """Clips have one frame more than a multiple of four. Text to video, without upstream's refinement."""

    pipeline_class = Assembled
    steps = 50
    guidance = 4.0
    longest = 512
    of_text = ("text_encoder", "tokenizer")

    def load(self, snapshot: Path, dtype: torch.dtype, absent: Sequence[str]) -> Any:
        """The folder's parts."""
        return Assembled.of(
            snapshot,
            absent,
            vae=(AutoencoderKLWan, torch.float32),
            text_encoder=(UMT5EncoderModel, dtype),
            tokenizer=(AutoTokenizer, None),
            scheduler=(FlowMatchEulerDiscreteScheduler, None),
        )

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """``text`` and ``text_mask``: captions are cleaned as Wan's are; what is behind them the transformer zeroes."""
        tokens = self.pipeline.tokenizer(
            [prompt_clean(caption) for caption in captions],
            padding="max_length",
            max_length=length,
            truncation=True,
            return_tensors="pt",
        ).to(self.device)
        text = self.pipeline.text_encoder(tokens.input_ids, tokens.attention_mask).last_hidden_state
        return {"text": text, "text_mask": tokens.attention_mask.bool()}

    def timesteps(self, latent_shape: Sequence[int], steps: int) -> dict[str, Any]:
        """Sigmas in equal steps from 1 to almost 0, where the last step begins."""
        return {"sigmas": np.linspace(1.0, 0.001, steps)}

    def guide(self, scale: float) -> Guide:
        """Away from what of the unwanted is in the wanted (CFG-Zero, arXiv 2503.18886), for each sample."""

        def guided(predicted: Tensor, away: Tensor) -> Tensor:
            axes = tuple(range(1, predicted.ndim))
            along = (predicted * away).sum(axes, keepdim=True) / (away.square().sum(axes, keepdim=True) + 1e-8)
            return along * away + scale * (predicted - along * away)

        return guided
