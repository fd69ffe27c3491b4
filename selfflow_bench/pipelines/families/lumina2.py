"""Lumina-Image 2.0's published pipeline: Gemma 2 behind a system prompt, FLUX.1's autoencoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from diffusers import Lumina2Pipeline
from torch import Tensor

from selfflow_bench.pipelines.base import Guide
from selfflow_bench.pipelines.parts.same_length import of_same_length
from selfflow_bench.pipelines.parts.scaled import ScaledAutoencoder
from selfflow_bench.pipelines.parts.shifted_by_size import ShiftedBySize


class Lumina2Published(ShiftedBySize, ScaledAutoencoder):
    """The system prompt counts among a caption's tokens; the empty caption has none, as what is guided away from."""

    pipeline_class = Lumina2Pipeline
    steps = 50
    guidance = 4.0
    longest = 256

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """``text`` and ``text_mask``."""
        text, mask, no_text, no_mask = self.pipeline.encode_prompt(
            captions, do_classifier_free_guidance=True, max_sequence_length=length, device=self.device
        )
        empty = torch.tensor([not caption for caption in captions], device=self.device)
        return {
            "text": torch.where(empty[:, None, None], no_text, text),
            "text_mask": torch.where(empty[:, None], no_mask, mask).bool(),
        }

    def tokens(self, latent_shape: Sequence[int]) -> int:
        """The pipeline reads the channels here; the published scheduler does not shift by size."""
        return latent_shape[0]

    def guide(self, scale: float) -> Guide:
        """Each row of cells of the guided prediction is made as long as without guidance."""
        return lambda predicted, away: of_same_length(away + scale * (predicted - away), predicted)
