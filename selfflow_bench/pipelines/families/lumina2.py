"""Lumina-Image 2.0's published pipeline: Gemma 2 behind a system prompt, FLUX.1's autoencoder."""

from __future__ import annotations

import torch
from diffusers import Lumina2Pipeline
from torch import Tensor

from selfflow_bench.pipelines.parts.scaled import ScaledAutoencoder


class Lumina2Published(ScaledAutoencoder):
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
