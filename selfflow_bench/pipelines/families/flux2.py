"""FLUX.2's published pipeline: three layers of Mistral Small 3 behind a system message, an autoencoder of 32 channels.

Its latents are packed, 2 x 2 cells of 32 channels to one of 128, and normalised by the autoencoder's own statistics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from diffusers import Flux2Pipeline
from diffusers.pipelines.flux2.pipeline_flux2 import compute_empirical_mu
from torch import Tensor
from torch.nn.functional import pixel_shuffle, pixel_unshuffle

from selfflow_bench.pipelines.base import PublishedPipeline


class Flux2Published(PublishedPipeline):
    """Pictures whose sides are multiples of 16; a reference picture's latents are made as the target's are."""

    pipeline_class = Flux2Pipeline
    steps = 50
    guidance = 4.0
    guided_by = "embedded"
    longest = 512

    def text_conditions(self, captions: list[str], length: int) -> dict[str, Tensor]:
        """``text``: padding has states too, and is attended. The system message's tokens count."""
        text, _ = self.pipeline.encode_prompt(captions, device=self.device, max_sequence_length=length)
        return {"text": text}

    def latents(self, values: Tensor) -> Tensor:
        """Of the posterior's mean."""
        mean, std = self._statistics()
        packed: Tensor = pixel_unshuffle(self.pipeline.vae.encode(values).latent_dist.mode(), 2)
        return (packed - mean) / std

    def decoded(self, latents: Tensor) -> Tensor:
        """Back to the autoencoder's own range, and through it."""
        mean, std = self._statistics()
        made: Tensor = self.pipeline.vae.decode(pixel_shuffle(latents * std + mean, 2), return_dict=False)[0]
        return made

    def timesteps(self, latent_shape: Sequence[int], steps: int) -> dict[str, Any]:
        """Sigmas in equal steps, shifted by the number of tokens and of steps."""
        exponent = compute_empirical_mu(image_seq_len=math.prod(latent_shape[1:]), num_steps=steps)
        return {"sigmas": np.linspace(1.0, 1 / steps, steps), "mu": exponent}

    def _statistics(self) -> tuple[Tensor, Tensor]:
        vae = self.pipeline.vae
        mean, variance = (found.view(1, -1, 1, 1) for found in (vae.bn.running_mean, vae.bn.running_var))
        return mean, (variance + vae.config.batch_norm_eps).sqrt()
