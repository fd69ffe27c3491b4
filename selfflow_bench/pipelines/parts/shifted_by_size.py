"""Flow sigmas in equal steps from 1, which the scheduler shifts towards noise by the number of tokens."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from selfflow_bench.pipelines.base import PublishedPipeline


class ShiftedBySize(PublishedPipeline):
    """As FLUX.1's pipeline has it; how much is the scheduler's configuration, which may also turn it off."""

    def tokens(self, latent_shape: Sequence[int]) -> int:
        """Of latents ``[C, *cells]``, as the pipeline counts them: of 2 x 2 cells each."""
        return math.prod(latent_shape[1:]) // 4

    def timesteps(self, latent_shape: Sequence[int], steps: int) -> dict[str, Any]:
        """The sigmas themselves, and the shift's exponent."""
        return {
            "sigmas": np.linspace(1.0, 1 / steps, steps),
            "mu": shift_exponent(self.pipeline.scheduler, self.tokens(latent_shape)),
        }


def shift_exponent(scheduler: Any, tokens: int) -> float:
    """Linear in the number of tokens, through two points of the scheduler's configuration."""
    config = scheduler.config
    exponent: float = calculate_shift(
        tokens,
        config.get("base_image_seq_len", 256),
        config.get("max_image_seq_len", 4096),
        config.get("base_shift", 0.5),
        config.get("max_shift", 1.15),
    )
    return exponent
