"""Stable Diffusion 3's published pipeline: two CLIP text encoders and T5, a KL autoencoder of 16 channels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from diffusers import StableDiffusion3Pipeline
from torch import Tensor

from selfflow_bench.pipelines.parts.scaled import ScaledAutoencoder
from selfflow_bench.pipelines.parts.shifted_by_size import shift_exponent


class SD3Published(ScaledAutoencoder):
    """The sampling that Stable Diffusion 3.5 medium is documented with."""

    pipeline_class = StableDiffusion3Pipeline
    steps = 40
    guidance = 4.5
    longest = 256

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """``text``: CLIP's 77 tokens, then T5's; ``pooled``: of both CLIPs. Captions are attended without a mask."""
        text, _, pooled, _ = self.pipeline.encode_prompt(
            captions, None, None, do_classifier_free_guidance=False, max_sequence_length=length, device=self.device
        )
        return {"text": text, "pooled": pooled}

    def timesteps(self, latent_shape: Sequence[int], steps: int) -> dict[str, Any]:
        """A shift by size only where the scheduler is configured for it."""
        found = super().timesteps(latent_shape, steps)
        if self.pipeline.scheduler.config.get("use_dynamic_shifting"):
            found["mu"] = shift_exponent(self.pipeline.scheduler, math.prod(latent_shape[1:]) // 4)
        return found
